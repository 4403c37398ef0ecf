/**
 * What a snapshot says: that its parts add up at every moment of random traffic, what each path through the pool counts as,
 * how changes are pushed, and who holds what.
 */
import { beforeEach, describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Exit, Fiber, Option, Random, Schedule, Scope, Stream, TestClock } from "effect"
import * as fc from "fast-check"
import { setImmediate } from "node:timers/promises"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import { AuthenticationError, type ConnectFailure } from "../../src/DbError.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import { Times } from "../../src/internal/histogram.js"
import type { PoolConfig } from "../../src/PoolConfig.js"
import { type CloseReason, type Histogram, makeClosedBy, makeCounters, type PoolSnapshot } from "../../src/PoolStats.js"
import * as Recovery from "../../src/Recovery.js"
import { deadlock } from "../support/abortingDriver.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { config, type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"
import { unreliable, works } from "../support/traffic.js"

const sum = (numbers: Iterable<number>): number => Array.from(numbers).reduce((all, one) => all + one, 0)

const countOf = ({ buckets }: Histogram): number => sum(buckets.map(([, count]) => count))

/** What is wrong with a snapshot, `borrowed` being how many connections were asked for so far, and `before` an earlier one. */
const faultsOf = (now: PoolSnapshot, borrowed: number, before: PoolSnapshot | undefined): ReadonlyArray<string> => {
  const acquired = now.acquiredAtOnce + now.acquiredAfterWait
  const turnedDown = now.timedOut + now.abandoned + now.refused + now.unreachable + now.turnedAway
  const mustBe: Record<string, boolean> = {
    "held is clean, with state, or by name": now.held === now.heldClean + now.heldWithState + now.heldExplicitly,
    "what was created is closed or open": now.created - now.closed === now.idle + now.held + now.busy,
    "what is closed has a reason": now.closed === sum(Object.values(now.closedBy)),
    "every borrow ends once": borrowed === acquired + turnedDown + now.waiting,
    "who acquired has waited": now.waitTimes.count === acquired,
    "what is not held any more was used": now.useTimes.count === acquired - now.held,
    "what is created was connected": now.connectTimes.count === now.created,
    "buckets hold everything": [now.waitTimes, now.useTimes, now.connectTimes].every((times) =>
      countOf(times) === times.count
    ),
    "what runs is held": now.running <= now.held,
    "what is lendable is clean": now.lendable <= now.heldClean,
    "a failed connect is told": Option.isSome(now.lastConnectFailure) === now.connectFailures > 0,
    "nobody waits longest when nobody waits": now.waiting > 0 || now.oldestWaitMillis === 0,
    "no counter falls": before === undefined || counterNames.every((name) => now[name] >= before[name]),
    "no reason falls": before === undefined ||
      reasons.every((reason) => now.closedBy[reason] >= before.closedBy[reason])
  }
  return Object.keys(mustBe).filter((what) => mustBe[what] === false)
}

const counterNames = Object.keys(makeCounters()) as ReadonlyArray<keyof ReturnType<typeof makeCounters>>
const reasons = Object.keys(makeClosedBy()) as ReadonlyArray<CloseReason>

/** Counts what is borrowed from the pool from now on. */
const countBorrows = (pool: ConnectionPool.Pool): () => number => {
  let borrowed = 0
  const borrow = pool.unsafeBorrow
  Object.assign(pool, {
    unsafeBorrow: (...args: Parameters<typeof borrow>) => {
      borrowed++
      return borrow(...args)
    }
  })
  return () => borrowed
}

describe("the parts of a snapshot add up", () => {
  // a simulation lets nothing else go on in its process, not even the runner's own messages
  beforeEach(() => setImmediate())

  interface Traffic {
    readonly seed: number
    readonly maxOpsBeforeYield: number
    readonly fibers: number
    readonly resizes: boolean
    readonly options: Partial<PoolConfig>
  }

  const traffics: fc.Arbitrary<Traffic> = fc.record({
    seed: fc.integer({ min: 1, max: 1_000_000 }),
    maxOpsBeforeYield: fc.constantFrom(2, 3, 5, 8, 13, 2_048),
    fibers: fc.integer({ min: 1, max: 20 }),
    resizes: fc.boolean(),
    options: fc.record({
      poolSize: fc.integer({ min: 1, max: 6 }),
      minimumIdle: fc.integer({ min: 0, max: 3 }),
      maxWaiters: fc.constantFrom(1, 5, Infinity),
      affinity: fc.constantFrom("soft", "strict", "statement"),
      validateAfter: fc.constantFrom(0, 500),
      idleTimeout: fc.constantFrom(20, 600_000),
      maxLifetime: fc.constantFrom(60, 1_800_000),
      keepalive: fc.constantFrom(40, 120_000),
      statementTimeout: fc.constantFrom(3, Infinity),
      leakDetectionThreshold: fc.constantFrom(2, Infinity),
      drainTimeout: fc.constantFrom(1, 100)
    })
  })

  /** Now and then a connect is refused for good, and a statement breaks its connection. */
  const unlucky = (seed: number): Partial<FakeDriver.Scripts> => {
    const denied = FakeDriver.fails(new AuthenticationError({ target: "fake:1", reason: "no", errno: 1045 }))
    const broken = FakeDriver.fails(FakeDriver.lost("unknown"))
    const others = unreliable(seed)
    const connect = others.connect as (attempt: number, connection: string) => FakeDriver.Behaviour<ConnectFailure>
    return {
      ...others,
      connect: (attempt, connection) => (attempt + seed) % 7 === 0 ? denied : connect(attempt, connection),
      run: (attempt) => (attempt + seed) % 19 === 0 ? broken : FakeDriver.succeeds
    }
  }

  /** Fibers that do a little of everything until the pool is closed under them; `seen` gets the pool as soon as it is there. */
  const lives = (
    { fibers: count, options, resizes, seed }: Traffic,
    seen: (pool: ConnectionPool.Pool) => void
  ): Effect.Effect<void> =>
    Effect.gen(function*() {
      const fake = yield* FakeDriver.make(unlucky(seed))
      const scope = yield* Scope.make()
      const times = { acquireTimeout: 100, cancelTimeout: 20, validationTimeout: 20, connectTimeout: 20 }
      const pool = yield* Scope.extend(ConnectionPool.make(fake, config({ ...times, ...options })), scope)
      seen(pool)
      const fibersOf = FiberConnection.make(pool)
      const insert = fibersOf.run(FakeDriver.statement("INSERT"))
      const choices = [
        ...Object.values(works(fibersOf)),
        // while another connection is in use, which is then out of date
        Effect.zip(insert, fibersOf.run(FakeDriver.statement("READ ONLY")), { concurrent: true }),
        fibersOf.run(FakeDriver.statement("SLEEP 300")),
        Db.make(pool).transaction(Effect.zipRight(insert, Effect.fail(deadlock)), { retry: Schedule.recurs(1) })
      ]
      const life = Effect.gen(function*() {
        const rounds = yield* Random.nextIntBetween(1, 6)
        for (let round = 0; round < rounds; round++) {
          yield* Effect.exit(choices[yield* Random.nextIntBetween(0, choices.length)] ?? Effect.void)
        }
      })
      const fibers = yield* Effect.forEach(Array.from({ length: count }), () => Effect.fork(life))
      for (const fiber of fibers) {
        if (yield* Random.nextBoolean) continue
        const delay = yield* Random.nextIntBetween(0, 40)
        yield* Effect.fork(Effect.zipRight(Effect.sleep(delay), Fiber.interrupt(fiber)))
      }
      if (resizes) {
        yield* Effect.sleep(5)
        yield* Effect.orDie(pool.resize(1))
        yield* pool.invalidateAll
        yield* Effect.sleep(20)
        yield* Effect.orDie(pool.resize(4))
      }
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 150))
      yield* Scope.close(scope, Exit.void)
      for (const fiber of fibers) yield* Fiber.await(fiber)
      yield* Effect.sleep(1_000)
      fake.expectAllClosed()
      expect(yield* pool.snapshot).toMatchObject({ phase: "Closed", held: 0, waiting: 0, idle: 0, busy: 0, opening: 0 })
    })

  /** What the runs came across: traffic that never closes or refuses anything would prove little. */
  const met = new Set<string>()

  it("after every step of random traffic, and no counter ever falls", { timeout: 120_000 }, async () => {
    let steps = 0
    await fc.assert(
      fc.asyncProperty(traffics, async (traffic) => {
        await setImmediate()
        let pool: ConnectionPool.Pool | undefined
        let borrowed = (): number => 0
        let before: PoolSnapshot | undefined
        const look = (): void => {
          if (pool === undefined) return
          steps++
          const now = Effect.runSync(pool.snapshot)
          const faults = faultsOf(now, borrowed(), before)
          if (faults.length > 0) expect(now).toEqual(faults)
          if (steps % 50 === 0) expect(Effect.runSync(pool.holders)).toHaveLength(now.held)
          before = now
        }
        const { maxOpsBeforeYield, seed } = traffic
        simulate(
          { seed, maxOpsBeforeYield, afterStep: look },
          lives(traffic, (made) => {
            pool = made
            borrowed = countBorrows(made)
          })
        )
        for (const name of counterNames) if (before !== undefined && before[name] > 0) met.add(name)
        for (const [reason, count] of Object.entries(before?.closedBy ?? {})) {
          if (count > 0) met.add(`closed: ${reason}`)
        }
      }),
      // the same in each run, so that what it comes across is, too
      { numRuns: 60, seed: 1 }
    )
    expect(steps).toBeGreaterThan(10_000)
  })

  it("on every path: the traffic was of every kind", () => {
    const all = [...counterNames, ...reasons.map((reason) => `closed: ${reason}`)]
    expect(all.filter((name) => !met.has(name))).toEqual([])
  })
})

describe("a histogram", () => {
  it("counts a time in the first bucket that reaches it, and those that took none", () => {
    const times = new Times()
    for (const millis of [1, 5, 6, 1_000, 1_001, 10_000_000, -3]) times.record(millis)
    const { buckets, count, maxMillis, sumMillis } = times.histogram(4)
    expect({ count, maxMillis, sumMillis }).toEqual({ count: 11, maxMillis: 10_000_000, sumMillis: 10_002_013 })
    expect(buckets.filter(([, count]) => count > 0)).toEqual([
      [0, 5],
      [1, 1],
      [5, 1],
      [10, 1],
      [1_000, 1],
      [2_000, 1],
      [Infinity, 1]
    ])
  })

  it("has rising bounds, among them those of OpenTelemetry's convention, in milliseconds", () => {
    const bounds = new Times().histogram().buckets.map(([upTo]) => upTo)
    expect(bounds).toEqual([...bounds].sort((one, other) => one - other))
    expect(new Set(bounds).size).toBe(bounds.length)
    expect(bounds).toEqual(expect.arrayContaining([1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000]))
  })
})

const snapshotOf = ({ pool }: Fixture): Effect.Effect<PoolSnapshot> => pool.snapshot

const nonZero = ({ buckets }: Histogram): ReadonlyArray<readonly [number, number]> =>
  buckets.filter(([, count]) => count > 0)

describe("a snapshot tells", () => {
  it.effect("what is held: clean, with state, and by name; and what runs", () =>
    withPool({ poolSize: 6 }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const fork = (effect: Effect.Effect<unknown, unknown>) =>
          Effect.forkScoped(Effect.zipRight(effect, Effect.never))
        yield* fork(fixture.run("SELECT id"))
        yield* fork(fixture.run("DIRTY"))
        yield* fork(fixture.run("SLEEP 100000"))
        yield* fork(fixture.fibers.session(() => Effect.zipRight(fixture.run("BEGIN"), Effect.never)))
        yield* fork(Stream.runForEach(fixture.fibers.stream(FakeDriver.statement("ROWS 6")), () => Effect.never))
        yield* fixture.fibers.connection
        yield* TestClock.adjust(10)
        expect(yield* snapshotOf(fixture)).toMatchObject({
          held: 6,
          heldClean: 2,
          heldWithState: 2,
          heldExplicitly: 2,
          running: 2,
          lendable: 1,
          takenAt: 10
        })
      }))))

  it.effect("how long borrowers waited, held and connected", () =>
    withPool(
      { poolSize: 1, affinity: "statement", script: { connect: FakeDriver.takes(30) } },
      (fixture) =>
        Effect.gen(function*() {
          const first = yield* Effect.fork(fixture.run("SLEEP 100"))
          const second = yield* Effect.fork(fixture.run("SLEEP 7"))
          yield* TestClock.adjust(60)
          expect(yield* snapshotOf(fixture)).toMatchObject({ waiting: 1, oldestWaitMillis: 60, held: 1 })
          yield* joinAfter(first, 70)
          yield* joinAfter(second, 7)
          yield* fixture.run("SELECT id")
          const { connectTimes, useTimes, waitTimes, ...now } = yield* snapshotOf(fixture)
          expect(now).toMatchObject({ acquiredAtOnce: 1, acquiredAfterWait: 2, resetsSpared: 3, oldestWaitMillis: 0 })
          expect(nonZero(connectTimes)).toEqual([[50, 1]])
          expect([nonZero(waitTimes), waitTimes.sumMillis, waitTimes.maxMillis]).toEqual(
            [[[0, 1], [50, 1], [200, 1]], 160, 130]
          )
          expect([nonZero(useTimes), useTimes.sumMillis]).toEqual([[[0, 1], [10, 1], [100, 1]], 107])
        })
    ))

  it.effect("one hold, when a session goes on with its fiber's connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("DIRTY")
          yield* Effect.sleep(10)
          yield* fixture.fibers.session(() => Effect.zipRight(fixture.run("SELECT id"), Effect.sleep(20)))
          yield* Effect.sleep(30)
        }))
        yield* TestClock.adjust(15)
        expect((yield* fixture.pool.holders).map(({ heldMillis, kind }) => [kind, heldMillis])).toEqual([[
          "session",
          15
        ]])
        yield* joinAfter(fiber, 45)
        yield* settle
        const { useTimes, ...now } = yield* snapshotOf(fixture)
        expect(useTimes).toMatchObject({ count: 1, sumMillis: 60 })
        expect(now).toMatchObject({ acquiredAfterWait: 1, acquiredAtOnce: 0, resets: 1, resetsSpared: 0 })
      })))

  it.effect("how often a fiber found its own connection, and how often it had lost it", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* Effect.repeatN(fixture.run("SELECT id"), 4)
        expect(yield* snapshotOf(fixture)).toMatchObject({ affinityHits: 4, takenBack: 0 })
        yield* Fiber.join(yield* Effect.fork(fixture.run("SELECT id")))
        yield* fixture.run("SELECT id")
        expect(yield* snapshotOf(fixture)).toMatchObject({ affinityHits: 4, takenBack: 1, created: 1 })
      })))

  it.effect("the last connect that failed, after it works again, too", () =>
    withPool({ script: { connect: [FakeDriver.fails(FakeDriver.refused())] } }, (fixture) =>
      Effect.gen(function*() {
        yield* TestClock.adjust(1_000)
        const fiber = yield* Effect.fork(fixture.run("SELECT id"))
        yield* joinAfter(fiber, 1_000)
        const { connectFailures, lastConnectFailure } = yield* snapshotOf(fixture)
        expect(connectFailures).toBe(1)
        expect(lastConnectFailure).toMatchObject({ value: { at: 1_000, error: { _tag: "ConnectionError" } } })
      })))

  it.effect("who was turned away because nothing can be opened, and because the pool is closed", () => {
    const denied = new AuthenticationError({ target: "fake:1", reason: "no", errno: 1045 })
    return withPool({ script: { connect: FakeDriver.fails(denied) } }, (fixture) =>
      Effect.gen(function*() {
        yield* joinAfter(yield* Effect.fork(Effect.flip(fixture.run("SELECT id"))), 1_000)
        expect(yield* snapshotOf(fixture)).toMatchObject({ unreachable: 1, turnedAway: 0 })
        yield* fixture.close
        yield* Effect.flip(fixture.run("SELECT id"))
        expect(yield* snapshotOf(fixture)).toMatchObject({ unreachable: 1, turnedAway: 1, phase: "Closed" })
      }))
  })

  it.effect("as closing those whose statements are still being stopped when the pool ends", () =>
    withPool({ drainTimeout: 10, script: { cancel: FakeDriver.takes(50) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.exit(fixture.run("SLEEP 100000")))
        yield* settle
        const closing = yield* Effect.fork(fixture.close)
        yield* TestClock.adjust(30)
        expect(yield* snapshotOf(fixture)).toMatchObject({ phase: "Closed", held: 0, busy: 1, created: 1, closed: 0 })
        yield* joinAfter(closing, 100)
        yield* Fiber.join(fiber)
        const now = yield* snapshotOf(fixture)
        expect(now).toMatchObject({ busy: 0, closed: 1, cancelled: 1 })
        expect(now.closedBy.cut).toBe(1)
      })))

  it.effect("no connect failure when the pool's end cuts a connect short", () =>
    withPool({ drainTimeout: 10, script: { connect: FakeDriver.never } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.exit(fixture.run("SELECT id")))
        yield* settle
        yield* joinAfter(yield* Effect.fork(fixture.close), 100)
        yield* Fiber.join(fiber)
        expect(yield* snapshotOf(fixture)).toMatchObject({ connectFailures: 0, opening: 0, turnedAway: 1 })
      })))
})

describe("unknown outcomes are those that the program is told of:", () => {
  const counted = (fixture: Fixture, effect: Effect.Effect<unknown, unknown>) =>
    Effect.gen(function*() {
      yield* joinAfter(yield* Effect.fork(Effect.exit(effect)), 20_000)
      const { retriedReads, retriedTransactions, retriedUnexecuted, unknownOutcomes } = yield* snapshotOf(fixture)
      return { unknown: unknownOutcomes, run: [retriedUnexecuted, retriedReads, retriedTransactions] }
    })
  const cases: Readonly<
    Record<
      string,
      readonly [(fixture: Fixture, db: Db.DbService) => Effect.Effect<unknown, unknown>, number, Array<number>]
    >
  > = {
    "a write of a fiber": [({ run }) => run("LOSE"), 1, [0, 0, 0]],
    "not a write that was surely not executed": [({ run }) => run("LOSE UNSENT"), 0, [5, 0, 0]],
    "a write that was run again in vain": [({ run }) => Recovery.idempotent(run("LOSE")), 1, [0, 5, 0]],
    "a write in a session": [({ fibers, run }) => fibers.session(() => run("LOSE")), 1, [0, 0, 0]],
    "a stream that has given rows": [
      ({ fibers }) => Stream.runDrain(fibers.stream(FakeDriver.statement("ROWS 6 THEN LOSE"))),
      1,
      [0, 0, 0]
    ],
    "a stream in a session": [
      ({ fibers }) => fibers.session(() => Stream.runDrain(fibers.stream(FakeDriver.statement("ROWS 6 THEN LOSE")))),
      1,
      [0, 0, 0]
    ],
    "a statement on an explicit connection": [
      (_, db) => Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.execute("LOSE"))),
      1,
      [0, 0, 0]
    ]
  }
  for (const [what, [effect, unknown, run]] of Object.entries(cases)) {
    it.effect(what, () =>
      withPool({}, (fixture) =>
        Effect.gen(function*() {
          expect(yield* counted(fixture, effect(fixture, Db.make(fixture.pool)))).toEqual({ unknown, run })
        })))
  }

  const outcomes: Readonly<Record<string, readonly [number, number, Array<number>]>> = {
    "not a BEGIN that is run again": [1, 0, [0, 1, 0]],
    "not a statement in a transaction, which went with its connection": [2, 0, [0, 0, 1]],
    "a COMMIT": [3, 1, [0, 0, 0]]
  }
  for (const [what, [lostOne, unknown, run]] of Object.entries(outcomes)) {
    it.effect(what, () => {
      const script = (attempt: number) =>
        attempt === lostOne ? FakeDriver.fails(FakeDriver.lost("unknown")) : FakeDriver.succeeds
      return withPool({ script: { run: script } }, (fixture) =>
        Effect.gen(function*() {
          const db = Db.make(fixture.pool)
          expect(yield* counted(fixture, db.transaction(fixture.run("INSERT"), { retry: Recovery.schedule }))).toEqual({
            unknown,
            run
          })
        }))
    })
  }
})

describe("changes", () => {
  /** Reads the changes and notes when each came, and something of it. */
  const reading = (fixture: Fixture, interval?: number) =>
    Effect.gen(function*() {
      const seen: Array<readonly [at: number, held: number, waiting: number]> = []
      const fiber = yield* Effect.fork(Stream.runForEach(fixture.pool.changes(interval), (now) =>
        Effect.sync(() =>
          void seen.push([now.takenAt, now.held, now.waiting])
        )))
      yield* settle
      return { seen, fiber }
    })

  it.effect("come at once, then when something has changed, and not while nothing does", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const { fiber, seen } = yield* reading(fixture)
        expect(seen).toEqual([[0, 0, 0]])
        yield* TestClock.adjust(10_400)
        expect(seen).toHaveLength(1)
        // pushed: at the moment when it happens, once the interval is over
        const use = yield* Effect.fork(Effect.scoped(Effect.zipRight(fixture.fibers.connection, Effect.sleep(5_100))))
        yield* settle
        expect(seen.at(-1)?.[0]).toBe(10_400)
        yield* TestClock.adjust(1_000)
        expect(seen.at(-1)).toEqual([11_400, 1, 0])
        const before = seen.length
        yield* TestClock.adjust(4_000)
        expect(seen).toHaveLength(before)
        yield* joinAfter(use, 100)
        yield* settle
        expect(seen.at(-1)).toEqual([15_500, 0, 0])
        yield* Fiber.interrupt(fiber)
      })))

  it.effect("come at most once in each interval", () =>
    withPool({ validateAfter: 60_000 }, (fixture) =>
      Effect.gen(function*() {
        const { fiber, seen } = yield* reading(fixture, 250)
        const busy = yield* Effect.fork(Effect.forever(fixture.run("SLEEP 40")))
        yield* TestClock.adjust(1_600)
        const times = seen.map(([at]) => at)
        const gaps = times.slice(1).map((at, index) => at - (times[index] ?? 0))
        expect(Math.min(...gaps)).toBeGreaterThanOrEqual(250)
        expect(times.length).toBe(7)
        yield* Fiber.interrupt(busy)
        yield* Fiber.interrupt(fiber)
      })))

  it.effect("come in each interval while somebody waits, since he waits for ever longer", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        yield* fixture.fibers.connection
        const waiting = yield* Effect.fork(fixture.fibers.connection)
        const { fiber, seen } = yield* reading(fixture)
        yield* TestClock.adjust(3_000)
        expect(seen).toEqual([0, 1_000, 2_000, 3_000].map((at) => [at, 1, 1]))
        yield* Fiber.interrupt(waiting)
        yield* TestClock.adjust(60_000)
        expect(seen.slice(4)).toEqual([[4_000, 1, 0]])
        yield* Fiber.interrupt(fiber)
      }))))

  it.effect("end when the pool is closed, after a last one that shows it, whatever the interval", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        const all = yield* Effect.fork(Stream.runCollect(fixture.pool.changes("1 hour")))
        yield* settle
        // the test's own fiber holds a connection, for which the drain waits
        yield* fixture.fibers.release
        yield* fixture.close
        const phases = Chunk.toReadonlyArray(yield* Fiber.join(all)).map(({ closed, phase }) => [phase, closed])
        expect(phases).toEqual([["Open", 0], ["Closed", 1]])
        // and of a closed pool there is one
        expect(Chunk.size(yield* Stream.runCollect(fixture.pool.changes()))).toBe(1)
      })))

  it.effect("wait for a slow reader instead of piling up", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const slow = yield* Effect.fork(Stream.runForEach(fixture.pool.changes(10), ({ takenAt }) =>
          Effect.zipRight(Effect.sync(() => void seen.push(takenAt)), Effect.sleep(1_000))))
        const busy = yield* Effect.fork(Effect.forever(fixture.run("SLEEP 90")))
        yield* TestClock.adjust(3_500)
        expect(seen.length).toBe(4)
        expect(seen.at(-1)).toBeGreaterThanOrEqual(3_000)
        yield* Fiber.interrupt(busy)
        yield* Fiber.interrupt(slow)
      })))
})

describe("holders", () => {
  it.effect("are told with fiber, kind, session and age, the longest first", () =>
    withPool({ poolSize: 4 }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const mine = `#${
          (yield* Effect.fiberId)._tag === "Runtime" ? (yield* Effect.fiberId as Effect.Effect<{ id: number }>).id : ""
        }`
        yield* fixture.run("BEGIN")
        yield* TestClock.adjust(40)
        yield* fixture.fibers.connection
        yield* TestClock.adjust(2)
        const running = yield* Effect.fork(fixture.run("SLEEP 100"))
        yield* TestClock.adjust(5)
        const holders = yield* fixture.pool.holders
        expect(holders).toEqual([
          {
            connection: "1",
            fiber: mine,
            kind: "fiber",
            session: "transaction",
            running: false,
            sinceMillis: 0,
            heldMillis: 47,
            origin: Option.none()
          },
          expect.objectContaining({
            connection: "2",
            fiber: mine,
            kind: "connection",
            session: "clean",
            heldMillis: 7
          }),
          expect.objectContaining({ connection: "3", kind: "fiber", running: true, sinceMillis: 42, heldMillis: 5 })
        ])
        expect(holders[2]?.fiber).not.toBe(mine)
        yield* joinAfter(running, 100)
      }))))

  it.effect("come with the acquire stack when leaks are looked for", () =>
    withPool({ leakDetectionThreshold: 60_000 }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const takeAndForget = Effect.gen(function* forgetful() {
          yield* Db.make(fixture.pool).connection
        })
        yield* takeAndForget
        const [holder] = yield* fixture.pool.holders
        const origin = Option.getOrThrow(holder?.origin ?? Option.none())
        expect(origin).toMatch(/^db\.connection\n/)
        expect(origin).toMatch(/poolStats\.test\.ts:\d+/)
      }))))
})
