/** The promises about fibers, sessions and transactions on embedded SQLite. */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import { eventually, withSqlite } from "../support/dbFixture.js"
import { latch, snapshot, valueOf } from "../support/dbQuestions.js"

const pool = { poolSize: 4, acquireTimeout: "10 seconds" } as const
const one = { poolSize: 1, acquireTimeout: "2 seconds" } as const

/** Which connection the fiber has, after a statement on it. */
const ownConnection = Effect.flatMap(Db.Db, (db) =>
  Effect.zipRight(
    db.value("SELECT 1"),
    Effect.map(db.currentConnection, (current) => Option.getOrThrow(current).id)
  ))

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, owner INT)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items (id) VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))

describe("one fiber, one connection", () => {
  it.live("two statements of one fiber share one, and twenty concurrent fibers on a pool of twenty have twenty", () =>
    withSqlite(
      { poolSize: 20 },
      Effect.gen(function*() {
        const own = yield* ownConnection
        expect(yield* ownConnection).toBe(own)
        const together = yield* latch(19)
        const ids = yield* Effect.forEach(
          Array.from({ length: 19 }),
          () =>
            Effect.gen(function*() {
              const id = yield* ownConnection
              yield* together
              expect(yield* ownConnection).toBe(id)
              return id
            }),
          { concurrency: "unbounded" }
        )
        expect(new Set([own, ...ids]).size).toBe(20)
      })
    ))

  it.live("a temporary table is seen by its fiber alone, and by nobody after its end", () =>
    withSqlite(
      { ...pool, poolSize: 2 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        const owner = yield* Effect.fork(Effect.gen(function*() {
          yield* db.execute("CREATE TEMP TABLE picked (id INT)")
          yield* db.execute("INSERT INTO picked VALUES (1), (2)")
          for (let round = 0; round < 20; round++) {
            const inChild = yield* Effect.either(
              Effect.flatMap(Effect.fork(db.value("SELECT COUNT(*) FROM picked")), Fiber.join)
            )
            expect(Either.isLeft(inChild)).toBe(true)
            expect(yield* valueOf(db, "SELECT COUNT(*) FROM picked")).toBe(2)
          }
        }))
        yield* Effect.forEach(
          Array.from({ length: 20 }),
          () => Effect.flip(db.value("SELECT COUNT(*) FROM picked")),
          { concurrency: "unbounded", discard: true }
        )
        yield* Fiber.join(owner)
        yield* eventually("the table is gone", Effect.map(snapshot, ({ busy, held }) => held === 0 && busy === 0))
        const together = yield* latch(2)
        yield* Effect.forEach(
          [1, 2],
          () => Effect.zipRight(Effect.flip(db.value("SELECT COUNT(*) FROM picked")), together),
          { concurrency: 2, discard: true }
        )
      })
    ))

  const ends: Record<string, (reached: Deferred.Deferred<void>) => Effect.Effect<void, string>> = {
    success: () => Effect.void,
    failure: () => Effect.fail("failed"),
    interruption: (reached) => Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never),
    defect: () => Effect.die("died")
  }
  for (const [how, end] of Object.entries(ends)) {
    it.live(`is back in the pool the moment the fiber has ended by ${how}, rolled back`, () =>
      withSqlite(
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          const reached = yield* Deferred.make<void>()
          const child = yield* Effect.fork(Effect.gen(function*() {
            yield* db.execute("BEGIN IMMEDIATE")
            yield* insert(1)
            yield* end(reached)
          }))
          if (how === "interruption") yield* Effect.zipRight(Deferred.await(reached), Fiber.interrupt(child))
          yield* Fiber.await(child)
          expect((yield* snapshot).held).toBe(0)
          expect(yield* items).toEqual([])
          expect((yield* snapshot).created).toBe(1)
        })
      ))
  }

  it.live("db.releaseFiberConnection rolls back what is open and returns it now", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.execute("BEGIN")
        yield* insert(1)
        yield* db.releaseFiberConnection
        expect((yield* snapshot).held).toBe(0)
        expect(yield* Effect.flatMap(Effect.fork(items), Fiber.join)).toEqual([])
      })
    ))
})

describe("a pool of 1 and one fiber", () => {
  for (
    const [place, options] of [["in a file", one], ["in memory", {
      filename: ":memory:",
      acquireTimeout: "2 seconds"
    }]] as const
  ) {
    it.live(`completes a statement, a timeout, a race, a concurrent forEach of 100 and a stream, ${place}`, () =>
      withSqlite(
        options,
        Effect.gen(function*() {
          const db = yield* Db.Db
          const double = (n: number) => Effect.map(db.value<number>("SELECT ? * 2", [n]), Option.getOrThrow)
          expect(yield* double(1)).toBe(2)
          expect(yield* Effect.timeout(double(2), "5 seconds")).toBe(4)
          expect(yield* Effect.raceFirst(double(3), Effect.never)).toBe(6)
          const hundred = Array.from({ length: 100 }, (_, n) => n)
          expect(yield* Effect.forEach(hundred, double, { concurrency: "unbounded" })).toEqual(
            hundred.map((n) => 2 * n)
          )
          expect(Chunk.size(yield* Stream.runCollect(Stream.mapEffect(Stream.range(1, 20), double)))).toBe(20)
          expect((yield* snapshot).created).toBe(1)
        })
      ))
  }

  it.live("ends with PoolExhausted that says why when the parent has a transaction open", () =>
    withSqlite(
      { poolSize: 1, acquireTimeout: 200 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("BEGIN")
        const error = yield* Effect.flip(Effect.timeout(db.value("SELECT 1"), "20 seconds"))
        expect(error._tag).toBe("PoolExhausted")
        expect(error.message).toContain("a transaction is open")
        yield* db.execute("ROLLBACK")
        yield* Effect.timeout(db.value("SELECT 1"), "5 seconds")
      })
    ))

  it.live("a session shares a temporary table with timeout, race and a concurrent forEach", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        const daemon = yield* db.session(Effect.gen(function*() {
          yield* db.execute("CREATE TEMP TABLE picked AS SELECT 7 AS id")
          const picked = valueOf(db, "SELECT id FROM picked")
          expect(yield* Effect.timeout(picked, "5 seconds")).toBe(7)
          expect(yield* Effect.race(picked, picked)).toBe(7)
          expect(yield* Effect.forEach([1, 2, 3], () => picked, { concurrency: 3 })).toEqual([7, 7, 7])
          expect(yield* db.session(picked)).toBe(7)
          return yield* Effect.forkDaemon(Effect.flip(Effect.zipRight(Effect.sleep(20), db.value("SELECT 1"))))
        }))
        expect((yield* Fiber.join(daemon))._tag).toBe("SessionEnded")
        expect(yield* valueOf(db, "SELECT id FROM picked")).toBe(7)
      })
    ))
})

describe("writers side by side", () => {
  it.live("all get their turn, in statements and in transactions, and nothing is lost", () =>
    withSqlite(
      { ...pool, busyTimeout: "20 seconds" },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("CREATE TABLE counter (n INT)")
        yield* db.execute("INSERT INTO counter VALUES (0)")
        yield* Effect.forEach(
          Array.from({ length: 40 }, (_, n) => n),
          (n) =>
            n % 2 === 0
              ? Effect.asVoid(db.execute("UPDATE counter SET n = n + 1"))
              : db.transaction(Effect.gen(function*() {
                const before = Number(yield* valueOf(db, "SELECT n FROM counter"))
                yield* Effect.yieldNow()
                yield* db.execute("UPDATE counter SET n = ?", [before + 1])
              })),
          { concurrency: "unbounded", discard: true }
        )
        expect(yield* valueOf(db, "SELECT n FROM counter")).toBe(40)
      })
    ))

  it.live("do not block readers, nor the event loop", () =>
    withSqlite(
      pool,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          expect(
            yield* Effect.scoped(Effect.flatMap(db.connection, (other) => valueOf(other, "SELECT COUNT(*) FROM items")))
          ).toBe(0)
          const blocked = yield* Effect.scoped(
            Effect.flatMap(db.connection, (other) =>
              Effect.timeoutOption(other.execute("INSERT INTO items (id) VALUES (2)"), 100))
          )
          expect(blocked).toEqual(Option.none())
        }))
        expect(yield* items).toEqual([1])
      })
    ))

  it.live("last_insert_rowid() is right under contention, or AffinityLost", () =>
    withSqlite(
      { ...pool, busyTimeout: "20 seconds" },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const counted = { right: 0, typed: 0 }
        yield* Effect.forEach(Array.from({ length: 100 }, (_, n) => n), (n) =>
          Effect.gen(function*() {
            const { insertId } = yield* db.execute("INSERT INTO items (owner) VALUES (?)", [n])
            yield* db.value("SELECT 1")
            const asked = yield* Effect.either(valueOf(db, "SELECT last_insert_rowid()"))
            if (Either.isRight(asked)) {
              expect(asked.right).toBe(insertId)
              counted.right++
            } else {
              expect(asked.left._tag).toBe("AffinityLost")
              counted.typed++
            }
          }), { concurrency: "unbounded", discard: true })
        process.stdout.write(`last_insert_rowid(): ${counted.right} right, ${counted.typed} AffinityLost\n`)
        const inSession = yield* Effect.forEach([1, 2, 3], (n) =>
          db.session(Effect.gen(function*() {
            const { insertId } = yield* db.execute("INSERT INTO items (owner) VALUES (?)", [n])
            return [insertId, yield* valueOf(db, "SELECT last_insert_rowid()")]
          })), { concurrency: 3 })
        for (const [inserted, asked] of inSession) expect(asked).toBe(inserted)
      })
    ))
})

describe("db.transaction", () => {
  it.live("commits on success and rolls back on failure, defect and interruption", () =>
    withSqlite(
      pool,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(insert(1))
        for (const end of [Effect.fail("failed"), Effect.die("died"), Effect.interrupt]) {
          const child = yield* Effect.fork(db.transaction(Effect.zipRight(insert(2), end)))
          expect(Exit.isFailure(yield* Fiber.await(child))).toBe(true)
          expect(yield* items).toEqual([1])
        }
        // no lock is left
        yield* insert(3)
      })
    ))

  it.live("nests, and siblings side by side do not undo each other", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* Effect.ignore(db.transaction(Effect.zipRight(insert(100), Effect.fail("inner"))))
          yield* Effect.forEach(
            Array.from({ length: 12 }, (_, n) => n),
            (n) =>
              Effect.ignore(db.transaction(Effect.gen(function*() {
                yield* insert(n)
                yield* Effect.yieldNow()
                if (n % 3 === 0) yield* Effect.fail("inner")
              }))),
            { concurrency: "unbounded", discard: true }
          )
        }))
        expect(yield* items).toEqual(Array.from({ length: 12 }, (_, n) => n).filter((n) => n % 3 !== 0))
      })
    ))

  it.live("that COMMIT refuses for a deferred constraint fails with it, and leaves no transaction open", () =>
    withSqlite(
      pool,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.execute("CREATE TABLE children (item INT REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)")
        const error = yield* Effect.flip(db.transaction(db.execute("INSERT INTO children VALUES (99)")))
        expect(error._tag).toBe("ConstraintError")
        expect(Option.map(yield* db.currentConnection, ({ session }) => session)).not.toEqual(
          Option.some("transaction")
        )
        expect(yield* valueOf(db, "SELECT COUNT(*) FROM children")).toBe(0)
        // no lock is left: another connection may write
        yield* Effect.flatMap(Effect.fork(Effect.timeout(insert(1), "2 seconds")), Fiber.join)
        expect(yield* items).toEqual([1])
      })
    ))

  it.live("readOnly refuses writes", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const exit = yield* Effect.exit(db.transaction(insert(1), { readOnly: true }))
        expect(Exit.isFailure(exit)).toBe(true)
        yield* insert(2)
        expect(yield* items).toEqual([2])
      })
    ))
})

describe("much of everything", () => {
  it.live(
    "10,000 fibers on a pool of 10 all complete",
    () =>
      withSqlite(
        { poolSize: 10, acquireTimeout: "60 seconds" },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const numbers = Array.from({ length: 10_000 }, (_, n) => n)
          const values = yield* Effect.forEach(numbers, (n) => db.value("SELECT ?", [n]), { concurrency: "unbounded" })
          expect(values.map(Option.getOrThrow)).toEqual(numbers)
          expect(yield* snapshot).toMatchObject({ held: 0, waiting: 0, idle: 10, created: 10 })
        })
      ),
    60_000
  )

  it.live("a stream of 100,000 rows is complete, and one of which three are taken ends", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        const numbers = db.stream<{ n: number }>(
          "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000) SELECT n FROM numbers"
        )
        expect(yield* Stream.runFold(numbers, 0, (sum, { n }) => sum + n)).toBe(5_000_050_000)
        expect(Array.from(yield* Stream.runCollect(Stream.take(numbers, 3)))).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }])
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
        expect((yield* snapshot).created).toBe(1)
      })
    ))

  it.live("1,000 waiters are served in order", () =>
    withSqlite(
      { ...one, acquireTimeout: "30 seconds" },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.releaseFiberConnection
        const fibers = yield* Effect.scoped(Effect.gen(function*() {
          yield* db.connection
          const fibers = yield* Effect.forEach(
            Array.from({ length: 1000 }, (_, n) => n),
            (n) => Effect.fork(db.execute("INSERT INTO items (owner) VALUES (?)", [n]))
          )
          yield* eventually("they wait", Effect.map(snapshot, ({ waiting }) => waiting === 1000))
          return fibers
        }))
        yield* Fiber.joinAll(fibers)
        expect(yield* db.list("SELECT owner FROM items ORDER BY id")).toEqual(Array.from({ length: 1000 }, (_, n) => n))
      })
    ))
})
