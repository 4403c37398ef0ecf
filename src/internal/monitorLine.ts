/**
 * What a monitor writes where there is no terminal: a pool in one line.
 *
 * @internal
 */
import type { PoolSnapshot } from "../PoolStats.js"
import { openOf, type Watched } from "./monitorModel.js"
import { clean, count, duration, number } from "./monitorText.js"

/** @internal What has happened since the line before, as far as it has. */
export const happened = (before: PoolSnapshot | undefined, now: PoolSnapshot): string => {
  const since = (
    counter: "created" | "closed" | "lost" | "takenBack" | "connectFailures" | "timedOut" | "leaksSuspected"
  ) => now[counter] - (before?.[counter] ?? 0)
  const said = [
    [since("created"), `${number(since("created"))} opened`],
    [since("closed"), `${number(since("closed"))} closed`],
    [since("lost"), `${number(since("lost"))} lost`],
    [since("takenBack"), `${number(since("takenBack"))} taken back`],
    [since("connectFailures"), `${count(since("connectFailures"), "connect")} failed`],
    [since("timedOut"), `${number(since("timedOut"))} timed out`],
    [since("leaksSuspected"), `${count(since("leaksSuspected"), "leak")} suspected`]
  ] as const
  return said.filter(([times]) => times > 0).map(([, text]) => `; ${text}`).join("")
}

/** @internal The pool now. */
export const numbers = ({ snapshot, trend }: Watched): string => {
  const { heldClean, heldExplicitly, heldWithState, idle, max, running, waiting } = snapshot
  const open = openOf(snapshot)
  const phase = snapshot.phase === "Open" ? "" : ` ${snapshot.phase.toLowerCase()},`
  const states = `${heldExplicitly} explicit, ${heldWithState} with state, ${heldClean} clean, ${idle} idle`
  const queue = waiting === 0 ? "" : `, ${number(waiting)} waiting for up to ${duration(snapshot.oldestWaitMillis)}`
  const course = `served ${number(trend.rates.at(-1) ?? 0)}/s after ${duration(trend.waits.at(-1) ?? 0)}`
  return `[pool ${
    clean(snapshot.pool)
  }]${phase} ${open} of ${max} connections (${states}), ${running} running${queue}, `
    + course
}
