/**
 * What a pool does, as numbers: a consistent snapshot, who holds what, and the service that tells them.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { ConnectFailure, PoolCounts } from "./DbError.js"
import type { SessionState } from "./Driver.js"

/**
 * Why a pool closed a connection:
 *
 * - `idle`: unused for longer than `idleTimeout`;
 * - `lifetime`: as old as `maxLifetime` lets it become;
 * - `lost`: it broke;
 * - `invalid`: it did not pass a validation;
 * - `epoch`: it was open when a server turned out to be read-only, and may lead to that server;
 * - `reset failed`: what a borrower left on it could not be undone in time;
 * - `cancel failed`: what was interrupted on it could not be stopped in time;
 * - `invalidated`: somebody asked for it, as `db.reconnect` does, or did not trust it any more;
 * - `shrunk`: the pool has become smaller;
 * - `drained`: the pool is ending;
 * - `cut`: in use when the pool's drain timeout was over.
 *
 * @since 0.1.0
 * @category models
 */
export type CloseReason =
  | "idle"
  | "lifetime"
  | "lost"
  | "invalid"
  | "epoch"
  | "reset failed"
  | "cancel failed"
  | "invalidated"
  | "shrunk"
  | "drained"
  | "cut"

/**
 * How long something took, each time that it was done since the pool was made; whole milliseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface Histogram {
  /** How many times there were. */
  readonly count: number
  /** Their sum, in milliseconds. */
  readonly sumMillis: number
  /** The longest, in milliseconds; 0 when there was none. */
  readonly maxMillis: number
  /**
   * How many were at most so many milliseconds, and more than those of the bucket before. The bounds are always the same,
   * the last one is `Infinity`, and the counts add up to `count`.
   */
  readonly buckets: ReadonlyArray<readonly [upToMillis: number, count: number]>
}

/**
 * What a pool has counted since it was made. All are numbers of events; none ever becomes smaller.
 *
 * A borrow ends as exactly one of `acquiredAtOnce`, `acquiredAfterWait`, `timedOut`, `abandoned`, `refused`, `unreachable`
 * and `turnedAway`, or is `waiting` still.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolCounters {
  /** Connections opened. */
  created: number
  /** Connects that failed; those that the pool's end cut short are none. */
  connectFailures: number
  /** Connections closed, for whatever reason. */
  closed: number
  /** Borrows served at once by an idle connection. */
  acquiredAtOnce: number
  /** Borrows served otherwise: after a connect, a validation, or by a connection that another borrower gave up. */
  acquiredAfterWait: number
  /** Waiters whose time ran out. */
  timedOut: number
  /** Waiters that were interrupted. */
  abandoned: number
  /** Borrows turned away because of `maxWaiters`. */
  refused: number
  /** Waiters told that no connection can be opened. */
  unreachable: number
  /** Borrows turned away because the pool is draining or closed, and waiters because it closed. */
  turnedAway: number
  /** Statements that found their fiber's own connection from the statement before. */
  affinityHits: number
  /** Connections taken back from fibers that did not use them and had nothing on them. */
  takenBack: number
  /** Connections checked before they were lent, or to keep them alive. */
  validations: number
  /** Sessions reset because a borrower left something behind. */
  resets: number
  /** Connections that came back carrying nothing, so that no reset was sent. */
  resetsSpared: number
  /** Kills: requests to stop a statement on the server, because it was interrupted or ran for too long. */
  cancelled: number
  /** Connections that broke. */
  lost: number
  /** Statements run again that the server surely had not executed. */
  retriedUnexecuted: number
  /** Statements run again that the server may have executed, since twice does no harm: plain reads, those declared idempotent, BEGIN. */
  retriedReads: number
  /** Transactions run again as a whole. */
  retriedTransactions: number
  /** Statements of which the program was told that they may have been executed or not: `ConnectionLost` with `outcome: "unknown"`. */
  unknownOutcomes: number
  /** Connections that were held for longer than `leakDetectionThreshold`. */
  leaksSuspected: number
}

/**
 * A connect that failed.
 *
 * @since 0.1.0
 * @category models
 */
export interface FailedConnect {
  /** When, in milliseconds since 1970 by Effect's `Clock`. */
  readonly at: number
  /** Why. */
  readonly error: ConnectFailure
}

/**
 * A pool at one instant. Its parts add up: `held` is `heldClean + heldWithState + heldExplicitly`; `closed` is the sum of
 * `closedBy`; the connections open now, `idle + held + busy`, are `created - closed`; `waitTimes` counts what was
 * acquired, `connectTimes` what was created, and `useTimes` what was acquired and is not `held` any more.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolSnapshot extends PoolCounts, Readonly<PoolCounters> {
  /** The pool's name. */
  readonly pool: string
  /** Whether it lends, lets running work end, or has ended. */
  readonly phase: "Open" | "Draining" | "Closed"
  /** When it was taken, in milliseconds since 1970 by Effect's `Clock`. */
  readonly takenAt: number
  /** How many idle connections the pool keeps open in advance: `minimumIdle`. */
  readonly min: number
  /** Connections held by fibers and sessions that have nothing on them. */
  readonly heldClean: number
  /** Connections held by fibers and sessions that carry state: an open transaction, a variable, a lock. */
  readonly heldWithState: number
  /** Connections held by name, through `db.connection`, and by streams. */
  readonly heldExplicitly: number
  /** Held connections on which a statement is under way, a cursor is open, or something interrupted is being stopped. */
  readonly running: number
  /** Held connections whose fiber does not use them now and which carry no state: the pool may take them back. */
  readonly lendable: number
  /** For how long the longest waiter has been waiting, in milliseconds; 0 when nobody waits. */
  readonly oldestWaitMillis: number
  /** Connections closed, by reason. */
  readonly closedBy: Readonly<Record<CloseReason, number>>
  /** The last connect that failed; it stays when later ones work. */
  readonly lastConnectFailure: Option.Option<FailedConnect>
  /** From the wish for a connection until it was granted; 0 for those served at once, and none for those never served. */
  readonly waitTimes: Histogram
  /** From the grant of a connection until its borrower gave it back or lost it. */
  readonly useTimes: Histogram
  /** Of the connects that worked. */
  readonly connectTimes: Histogram
}

/**
 * Who holds a connection now.
 *
 * @since 0.1.0
 * @category models
 */
export interface Holder {
  /** What the server calls the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** The fiber that borrowed it, such as `#12`. */
  readonly fiber: string
  /** For what: the fiber's own statements, a `db.session` or `db.transaction`, `db.connection`, or a stream. */
  readonly kind: "fiber" | "session" | "connection" | "stream"
  /** What its session holds. */
  readonly session: SessionState
  /** Whether a statement is under way on it, a cursor is open, or something interrupted is being stopped. */
  readonly running: boolean
  /** When it was granted, in milliseconds since 1970. */
  readonly sinceMillis: number
  /** How long ago that is, in milliseconds. */
  readonly heldMillis: number
  /** By what and where it was acquired, a line for each frame of the stack; only with `leakDetectionThreshold`. */
  readonly origin: Option.Option<string>
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
  /**
   * The pool as it is now, then whenever something has changed, but at most once in each `interval` (default 1 second), and
   * in each while somebody waits. Ends when the pool is closed, after a last snapshot. Costs the pool nothing while nobody
   * listens; a slow reader gets fewer. Never fails.
   */
  readonly changes: (interval?: Duration.DurationInput) => Stream.Stream<PoolSnapshot>
  /** Who holds a connection now, the longest first. Never fails, waits for nothing. */
  readonly holders: Effect.Effect<ReadonlyArray<Holder>>
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
  unreachable: 0,
  turnedAway: 0,
  affinityHits: 0,
  takenBack: 0,
  validations: 0,
  resets: 0,
  resetsSpared: 0,
  cancelled: 0,
  lost: 0,
  retriedUnexecuted: 0,
  retriedReads: 0,
  retriedTransactions: 0,
  unknownOutcomes: 0,
  leaksSuspected: 0
})

/** @internal */
export const makeClosedBy = (): Record<CloseReason, number> => ({
  idle: 0,
  lifetime: 0,
  lost: 0,
  invalid: 0,
  epoch: 0,
  "reset failed": 0,
  "cancel failed": 0,
  invalidated: 0,
  shrunk: 0,
  drained: 0,
  cut: 0
})
