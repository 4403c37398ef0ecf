/**
 * The same scenario under many schedulers: fibers that do a little of everything, are interrupted at any moment, on a
 * database where anything may fail. Whatever the interleaving: everybody settles, nobody meets a defect, no connection
 * is shared, lost or closed twice.
 */
import { beforeEach, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Random, Scope } from "effect"
import { setImmediate } from "node:timers/promises"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import type { PoolConfig } from "../../src/PoolConfig.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { config } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"
import { unreliable, type Work, works } from "../support/traffic.js"

// a simulation lets nothing else go on in its process, not even the runner's own messages
beforeEach(() => setImmediate())

const scenario = (options: Partial<PoolConfig> & { readonly fibers: number }): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { fibers: count, ...rest } = options
    const random = yield* Effect.random
    const fake = yield* FakeDriver.make(unreliable(yield* random.nextIntBetween(1, 1_000_000)))
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(
      ConnectionPool.make(
        fake,
        config({
          poolSize: 6,
          acquireTimeout: 200,
          cancelTimeout: 20,
          validationTimeout: 20,
          drainTimeout: 100,
          ...rest
        })
      ),
      scope
    )
    const choices: ReadonlyArray<Work> = Object.values(works(FiberConnection.make(pool)))
    const life = Effect.gen(function*() {
      const rounds = yield* Random.nextIntBetween(1, 5)
      for (let round = 0; round < rounds; round++) {
        const work = choices[yield* Random.nextIntBetween(0, choices.length)] ?? Effect.void
        const exit = yield* Effect.exit(work)
        if (Exit.isFailure(exit)) {
          for (const defect of Cause.defects(exit.cause)) return yield* Effect.die(defect)
        }
      }
    })
    const fibers = yield* Effect.forEach(Array.from({ length: count }), () => Effect.fork(life))
    for (const fiber of fibers) {
      if (yield* Random.nextBoolean) continue
      const delay = yield* Random.nextIntBetween(0, 40)
      const hops = yield* Random.nextIntBetween(0, 30)
      const interrupt = Effect.zipRight(Effect.yieldNow().pipe(Effect.repeatN(hops)), Fiber.interrupt(fiber))
      yield* Effect.fork(Effect.zipRight(Effect.sleep(delay), interrupt))
    }
    for (const fiber of fibers) {
      const exit = yield* Fiber.await(fiber)
      if (Exit.isFailure(exit)) expect([...Cause.defects(exit.cause)]).toEqual([])
    }
    // everything that was cancelled or is being reset has had its time
    yield* Effect.sleep(1_000)
    const { busy, closed, created, held, idle, opening, waiting } = yield* pool.snapshot
    expect({ held, waiting, busy, opening }).toEqual({ held: 0, waiting: 0, busy: 0, opening: 0 })
    expect(created - closed).toBe(idle)
    expect(fake.open.length).toBe(idle)
    yield* Scope.close(scope, Exit.void)
    yield* Effect.sleep(1_000)
    fake.expectAllClosed()
  })

const runs = Number(process.env["SWEEP_SEEDS"] ?? 1)

describe("two hundred fibers that do anything, at any moment", () => {
  // with 1 a fiber would only ever yield: going on after a yield is an operation, too
  for (let maxOpsBeforeYield = 2; maxOpsBeforeYield <= 21; maxOpsBeforeYield++) {
    it(`yielding after ${maxOpsBeforeYield} operations`, { timeout: 60_000 }, () => {
      for (let run = 0; run < runs; run++) {
        const seed = maxOpsBeforeYield * 1_000 + run
        simulate({ seed, maxOpsBeforeYield }, scenario({ fibers: 200 }))
      }
    })
  }

  for (const affinity of ["strict", "statement"] as const) {
    it(`with ${affinity} affinity`, { timeout: 60_000 }, () => {
      for (const maxOpsBeforeYield of [2, 3, 5, 8, 2_048]) {
        simulate({ seed: maxOpsBeforeYield, maxOpsBeforeYield }, scenario({ fibers: 200, affinity }))
      }
    })
  }
})

/** A fiber does the work and is interrupted after so many turns; afterwards the pool must be as if it had ended. */
const interrupted = (name: keyof ReturnType<typeof works>, turns: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    const fake = yield* FakeDriver.make({ connect: FakeDriver.takes(1), cancel: FakeDriver.takes(1) })
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(ConnectionPool.make(fake, config({ poolSize: 3, acquireTimeout: 50 })), scope)
    const work = works(FiberConnection.make(pool))[name]
    // once on a pool without connections, once on one with
    for (let round = 0; round < 2; round++) {
      const fiber = yield* Effect.fork(Effect.exit(work))
      yield* Effect.repeatN(Effect.yieldNow(), turns)
      const exit = yield* Fiber.interrupt(fiber)
      if (Exit.isFailure(exit)) expect([...Cause.defects(exit.cause)]).toEqual([])
      yield* Effect.sleep(10_000)
      const { busy, held, opening, waiting } = yield* pool.snapshot
      expect({ held, waiting, busy, opening }, `after ${turns} turns`).toEqual({
        held: 0,
        waiting: 0,
        busy: 0,
        opening: 0
      })
    }
    yield* Scope.close(scope, Exit.void)
    yield* Effect.sleep(10_000)
    fake.expectAllClosed()
  })

describe("a fiber that is interrupted after any number of turns leaves nothing behind:", () => {
  for (
    const name of [
      "a read",
      "an insert and its id",
      "a transaction",
      "a transaction released",
      "a timeout",
      "a loss",
      "an unused connection",
      "a changed connection",
      "a stream",
      "a stream ended early",
      "a stream that breaks",
      "a session with a timeout",
      "a session's stream"
    ] as const
  ) {
    it(name, { timeout: 60_000 }, () => {
      for (let turns = 0; turns < 160; turns++) {
        simulate({ seed: turns + 1, maxOpsBeforeYield: 2 }, interrupted(name, turns))
      }
    })
  }
})

/** Some work goes on, and after so many turns the pool's scope is closed under it. */
const closed = (turns: number, script: Partial<FakeDriver.Scripts>): Effect.Effect<void> =>
  Effect.gen(function*() {
    const fake = yield* FakeDriver.make(script)
    const scope = yield* Scope.make()
    const options = config({ poolSize: 3, minimumIdle: 1, drainTimeout: 2, connectTimeout: 20, cancelTimeout: 20 })
    const pool = yield* Scope.extend(ConnectionPool.make(fake, options), scope)
    const all = works(FiberConnection.make(pool))
    const fibers = yield* Effect.forEach(
      [all["a read"], all["an insert"], all["a transaction"], all["a stream ended early"], all["a timeout"]],
      (work) => Effect.fork(Effect.exit(work))
    )
    yield* Effect.repeatN(Effect.yieldNow(), turns)
    yield* Scope.close(scope, Exit.void)
    for (const fiber of fibers) {
      const exit = yield* Fiber.join(fiber)
      if (Exit.isFailure(exit)) expect([...Cause.defects(exit.cause)]).toEqual([])
    }
    yield* Effect.sleep(10_000)
    fake.expectAllClosed()
    expect(yield* pool.snapshot).toMatchObject({ phase: "Closed", held: 0, waiting: 0, idle: 0, busy: 0, opening: 0 })
  })

describe("a pool whose scope is closed after any number of turns leaves nothing open:", () => {
  const scripts: Readonly<Record<string, Partial<FakeDriver.Scripts>>> = {
    "everything answers at once": {},
    "everything takes its time": {
      connect: FakeDriver.takes(1),
      cancel: FakeDriver.takes(1),
      close: FakeDriver.takes(1),
      reset: FakeDriver.takes(1)
    },
    "connects take longer than the drain": { connect: FakeDriver.takes(5) },
    "nothing answers but statements": {
      cancel: FakeDriver.never,
      close: FakeDriver.never,
      reset: FakeDriver.never,
      ping: FakeDriver.never
    },
    "connects are never answered": { connect: FakeDriver.never }
  }
  for (const [name, script] of Object.entries(scripts)) {
    it(name, { timeout: 60_000 }, () => {
      for (let turns = 0; turns < 300; turns += 3) {
        simulate({ seed: turns + 1, maxOpsBeforeYield: 2 + (turns % 7) }, closed(turns, script))
      }
    })
  }
})

describe("a simulation", () => {
  it("gives the same run for the same seed", () => {
    const trace = (seed: number): ReadonlyArray<string> => {
      const seen: Array<string> = []
      simulate(
        { seed, maxOpsBeforeYield: 3 },
        Effect.forEach(
          Array.from({ length: 20 }, (_, n) => n),
          (n) => Effect.zipRight(Effect.sleep(n % 3), Effect.sync(() => seen.push(`${n}`))),
          { concurrency: "unbounded", discard: true }
        )
      )
      return seen
    }
    expect(trace(1)).toEqual(trace(1))
    expect(trace(1)).not.toEqual(trace(2))
  })
})
