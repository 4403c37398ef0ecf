/** Pools as a monitor sees them, made up. */
import * as Option from "effect/Option"
import type { View, Watched } from "../../src/internal/monitorModel.js"
import type { PoolEvent } from "../../src/PoolEvents.js"
import { type Holder, makeClosedBy, makeCounters, type PoolSnapshot } from "../../src/PoolStats.js"

const none = { count: 0, sumMillis: 0, maxMillis: 0, buckets: [] }

/** A pool of 10 that nobody uses, but for what is given. */
export const snapshot = (given: Partial<PoolSnapshot> = {}): PoolSnapshot => ({
  ...makeCounters(),
  pool: "db:3306/shop",
  phase: "Open",
  takenAt: 0,
  min: 0,
  max: 10,
  idle: 0,
  held: (given.heldClean ?? 0) + (given.heldWithState ?? 0) + (given.heldExplicitly ?? 0),
  heldClean: 0,
  heldWithState: 0,
  heldExplicitly: 0,
  running: 0,
  lendable: 0,
  opening: 0,
  busy: 0,
  waiting: 0,
  oldestWaitMillis: 0,
  closedBy: makeClosedBy(),
  lastConnectFailure: Option.none(),
  waitTimes: none,
  useTimes: none,
  connectTimes: none,
  ...given
})

export const holder = (given: Partial<Holder> = {}): Holder => ({
  connection: "34",
  fiber: "#12",
  kind: "fiber",
  session: "clean",
  running: false,
  sinceMillis: 0,
  heldMillis: 1_234,
  origin: Option.none(),
  ...given
})

export const watched = (given: Partial<PoolSnapshot> = {}, rest: Partial<Watched> = {}): Watched => ({
  snapshot: snapshot(given),
  holders: [],
  trend: { waits: [], rates: [] },
  ...rest
})

export const view = (pools: ReadonlyArray<Watched>, events: ReadonlyArray<PoolEvent> = []): View => ({
  now: 100_000,
  pools,
  events: events.map((event) => ({ event, times: 1 }))
})
