/**
 * Times counted in fixed buckets. The bounds hold those of OpenTelemetry's conventions for databases, so that its
 * histograms can be made from these.
 *
 * @internal
 */
import type { Histogram } from "../PoolStats.js"

/** The upper bounds of the buckets, in milliseconds. */
// dprint-ignore
const bounds: ReadonlyArray<number> = [
  0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000, Infinity
]

const bucketOf = (millis: number): number => {
  let at = 0
  for (let bound = bounds[0]; bound !== undefined && bound < millis; bound = bounds[at]) at++
  return at
}

/** @internal */
export class Times {
  readonly #counts = bounds.map(() => 0)
  #count = 0
  #sum = 0
  #max = 0

  /** Counts one. A clock that was set back makes it 0. */
  record(millis: number): void {
    const time = Math.max(0, millis)
    const at = bucketOf(time)
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#count++
    this.#sum += time
    if (time > this.#max) this.#max = time
  }

  /** What was counted, and besides so many that took no time. */
  histogram(zeros = 0): Histogram {
    return {
      count: this.#count + zeros,
      sumMillis: this.#sum,
      maxMillis: this.#max,
      buckets: bounds.map((bound, at) => [bound, (this.#counts[at] ?? 0) + (at === 0 ? zeros : 0)])
    }
  }
}
