/**
 * One attempt at a statement, before and after: whether what it reads is still there, and whether it may be made again.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Pool } from "../ConnectionPool.js"
import { AffinityLost, type DbError } from "../DbError.js"
import type { Driver, Statement } from "../Driver.js"
import * as Recovery from "../Recovery.js"
import type { Lease } from "./lease.js"
import type { Turn } from "./leaseModel.js"
import { analyze } from "./sessionState.js"
import { runOn } from "./submission.js"

/** @internal A failure after which the statement may be run again, on another connection. */
export class Again {
  readonly _tag = "Again"
  constructor(readonly error: DbError) {}
}

/**
 * @internal Fails unless what the statement reads was left by this lease: the first statement of a lease would read what
 * the borrower before it left, and so would one for the id of an INSERT that generated none.
 */
export const checkPrevious = (
  { dialect, generatedId }: Driver,
  lease: Lease,
  statement: Statement,
  turn?: Turn
): Effect.Effect<void, DbError> =>
  Effect.suspend(() => {
    const { history } = lease
    const { statements, wrote } = history
    const lost = Effect.fail(new AffinityLost({ statement: statement.sql }))
    // SQLite's functions tell of the last write, however many reads ago
    if (statements === 0 || (dialect === "sqlite" && !wrote)) return lost
    if (!statement.traits.readsInsertId) return Effect.void
    if (history.insertIds.length === 0) return lost
    if (generatedId === undefined) return Effect.void
    const question: Statement = { sql: generatedId, params: [], traits: analyze(generatedId, dialect) }
    return Effect.flatMap(
      runOn(lease, question, { section: undefined, ...turn, holdsFor: statement }),
      // an INSERT may have been ahead of the question
      ({ rows }) => history.insertIds.some((own) => own === rows[0]?.[0]) ? Effect.void : lost
    )
  })

/**
 * @internal Whether the failure has ended the lease, and another connection would do as well; `heldNothing` when that is
 * known of what it held.
 */
export const isReplaceable = (lease: Lease, error: DbError, heldNothing = false): boolean => {
  if (lease.overdue || !Recovery.isStale(error)) return false
  const end = lease.state._tag === "Ended" ? lease.state.end : undefined
  // a lease that goes on holds what a retry on another connection would miss, and a pool that cut it lends no other
  return end !== undefined &&
    (end._tag !== "Lost" || ((heldNothing || end.held === "clean") && end.error._tag !== "PoolClosed"))
}

/** @internal Whether a statement that failed may be run again; a connection that is of no use any more is closed. */
export const judge = (
  lease: Lease,
  statement: Statement,
  error: DbError
): Effect.Effect<never, DbError | Again> => {
  const told = (): Effect.Effect<never, DbError> => {
    lease.host.told(error)
    return Effect.fail(error)
  }
  if (!isReplaceable(lease, error)) return told()
  return Effect.flatMap(
    Recovery.Idempotent,
    (idempotent): Effect.Effect<never, DbError | Again> =>
      Recovery.mayRetry(error, statement, idempotent) ? Effect.fail(new Again(error)) : told()
  )
}

/** @internal */
export const isAgain = (error: unknown): error is Again => error instanceof Again

/** @internal Makes the attempt again as the pool's recovery schedule says, for as long as it may be. */
export const retry = <A, E, R>(
  pool: Pool,
  first: Again,
  attempt: Effect.Effect<A, E | Again, R>
): Effect.Effect<A, E | DbError, R> =>
  Effect.flatMap(Schedule.driver(pool.config.recovery ?? Recovery.schedule), (driver) => {
    const loop = ({ error }: Again): Effect.Effect<A, E | DbError, R> =>
      Effect.matchEffect(driver.next(error), {
        onFailure: () => {
          pool.unsafeTold(error)
          return Effect.fail(error)
        },
        onSuccess: () => {
          pool.unsafeRetried(error._tag === "ConnectionLost" && error.outcome === "unknown" ? "read" : "unexecuted")
          return Effect.catchIf(attempt, isAgain, loop)
        }
      })
    return loop(first)
  })
