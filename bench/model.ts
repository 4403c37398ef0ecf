/** What a benchmark is made of: works, done by arms, measured in rounds. */

/** The server that all arms of a run use. */
export interface Target {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
}

/** What is measured in a round, as it stands in the table. */
export interface Measure {
  readonly key: string
  readonly title: string
  readonly unit: string
  readonly digits: number
}

/** What one round has measured, by the keys of the work's measures. */
export type Sample = Readonly<Record<string, number>>

export interface Arm {
  readonly round: () => Promise<Sample>
  readonly close: () => Promise<unknown>
}

export interface Work {
  readonly name: string
  readonly title: string
  readonly measures: ReadonlyArray<Measure>
  /** In the order of the table. Each is opened in a process of its own. */
  readonly arms: Readonly<Record<string, (target: Target) => Promise<Arm>>>
  readonly goals: ReadonlyArray<Goal>
}

/** A promise in figures: an arm's measure, or its ratio to that of another arm, is at most or at least so much. */
export interface Goal {
  readonly arm: string
  readonly to?: string | undefined
  readonly measure: string
  readonly atMost?: number | undefined
  readonly atLeast?: number | undefined
}

export const cpu: Measure = { key: "cpu", title: "CPU", unit: "µs/op", digits: 1 }
export const throughput: Measure = { key: "throughput", title: "throughput", unit: "op/s", digits: 0 }

/** CPU of this process in microseconds for each operation, and operations per second. */
export const perOperation = async (operations: number, run: () => Promise<unknown>): Promise<Sample> => {
  const before = process.cpuUsage()
  const start = performance.now()
  await run()
  const millis = performance.now() - start
  const { system, user } = process.cpuUsage(before)
  return { cpu: (user + system) / operations, throughput: operations / millis * 1000 }
}

const roundMillis = 500
const warmUpMillis = 2_000

/** Runs until the code is compiled as well as it ever is; answers how many operations take about as long as a round should. */
const calibrate = async (run: (operations: number) => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  for (let operations = 100;;) {
    const { throughput = 0 } = await perOperation(operations, () => run(operations))
    const perRound = Math.max(1, Math.round(throughput * roundMillis / 1000))
    if (performance.now() - start > warmUpMillis && perRound < 2 * operations) return perRound
    operations = Math.min(perRound, 2 * operations)
  }
}

/** Rounds that all last about as long, whatever an operation costs, after a warm-up that the first one begins with. */
export const steadily = (run: (operations: number) => Promise<unknown>): () => Promise<Sample> => {
  let calibrated: number | undefined
  return async () => {
    const operations = calibrated ??= await calibrate(run)
    return perOperation(operations, () => run(operations))
  }
}
