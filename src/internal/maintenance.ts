/**
 * What a pool does by itself, each as one effect that ends by telling the state machine: opening, preparing and
 * closing connections, waiting out failed connects, stopping interrupted statements, and housekeeping.
 *
 * All of it runs in fibers of the pool: a borrower that goes away takes nothing with it that others can use.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import { type ConnectFailure, ConnectionError, type DbError, lossText } from "../DbError.js"
import type { Connection, Driver } from "../Driver.js"
import type { PoolConfig } from "../PoolConfig.js"
import type { PoolCounters } from "../PoolStats.js"
import type { Lease } from "./lease.js"
import type { Member, Slot, Work } from "./poolModel.js"

/** @internal */
export interface Maintained {
  readonly config: PoolConfig
  readonly driver: Driver
  readonly counters: PoolCounters
  readonly now: () => number
  readonly opened: (slot: Slot<Connection, Lease>, connection: Connection, expiresAt: number) => void
  readonly openFailed: (slot: Slot<Connection, Lease>, failure: ConnectFailure) => void
  readonly prepared: (slot: Slot<Connection, Lease>) => void
  /** `lost` says how it broke; nothing when it answered that it would not, and is of no use for that reason alone. */
  readonly broken: (slot: Slot<Connection, Lease>, work: Work, lost: string | undefined) => void
  /** The request to stop a statement was not answered: the server may have frozen. */
  readonly unanswered: () => void
  readonly closed: (slot: Slot<Connection, Lease>) => void
  readonly housekeeping: () => void
  /** Tells of connections that are held for too long and of which it was not told yet. */
  readonly leaks: () => void
}

/**
 * Opens a connection for the slot. `adopt` gets what the connect gave at the very moment it is there, so that neither
 * the timeout nor an interruption can lose an open connection.
 */
export const connect = (
  pool: Maintained,
  adopt: (exit: Exit.Exit<Connection, ConnectFailure>) => void
): Effect.Effect<void> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.fork(Effect.interruptible(pool.driver.connect)), (attempt) => {
      attempt.addObserver(adopt)
      // the attempt is a child of this fiber: it is interrupted when this fiber ends, at the timeout or at shutdown
      return restore(Effect.raceFirst(Effect.asVoid(attempt.await), Effect.sleep(pool.config.connectTimeout)))
    })
  )

/** Takes the result of a connect into the pool. */
export const adopt = (
  pool: Maintained,
  slot: Slot<Connection, Lease>,
  lifetimeShare: number
) =>
(exit: Exit.Exit<Connection, ConnectFailure>): void => {
  if (Exit.isSuccess(exit)) {
    // up to a tenth less, so that connections opened together are not replaced together
    return pool.opened(slot, exit.value, pool.now() + pool.config.maxLifetime * (1 - lifetimeShare / 10))
  }
  pool.openFailed(slot, failureOf(pool, exit))
}

const failureOf = (pool: Maintained, exit: Exit.Failure<Connection, ConnectFailure>): ConnectFailure => {
  const cause = exit.cause
  if (cause._tag === "Fail") return cause.error
  const interrupted = Cause.isInterruptedOnly(cause)
  return new ConnectionError({
    target: pool.driver.target,
    reason: interrupted
      ? `no answer within ${pool.config.connectTimeout} ms`
      : `defect in the driver: ${firstLine(cause)}`,
    isRetryable: interrupted
  })
}

/** Opens a connection for the slot and reports how it went. */
export const open = (pool: Maintained, slot: Slot<Connection, Lease>): Effect.Effect<void> =>
  Effect.flatMap(Random.next, (share) => connect(pool, adopt(pool, slot, share)))

/** Makes a connection fit to be lent again, or reports that it is not. */
export const prepare = (
  pool: Maintained,
  slot: Slot<Connection, Lease>,
  member: Member<Connection>,
  work: Work
): Effect.Effect<void> => {
  const [effect, timeout] = work === "reset"
    ? [member.connection.reset, pool.config.cancelTimeout]
    : [member.connection.ping, pool.config.validationTimeout]
  if (work === "reset") pool.counters.resets++
  else pool.counters.validations++
  return Effect.map(Effect.exit(within(effect, timeout)), (exit) => {
    if (Exit.isSuccess(exit) && exit.value && member.connection.isOpen()) return pool.prepared(slot)
    const refused = work === "reset" && Exit.isFailure(exit) && member.connection.isOpen()
    pool.broken(slot, work, refused ? undefined : whyBroken(exit, work, timeout))
  })
}

const whyBroken = (exit: Exit.Exit<boolean, DbError>, work: Work, timeout: number): string => {
  const what = work === "reset" ? "reset" : "validation"
  if (Exit.isSuccess(exit)) {
    return exit.value
      ? `closed after its ${what}`
      : `no answer to a ${what} within ${timeout} ms`
  }
  return exit.cause._tag === "Fail" ? lossText(exit.cause.error) : `defect in the driver: ${firstLine(exit.cause)}`
}

const firstLine = (cause: Cause.Cause<unknown>): string | undefined => Cause.pretty(cause).split("\n", 1)[0]

/** Whether the effect succeeded within the time; its failures are the caller's to judge. */
const within = (effect: Effect.Effect<void, DbError>, millis: number): Effect.Effect<boolean, DbError> =>
  Effect.timeoutTo(effect, { duration: millis, onSuccess: () => true, onTimeout: () => false })

/** Closes a connection in peace if it lets itself, else at once. */
export const close = (
  pool: Maintained,
  slot: Slot<Connection, Lease>,
  member: Member<Connection>
): Effect.Effect<void> =>
  Effect.ensuring(
    Effect.timeoutOption(member.connection.close, pool.config.cancelTimeout),
    Effect.sync(() => {
      member.connection.destroy()
      pool.closed(slot)
    })
  )

/** Stops what runs on the connection and tells whether that is certain. */
export const stop = (
  pool: Maintained,
  connection: Connection,
  done: (stopped: boolean) => void
): Effect.Effect<void> =>
  Effect.map(
    Effect.exit(within(connection.cancel, pool.config.cancelTimeout)),
    (exit) => {
      if (Exit.isSuccess(exit) && !exit.value) pool.unanswered()
      done(Exit.isSuccess(exit) && exit.value)
    }
  )

/** Looks after idle connections for ever. */
export const housekeeping = (pool: Maintained): Effect.Effect<void> => {
  const { idleTimeout, keepalive, maxLifetime } = pool.config
  const shortest = Math.min(idleTimeout, keepalive, maxLifetime)
  if (!Number.isFinite(shortest)) return Effect.void
  // often enough that nothing outlives its time by more than a quarter, seldom enough to cost nothing
  const interval = Duration.millis(Math.min(Math.max(shortest / 4, 10), 30_000))
  return Effect.forever(Effect.zipRight(Effect.sleep(interval), Effect.sync(pool.housekeeping)))
}

/** Looks for ever for connections that are held for too long. */
export const leakDetection = (pool: Maintained): Effect.Effect<void> => {
  const { leakDetectionThreshold } = pool.config
  if (!Number.isFinite(leakDetectionThreshold)) return Effect.void
  const interval = Math.min(Math.max(leakDetectionThreshold / 4, 10), 10_000)
  return Effect.forever(Effect.zipRight(Effect.sleep(interval), Effect.sync(pool.leaks)))
}
