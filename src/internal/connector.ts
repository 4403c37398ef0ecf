/**
 * Whether a pool may start connects, and how many at a time: one after a failed one or a pause, and twice as many for each
 * that works while somebody waits; none while a failed one is waited out.
 *
 * @internal
 */

/** @internal */
export class Connector {
  /** Whether connects may be started, a failed one is being waited out, or there was nothing left to try until somebody asks. */
  state: "Ready" | "BackingOff" | "GaveUp" = "Ready"
  /** Whether the last connect failed in a way that only a change of configuration can mend: then only a waiter's wish starts another. */
  discouraged = false
  /** How many may be in flight. */
  #window = 1

  worked(awaited: boolean): void {
    this.state = "Ready"
    this.discouraged = false
    this.#window = awaited ? this.#window * 2 : 1
  }

  /** Answers whether the failure has to be waited out from now on: of several connects in flight the first to fail is enough. */
  failed(hopeless: boolean): boolean {
    this.#window = 1
    this.discouraged = hopeless
    if (this.state !== "Ready") return false
    this.state = "BackingOff"
    return true
  }

  /** The back-off is over. */
  ready(): void {
    this.state = "Ready"
  }

  /** The schedule for connects has come to its end. */
  giveUp(): void {
    this.state = "GaveUp"
  }

  /** Somebody asks for what had been given up. */
  asked(): void {
    if (this.state === "GaveUp") this.state = "Ready"
  }

  /** How many of those that are wanted may be in flight. */
  allowed(wanted: number, inFlight: number): number {
    if (this.state !== "Ready") return 0
    if (wanted <= 0 && inFlight === 0) this.#window = 1
    return Math.min(wanted, this.#window)
  }
}
