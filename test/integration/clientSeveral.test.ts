/** Several statements in one unprepared text, which the server takes for that text and for no other. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import { failure, withDialect } from "../support/bothDatabases.js"
import { type DbFixture, withDb } from "../support/dbFixture.js"
import {} from "../support/dbQuestions.js"

type Client = SqlClient.SqlClient
type Test = (
  sql: Client,
  db: Db.DbService,
  fixture: DbFixture
) => Effect.Effect<void, SqlError | DbError.DbError, DbLayer.Services>

const onServer = (test: Test, options: MysqlOptions = {}) =>
  withDb({ poolSize: 2, acquireTimeout: "5 seconds", ...options }, (fixture) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50)) ENGINE = InnoDB`
      yield* test(sql, yield* Db.Db, fixture)
    }))

/** In one session, so that all of it is on one connection. */
const onOne = (test: Test) => onServer((sql, db, fixture) => db.session(test(sql, db, fixture)))

const names = (sql: Client) =>
  Effect.map(sql<{ name: string }>`SELECT name FROM items ORDER BY id`, (found) => found.map(({ name }) => name))
const idOf = (sql: Client) => Effect.map(sql<{ id: number }>`SELECT CONNECTION_ID() AS id`, (found) => found[0]?.id)
const refusal = <A, E>(effect: Effect.Effect<A, E>) => Effect.map(failure(effect), DbError.find)

/**
 * That the server takes no second statement. This text is one to whoever reads it without a grammar, since the semicolons
 * of a procedure separate nothing: it is sent, and it is the server that must refuse it.
 */
const expectForbidden = (sql: Client, db: Db.DbService) =>
  Effect.gen(function*() {
    const before = yield* names(sql)
    const text = "CREATE PROCEDURE smuggled () SELECT 1; DROP TABLE items"
    for (const run of [sql.unsafe(text).unprepared, sql.unsafe(text), sql.unsafe(text).raw, db.execute(text)]) {
      expect(yield* refusal<unknown, SqlError | DbError.DbError>(run)).toMatchObject({ errno: 1064 })
    }
    expect(yield* names(sql)).toEqual(before)
  })

describe("several statements", () => {
  it.live("give one result each, and have values in all of them", () =>
    onOne((sql) =>
      Effect.gen(function*() {
        const text = "INSERT INTO items (name) VALUES (?); SELECT name FROM items WHERE name = ?; SELECT 1 AS one;"
        const found = yield* sql.unsafe(text, ["a;b", "a;b"]).unprepared
        expect(found).toMatchObject([{ affectedRows: 1, insertId: 1 }, [{ name: "a;b" }], [{ one: 1 }]])
        expect(yield* sql.unsafe("SELECT 1 AS one;").unprepared).toEqual([{ one: 1 }])
      })
    ))

  it.live("are refused in every other form, before and after an unprepared text has held them", () =>
    onOne((sql, db) =>
      Effect.gen(function*() {
        yield* expectForbidden(sql, db)
        for (
          const text of ["SELECT 1; SELECT 2", "SET @a = 1; DROP TABLE items", "SELECT 1 /*! ; DROP TABLE items */"]
        ) {
          const several = sql.unsafe(text)
          const runs: ReadonlyArray<Effect.Effect<unknown, SqlError | DbError.DbError>> = [
            several,
            several.raw,
            several.values,
            several.withoutTransform,
            Stream.runDrain(several.stream),
            db.execute(text),
            db.values(text),
            db.transaction(db.execute(text))
          ]
          for (const run of runs) expect(yield* refusal(run)).toMatchObject({ _tag: "InvalidStatement" })
          expect(yield* sql.unsafe("SELECT 1 AS a; SELECT 2 AS b").unprepared).toEqual([[{ a: 1 }], [{ b: 2 }]])
          yield* expectForbidden(sql, db)
        }
      })
    ))

  it.live("are refused in an unprepared text too, before anything is sent, when they are switched off", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        const id = yield* idOf(sql)
        const status = Effect.map(sql<{ Value: string }>`SHOW SESSION STATUS LIKE 'Questions'`, ([row]) =>
          Number(row?.Value))
        yield* status
        const before = yield* status
        expect(yield* refusal(sql.unsafe("SELECT 1; SELECT 2").unprepared)).toMatchObject({ _tag: "InvalidStatement" })
        expect(yield* refusal(sql.unsafe("SELECT ?; SELECT 2", [1]).unprepared)).toMatchObject({
          _tag: "InvalidStatement"
        })
        expect(yield* status).toBe(before + 1)
        expect(yield* sql.unsafe("SELECT ? AS one;", [1]).unprepared).toEqual([{ one: 1 }])
        yield* expectForbidden(sql, db)
        expect(yield* idOf(sql)).toBe(id)
      }), { severalStatements: false }))

  it.live("are refused by SQLite", () =>
    withDialect(
      "sqlite",
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        expect(yield* refusal(sql.unsafe("SELECT 1; SELECT 2").unprepared)).toMatchObject({ _tag: "InvalidStatement" })
        expect(yield* sql.unsafe("SELECT 1 AS one;").unprepared).toEqual([{ one: 1 }])
      })
    ))

  it.live("end at the first that fails, and leave the connection as it was", () =>
    onOne((sql, db) =>
      Effect.gen(function*() {
        const id = yield* idOf(sql)
        for (const wrong of ["SELECT nonsense", "SELECT SELECT", "INSERT INTO items (id) VALUES (1)"]) {
          const text = `INSERT INTO items (name) VALUES (?); ${wrong}; INSERT INTO items (name) VALUES ('never')`
          expect(yield* refusal(sql.unsafe(text, [wrong]).unprepared)).toMatchObject({ isRetryable: false })
          expect(yield* sql`SELECT ${1} AS one`).toEqual([{ one: 1 }])
          yield* expectForbidden(sql, db)
        }
        expect(yield* names(sql)).toEqual(["SELECT nonsense", "SELECT SELECT", "INSERT INTO items (id) VALUES (1)"])
        expect(yield* idOf(sql)).toBe(id)
      })
    ))

  it.live("that fail inside of a transaction leave it to its effect what becomes of it", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        yield* sql.withTransaction(Effect.gen(function*() {
          for (const wrong of ["SELECT nonsense", "SELECT 18446744073709551615 + 1"]) {
            const text = `INSERT INTO items (name) VALUES (?); ${wrong}; SELECT 1`
            yield* failure(sql.unsafe(text, [wrong]).unprepared)
          }
          yield* sql`INSERT INTO items (name) VALUES ('last')`
        }))
        expect(yield* names(sql)).toEqual(["SELECT nonsense", "SELECT 18446744073709551615 + 1", "last"])
      })
    ))

  it.live("may not begin or end a transaction inside of one", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const insert = "INSERT INTO items (name) VALUES ('x')"
        const undone = sql.withTransaction(Effect.gen(function*() {
          yield* sql.unsafe(`${insert}; ${insert}`).unprepared
          for (const text of [`${insert}; COMMIT`, `COMMIT; ${insert}`, "COMMIT; BEGIN", `ROLLBACK; ${insert}`]) {
            expect(yield* refusal(sql.unsafe(text).unprepared)).toMatchObject({ _tag: "InvalidTransaction" })
          }
          return yield* Effect.fail("undone")
        }))
        expect(yield* failure(undone)).toBe("undone")
        expect(yield* names(sql)).toEqual([])
      })
    ))

  it.live("that are interrupted leave the connection usable", () =>
    onOne((sql, db, fixture) =>
      Effect.gen(function*() {
        const id = yield* idOf(sql)
        for (const text of ["SELECT SLEEP(10); SELECT 1", "SELECT 1; SELECT SLEEP(10)"]) {
          const child = yield* Effect.fork(sql.unsafe(text).unprepared)
          expect(yield* fixture.running("SLEEP(10)")).toBe(id)
          expect(Exit.isInterrupted(yield* Fiber.interrupt(child))).toBe(true)
          expect(yield* sql`SELECT ${2} AS two`).toEqual([{ two: 2 }])
          expect(yield* idOf(sql)).toBe(id)
          yield* expectForbidden(sql, db)
        }
      })
    ))

  it.live("on a connection that breaks have an unknown outcome, and the fiber goes on with another", () =>
    onServer((sql, db, fixture) =>
      Effect.gen(function*() {
        const child = yield* Effect.fork(Effect.gen(function*() {
          const error = yield* refusal(sql.unsafe("INSERT INTO items (name) VALUES ('a'); SELECT SLEEP(10)").unprepared)
          expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
          yield* expectForbidden(sql, db)
          expect(yield* names(sql)).toEqual(["a"])
        }))
        yield* fixture.kill(yield* fixture.running("SLEEP(10)"))
        yield* Fiber.join(child)
      })
    ))

  it.live("of many fibers on one connection do not mix with their prepared statements", () =>
    onOne((sql, db) =>
      Effect.gen(function*() {
        yield* Effect.forEach(Array.from({ length: 60 }, (_, at) => at), (at) =>
          at % 3 === 0
            ? Effect.map(
              sql.unsafe("SELECT ? AS a; SELECT ? AS b", [at, at]).unprepared,
              (found) => expect(found).toEqual([[{ a: at }], [{ b: at }]])
            )
            : at % 3 === 1
            ? Effect.map(sql`SELECT ${at} AS a`, (found) => expect(found).toEqual([{ a: at }]))
            : Effect.map(
              refusal(sql.unsafe(`SELECT ${at}; SELECT nonsense${at}`).unprepared),
              (error) => expect(error?.message).toContain(`nonsense${at}'`)
            ), { concurrency: "unbounded" })
        yield* expectForbidden(sql, db)
      })
    ))

  it.live(
    "may be as large as the server takes them, and no larger",
    () =>
      onServer((sql, db) =>
        Effect.gen(function*() {
          const [found] = yield* sql<{ most: number }>`SELECT @@max_allowed_packet AS most`
          // more than one packet of the protocol, where the server takes that much
          const size = Math.min(Number(found?.most), 20 * 2 ** 20) - 1024
          const text = "SELECT LENGTH(?) AS size; SELECT ? AS last"
          const large = "a".repeat(size)
          expect(yield* sql.unsafe(text, [large, 1]).unprepared).toEqual([[{ size }], [{ last: 1 }]])
          yield* expectForbidden(sql, db)
          const quotes = "'".repeat(2 ** 21)
          expect(yield* sql.unsafe(text, [quotes, 2]).unprepared).toEqual([[{ size: 2 ** 21 }], [{ last: 2 }]])
          const tooLarge = yield* refusal(sql.unsafe(text, ["a".repeat(Number(found?.most)), 3]).unprepared)
          expect(tooLarge).toMatchObject({ errno: 1153 })
          expect(yield* sql.unsafe(text, ["a", 4]).unprepared).toEqual([[{ size: 1 }], [{ last: 4 }]])
        })
      ),
    60_000
  )
})
