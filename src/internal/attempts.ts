/**
 * One attempt at a statement, before and after: whether what it reads is still there, and whether it may be made again.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Pool } from "../ConnectionPool.js"
import { AffinityLost, type DbError } from "../DbError.js"
import type { Driver, Result, Statement } from "../Driver.js"
import { StatementLimit } from "../PoolConfig.js"
import * as Recovery from "../Recovery.js"
import { type FirstChunk, firstChunk } from "./cursorStream.js"
import type { Lease } from "./lease.js"
import { OneTurn, outside, type Turn } from "./leaseModel.js"
import { textOnly } from "./statement.js"
import { runOn, runShaped } from "./submission.js"
import type { Section } from "./turns.js"

/** @internal A failure after which the statement may be run again, on another connection. */
export class Again {
  readonly _tag = "Again"
  constructor(readonly error: DbError) {}
}

/** @internal The turn of what the fiber is going to run in the section, for as long as the fiber's effect lets it. */
export const turnOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>, section?: Section): Turn => {
  const limit = fiber.currentContext.unsafeMap.get(StatementLimit.key) as number | undefined
  return section === undefined && limit === undefined ? outside : new OneTurn(section, limit)
}

/** @internal However the effect ends, the lease may serve somebody else afterwards. */
export const thenUnclaim = <A, E, R>(
  lease: Lease,
  effect: Effect.Effect<A, E, R>,
  statement?: Statement
): Effect.Effect<A, E, R> => Effect.ensuring(effect, Effect.sync(() => lease.unclaim(statement)))

/** A connection is held for the statement of one call; the program may run the same object in several fibers. */
const ofOneCall = (statement: Statement): Statement => ({ ...statement })

/**
 * Fails unless what the statement reads was left by this lease: the first statement of a lease would read what the
 * borrower before it left, and so would one for the id of an INSERT that generated none.
 */
const checkPrevious = (
  driver: Driver,
  lease: Lease,
  statement: Statement,
  turn: Turn
): Effect.Effect<void, DbError> =>
  Effect.suspend(() => {
    const { dialect, generatedId } = driver
    const { history } = lease
    const { statements, wrote } = history
    const lost = Effect.fail(new AffinityLost({ statement: statement.sql }))
    // SQLite's functions tell of the last write, however many reads ago
    if (statements === 0 || (dialect === "sqlite" && !wrote)) return lost
    if (!statement.traits.readsInsertId) return Effect.void
    if (history.insertIds.length === 0) return lost
    if (generatedId === undefined) return Effect.void
    const question = textOnly(generatedId, driver)
    return Effect.flatMap(
      runOn(lease, question, { ...turn, holdsFor: statement }),
      // an INSERT may have been ahead of the question
      ({ rows }) => history.insertIds.some((own) => own === rows[0]?.[0]) ? Effect.void : lost
    )
  })

/** @internal Runs the statement if what it reads of those before it is still there; `failed` is told of either failure. */
export const runChecked = <A, E>(
  driver: Driver,
  lease: Lease,
  statement: Statement,
  turn: Turn,
  shape: (result: Result) => A,
  failed: (error: DbError) => Effect.Effect<A, E>
): Effect.Effect<A, DbError | E> => {
  if (!statement.traits.readsPrevious) return runShaped(lease, statement, turn, shape, failed)
  const own = ofOneCall(statement)
  const steps = Effect.matchEffect(checkPrevious(driver, lease, own, turn), {
    onFailure: failed,
    onSuccess: () => runShaped(lease, own, turn, shape, failed)
  })
  return thenUnclaim(lease, steps, own)
}

/** @internal The same for a cursor, whose first chunk is read. */
export const openChecked = (
  driver: Driver,
  lease: Lease,
  statement: Statement,
  turn: Turn,
  scope: Scope.Scope
): Effect.Effect<FirstChunk, DbError> => {
  if (!statement.traits.readsPrevious) return firstChunk(lease, statement, scope, turn)
  const own = ofOneCall(statement)
  const steps = Effect.zipRight(checkPrevious(driver, lease, own, turn), firstChunk(lease, own, scope, turn))
  return thenUnclaim(lease, steps, own)
}

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
