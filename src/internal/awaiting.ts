/**
 * What `Effect.async` with an interruption handler is, at half its cost, since every statement runs in it.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"

/**
 * @internal Starts something, and waits for what it calls back with. `start` answers with what is done when the fiber is
 * interrupted meanwhile, which the fiber waits for; that may be when the answer has come and the fiber has not gone on.
 */
export const awaiting = <A, E>(
  start: (resume: (exit: Exit.Exit<A, E>) => void) => () => Effect.Effect<void>
): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) => {
    let interrupted: (() => Effect.Effect<void>) | undefined
    return Effect.catchAllCause(
      restore(Effect.async<A, E>((resume) => {
        interrupted = start(resume)
      })),
      (cause) =>
        interrupted !== undefined && Cause.isInterrupted(cause)
          ? Effect.zipRight(interrupted(), Effect.failCause(cause))
          : Effect.failCause(cause)
    )
  })
