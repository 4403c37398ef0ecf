/** Whether a figure stays what it is over time: samples after a forced collection of garbage, and a line through them. */
import { setTimeout as sleep } from "node:timers/promises"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

export interface Sample {
  readonly seconds: number
  readonly heap: number
  readonly handles: number
}

/** Returns when nothing is left to be collected: finalizers and weak references need a turn in between. */
export const collected = async (): Promise<void> => {
  for (let round = 0; round < 3; round++) {
    collect()
    await sleep(5)
  }
}

export const sample = async (since: number): Promise<Sample> => {
  await collected()
  return {
    seconds: (performance.now() - since) / 1000,
    heap: process.memoryUsage().heapUsed,
    handles: process.getActiveResourcesInfo().length
  }
}

export interface Line {
  readonly slope: number
  /** Half the width of the 95 % interval of the slope. */
  readonly uncertainty: number
  readonly mean: number
}

/** The line of least squares; the uncertainty is twice the standard error of its slope. */
export const fit = (points: ReadonlyArray<readonly [x: number, y: number]>): Line => {
  const n = points.length
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / n
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / n
  const sumXX = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0)
  const slope = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / sumXX
  const residual = points.reduce((sum, [x, y]) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0)
  return { slope, uncertainty: 2 * Math.sqrt(residual / (n - 2) / sumXX), mean: meanY }
}
