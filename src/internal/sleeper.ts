/**
 * One sleeper for all that has to be done in time: it wakes at the earliest of the moments that it was told of, and forgets the
 * others. Whom it wakes tells it of the next.
 *
 * @internal
 */

/** @internal Calls back after the time, unless what it returns is called first. */
export type Sleep = (millis: number, then: () => void) => () => void

/** @internal */
export class Sleeper {
  #sleeping: { readonly due: number; readonly cancel: () => void } | undefined

  constructor(readonly now: () => number, readonly sleep: Sleep, readonly wake: () => void) {}

  wakeBy(due: number): void {
    if (this.#sleeping !== undefined) {
      if (this.#sleeping.due <= due) return
      this.#sleeping.cancel()
    }
    const cancel = this.sleep(Math.max(0, due - this.now()), () => {
      this.#sleeping = undefined
      this.wake()
    })
    this.#sleeping = { due, cancel }
  }
}
