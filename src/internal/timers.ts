/**
 * Many timers that are seldom rung, such as one for each statement: to set and to cancel one costs next to nothing, and one
 * sleeper at a time waits for the earliest of them.
 *
 * Invariant: while there is a timer, the sleeper wakes no later than it is due. One that was cancelled does not wake it
 * later: it finds nothing due, and sleeps on.
 *
 * @internal
 */
import { LinkedList } from "./linkedList.js"
import { type Sleep, Sleeper } from "./sleeper.js"

interface Timer {
  readonly due: number
  /** Nothing once it was cancelled, be it by another that is due at the same time. */
  ring: (() => void) | undefined
}

/** @internal */
export class Timers {
  /** By how long they take: those that take equally long are due in the order in which they were set. */
  readonly #lists = new Map<number, LinkedList<Timer>>()
  readonly #sleeper: Sleeper

  constructor(readonly now: () => number, sleep: Sleep) {
    this.#sleeper = new Sleeper(now, sleep, () => this.#wake())
  }

  /** Calls back after the time, unless what it returns is called first. */
  after(millis: number, ring: () => void): () => void {
    const due = this.now() + millis
    let list = this.#lists.get(millis)
    if (list === undefined) this.#lists.set(millis, list = new LinkedList())
    const timer: Timer = { due, ring }
    const node = list.append(timer)
    this.#sleeper.wakeBy(due)
    return () => {
      timer.ring = undefined
      node.list?.remove(node)
    }
  }

  #wake(): void {
    const now = this.now()
    const due: Array<Timer> = []
    let next = Infinity
    for (const [millis, list] of this.#lists) {
      for (let first = list.first; first !== undefined && first.due <= now; first = list.first) {
        list.shift()
        due.push(first)
      }
      if (list.first === undefined) this.#lists.delete(millis)
      else next = Math.min(next, list.first.due)
    }
    if (next !== Infinity) this.#sleeper.wakeBy(next)
    // what they do may set and cancel others
    for (const timer of due) timer.ring?.()
  }
}
