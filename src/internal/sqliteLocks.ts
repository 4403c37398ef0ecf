/**
 * Waiting for a lock that another connection holds: never inside SQLite, since that would stop the event loop and with
 * it the fiber that holds the lock, but between attempts, on Effect's clock.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Random from "effect/Random"
import type * as DbError from "../DbError.js"

/**
 * Tries again until it is no lock that stands in the way, with pauses that grow from 1 to 50 ms, half of each at random.
 * Interruption strikes only in a pause, so that what is interrupted was surely not executed.
 *
 * @internal
 */
export const patiently = <A, E>(
  attempt: () => Either.Either<A, E>,
  isLocked: (result: Either.Either<A, E>) => boolean,
  timeout: number,
  first = attempt()
): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const deadline = (yield* Clock.currentTimeMillis) + timeout
    let result = first
    for (let pause = 1; isLocked(result); pause = Math.min(2 * pause, 50)) {
      const left = deadline - (yield* Clock.currentTimeMillis)
      if (left <= 0) break
      const delay = yield* Random.nextRange(pause / 2, pause)
      // Whole milliseconds: what is left of one may be too short for a sleep to move a clock, and this would spin.
      yield* Effect.interruptible(Effect.sleep(Math.ceil(Math.min(delay, left))))
      result = attempt()
    }
    return yield* result
  }).pipe(Effect.uninterruptible)

/** @internal */
export const isLockTimeout = <A>(result: Either.Either<A, DbError.DbError>): boolean =>
  Either.isLeft(result) && result.left._tag === "LockTimeoutError"
