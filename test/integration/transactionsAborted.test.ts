/** What becomes of a transaction of which the server has refused a statement: it goes on, or all of it is gone. */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import { dialects, withDialect } from "../support/bothDatabases.js"
import { withDb, withServer, withSqlite } from "../support/dbFixture.js"
import { createLocks, opponent } from "../support/deadlocks.js"

const pool = { poolSize: 2, acquireTimeout: "10 seconds" } as const

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))

describe("after the server has rolled back the whole transaction", () => {
  const deadlocked = { _tag: "DeadlockError", errno: 1213 }
  const aborted = { _tag: "TransactionAborted", cause: deadlocked }

  it.live("further statements, streams, nested transactions and COMMIT are TransactionAborted; nothing is written", () =>
    withDb({ ...pool, poolSize: 3 }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          expect(yield* Effect.flip(other.meet((text) => db.execute(text)))).toMatchObject(deadlocked)
          expect(yield* Effect.flip(insert(2))).toMatchObject(aborted)
          expect(DbErrors.find(yield* Effect.flip(sql`INSERT INTO items VALUES (3)`))).toMatchObject(aborted)
          expect(yield* Effect.flip(Stream.runDrain(db.stream("SELECT 1")))).toMatchObject(aborted)
          expect(yield* Effect.flip(db.transaction(insert(4)))).toMatchObject(aborted)
          expect(DbErrors.find(yield* Effect.flip(sql.withTransaction(insert(5))))).toMatchObject(aborted)
          expect(yield* Effect.flip(Effect.flatten(Effect.fork(insert(6))))).toMatchObject(aborted)
        })))
        expect(error).toMatchObject({ ...aborted, statement: "COMMIT" })
        yield* other.committed
        expect(yield* items).toEqual([])
        yield* insert(7)
        expect(yield* items).toEqual([7])
      }))))

  it.live("sql.withTransaction fails with it, in place of a COMMIT of nothing", () =>
    withDb({ ...pool, poolSize: 3 }, () =>
      Effect.scoped(Effect.gen(function*() {
        const sql = yield* SqlClient
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        const error = yield* Effect.flip(sql.withTransaction(
          Effect.zipRight(sql`INSERT INTO items VALUES (1)`, Effect.ignore(other.meet((text) => sql.unsafe(text))))
        ))
        expect(error).toMatchObject({ _tag: "SqlError" })
        expect(DbErrors.find(error)).toMatchObject({ ...aborted, statement: "COMMIT" })
        expect(yield* items).toEqual([])
      }))))

  it.live("for a nested one's statement, or a stream's, the one around it is gone as well", () =>
    withDb({ ...pool, poolSize: 3 }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          const inner = db.transaction(Effect.gen(function*() {
            yield* insert(2)
            yield* other.meet((text) => Stream.runDrain(db.stream(text)))
          }))
          expect(yield* Effect.flip(inner)).toMatchObject(deadlocked)
          expect(yield* Effect.flip(insert(3))).toMatchObject(aborted)
          return yield* inner
        })))
        expect(error).toMatchObject(aborted)
        expect(yield* items).toEqual([])
      }))))

  for (const rollsBack of [false, true]) {
    const setting = `innodb_rollback_on_timeout=${rollsBack ? "ON" : "OFF"}`
    it.live(
      `for a lock wait: ${rollsBack ? "so with" : "not with"} ${setting}`,
      () =>
        withServer(
          { settings: [`--${setting}`, "--innodb-lock-wait-timeout=1"] },
          (server) =>
            withDb({ ...pool, poolSize: 3, server }, () =>
              Effect.scoped(Effect.gen(function*() {
                const db = yield* Db.Db
                yield* createItems
                yield* insert(1)
                const other = yield* db.connection
                yield* other.execute("START TRANSACTION")
                yield* other.execute("SELECT id FROM items WHERE id = 1 FOR UPDATE")
                const exit = yield* Effect.exit(db.transaction(Effect.gen(function*() {
                  yield* insert(2)
                  const waited = yield* Effect.flip(db.execute("SELECT id FROM items WHERE id = 1 FOR UPDATE"))
                  expect(waited).toMatchObject({ _tag: "LockTimeoutError", errno: 1205 })
                  const next = yield* Effect.exit(insert(3))
                  expect(Exit.isSuccess(next)).toBe(!rollsBack)
                  expect(Exit.isSuccess(yield* Effect.exit(db.transaction(insert(4))))).toBe(!rollsBack)
                })))
                expect(Exit.isSuccess(exit)).toBe(!rollsBack)
                if (Exit.isFailure(exit)) {
                  expect(exit).toMatchObject({
                    cause: { error: { _tag: "TransactionAborted", statement: "COMMIT", cause: { errno: 1205 } } }
                  })
                }
                expect(yield* items).toEqual(rollsBack ? [1] : [1, 2, 3, 4])
              })))
        ),
      120_000
    )
  }

  it.live("as SQLite does for OR ROLLBACK, its refusal is the cause, at every depth", () =>
    withSqlite(
      pool,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* insert(1)
        const orRollback = db.execute("INSERT OR ROLLBACK INTO items VALUES (1)")
        const gone = { _tag: "TransactionAborted", cause: { _tag: "UniqueViolation" } }
        for (const meet of [orRollback, db.transaction(Effect.zipRight(insert(2), orRollback))]) {
          const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
            yield* insert(3)
            expect(yield* Effect.flip(meet)).toMatchObject({ _tag: "UniqueViolation" })
            expect(yield* Effect.flip(insert(4))).toMatchObject(gone)
            expect(yield* Effect.flip(db.transaction(insert(5)))).toMatchObject(gone)
          })))
          expect(error).toMatchObject({ ...gone, statement: "COMMIT" })
          expect(yield* items).toEqual([1])
        }
        yield* db.transaction(insert(6))
        expect(yield* items).toEqual([1, 6])
      })
    ))
})

describe("a statement that is refused and caught leaves the transaction to go on:", () => {
  const refusals: Record<string, readonly [tag: string, sql: string]> = {
    "a duplicate key": ["UniqueViolation", "INSERT INTO items VALUES (1)"],
    "a constraint": ["ConstraintError", "INSERT INTO children VALUES (99)"],
    "a syntax error": ["SqlSyntaxError", "SELEKT 1"],
    "a table that does not exist": ["SqlSyntaxError", "SELECT * FROM nowhere"]
  }
  for (const dialect of dialects) {
    for (const [what, [tag, sql]] of Object.entries(refusals)) {
      it.live(`${what} (${dialect})`, () =>
        withDialect(
          dialect,
          pool,
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            yield* db.execute("CREATE TABLE children (item INTEGER, FOREIGN KEY (item) REFERENCES items (id))")
            yield* db.transaction(Effect.gen(function*() {
              yield* insert(1)
              expect((yield* Effect.flip(db.execute(sql)))._tag).toBe(tag)
              yield* insert(2)
              yield* db.transaction(Effect.zipRight(Effect.flip(db.execute(sql)), insert(3)))
              const undone = db.transaction(Effect.zipRight(insert(4), db.execute(sql)))
              expect((yield* Effect.flip(undone))._tag).toBe(tag)
            }))
            expect(yield* items).toEqual([1, 2, 3])
          })
        ))
    }
  }

  it.live("one that was stopped by KILL QUERY", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          const killing = yield* Effect.fork(
            Effect.flatMap(fixture.running("AS killed"), (id) => fixture.admin(`KILL QUERY ${id}`))
          )
          expect((yield* Effect.flip(db.value("SELECT 1 AS killed WHERE SLEEP(30) = 0")))._tag).toBe(
            "StatementCancelled"
          )
          yield* Fiber.join(killing)
          yield* insert(2)
        }))
        expect(yield* items).toEqual([1, 2])
      })))
})
