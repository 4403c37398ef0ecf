/** The standard client: what programs of `@effect/sql` write, on the real server and on embedded SQLite. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as SqlStatement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Str from "effect/String"
import { inject } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import type { DbError } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import { type Dialect, dialects, failure, withDialect } from "../support/bothDatabases.js"
import {} from "../support/dbFixture.js"

type Client = SqlClient.SqlClient

const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

const keys = { mysql: "BIGINT PRIMARY KEY AUTO_INCREMENT", sqlite: "INTEGER PRIMARY KEY AUTOINCREMENT" } as const

const people = (sql: Client, dialect: Dialect) =>
  Effect.gen(function*() {
    yield* sql.unsafe(`CREATE TABLE people (id ${keys[dialect]}, first_name VARCHAR(100), age INT)`)
    yield* sql`INSERT INTO people (first_name, age) VALUES ('Ada', 36), (NULL, 40), ('Bob', NULL)`
  })

const rows = [
  { id: 1, first_name: "Ada", age: 36 },
  { id: 2, first_name: null, age: 40 },
  { id: 3, first_name: "Bob", age: null }
]

const on = (
  dialect: Dialect,
  test: (sql: Client) => Effect.Effect<void, SqlError | DbError, DbLayer.Services>
) =>
  withDialect(
    dialect,
    { poolSize: 3 },
    Effect.flatMap(SqlClient.SqlClient, (sql) => Effect.zipRight(people(sql, dialect), test(sql)))
  )

const both = (
  name: string,
  test: (sql: Client, dialect: Dialect) => Effect.Effect<void, SqlError | DbError, DbLayer.Services>
) => {
  it.live.each(dialects)(`${name} (%s)`, (dialect) => on(dialect, (sql) => test(sql, dialect)))
}

const returning = (dialect: Dialect) => dialect === "sqlite" || inject("server").flavour === "mariadb"

describe("a statement", () => {
  both("from a template gives its rows as records", (sql) =>
    Effect.gen(function*() {
      expect(yield* sql`SELECT * FROM people ORDER BY id`).toEqual(rows)
      expect(yield* sql`SELECT id FROM people WHERE first_name = ${"Ada"} AND age > ${35}`).toEqual([{ id: 1 }])
      expect(yield* sql`SELECT id FROM people WHERE first_name = ${"' OR '1' = '1"}`).toEqual([])
      expect(yield* sql`DELETE FROM people WHERE id = ${1}`).toEqual([])
      expect(yield* sql`SELECT id FROM people ORDER BY id`).toEqual([{ id: 2 }, { id: 3 }])
    }))

  both("inserts one row, many, and gives them back where the database can", (sql, dialect) =>
    Effect.gen(function*() {
      yield* sql`INSERT INTO people ${sql.insert({ first_name: "Cid", age: 1 })}`
      yield* sql`INSERT INTO people ${sql.insert([{ first_name: "Dee", age: null }, { first_name: "Eve", age: 3 }])}`
      expect(yield* sql`SELECT * FROM people WHERE id > 3 ORDER BY id`).toEqual([
        { id: 4, first_name: "Cid", age: 1 },
        { id: 5, first_name: "Dee", age: null },
        { id: 6, first_name: "Eve", age: 3 }
      ])
      const inserted = sql`INSERT INTO people ${sql.insert({ first_name: "Fay", age: 4 }).returning("*")}`
      if (returning(dialect)) expect(yield* inserted).toEqual([{ id: 7, first_name: "Fay", age: 4 }])
      else expect((yield* failure(inserted)).cause).toMatchObject({ _tag: "SqlSyntaxError" })
    }))

  both("updates from a record, without the columns that are left out", (sql) =>
    Effect.gen(function*() {
      const change = { id: 2, first_name: "Max", age: 41 }
      yield* sql`UPDATE people SET ${sql.update(change, ["id"])} WHERE id = ${change.id}`
      expect(yield* sql`SELECT * FROM people WHERE age = 41`).toEqual([change])
    }))

  both("is composed of in, and, or, csv, join, literal, names and fragments", (sql) =>
    Effect.gen(function*() {
      const ids = (where: SqlStatement.Fragment) =>
        Effect.map(sql<{ id: number }>`SELECT id FROM people WHERE ${where} ORDER BY id`, (all) =>
          all.map(({ id }) => id))
      expect(yield* ids(sql.in("id", [1, 3, 9]))).toEqual([1, 3])
      expect(yield* ids(sql.in("id", []))).toEqual([])
      expect(yield* ids(sql`id IN ${sql.in([2, 3])}`)).toEqual([2, 3])
      expect(yield* ids(sql.and(["id > 1", sql`age IS NOT NULL`]))).toEqual([2])
      expect(yield* ids(sql.and([]))).toEqual([1, 2, 3])
      expect(yield* ids(sql.or([sql`id = ${1}`, sql`id = ${3}`]))).toEqual([1, 3])
      expect(yield* ids(sql.join(" OR ", false)([sql`id = ${2}`, sql`id = ${3}`]))).toEqual([2, 3])
      expect(yield* ids(sql`${sql("first_name")} = ${"Bob"} ${sql.literal("AND age IS NULL")}`)).toEqual([3])
      expect(
        yield* sql`SELECT ${sql.csv(["id", sql`${sql("age")}`])} FROM ${sql("people")} ${sql.csv("ORDER BY", ["id"])}`
      )
        .toEqual(rows.map(({ age, id }) => ({ id, age })))
      expect(yield* sql.unsafe("SELECT id FROM people WHERE id > ? AND id < ?", [1, 3])).toEqual([{ id: 2 }])
    }))

  both("quotes a name, whatever is in it", (sql) =>
    Effect.gen(function*() {
      yield* sql`CREATE TABLE ${sql("strange `\" name")} (${sql("a `\" column")} INT)`
      yield* sql`INSERT INTO ${sql("strange `\" name")} ${sql.insert({ "a `\" column": 1 })}`
      expect(yield* sql`SELECT * FROM ${sql("strange `\" name")}`).toEqual([{ "a `\" column": 1 }])
      expect(yield* sql`SELECT ${sql("people.id")} FROM people WHERE ${sql("people.age")} = 36`).toEqual([{ id: 1 }])
    }))

  both(
    "gives its rows as a stream, as arrays, raw, unprepared and without transformation",
    (sql) =>
      Effect.gen(function*() {
        const all = sql`SELECT * FROM people WHERE id < ${9} ORDER BY id`
        expect(yield* collect(all.stream)).toEqual(rows)
        expect(yield* all.values).toEqual(rows.map(({ age, first_name, id }) => [id, first_name, age]))
        expect(yield* all.raw).toEqual(rows)
        expect(yield* all.unprepared).toEqual(rows)
        expect(yield* all.withoutTransform).toEqual(rows)
        const nothing = sql`SELECT * FROM people WHERE id < ${0}`
        expect(yield* nothing.raw).toEqual([])
        expect(yield* nothing.values).toEqual([])
        expect(yield* nothing.unprepared).toEqual([])
        expect(yield* collect(nothing.stream)).toEqual([])
      })
  )

  both("has a stream of more rows than come in one piece, which may be ended early", (sql) =>
    Effect.gen(function*() {
      const many = sql<{ i: number }>`
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${900}) SELECT i FROM n`
      const all = yield* collect(many.stream)
      expect(all.map(({ i }) => i)).toEqual(Array.from({ length: 900 }, (_, at) => at + 1))
      expect(yield* collect(Stream.take(many.stream, 2))).toEqual([{ i: 1 }, { i: 2 }])
      expect(yield* sql`SELECT COUNT(*) AS n FROM people`).toEqual([{ n: 3 }])
    }))

  both("chooses by the dialect", (sql, dialect) =>
    Effect.gen(function*() {
      const name = { mssql: () => "mssql", pg: () => "pg", clickhouse: () => "clickhouse" }
      expect(sql.onDialect({ ...name, mysql: () => "mysql", sqlite: () => "sqlite" })).toBe(dialect)
      expect(sql.onDialectOrElse({ mysql: () => "mysql", orElse: () => "sqlite" })).toBe(dialect)
    }))

  both("fails with what the database said", (sql) =>
    Effect.gen(function*() {
      const missing = yield* failure(sql`SELECT * FROM nowhere`)
      expect(missing).toMatchObject({ _tag: "SqlError", message: "Failed to execute statement" })
      expect(missing.cause).toMatchObject({ _tag: "SqlSyntaxError" })
      const streamed = yield* failure(collect(sql`SELECT * FROM nowhere`.stream))
      expect(streamed).toMatchObject({ _tag: "SqlError", message: "Failed to stream statement" })
      expect(streamed.cause).toMatchObject({ _tag: "SqlSyntaxError" })
      for (const each of [sql`SELECT ${undefined}`, sql.unsafe("SELECT ?", [Symbol("x")])]) {
        for (const run of [each, each.raw, each.values, each.unprepared, each.withoutTransform, collect(each.stream)]) {
          expect((yield* failure(run)).cause).toMatchObject({ _tag: "ParameterError" })
        }
      }
      expect((yield* failure(sql.unsafe("SELECT 1; SELECT 2"))).cause).toMatchObject({ _tag: "InvalidStatement" })
      expect((yield* failure(sql.unsafe(" "))).cause).toMatchObject({ _tag: "InvalidStatement" })
    }))
})

describe("names", () => {
  const options = { transformQueryNames: Str.camelToSnake, transformResultNames: Str.snakeToCamel }
  const renamed = (name: string, test: (sql: Client) => Effect.Effect<void, SqlError>) => {
    both(
      name,
      () =>
        Effect.flatMap(
          ConnectionPool.ConnectionPool,
          (pool) => Effect.provide(Effect.flatMap(SqlClient.SqlClient, test), DbLayer.fromPool(pool, options))
        )
    )
  }

  renamed("are transformed on their way in and out", (sql) =>
    Effect.gen(function*() {
      yield* sql`INSERT INTO people ${sql.insert({ firstName: "Cid", age: 1 })}`
      yield* sql`UPDATE people SET ${sql.update({ firstName: "Sid" })} WHERE ${sql.in("firstName", ["Cid"])}`
      const found = sql`SELECT ${sql("firstName")}, age AS the_age FROM people WHERE ${sql("firstName")} = ${"Sid"}`
      const expected = [{ firstName: "Sid", theAge: 1 }]
      expect(yield* found).toEqual(expected)
      expect(yield* found.unprepared).toEqual(expected)
      expect(yield* collect(found.stream)).toEqual(expected)
      expect(yield* found.values).toEqual([["Sid", 1]])
    }))

  renamed("are left alone by withoutTransform, raw and a client without transforms", (sql) =>
    Effect.gen(function*() {
      const own = sql`SELECT ${sql("first_name")} FROM people WHERE id = 1`
      expect(yield* own.withoutTransform).toEqual([{ first_name: "Ada" }])
      expect(yield* own.raw).toEqual([{ first_name: "Ada" }])
      const plain = sql.withoutTransforms()
      expect(yield* plain`SELECT ${plain("first_name")} FROM people WHERE id = 1`).toEqual([{ first_name: "Ada" }])
      expect(plain`SELECT ${plain("firstName")}`.compile()[0]).not.toContain("first_name")
      expect(plain.withoutTransforms()).toBe(plain)
      expect(yield* plain.withTransaction(plain`SELECT first_name FROM people WHERE id = 3`)).toEqual([
        { first_name: "Bob" }
      ])
      expect(yield* own).toEqual([{ firstName: "Ada" }])
    }))

  both(
    "of a client that does not transform are the same without transforms, and safe is the client",
    (sql) =>
      Effect.sync(() => {
        expect(sql.withoutTransforms()).toBe(sql)
        expect(sql.safe).toBe(sql)
        expect(sql.withoutTransforms().safe).toBe(sql)
      })
  )
})

describe("a transformer", () => {
  both("rewrites every statement of its effect, and no other", (sql) =>
    Effect.gen(function*() {
      const texts: Array<string> = []
      const first: SqlStatement.Statement.Transformer = (self, make) =>
        Effect.sync(() => {
          texts.push(self.compile()[0])
          return make`${self} LIMIT ${1}`
        })
      const all = sql`SELECT id FROM people ORDER BY id`
      const once = Effect.all([all, all.unprepared, all.raw, collect(all.stream), all.withoutTransform])
      expect(yield* SqlStatement.withTransformer(once, first)).toEqual(Array.from({ length: 5 }, () => [{ id: 1 }]))
      expect(texts).toEqual(Array.from({ length: 5 }, () => "SELECT id FROM people ORDER BY id"))
      expect(yield* Effect.provide(all, SqlStatement.setTransformer(first))).toEqual([{ id: 1 }])
      expect(yield* SqlStatement.withTransformer(SqlStatement.withTransformerDisabled(all), first)).toHaveLength(3)
      expect(yield* all).toHaveLength(3)
      expect(texts).toHaveLength(6)
    }))
})
