/**
 * What `Effect.async` with an interruption handler is, at half its cost, since every statement runs in it.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as RuntimeFlagsPatch from "effect/RuntimeFlagsPatch"

const interruptible = RuntimeFlagsPatch.enable(RuntimeFlags.Interruption)
const uninterruptible = RuntimeFlagsPatch.disable(RuntimeFlags.Interruption)

/**
 * @internal Starts something, and waits for what it calls back with. `start` answers with what is done when the fiber is
 * interrupted meanwhile, which the fiber waits for; that may be when the answer has come and the fiber has not gone on.
 * `failed` is what `Effect.catchAll` would be told, in the same breath.
 */
export const awaiting = <A, E, A2 = never, E2 = E>(
  start: (
    resume: (exit: Exit.Exit<A, E>) => void,
    fiber: Fiber.RuntimeFiber<unknown, unknown>
  ) => () => Effect.Effect<void>,
  failed: (error: E) => Effect.Effect<A2, E | E2> = Effect.fail
): Effect.Effect<A | A2, E | E2> =>
  Effect.withFiberRuntime((fiber, { runtimeFlags }) => {
    let interrupted: (() => Effect.Effect<void>) | undefined
    const answered = Effect.async<A, E>((resume) => {
      interrupted = start(resume, fiber)
    })
    if (!RuntimeFlags.interruption(runtimeFlags)) return Effect.catchAll(answered, failed)
    // what `Effect.uninterruptibleMask` does in more steps: a handler is skipped where its fiber can be interrupted
    const settled = Effect.catchAllCause(
      Effect.withRuntimeFlagsPatch(answered, interruptible),
      (cause): Effect.Effect<A2, E | E2> => {
        if (interrupted !== undefined && Cause.isInterrupted(cause)) {
          return Effect.zipRight(interrupted(), Effect.failCause(cause))
        }
        return cause._tag === "Fail"
          ? Effect.withRuntimeFlagsPatch(failed(cause.error), interruptible)
          : Effect.failCause(cause)
      }
    )
    return Effect.withRuntimeFlagsPatch(settled, uninterruptible)
  })
