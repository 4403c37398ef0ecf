/**
 * Statements at a place: on the connection of a session or a transaction, or on one that a program holds. Nothing is retried
 * there, since what the connection's session holds would be lost.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as FiberStatus from "effect/FiberStatus"
import type * as Scope from "effect/Scope"
import { type DbError, InvalidTransaction } from "../DbError.js"
import type { Driver, Result, Statement } from "../Driver.js"
import { openChecked, runChecked, turnOf } from "./attempts.js"
import { unsafeAwaiting } from "./awaiting.js"
import { type FirstChunk, type Rows, rowsOf } from "./cursorStream.js"
import type { Place } from "./place.js"
import { unsafeRun } from "./submission.js"

/** @internal Runs a statement, for the fiber that is going to run it right away, and answers what the shape makes of it. */
export const unsafeRunAt = <A>(
  driver: Driver,
  { lease, transaction }: Place,
  statement: Statement,
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  status: FiberStatus.Running,
  shape: (result: Result) => A
): Effect.Effect<A, DbError> => {
  const refused = transaction && endsByHand(statement)
  if (refused !== undefined) return refused
  const turn = turnOf(fiber, transaction)
  if (statement.traits.readsPrevious) return runChecked(driver, lease, statement, turn, shape, Effect.fail)
  return unsafeAwaiting(fiber, status, (resume) => unsafeRun(lease, statement, turn, shape, resume, fiber))
}

/** @internal Opens a cursor and reads its first chunk. */
export const openAt = (
  driver: Driver,
  { lease, transaction }: Place,
  statement: Statement,
  scope: Scope.Scope
): Effect.Effect<FirstChunk, DbError> =>
  Effect.withFiberRuntime((fiber) => {
    const refused = transaction && endsByHand(statement)
    return refused ?? openChecked(driver, lease, statement, turnOf(fiber, transaction), scope)
  })

/** @internal The rows of a statement. */
export const streamAt = (driver: Driver, place: Place, statement: Statement): Rows =>
  rowsOf((scope) => openAt(driver, place, statement, scope))

/** The transaction ends with its effect: a COMMIT inside would leave what follows without one, and BEGIN commits too. */
const endsByHand = ({ sql, traits }: Statement): Effect.Effect<never, InvalidTransaction> | undefined =>
  traits.transaction === undefined ? undefined : Effect.fail(
    new InvalidTransaction({
      reason: `A transaction is begun and ended by db.transaction, and inside of it not by a statement: ${sql}`
    })
  )
