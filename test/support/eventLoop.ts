/**
 * How late the event loop is, measured by a timer that should ring every few milliseconds: what a test that asserts a time
 * allows for, since nothing in this process can be faster than its loop.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

const every = 2
/** What a timer is late in an idle process. */
const usual = 3

export interface EventLoop {
  /** For how long, in milliseconds, the loop did nothing between the two moments (of `performance.now()`), as far as known. */
  readonly blocked: (from: number, to: number) => number
  /** The longest time that it did nothing. */
  readonly worst: () => number
}

/** Watches for as long as the scope. */
export const watchEventLoop: Effect.Effect<EventLoop, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const gaps: Array<readonly [from: number, to: number]> = []
      let last = performance.now()
      const timer = setInterval(() => {
        const now = performance.now()
        if (now - last > every + usual) gaps.push([last + every, now])
        last = now
      }, every)
      return { gaps, timer, last: () => last }
    }),
    ({ timer }) => Effect.sync(() => clearInterval(timer))
  ),
  ({ gaps, last }): EventLoop => ({
    blocked: (from, to) => {
      let sum = Math.max(0, to - Math.max(from, last() + every))
      for (let index = gaps.length - 1; index >= 0 && gaps[index]![1] > from; index--) {
        const [start, end] = gaps[index]!
        sum += Math.max(0, Math.min(end, to) - Math.max(start, from))
      }
      return sum
    },
    worst: () => gaps.reduce((most, [start, end]) => Math.max(most, end - start), 0)
  })
)
