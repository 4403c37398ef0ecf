/**
 * What is stale, what may be retried, and when: the policies of recovery, as values.
 *
 * A statement is run again only when the server surely did not run it, or when running it twice does no harm (a plain
 * read, or one declared {@link idempotent}) and nothing of its connection's session is lost with the connection.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { ConnectFailure, DbError } from "./DbError.js"
import type { Statement } from "./Driver.js"

/**
 * Whether the connection that gave this error is of no use any more and another one has to be taken.
 *
 * @since 0.1.0
 * @category predicates
 */
export const isStale = (error: DbError): boolean => error._tag === "ConnectionLost" || error._tag === "ReadOnlyError"

/**
 * Whether a statement that failed with this error, outside a transaction and without session state, may be run again:
 * the server surely did not run it, or it may be run twice. A read-only server surely did not, and another may do it.
 *
 * @since 0.1.0
 * @category predicates
 */
export const mayRetry = (error: DbError, statement: Statement, declaredIdempotent: boolean): boolean => {
  switch (error._tag) {
    case "ConnectionLost":
      return error.outcome !== "unknown" || declaredIdempotent || statement.traits.plainRead
    case "ReadOnlyError":
      // of several statements, those before the refused one have been executed
      return statement.traits.statements === 1 && statement.traits.verb !== "CALL"
    default:
      return false
  }
}

/**
 * Whether a transaction that failed with this error may fare better when the whole of it is run again, and surely changed
 * nothing, unless a statement inside has committed by itself: a deadlock, a lock wait, a serialization failure, a read-only
 * server, a connection lost before COMMIT was sent.
 *
 * @since 0.1.0
 * @category predicates
 */
export const mayRetryTransaction = (error: DbError): boolean => {
  switch (error._tag) {
    case "DeadlockError":
    case "LockTimeoutError":
    case "SerializationError":
    case "ReadOnlyError":
      return true
    case "ConnectionLost":
      return error.outcome !== "unknown"
    case "TransactionAborted":
      return mayRetryTransaction(error.cause)
    default:
      return false
  }
}

/**
 * Full jitter: each delay is uniform between nothing and the smaller of `cap` and `base · 2ⁿ`, so that many clients
 * that failed together do not come back together. It never ends: intersect it with `Schedule.recurs`.
 *
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 *
 * @since 0.1.0
 * @category schedules
 */
export const fullJitter = (options: {
  readonly base: Duration.DurationInput
  readonly cap: Duration.DurationInput
}): Schedule.Schedule<Duration.Duration> => {
  const cap = Duration.decode(options.cap)
  return Schedule.modifyDelayEffect(
    Schedule.exponential(options.base),
    (_, delay) => Effect.map(Random.next, (share) => Duration.times(Duration.min(delay, cap), share))
  )
}

/**
 * When a statement that may be retried is: up to five times, full jitter from 20 milliseconds to at most 1 second.
 *
 * @since 0.1.0
 * @category schedules
 */
export const schedule: Schedule.Schedule<unknown, DbError> = Schedule.intersect(
  fullJitter({ base: "20 millis", cap: "1 second" }),
  Schedule.recurs(5)
)

/**
 * When a failed connect is tried again: as long as somebody waits, full jitter from 50 milliseconds to at most 1 second.
 *
 * @since 0.1.0
 * @category schedules
 */
export const connectSchedule: Schedule.Schedule<unknown, ConnectFailure> = fullJitter({
  base: "50 millis",
  cap: "1 second"
})

/** @internal Whether the statements of the effect that is running were declared idempotent. */
export class Idempotent extends Context.Reference<Idempotent>()("effect-sql-pool/Recovery/Idempotent", {
  defaultValue: () => false
}) {}

/**
 * Declares that every statement of the effect, and of what it forks, may be run twice: a statement whose connection
 * was lost in flight is then retried instead of failing with `outcome: "unknown"`. It says nothing of transactions.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Db, Recovery } from "effect-sql-pool"
 *
 * const seen = (id: number) =>
 *   Effect.flatMap(Db.Db, (db) => db.execute("UPDATE users SET seen = 1 WHERE id = ?", [id])).pipe(Recovery.idempotent)
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const idempotent = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Idempotent, true)
