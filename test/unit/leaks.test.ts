import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Logger, type Scope, Stream, TestClock } from "effect"
import * as Db from "../../src/Db.js"
import { statement } from "../support/fakeDriver.js"
import { type Fixture, settle, withPool } from "../support/poolFixture.js"

/** Runs the test and gives it what the pool has logged so far. */
const withLog = <A, E>(
  use: (fixture: Fixture, db: Db.DbService, log: ReadonlyArray<string>) => Effect.Effect<A, E, Scope.Scope>
) => {
  const log: Array<string> = []
  const logger = Logger.make(({ message }) => void log.push(String(message)))
  return withPool(
    { leakDetectionThreshold: 1_000 },
    (fixture) => Effect.scoped(use(fixture, Db.make(fixture.pool), log))
  ).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
}

/** A name to be found in a stack. */
const takeAndForget = (db: Db.DbService) =>
  Effect.gen(function* forgetful() {
    const connection = yield* db.connection
    yield* connection.value("SELECT id")
  })

describe("a connection that is held for longer than leakDetectionThreshold", () => {
  it.effect("is reported once, with who holds it, where it was acquired, and in which spans", () =>
    withLog((fixture, db, log) =>
      Effect.gen(function*() {
        yield* Effect.withSpan(takeAndForget(db), "checkout")
        yield* TestClock.adjust(900)
        expect(log).toEqual([])
        yield* TestClock.adjust(600)
        expect(log).toHaveLength(1)
        expect(log[0]).toMatch(
          /^A leak is suspected: fiber #\d+ has held connection 1 of test for 1\d\d\d ms \(an explicit connection\)\. Acquired by db\.connection\n/
        )
        expect(log[0]).toContain("forgetful")
        expect(log[0]).toMatch(/leaks\.test\.ts:\d+/)
        expect(log[0]).toContain("in the span checkout")
        // nothing of what it went through on its way
        expect(log[0]).not.toMatch(/node_modules\/effect|\/src\//)
        yield* TestClock.adjust(60_000)
        expect(log).toHaveLength(1)
        expect((yield* fixture.pool.snapshot).leaksSuspected).toBe(1)
      })
    ))

  it.effect("is a session's, a transaction's or a stream's just as well", () =>
    withLog((fixture, db, log) =>
      Effect.gen(function*() {
        const fibers = yield* Effect.forEach([
          db.session(Effect.never),
          db.transaction(Effect.never),
          Stream.runForEach(fixture.fibers.stream(statement("ROWS 6")), () => Effect.never)
        ], (held) => Effect.fork(held))
        yield* TestClock.adjust(2_000)
        expect(log.map((text) => /Acquired by (.*)/.exec(text)?.[1]).sort()).toEqual([
          "ROWS 6",
          "db.session",
          "db.transaction"
        ])
        yield* Fiber.interruptAll(fibers)
      })
    ))

  it.effect("is a fiber's when it holds state, from when it began to", () =>
    withLog((fixture, _, log) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("SELECT id")
          // idle and clean: whoever needs it takes it
          yield* Effect.sleep(5_000)
          yield* fixture.run("DIRTY")
          return yield* Effect.never
        }))
        yield* TestClock.adjust(5_900)
        expect(log).toEqual([])
        yield* TestClock.adjust(600)
        expect(log).toHaveLength(1)
        expect(log[0]).toMatch(/held connection 1 of test for 1\d\d\d ms \(its session holds state\)/)
        yield* Fiber.interrupt(fiber)
      })
    ))
})

describe("no leak is suspected", () => {
  it.effect("of a busy fiber whose statements are short", () =>
    withLog((fixture, _, log) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.forever(fixture.run("SLEEP 100")))
        yield* TestClock.adjust(20_000)
        expect(log).toEqual([])
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("of short transactions, one after the other", () =>
    withLog((fixture, db, log) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.forever(db.transaction(fixture.run("SLEEP 100"))))
        yield* TestClock.adjust(20_000)
        expect(log).toEqual([])
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("of what was asked for as long-lived", () =>
    withLog((fixture, db, log) =>
      Effect.gen(function*() {
        yield* Db.longLived(takeAndForget(db))
        const fiber = yield* Effect.fork(Db.longLived(db.session(Effect.zipRight(fixture.run("DIRTY"), Effect.never))))
        yield* TestClock.adjust(20_000)
        expect(log).toEqual([])
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("when there is no threshold", () => {
    const log: Array<unknown> = []
    return withPool({}, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        yield* Db.make(fixture.pool).connection
        yield* TestClock.adjust(3_600_000)
        yield* settle
        expect(log).toEqual([])
        expect((yield* fixture.pool.snapshot).leaksSuspected).toBe(0)
      }))).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, Logger.make(({ message }) => void log.push(message))))
      )
  })
})
