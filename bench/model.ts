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
  /** Runs what the rounds run until the code is compiled as well as it ever is. */
  readonly warmUp: () => Promise<unknown>
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
  /** Among how many processes the rounds of an arm are divided, one if absent: where each process settles at figures of its own. */
  readonly processes?: number | undefined
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

/** A sample of some things, each of so many operations, as that of the operations. */
export const dividedBy = (operations: number, { cpu = 0, throughput = 0 }: Sample): Sample => ({
  cpu: cpu / operations,
  throughput: throughput * operations
})

const roundMillis = 400
const warmUpMillis = 2_000

/** Runs again and again for as long as a warm-up lasts. */
export const repeatedly = async (run: () => Promise<unknown>): Promise<void> => {
  const start = performance.now()
  do await run()
  while (performance.now() - start < warmUpMillis)
}

/** The warm-up that finds how many operations take about as long as a round should, and rounds of so many. */
export const steadily = (run: (operations: number) => Promise<unknown>): Omit<Arm, "close"> => {
  let perRound = 1
  return {
    warmUp: () => {
      let operations = 1
      return repeatedly(async () => {
        const { throughput = 0 } = await perOperation(operations, () => run(operations))
        perRound = Math.max(1, Math.round(throughput * roundMillis / 1000))
        operations = Math.min(perRound, 2 * operations)
      })
    },
    round: () => perOperation(perRound, () => run(perRound))
  }
}
