/** The standard client beside the one that it stands in for, and beside the Reactivity that a program brings along. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import {} from "vitest"
import type {} from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import { type Dialect, dialects } from "../support/bothDatabases.js"
import { withFixture } from "../support/dbFixture.js"

type Client = SqlClient.SqlClient

const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

const keys = { mysql: "BIGINT PRIMARY KEY AUTO_INCREMENT", sqlite: "INTEGER PRIMARY KEY AUTOINCREMENT" } as const

const people = (sql: Client, dialect: Dialect) =>
  Effect.gen(function*() {
    yield* sql.unsafe(`CREATE TABLE people (id ${keys[dialect]}, first_name VARCHAR(100), age INT)`)
    yield* sql`INSERT INTO people (first_name, age) VALUES ('Ada', 36), (NULL, 40), ('Bob', NULL)`
  })

describe("reactive", () => {
  /** As a program has it that takes the client's layer and Reactivity's side by side. */
  const beside = (
    name: string,
    test: (sql: Client, reactivity: Reactivity.Reactivity.Service) => Effect.Effect<void, SqlError>
  ) => {
    it.live.each(dialects)(`${name} (%s)`, (dialect) =>
      withFixture((fixture) => {
        const layer: Layer.Layer<DbLayer.Services, unknown> = dialect === "mysql"
          ? DbLayer.mysql({ url: fixture.url, poolSize: 3 })
          : DbLayer.sqlite()
        const program = Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* people(sql, dialect)
          yield* test(sql, yield* Reactivity.Reactivity)
        })
        return Effect.provide(program, Layer.merge(layer, Reactivity.layer))
      }))
  }
  const count = (sql: Client) =>
    Effect.map(sql<{ n: number }>`SELECT COUNT(*) AS n FROM people`, (found) => found[0]?.n)
  const insert = (sql: Client) => sql`INSERT INTO people ${sql.insert({ first_name: "Cid" })}`

  beside(
    "runs its effect again after each mutation, through the Reactivity beside its layer",
    (sql, reactivity) =>
      Effect.gen(function*() {
        const seen = yield* sql.reactive(["people"], count(sql)).pipe(
          Stream.tap(() => reactivity.mutation(["people"], insert(sql))),
          Stream.take(3),
          collect
        )
        expect(seen).toEqual([3, 4, 5])
      })
  )

  beside("tells a mailbox", (sql, reactivity) =>
    Effect.scoped(Effect.gen(function*() {
      const mailbox = yield* sql.reactiveMailbox(["people"], count(sql))
      expect(yield* Effect.orDie(mailbox.take)).toBe(3)
      yield* reactivity.mutation(["animals"], insert(sql))
      yield* reactivity.mutation(["people"], insert(sql))
      expect(yield* Effect.orDie(mailbox.take)).toBe(5)
    })))
})

describe("as the field's own client", () => {
  /** The same on this library's layer and on the one that it stands in for. */
  const twins = <A>(name: string, program: (sql: Client) => Effect.Effect<A, SqlError>, check: (value: A) => void) => {
    it.live(name, () =>
      withFixture((fixture) => {
        const run = Effect.flatMap(SqlClient.SqlClient, (sql) =>
          Effect.zipRight(
            people(sql, "mysql"),
            Effect.ensuring(program(sql), Effect.orDie(sql`DROP TABLE people`))
          ))
        return Effect.gen(function*() {
          const ours = yield* Effect.provide(run, DbLayer.mysql({ url: fixture.url, poolSize: 3 }))
          const theirs = yield* Effect.provide(run, MysqlClient.layer({ url: fixture.url }))
          check(ours)
          expect(ours).toEqual(theirs)
        })
      }))
  }
  /** What this library says of a statement without rows; the other says more. */
  const header = (result: unknown) => {
    const { affectedRows, changedRows, fieldCount, info, insertId, warningStatus } = result as Record<string, unknown>
    return { affectedRows, changedRows, fieldCount, info, insertId, warningStatus }
  }
  const headers = (results: ReadonlyArray<unknown>) =>
    results.map((result) => Array.isArray(result) ? result : header(result))

  twins(
    "raw gives the header of a write",
    (sql) =>
      Effect.map(
        Effect.all([
          sql`INSERT INTO people (first_name) VALUES ('Cid'), ('Dee')`.raw,
          sql`UPDATE people SET age = 40 WHERE id < 3`.raw,
          sql`INSERT IGNORE INTO people (id) VALUES (1), (9)`.raw,
          sql`INSERT INTO people (id) VALUES (9007199254740993)`.raw,
          sql`DELETE FROM people`.raw
        ]),
        headers
      ),
    (all) => {
      const none = { fieldCount: 0, changedRows: 0, info: "", insertId: 0, warningStatus: 0 }
      const written = "Records: 2  Duplicates: 0  Warnings: 0"
      const updated = "Rows matched: 2  Changed: 1  Warnings: 0"
      expect(all[0]).toEqual({ ...none, affectedRows: 2, insertId: 4, info: written })
      expect(all[1]).toEqual({ ...none, affectedRows: 2, changedRows: 1, info: updated })
      expect(all[2]).toMatchObject({ affectedRows: 1, warningStatus: 1 })
      expect(all[3]).toEqual({ ...none, affectedRows: 1, insertId: "9007199254740993" })
      expect(all[4]).toEqual({ ...none, affectedRows: 7 })
    }
  )

  twins("a procedure gives all of its results, by each form", (sql) =>
    Effect.gen(function*() {
      yield* sql.unsafe(
        "CREATE PROCEDURE several (most INT) BEGIN SELECT id FROM people WHERE id <= most;"
          + " SELECT 'b' AS second; UPDATE people SET age = 1 WHERE id = 3; END"
      ).unprepared
      const call = sql`CALL several(${2})`
      const all = [yield* call, (yield* call.raw) as ReadonlyArray<unknown>, yield* call.values, yield* call.unprepared]
      // MySQL does not prepare it, and then only this pool sends it as a text
      yield* sql`DROP PROCEDURE several`.unprepared
      return all.map(headers)
    }), (all) => {
    for (const at of [0, 1, 3]) expect(all[at]?.slice(0, 2)).toEqual([[{ id: 1 }, { id: 2 }], [{ second: "b" }]])
    expect(all[2]?.slice(0, 2)).toEqual([[[1], [2]], [["b"]]])
    expect(all[0]?.[2]).toMatchObject({ affectedRows: 1 })
  })

  twins("an unprepared text of several statements gives the results of all", (sql) =>
    Effect.gen(function*() {
      const text = "INSERT INTO people (first_name) VALUES (?), (?); SELECT id FROM people WHERE id > ?;"
        + " UPDATE people SET age = 40; SELECT LAST_INSERT_ID() AS last;"
      return headers(yield* sql.unsafe(text, ["?; x", "y", 4]).unprepared)
    }), (all) => {
    expect(all).toMatchObject([
      { affectedRows: 2, insertId: 4 },
      [{ id: 5 }],
      { affectedRows: 5, changedRows: 4 },
      [{ last: 4 }]
    ])
  })

  twins(
    "an error has its number and its name",
    (sql) =>
      Effect.map(
        Effect.flip(Effect.asVoid(sql`INSERT INTO people (id) VALUES (1)`)) as Effect.Effect<SqlError>,
        ({ _tag, cause, message }) => {
          const { code, errno, sqlState } = cause as Record<string, unknown>
          return { _tag, code, errno, message, sqlState }
        }
      ),
    (error) => expect(error).toMatchObject({ _tag: "SqlError", code: "ER_DUP_ENTRY", errno: 1062, sqlState: "23000" })
  )

  twins("helpers are compiled to the same texts", (sql) =>
    Effect.sync(() => [
      sql`UPDATE people SET x = 1 ${sql.updateValues([{ id: 1, age: 2 }], "data")}`.compile(),
      sql`INSERT INTO people ${sql.insert([{ a: 1, b: undefined }, { a: null, b: "x" }]).returning(sql("a.b"))}`
        .compile(),
      sql`SELECT ${sql("a`b.c")} WHERE ${sql.or([sql.in("x", [1, 2]), sql.and([])])}`.compile()
    ]), (all) => {
    expect(all[1]).toEqual(["INSERT INTO people (`a`,`b`) VALUES (?,?),(?,?) RETURNING `a`.`b`", [1, null, null, "x"]])
  })
})
