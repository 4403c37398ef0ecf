/**
 * Every phase of a connection's life, whatever becomes of it, with and without fibers that are interrupted: 500 fibers on
 * 10 connections, each cell a test. A cell is run with the phase as it is each time, and as it is one time in three; all
 * of it seeded, in a world with a clock of its own (see support/simulation.ts).
 *
 * Only a connect can be noticed by a borrower: what fails to be validated, reset or closed is replaced behind its back.
 */
import { afterAll, beforeEach, describe, expect, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Logger, LogLevel, Random, Scope } from "effect"
import { setImmediate } from "node:timers/promises"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import type { DbError } from "../../src/DbError.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import { runOn } from "../../src/internal/submission.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { config } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"

// a simulation lets nothing else go on in its process, not even the runner's own messages
beforeEach(() => setImmediate())

const crowd = 500
const poolSize = 10
const acquireTimeout = 5_000

const phases = { connect: "connect", validate: "ping", reset: "reset", close: "close" } as const
type Phase = keyof typeof phases
const fates = ["succeeds", "fails", "is slow", "never answers"] as const
type Fate = typeof fates[number]

interface Cell {
  readonly phase: Phase
  readonly fate: Fate
  readonly interrupted: boolean
  /** How often the phase has this fate, from 0 to 1. */
  readonly share: number
  readonly seed: number
}

/** What happened in a run of a cell. */
interface Tally {
  /** How often each phase was entered. */
  readonly entered: Record<Phase, number>
  /** How often the phase of the cell had its fate. */
  fated: number
  succeeded: number
  interrupted: number
  /** Fibers that were interrupted while a connection was in the phase, or in another that takes the pool's time. */
  struck: number
  readonly failed: Map<string, number>
  longestWait: number
}

const shortTimes = {
  poolSize,
  acquireTimeout,
  connectTimeout: 100,
  validationTimeout: 50,
  cancelTimeout: 50,
  drainTimeout: 500,
  // so that each phase comes often
  validateAfter: 4,
  keepalive: 60,
  maxLifetime: 400
}

/** The script of one phase. A close cannot fail, but its connection can break on the way. */
const scripts = (fake: () => FakeDriver.FakeDriver): Record<Phase, Record<Fate, FakeDriver.Script<never>>> => {
  const plain = FakeDriver.succeeds
  const fails = FakeDriver.fails as (error: DbError) => FakeDriver.Behaviour<never>
  const lost = fails(FakeDriver.lost("unknown"))
  const work = { succeeds: plain, fails: lost, "is slow": FakeDriver.takes(30), "never answers": FakeDriver.never }
  return {
    connect: {
      ...work,
      fails: FakeDriver.takes(5, fails(FakeDriver.refused())),
      "is slow": FakeDriver.takes(60)
    },
    validate: work,
    reset: work,
    close: {
      ...work,
      fails: (_, id) => {
        fake().connection(id).break()
        return plain
      }
    }
  }
}

/** Every phase takes a millisecond, so that something can happen meanwhile; the cell's has its fate as often as it says. */
const scriptOf = (
  { fate, phase, share }: Cell,
  fake: () => FakeDriver.FakeDriver,
  throwDice: () => number,
  tally: Tally
): Partial<FakeDriver.Scripts> => {
  const fated = scripts(fake)[phase][fate]
  const enter = (name: Phase): FakeDriver.Script<never> => (attempt, connection) => {
    tally.entered[name]++
    if (name !== phase || throwDice() >= share) return FakeDriver.takes(1)
    tally.fated++
    return typeof fated === "function" ? fated(attempt, connection) : fated as FakeDriver.Behaviour<never>
  }
  return Object.fromEntries(
    Object.entries(phases).map(([name, key]) => [key, enter(name as Phase)])
  )
}

/**
 * What a fiber does with the pool: enough for each phase to come, and nothing that could fail by itself. It keeps no state
 * while it asks for another connection, since a crowd that does so waits for itself.
 */
const works = (fibers: FiberConnection.FiberConnection, tally: Tally) => {
  const run = (sql: string) => fibers.run(FakeDriver.statement(sql))
  const explicit = (sql: string) =>
    Effect.scoped(Effect.gen(function*() {
      const before = yield* Clock.currentTimeMillis
      const lease = yield* Effect.onExit(fibers.connection, () =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          tally.longestWait = Math.max(tally.longestWait, now - before)
        }))
      // nobody meets what another has left
      expect(lease.connection?.session()).toBe("clean")
      yield* runOn(lease, FakeDriver.statement(sql))
    }))
  return [
    run("SELECT id"),
    run("SLEEP 2"),
    Effect.zipRight(Effect.zipRight(run("DIRTY"), run("SELECT id")), fibers.release),
    explicit("DIRTY"),
    explicit("SLEEP 3"),
    explicit("BEGIN"),
    Effect.zipRight(fibers.session(() => Effect.zipRight(run("DIRTY"), run("SLEEP 2"))), fibers.release),
    Effect.sleep(20)
  ]
}

const emptyTally = (): Tally => ({
  entered: { connect: 0, validate: 0, reset: 0, close: 0 },
  fated: 0,
  succeeded: 0,
  interrupted: 0,
  struck: 0,
  failed: new Map(),
  longestWait: 0
})

/** Writes down how a fiber ended; a defect fails the run. */
const settled = (exit: Exit.Exit<void, DbError>, tally: Tally): void => {
  if (Exit.isSuccess(exit)) {
    tally.succeeded++
    return
  }
  expect([...Cause.defects(exit.cause)]).toEqual([])
  if (Cause.isInterruptedOnly(exit.cause)) tally.interrupted++
  else for (const { _tag } of Cause.failures(exit.cause)) tally.failed.set(_tag, (tally.failed.get(_tag) ?? 0) + 1)
}

/** Interrupts a fiber at some moment; no time may pass until it has ended. */
const interruptSometime = (
  pool: ConnectionPool.Pool,
  fiber: Fiber.RuntimeFiber<void, DbError>,
  from: number,
  tally: Tally
): Effect.Effect<void> =>
  Effect.gen(function*() {
    yield* Effect.sleep(from + (yield* Random.nextIntBetween(0, 80)))
    const { busy, opening } = yield* pool.snapshot
    const alive = (yield* Fiber.poll(fiber))._tag === "None"
    if (alive && busy + opening > 0) tally.struck++
    const before = yield* Clock.currentTimeMillis
    yield* Fiber.interrupt(fiber)
    expect((yield* Clock.currentTimeMillis) - before).toBe(0)
  })

const crowdOn = (pool: ConnectionPool.Pool, interrupted: boolean, tally: Tally): Effect.Effect<void> =>
  Effect.gen(function*() {
    const own = FiberConnection.make(pool)
    const choices = works(own, tally)
    const life = (wave: number) =>
      Effect.gen(function*() {
        yield* Effect.sleep(wave + (yield* Random.nextIntBetween(0, 30)))
        const rounds = yield* Random.nextIntBetween(1, 5)
        for (let round = 0; round < rounds; round++) {
          yield* choices[yield* Random.nextIntBetween(0, choices.length)] ?? Effect.void
        }
        // the end of a fiber, too, has to clean up
        yield* own.run(FakeDriver.statement("DIRTY"))
      })
    // in waves, so that connections rest in between and have to be validated
    const waveOf = (n: number): number => Math.floor(n / 100) * 180
    const fibers = yield* Effect.forEach(
      Array.from({ length: crowd }, (_, n) => waveOf(n)),
      (wave) => Effect.fork(life(wave))
    )
    const interrupters: Array<Fiber.RuntimeFiber<void>> = []
    for (const [n, fiber] of interrupted ? fibers.entries() : []) {
      if (yield* Random.nextBoolean) continue
      interrupters.push(yield* Effect.fork(interruptSometime(pool, fiber, waveOf(n), tally)))
    }
    for (const fiber of fibers) settled(yield* Fiber.await(fiber), tally)
    for (const interrupter of interrupters) yield* Fiber.join(interrupter)
  })

const runCell = (cell: Cell): Effect.Effect<Tally> =>
  Effect.gen(function*() {
    const tally = emptyTally()
    let state = cell.seed
    const throwDice = (): number => {
      state = (state * 48_271) % 2_147_483_647
      return state / 2_147_483_647
    }
    const fake: FakeDriver.FakeDriver = yield* FakeDriver.make(scriptOf(cell, () => fake, throwDice, tally))
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(ConnectionPool.make(fake, config(shortTimes)), scope)
    yield* crowdOn(pool, cell.interrupted, tally)
    expect(fake.mostConnecting).toBeLessThanOrEqual(poolSize)
    // what is being opened, reset or closed has had its time
    yield* Effect.sleep(1_000)
    const { busy, closed, created, held, idle, opening, waiting } = yield* pool.snapshot
    expect({ held, waiting, busy, opening }).toEqual({ held: 0, waiting: 0, busy: 0, opening: 0 })
    expect({ idle, open: fake.open.length }).toEqual({ idle: created - closed, open: created - closed })
    yield* Scope.close(scope, Exit.void)
    yield* Effect.sleep(1_000)
    fake.expectAllClosed()
    const end = yield* pool.snapshot
    expect(end).toMatchObject({ phase: "Closed", held: 0, waiting: 0, idle: 0, busy: 0, opening: 0 })
    expect(end.closed).toBe(end.created)
    return tally
  }).pipe(Logger.withMinimumLogLevel(LogLevel.None))

const lines: Array<string> = []
const note = ({ fate, interrupted, phase, seed, share }: Cell, tally: Tally): void => {
  const failed = [...tally.failed].map(([tag, count]) => `${count} ${tag}`).join(", ")
  const each = share === 1 ? "always" : "one in three"
  lines.push(
    `${phase} ${fate}, ${each}${interrupted ? ", interrupted" : ""} (seed ${seed}): ${tally.fated} of `
      + `${tally.entered[phase]}; ${tally.succeeded} fibers done, ${tally.interrupted} interrupted (${tally.struck} `
      + `while a connection was worked on), ${failed === "" ? "none failed" : failed}`
  )
}

/** What may be said to a fiber of a pool that cannot connect. */
const connectFailures = ["PoolUnreachable", "PoolExhausted"]

const judge = ({ fate, interrupted, phase, share }: Cell, tally: Tally): void => {
  const { failed, fated, longestWait, struck, succeeded } = tally
  const total = [...failed.values()].reduce((sum, count) => sum + count, 0)
  expect(succeeded + tally.interrupted + total).toBe(crowd)
  expect(fated).toBeGreaterThan(share === 1 ? 5 : 1)
  expect(longestWait).toBeLessThanOrEqual(acquireTimeout)
  if (interrupted) expect(Math.min(struck, tally.interrupted)).toBeGreaterThan(10)
  else expect(tally.interrupted).toBe(0)
  if (phase === "connect" && (fate === "fails" || fate === "never answers")) {
    for (const tag of failed.keys()) expect(connectFailures).toContain(tag)
    if (share === 1) expect(fated).toBe(tally.entered.connect)
  } else expect([...failed]).toEqual([])
}

describe("500 fibers on 10 connections settle and leave nothing, when", () => {
  afterAll(() => {
    process.stdout.write(`${lines.join("\n")}\n`)
  })

  let seed = 0
  for (const phase of Object.keys(phases) as ReadonlyArray<Phase>) {
    for (const fate of fates) {
      for (const interrupted of [false, true]) {
        const first = seed += 10
        it(`a ${phase} ${fate}${interrupted ? " and fibers are interrupted" : ""}`, { timeout: 30_000 }, () => {
          for (const share of [1, 1 / 3]) {
            const cell: Cell = { phase, fate, interrupted, share, seed: first + (share === 1 ? 1 : 2) }
            const tally = simulate({ seed: cell.seed, maxOpsBeforeYield: 100 + (cell.seed % 400) }, runCell(cell))
            note(cell, tally)
            judge(cell, tally)
          }
        })
      }
    }
  }
})
