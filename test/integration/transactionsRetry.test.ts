/** A transaction that is run again: for what, how often, and what the attempts have to do with each other. */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as Recovery from "../../src/Recovery.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { connectionId, latch, noWaitErrno, snapshot, valueOf } from "../support/dbQuestions.js"
import { createLocks, type Lock, opponent } from "../support/deadlocks.js"
import { noRetries } from "../support/retries.js"

const pool = { poolSize: 4, acquireTimeout: "10 seconds" } as const
const five = Schedule.recurs(5)

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const lost = (count: number) =>
  eventually(`the pool has seen ${count} losses`, Effect.map(snapshot, (counts) => counts.lost === count))

/** A schedule that writes down what it is asked about. */
const noting = (asked: Array<string>): Schedule.Schedule<unknown, DbError> =>
  Schedule.tapInput(five, (error: DbError) => Effect.sync(() => asked.push(error._tag)))

class OwnError extends Data.TaggedError("OwnError")<{ readonly cause: unknown }> {}

type Services = Db.Db | SqlClient

describe("a deadlock of two fibers", () => {
  const transfer = (from: number, to: number, both: Effect.Effect<void>) =>
    Effect.gen(function*() {
      const db = yield* Db.Db
      yield* db.execute("UPDATE locks SET n = n - 10 WHERE id = ?", [from])
      yield* both
      yield* db.execute("UPDATE locks SET n = n + 10 WHERE id = ?", [to])
    })

  it.live("is survived by both when they ask for it, in attempts that are counted", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createLocks
        const both = yield* latch(2)
        let attempts = 0
        const run = (from: number, to: number) =>
          db.transaction(
            Effect.suspend(() => transfer(from, to, ++attempts <= 2 ? both : Effect.void)),
            { retry: Recovery.schedule }
          )
        yield* Effect.all([run(1, 2), run(2, 1)], { concurrency: 2 })
        expect(attempts).toBe(3)
        expect((yield* snapshot).retriedTransactions).toBe(1)
        expect(yield* db.list("SELECT n FROM locks")).toEqual([0, 0])
      })))

  it.live("fails one of them, and only one, with DeadlockError when they do not", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient
        yield* createLocks
        const both = yield* latch(2)
        const ends = yield* Effect.all([
          Effect.either(sql.withTransaction(transfer(1, 2, both))),
          Effect.either(db.transaction(transfer(2, 1, both)))
        ], { concurrency: 2 })
        const failures = ends.flatMap((end) => Either.isLeft(end) ? [end.left] : [])
        expect(failures).toMatchObject([{ _tag: "DeadlockError" }])
        expect(yield* snapshot).toMatchObject(noRetries)
        expect((yield* db.list<number>("SELECT n FROM locks")).map(Math.abs)).toEqual([10, 10])
      })))
})

describe("a transaction is run again after a deadlock", () => {
  const withSql = <A, E, R>(use: (sql: SqlClient) => Effect.Effect<A, E, R>) => Effect.flatMap(SqlClient, use)
  const inDb: Lock<unknown, DbError, Db.Db> = (text) => Effect.flatMap(Db.Db, (db) => db.execute(text))
  const inSql = (text: string) => withSql((sql) => sql.unsafe(text))
  type Meet = (lock: Lock<unknown, unknown, Services>) => Effect.Effect<unknown, unknown, Services>

  const ways: Record<string, (meet: Meet) => Effect.Effect<unknown, unknown, Services>> = {
    "in its body": (meet) => meet(inDb),
    "in sql.withTransaction inside": (meet) => withSql((sql) => sql.withTransaction(meet(inSql))),
    "in a nested transaction": (meet) => Effect.flatMap(Db.Db, (db) => db.transaction(meet(inDb))),
    "that its body dies of": (meet) => Effect.orDie(meet(inDb)),
    "that a repository dies of, as Model's do": (meet) =>
      withSql((sql) => sql.withTransaction(Effect.orDie(meet(inSql)))),
    "that its body wraps": (meet) => Effect.mapError(meet(inDb), (cause) => new OwnError({ cause })),
    "that its body wraps twice and dies of": (meet) =>
      Effect.orDie(Effect.mapError(meet(inSql), (cause) => new OwnError({ cause: new Error("no", { cause }) }))),
    "that its body replaces by an error of its own": (meet) => Effect.orElseFail(meet(inDb), () => "mine"),
    "that its body catches": (meet) => Effect.exit(meet(inDb)),
    "in one of its children": (meet) => Effect.flatMap(Effect.fork(meet(inDb)), Fiber.join),
    "in one of many things that it does at once": (meet) =>
      Effect.all([meet(inDb), Effect.never], { concurrency: "unbounded" }),
    "in one of two things that it does at once, nested": (meet) =>
      Effect.flatMap(Db.Db, (db) => db.transaction(Effect.zip(meet(inDb), Effect.never, { concurrent: true }))),
    "under a timeout": (meet) => Effect.timeout(meet(inDb), "20 seconds")
  }
  for (const [where, use] of Object.entries(ways)) {
    it.live(where, () =>
      withDb(pool, () =>
        Effect.scoped(Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* createLocks
          const other = yield* opponent
          const asked: Array<string> = []
          let runs = 0
          yield* db.transaction(
            Effect.gen(function*() {
              yield* insert(++runs)
              // the other side fights once
              if (runs === 1) yield* use(other.meet)
            }),
            { retry: noting(asked) }
          )
          yield* other.committed
          expect(asked).toHaveLength(1)
          expect(["DeadlockError", "TransactionAborted"]).toContain(asked[0])
          expect(yield* items).toEqual([2])
          expect((yield* snapshot).retriedTransactions).toBe(1)
        }))))
  }
})

describe("what a retry schedule is asked about", () => {
  const noWait = Effect.flatMap(Db.Db, (db) => db.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE NOWAIT"))

  it.live("is a lock wait, as often as it allows, and the last error is the transaction's", () =>
    withDb(pool, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* db.connection
        yield* other.execute("START TRANSACTION")
        yield* other.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE")
        let runs = 0
        const body = Effect.suspend(() => Effect.zipRight(insert(++runs), noWait))
        const error = yield* Effect.flip(db.transaction(body, { retry: Schedule.recurs(3) }))
        expect(error).toMatchObject({ _tag: "LockTimeoutError", errno: noWaitErrno() })
        expect(runs).toBe(4)
        expect((yield* snapshot).retriedTransactions).toBe(3)
        expect(yield* items).toEqual([])
        // once more, and between two attempts the lock is free
        runs = 0
        const freeing = Schedule.tapInput(five, () => Effect.ignore(other.execute("ROLLBACK")))
        yield* db.transaction(body, { retry: freeing })
        expect(yield* items).toEqual([2])
      }))))

  it.live("is a connection that was lost before COMMIT was sent: the next attempt has another", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const asked: Array<string> = []
        const ids: Array<number> = []
        yield* db.transaction(
          Effect.gen(function*() {
            const id = yield* connectionId
            yield* insert(ids.push(id))
            if (ids.length > 2) return
            yield* fixture.kill(id)
            yield* lost(ids.length)
            // once it is a statement that notices, once it is COMMIT, which is then not sent
            if (ids.length === 1) yield* insert(100)
          }),
          { retry: noting(asked) }
        )
        expect(asked).toEqual(["ConnectionLost", "ConnectionLost"])
        expect(new Set(ids).size).toBe(3)
        expect(yield* items).toEqual([3])
      })))

  it.live("is not a connection that was lost in a session, which has gone with it", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const asked: Array<string> = []
        const error = yield* Effect.flip(db.session(db.transaction(
          Effect.gen(function*() {
            yield* insert(1)
            yield* fixture.kill(yield* connectionId)
            yield* lost(1)
            yield* insert(2)
          }),
          { retry: noting(asked) }
        )))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(asked).toEqual([])
        expect(yield* items).toEqual([])
      })))

  it.live("is not one that was lost with what its fiber had on it", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.execute("SET @mine = 7")
        const asked: Array<string> = []
        const error = yield* Effect.flip(db.transaction(
          Effect.gen(function*() {
            yield* insert(1)
            yield* fixture.kill(yield* connectionId)
            yield* lost(1)
          }),
          { retry: noting(asked) }
        ))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(asked).toEqual([])
        expect(yield* items).toEqual([])
      })))

  it.live("is not a lock wait after a statement that has committed what came before it", () =>
    withDb(pool, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* db.connection
        yield* other.execute("START TRANSACTION")
        yield* other.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE")
        const asked: Array<string> = []
        let runs = 0
        const body = Effect.gen(function*() {
          yield* insert(++runs)
          yield* db.execute("CREATE TABLE defined (id INT)")
          yield* noWait
        })
        const error = yield* Effect.flip(db.transaction(body, { retry: noting(asked) }))
        expect(error).toMatchObject({ _tag: "LockTimeoutError" })
        expect(asked).toEqual([])
        expect(yield* items).toEqual([1])
      }))))

  it.live("is a deadlock in a session, whose variables are there in the next attempt", () =>
    withDb(pool, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        let runs = 0
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @session = 7")
          const body = Effect.gen(function*() {
            yield* insert(++runs)
            expect(yield* valueOf(db, "SELECT @session")).toBe(7)
            if (runs === 1) yield* other.meet((text) => db.execute(text))
          })
          yield* db.transaction(body, { retry: five })
          expect(yield* valueOf(db, "SELECT @session")).toBe(7)
        }))
        expect(yield* items).toEqual([2])
      }))))

  const others: Record<string, Effect.Effect<unknown, unknown, Db.Db>> = {
    "a failure of the body's own": Effect.fail("mine"),
    "a defect": Effect.die(new Error("a bug")),
    "an interruption": Effect.interrupt,
    "an interruption after a lock wait": Effect.catchAll(noWait, () => Effect.interrupt),
    "a duplicate key": insert(1),
    "a syntax error": Effect.flatMap(Db.Db, (db) => db.execute("SELEKT")),
    "COMMIT as a statement": Effect.flatMap(Db.Db, (db) => db.execute("COMMIT")),
    "a level that a nested one cannot have": Effect.flatMap(
      Db.Db,
      (db) => db.transaction(Effect.void, { isolation: "SERIALIZABLE" })
    ),
    "a lock wait that the body caught, since the transaction goes on and commits": Effect.ignore(noWait)
  }
  for (const [what, body] of Object.entries(others)) {
    it.live(`is not ${what}`, () =>
      withDb(pool, () =>
        Effect.scoped(Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* createLocks
          const other = yield* db.connection
          yield* other.execute("START TRANSACTION")
          yield* other.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE")
          const asked: Array<string> = []
          const child = yield* Effect.fork(
            db.transaction(Effect.zipRight(insert(1), body), { retry: noting(asked) })
          )
          const exit = yield* Fiber.await(child)
          expect(asked).toEqual([])
          expect(yield* items).toEqual(Exit.isSuccess(exit) ? [1] : [])
          expect(yield* snapshot).toMatchObject(noRetries)
        }))))
  }

  it.live("is not that nobody gives a connection: the pool has waited long enough", () =>
    withDb({ poolSize: 1 }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.connection
        const asked: Array<string> = []
        const transaction = db.transaction(Effect.void, { retry: noting(asked), acquireTimeout: 50 })
        expect((yield* Effect.flip(transaction))._tag).toBe("PoolExhausted")
        expect(asked).toEqual([])
      }))))

  it.live("is for the outermost transaction to say: a nested one's schedule is not asked", () =>
    withDb(pool, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient
        yield* createItems
        yield* createLocks
        for (const withSql of [false, true]) {
          const asked: Array<string> = []
          yield* Effect.scoped(Effect.gen(function*() {
            const other = yield* opponent
            const nested = db.transaction(other.meet((text) => db.execute(text)), { retry: noting(asked) })
            const body = Effect.zipRight(insert(1), nested)
            const transaction = withSql ? sql.withTransaction(body) : db.transaction(body)
            expect(yield* Effect.flip(transaction)).toMatchObject({ _tag: "DeadlockError" })
            yield* other.committed
          }))
          expect(asked).toEqual([])
          expect(yield* items).toEqual([])
        }
      })))
})

describe("an attempt", () => {
  it.live("that has failed leaves no daemon that writes into the next", () =>
    withDb(pool, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        const goOn = yield* Deferred.make<void>()
        let daemon: Fiber.Fiber<DbError, unknown> | undefined
        let runs = 0
        const body = Effect.gen(function*() {
          yield* insert(++runs)
          if (runs === 1) {
            daemon = yield* Effect.forkDaemon(Effect.flip(Effect.zipRight(Deferred.await(goOn), insert(100))))
            yield* other.meet((text) => db.execute(text))
          }
          yield* Deferred.succeed(goOn, undefined)
          const told = yield* Fiber.join(daemon!)
          expect(["SessionEnded", "TransactionAborted"]).toContain(told._tag)
        })
        yield* db.transaction(body, { retry: five })
        expect(yield* items).toEqual([2])
      }))))

  it.live("that is being waited for is given up by an interruption, at once", () =>
    withDb(pool, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        const other = yield* opponent
        const waits = yield* Deferred.make<void>()
        let runs = 0
        const body = Effect.suspend(() => Effect.zipRight(insert(++runs), other.meet((text) => db.execute(text))))
        const retry = Schedule.tapInput(Schedule.spaced("1 hour"), () => Deferred.succeed(waits, undefined))
        const running = yield* Effect.fork(db.transaction(body, { retry }))
        yield* Deferred.await(waits)
        const exit = yield* Fiber.interrupt(running)
        expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
        expect(runs).toBe(1)
        expect(yield* snapshot).toMatchObject(noRetries)
        expect(yield* items).toEqual([])
      }))))
})
