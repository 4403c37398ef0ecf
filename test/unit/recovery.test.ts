import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/TestClock"
import type { DbError } from "../../src/DbError.js"
import * as Errors from "../../src/DbError.js"
import { analyze } from "../../src/internal/sessionState.js"
import * as Recovery from "../../src/Recovery.js"

const statement = (sql: string) => ({ sql, params: [], traits: analyze(sql, "mysql") })
const read = statement("SELECT name FROM users")
const write = statement("INSERT INTO users (name) VALUES ('a')")
const lock = statement("SELECT name FROM users FOR UPDATE")

const counts = { idle: 0, held: 1, opening: 0, busy: 0, waiting: 1, max: 1 }
const refused = { statement: "x", reason: "y", errno: 1, sqlState: "HY000" }
const refusal = { pool: "p", waitedMillis: 1, counts }

const lost = (outcome: Errors.Outcome) => new Errors.ConnectionLost({ outcome, reason: "it broke" })

/** One of every class that is a `DbError`; the compiler tells when one is missing. */
const others: { readonly [Tag in Exclude<DbError["_tag"], "ConnectionLost" | "ReadOnlyError">]: DbError } = {
  PoolExhausted: new Errors.PoolExhausted(refusal),
  PoolUnreachable: new Errors.PoolUnreachable(refusal),
  TooManyWaiters: new Errors.TooManyWaiters({ pool: "p", maxWaiters: 1, counts }),
  PoolClosed: new Errors.PoolClosed({ pool: "p" }),
  ConnectionError: new Errors.ConnectionError({ target: "t", reason: "r", isRetryable: true }),
  AuthenticationError: new Errors.AuthenticationError({ target: "t", reason: "r" }),
  AffinityLost: new Errors.AffinityLost({ statement: "x" }),
  ConnectionBusy: new Errors.ConnectionBusy({ statement: "x" }),
  SessionEnded: new Errors.SessionEnded({ statement: "x" }),
  InvalidStatement: new Errors.InvalidStatement(refused),
  ParameterError: new Errors.ParameterError(refused),
  DecodeError: new Errors.DecodeError(refused),
  InvalidTransaction: new Errors.InvalidTransaction({ reason: "r" }),
  TransactionAborted: new Errors.TransactionAborted({ statement: "x", cause: new Errors.DeadlockError(refused) }),
  SqlSyntaxError: new Errors.SqlSyntaxError(refused),
  UniqueViolation: new Errors.UniqueViolation(refused),
  ConstraintError: new Errors.ConstraintError(refused),
  AuthorizationError: new Errors.AuthorizationError(refused),
  DeadlockError: new Errors.DeadlockError(refused),
  SerializationError: new Errors.SerializationError(refused),
  LockTimeoutError: new Errors.LockTimeoutError(refused),
  StatementTimeoutError: new Errors.StatementTimeoutError(refused),
  StatementCancelled: new Errors.StatementCancelled(refused),
  StatementError: new Errors.StatementError(refused)
}
const readOnly = new Errors.ReadOnlyError(refused)

describe("isStale", () => {
  it("is true of a lost connection and of one to a server that is read-only now", () => {
    expect(Recovery.isStale(readOnly)).toBe(true)
    for (const outcome of ["not executed", "unknown", "rolled back"] as const) {
      expect(Recovery.isStale(lost(outcome))).toBe(true)
    }
  })

  it.each(Object.entries(others))("is false of %s", (_, error) => {
    expect(Recovery.isStale(error)).toBe(false)
  })
})

describe("mayRetry", () => {
  it.each(Object.entries(others))("never runs a statement again after %s", (_, error) => {
    for (const each of [read, write, lock]) {
      for (const idempotent of [false, true]) expect(Recovery.mayRetry(error, each, idempotent)).toBe(false)
    }
  })

  it.each(
    [
      ["not executed", "a read", read, false, true],
      ["not executed", "a write", write, false, true],
      ["not executed", "a locking read", lock, false, true],
      ["rolled back", "a write", write, false, true],
      ["unknown", "a read", read, false, true],
      ["unknown", "a write", write, false, false],
      ["unknown", "a locking read", lock, false, false],
      ["unknown", "a write declared idempotent", write, true, true],
      ["unknown", "a locking read declared idempotent", lock, true, true]
    ] as const
  )("after a loss with outcome %s, %s", (outcome, _, each, idempotent, again) => {
    expect(Recovery.mayRetry(lost(outcome), each, idempotent)).toBe(again)
  })

  it("runs anything again that a read-only server refused, on another connection", () => {
    for (const each of [read, write, lock]) expect(Recovery.mayRetry(readOnly, each, false)).toBe(true)
  })

  it.each([
    "SELECT GET_LOCK('x', 1)",
    "SELECT LAST_INSERT_ID(5)",
    "SELECT my_function()",
    "SELECT 1 INTO @x",
    "SELECT @x := 1",
    "CALL touch()",
    "DO SLEEP(0)",
    "UPDATE t SET a = 1",
    "SELECT 1; DELETE FROM t"
  ])("does not take %s for a read", (sql) => {
    expect(Recovery.mayRetry(lost("unknown"), statement(sql), false)).toBe(false)
  })
})

/** What the schedule would wait, of as many steps at most, without waiting. */
const delays = <In>(schedule: Schedule.Schedule<unknown, In>, input: In, steps: number) =>
  Effect.map(
    Schedule.run(Schedule.delays(schedule), 0, Array.from({ length: steps }, () => input)),
    (chunk) => Array.from(chunk, Duration.toMillis)
  )

/** What the schedule does wait, on the clock. */
const waits = <In>(schedule: Schedule.Schedule<unknown, In>, input: In, steps: number) =>
  Effect.gen(function*() {
    const driver = yield* Schedule.driver(schedule)
    const taken: Array<number> = []
    const walk = yield* Effect.fork(Effect.gen(function*() {
      for (let step = 0; step < steps; step++) {
        const from = yield* Clock.currentTimeMillis
        if (Either.isLeft(yield* Effect.either(driver.next(input)))) return
        taken.push((yield* Clock.currentTimeMillis) - from)
      }
    }))
    yield* TestClock.adjust("1 hour")
    yield* Fiber.join(walk)
    return taken
  })

const bound = (base: number, cap: number, step: number): number => Math.min(cap, base * 2 ** step)

describe("fullJitter", () => {
  it.effect("stays between nothing and the smaller of the cap and base · 2ⁿ, and uses the whole of it", () =>
    Effect.gen(function*() {
      const shares: Array<number> = []
      for (let seed = 0; seed < 60; seed++) {
        const taken = yield* Effect.withRandom(
          delays(Recovery.fullJitter({ base: "8 millis", cap: "100 millis" }), undefined, 7),
          Random.make(seed)
        )
        expect(taken).toHaveLength(7)
        taken.forEach((delay, step) => {
          expect(delay).toBeGreaterThanOrEqual(0)
          expect(delay).toBeLessThanOrEqual(bound(8, 100, step))
          if (step >= 3) shares.push(delay / bound(8, 100, step))
        })
      }
      const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length
      expect(mean).toBeGreaterThan(0.4)
      expect(mean).toBeLessThan(0.6)
      expect(Math.min(...shares)).toBeLessThan(0.1)
      expect(Math.max(...shares)).toBeGreaterThan(0.9)
    }))

  it.effect("is the same with the same seed, and another with another", () =>
    Effect.gen(function*() {
      const run = (seed: string) =>
        Effect.withRandom(
          delays(Recovery.fullJitter({ base: "20 millis", cap: "1 second" }), undefined, 6),
          Random.make(seed)
        )
      expect(yield* run("a")).toEqual(yield* run("a"))
      expect(yield* run("a")).not.toEqual(yield* run("b"))
    }))

  it.effect("is exactly the bound when chance gives the most, and never ends", () =>
    Effect.gen(function*() {
      const taken = yield* Effect.withRandom(
        delays(Recovery.fullJitter({ base: "10 millis", cap: "200 millis" }), undefined, 400),
        Random.fixed([1])
      )
      expect(taken.slice(0, 6)).toEqual([10, 20, 40, 80, 160, 200])
      expect(taken).toHaveLength(400)
      expect(taken.at(-1)).toBe(200)
    }))
})

describe("schedule", () => {
  it.effect("waits on Effect's clock, each time within its bound", () =>
    Effect.gen(function*() {
      const taken = yield* Effect.withRandom(waits(Recovery.schedule, lost("unknown"), 100), Random.make("seed"))
      expect(taken).toHaveLength(5)
      taken.forEach((delay, step) => {
        expect(delay).toBeGreaterThan(0)
        expect(delay).toBeLessThan(bound(20, 1_000, step))
      })
    }))

  it.effect("gives five retries, from 20 milliseconds up to at most a second", () =>
    Effect.gen(function*() {
      const taken = yield* Effect.withRandom(
        waits(Recovery.schedule, lost("unknown"), 100),
        Random.fixed([1])
      )
      expect(taken).toEqual([20, 40, 80, 160, 320])
    }))

  it.effect("lets an effect run six times in all", () =>
    Effect.gen(function*() {
      let runs = 0
      const effect = Effect.suspend(() => {
        runs++
        return Effect.fail<DbError>(lost("not executed"))
      })
      const fiber = yield* Effect.fork(Effect.flip(Effect.retry(effect, Recovery.schedule)))
      yield* TestClock.adjust("10 seconds")
      expect((yield* Fiber.join(fiber))._tag).toBe("ConnectionLost")
      expect(runs).toBe(6)
    }))

  it.effect("does not wait as one when many fail together", () =>
    Effect.gen(function*() {
      const all = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, seed) => seed),
        (seed) => Effect.withRandom(delays(Recovery.schedule, lost("unknown"), 5), Random.make(seed))
      )
      expect(new Set(all.map((taken) => taken.join())).size).toBeGreaterThan(15)
    }))
})

describe("connectSchedule", () => {
  it.effect("goes on for as long as somebody waits, at most a second apart", () =>
    Effect.gen(function*() {
      const failure = new Errors.ConnectionError({ target: "t", reason: "refused", isRetryable: true })
      const taken = yield* Effect.withRandom(delays(Recovery.connectSchedule, failure, 50), Random.fixed([1]))
      expect(taken).toHaveLength(50)
      expect(taken.slice(0, 6)).toEqual([50, 100, 200, 400, 800, 1_000])
      expect(Math.max(...taken)).toBe(1_000)
    }))
})

describe("idempotent", () => {
  it.effect("is no by default, holds inside, and no longer afterwards", () =>
    Effect.gen(function*() {
      expect(yield* Recovery.Idempotent).toBe(false)
      expect(yield* Recovery.idempotent(Recovery.Idempotent)).toBe(true)
      expect(yield* Recovery.Idempotent).toBe(false)
    }))

  it.effect("is inherited by everything the effect forks", () =>
    Effect.gen(function*() {
      const seen = yield* Recovery.idempotent(Effect.gen(function*() {
        const forked = yield* Effect.fork(Recovery.Idempotent)
        const daemon = yield* Effect.forkDaemon(Recovery.Idempotent)
        return [
          yield* Fiber.join(forked),
          yield* Fiber.join(daemon),
          ...(yield* Effect.forEach([1, 2], () => Recovery.Idempotent, { concurrency: 2 })),
          yield* Effect.timeout(Recovery.Idempotent, Duration.infinity),
          yield* Effect.race(Recovery.Idempotent, Effect.never)
        ]
      }))
      expect(Chunk.fromIterable(seen)).toEqual(Chunk.make(true, true, true, true, true, true))
    }))

  it.effect("does not leak to a sibling", () =>
    Effect.gen(function*() {
      const seen = yield* Effect.all([Recovery.idempotent(Recovery.Idempotent), Recovery.Idempotent], {
        concurrency: "unbounded"
      })
      expect(seen).toEqual([true, false])
    }))
})
