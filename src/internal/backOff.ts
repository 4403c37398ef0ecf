/**
 * How a pool's connects have gone of late, and the wait after one that failed, as the schedule for connects says.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Schedule from "effect/Schedule"
import type { ConnectFailure } from "../DbError.js"

/** @internal */
export class BackOff {
  /** Nothing since one worked. */
  lastFailure: ConnectFailure | undefined
  /** When one worked last. */
  openedAt = -Infinity
  #waiting: Fiber.RuntimeFiber<void> | undefined
  /** Whether the last connect failed, so that the connect schedule goes on instead of starting anew. */
  #failing = false

  constructor(
    readonly schedule: Schedule.ScheduleDriver<unknown, ConnectFailure>,
    readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  ) {}

  worked(now: number): void {
    this.#failing = false
    this.lastFailure = undefined
    this.openedAt = now
  }

  failed(failure: ConnectFailure): void {
    this.lastFailure = failure
  }

  /** Waits out the last failure: calls back with whether the schedule allows another connect. */
  wait(over: (again: boolean) => void): void {
    const { lastFailure, schedule } = this
    if (lastFailure === undefined) return
    const next = Effect.zipRight(this.#failing ? Effect.void : schedule.reset, schedule.next(lastFailure))
    this.#failing = true
    this.#waiting?.unsafeInterruptAsFork(FiberId.none)
    this.#waiting = this.fork(Effect.matchCause(next, {
      onSuccess: () => over(true),
      // a schedule that ends, and one that dies; an interrupted one has been replaced
      onFailure: (cause) => {
        if (Cause.isInterruptedOnly(cause)) return
        this.#failing = false
        over(false)
      }
    }))
  }
}
