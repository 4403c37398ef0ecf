import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Random, Schedule, TestClock } from "effect"
import type { Scope } from "effect"
import {
  AuthenticationError,
  ConnectionError,
  type DbError,
  PoolExhausted,
  PoolUnreachable,
  TooManyWaiters
} from "../../src/DbError.js"
import type { Lease } from "../../src/internal/lease.js"
import { runOn } from "../../src/internal/submission.js"
import { fails, lost, never, refused, statement, succeeds, takes } from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"

/** Borrows a connection until the effect is told to let go. */
const hold = (fixture: Fixture): Effect.Effect<{ readonly lease: Lease; readonly letGo: Effect.Effect<void> }> =>
  Effect.gen(function*() {
    const lease = fixture.pool.unsafeBorrow("connection", yield* Effect.fiberId)
    yield* Effect.forkDaemon(Effect.ignore(lease.granted()))
    yield* settle
    return { lease, letGo: Effect.zipRight(Effect.sync(() => lease.release("the test")), settle) }
  })

/** Uses a connection for nothing and gives its id. */
const use = ({ fibers }: Fixture): Effect.Effect<string, DbError> =>
  Effect.scoped(Effect.map(fibers.connection, (lease) => lease.connection?.id ?? "none"))

const connection = ({ fibers }: Fixture): Effect.Effect<Lease, DbError, Scope.Scope> => fibers.connection

const failureOf = <A>(exit: Exit.Exit<A, DbError>): DbError | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

const gaps = (times: ReadonlyArray<number>): ReadonlyArray<number> =>
  times.slice(1).map((time, at) => time - (times[at] ?? 0))

describe("waiting for a connection", () => {
  it.effect("a thousand waiters are served in the order in which they came", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const served: Array<number> = []
        const waiters = yield* Effect.forEach(
          Array.from({ length: 1_000 }, (_, n) => n),
          (n) => Effect.fork(Effect.scoped(Effect.map(connection(fixture), () => served.push(n))))
        )
        yield* settle
        expect((yield* fixture.pool.snapshot).waiting).toBe(1_000)
        yield* holder.letGo
        yield* Fiber.joinAll(waiters)
        expect(served).toEqual(Array.from({ length: 1_000 }, (_, n) => n))
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("an interrupted waiter leaves no trace", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const waiter = yield* Effect.fork(use(fixture))
        yield* settle
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 1, held: 1 })
        yield* Fiber.interrupt(waiter)
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 0, held: 1, abandoned: 1, timedOut: 0 })
        yield* holder.letGo
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 1, held: 0, opening: 0, created: 1 })
      })))

  it.effect("a waiter interrupted in the middle of the queue does not disturb the others", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const served: Array<number> = []
        const waiters = yield* Effect.forEach([0, 1, 2, 3], (n) =>
          Effect.fork(Effect.scoped(Effect.map(connection(fixture), () => served.push(n)))))
        yield* settle
        yield* Effect.forEach(waiters.slice(1, 3), Fiber.interrupt)
        yield* holder.letGo
        expect(served).toEqual([0, 3])
      })))

  it.effect("an interrupted borrower's connect serves the next waiter", () =>
    withPool({ poolSize: 1, script: { connect: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const first = yield* Effect.fork(use(fixture))
        const second = yield* Effect.fork(use(fixture))
        yield* TestClock.adjust(50)
        yield* Fiber.interrupt(first)
        expect(yield* joinAfter(second, 50)).toBe("1")
        expect(fixture.fake.connects).toEqual([0])
      })))

  it.effect("a connect that nobody waits for any more is kept for whoever comes next", () =>
    withPool({ script: { connect: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const first = yield* Effect.fork(use(fixture))
        yield* TestClock.adjust(50)
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust(50)
        expect(yield* use(fixture)).toBe("1")
        expect(fixture.fake.connects).toEqual([0])
      })))

  it.effect("a waiter that is interrupted when its grant is under way does not keep the connection", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const waiter = yield* Effect.fork(use(fixture))
        yield* settle
        // the grant is told to the fiber, and so is the interruption, before it can go on
        holder.lease.release("the test")
        waiter.unsafeInterruptAsFork(waiter.id())
        yield* settle
        expect(Exit.isInterrupted(yield* Fiber.await(waiter))).toBe(true)
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 1, held: 0, waiting: 0 })
      })))

  it.effect("more waiters than maxWaiters are turned away at once", () =>
    withPool({ poolSize: 1, maxWaiters: 2 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        yield* Effect.fork(use(fixture))
        yield* Effect.fork(use(fixture))
        yield* settle
        const failure = yield* Effect.flip(use(fixture))
        expect(failure).toBeInstanceOf(TooManyWaiters)
        expect(failure.message).toContain("at most 2 fibers")
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 2, refused: 1 })
        yield* holder.letGo
        expect(yield* use(fixture)).toBe("1")
      })))
})

describe("the acquire timeout", () => {
  it.effect("says that the pool is exhausted, who holds what for how long, and why", () =>
    withPool({ poolSize: 1, acquireTimeout: 300 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* Effect.fork(
          Effect.zipRight(fixture.run("BEGIN"), Effect.zipRight(Effect.sleep(1_000), fixture.run("COMMIT")))
        )
        yield* TestClock.adjust(100)
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        const failure = yield* joinAfter(waiter, 300)
        expect(failure).toBeInstanceOf(PoolExhausted)
        expect(failure).toMatchObject({
          pool: "test",
          waitedMillis: 300,
          isRetryable: true,
          counts: { idle: 0, held: 1, opening: 0, busy: 0, waiting: 0, max: 1 },
          oldest: { heldMillis: 400, why: "a transaction is open" },
          lastConnectFailure: undefined
        })
        expect(failure.message).toContain("within 300 ms (max=1, idle=0, held=1, opening=0, busy=0, waiting=0)")
        expect(failure.message).toContain("for 400 ms (a transaction is open)")
        yield* joinAfter(holder, 1_000)
      })))

  const tooMany = new ConnectionError({ target: "fake:1", reason: "too many", isRetryable: true, errno: 1040 })

  it.effect("carries the last connect failure when the server gives no more", () =>
    withPool(
      { poolSize: 2, acquireTimeout: 300, script: { connect: [succeeds] } },
      (fixture) =>
        Effect.gen(function*() {
          const holder = yield* hold(fixture)
          fixture.fake.script.connect = fails(tooMany)
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          const failure = yield* joinAfter(waiter, 300)
          expect(failure).toBeInstanceOf(PoolExhausted)
          expect(failure.message).toContain("The last connect failed: Cannot connect to fake:1: too many (errno 1040)")
          yield* holder.letGo
        })
    ))

  it.effect("says that the server was not reached when there is room and no connect succeeds", () =>
    withPool(
      { poolSize: 2, acquireTimeout: 300, script: { connect: [succeeds] } },
      (fixture) =>
        Effect.gen(function*() {
          const holder = yield* hold(fixture)
          yield* TestClock.adjust(10)
          fixture.fake.script.connect = fails(refused())
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          const failure = yield* joinAfter(waiter, 300)
          expect(failure).toBeInstanceOf(PoolUnreachable)
          expect(failure).toMatchObject({ waitedMillis: 300, counts: { held: 1 }, cause: { reason: "refused" } })
          yield* holder.letGo
        })
    ))

  it.effect("does not say so of a server that was reached while it waited", () =>
    withPool(
      { poolSize: 3, acquireTimeout: 300, script: { connect: [succeeds, takes(100), never] } },
      (fixture) =>
        Effect.gen(function*() {
          const first = yield* hold(fixture)
          const second = yield* hold(fixture)
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          expect(yield* joinAfter(waiter, 300)).toBeInstanceOf(PoolExhausted)
          expect(yield* fixture.pool.snapshot).toMatchObject({ held: 2, opening: 1 })
          yield* first.letGo
          yield* second.letGo
        })
    ))

  it.effect("does not say so when a connection that comes back is being reset", () =>
    withPool(
      { poolSize: 1, acquireTimeout: 300, cancelTimeout: 1_000, script: { reset: takes(500) } },
      (fixture) =>
        Effect.gen(function*() {
          yield* fixture.pool.resize(2)
          const first = yield* hold(fixture)
          const second = yield* hold(fixture)
          yield* TestClock.adjust(1_000)
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          yield* settle
          yield* Effect.ignore(runOn(second.lease, statement("DIRTY")))
          yield* second.letGo
          expect(yield* joinAfter(waiter, 300)).toBeInstanceOf(PoolExhausted)
          yield* first.letGo
          yield* TestClock.adjust(1_000)
        })
    ))

  it.effect("has forgotten a failure that a later connect made good", () =>
    withPool(
      { poolSize: 1, acquireTimeout: 300, script: { connect: [fails(tooMany), succeeds] } },
      (fixture) =>
        Effect.gen(function*() {
          const holding = yield* Effect.fork(hold(fixture))
          yield* TestClock.adjust(250)
          const holder = yield* Fiber.join(holding)
          expect((yield* fixture.pool.snapshot).connectFailures).toBe(1)
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          expect(yield* joinAfter(waiter, 300)).not.toHaveProperty("lastConnectFailure._tag")
          yield* holder.letGo
        })
    ))

  it.effect("says that the server was not reached when nothing is alive", () =>
    withPool({ acquireTimeout: 300, script: { connect: fails(refused()) } }, (fixture) =>
      Effect.gen(function*() {
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        const failure = yield* joinAfter(waiter, 300)
        expect(failure).toBeInstanceOf(PoolUnreachable)
        expect(failure).toMatchObject({ waitedMillis: 300, cause: { _tag: "ConnectionError", reason: "refused" } })
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 0, timedOut: 1 })
      })))

  it.effect("says so too when the connect has not been answered", () =>
    withPool({ acquireTimeout: 300, script: { connect: never } }, (fixture) =>
      Effect.gen(function*() {
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        const failure = yield* joinAfter(waiter, 300)
        expect(failure).toBeInstanceOf(PoolUnreachable)
        expect(failure.message).toContain("The connect has not been answered yet")
      })))

  it.effect("holds for each waiter from when it came", () =>
    withPool({ poolSize: 1, acquireTimeout: 300 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const first = yield* Effect.fork(Effect.exit(use(fixture)))
        yield* TestClock.adjust(200)
        const second = yield* Effect.fork(Effect.exit(use(fixture)))
        yield* TestClock.adjust(100)
        expect(failureOf(yield* Fiber.join(first))).toBeInstanceOf(PoolExhausted)
        expect(Option.isNone(yield* Fiber.poll(second))).toBe(true)
        yield* TestClock.adjust(199)
        expect(Option.isNone(yield* Fiber.poll(second))).toBe(true)
        expect(failureOf(yield* joinAfter(second, 1))).toMatchObject({ waitedMillis: 300 })
        yield* holder.letGo
      })))

  it.effect("covers the validation, and what is validated in vain is closed", () =>
    withPool({ poolSize: 1, acquireTimeout: 1_000, script: { ping: never } }, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        yield* TestClock.adjust(501)
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        expect(yield* joinAfter(waiter, 1_000)).toBeInstanceOf(PoolUnreachable)
        yield* TestClock.adjust(1_000)
        expect(fixture.fake.closed).toEqual(["1"])
        expect(yield* use(fixture)).toBe("2")
      })))

  it.effect("may be infinite", () =>
    withPool({ poolSize: 1, acquireTimeout: Infinity }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const waiter = yield* Effect.fork(use(fixture))
        yield* TestClock.adjust("1 minute")
        expect(Option.isNone(yield* Fiber.poll(waiter))).toBe(true)
        yield* holder.letGo
        expect(yield* Fiber.join(waiter)).toBe("1")
      })))
})

describe("connecting", () => {
  it.effect("credentials that are refused are tried once, and every waiter is told at once", () => {
    const failure = new AuthenticationError({ target: "fake:1", reason: "no", errno: 1045 })
    return withPool({ script: { connect: takes(10, fails(failure)) } }, (fixture) =>
      Effect.gen(function*() {
        const waiters = yield* Effect.forEach([1, 2, 3], () => Effect.fork(Effect.flip(use(fixture))))
        yield* TestClock.adjust(10)
        for (const waiter of waiters) expect(yield* Fiber.join(waiter)).toBe(failure)
        yield* TestClock.adjust("1 minute")
        expect(fixture.fake.connects).toEqual([0])
      }))
  })

  it.effect("a driver that dies fails the waiters and is not tried again by itself", () =>
    withPool({
      script: {
        connect: () => {
          throw new Error("a bug in the driver")
        }
      }
    }, (fixture) =>
      Effect.gen(function*() {
        const failure = yield* Effect.flip(use(fixture))
        expect(failure).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
        expect(failure.message).toContain("a bug in the driver")
        yield* TestClock.adjust("1 minute")
        expect(fixture.fake.connects).toEqual([0])
      })))

  for (const share of [1, 0.5, 0]) {
    it.effect(`a failed connect is tried again with full jitter (${share}), one attempt at a time`, () =>
      withPool(
        {
          poolSize: 10,
          acquireTimeout: 60_000,
          random: Random.fixed([share]),
          script: { connect: (attempt) => attempt <= 8 ? takes(1, fails(refused())) : takes(1) }
        },
        (fixture) =>
          Effect.gen(function*() {
            const waiters = yield* Effect.forEach([1, 2, 3], () => Effect.fork(use(fixture)))
            const delays = [50, 100, 200, 400, 800, 1_000, 1_000, 1_000].map((delay) => delay * share + 1)
            yield* TestClock.adjust(delays.reduce((sum, delay) => sum + delay, 0))
            expect(gaps(fixture.fake.connects)).toEqual(delays)
            expect(fixture.fake.mostConnecting).toBe(1)
            yield* TestClock.adjust(10)
            yield* Fiber.joinAll(waiters)
          })
      ))
  }

  it.effect("everything is well again within one back-off step of the server's return", () =>
    withPool({ poolSize: 4, acquireTimeout: 60_000, random: Random.fixed([1]) }, (fixture) =>
      Effect.gen(function*() {
        fixture.fake.script.connect = fails(refused())
        const waiters = yield* Effect.forEach(
          Array.from({ length: 20 }),
          () => Effect.fork(Effect.scoped(Effect.zipRight(connection(fixture), Effect.sleep(1))))
        )
        yield* TestClock.adjust(30_000)
        expect(fixture.fake.mostConnecting).toBe(1)
        fixture.fake.script.connect = succeeds
        yield* TestClock.adjust(1_020)
        for (const waiter of waiters) expect(Option.isSome(yield* Fiber.poll(waiter))).toBe(true)
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 0, held: 0 })
      })))

  it.effect("backs off from the beginning after a success", () =>
    withPool({ acquireTimeout: 60_000, random: Random.fixed([1]) }, (fixture) =>
      Effect.gen(function*() {
        const script = (attempt: number) => attempt === 4 ? succeeds : fails(refused())
        fixture.fake.script.connect = script
        const holder = yield* Effect.fork(Effect.scoped(Effect.zipRight(connection(fixture), Effect.never)))
        yield* TestClock.adjust(350)
        const waiter = yield* Effect.fork(use(fixture))
        yield* TestClock.adjust(150)
        expect(gaps(fixture.fake.connects)).toEqual([50, 100, 200, 0, 50, 100])
        yield* Fiber.interrupt(waiter)
        yield* Fiber.interrupt(holder)
      })))

  it.effect("a connect that is not answered is given up after connectTimeout", () =>
    withPool(
      { connectTimeout: 100, acquireTimeout: 120, script: { connect: never } },
      (fixture) =>
        Effect.gen(function*() {
          const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
          yield* TestClock.adjust(99)
          expect(fixture.fake.connecting).toBe(1)
          yield* TestClock.adjust(1)
          expect(fixture.fake.connecting).toBe(0)
          const failure = yield* joinAfter(waiter, 20)
          expect(failure).toMatchObject({ _tag: "PoolUnreachable", cause: { reason: "no answer within 100 ms" } })
        })
    ))

  it.effect("a schedule of the user's that comes to its end turns the waiters away", () =>
    withPool(
      {
        connectSchedule: Schedule.intersect(Schedule.spaced(100), Schedule.recurs(2)),
        script: { connect: fails(refused()) }
      },
      (fixture) =>
        Effect.gen(function*() {
          const first = yield* Effect.fork(Effect.flip(use(fixture)))
          expect(yield* joinAfter(first, 200)).toMatchObject({ _tag: "ConnectionError", reason: "refused" })
          expect(fixture.fake.connects).toEqual([0, 100, 200])
          yield* TestClock.adjust(10_000)
          expect(fixture.fake.connects).toEqual([0, 100, 200])
          const second = yield* Effect.fork(Effect.flip(use(fixture)))
          yield* joinAfter(second, 200)
          expect(fixture.fake.connects).toEqual([0, 100, 200, 10_200, 10_300, 10_400])
        })
    ))

  it.effect("a schedule that comes to its end at once does not make the pool connect in a loop", () =>
    withPool(
      { poolSize: 2, connectSchedule: Schedule.stop, acquireTimeout: 1_000 },
      (fixture) =>
        Effect.gen(function*() {
          const holder = yield* hold(fixture)
          fixture.fake.script.connect = takes(10, fails(refused()))
          const waiter = yield* Effect.fork(Effect.exit(use(fixture)))
          yield* joinAfter(waiter, 1_000)
          expect(fixture.fake.connects.length).toBeLessThanOrEqual(3)
          yield* holder.letGo
        })
    ))

  it.effect("a spike is served by few connections when statements are shorter than connects", () =>
    withPool({ poolSize: 50, script: { connect: takes(150) } }, (fixture) =>
      Effect.gen(function*() {
        const requests = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.fork(fixture.run("SLEEP 2")))
        yield* TestClock.adjust(600)
        yield* Fiber.joinAll(requests)
        expect(fixture.fake.opened.length).toBeLessThanOrEqual(6)
      })))
})

describe("a borrowed connection", () => {
  it.effect("is not asked anything when it was used less than validateAfter ago", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        for (let n = 0; n < 10; n++) {
          yield* use(fixture)
          yield* Effect.fork(Effect.scoped(connection(fixture)))
          yield* TestClock.adjust(20)
        }
        expect(fixture.fake.connection("1").roundTrips).toEqual({ run: 0, ping: 0, reset: 0, cancel: 0, close: 0 })
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("is validated when it was unused for longer, and replaced when it does not answer", () =>
    withPool(
      { poolSize: 1, script: { ping: [succeeds, never, fails(lost("unknown"))] } },
      (fixture) =>
        Effect.gen(function*() {
          yield* use(fixture)
          yield* TestClock.adjust(501)
          expect(yield* use(fixture)).toBe("1")
          yield* TestClock.adjust(501)
          const patient = yield* Effect.fork(use(fixture))
          expect(yield* joinAfter(patient, 2_000)).toBe("2")
          yield* TestClock.adjust(501)
          expect(yield* use(fixture)).toBe("3")
          expect(yield* fixture.pool.snapshot).toMatchObject({ validations: 3, created: 3, closed: 2 })
        })
    ))

  it.effect("is used again without a round trip when it comes back clean", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* Effect.fork(fixture.run("SELECT id"))
        yield* settle
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 2, ping: 0, reset: 0 })
      })))

  it.effect("is reset once when it comes back changed", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* Fiber.join(yield* Effect.fork(Effect.zipRight(fixture.run("DIRTY"), fixture.run("BEGIN"))))
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 3, ping: 0, reset: 1 })
        expect(fixture.fake.connection("1").session()).toBe("clean")
      })))

  for (const [how, behaviour] of [["fails", fails(lost("unknown"))], ["is not answered", never]] as const) {
    it.effect(`is replaced when its reset ${how}`, () =>
      withPool({ poolSize: 1, cancelTimeout: 200, script: { reset: behaviour } }, (fixture) =>
        Effect.gen(function*() {
          yield* Fiber.join(yield* Effect.fork(fixture.run("DIRTY")))
          const next = yield* Effect.fork(fixture.run("SELECT id"))
          expect(yield* joinAfter(next, 200)).toBe("2")
          expect(fixture.fake.closed).toEqual(["1"])
        })))
  }

  it.effect("that breaks while it is idle is closed and makes the others suspect", () =>
    withPool({ poolSize: 2 }, (fixture) =>
      Effect.gen(function*() {
        const [one, two] = [yield* hold(fixture), yield* hold(fixture)]
        yield* one.letGo
        yield* two.letGo
        fixture.fake.connection("2").break()
        yield* settle
        expect(fixture.fake.closed).toEqual(["2"])
        expect(yield* use(fixture)).toBe("1")
        expect(fixture.fake.connection("1").roundTrips.ping).toBe(1)
        expect(yield* fixture.pool.snapshot).toMatchObject({ lost: 1, idle: 1, closed: 1 })
      })))

  it.effect("that breaks while it is validated is closed once", () =>
    withPool({ poolSize: 1, script: { ping: never } }, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        yield* TestClock.adjust(501)
        const waiter = yield* Effect.fork(use(fixture))
        yield* settle
        fixture.fake.connection("1").break()
        yield* settle
        expect(yield* Fiber.join(waiter)).toBe("2")
        expect(yield* fixture.pool.snapshot).toMatchObject({ lost: 1, closed: 1, created: 2 })
      })))

  it.effect("that breaks while it is closed is counted once", () =>
    withPool({ poolSize: 2, script: { close: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        const draining = yield* Effect.fork(fixture.pool.drain)
        yield* TestClock.adjust(50)
        fixture.fake.connection("1").break()
        yield* joinAfter(draining, 100)
        expect(yield* fixture.pool.snapshot).toMatchObject({ created: 1, closed: 1 })
      })))
})

describe("keeping house", () => {
  it.effect("asks an idle connection every keepalive whether it is there", () =>
    withPool({ keepalive: 1_000, idleTimeout: 60_000 }, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        yield* TestClock.adjust(10_000)
        const pings = fixture.fake.connection("1").roundTrips.ping
        expect(pings).toBeGreaterThanOrEqual(7)
        expect(pings).toBeLessThanOrEqual(10)
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("closes a connection that does not answer a keepalive", () =>
    withPool({ keepalive: 1_000, script: { ping: never } }, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        yield* TestClock.adjust(3_500)
        expect(fixture.fake.closed).toEqual(["1"])
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("keeps minimumIdle open from the start, and closes what is idle for longer than idleTimeout above it", () =>
    withPool(
      { poolSize: 5, minimumIdle: 2, idleTimeout: 10_000, keepalive: Infinity },
      (fixture) =>
        Effect.gen(function*() {
          yield* settle
          expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 2, opening: 0 })
          const held = [yield* hold(fixture), yield* hold(fixture), yield* hold(fixture)]
          for (const { letGo } of held) yield* letGo
          expect((yield* fixture.pool.snapshot).idle).toBe(5)
          yield* TestClock.adjust(12_500)
          expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 2, closed: 3 })
          yield* TestClock.adjust(60_000)
          expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 2, closed: 3 })
        })
    ))

  it.effect("opens no more than minimumIdle because of keepalives", () =>
    withPool(
      { poolSize: 10, minimumIdle: 2, keepalive: 1_000, script: { ping: takes(5) } },
      (fixture) =>
        Effect.gen(function*() {
          yield* TestClock.adjust(10_000)
          expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 2, created: 2 })
        })
    ))

  for (const share of [0, 1]) {
    it.effect(`replaces a connection at the end of its lifetime (jitter ${share})`, () => {
      const lifetime = 100_000 * (1 - share / 10)
      return withPool(
        { maxLifetime: 100_000, random: Random.fixed([share]), validateAfter: 1e9 },
        (fixture) =>
          Effect.gen(function*() {
            yield* use(fixture)
            yield* TestClock.adjust(lifetime - 1)
            expect(yield* use(fixture)).toBe("1")
            yield* TestClock.adjust(1)
            expect(yield* use(fixture)).toBe("2")
            expect(fixture.fake.closed).toEqual(["1"])
          })
      )
    })
  }

  it.effect("does not cut a statement at the end of its connection's lifetime", () =>
    withPool({ maxLifetime: 1_000, random: Random.fixed([0]) }, (fixture) =>
      Effect.gen(function*() {
        const long = yield* Effect.fork(fixture.run("SLEEP 5000"))
        expect(yield* joinAfter(long, 5_000)).toBe(5_000)
        yield* settle
        expect(fixture.fake.closed).toEqual(["1"])
      })))
})

describe("a pool as a whole", () => {
  it.effect("grows and serves who waits", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const waiter = yield* Effect.fork(use(fixture))
        yield* settle
        yield* fixture.pool.resize(2)
        yield* settle
        expect(yield* Fiber.join(waiter)).toBe("2")
        yield* holder.letGo
      })))

  it.effect("shrinks: idle connections close now, held ones when they come back", () =>
    withPool({ poolSize: 3 }, (fixture) =>
      Effect.gen(function*() {
        const held = [yield* hold(fixture), yield* hold(fixture), yield* hold(fixture)]
        yield* held[0]?.letGo ?? Effect.void
        yield* fixture.pool.resize(1)
        yield* settle
        expect(fixture.fake.closed).toEqual(["1"])
        yield* held[1]?.letGo ?? Effect.void
        expect(fixture.fake.closed).toEqual(["1", "2"])
        yield* held[2]?.letGo ?? Effect.void
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 1, held: 0, max: 1 })
      })))

  it.effect("keeps a connection to lend when it shrinks, however long closing takes", () =>
    withPool({ poolSize: 3, script: { close: takes(1_000) } }, (fixture) =>
      Effect.gen(function*() {
        const held = [yield* hold(fixture), yield* hold(fixture), yield* hold(fixture)]
        for (const { letGo } of held) yield* letGo
        yield* fixture.pool.resize(1)
        const first = yield* use(fixture)
        const second = yield* use(fixture).pipe(Effect.fork, Effect.zipLeft(settle), Effect.flatMap(Fiber.poll))
        expect(second).toEqual(Option.some(Exit.succeed(first)))
      })))

  it.effect("cannot be smaller than one", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        for (const size of [0, -1, 1.5, NaN, Infinity]) {
          expect((yield* Effect.flip(fixture.pool.resize(size)))._tag).toBe("InvalidConfig")
        }
        expect((yield* fixture.pool.snapshot).max).toBe(4)
      })))

  it.effect("checks every connection before its next use after invalidateAll", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        yield* fixture.pool.invalidateAll
        yield* use(fixture)
        yield* use(fixture)
        expect(fixture.fake.connection("1").roundTrips.ping).toBe(1)
      })))

  it.effect("its snapshot adds up at every moment", () =>
    withPool({ poolSize: 3, script: { connect: takes(7), close: takes(3) } }, (fixture) =>
      Effect.gen(function*() {
        const work = yield* Effect.fork(
          Effect.forEach(
            Array.from({ length: 30 }, (_, n) => n),
            (n) => n % 5 === 0 ? Effect.asVoid(fixture.run("DIRTY")) : Effect.asVoid(fixture.run(`SLEEP ${n}`)),
            { concurrency: 10, discard: true }
          )
        )
        for (let n = 0; n < 40; n++) {
          yield* TestClock.adjust(5)
          const { busy, closed, created, held, idle, max, opening } = yield* fixture.pool.snapshot
          expect(idle + held + busy + opening).toBeLessThanOrEqual(max)
          expect(created - closed).toBe(idle + held + busy)
        }
        yield* Fiber.join(work)
      })))
})

describe("the end of a pool", () => {
  it.effect("lends no more while draining, and lets what is running finish", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const running = yield* Effect.fork(fixture.run("SLEEP 1000"))
        yield* settle
        const draining = yield* Effect.fork(fixture.pool.drain)
        yield* TestClock.adjust(500)
        expect((yield* Effect.flip(use(fixture)))._tag).toBe("PoolClosed")
        expect(Option.isNone(yield* Fiber.poll(draining))).toBe(true)
        yield* joinAfter(draining, 500)
        expect(yield* Fiber.join(running)).toBe(1_000)
        expect(fixture.fake.open).toEqual([])
      })))

  it.effect("serves who waited already", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const running = yield* Effect.fork(fixture.run("SLEEP 1000"))
        const waiting = yield* Effect.fork(fixture.run("SLEEP 1000"))
        yield* settle
        const closing = yield* Effect.fork(fixture.pool.closeAll)
        expect(yield* joinAfter(closing, 2_000)).toEqual({ cut: [] })
        expect(yield* Fiber.join(running)).toBe(1_000)
        expect(yield* Fiber.join(waiting)).toBe(1_000)
      })))

  it.effect("cuts what is not finished within drainTimeout, and says what that was", () =>
    withPool({ drainTimeout: 1_000, script: { run: [takes(60_000)] } }, (fixture) =>
      Effect.gen(function*() {
        const statementFiber = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
        yield* settle
        const transaction = yield* Effect.fork(Effect.zipRight(fixture.run("BEGIN"), Effect.never))
        yield* settle
        const closing = yield* Effect.fork(fixture.pool.closeAll)
        const report = yield* joinAfter(closing, 1_000)
        expect([...report.cut].map((line) => line.replace(/^.*?: /, "")).sort()).toEqual([
          "a statement is running",
          "a transaction is open"
        ])
        expect(failureOf(yield* Fiber.join(statementFiber))).toMatchObject({ _tag: "StatementCancelled" })
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ cancel: 1, close: 0 })
        expect(fixture.fake.connection("2").roundTrips).toMatchObject({ cancel: 0, close: 0 })
        expect(fixture.fake.open).toEqual([])
        yield* Fiber.interrupt(transaction)
        expect((yield* Effect.flip(use(fixture)))._tag).toBe("PoolClosed")
      })))

  it.effect("lets no read succeed that it has stopped: MySQL answers one in a SLEEP with another value", () =>
    withPool(
      { drainTimeout: 1_000, script: { run: [takes(1_200), takes(1_200)], cancel: takes(300) } },
      (fixture) =>
        Effect.gen(function*() {
          const read = yield* Effect.fork(Effect.exit(fixture.run("SELECT 42")))
          const write = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
          yield* settle
          const closing = yield* Effect.fork(fixture.pool.closeAll)
          yield* joinAfter(closing, 1_300)
          expect(failureOf(yield* Fiber.join(read))).toMatchObject({
            _tag: "StatementCancelled",
            statement: "SELECT 42"
          })
          expect(Exit.isSuccess(yield* Fiber.join(write))).toBe(true)
        })
    ))

  it.effect("waits no longer than cancelTimeout for what it cuts to be stopped on the server", () =>
    withPool(
      { drainTimeout: 1_000, cancelTimeout: 500, script: { run: [takes(60_000)], cancel: never } },
      (fixture) =>
        Effect.gen(function*() {
          const statement = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
          yield* settle
          const closing = yield* Effect.fork(fixture.pool.closeAll)
          yield* TestClock.adjust(1_499)
          expect(Option.isNone(yield* Fiber.poll(closing))).toBe(true)
          expect((yield* Effect.flip(use(fixture)))._tag).toBe("PoolClosed")
          expect((yield* joinAfter(closing, 1)).cut).toHaveLength(1)
          expect(failureOf(yield* Fiber.join(statement))).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
          expect(fixture.fake.open).toEqual([])
          expect(yield* fixture.pool.snapshot).toMatchObject({ created: 1, closed: 1 })
        })
    ))

  it.effect("turns waiters away when the drain timeout is over", () =>
    withPool({ poolSize: 1, drainTimeout: 1_000 }, (fixture) =>
      Effect.gen(function*() {
        const holder = yield* hold(fixture)
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        yield* settle
        const closing = yield* Effect.fork(fixture.pool.closeAll)
        yield* joinAfter(closing, 1_000)
        expect((yield* Fiber.join(waiter))._tag).toBe("PoolClosed")
        yield* holder.letGo
      })))

  it.effect("closes everything even if no connection says good-bye", () =>
    withPool({ poolSize: 3, cancelTimeout: 500, script: { close: never } }, (fixture) =>
      Effect.gen(function*() {
        const held = [yield* hold(fixture), yield* hold(fixture)]
        for (const { letGo } of held) yield* letGo
        const closing = yield* Effect.fork(fixture.close)
        yield* TestClock.adjust(499)
        expect(Option.isNone(yield* Fiber.poll(closing))).toBe(true)
        yield* joinAfter(closing, 1)
        expect(fixture.fake.open).toEqual([])
      })))

  it.effect("ends a connect that is under way", () =>
    withPool({ drainTimeout: 1_000, script: { connect: never } }, (fixture) =>
      Effect.gen(function*() {
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        yield* settle
        const closing = yield* Effect.fork(fixture.close)
        yield* joinAfter(closing, 1_000)
        expect((yield* Fiber.join(waiter))._tag).toBe("PoolClosed")
        expect(fixture.fake.connecting).toBe(0)
      })))

  it.effect("closes a connection that is opened after the pool has ended", () =>
    withPool({ drainTimeout: 100, script: { connect: takes(1_000) } }, (fixture) =>
      Effect.gen(function*() {
        const waiter = yield* Effect.fork(Effect.flip(use(fixture)))
        yield* settle
        const closing = yield* Effect.fork(fixture.pool.closeAll)
        yield* joinAfter(closing, 100)
        expect((yield* Fiber.join(waiter))._tag).toBe("PoolClosed")
        yield* TestClock.adjust(5_000)
        expect(fixture.fake.open).toEqual([])
        expect(yield* fixture.pool.snapshot).toMatchObject({ created: 1, closed: 1 })
      })))

  it.effect("can be asked for twice", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* use(fixture)
        expect(yield* fixture.pool.closeAll).toEqual({ cut: [] })
        expect(yield* fixture.pool.closeAll).toEqual({ cut: [] })
        yield* fixture.close
        expect(fixture.fake.closed).toEqual(["1"])
      })))

  it.effect("waits for an interrupted statement to be stopped on the server", () =>
    withPool({ script: { cancel: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const running = yield* Effect.fork(fixture.run("SLEEP 60000"))
        yield* settle
        yield* Fiber.interrupt(running)
        const closing = yield* Effect.fork(fixture.pool.closeAll)
        expect(yield* joinAfter(closing, 100)).toEqual({ cut: [] })
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ cancel: 1, close: 1 })
      })))

  it.effect("leaves nothing running", () =>
    withPool({ keepalive: 1_000, minimumIdle: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* TestClock.adjust(5_000)
        const closing = yield* Effect.fork(fixture.close)
        yield* joinAfter(closing, 1_000)
        const trips = { ...fixture.fake.connection("1").roundTrips }
        yield* TestClock.adjust(60_000)
        expect(fixture.fake.connection("1").roundTrips).toEqual(trips)
        expect(fixture.fake.connects).toEqual([0])
      })))
})

describe("round trips", () => {
  it.effect("a hundred clean borrowings of one connection cost none", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* Effect.forEach(Array.from({ length: 100 }), () => use(fixture), { concurrency: 10, discard: true })
        expect(fixture.fake.connection("1").roundTrips).toEqual({ run: 0, ping: 0, reset: 0, cancel: 0, close: 0 })
        yield* Effect.scoped(Effect.flatMap(connection(fixture), (lease) => runOn(lease, statement("SELECT id"))))
        expect(fixture.fake.connection("1").roundTrips.run).toBe(1)
      })))
})
