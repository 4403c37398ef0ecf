import { describe, expect, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Stream, TestClock } from "effect"
import * as Db from "../../src/Db.js"
import { StatementCancelled } from "../../src/DbError.js"
import * as Transaction from "../../src/Transaction.js"
import { fails, lost, never, statement, succeeds, takes } from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"

/** After the time, whatever runs fails with this, or does not. */
const failureAfter = <A, E>(effect: Effect.Effect<A, E>, millis: number): Effect.Effect<E, A> =>
  Effect.flatMap(Effect.fork(Effect.flip(effect)), (fiber) => joinAfter(fiber, millis))

const sentTexts = ({ fake }: Fixture): ReadonlyArray<string> => fake.sent.map(({ sql }) => sql)

describe("a statement that runs for longer than statementTimeout", () => {
  it.effect("is stopped and fails, and its connection goes on", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.flip(fixture.run("SLEEP 5000")))
        yield* TestClock.adjust(999)
        expect(yield* Fiber.poll(fiber)).toMatchObject({ _tag: "None" })
        const error = yield* joinAfter(fiber, 1)
        expect(error).toMatchObject({ _tag: "StatementTimeoutError", statement: "SLEEP 5000" })
        expect(error.message).toContain("it ran for longer than 1000 ms and was stopped")
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect(fixture.fake.violations).toEqual([])
      })))

  it.effect("is nothing special when it is faster", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.repeatN(fixture.run("SLEEP 900"), 9))
        yield* joinAfter(fiber, 9_000)
        yield* TestClock.adjust(10_000)
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect((yield* fixture.pool.snapshot).cancelled).toBe(0)
      })))

  it.effect("succeeds when it was faster than the request to stop it", () =>
    withPool({ statementTimeout: 1_000, script: { cancel: takes(200) } }, (fixture) =>
      Effect.gen(function*() {
        fixture.fake.script.run = () => fixture.fake.sent.at(-1)?.sql === "INSERT" ? takes(1_100) : succeeds
        const fiber = yield* Effect.fork(fixture.fibers.run(statement("INSERT")))
        expect(yield* joinAfter(fiber, 1_100)).toMatchObject({ affectedRows: 1 })
        yield* TestClock.adjust(100)
        expect(yield* fixture.run("SELECT id")).toBe("1")
      })))

  it.effect("fails as a read even then: MySQL answers one that it stops in a SLEEP with another value", () =>
    withPool({ statementTimeout: 1_000, script: { cancel: takes(200) } }, (fixture) =>
      Effect.gen(function*() {
        fixture.fake.script.run = () => fixture.fake.sent.at(-1)?.sql === "SELECT 42" ? takes(1_100) : succeeds
        const error = yield* failureAfter(fixture.fibers.run(statement("SELECT 42")), 1_100)
        expect(error).toMatchObject({ _tag: "StatementTimeoutError", statement: "SELECT 42" })
        yield* TestClock.adjust(100)
        expect(yield* fixture.run("SELECT id")).toBe("1")
      })))

  it.effect("and cannot be stopped loses its connection: a write is unknown", () =>
    withPool(
      { statementTimeout: 1_000, cancelTimeout: 500, script: { cancel: never } },
      (fixture) =>
        Effect.gen(function*() {
          fixture.fake.script.run = () => fixture.fake.sent.at(-1)?.sql === "INSERT" ? never : succeeds
          const error = yield* failureAfter(fixture.run("INSERT"), 1_500)
          expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
          expect(error.message).toContain("it ran for longer than 1000 ms and could not be stopped")
          expect(yield* fixture.run("SELECT id")).toBe("2")
        })
    ))

  it.effect("and cannot be stopped is not run again, not even a read: its time is over", () =>
    withPool(
      { statementTimeout: 1_000, cancelTimeout: 500, script: { cancel: never } },
      (fixture) =>
        Effect.gen(function*() {
          expect(yield* failureAfter(fixture.run("SLEEP 5000"), 1_500)).toMatchObject({ _tag: "ConnectionLost" })
          expect(sentTexts(fixture)).toEqual(["SLEEP 5000"])
        })
    ))

  it.effect("and was stopped is forgotten: a loss afterwards is made up for as always", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        yield* failureAfter(fixture.run("SLEEP 5000"), 1_000)
        fixture.fake.script.run = [fails(lost("unknown")), succeeds]
        const fiber = yield* Effect.fork(fixture.run("SELECT id"))
        expect(yield* joinAfter(fiber, 100)).toBe("2")
      })))

  it.effect("in a transaction fails the transaction, which is rolled back", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const error = yield* failureAfter(
          Transaction.run(fixture.fibers, Effect.zipRight(fixture.run("INSERT"), fixture.run("SLEEP 5000"))),
          1_000
        )
        expect(error._tag).toBe("StatementTimeoutError")
        expect(sentTexts(fixture)).toEqual(["BEGIN", "INSERT", "SLEEP 5000", "ROLLBACK"])
      })))

  it.effect("in a transaction and cannot be stopped loses its connection, and the transaction with it", () =>
    withPool(
      { statementTimeout: 1_000, cancelTimeout: 500, script: { cancel: never } },
      (fixture) =>
        Effect.gen(function*() {
          fixture.fake.script.run = () => fixture.fake.sent.at(-1)?.sql === "INSERT" ? never : succeeds
          const error = yield* failureAfter(Transaction.run(fixture.fibers, fixture.run("INSERT")), 1_500)
          expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        })
    ))

  it.effect("is not the one that waits for its turn: that has its own bound", () =>
    withPool({ statementTimeout: 1_000, poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const results = yield* Effect.fork(fixture.fibers.session(() =>
          Effect.all([fixture.run("SLEEP 900"), fixture.run("SLEEP 900"), fixture.run("SLEEP 900")], {
            concurrency: "unbounded"
          })
        ))
        yield* joinAfter(results, 2_700)
      })))

  it.effect("is not stopped twice when its fiber is interrupted as well", () =>
    withPool({ statementTimeout: 1_000, script: { cancel: takes(200) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SLEEP 5000"))
        yield* TestClock.adjust(1_000)
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust(200)
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect((yield* fixture.pool.snapshot).cancelled).toBe(1)
        expect(fixture.fake.violations).toEqual([])
      })))

  it.effect("never stops the statement after it", () =>
    withPool({ statementTimeout: 1_000, poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        // both are due at the same instant, and the end of the first starts the second
        const first = yield* Effect.fork(Effect.flip(fixture.run("SLEEP 5000")))
        yield* settle
        const second = yield* Effect.fork(fixture.run("SLEEP 900"))
        expect((yield* joinAfter(first, 1_000))._tag).toBe("StatementTimeoutError")
        yield* joinAfter(second, 900)
      })))
})

describe("a stream that waits for its next rows for longer than statementTimeout", () => {
  it.effect("is stopped and fails; what its consumer takes does not count", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const seen: Array<unknown> = []
        const fiber = yield* Effect.fork(Effect.flip(
          Stream.runForEach(fixture.fibers.stream(statement("ROWS 3 THEN HANG")), ({ row }) => {
            seen.push(row[0])
            return seen.length === 3 ? Deferred.await(gate) : Effect.void
          })
        ))
        yield* TestClock.adjust(5_000)
        expect(seen.length).toBe(3)
        yield* Deferred.succeed(gate, undefined)
        const error = yield* joinAfter(fiber, 1_000)
        expect(error._tag).toBe("StatementTimeoutError")
      })))
})

describe("Db.withStatementTimeout", () => {
  it.effect("is for the statements of its effect, and of what that forks, alone", () =>
    withPool({ statementTimeout: 10_000 }, (fixture) =>
      Effect.gen(function*() {
        const forked = Effect.flatMap(Effect.fork(fixture.run("SLEEP 5000")), Fiber.join)
        const error = yield* failureAfter(Db.withStatementTimeout(forked, "1 second"), 1_000)
        expect(error._tag).toBe("StatementTimeoutError")
        const outside = yield* Effect.fork(fixture.run("SLEEP 5000"))
        yield* joinAfter(outside, 5_000)
      })))

  it.effect("takes away the pool's limit", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SLEEP 5000").pipe(Db.withStatementTimeout(Duration.infinity)))
        yield* joinAfter(fiber, 5_000)
      })))

  it.effect("is for a transaction's statements too", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const error = yield* failureAfter(
          Db.withStatementTimeout(Transaction.run(fixture.fibers, fixture.run("SLEEP 5000")), 1_000),
          1_000
        )
        expect(error).not.toBeInstanceOf(StatementCancelled)
        expect(error).toMatchObject({ _tag: "StatementTimeoutError" })
      })))
})

describe("a lost connection", () => {
  it.effect("in time is told as such", () =>
    withPool({ statementTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const error = yield* failureAfter(fixture.run("LOSE"), 0)
        expect(error).toMatchObject({ _tag: "ConnectionLost", reason: lost("unknown").reason })
      })))
})
