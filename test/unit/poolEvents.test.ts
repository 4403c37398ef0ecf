/** What the pool tells while it works: each event to its readers and to the log, and that nobody who listens holds it up. */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Deferred,
  Effect,
  Fiber,
  Logger,
  LogLevel,
  Option,
  Schedule,
  type Scope,
  Stream,
  TestClock
} from "effect"
import * as Db from "../../src/Db.js"
import type { PoolConfig } from "../../src/PoolConfig.js"
import { format, type PoolEvent } from "../../src/PoolEvents.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"

type Tag = PoolEvent["_tag"]

/** Gives the test what the pool has told so far. */
const listening = <A, E>(
  options: Partial<PoolConfig> & { readonly script?: Partial<FakeDriver.Scripts> },
  use: (fixture: Fixture, told: ReadonlyArray<PoolEvent>) => Effect.Effect<A, E, Scope.Scope>
) =>
  withPool(options, (fixture) =>
    Effect.scoped(Effect.gen(function*() {
      const told: Array<PoolEvent> = []
      yield* Effect.forkScoped(
        Stream.runForEach(fixture.pool.events, (event) => Effect.sync(() => void told.push(event)))
      )
      yield* settle
      return yield* use(fixture, told)
    })))

const tagsOf = (told: ReadonlyArray<PoolEvent>): ReadonlyArray<Tag> => told.map(({ _tag }) => _tag)

const refusal = FakeDriver.fails(FakeDriver.refused())

describe("is told:", () => {
  it.effect("a connection opened and closed, with how long that took, its age and why", () =>
    listening({ script: { connect: FakeDriver.takes(30) } }, (fixture, told) =>
      Effect.gen(function*() {
        yield* joinAfter(yield* Effect.fork(fixture.run("SELECT id")), 30)
        yield* TestClock.adjust(100)
        yield* fixture.close
        yield* settle
        expect(told).toEqual([
          { _tag: "Opened", pool: "test", at: 30, connection: "1", connectMillis: 30 },
          { _tag: "Closed", pool: "test", at: 130, connection: "1", reason: "drained", ageMillis: 100 }
        ])
      })))

  it.effect("each connect that failed, and once that one works again, since when and after how many", () =>
    listening(
      { connectSchedule: Schedule.spaced("100 millis"), script: { connect: [refusal, refusal, refusal] } },
      (fixture, told) =>
        Effect.gen(function*() {
          yield* TestClock.adjust(1_000)
          yield* joinAfter(yield* Effect.fork(fixture.run("SELECT id")), 1_000)
          yield* settle
          expect(tagsOf(told)).toEqual(["ConnectFailed", "ConnectFailed", "ConnectFailed", "Opened", "Recovered"])
          expect(told[0]).toMatchObject({ at: 1_000, error: { _tag: "ConnectionError", reason: "refused" } })
          expect(told[4]).toEqual({ _tag: "Recovered", pool: "test", at: 1_300, downMillis: 300, failures: 3 })
          // and the next one that works is nothing special
          yield* Effect.exit(fixture.run("LOSE"))
          yield* fixture.run("SELECT id")
          yield* settle
          expect(tagsOf(told).slice(5)).toEqual(["Lost", "Closed", "Opened"])
        })
    ))

  it.effect("a connection lost: under a statement, while it is idle, and at a validation", () =>
    listening({ poolSize: 1, validationTimeout: 100 }, (fixture, told) =>
      Effect.gen(function*() {
        yield* Effect.exit(fixture.run("LOSE"))
        yield* fixture.run("SELECT id")
        fixture.fake.connection("2").break("not executed")
        yield* settle
        yield* fixture.run("SELECT id")
        yield* fixture.fibers.release
        fixture.fake.script.ping = FakeDriver.never
        yield* TestClock.adjust(1_000)
        yield* joinAfter(yield* Effect.fork(fixture.run("SELECT id")), 200)
        yield* settle
        expect(told.filter(({ _tag }) => _tag === "Lost")).toMatchObject([
          { connection: "1", reason: "the fake server hung up" },
          { connection: "2", reason: "the fake server hung up" },
          { connection: "3", reason: "no answer to a validation within 100 ms", at: 1_100 }
        ])
        expect(told.filter(({ _tag }) => _tag === "Closed")).toMatchObject([
          { connection: "1", reason: "lost" },
          { connection: "2", reason: "lost" },
          { connection: "3", reason: "invalid" }
        ])
      })))

  it.effect("a connection taken back, from whom", () =>
    listening({ poolSize: 1 }, (fixture, told) =>
      Effect.gen(function*() {
        const first = yield* Effect.fork(Effect.zipRight(fixture.run("SELECT id"), Effect.never))
        yield* settle
        const [holder] = yield* fixture.pool.holders
        yield* fixture.run("SELECT id")
        yield* settle
        expect(told.slice(1)).toEqual([
          { _tag: "TakenBack", pool: "test", at: 0, connection: "1", fiber: holder?.fiber ?? "nobody" }
        ])
        yield* Fiber.interrupt(first)
      })))

  it.effect("once that the pool is exhausted, and again when somebody waits anew after nobody did", () =>
    listening({ poolSize: 2 }, (fixture, told) =>
      Effect.gen(function*() {
        const hold = Effect.scoped(Effect.zipRight(fixture.fibers.connection, Effect.sleep(100)))
        const some = (count: number) => Effect.forEach(Array.from({ length: count }), () => Effect.fork(hold))
        const exhausted = () => told.filter(({ _tag }) => _tag === "Exhausted")
        yield* some(2)
        yield* settle
        // both places are taken, and nobody waits
        expect(exhausted()).toEqual([])
        yield* TestClock.adjust(50)
        yield* some(3)
        yield* settle
        expect(exhausted()).toEqual([{ _tag: "Exhausted", pool: "test", at: 50, waiting: 1, held: 2, max: 2 }])
        yield* TestClock.adjust(60)
        expect((yield* fixture.pool.snapshot).waiting).toBe(1)
        yield* TestClock.adjust(300)
        expect(exhausted()).toHaveLength(1)
        yield* some(3)
        yield* settle
        expect(exhausted()).toHaveLength(2)
        yield* TestClock.adjust(300)
      })))

  it.effect("no exhaustion while connects are on their way or fail", () =>
    listening(
      { poolSize: 2, acquireTimeout: 500, script: { connect: refusal } },
      (fixture, told) =>
        Effect.gen(function*() {
          const fibers = yield* Effect.forEach([1, 2, 3, 4], () => Effect.fork(Effect.exit(fixture.run("SELECT id"))))
          yield* TestClock.adjust(1_000)
          yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
          expect(new Set(tagsOf(told))).toEqual(new Set(["ConnectFailed"]))
        })
    ))

  it.effect("a suspected leak, with who holds it and where it was acquired", () =>
    listening({ leakDetectionThreshold: 1_000 }, (fixture, told) =>
      Effect.gen(function*() {
        yield* Db.make(fixture.pool).connection
        yield* TestClock.adjust(3_000)
        const [, leak] = told
        if (leak?._tag !== "LeakSuspected") return expect(tagsOf(told)).toEqual(["Opened", "LeakSuspected"])
        expect(leak).toMatchObject({ connection: "1", holding: "an explicit connection", at: leak.heldMillis })
        expect(Option.getOrThrow(leak.origin)).toMatch(/^db\.connection\n[^]*poolEvents\.test\.ts:\d+/)
        expect(told).toHaveLength(2)
      })))
})

describe("every reason why a connection is closed is told:", () => {
  const reset = { reset: FakeDriver.fails(FakeDriver.lost("unknown")) }
  const cases: Readonly<
    Record<
      string,
      readonly [
        Partial<PoolConfig> & { readonly script?: Partial<FakeDriver.Scripts> },
        (fixture: Fixture) => Effect.Effect<unknown, unknown>
      ]
    >
  > = {
    idle: [
      { idleTimeout: 100 },
      ({ fibers, run }) => Effect.zipRight(run("SELECT id"), Effect.zipRight(fibers.release, Effect.sleep(200)))
    ],
    lifetime: [
      { maxLifetime: 100 },
      ({ fibers, run }) => Effect.zipRight(run("SELECT id"), Effect.zipRight(fibers.release, Effect.sleep(200)))
    ],
    lost: [{}, ({ run }) => Effect.exit(run("LOSE"))],
    invalid: [
      { script: { ping: FakeDriver.fails(FakeDriver.lost("unknown")) } },
      ({ fibers, pool, run }) => Effect.all([run("SELECT id"), fibers.release, pool.invalidateAll, run("SELECT id")])
    ],
    epoch: [{}, ({ fibers, run }) =>
      Effect.gen(function*() {
        const other = yield* Effect.fork(Effect.scoped(Effect.zipRight(fibers.connection, Effect.sleep(10))))
        yield* Effect.sleep(1)
        yield* Effect.exit(run("READ ONLY"))
        yield* Fiber.join(other)
      })],
    "reset failed": [{ script: reset }, ({ fibers, run }) => Effect.zipRight(run("DIRTY"), fibers.release)],
    "cancel failed": [{ script: { cancel: FakeDriver.never } }, ({ run }) => Effect.timeout(run("SLEEP 100000"), 5)],
    invalidated: [{}, ({ fibers, run }) => Effect.zipRight(run("SELECT id"), fibers.reconnect)],
    shrunk: [{ poolSize: 2 }, ({ fibers, pool }) =>
      Effect.zipRight(
        Effect.all([Effect.scoped(fibers.connection), Effect.scoped(fibers.connection)], { concurrency: 2 }),
        pool.resize(1)
      )],
    drained: [{}, ({ close, fibers, run }) => Effect.all([run("SELECT id"), fibers.release, close])],
    cut: [{ drainTimeout: 10 }, ({ close, run }) => Effect.zipRight(run("BEGIN"), close)]
  }
  for (const [reason, [options, effect]] of Object.entries(cases)) {
    it.effect(reason, () =>
      listening(options, (fixture, told) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Effect.exit(effect(fixture)))
          yield* joinAfter(fiber, 5_000)
          yield* settle
          const reasons = told.flatMap((event) => event._tag === "Closed" ? [event.reason] : [])
          expect(reasons).toContain(reason)
          const { closed, closedBy } = yield* fixture.pool.snapshot
          expect(Object.entries(closedBy).flatMap(([reason, count]) => Array<string>(count).fill(reason)).sort())
            .toEqual([...reasons].sort())
          expect(closed).toBe(reasons.length)
        })))
  }
})

describe("the log", () => {
  /** Runs a pool through a bit of everything, at a minimum level, and gives what it has logged. */
  const logged = (level: LogLevel.LogLevel) => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      // Effect itself tells at Debug of fibers that fail
      if (String(message).startsWith("Pool")) lines.push(`${logLevel.label}: ${String(message)}`)
    })
    const script = { connect: [refusal] }
    return withPool(
      { poolSize: 1, connectSchedule: Schedule.spaced("100 millis"), script },
      (fixture) =>
        Effect.gen(function*() {
          yield* joinAfter(yield* Effect.fork(fixture.run("SELECT id")), 200)
          yield* Effect.exit(fixture.run("LOSE"))
          const taken = yield* Effect.fork(Effect.zipRight(fixture.run("SELECT id"), Effect.never))
          yield* settle
          yield* Effect.scoped(Effect.gen(function*() {
            yield* fixture.fibers.connection
            const waiting = yield* Effect.fork(fixture.run("SELECT id"))
            yield* settle
            yield* Fiber.interrupt(waiting)
          }))
          yield* Fiber.interrupt(taken)
          yield* settle
          yield* fixture.close
          return lines
        })
    ).pipe(
      Effect.map(() => lines),
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Logger.withMinimumLogLevel(level)
    )
  }

  const everything = [
    "WARN: Pool test: Cannot connect to fake:1: refused",
    "DEBUG: Pool test opened connection 1 in 0 ms",
    "INFO: Pool test connects again, after 1 failed connect in 100 ms",
    "WARN: Pool test lost connection 1: the fake server hung up",
    "DEBUG: Pool test closed connection 1 after 100 ms: lost",
    "DEBUG: Pool test opened connection 2 in 0 ms",
    expect.stringMatching(/^TRACE: Pool test took connection 2 back from fiber #\d+$/),
    "DEBUG: Pool test is exhausted: 1 of 1 connections are held, and 1 fiber waits",
    // the very last, when the pool ends
    "DEBUG: Pool test closed connection 2 after 0 ms: drained"
  ]

  it.effect("tells everything, in order and to the very end, at Trace", () =>
    Effect.map(logged(LogLevel.Trace), (lines) => expect(lines).toEqual(everything)))

  const above: Readonly<Record<string, RegExp>> = {
    Debug: /^(DEBUG|INFO|WARN)/,
    Info: /^(INFO|WARN)/,
    Warning: /^WARN/
  }
  for (const [level, shown] of Object.entries(above)) {
    it.effect(`tells what is at ${level} and above`, () =>
      Effect.map(
        logged(LogLevel.fromLiteral(level as LogLevel.Literal)),
        (lines) => expect(lines).toEqual(everything.filter((line) => typeof line === "string" && shown.test(line)))
      ))
  }

  it.effect("costs no fiber of the pool below the minimum level", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        // opens a connection, which nobody hears of
        yield* fixture.run("SELECT id")
        const forks: Array<unknown> = []
        const announcer = (fixture.pool as unknown as { announcer: { soon: unknown } }).announcer
        Object.assign(announcer, { soon: (effect: unknown) => forks.push(effect) })
        yield* fixture.fibers.reconnect
        yield* settle
        expect((yield* fixture.pool.snapshot).created).toBe(2)
        expect(forks).toEqual([])
        // a loss is a warning
        yield* Effect.exit(fixture.run("LOSE"))
        expect(forks).toHaveLength(1)
      })))

  it.effect("that throws does the pool no harm", () => {
    const broken = Logger.make(() => {
      throw new Error("the disk is full")
    })
    return withPool({}, (fixture) =>
      Effect.gen(function*() {
        for (let round = 0; round < 3; round++) {
          yield* Effect.exit(fixture.run("LOSE"))
          yield* settle
          expect(yield* fixture.run("SELECT id")).toBe(String(round * 2 + 2))
          yield* fixture.fibers.reconnect
        }
        expect((yield* fixture.pool.snapshot).lost).toBe(3)
        yield* fixture.fibers.release
      })).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, broken)))
  })
})

describe("a reader", () => {
  it.effect(
    "who is slow misses the oldest, and the pool does not wait",
    () =>
      withPool({ poolSize: 1 }, (fixture) =>
        Effect.gen(function*() {
          const seen: Array<string> = []
          const gate = yield* Deferred.make<void>()
          const slow = yield* Effect.fork(Stream.runForEach(
            // one at a time, since what has been fetched is not in the queue any more
            Stream.rechunk(fixture.pool.events, 1),
            (event) =>
              Effect.zipRight(
                Deferred.await(gate),
                Effect.sync(() => void seen.push("connection" in event ? event.connection : ""))
              )
          ))
          yield* settle
          yield* fixture.run("SELECT id")
          yield* settle
          for (let round = 0; round < 600; round++) yield* fixture.fibers.reconnect
          expect((yield* fixture.pool.snapshot).created).toBe(601)
          yield* fixture.fibers.release
          yield* fixture.close
          yield* Deferred.succeed(gate, undefined)
          yield* Fiber.join(slow)
          expect(seen.length).toBeLessThan(1_100)
          expect(seen[0]).toBe("1")
          expect(seen.at(-1)).toBe("601")
        })),
    60_000
  )

  it.effect("hears what happens from then on, until the pool has ended", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        const reading = yield* Effect.fork(Stream.runCollect(fixture.pool.events))
        yield* settle
        yield* fixture.fibers.release
        yield* fixture.close
        expect(Chunk.toReadonlyArray(yield* Fiber.join(reading)).map(format)).toEqual([
          "Pool test closed connection 1 after 0 ms: drained"
        ])
        // of a pool that has ended there is nothing to hear
        expect(Chunk.size(yield* Stream.runCollect(fixture.pool.events))).toBe(0)
      })))

  it.effect("is one of several, who come and go", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const take = (count: number) => Effect.fork(Stream.runCollect(Stream.take(fixture.pool.events, count)))
        const [one, two] = [yield* take(1), yield* take(2)]
        yield* settle
        yield* fixture.run("SELECT id")
        yield* settle
        yield* Effect.exit(fixture.run("LOSE"))
        yield* settle
        expect(tagsOf(Chunk.toReadonlyArray(yield* Fiber.join(one)))).toEqual(["Opened"])
        expect(tagsOf(Chunk.toReadonlyArray(yield* Fiber.join(two)))).toEqual(["Opened", "Lost"])
      })))
})
