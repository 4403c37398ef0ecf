import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Stream, TestClock } from "effect"
import { vi } from "vitest"
import { StatementError } from "../../src/DbError.js"
import { runOn } from "../../src/internal/submission.js"
import * as Transaction from "../../src/Transaction.js"
import { type Behaviour, fails, lost, never, statement, succeeds, takes } from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"

const failureOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<boolean> => Effect.map(Fiber.poll(fiber), Option.isSome)

const inTransaction = <A, E, R>({ fibers }: Fixture, effect: Effect.Effect<A, E, R>) => Transaction.run(fibers, effect)

const texts = ({ fake }: Fixture): ReadonlyArray<string> =>
  fake.sent.map(({ sql }) => sql.replace("SAVEPOINT effect_sql_pool_", ""))

/** What the server does with statements of this text; with all others it does what they say. */
const onText = ({ fake }: Fixture, sql: string, behaviour: Behaviour<StatementError>): void => {
  fake.script.run = () => fake.sent.at(-1)?.sql === sql ? behaviour : succeeds
}

describe("a transaction", () => {
  it.effect("that succeeds is committed, on one connection, which stays with its fiber", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        expect(yield* inTransaction(fixture, fixture.run("SELECT id"))).toBe("1")
        expect(texts(fixture)).toEqual(["BEGIN", "SELECT id", "COMMIT"])
        expect(yield* fixture.fibers.current).toMatchObject({ value: { id: "1", session: "clean" } })
      })))

  it.effect("that fails is rolled back, and fails with its body's error", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(
          inTransaction(fixture, Effect.zipRight(fixture.run("INSERT"), Effect.fail("no")))
        )
        expect(error).toBe("no")
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "ROLLBACK"])
      })))

  it.effect("whose COMMIT is refused is rolled back, and the refusal is its error", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const refusal = new StatementError({ statement: "COMMIT", reason: "a deferred constraint" })
        onText(fixture, "COMMIT", fails(refusal))
        expect(yield* Effect.flip(inTransaction(fixture, fixture.run("INSERT")))).toBe(refusal)
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "COMMIT", "ROLLBACK"])
        yield* fixture.run("UPDATE")
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "INSERT", "COMMIT", "ROLLBACK", "UPDATE"])
        expect(yield* fixture.fibers.current).toMatchObject({ value: { id: "1", session: "clean" } })
      })))

  it.effect("that is interrupted while its COMMIT is in flight waits for the answer", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        onText(fixture, "COMMIT", takes(500))
        const fiber = yield* Effect.fork(inTransaction(fixture, fixture.run("INSERT")))
        yield* settle
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(499)
        expect(yield* isDone(interruption)).toBe(false)
        expect(Exit.isInterrupted(yield* joinAfter(interruption, 1))).toBe(true)
        yield* settle
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "COMMIT"])
        expect(fixture.fake.connection("1").roundTrips.cancel).toBe(0)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
      })))

  it.effect("that is interrupted while its COMMIT is in flight waits at most as long as a cancel may take", () =>
    withPool({ cancelTimeout: 2_000 }, (fixture) =>
      Effect.gen(function*() {
        onText(fixture, "COMMIT", never)
        const fiber = yield* Effect.fork(inTransaction(fixture, fixture.run("INSERT")))
        yield* settle
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1_999)
        expect(yield* isDone(interruption)).toBe(false)
        yield* joinAfter(interruption, 1)
        yield* settle
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))

  it.effect("that fails and whose ROLLBACK is never answered ends after cancelTimeout with its body's error", () =>
    withPool({ cancelTimeout: 2_000 }, (fixture) =>
      Effect.gen(function*() {
        onText(fixture, "ROLLBACK", never)
        const fiber = yield* Effect.fork(Effect.flip(inTransaction(fixture, Effect.fail("no"))))
        yield* TestClock.adjust(1_999)
        expect(yield* isDone(fiber)).toBe(false)
        yield* TestClock.adjust(1)
        expect(yield* isDone(fiber)).toBe(true)
        expect(yield* Fiber.join(fiber)).toBe("no")
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))

  it.effect("in a session that is interrupted and whose ROLLBACK is never answered ends after cancelTimeout", () =>
    withPool({ cancelTimeout: 2_000 }, (fixture) =>
      Effect.gen(function*() {
        onText(fixture, "ROLLBACK", never)
        const fiber = yield* Effect.fork(fixture.fibers.session(() => inTransaction(fixture, Effect.never)))
        yield* settle
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(1_999)
        expect(yield* isDone(interruption)).toBe(false)
        yield* TestClock.adjust(1)
        expect(yield* isDone(interruption)).toBe(true)
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))

  it.effect("that is interrupted while nothing runs on its connection ends at once", () =>
    withPool({ cancelTimeout: 2_000 }, (fixture) =>
      Effect.gen(function*() {
        fixture.fake.script.reset = never
        onText(fixture, "ROLLBACK", never)
        const fiber = yield* Effect.fork(inTransaction(fixture, Effect.never))
        yield* settle
        expect(texts(fixture)).toEqual(["BEGIN"])
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* settle
        expect(yield* isDone(interruption)).toBe(true)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))
})

it.effect("a transaction that the driver has no statement for dies before its effect, and keeps no connection", () =>
  withPool({ poolSize: 1 }, (fixture) =>
    Effect.gen(function*() {
      yield* Effect.acquireRelease(
        Effect.sync(() => vi.spyOn(fixture.pool.driver.transaction, "begin").mockReturnValue([])),
        (spy) => Effect.sync(() => spy.mockRestore())
      )
      const exit = yield* Effect.exit(inTransaction(fixture, fixture.run("INSERT")))
      expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(true)
      expect(texts(fixture)).toEqual([])
      expect(yield* Effect.flatMap(Effect.fork(fixture.run("SELECT id")), Fiber.join)).toBe("1")
    }).pipe(Effect.scoped)))

describe("the loss of a connection", () => {
  it.effect("under a write of another connection inside of a transaction stays of unknown outcome", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const body = Effect.scoped(Effect.gen(function*() {
          yield* fixture.run("INSERT")
          const other = yield* fixture.fibers.connection
          fixture.fake.connection("1").break()
          return yield* runOn(other, statement("LOSE"))
        }))
        expect(yield* Effect.flip(inTransaction(fixture, body))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "unknown",
          statement: "LOSE"
        })
      })))

  it.effect("under a stream of the transaction has the outcome \"rolled back\"", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const stream = Stream.runDrain(fixture.fibers.stream(statement("ROWS 6 THEN LOSE")))
        expect(yield* Effect.flip(inTransaction(fixture, stream))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        expect(texts(fixture)).toEqual(["BEGIN", "ROWS 6 THEN LOSE"])
      })))

  const cases = [
    ["under a statement of the transaction", "INSERT", "rolled back"],
    ["under DDL, which commits what came before it,", "CREATE TABLE t (id INT)", "unknown"]
  ] as const
  for (const [name, sql, outcome] of cases) {
    it.effect(`${name} has the outcome "${outcome}"`, () =>
      withPool({ script: { run: [succeeds, fails(lost("unknown", sql))] } }, (fixture) =>
        Effect.gen(function*() {
          expect(yield* Effect.flip(inTransaction(fixture, fixture.run(sql)))).toMatchObject({
            _tag: "ConnectionLost",
            outcome,
            statement: sql
          })
          expect(texts(fixture)).toEqual(["BEGIN", sql])
        })))
  }

  it.effect("between two statements of the transaction has the outcome \"rolled back\"", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const body = Effect.zipRight(
          Effect.sync(() => fixture.fake.connection("1").break()),
          fixture.run("INSERT")
        )
        expect(yield* Effect.flip(inTransaction(fixture, body))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        expect(texts(fixture)).toEqual(["BEGIN"])
      })))

  it.effect("under COMMIT has the outcome \"unknown\"", () =>
    withPool(
      { script: { run: [succeeds, succeeds, fails(lost("unknown", "COMMIT"))] } },
      (fixture) =>
        Effect.gen(function*() {
          expect(yield* Effect.flip(inTransaction(fixture, fixture.run("INSERT")))).toMatchObject({
            _tag: "ConnectionLost",
            outcome: "unknown",
            statement: "COMMIT"
          })
          expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "COMMIT"])
        })
    ))
})

describe("nested transactions", () => {
  it.effect("side by side take turns, and the failure of one leaves the other's work", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const failing = inTransaction(
          fixture,
          Effect.zipRight(Effect.zipRight(fixture.run("UPDATE a"), fixture.run("SLEEP 10")), Effect.fail("no"))
        )
        const working = inTransaction(fixture, fixture.run("UPDATE b"))
        const fiber = yield* Effect.fork(
          inTransaction(
            fixture,
            Effect.all([Effect.exit(failing), Effect.exit(working)], { concurrency: 2 })
          )
        )
        const [failed, worked] = yield* joinAfter(fiber, 10)
        expect(failureOf(failed)).toBe("no")
        expect(Exit.isSuccess(worked)).toBe(true)
        expect(texts(fixture)).toEqual([
          "BEGIN",
          "1",
          "UPDATE a",
          "SLEEP 10",
          "ROLLBACK TO 1",
          "RELEASE 1",
          "2",
          "UPDATE b",
          "RELEASE 2",
          "COMMIT"
        ])
      })))

  it.effect("have the connection for themselves: statements of the one around them wait", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(inTransaction(
          fixture,
          Effect.gen(function*() {
            const nested = yield* Effect.fork(
              inTransaction(fixture, Effect.zipRight(Effect.sleep(100), fixture.run("UPDATE nested")))
            )
            yield* Effect.sleep(1)
            yield* fixture.run("UPDATE outer")
            yield* Fiber.join(nested)
          })
        ))
        yield* TestClock.adjust(99)
        expect(texts(fixture)).toEqual(["BEGIN", "1"])
        yield* joinAfter(fiber, 1)
        expect(texts(fixture)).toEqual(["BEGIN", "1", "UPDATE nested", "RELEASE 1", "UPDATE outer", "COMMIT"])
      })))

  it.effect("that wait for a statement of the one around them end it with ConnectionBusy after acquireTimeout", () =>
    withPool({ acquireTimeout: 10_000 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.flip(inTransaction(
          fixture,
          Effect.gen(function*() {
            const outer = yield* Effect.fork(Effect.zipRight(Effect.sleep(5), fixture.run("INSERT")))
            yield* inTransaction(fixture, Fiber.join(outer))
          })
        )))
        yield* TestClock.adjust(10_004)
        expect(yield* isDone(fiber)).toBe(false)
        expect(yield* joinAfter(fiber, 1)).toMatchObject({ _tag: "ConnectionBusy", statement: "INSERT" })
        expect(texts(fixture)).toEqual(["BEGIN", "1", "ROLLBACK TO 1", "RELEASE 1", "ROLLBACK"])
      })))

  it.effect("that go on when the one around them fails are rolled back with it, and told so", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const latch = yield* Deferred.make<void>()
        const nested = yield* Deferred.make<Fiber.Fiber<unknown, unknown>>()
        const error = yield* Effect.flip(inTransaction(
          fixture,
          Effect.gen(function*() {
            yield* fixture.run("INSERT")
            const entered = yield* Deferred.make<void>()
            const fiber = yield* Effect.fork(inTransaction(
              fixture,
              Effect.zipRight(
                Effect.zipRight(Deferred.succeed(entered, undefined), Deferred.await(latch)),
                fixture.run("UPDATE nested")
              )
            ))
            yield* Deferred.succeed(nested, fiber)
            yield* Deferred.await(entered)
            return yield* Effect.fail("outer")
          })
        ))
        expect(error).toBe("outer")
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "1", "ROLLBACK"])
        expect(yield* fixture.fibers.current).toMatchObject({ value: { id: "1", session: "clean" } })
        yield* fixture.run("UPDATE")
        yield* Deferred.succeed(latch, undefined)
        expect(yield* Effect.flip(Fiber.join(yield* Deferred.await(nested)))).toMatchObject({
          _tag: "SessionEnded",
          statement: "UPDATE nested"
        })
        expect(fixture.fake.sentOn("1").slice(3)).toEqual(["ROLLBACK", "UPDATE"])
      })))

  it.effect("of a daemon that go on are undone before COMMIT, which does not wait for them", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const latch = yield* Deferred.make<void>()
        const daemon = yield* inTransaction(
          fixture,
          Effect.gen(function*() {
            yield* fixture.run("INSERT")
            const entered = yield* Deferred.make<void>()
            const fiber = yield* Effect.forkDaemon(inTransaction(
              fixture,
              Effect.zipRight(Deferred.succeed(entered, undefined), Deferred.await(latch))
            ))
            yield* Deferred.await(entered)
            return fiber
          })
        )
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "1", "ROLLBACK TO 1", "RELEASE 1", "COMMIT"])
        yield* Deferred.succeed(latch, undefined)
        expect(yield* Effect.flip(Fiber.join(daemon))).toMatchObject({ _tag: "SessionEnded" })
        expect(fixture.fake.sent.length).toBe(6)
      })))

  it.effect("that are interrupted behind a sibling's long statement do not hold up the interruption of the whole", () =>
    withPool({ cancelTimeout: 2_000 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(inTransaction(
          fixture,
          Effect.gen(function*() {
            const nested = yield* Effect.fork(inTransaction(fixture, Effect.never))
            yield* Effect.sleep(1)
            yield* Effect.fork(fixture.run("SLEEP 3600000"))
            yield* Effect.sleep(1)
            yield* Fiber.interrupt(nested)
            return yield* Effect.never
          })
        ))
        yield* TestClock.adjust(100)
        expect(texts(fixture)).toEqual(["BEGIN", "1", "ROLLBACK TO 1", "RELEASE 1", "SLEEP 3600000"])
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* settle
        expect(yield* isDone(interruption)).toBe(true)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))
})

describe("COMMIT", () => {
  const behindDaemon = (fixture: Fixture) =>
    inTransaction(
      fixture,
      Effect.gen(function*() {
        yield* fixture.run("INSERT")
        const daemon = yield* Effect.forkDaemon(Effect.exit(fixture.run("SLEEP 3600000")))
        yield* Effect.sleep(1)
        return daemon
      })
    )

  it.effect("cancels a daemon's running statement, and does not wait for its end", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(behindDaemon(fixture))
        const daemon = yield* joinAfter(fiber, 1)
        expect(texts(fixture)).toEqual(["BEGIN", "INSERT", "SLEEP 3600000", "COMMIT"])
        expect(fixture.fake.connection("1").roundTrips.cancel).toBe(1)
        expect(failureOf(yield* Fiber.join(daemon))?._tag).toBe("StatementCancelled")
      })))

  it.effect("that waits for the cancel of a daemon's statement is given up at once by an interruption", () =>
    withPool({ cancelTimeout: 2_000, script: { cancel: never } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(behindDaemon(fixture))
        yield* TestClock.adjust(10)
        expect(yield* isDone(fiber)).toBe(false)
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* settle
        expect(yield* isDone(interruption)).toBe(true)
        yield* TestClock.adjust(2_000)
        expect(texts(fixture)).not.toContain("COMMIT")
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))

  it.effect("behind a daemon's statement that cannot be stopped fails: the transaction was rolled back", () =>
    withPool({ cancelTimeout: 2_000, script: { cancel: never } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.flip(behindDaemon(fixture)))
        yield* TestClock.adjust(1)
        expect(yield* joinAfter(fiber, 2_000)).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(texts(fixture)).not.toContain("COMMIT")
      })))
})
