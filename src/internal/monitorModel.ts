/**
 * What a monitor remembers from look to look: how waiting and throughput went, and the latest events.
 *
 * @internal
 */
import type { PoolEvent } from "../PoolEvents.js"
import type { Holder, PoolSnapshot } from "../PoolStats.js"

/** @internal One value per look, the newest at the end. */
export interface Trend {
  /**
   * In milliseconds: how long the borrows served since the look before had waited on average, or how long the oldest
   * waiter has been waiting, whichever is longer. So it rises although nobody is served.
   */
  readonly waits: ReadonlyArray<number>
  /** Per second: borrows served, and statements that found their fiber's connection still there. */
  readonly rates: ReadonlyArray<number>
}

/** @internal A pool as a frame shows it. */
export interface Watched {
  readonly snapshot: PoolSnapshot
  readonly holders: ReadonlyArray<Holder>
  readonly trend: Trend
}

/** @internal How many connections there are, those being opened too. */
export const openOf = ({ busy, held, idle, opening }: PoolSnapshot): number => idle + held + opening + busy

/** @internal The last of some events that say the same. */
export interface Entry {
  readonly event: PoolEvent
  readonly times: number
}

/** @internal Everything that a frame shows. */
export interface View {
  readonly now: number
  readonly pools: ReadonlyArray<Watched>
  /** The newest first. */
  readonly events: ReadonlyArray<Entry>
}

/** @internal */
export const noTrend: Trend = { waits: [], rates: [] }

/** As many as the widest terminal has columns. */
const kept = 300

const last = <A>(values: ReadonlyArray<A>, value: A): ReadonlyArray<A> => [...values.slice(1 - kept), value]

const uses = (snapshot: PoolSnapshot): number =>
  snapshot.acquiredAtOnce + snapshot.acquiredAfterWait + snapshot.affinityHits

/** @internal The trend with what happened between the two looks. */
export const follow = (trend: Trend, before: PoolSnapshot, now: PoolSnapshot): Trend => {
  const millis = now.takenAt - before.takenAt
  if (millis <= 0) return trend
  const served = now.waitTimes.count - before.waitTimes.count
  const waited = served === 0 ? 0 : (now.waitTimes.sumMillis - before.waitTimes.sumMillis) / served
  return {
    waits: last(trend.waits, Math.max(waited, now.oldestWaitMillis)),
    rates: last(trend.rates, (uses(now) - uses(before)) * 1_000 / millis)
  }
}

/** What can come often, and says little by being told each time. */
const often = (event: PoolEvent): string | undefined => {
  switch (event._tag) {
    case "Closed":
      return `Closed ${event.reason}`
    case "Opened":
    case "Lost":
    case "TakenBack":
    case "ConnectFailed":
    case "Exhausted":
      return event._tag
    default:
      return undefined
  }
}

const together = 5_000
const longest = 100

/**
 * @internal The entries with one event more, at the beginning. What comes often is one entry as long as no more than
 * five seconds pass in between, so that it does not push the rest out.
 */
export const note = (entries: ReadonlyArray<Entry>, event: PoolEvent): ReadonlyArray<Entry> => {
  const kind = often(event)
  const same = kind === undefined ?
    undefined :
    entries.find((entry) =>
      entry.event.pool === event.pool && often(entry.event) === kind && event.at - entry.event.at <= together
    )
  const others = same === undefined ? entries : entries.filter((entry) => entry !== same)
  return [{ event, times: (same?.times ?? 0) + 1 }, ...others].slice(0, longest)
}
