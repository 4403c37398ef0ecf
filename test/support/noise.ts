/** How late timers ring on this machine at the moment: what no deadline can be blamed for. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

const interval = 5

export interface Noise {
  /** The most milliseconds by which a timer was late since the beginning. */
  readonly worst: () => number
  readonly restart: () => void
}

/** Watches a timer for as long as the scope. */
export const measureNoise: Effect.Effect<Noise, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const noise = { worst: 0, timer: undefined as NodeJS.Timeout | undefined }
      const tick = (due: number): void => {
        noise.worst = Math.max(noise.worst, performance.now() - due)
        const next = performance.now() + interval
        noise.timer = setTimeout(() => tick(next), interval)
      }
      tick(performance.now())
      return noise
    }),
    (noise) => Effect.sync(() => clearTimeout(noise.timer))
  ),
  (noise) => ({
    worst: () => noise.worst,
    restart: () => {
      noise.worst = 0
    }
  })
)

/** What nobody has caught while the scope was open: unhandled rejections, uncaught exceptions, errors without a listener. */
export const watchUnhandled: Effect.Effect<() => ReadonlyArray<unknown>, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen: Array<unknown> = []
      const see = (error: unknown): void => void seen.push(error)
      process.on("unhandledRejection", see).on("uncaughtExceptionMonitor", see)
      return { seen, see }
    }),
    ({ see }) => Effect.sync(() => process.off("unhandledRejection", see).off("uncaughtExceptionMonitor", see))
  ),
  ({ seen }) => () => seen
)
