/**
 * What `Effect.async` with an interruption handler is, at half its cost, since every statement runs in it.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberStatus from "effect/FiberStatus"
import { identity } from "effect/Function"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as RuntimeFlagsPatch from "effect/RuntimeFlagsPatch"

const interruptible = RuntimeFlagsPatch.enable(RuntimeFlags.Interruption)
const uninterruptible = RuntimeFlagsPatch.disable(RuntimeFlags.Interruption)

/** @internal Something that was started, and calls back. */
export interface Started {
  /**
   * What is done when its fiber is interrupted before it has gone on with the answer, which may have come by then. The fiber
   * waits for it.
   */
  readonly interrupted: () => Effect.Effect<void>
}

/** @internal Nothing was: it has called back already. */
export const nothingStarted: Started = { interrupted: () => Effect.void }

/** @internal Starts something and calls back once. */
export type Start<A, E> = (
  resume: (exit: Exit.Exit<A, E>) => void,
  fiber: Fiber.RuntimeFiber<unknown, unknown>
) => Started

/** @internal Runs an effect as interruptible as the region around was; its fiber itself is uninterruptible. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** @internal Starts something, and waits for what it calls back with. `failed` is what `Effect.catchAll` would be told. */
export const awaiting = <A, E, A2 = never, E2 = E>(
  start: Start<A, E>,
  failed?: (error: E) => Effect.Effect<A2, E | E2>
): Effect.Effect<A | A2, E | E2> =>
  Effect.withFiberRuntime((fiber, status) => unsafeAwaiting(fiber, status, start, failed))

/** @internal The same, for the fiber that is going to run it right away and has just told its status. */
export const unsafeAwaiting = <A, E, A2 = never, E2 = E>(
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  { runtimeFlags }: FiberStatus.Running,
  start: Start<A, E>,
  failed?: (error: E) => Effect.Effect<A2, E | E2>
): Effect.Effect<A | A2, E | E2> =>
  RuntimeFlags.interruption(runtimeFlags)
    // what `Effect.uninterruptibleMask` does in more steps
    ? Effect.withRuntimeFlagsPatch(unsafeRestoring(fiber, interruptibly, start, failed), uninterruptible)
    : unsafeRestoring(fiber, identity, start, failed)

const interruptibly: Restore = (effect) => Effect.withRuntimeFlagsPatch(effect, interruptible)

/** @internal The same where the fiber cannot be interrupted, lest its handler be skipped, but for what is restored. */
export const unsafeRestoring = <A, E, A2 = never, E2 = E>(
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  restore: Restore,
  start: Start<A, E>,
  failed: (error: E) => Effect.Effect<A2, E | E2> = Effect.fail
): Effect.Effect<A | A2, E | E2> => {
  let started: Started | undefined
  const answered = Effect.async<A, E>((resume) => {
    started = start(resume, fiber)
  })
  return Effect.catchAllCause(restore(answered), (cause): Effect.Effect<A2, E | E2> => {
    if (started !== undefined && Cause.isInterrupted(cause)) {
      return Effect.zipRight(started.interrupted(), Effect.failCause(cause))
    }
    return cause._tag === "Fail" ? restore(failed(cause.error)) : Effect.failCause(cause)
  })
}
