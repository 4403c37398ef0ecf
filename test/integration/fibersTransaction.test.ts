import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import type { Isolation } from "../../src/Driver.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { connectionId, isolationLevel, latch, snapshot, valueOf } from "../support/dbQuestions.js"
import { noRetries } from "../support/retries.js"

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INT PRIMARY KEY) ENGINE = InnoDB"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(
  Db.Db,
  (db) => Effect.map(db.list("SELECT id FROM items ORDER BY id"), (ids) => ids.map(Number))
)
const committed = Effect.flatMap(Effect.fork(items), Fiber.join)

const pool = { poolSize: 2, acquireTimeout: "5 seconds" } as const

describe("db.transaction", () => {
  it.live("commits what its effect did when it succeeds, and answers with its result", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const result = yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          expect(yield* items).toEqual([1])
          expect(yield* Effect.timeout(items, "5 seconds")).toEqual([1])
          yield* insert(2)
          return "done"
        }))
        expect(result).toBe("done")
        expect(yield* committed).toEqual([1, 2])
        expect(Option.getOrThrow(yield* db.currentConnection).session).toBe("clean")
        expect((yield* snapshot).resets).toBe(0)
      })))

  it.live("is seen by nobody else before it commits", () =>
    withDb({ poolSize: 2, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          expect(yield* fixture.admin(`SELECT * FROM ${fixture.database}.items`)).toEqual([])
        }))
        expect(yield* fixture.admin(`SELECT * FROM ${fixture.database}.items`)).toEqual([[1]])
      })))

  const ends: Record<string, Effect.Effect<never, string>> = {
    "a failure": Effect.fail("failed"),
    "a defect": Effect.die("died"),
    "an interruption": Effect.interrupt
  }
  for (const [how, end] of Object.entries(ends)) {
    it.live(`rolls back on ${how}, keeps its cause, and leaves the connection clean`, () =>
      withDb(pool, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          const child = yield* Effect.fork(db.transaction(Effect.zipRight(insert(1), end)))
          const exit = yield* Fiber.await(child)
          const expected = yield* Effect.exit(end)
          expect(Exit.isInterrupted(exit)).toBe(Exit.isInterrupted(expected))
          if (!Exit.isInterrupted(expected)) expect(exit).toEqual(expected)
          expect(yield* items).toEqual([])
          yield* eventually("nothing is held", Effect.map(snapshot, ({ busy, held }) => held === 1 && busy === 0))
        })))
  }

  it.live("on a pool of 1 takes forked fibers, timeouts and races along", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* insert(0)
        yield* db.transaction(Effect.gen(function*() {
          yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => n + 1), insert, { concurrency: "unbounded" })
          yield* Effect.timeout(insert(51), "5 seconds")
          yield* Effect.raceFirst(insert(52), Effect.never)
        }))
        expect(yield* items).toHaveLength(53)
      })))

  it.live("uses the fiber's own connection, and refuses when a transaction opened by hand is open on it", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const own = yield* connectionId
        expect(yield* db.transaction(connectionId)).toBe(own)
        yield* db.execute("START TRANSACTION")
        yield* insert(1)
        expect((yield* Effect.flip(db.transaction(insert(2))))._tag).toBe("InvalidTransaction")
        expect(yield* items).toEqual([1])
        yield* db.execute("COMMIT")
        expect(yield* committed).toEqual([1])
      })))

  it.live("joins a session and leaves it its state", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @x = 5")
          yield* Effect.ignore(db.transaction(Effect.zipRight(insert(1), Effect.fail("no"))))
          yield* db.transaction(insert(2))
          expect(yield* valueOf(db, "SELECT @x")).toBe(5)
        }))
        expect(yield* items).toEqual([2])
      })))

  it.live("of many fibers loses nothing", () =>
    withDb({ poolSize: 5, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("CREATE TABLE counter (n INT) ENGINE = InnoDB")
        yield* db.execute("INSERT INTO counter VALUES (0)")
        yield* Effect.forEach(
          Array.from({ length: 100 }),
          () =>
            db.transaction(Effect.gen(function*() {
              const n = Number(yield* valueOf(db, "SELECT n FROM counter FOR UPDATE"))
              yield* db.execute("UPDATE counter SET n = ?", [n + 1])
            })),
          { concurrency: "unbounded", discard: true }
        )
        expect(Number(yield* valueOf(db, "SELECT n FROM counter"))).toBe(100)
        expect(yield* snapshot).toMatchObject({ waiting: 0, resets: 0, lost: 0 })
      })))
})

describe("a transaction inside another", () => {
  it.live("is a savepoint: it can fail alone, and its work is gone when the outer one fails", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          expect(yield* Effect.flip(db.transaction(Effect.zipRight(insert(2), Effect.fail("inner"))))).toBe("inner")
          yield* db.transaction(Effect.gen(function*() {
            yield* insert(3)
            yield* Effect.ignore(db.transaction(Effect.zipRight(insert(4), Effect.fail("innermost"))))
            yield* db.transaction(insert(5))
          }))
        }))
        expect(yield* committed).toEqual([1, 3, 5])
        yield* Effect.ignore(db.transaction(Effect.zipRight(db.transaction(insert(6)), Effect.fail("outer"))))
        expect(yield* items).toEqual([1, 3, 5])
      })))

  it.live("side by side: one that fails does not undo what its sibling did", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const exits = yield* db.transaction(Effect.gen(function*() {
          yield* insert(0)
          return yield* Effect.forEach(
            Array.from({ length: 20 }, (_, n) => n + 1),
            (n) =>
              Effect.exit(db.transaction(Effect.gen(function*() {
                yield* insert(n)
                yield* Effect.yieldNow()
                yield* insert(100 + n)
                if (n % 3 === 0) yield* Effect.fail("inner")
                return n
              }))),
            { concurrency: "unbounded" }
          )
        }))
        const kept = exits.flatMap((exit) => Exit.isSuccess(exit) ? [exit.value] : [])
        const expected = Array.from({ length: 20 }, (_, n) => n + 1).filter((n) => n % 3 !== 0)
        expect(kept).toEqual(expected)
        expect(yield* items).toEqual([0, ...expected, ...expected.map((n) => 100 + n)])
      })))

  it.live("side by side with a parent that goes on meanwhile: the parent's work stays", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const begun = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        yield* db.transaction(Effect.gen(function*() {
          const inner = yield* Effect.fork(Effect.exit(db.transaction(Effect.gen(function*() {
            yield* insert(1)
            yield* Deferred.succeed(begun, undefined)
            yield* Deferred.await(goOn)
            yield* Effect.fail("inner")
          }))))
          yield* Deferred.await(begun)
          const outer = yield* Effect.fork(insert(2))
          yield* Effect.yieldNow()
          yield* Deferred.succeed(goOn, undefined)
          yield* Fiber.join(inner)
          yield* Fiber.join(outer)
        }))
        expect(yield* items).toEqual([2])
      })))

  it.live("that waits for a statement from outside of it ends within acquireTimeout, one way or the other", () =>
    withDb({ poolSize: 1, acquireTimeout: 500 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        for (const around of [db.session, db.transaction] as const) {
          const started = performance.now()
          yield* Effect.exit(around(Effect.gen(function*() {
            const begun = yield* Deferred.make<void>()
            const outside = yield* Effect.fork(Effect.zipRight(Deferred.await(begun), items))
            yield* db.transaction(Effect.gen(function*() {
              yield* insert(1)
              yield* Deferred.succeed(begun, undefined)
              yield* Fiber.join(outside)
              yield* Effect.fail("undo")
            }))
          })))
          expect(performance.now() - started).toBeLessThan(5000)
        }
        expect(yield* items).toEqual([])
      })))

  it.live("that is interrupted alone is undone alone", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          const inner = yield* Effect.fork(db.transaction(
            Effect.zipRight(insert(2), db.value("SELECT SLEEP(30) AS innerSleep"))
          ))
          yield* fixture.running("AS innerSleep")
          yield* Fiber.interrupt(inner)
          expect(yield* items).toEqual([1])
          yield* insert(3)
        }))
        expect(yield* items).toEqual([1, 3])
      })))

  it.live("in a daemon that outlives the outer one gets an error, and writes nothing", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const ended = yield* Deferred.make<void>()
        const daemon = yield* db.transaction(
          Effect.forkDaemon(Effect.flip(Effect.zipRight(Deferred.await(ended), db.transaction(insert(1)))))
        )
        yield* Deferred.succeed(ended, undefined)
        expect((yield* Fiber.join(daemon))._tag).toBe("SessionEnded")
        expect(yield* items).toEqual([])
      })))
})

describe("isolation", () => {
  const levels: ReadonlyArray<Isolation> = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
  /** What a transaction sees of a row that another inserts and commits meanwhile. */
  const seen = (isolation?: Isolation) =>
    Effect.gen(function*() {
      const db = yield* Db.Db
      yield* db.execute("DELETE FROM items")
      return yield* Effect.scoped(Effect.flatMap(db.connection, (other) =>
        db.transaction(
          Effect.gen(function*() {
            yield* other.execute("SET innodb_lock_wait_timeout = 0")
            yield* items
            yield* other.execute("START TRANSACTION")
            const blocked = yield* Effect.match(other.execute("INSERT INTO items VALUES (1)"), {
              onSuccess: () => false,
              onFailure: (error) => error._tag === "LockTimeoutError"
            })
            const uncommitted = (yield* items).length === 1
            yield* other.execute("COMMIT")
            return { blocked, uncommitted, committed: (yield* items).length === 1 }
          }),
          { isolation }
        )))
    })
  const signs: Record<Isolation, Effect.Effect.Success<ReturnType<typeof seen>>> = {
    "READ UNCOMMITTED": { blocked: false, uncommitted: true, committed: true },
    "READ COMMITTED": { blocked: false, uncommitted: false, committed: true },
    "REPEATABLE READ": { blocked: false, uncommitted: false, committed: false },
    "SERIALIZABLE": { blocked: true, uncommitted: false, committed: false }
  }

  for (const isolation of levels) {
    it.live(`${isolation} is in force for the one transaction and not for the next`, () =>
      withDb({ poolSize: 2, acquireTimeout: "2 seconds" }, () =>
        Effect.gen(function*() {
          yield* createItems
          expect(yield* seen(isolation)).toEqual(signs[isolation])
          expect(yield* seen()).toEqual(signs["REPEATABLE READ"])
          expect((yield* snapshot).created).toBe(2)
        })))
  }

  it.live("of the pool is in force in every session, also after a reset", () =>
    withDb({ poolSize: 1, isolation: "READ COMMITTED", acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        expect(yield* valueOf(db, `SELECT ${isolationLevel()}`)).toBe("READ-COMMITTED")
        yield* db.execute("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        expect(yield* valueOf(db, `SELECT ${isolationLevel()}`)).toBe("SERIALIZABLE")
        yield* db.releaseFiberConnection
        expect(yield* valueOf(db, `SELECT ${isolationLevel()}`)).toBe("READ-COMMITTED")
        expect(yield* snapshot).toMatchObject({ created: 1, resets: 1 })
      })))

  it.live("readOnly refuses writes, and the connection may write again afterwards", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const error = yield* Effect.flip(db.transaction(insert(1), { readOnly: true }))
        expect(error).toMatchObject({ errno: 1792 })
        expect(yield* db.transaction(items, { readOnly: true, isolation: "SERIALIZABLE" })).toEqual([])
        yield* insert(2)
        expect(yield* items).toEqual([2])
        expect(yield* snapshot).toMatchObject({ created: 1, ...noRetries })
      })))

  it.live("acquireTimeout of one transaction bounds its wait", () =>
    withDb({ poolSize: 1, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          yield* db.connection
          const started = performance.now()
          const error = yield* Effect.flip(db.transaction(db.value("SELECT 1"), { acquireTimeout: 200 }))
          expect(error._tag).toBe("PoolExhausted")
          expect(performance.now() - started).toBeLessThan(5000)
        }))
      })))
})

describe("an interrupted transaction", () => {
  it.live("with a statement running returns promptly, and its rows are gone", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const running = yield* Effect.fork(db.transaction(
          Effect.zipRight(insert(1), db.value("SELECT SLEEP(30) AS inTransaction"))
        ))
        yield* fixture.running("AS inTransaction")
        const started = performance.now()
        yield* Fiber.interrupt(running)
        expect(performance.now() - started).toBeLessThan(5000)
        yield* fixture.notRunning("AS inTransaction")
        yield* eventually("its connection is back", Effect.map(snapshot, ({ busy, held }) => busy === 0 && held === 1))
        // no lock is left either
        yield* Effect.timeout(insert(1), "5 seconds")
        expect(yield* items).toEqual([1])
      })))

  it.live("that waits for a row lock returns promptly", () =>
    withDb({ poolSize: 3, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* insert(1)
        yield* Effect.scoped(Effect.gen(function*() {
          const other = yield* db.connection
          yield* other.execute("START TRANSACTION")
          yield* other.execute("SELECT id FROM items WHERE id = 1 FOR UPDATE")
          const blocked = yield* Effect.fork(db.transaction(
            Effect.zipRight(insert(5), db.execute("UPDATE items SET id = 2 WHERE id = 1"))
          ))
          yield* fixture.running("UPDATE items")
          const started = performance.now()
          yield* Fiber.interrupt(blocked)
          expect(performance.now() - started).toBeLessThan(5000)
          yield* fixture.notRunning("UPDATE items")
        }))
        expect(yield* items).toEqual([1])
      })))

  it.live("that waits for a connection returns promptly, and the layer's end is not held up", () =>
    withDb({ poolSize: 1, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          yield* db.connection
          const waits = yield* Effect.fork(db.transaction(db.value("SELECT 1")))
          yield* eventually("it waits", Effect.map(snapshot, ({ waiting }) => waiting === 1))
          const started = performance.now()
          yield* Fiber.interrupt(waits)
          expect(performance.now() - started).toBeLessThan(5000)
        }))
      })))

  it.live("many at once, over and over: the pool is whole afterwards and nothing was written", () =>
    withDb({ poolSize: 5, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        for (let round = 0; round < 20; round++) {
          const together = yield* latch(5)
          const fibers = yield* Effect.forEach(
            [1, 2, 3, 4, 5],
            (n) =>
              Effect.fork(db.transaction(Effect.gen(function*() {
                yield* together
                yield* insert(round * 10 + n)
                yield* insert(round * 10 + n + 1000)
                yield* Effect.never
              })))
          )
          yield* Effect.sleep(round % 6)
          yield* Fiber.interruptAll(fibers)
        }
        yield* eventually("all is idle", Effect.map(snapshot, ({ busy, held }) => busy === 0 && held <= 1))
        expect(yield* items).toEqual([])
      })))
})
