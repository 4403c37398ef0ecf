/**
 * A pool as it is now, in numbers: read off its state machine and its ledger, never kept beside them.
 *
 * @internal
 */
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type { PoolCounts } from "../DbError.js"
import { type Connection, holdsNothing } from "../Driver.js"
import type { Holder, PoolSnapshot } from "../PoolStats.js"
import type { Lease } from "./lease.js"
import type { Ledger } from "./ledger.js"
import { originText } from "./poolErrors.js"
import type { PoolState } from "./poolState.js"

type State = PoolState<Connection, Lease>

/** @internal `stopping` connections have left the state, and are being stopped before they are cut. */
export const countsOf = (state: State, stopping: number): PoolCounts => ({
  idle: state.slots.idle.length,
  held: state.slots.held.size,
  opening: state.slots.opening.size,
  busy: state.slots.preparing.size + state.slots.retiring.size + stopping,
  waiting: state.waiters.size,
  max: state.max
})

const isRunning = ({ state }: Lease): boolean => state._tag !== "Ready"

/** The held connections, each of one kind. */
const heldOf = (
  state: State
): Pick<PoolSnapshot, "heldClean" | "heldWithState" | "heldExplicitly" | "running"> => {
  const held = { heldClean: 0, heldWithState: 0, heldExplicitly: 0, running: 0 }
  for (const { state: place } of state.slots.held) {
    if (place._tag !== "Held") continue
    const { lease, member } = place
    if (lease.kind === "connection" || lease.kind === "stream") held.heldExplicitly++
    else if (holdsNothing(member.connection.session())) held.heldClean++
    else held.heldWithState++
    if (isRunning(lease)) held.running++
  }
  return held
}

/** @internal */
export const snapshotOf = (
  state: State,
  ledger: Ledger,
  { counts, min, now }: { readonly counts: PoolCounts; readonly min: number; readonly now: number }
): PoolSnapshot => {
  const oldest = state.waiters.first
  return {
    ...ledger.counters,
    ...counts,
    ...heldOf(state),
    pool: ledger.pool,
    phase: state.phase,
    takenAt: now,
    min,
    lendable: state.slots.lendable.size,
    oldestWaitMillis: oldest === undefined ? 0 : now - oldest.since,
    closedBy: { ...ledger.closedBy },
    lastConnectFailure: Option.fromNullable(ledger.lastConnectFailure),
    waitTimes: state.waitTimes.histogram(ledger.counters.acquiredAtOnce),
    useTimes: state.slots.useTimes.histogram(),
    connectTimes: ledger.connectTimes.histogram()
  }
}

/** @internal */
export const holdersOf = (state: State, now: number): ReadonlyArray<Holder> => {
  const holders: Array<Holder> = []
  for (const { state: place } of state.slots.held) {
    if (place._tag !== "Held") continue
    const { lease, member, since } = place
    holders.push({
      connection: member.connection.id,
      fiber: FiberId.threadName(lease.holder),
      kind: lease.kind,
      session: member.connection.session(),
      running: isRunning(lease),
      sinceMillis: since,
      heldMillis: now - since,
      origin: Option.map(Option.fromNullable(lease.origin), originText)
    })
  }
  return holders.sort((one, other) => one.sinceMillis - other.sinceMillis)
}
