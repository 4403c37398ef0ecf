/**
 * A pool on the fake driver, with every option at its default unless a test says otherwise. Whatever the test did, the
 * fixture ends by closing the pool and proving that what was opened is closed, once.
 */
import { Effect, Exit, Fiber, Random, Scope, TestClock } from "effect"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import type { DbError } from "../../src/DbError.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import type { PoolConfig } from "../../src/PoolConfig.js"
import * as FakeDriver from "./fakeDriver.js"

export const config = (options: Partial<PoolConfig> = {}): PoolConfig => ({
  name: "test",
  poolSize: 4,
  minimumIdle: 0,
  acquireTimeout: 10_000,
  connectTimeout: 5_000,
  validationTimeout: 2_000,
  validateAfter: 500,
  cancelTimeout: 2_000,
  idleTimeout: 600_000,
  maxLifetime: 1_800_000,
  keepalive: 120_000,
  statementTimeout: Infinity,
  leakDetectionThreshold: Infinity,
  drainTimeout: 5_000,
  maxWaiters: Infinity,
  affinity: "soft",
  recovery: undefined,
  connectSchedule: undefined,
  ...options
})

export interface Fixture {
  readonly fake: FakeDriver.FakeDriver
  readonly pool: ConnectionPool.Pool
  readonly fibers: FiberConnection.FiberConnection
  /** Runs a statement on the fiber's own connection and gives the first column of its first row. */
  readonly run: (sql: string) => Effect.Effect<unknown, DbError>
  /** Closes the pool's scope now. */
  readonly close: Effect.Effect<void>
}

/** Lets everything that can go on without time passing go on. */
export const settle: Effect.Effect<void> = TestClock.adjust(0)

/** Waits for a fiber while time passes. */
export const joinAfter = <A, E>(fiber: Fiber.Fiber<A, E>, millis: number): Effect.Effect<A, E> =>
  Effect.zipRight(TestClock.adjust(millis), Fiber.join(fiber))

export const withPool = <A, E, R>(
  options: Partial<PoolConfig> & {
    readonly script?: Partial<FakeDriver.Scripts>
    /** What the pool throws its dice with. */
    readonly random?: Random.Random
  },
  use: (fixture: Fixture) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const { random, script, ...rest } = options
    const fake = yield* FakeDriver.make(script)
    const scope = yield* Scope.make()
    const pool = yield* ConnectionPool.make(fake, config(rest)).pipe(
      Scope.extend(scope),
      Effect.withRandom(random ?? Random.make("effect-sql-pool"))
    )
    const fibers = FiberConnection.make(pool)
    const run = (sql: string) => Effect.map(fibers.run(FakeDriver.statement(sql)), (result) => result.rows[0]?.[0])
    const exit = yield* Effect.exit(use({ fake, pool, fibers, run, close: Scope.close(scope, Exit.void) }))
    const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
    yield* joinAfter(closing, 60_000)
    yield* settle
    if (Exit.isSuccess(exit)) fake.expectAllClosed()
    return yield* exit
  })
