/** What a transaction is: one for all interfaces, savepoints inside, and what it refuses. */
import { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import type { Isolation } from "../../src/Driver.js"
import { dialects, withDialect } from "../support/bothDatabases.js"
import { withDb, withFixture, withLayer, withSqlite } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"

const one = { poolSize: 1, acquireTimeout: "20 seconds" } as const

type Services = Db.Db | SqlClient
type Write = Effect.Effect<unknown, DbErrors.DbError | SqlError, Services>

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number): Write => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const sqlInsert = (id: number): Write => Effect.flatMap(SqlClient, (sql) => sql`INSERT INTO items VALUES (${id})`)
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const currentId = Effect.flatMap(
  Db.Db,
  (db) => Effect.map(db.currentConnection, (current) => Option.getOrThrow(current).id)
)

type Around = <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<A, E | DbErrors.DbError | SqlError, R | Services>

const interfaces: Record<string, Around> = {
  "db.transaction": (effect) => Effect.flatMap(Db.Db, (db) => db.transaction(effect)),
  "sql.withTransaction": (effect) => Effect.flatMap(SqlClient, (sql) => sql.withTransaction(effect))
}
const pairs = Object.entries(interfaces).flatMap(([outer, around]) =>
  Object.entries(interfaces).map(([inner, within]) => ({ outer, around, inner, within }))
)

describe("sql.withTransaction and db.transaction are one thing:", () => {
  for (const dialect of dialects) {
    for (const { around, inner, outer, within } of pairs) {
      it.live(`${inner} in ${outer} is a savepoint on its connection (${dialect})`, () =>
        withDialect(
          dialect,
          one,
          Effect.gen(function*() {
            yield* createItems
            const outerExit = yield* Effect.exit(around(Effect.gen(function*() {
              yield* insert(1)
              const id = yield* currentId
              expect(yield* within(Effect.zipRight(sqlInsert(2), currentId))).toBe(id)
              expect(yield* Effect.flip(within(Effect.zipRight(insert(3), Effect.fail("inner"))))).toBe("inner")
              expect(yield* items).toEqual([1, 2])
              return yield* Effect.fail("outer")
            })))
            expect(outerExit).toEqual(Exit.fail("outer"))
            expect(yield* items).toEqual([])
            yield* around(Effect.zipRight(within(insert(4)), sqlInsert(5)))
            expect(yield* items).toEqual([4, 5])
          })
        ))
    }

    it.live(`siblings side by side, of both kinds, do not undo each other (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          yield* createItems
          const numbers = Array.from({ length: 24 }, (_, n) => n)
          const arounds = Object.values(interfaces)
          yield* interfaces["sql.withTransaction"]!(
            Effect.forEach(numbers, (n) =>
              Effect.exit(arounds[n % 2]!(Effect.gen(function*() {
                yield* n % 4 < 2 ? insert(n) : sqlInsert(n)
                yield* Effect.yieldNow()
                if (n % 3 === 0) yield* Effect.fail("inner")
                yield* insert(100 + n)
              }))), { concurrency: "unbounded" })
          )
          const kept = numbers.filter((n) => n % 3 !== 0)
          expect(yield* items).toEqual([...kept, ...kept.map((n) => 100 + n)])
        })
      ))

    it.live(`children forked inside share its connection, one statement at a time (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          yield* createItems
          const numbers = Array.from({ length: 30 }, (_, n) => n)
          const exit = yield* Effect.exit(interfaces["sql.withTransaction"]!(Effect.gen(function*() {
            yield* Effect.forEach(numbers, (n) => n % 2 === 0 ? insert(n) : sqlInsert(n), { concurrency: "unbounded" })
            expect(yield* items).toEqual(numbers)
            return yield* Effect.fail("no")
          })))
          expect(exit).toEqual(Exit.fail("no"))
          expect(yield* items).toEqual([])
        })
      ))

    it.live(`the savepoint of a nested one that succeeded is released (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* db.transaction(Effect.gen(function*() {
            const savepoint = "effect_sql_pool_1"
            yield* db.transaction(Effect.gen(function*() {
              yield* insert(1)
              // it is there as long as the nested one
              yield* db.execute(`ROLLBACK TO SAVEPOINT ${savepoint}`)
            }))
            expect(yield* Effect.flip(db.execute(`ROLLBACK TO SAVEPOINT ${savepoint}`))).toMatchObject({
              reason: expect.stringMatching(/SAVEPOINT effect_sql_pool_1 does not exist|no such savepoint/)
            })
            yield* insert(2)
          }))
          expect(yield* items).toEqual([2])
        })
      ))
  }

  it.live("a BEGIN that gets no connection is a SqlError of sql.withTransaction, never a defect", () =>
    withDialect(
      "mysql",
      { poolSize: 1, acquireTimeout: 50 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient
        // opening the only one may take longer than anybody is to wait for it here
        yield* Effect.eventually(Effect.scoped(db.connection))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* db.connection
          const error = yield* Effect.flip(sql.withTransaction(Effect.void))
          expect(error).toMatchObject({ _tag: "SqlError", message: "Failed to acquire connection" })
          expect(DbErrors.find(error)?._tag).toBe("PoolExhausted")
        }))
      })
    ))

  it.live("another pool's database and client inside ignore it", () =>
    withFixture((fixture) =>
      withLayer(
        { ...one, url: fixture.url },
        Effect.gen(function*() {
          const [db, sql] = [yield* Db.Db, yield* SqlClient]
          yield* createItems
          yield* withLayer(
            { ...one, url: fixture.url },
            Effect.gen(function*() {
              const [otherDb, otherSql] = [yield* Db.Db, yield* SqlClient]
              const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
                yield* sql`INSERT INTO items VALUES (1)`
                yield* otherSql`INSERT INTO items VALUES (2)`
                yield* otherDb.execute("INSERT INTO items VALUES (3)")
                yield* otherSql.withTransaction(otherDb.execute("INSERT INTO items VALUES (4)"))
                expect(
                  yield* Effect.flip(otherDb.transaction(
                    Effect.zipRight(otherSql`INSERT INTO items VALUES (5)`, Effect.fail("theirs"))
                  ))
                ).toBe("theirs")
                expect(yield* db.list("SELECT id FROM items WHERE id = 1")).toEqual([1])
                return yield* Effect.fail("ours")
              })))
              expect(exit).toEqual(Exit.fail("ours"))
              expect(yield* db.list("SELECT id FROM items ORDER BY id")).toEqual([2, 3, 4])
            })
          )
        })
      )
    ))
})

describe("a daemon that outlives its transaction gets a typed error and writes nowhere:", () => {
  const writes: Record<string, Write> = {
    "a statement": insert(1),
    "a statement of sql": sqlInsert(1),
    "a transaction": Effect.flatMap(Db.Db, (db) => db.transaction(insert(1))),
    "sql.withTransaction": Effect.flatMap(SqlClient, (sql) => sql.withTransaction(sqlInsert(1))),
    "a stream": Effect.flatMap(Db.Db, (db) => Stream.runDrain(db.stream("INSERT INTO items VALUES (1) RETURNING id")))
  }
  for (const dialect of dialects) {
    for (const [what, write] of Object.entries(writes)) {
      it.live(`${what}, not into the next transaction either (${dialect})`, () =>
        withDialect(
          dialect,
          one,
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            for (const around of [Effect.asVoid, db.session]) {
              yield* around(Effect.gen(function*() {
                const ended = yield* Deferred.make<void>()
                const daemon = yield* db.transaction(
                  Effect.forkDaemon(Effect.flip(Effect.zipRight(Deferred.await(ended), write)))
                )
                yield* db.transaction(Effect.gen(function*() {
                  yield* db.execute("DELETE FROM items")
                  yield* insert(2)
                  yield* Deferred.succeed(ended, undefined)
                  expect(DbErrors.find(yield* Fiber.join(daemon))?._tag).toBe("SessionEnded")
                }))
                expect(yield* items).toEqual([2])
              }))
            }
          })
        ))
    }

    it.live(`nor into the transaction around it, if it was nested (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* db.transaction(Effect.gen(function*() {
            const ended = yield* Deferred.make<void>()
            const daemon = yield* db.transaction(
              Effect.forkDaemon(Effect.flip(Effect.zipRight(Deferred.await(ended), insert(1))))
            )
            yield* Deferred.succeed(ended, undefined)
            expect(DbErrors.find(yield* Fiber.join(daemon))?._tag).toBe("SessionEnded")
            yield* insert(2)
          }))
          expect(yield* items).toEqual([2])
        })
      ))
  }
})

describe("an isolation level", () => {
  const noSuch = "SNAPSHOT" as Isolation
  const invalid = (reason: unknown) => ({ _tag: "InvalidTransaction", reason })

  for (const dialect of dialects) {
    it.live(`that does not exist is refused before a connection is asked for (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          expect(yield* Effect.flip(db.transaction(Effect.die("it ran"), { isolation: noSuch }))).toMatchObject(
            invalid(expect.stringContaining("SNAPSHOT"))
          )
          expect((yield* snapshot).created).toBe(0)
          yield* createItems
          yield* db.transaction(Effect.gen(function*() {
            const nested = db.transaction(Effect.die("it ran"), { isolation: noSuch })
            expect((yield* Effect.flip(nested))._tag).toBe("InvalidTransaction")
            yield* insert(1)
          }))
          expect(yield* items).toEqual([1])
        })
      ))
  }

  it.live("other than SERIALIZABLE is refused by SQLite, at every depth", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const levels: ReadonlyArray<Isolation> = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ"]
        for (const isolation of levels) {
          const refused = Effect.flip(db.transaction(Effect.die("it ran"), { isolation }))
          expect(yield* refused).toMatchObject(invalid(expect.stringContaining(isolation)))
          expect((yield* db.transaction(refused))._tag).toBe("InvalidTransaction")
        }
        yield* db.transaction(db.transaction(insert(1), { isolation: "SERIALIZABLE" }))
        yield* db.transaction(insert(2), { isolation: "SERIALIZABLE" })
        expect(yield* items).toEqual([1, 2])
      })
    ))

  it.live("of a nested one can only be the outermost's, which goes on after the refusal", () =>
    withDb(one, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const nested = db.transaction(insert(1), { isolation: "SERIALIZABLE" })
        yield* db.transaction(
          Effect.gen(function*() {
            expect(yield* Effect.flip(nested)).toMatchObject(invalid(expect.stringContaining("READ COMMITTED")))
            // whatever is between the two
            expect((yield* Effect.flip(db.transaction(nested)))._tag).toBe("InvalidTransaction")
            yield* db.transaction(insert(2), { isolation: "READ COMMITTED" })
          }),
          { isolation: "READ COMMITTED" }
        )
        yield* db.transaction(Effect.gen(function*() {
          expect((yield* Effect.flip(nested))._tag).toBe("InvalidTransaction")
          yield* insert(3)
        }))
        expect(yield* items).toEqual([2, 3])
      })))

  for (const dialect of dialects) {
    it.live(`readOnly: false is refused in one that may only read (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* db.transaction(
            Effect.gen(function*() {
              const nested = db.transaction(Effect.die("it ran"), { readOnly: false })
              expect((yield* Effect.flip(nested))._tag).toBe("InvalidTransaction")
              expect((yield* Effect.flip(db.transaction(nested)))._tag).toBe("InvalidTransaction")
              expect(yield* db.transaction(items, { readOnly: true })).toEqual([])
              expect(yield* db.transaction(items)).toEqual([])
            }),
            { readOnly: true }
          )
          yield* db.transaction(insert(1), { readOnly: false })
          expect(yield* items).toEqual([1])
        })
      ))
  }
})
