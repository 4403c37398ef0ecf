/**
 * What a pool does, as numbers: a consistent snapshot, and the service that takes it.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { PoolCounts } from "./DbError.js"

/**
 * What a pool has counted since it was made. All are numbers of events.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolCounters {
  /** Connections opened. */
  created: number
  /** Connects that failed. */
  connectFailures: number
  /** Connections closed, for whatever reason. */
  closed: number
  /** Borrows served at once. */
  acquiredAtOnce: number
  /** Borrows served after a wait. */
  acquiredAfterWait: number
  /** Waiters whose time ran out. */
  timedOut: number
  /** Waiters that were interrupted. */
  abandoned: number
  /** Waiters turned away because of `maxWaiters`. */
  refused: number
  /** Clean idle connections that a fiber lost to a waiter. */
  takenBack: number
  /** Connections checked before they were lent, or to keep them alive. */
  validations: number
  /** Sessions reset because a borrower left something behind. */
  resets: number
  /** Statements stopped on the server, because they were interrupted or ran for too long. */
  cancelled: number
  /** Connections that broke. */
  lost: number
  /** Statements run again after their connection was lost, and transactions run again as a whole. */
  retried: number
  /** Connections that were held for longer than `leakDetectionThreshold`. */
  leaksSuspected: number
}

/**
 * A pool at one instant; its parts add up.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolSnapshot extends PoolCounts, Readonly<PoolCounters> {
  /** The pool's name. */
  readonly pool: string
  /** Whether it lends, lets running work end, or has ended. */
  readonly phase: "Open" | "Draining" | "Closed"
  /** Held connections whose fiber does not use them now and which carry no state: the pool may take them back. */
  readonly lendable: number
  /** For how long the longest waiter has been waiting, in milliseconds; 0 when nobody waits. */
  readonly oldestWaitMillis: number
}

/**
 * The statistics of a pool.
 *
 * @since 0.1.0
 * @category services
 */
export interface PoolStatsService {
  /** The pool as it is now. Never fails, waits for nothing. */
  readonly snapshot: Effect.Effect<PoolSnapshot>
}

/**
 * The statistics of the program's default pool.
 *
 * @since 0.1.0
 * @category services
 */
export class PoolStats extends Context.Tag("effect-sql-pool/PoolStats")<PoolStats, PoolStatsService>() {}

/**
 * Identifies the statistics of the database called `Name`.
 *
 * @since 0.1.0
 * @category services
 */
export interface Named<Name extends string> {
  readonly _: "effect-sql-pool/PoolStats"
  readonly name: Name
}

/**
 * The tag of a named database's statistics.
 *
 * @since 0.1.0
 * @category services
 */
export const tag = <Name extends string>(name: Name): Context.Tag<Named<Name>, PoolStatsService> =>
  Context.GenericTag<Named<Name>, PoolStatsService>(`effect-sql-pool/PoolStats/${name}`)

/** @internal */
export const makeCounters = (): PoolCounters => ({
  created: 0,
  connectFailures: 0,
  closed: 0,
  acquiredAtOnce: 0,
  acquiredAfterWait: 0,
  timedOut: 0,
  abandoned: 0,
  refused: 0,
  takenBack: 0,
  validations: 0,
  resets: 0,
  cancelled: 0,
  lost: 0,
  retried: 0,
  leaksSuspected: 0
})
