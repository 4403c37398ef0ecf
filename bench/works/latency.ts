/**
 * Latency under load: requests come when they come, at 80 % of what the arm can do, and the time of each counts from when
 * it was due, so that a stall is seen by all that it delays.
 */
import { build } from "hdr-histogram-js"
import { held } from "../clients/effect.js"
import { type Client, connections, type OpenClient } from "../clients/operations.js"
import { type Arm, repeatedly, type Sample, type Target, type Work } from "../model.js"
import { pools } from "./statements.js"

// once requests wait in `effect/Pool`, each of them costs more the more there are, until memory runs out
const { "effect/Pool": _, ...lasting } = pools

/** As many for the slowest of a thousand to be those of several pauses, of the collector's or the machine's, and not of one. */
const requests = 60_000
const requestsOfCapacity = 20_000
const load = 0.8
const waitingForEach = 4

/**
 * Requests wait for each connection, as they do at times when they come as they like: an arm may do less then than while
 * there is a connection for each. Each is a call of its own, as those that come later.
 */
const closedLoop = async (client: Client): Promise<void> => {
  let left = requestsOfCapacity
  const loop = async (): Promise<void> => {
    while (left-- > 0) await client.request(left)
  }
  await Promise.all(Array.from({ length: waitingForEach * connections }, loop))
}

/** Requests per second that the arm can do. */
const capacity = async (client: Client): Promise<number> => {
  const start = performance.now()
  await closedLoop(client)
  return requestsOfCapacity / (performance.now() - start) * 1000
}

/** Starts each request when it is due, at random times as of many who do not know of each other. */
const openLoop = (client: Client, rate: number): Promise<Sample> =>
  new Promise((resolve, reject) => {
    const histogram = build({ lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000 })
    const gap = (): number => -Math.log(1 - Math.random()) / rate * 1000
    let due = performance.now() + gap()
    let started = 0
    let ended = 0
    const end = (from: number): void => {
      histogram.recordValue(Math.max(1, Math.round((performance.now() - from) * 1000)))
      if (++ended < requests) return
      const at = (percentile: number): number => histogram.getValueAtPercentile(percentile) / 1000
      resolve({ p50: at(50), p99: at(99), p999: at(99.9), rate })
    }
    const tick = (): void => {
      for (; started < requests && due <= performance.now(); started++) {
        const from = due
        client.request(started).then(() => end(from), reject)
        due += gap()
      }
      if (started < requests) setImmediate(tick)
    }
    tick()
  })

const arm = (open: OpenClient) => async (target: Target): Promise<Arm> => {
  const client = await open(target)
  return {
    warmUp: () => repeatedly(() => closedLoop(client)),
    // the rate is that of the moment: what was 80 % a minute ago may be more than the machine can do now
    round: async () => openLoop(client, load * await capacity(client)),
    close: client.close
  }
}

const millis = (key: string, title: string) => ({ key, title, unit: "ms", digits: 2 })

export const latency: ReadonlyArray<Work> = [{
  name: "latency",
  title: "latency of a point select at 80 % of the arm's own throughput",
  measures: [
    millis("p999", "p99.9"),
    millis("p99", "p99"),
    millis("p50", "p50"),
    { key: "rate", title: "load", unit: "op/s", digits: 0 }
  ],
  goals: [
    { arm: "Db", to: "mysql2 pool", measure: "p999", atMost: 1 },
    { arm: "Db", to: "mariadb pool", measure: "p999", atMost: 1 }
  ],
  arms: Object.fromEntries(
    Object.entries({ "mysql2 in Effect, held": held, ...lasting }).map(([name, open]) => [name, arm(open)])
  )
}]
