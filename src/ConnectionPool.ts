/**
 * The pool's service: what a program can ask of a pool besides statements, and the making of one.
 *
 * `internal/poolState` decides, `internal/poolImpl` acts.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import type * as Exit from "effect/Exit"
import type * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { ConnectFailure, DbError, InvalidConfig } from "./DbError.js"
import type { Driver } from "./Driver.js"
import { Announcer, loggedTags } from "./internal/announcer.js"
import type { Lease } from "./internal/lease.js"
import type { LeaseKind, Origin } from "./internal/leaseModel.js"
import type { Retried } from "./internal/ledger.js"
import * as maintenance from "./internal/maintenance.js"
import { PoolImpl } from "./internal/poolImpl.js"
import type { Attributes } from "./internal/spans.js"
import type { PoolConfig } from "./PoolConfig.js"
import type { PoolEvent } from "./PoolEvents.js"
import type { Holder, PoolCounters, PoolSnapshot } from "./PoolStats.js"
import * as Recovery from "./Recovery.js"

/**
 * What a pool's end had to cut.
 *
 * @since 0.1.0
 * @category models
 */
export interface DrainReport {
  /** Connections that were still in use when the drain timeout was over, with what was done on them. */
  readonly cut: ReadonlyArray<string>
}

/**
 * A pool of connections to one database: what can be asked of it besides statements, which run on the `Db` of the pool.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pool {
  /** The options that it was made with, defaults filled in. What {@link Pool.resize} changes is not in it. */
  readonly config: PoolConfig
  /** The database that it connects to. */
  readonly driver: Driver
  /** The pool as it is now, its parts adding up. Never fails, waits for nothing. */
  readonly snapshot: Effect.Effect<PoolSnapshot>
  /** The pool as it changes, see `PoolStats.PoolStatsService.changes`. */
  readonly changes: (interval?: Duration.DurationInput) => Stream.Stream<PoolSnapshot>
  /** Who holds a connection now, the longest first. */
  readonly holders: Effect.Effect<ReadonlyArray<Holder>>
  /** What happens from when the stream runs on, see `PoolEvents.PoolEventsService`. */
  readonly events: Stream.Stream<PoolEvent>
  /**
   * Changes the maximum number of connections. Fewer: idle ones close now, held ones when they come back.
   * Fails with `InvalidConfig` unless the size is a whole number from 1 to what the database allows.
   */
  readonly resize: (poolSize: number) => Effect.Effect<void, InvalidConfig>
  /**
   * Makes every open connection suspect: each is checked before it is used again. For what only the program knows, such as
   * a failover that it has been told of. Never fails, waits for nothing.
   */
  readonly invalidateAll: Effect.Effect<void>
  /**
   * Lends no more, lets running work end within the drain timeout and closes what comes back. Interruption stops the
   * waiting, not the draining. Never fails.
   */
  readonly drain: Effect.Effect<void>
  /**
   * {@link drain}, then cuts what is still in use; statements are stopped on the server, which takes up to
   * `cancelTimeout`. Every later borrow fails with `PoolClosed`.
   */
  readonly closeAll: Effect.Effect<DrainReport>
  /** @internal Borrows: the lease is granted at once or waits, see `Lease.granted`. Synchronous. */
  readonly unsafeBorrow: (
    kind: LeaseKind,
    holder: FiberId.FiberId,
    options?: { readonly acquireTimeout?: number | undefined; readonly origin?: Origin | undefined }
  ) => Lease
  /** @internal A lease without a connection, to be the heir of another. */
  readonly unsafeLease: (kind: LeaseKind, holder: FiberId.FiberId, origin?: Origin) => Lease
  /** @internal Whether the connection was unused for so long, or was open during a loss, that it must be checked. */
  readonly unsafeSuspect: (lease: Lease) => boolean
  /** @internal Waits as long as a cancel may take, then gives up. */
  readonly unsafePatiently: (effect: Effect.Effect<void>, giveUp: () => void) => Effect.Effect<void>
  /** @internal What spans and metrics say of the database. */
  readonly attributes: Attributes
  /**
   * @internal Is told of every statement for how many seconds it ran and how it ended, if anybody wants to know, see
   * `internal/watched`. Must not throw.
   */
  listener: ((seconds: number, exit: Exit.Exit<unknown, unknown>) => void) | undefined
  /** @internal What was run again is counted. */
  readonly unsafeRetried: (what: Retried) => void
  /** @internal The program is told of the failure. */
  readonly unsafeTold: (error: DbError) => void
  /** @internal To count in. */
  readonly unsafeCounters: PoolCounters
}

/**
 * The program's default pool.
 *
 * @since 0.1.0
 * @category services
 */
export class ConnectionPool extends Context.Tag("effect-sql-pool/ConnectionPool")<ConnectionPool, Pool>() {}

/**
 * Identifies the pool of the database called `Name`.
 *
 * @since 0.1.0
 * @category services
 */
export interface Named<Name extends string> {
  readonly _: "effect-sql-pool/ConnectionPool"
  readonly name: Name
}

/**
 * The tag of a named database's pool.
 *
 * @since 0.1.0
 * @category services
 */
export const tag = <Name extends string>(name: Name): Context.Tag<Named<Name>, Pool> =>
  Context.GenericTag<Named<Name>, Pool>(`effect-sql-pool/ConnectionPool/${name}`)

/**
 * Makes a pool on a driver, for as long as the scope. It opens nothing before somebody asks, except what `minimumIdle`
 * says, and never fails: a server that cannot be reached is the error of whoever borrows. The scope's end is
 * {@link Pool.closeAll}.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (driver: Driver, config: PoolConfig): Effect.Effect<Pool, never, Scope.Scope> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<never>()
    const fork = Runtime.runFork(runtime)
    const clock = yield* Effect.clock
    const empty = yield* Deferred.make<void>()
    const schedule: Schedule.Schedule<unknown, ConnectFailure> = config.connectSchedule ?? Recovery.connectSchedule
    const announcer = new Announcer(yield* loggedTags, (effect) => void fork(effect, { immediate: false }))
    // what happens at the very end is logged, too
    yield* Effect.addFinalizer(() => announcer.flush)
    // the fibers of the pool end after everything else of it
    const fibers = yield* Effect.acquireRelease(
      Scope.make(ExecutionStrategy.parallel),
      (scope, exit) => Scope.close(scope, exit)
    )
    const pool = new PoolImpl(
      driver,
      config,
      clock,
      // never at once: what the pool starts must not call back into the event that started it. And interruptible,
      // even when the layer is built where nothing is.
      (effect) => fork(Effect.interruptible(effect), { scope: fibers, immediate: false }),
      empty,
      yield* Schedule.driver(schedule),
      announcer
    )
    yield* Effect.addFinalizer(() => Effect.asVoid(pool.closeAll))
    pool.housekeeping()
    pool.fork(maintenance.housekeeping(pool))
    pool.fork(maintenance.leakDetection(pool))
    return pool
  })
