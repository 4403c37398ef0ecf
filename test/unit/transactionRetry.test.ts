import { describe, expect, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Option, Random, Schedule, TestClock } from "effect"
import { type DbError, LockTimeoutError, StatementError } from "../../src/DbError.js"
import * as Recovery from "../../src/Recovery.js"
import * as Transaction from "../../src/Transaction.js"
import { deadlock, withAborting } from "../support/abortingDriver.js"
import { type Behaviour, fails, lost, succeeds, takes } from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle } from "../support/poolFixture.js"

const texts = ({ fake }: Fixture): ReadonlyArray<string> =>
  fake.sent.map(({ sql }) => sql.replace("SAVEPOINT effect_sql_pool_", ""))

const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<boolean> => Effect.map(Fiber.poll(fiber), Option.isSome)

/** One for each statement with this text, in turn; all others do what they say. */
const onText = ({ fake }: Fixture, sql: string, behaviours: ReadonlyArray<Behaviour<DbError>>): void => {
  const queue = [...behaviours]
  fake.script.run = () => fake.sent.at(-1)?.sql === sql ? queue.shift() ?? succeeds : succeeds
}

const noting = (asked: Array<DbError>, times = 5): Schedule.Schedule<unknown, DbError> =>
  Schedule.tapInput(Schedule.recurs(times), (error: DbError) => Effect.sync(() => asked.push(error)))

/** The body deadlocks that many times, then writes. */
const afterDeadlocks = (fixture: Fixture, times: number) => {
  let runs = 0
  return Effect.suspend(() => fixture.run(runs++ < times ? "UPDATE deadlock" : "INSERT"))
}

describe("a retry schedule", () => {
  it.effect("makes every attempt a transaction of its own, on the connection of its fiber", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        yield* Transaction.run(fixture.fibers, afterDeadlocks(fixture, 2), { retry: noting(asked) })
        expect(texts(fixture)).toEqual([
          "BEGIN",
          "UPDATE deadlock",
          "ROLLBACK",
          "BEGIN",
          "UPDATE deadlock",
          "ROLLBACK",
          "BEGIN",
          "INSERT",
          "COMMIT"
        ])
        expect(asked).toEqual([deadlock, deadlock])
        expect(fixture.fake.opened).toEqual(["1"])
        expect((yield* fixture.pool.snapshot).retriedTransactions).toBe(2)
      })))

  it.effect("is Recovery.schedule: five more attempts, each after its share of a delay that doubles", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const starts: Array<number> = []
        const body = Effect.zipRight(
          Effect.map(Clock.currentTimeMillis, (now) => starts.push(now)),
          fixture.run("UPDATE deadlock")
        )
        const running = yield* Effect.fork(
          Effect.flip(Transaction.run(fixture.fibers, body, { retry: Recovery.schedule })).pipe(
            Effect.withRandom(Random.fixed([0.5]))
          )
        )
        expect(yield* joinAfter(running, 10_000)).toBe(deadlock)
        expect(starts).toEqual([0, 10, 30, 70, 150, 310])
      })))

  it.effect("starts anew for the next transaction", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const transaction = Transaction.run(fixture.fibers, afterDeadlocks(fixture, 3), { retry: Schedule.recurs(2) })
        expect(yield* Effect.flip(transaction)).toBe(deadlock)
        yield* transaction
        expect(texts(fixture).filter((text) => text === "BEGIN")).toHaveLength(4)
      })))

  it.effect("is asked about the first error of the database among all that went wrong at once", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        let runs = 0
        const body = Effect.suspend(() =>
          runs++ > 0
            ? Effect.void
            : Effect.all([Effect.never, fixture.run("UPDATE deadlock"), Effect.never], { concurrency: "unbounded" })
        )
        yield* Transaction.run(fixture.fibers, body, { retry: noting(asked) })
        expect(asked).toEqual([deadlock])
      })))

  it.effect("is not asked when the transaction was interrupted, even after a deadlock", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        const body = Effect.zipRight(Effect.ignore(fixture.run("UPDATE deadlock")), Effect.never)
        const running = yield* Effect.fork(Transaction.run(fixture.fibers, body, { retry: noting(asked) }))
        yield* settle
        const exit = yield* Fiber.interrupt(running)
        expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
        expect(asked).toEqual([])
      })))

  const refusal = new StatementError({ statement: "COMMIT", reason: "a trigger" })
  const lockWait = new LockTimeoutError({ statement: "COMMIT", reason: "waited too long", errno: 1205 })
  const commits: Record<string, readonly [Behaviour<DbError>, again: boolean]> = {
    "refused for good": [fails(refusal), false],
    "refused for a deadlock, as a cluster does": [fails(deadlock), true],
    "refused for a lock wait": [fails(lockWait), true],
    "lost, which may have committed": [fails(lost("unknown", "COMMIT")), false],
    "lost before it was sent": [fails(lost("not executed", "COMMIT")), true]
  }
  for (const [what, [behaviour, again]] of Object.entries(commits)) {
    it.effect(`is ${again ? "" : "not "}asked about a COMMIT that was ${what}`, () =>
      withAborting({}, (fixture) =>
        Effect.gen(function*() {
          onText(fixture, "COMMIT", [behaviour])
          const asked: Array<DbError> = []
          const exit = yield* Effect.exit(
            Transaction.run(fixture.fibers, fixture.run("INSERT"), { retry: noting(asked) })
          )
          expect(Exit.isSuccess(exit)).toBe(again)
          expect(asked).toHaveLength(again ? 1 : 0)
          expect(texts(fixture).filter((text) => text === "INSERT")).toHaveLength(again ? 2 : 1)
          yield* Transaction.run(fixture.fibers, fixture.run("INSERT"))
        })))
  }

  for (
    const [what, sql, again] of [["a lost connection", "UPDATE lost", false], [
      "a deadlock",
      "UPDATE deadlock",
      true
    ]] as const
  ) {
    it.effect(`in a session is ${again ? "" : "not "}asked about ${what}`, () =>
      withAborting({}, (fixture) =>
        Effect.gen(function*() {
          const asked: Array<DbError> = []
          let runs = 0
          const transaction = Transaction.run(
            fixture.fibers,
            Effect.suspend(() => fixture.run(runs++ === 0 ? sql : "INSERT")),
            { retry: noting(asked) }
          )
          const exit = yield* Effect.exit(
            fixture.fibers.session(() => Effect.zipRight(fixture.run("DIRTY"), transaction))
          )
          expect(Exit.isSuccess(exit)).toBe(again)
          expect(asked).toEqual(again ? [deadlock] : [])
          expect(runs).toBe(again ? 2 : 1)
          expect(fixture.fake.opened).toEqual(["1"])
        })))
  }
})

describe("a retry schedule is not asked", () => {
  it.effect("after a statement that has committed what came before it", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        const body = Effect.zipRight(fixture.run("CREATE TABLE t (id INT)"), fixture.run("UPDATE deadlock"))
        // this database goes on with its transaction, but nothing tells
        fixture.fake.script.run = () => {
          return fixture.fake.sent.at(-1)?.sql.startsWith("CREATE") === true ? fails(lost("unknown")) : succeeds
        }
        expect(yield* Effect.flip(Transaction.run(fixture.fibers, body, { retry: noting(asked) }))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "unknown"
        })
        expect(asked).toEqual([])
      })))

  it.effect("when the fiber had something on the connection that was lost", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        yield* fixture.run("DIRTY")
        const transaction = Transaction.run(fixture.fibers, fixture.run("UPDATE lost"), { retry: noting(asked) })
        expect(yield* Effect.flip(transaction)).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(asked).toEqual([])
      })))

  it.effect("but otherwise it is: nothing that anybody misses was lost", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const asked: Array<DbError> = []
        let runs = 0
        const body = Effect.suspend(() => fixture.run(runs++ === 0 ? "UPDATE lost" : "SELECT id"))
        const running = yield* Effect.fork(Transaction.run(fixture.fibers, body, { retry: noting(asked) }))
        expect(yield* joinAfter(running, 1_000)).toBe("2")
        expect(asked).toMatchObject([{ _tag: "ConnectionLost", outcome: "rolled back" }])
      })))
})

describe("after a deadlock that the body has caught", () => {
  it.effect("nothing is sent but ROLLBACK, and all is TransactionAborted", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const aborted = { _tag: "TransactionAborted", cause: deadlock }
        const error = yield* Effect.flip(Transaction.run(
          fixture.fibers,
          Effect.gen(function*() {
            const inner = Transaction.run(fixture.fibers, fixture.run("UPDATE deadlock"))
            expect(yield* Effect.flip(inner)).toBe(deadlock)
            expect(yield* Effect.flip(fixture.run("INSERT"))).toMatchObject(aborted)
            expect(yield* Effect.flip(inner)).toMatchObject(aborted)
          })
        ))
        expect(error).toMatchObject({ ...aborted, statement: "COMMIT" })
        expect(texts(fixture)).toEqual(["BEGIN", "1", "UPDATE deadlock", "ROLLBACK"])
        yield* Transaction.run(fixture.fibers, fixture.run("INSERT"))
      })))

  it.effect("siblings that waited for their turn are told, too", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const exits = yield* Effect.flip(Transaction.run(
          fixture.fibers,
          Effect.gen(function*() {
            const exits = yield* Effect.forEach(
              ["UPDATE deadlock", "INSERT", "INSERT"],
              (sql) => Effect.exit(Transaction.run(fixture.fibers, fixture.run(sql))),
              { concurrency: "unbounded" }
            )
            return yield* Effect.fail(exits)
          })
        ))
        expect(exits).toMatchObject([
          { cause: { error: deadlock } },
          { cause: { error: { _tag: "TransactionAborted" } } },
          { cause: { error: { _tag: "TransactionAborted" } } }
        ])
        expect(texts(fixture)).toEqual(["BEGIN", "1", "UPDATE deadlock", "ROLLBACK"])
      })))
})

describe("BEGIN", () => {
  it.effect("that is refused is the transaction's error, and nothing is sent after it", () =>
    withAborting({}, (fixture) =>
      Effect.gen(function*() {
        const refusal = new StatementError({ statement: "BEGIN", reason: "no" })
        onText(fixture, "BEGIN", [fails(refusal)])
        expect(yield* Effect.flip(Transaction.run(fixture.fibers, Effect.die("it ran")))).toBe(refusal)
        expect(texts(fixture)).toEqual(["BEGIN"])
        yield* Transaction.run(fixture.fibers, fixture.run("INSERT"))
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  for (const outcome of ["unknown", "not executed"] as const) {
    it.effect(`whose connection was lost (${outcome}) is sent on another, and no schedule is asked`, () =>
      withAborting({}, (fixture) =>
        Effect.gen(function*() {
          onText(fixture, "BEGIN", [fails(lost(outcome, "BEGIN"))])
          const asked: Array<DbError> = []
          const running = yield* Effect.fork(
            Transaction.run(fixture.fibers, fixture.run("SELECT id"), { retry: noting(asked) })
          )
          expect(yield* joinAfter(running, 1_000)).toBe("2")
          expect(texts(fixture)).toEqual(["BEGIN", "BEGIN", "SELECT id", "COMMIT"])
          expect(asked).toEqual([])
          yield* settle
        })))
  }
})

describe("a transaction that is interrupted", () => {
  /** Everything takes 10 ms, and the delay between the two attempts 100. */
  const all = ["BEGIN", "UPDATE deadlock", "ROLLBACK", "BEGIN", "INSERT", "COMMIT"]
  const phases: ReadonlyArray<readonly [name: string, at: number, sent: number, waits: number]> = [
    ["while it waits for a connection", 5, 0, 0],
    ["in BEGIN", 15, 1, 0],
    ["in a statement", 25, 2, 0],
    ["in ROLLBACK", 35, 3, 0],
    ["between two attempts", 90, 3, 0],
    ["in the second BEGIN", 145, 4, 0],
    ["in a statement of the second attempt", 155, 5, 0],
    ["in COMMIT", 165, 6, 5],
    ["when it is over", 175, 6, 0]
  ]
  const interruptedAt = (
    at: number,
    check: (fixture: Fixture, interruption: Fiber.Fiber<unknown>) => Effect.Effect<void>
  ) =>
    withAborting(
      { poolSize: 1, script: { connect: takes(10), run: () => takes(10), cancel: takes(10), reset: takes(10) } },
      (fixture) =>
        Effect.gen(function*() {
          const running = yield* Effect.fork(
            Transaction.run(fixture.fibers, afterDeadlocks(fixture, 1), { retry: Schedule.spaced("100 millis") })
          )
          yield* TestClock.adjust(at)
          const interruption = yield* Effect.fork(Fiber.interrupt(running))
          yield* settle
          yield* check(fixture, interruption)
          yield* TestClock.adjust(1_000)
          expect(texts(fixture)).toEqual(all.slice(0, texts(fixture).length))
          expect(yield* isDone(interruption)).toBe(true)
          const { busy, held, opening, waiting } = yield* fixture.pool.snapshot
          expect({ held, waiting, busy, opening }).toEqual({ held: 0, waiting: 0, busy: 0, opening: 0 })
          const next = yield* Effect.fork(Transaction.run(fixture.fibers, fixture.run("INSERT")))
          yield* joinAfter(next, 1_000)
        })
    )

  for (const [name, at, sent, waits] of phases) {
    it.effect(`${name} ends ${waits === 0 ? "at once" : "with its answer"}, and sends no more`, () =>
      interruptedAt(at, (fixture, interruption) =>
        Effect.gen(function*() {
          expect(texts(fixture)).toEqual(all.slice(0, sent))
          expect(yield* isDone(interruption)).toBe(waits === 0)
          yield* TestClock.adjust(waits)
          expect(yield* isDone(interruption)).toBe(true)
          expect(texts(fixture)).toEqual(all.slice(0, sent))
        })))
  }
})
