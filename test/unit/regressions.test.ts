/** What a review found once, so that it stays found. */
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Option,
  Request,
  RequestResolver,
  Schedule,
  Scope,
  TestClock
} from "effect"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import { type ConnectionLost, StatementError } from "../../src/DbError.js"
import type { Connection, Result } from "../../src/Driver.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import { cursor } from "../../src/internal/leaseCursor.js"
import { runOn } from "../../src/internal/submission.js"
import * as Transaction from "../../src/Transaction.js"
import { fails, lost, make as makeFake, never, refused, statement, succeeds, takes } from "../support/fakeDriver.js"
import { config, type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"

const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<boolean> => Effect.map(Fiber.poll(fiber), Option.isSome)

const empty: Result = { columns: [], rows: [], affectedRows: 1, insertId: 0, warnings: 0 }

describe("a statement that times out inside", () => {
  it.effect("of a session leaves the transaction around the session on its connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("BEGIN")
          yield* fixture.run("INSERT")
          const slept = yield* fixture.fibers.session(() => Effect.timeoutOption(fixture.run("SLEEP 1000"), 10))
          expect(slept).toEqual(Option.none())
          yield* fixture.run("INSERT")
          yield* fixture.run("COMMIT")
        }))
        yield* joinAfter(fiber, 5_000)
        expect(fixture.fake.opened).toEqual(["1"])
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "INSERT", "SLEEP 1000", "INSERT", "COMMIT"])
      })))

  it.effect("of a transaction leaves what the session held before it on its connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("DIRTY")
          const body = Effect.timeoutFail(fixture.run("SLEEP 1000"), { duration: 10, onTimeout: () => "late" })
          expect(yield* Effect.flip(Transaction.run(fixture.fibers, body))).toBe("late")
          expect(yield* fixture.fibers.current).toMatchObject({ value: { id: "1", session: "changed" } })
          return yield* fixture.run("SELECT id")
        }))
        expect(yield* joinAfter(fiber, 5_000)).toBe("1")
        expect(fixture.fake.sentOn("1")).toEqual(["DIRTY", "BEGIN", "SLEEP 1000", "ROLLBACK", "SELECT id"])
      })))
})

describe("no lease is orphaned", () => {
  /** A fiber that waits for the only connection, and runs a statement when it is interrupted. */
  const waiting = (fixture: Fixture) =>
    Effect.zipLeft(
      Effect.fork(Effect.onInterrupt(fixture.run("INSERT"), () => Effect.ignore(fixture.run("DIRTY")))),
      settle
    )

  it.effect("by a wait that is interrupted, and a statement of a finalizer after it", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = fixture.pool.unsafeBorrow("connection", yield* Effect.fiberId)
        yield* settle
        const fiber = yield* waiting(fixture)
        const interruption = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* settle
        holder.release("the test")
        yield* joinAfter(interruption, 1)
        yield* settle
        expect(fixture.fake.sentOn("1")).toEqual(["DIRTY"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, waiting: 0 })
      })))

  it.effect("by a wait that is interrupted when it is over, and a statement of a finalizer after it", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = fixture.pool.unsafeBorrow("connection", yield* Effect.fiberId)
        yield* settle
        const fiber = yield* waiting(fixture)
        holder.release("the test")
        fiber.unsafeInterruptAsFork(fiber.id())
        yield* settle
        yield* Fiber.await(fiber)
        yield* settle
        // what the grant had started is stopped like any other statement
        expect(fixture.fake.sentOn("1")).toEqual(["INSERT", "DIRTY"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, waiting: 0, cancelled: 1 })
      })))

  const uses: ReadonlyArray<readonly [string, (fixture: Fixture) => Effect.Effect<unknown, unknown>]> = [
    [
      "a statement, and one of a finalizer after it",
      (f) => Effect.onInterrupt(f.run("INSERT"), () => Effect.ignore(f.run("DIRTY")))
    ],
    ["a session", (f) => f.fibers.session(() => f.run("INSERT"))],
    ["a transaction", (f) => Transaction.run(f.fibers, f.run("INSERT"))],
    ["an explicit connection", (f) => Effect.scoped(f.fibers.connection)]
  ]
  for (const [name, use] of uses) {
    for (const busy of [false, true]) {
      it.effect(`by an interruption between borrowing and waiting: ${name}, ${busy ? "queued" : "granted"}`, () =>
        withPool({ poolSize: 1 }, (fixture) =>
          Effect.gen(function*() {
            const { pool } = fixture
            const borrow = pool.unsafeBorrow.bind(pool)
            const first = borrow("connection", yield* Effect.fiberId)
            yield* settle
            if (!busy) first.release("the test")
            let armed = true
            Object.assign(pool, {
              unsafeBorrow: (...args: Parameters<typeof borrow>) => {
                const lease = borrow(...args)
                const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
                if (armed) fiber?.unsafeInterruptAsFork(fiber.id())
                armed = false
                return lease
              }
            })
            const fiber = yield* Effect.fork(use(fixture))
            yield* settle
            first.release("the test")
            yield* TestClock.adjust(100)
            expect(armed).toBe(false)
            expect(Exit.isInterrupted(yield* Fiber.await(fiber))).toBe(true)
            yield* settle
            expect(yield* pool.snapshot).toMatchObject({ held: 0, waiting: 0 })
          })))
    }
  }

  it.effect("by a finalizer that was added before a session and runs inside of it", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          const scope = yield* Scope.make()
          yield* Scope.extend(Effect.addFinalizer(() => Effect.orDie(fixture.run("DIRTY"))), scope)
          yield* fixture.fibers.session(() => Scope.close(scope, Exit.void))
        }))
        yield* joinAfter(fiber, 10)
        yield* settle
        expect(fixture.fake.sent.map(({ sql }) => sql)).toEqual(["DIRTY"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))
})

describe("a server that does not answer", () => {
  it.effect("holds up the release of a fiber's connection, which nothing can interrupt, for cancelTimeout", () =>
    withPool({ cancelTimeout: 2_000, script: { run: [succeeds, never] } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(
          Effect.zipRight(fixture.run("BEGIN"), Effect.uninterruptible(fixture.fibers.release))
        )
        yield* TestClock.adjust(1_999)
        expect(yield* isDone(fiber)).toBe(false)
        yield* joinAfter(fiber, 1)
        yield* settle
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))

  it.effect("holds up the pool's end for drainTimeout and the timeouts of what it sends, and no longer", () =>
    withPool(
      {
        drainTimeout: 5_000,
        cancelTimeout: 2_000,
        validationTimeout: 2_000,
        script: { run: [succeeds, never], reset: never, cancel: never, close: never }
      },
      (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Effect.exit(Transaction.run(fixture.fibers, fixture.run("INSERT"))))
          yield* settle
          const closing = yield* Effect.fork(fixture.close)
          yield* TestClock.adjust(4_999)
          expect(yield* isDone(closing)).toBe(false)
          yield* joinAfter(closing, 5_001)
          expect(Exit.isFailure(yield* joinAfter(fiber, 0))).toBe(true)
          expect(fixture.fake.closed).toEqual(["1"])
        })
    ))
})

describe("an explicit connection", () => {
  it.effect("to a server that has become read-only goes on, and is closed when it comes back", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.gen(function*() {
          const lease = yield* fixture.fibers.connection
          expect((yield* Effect.flip(runOn(lease, statement("READ ONLY"))))._tag).toBe("ReadOnlyError")
          expect((yield* runOn(lease, statement("SELECT id"))).rows).toEqual([["1"]])
          expect(fixture.fake.closed).toEqual([])
        }))
        yield* settle
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 0 })
      })))
})

describe("strict affinity", () => {
  it.effect("keeps a connection that was idle for longer than validateAfter, whoever waits for it", () =>
    withPool({ poolSize: 1, affinity: "strict", validateAfter: 500 }, (fixture) =>
      Effect.gen(function*() {
        const owner = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("INSERT")
          yield* Effect.sleep(1_000)
          return yield* Effect.zipLeft(fixture.run("SELECT id"), Effect.sleep(1_000))
        }))
        yield* settle
        const waiter = yield* Effect.fork(fixture.run("UPDATE"))
        yield* TestClock.adjust(1_500)
        expect(fixture.fake.sentOn("1")).toEqual(["INSERT", "SELECT id"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 1, waiting: 1 })
        expect(yield* joinAfter(owner, 500)).toBe("1")
        yield* joinAfter(waiter, 0)
        expect(fixture.fake.sentOn("1")).toEqual(["INSERT", "SELECT id", "UPDATE"])
      })))
})

describe("a driver that answers synchronously", () => {
  // in a simulated world: the TestClock takes many seconds for as many sleepers
  it("runs 5,000 statements that were queued behind a nested transaction", () =>
    simulate(
      { seed: 1, maxOpsBeforeYield: 2_048 },
      Effect.gen(function*() {
        const many = 5_000
        const fake = yield* makeFake()
        const scope = yield* Scope.make()
        const fibers = FiberConnection.make(yield* Scope.extend(ConnectionPool.make(fake, config()), scope))
        const nested = yield* Deferred.make<void>()
        yield* Transaction.run(
          fibers,
          Effect.gen(function*() {
            const section = yield* Effect.fork(Transaction.run(fibers, Deferred.await(nested)))
            yield* Effect.sleep(1)
            const connection = fake.connection("1")
            const later = connection.run
            const run: Connection["run"] = (statement, done) => {
              if (statement.sql === "COMMIT") return later(statement, done)
              fake.sent.push({ connection: "1", sql: statement.sql })
              done(Exit.succeed(empty))
            }
            Object.assign(connection, { run })
            const queued = yield* Effect.forEach(
              Array.from({ length: many }),
              () => Effect.fork(fibers.run(statement("INSERT")))
            )
            yield* Effect.sleep(1)
            expect(fake.sentOn("1").length).toBe(2)
            yield* Deferred.succeed(nested, undefined)
            yield* Fiber.join(section)
            yield* Effect.forEach(queued, Fiber.join, { discard: true })
          })
        )
        const sent = fake.sentOn("1")
        expect(sent.filter((sql) => sql === "INSERT").length).toBe(many)
        expect(sent.at(-1)).toBe("COMMIT")
        yield* Scope.close(scope, Exit.void)
        fake.expectAllClosed()
      })
    ))
})

describe("a connectSchedule that dies", () => {
  it.effect("does not stop the pool for good", () =>
    withPool(
      {
        acquireTimeout: 10_000,
        connectSchedule: Schedule.modifyDelay(Schedule.forever, () => {
          throw new Error("boom")
        }),
        script: { connect: [fails(refused())] }
      },
      (fixture) =>
        Effect.gen(function*() {
          const first = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
          const exit = yield* joinAfter(first, 20_000)
          expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(false)
          const second = yield* Effect.fork(fixture.run("SELECT id"))
          expect(yield* joinAfter(second, 20_000)).toBe("1")
          expect(fixture.fake.connects.length).toBe(2)
        })
    ))
})

describe("an interruption that comes late", () => {
  it.effect("to the last rows of a stream does not stop another's statement on the shared connection", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const lease = fixture.pool.unsafeBorrow("session", yield* Effect.fiberId)
        yield* lease.granted()
        const connection = fixture.fake.connection("1")
        let answer: ((exit: Exit.Exit<ReadonlyArray<never>>) => void) | undefined
        Object.assign(connection, {
          stream: () => ({ columns: () => [], next: (done: typeof answer) => (answer = done) })
        })
        const reader = yield* Effect.fork(
          Effect.scoped(Effect.flatMap(cursor(lease, statement("SELECT id")), ({ pull }) => pull))
        )
        yield* settle
        // all in one breath: the reader has not gone on yet
        answer?.(Exit.succeed([]))
        const other = Effect.runFork(runOn(lease, statement("SLEEP 10")))
        expect(lease.state._tag).toBe("Running")
        reader.unsafeInterruptAsFork(reader.id())
        yield* Fiber.await(reader)
        expect(lease.state._tag).toBe("Running")
        yield* TestClock.adjust(10)
        expect(Exit.isSuccess(yield* Fiber.await(other))).toBe(true)
        expect(connection.roundTrips.cancel).toBe(0)
        lease.release("the test")
      })))

  it.effect("to a COMMIT does not cost its connection, whenever the answer comes", () =>
    Effect.forEach(
      Array.from({ length: 40 }, (_, hops) => hops),
      (hops) =>
        withPool({ poolSize: 1, cancelTimeout: 100 }, (fixture) =>
          Effect.gen(function*() {
            const lease = fixture.pool.unsafeBorrow("session", yield* Effect.fiberId)
            yield* lease.granted()
            let answer: ((exit: Exit.Exit<Result>) => void) | undefined
            const run = (_: unknown, done: typeof answer) => (answer = done)
            Object.assign(fixture.fake.connection("1"), { run })
            const ending = yield* Effect.fork(runOn(lease, statement("COMMIT"), { section: undefined, patient: true }))
            yield* settle
            ending.unsafeInterruptAsFork(ending.id())
            yield* Effect.repeatN(Effect.yieldNow(), hops)
            answer?.(Exit.succeed(empty))
            yield* settle
            yield* TestClock.adjust(1_000)
            yield* Fiber.await(ending)
            expect(fixture.fake.closed, `answered after ${hops} turns`).toEqual([])
            lease.release("the test")
          }))
    ))
})

describe("a refusal with which the server closes the connection", () => {
  it.effect("is one loss", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        let tell = (_: ConnectionLost): void => undefined
        const keep = (connection: Connection): Connection =>
          Object.assign(connection, { onLost: (listener: typeof tell) => (tell = listener) })
        Object.assign(fixture.fake, { connect: Effect.map(fixture.fake.connect, keep) })
        yield* fixture.run("SELECT id")
        const tooLarge = new StatementError({ statement: "INSERT", reason: "packet too large", errno: 1153 })
        const connection = fixture.fake.connection("1")
        Object.assign(connection, {
          run: (_: unknown, done: (exit: Exit.Exit<Result, StatementError>) => void) => {
            Object.assign(connection, { isOpen: () => false })
            done(Exit.fail(tooLarge))
            tell(lost("unknown"))
          }
        })
        expect(yield* Effect.flip(fixture.run("INSERT"))).toBe(tooLarge)
        expect(yield* fixture.pool.snapshot).toMatchObject({ created: 1, closed: 1, lost: 1, closedBy: { lost: 1 } })
      })))
})

describe("a transaction around a request that is batched with others", () => {
  class Get extends Request.TaggedClass("Get")<number, never, { readonly id: number }> {}
  const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) =>
    Effect.forEach(requests, (request) => Request.succeed(request, request.id), { discard: true })
  )

  it.effect("gives its connection back, though it ends in another fiber than it began in", () =>
    withPool({ poolSize: 3, affinity: "strict" }, (fixture) =>
      Effect.gen(function*() {
        const one = (id: number) => Transaction.run(fixture.fibers, Effect.request(new Get({ id }), resolver))
        const work = Effect.forEach([1, 2, 3], one, { concurrency: "unbounded", batching: true })
        const fiber = yield* Effect.fork(work)
        yield* settle
        expect(yield* Fiber.join(fiber)).toEqual([1, 2, 3])
        yield* settle
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 3 })
      })))
})

describe("a transaction whose forks are left behind", () => {
  it.effect("tells its own waiting statement that it has ended, and does not send it", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const transaction = <A, E>(effect: Effect.Effect<A, E>) => Transaction.run(fixture.fibers, effect)
        const late: Array<string> = []
        const told = (sql: string) =>
          Effect.matchEffect(fixture.run(sql), {
            onFailure: ({ _tag }) => Effect.sync(() => void late.push(`${sql}: ${_tag}`)),
            onSuccess: () => Effect.sync(() => void late.push(`${sql}: done`))
          })
        const within = transaction(Effect.gen(function*() {
          // waits for the innermost
          yield* Effect.forkDaemon(Effect.zipRight(Effect.sleep(1), told("INSERT")))
          return yield* transaction(Effect.never)
        }))
        const whole = yield* Effect.fork(transaction(Effect.gen(function*() {
          yield* Effect.forkDaemon(within)
          yield* Effect.sleep(2)
          // waits for the one around it
          yield* Effect.forkDaemon(told("DIRTY"))
          yield* Effect.sleep(2)
        })))
        yield* joinAfter(whole, 10)
        yield* settle
        expect(late.sort()).toEqual(["DIRTY: SessionEnded", "INSERT: SessionEnded"])
        const sent = fixture.fake.sent.map(({ sql }) => sql)
        expect(sent.filter((sql) => sql === "INSERT" || sql === "DIRTY")).toEqual([])
        expect(sent.at(-1)).toBe("COMMIT")
      })))
})

describe("a transaction nested in a fork that is left behind", () => {
  const question = "SELECT LAST_INSERT_ID()"
  const texts = ({ fake }: Fixture): ReadonlyArray<string> =>
    fake.sent.map(({ sql }) => sql.replace("effect_sql_pool_", ""))

  it.effect("and waits to be undone is undone by the one around it, which is committed", () =>
    withPool({ poolSize: 1, script: { cancel: takes(10) } }, (fixture) =>
      Effect.gen(function*() {
        const nested = Transaction.run(
          fixture.fibers,
          Effect.gen(function*() {
            yield* Effect.fork(fixture.run("SLEEP 1000"))
            yield* Effect.sleep(1)
            return yield* Effect.fail("no")
          })
        )
        const whole = yield* Effect.fork(Transaction.run(
          fixture.fibers,
          Effect.gen(function*() {
            yield* fixture.run("INSERT")
            yield* Effect.forkDaemon(nested)
            yield* Effect.sleep(2)
          })
        ))
        yield* joinAfter(whole, 100)
        expect(texts(fixture).at(-1)).toBe("COMMIT")
        expect(texts(fixture)).toContain("ROLLBACK TO SAVEPOINT 1")
      })))

  it.effect("and waits for its own end behind a held connection ends only once", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        Object.assign(fixture.fake, { generatedId: question })
        const [nestedGoes, wholeGoes] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const nested = Transaction.run(
          fixture.fibers,
          Effect.zipRight(Effect.fork(fixture.run(question)), Deferred.await(nestedGoes))
        )
        const whole = yield* Effect.fork(Transaction.run(
          fixture.fibers,
          Effect.gen(function*() {
            yield* fixture.run("INSERT")
            const connection = fixture.fake.connection("1")
            const run = connection.run.bind(connection)
            const completes: typeof run = (statement, done) =>
              run(statement, (exit) => {
                if (statement.sql === question) {
                  for (const each of [nestedGoes, wholeGoes]) Deferred.unsafeDone(each, Exit.void)
                }
                done(exit)
              })
            Object.assign(connection, { run: completes })
            yield* Effect.forkDaemon(nested)
            yield* Deferred.await(wholeGoes)
          })
        ))
        yield* joinAfter(whole, 100)
        yield* settle
        expect(texts(fixture)).toEqual([
          "BEGIN",
          "INSERT",
          "SAVEPOINT 1",
          question,
          "ROLLBACK TO SAVEPOINT 1",
          "RELEASE SAVEPOINT 1",
          "COMMIT"
        ])
      })))
})

describe("who waits on a connection that breaks", () => {
  it.effect("is told at once, although somebody before has given up", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      fixture.fibers.session(() =>
        Effect.gen(function*() {
          const waits = yield* Deferred.make<void>()
          const whole = yield* Effect.fork(Transaction.run(
            fixture.fibers,
            Effect.gen(function*() {
              yield* Effect.fork(fixture.run("SLEEP 1000"))
              yield* Deferred.await(waits)
              return yield* Effect.flip(fixture.run("SELECT id"))
            })
          ))
          yield* settle
          const outsider = yield* Effect.fork(fixture.run("UPDATE"))
          yield* settle
          yield* Deferred.succeed(waits, undefined)
          yield* settle
          yield* Fiber.interrupt(outsider)
          fixture.fake.connection("1").break()
          yield* settle
          expect(Option.isSome(yield* Fiber.poll(whole))).toBe(true)
        })
      )))
})

describe("LAST_INSERT_ID()", () => {
  it.effect("is not believed on a connection whose statement is being stopped", () =>
    withPool({ poolSize: 1, script: { cancel: takes(10) } }, (fixture) =>
      Effect.gen(function*() {
        const told: Array<string> = []
        const fiber = yield* Effect.fork(Effect.onInterrupt(
          fixture.run("SLEEP 1000"),
          () =>
            Effect.match(fixture.run("SELECT LAST_INSERT_ID()"), {
              onFailure: ({ _tag }) => void told.push(_tag),
              onSuccess: () => void told.push("believed")
            })
        ))
        yield* settle
        const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* joinAfter(interrupting, 1_000)
        expect(told).toEqual(["AffinityLost"])
      })))
})
