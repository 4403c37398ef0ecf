/**
 * The metrics of a pool, one entry each: what OpenTelemetry's conventions name, and what a snapshot holds besides.
 *
 * @internal
 */
import type { Histogram, PoolSnapshot } from "../PoolStats.js"

interface Described {
  readonly name: string
  readonly description: string
  /** As UCUM writes it. */
  readonly unit: string
}

/** @internal Numbers that are added up over pools: `counter` only grows, `upDown` does not; or the greatest (`gauge`). */
export interface NumberMetric extends Described {
  readonly type: "counter" | "upDown" | "gauge"
  /** The attribute by which it is split, and the value of each of its parts. */
  readonly by?: string | undefined
  readonly read: (snapshot: PoolSnapshot) => number | Readonly<Record<string, number>>
}

/** @internal */
export interface TimesMetric extends Described {
  readonly read: (snapshot: PoolSnapshot) => Histogram
}

const conventional: ReadonlyArray<NumberMetric> = [
  {
    name: "db.client.connection.count",
    description: "The number of connections that are currently in state described by the state attribute.",
    unit: "{connection}",
    type: "upDown",
    by: "db.client.connection.state",
    // what the pool itself works on can be had by nobody else
    read: ({ busy, held, idle }) => ({ idle, used: held + busy })
  },
  {
    name: "db.client.connection.idle.max",
    description: "The maximum number of idle open connections allowed.",
    unit: "{connection}",
    type: "upDown",
    read: ({ max }) => max
  },
  {
    name: "db.client.connection.idle.min",
    description: "The minimum number of idle open connections allowed.",
    unit: "{connection}",
    type: "upDown",
    read: ({ min }) => min
  },
  {
    name: "db.client.connection.limit",
    description: "The maximum number of open connections allowed.",
    unit: "{connection}",
    type: "upDown",
    read: ({ max }) => max
  },
  {
    name: "db.client.connection.max",
    description: "The maximum number of open connections allowed; by the name that it had before version 1.45.",
    unit: "{connection}",
    type: "upDown",
    read: ({ max }) => max
  },
  {
    name: "db.client.connection.pending_requests",
    description: "The number of current pending requests for an open connection.",
    unit: "{request}",
    type: "upDown",
    read: ({ waiting }) => waiting
  },
  {
    name: "db.client.connection.timeouts",
    description: "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
    unit: "{timeout}",
    type: "counter",
    read: ({ timedOut }) => timedOut
  }
]

const own: ReadonlyArray<NumberMetric> = [
  {
    name: "effect_sql_pool.connections",
    description: "Connections and connects under way, by what they do for whom.",
    unit: "{connection}",
    type: "upDown",
    by: "effect_sql_pool.state",
    read: ({ busy, heldClean, heldExplicitly, heldWithState, idle, opening }) => ({
      idle,
      held_clean: heldClean,
      held_with_state: heldWithState,
      held_explicitly: heldExplicitly,
      opening,
      busy
    })
  },
  {
    name: "effect_sql_pool.connections.running",
    description: "Held connections with a statement or cursor under way.",
    unit: "{connection}",
    type: "upDown",
    read: ({ running }) => running
  },
  {
    name: "effect_sql_pool.connections.lendable",
    description: "Held connections that the pool may take back for whoever waits.",
    unit: "{connection}",
    type: "upDown",
    read: ({ lendable }) => lendable
  },
  {
    name: "effect_sql_pool.oldest_wait",
    description: "For how long the longest waiter has been waiting.",
    unit: "s",
    type: "gauge",
    read: ({ oldestWaitMillis }) => oldestWaitMillis / 1_000
  },
  {
    name: "effect_sql_pool.acquisitions",
    description: "Wishes for a connection that have ended, by how.",
    unit: "{request}",
    type: "counter",
    by: "effect_sql_pool.outcome",
    read: (snapshot) => ({
      at_once: snapshot.acquiredAtOnce,
      after_wait: snapshot.acquiredAfterWait,
      timed_out: snapshot.timedOut,
      abandoned: snapshot.abandoned,
      refused: snapshot.refused,
      unreachable: snapshot.unreachable,
      turned_away: snapshot.turnedAway
    })
  },
  {
    name: "effect_sql_pool.connections.created",
    description: "Connections opened.",
    unit: "{connection}",
    type: "counter",
    read: ({ created }) => created
  },
  {
    name: "effect_sql_pool.connections.closed",
    description: "Connections closed, by reason.",
    unit: "{connection}",
    type: "counter",
    by: "effect_sql_pool.reason",
    read: ({ closedBy }) =>
      Object.fromEntries(Object.entries(closedBy).map(([reason, count]) => [reason.replaceAll(" ", "_"), count]))
  },
  {
    name: "effect_sql_pool.connections.lost",
    description: "Connections that broke.",
    unit: "{connection}",
    type: "counter",
    read: ({ lost }) => lost
  },
  {
    name: "effect_sql_pool.connect_failures",
    description: "Connects that failed.",
    unit: "{failure}",
    type: "counter",
    read: ({ connectFailures }) => connectFailures
  },
  {
    name: "effect_sql_pool.affinity_hits",
    description: "Statements that found their fiber's connection from the statement before.",
    unit: "{statement}",
    type: "counter",
    read: ({ affinityHits }) => affinityHits
  },
  {
    name: "effect_sql_pool.taken_back",
    description: "Connections taken back from fibers that did not use them.",
    unit: "{connection}",
    type: "counter",
    read: ({ takenBack }) => takenBack
  },
  {
    name: "effect_sql_pool.resets",
    description: "Connections given back, by whether their session was reset or held nothing.",
    unit: "{connection}",
    type: "counter",
    by: "effect_sql_pool.outcome",
    read: ({ resets, resetsSpared }) => ({ done: resets, spared: resetsSpared })
  },
  {
    name: "effect_sql_pool.validations",
    description: "Connections checked before they were lent, or to keep them alive.",
    unit: "{connection}",
    type: "counter",
    read: ({ validations }) => validations
  },
  {
    name: "effect_sql_pool.kills",
    description: "Statements stopped on the server.",
    unit: "{statement}",
    type: "counter",
    read: ({ cancelled }) => cancelled
  },
  {
    name: "effect_sql_pool.retries",
    description:
      "What was run again: statements surely not executed, plain reads and the like, transactions as a whole.",
    unit: "{retry}",
    type: "counter",
    by: "effect_sql_pool.kind",
    read: ({ retriedReads, retriedTransactions, retriedUnexecuted }) => ({
      unexecuted: retriedUnexecuted,
      read: retriedReads,
      transaction: retriedTransactions
    })
  },
  {
    name: "effect_sql_pool.unknown_outcomes",
    description: "Statements that the program was told may have been executed or not.",
    unit: "{statement}",
    type: "counter",
    read: ({ unknownOutcomes }) => unknownOutcomes
  },
  {
    name: "effect_sql_pool.leaks_suspected",
    description: "Connections that were held for longer than leakDetectionThreshold.",
    unit: "{connection}",
    type: "counter",
    read: ({ leaksSuspected }) => leaksSuspected
  }
]

/** @internal What can be read from a snapshot. */
export const numbers: ReadonlyArray<NumberMetric> = [...conventional, ...own]

/** @internal The histograms of a snapshot. */
export const times: ReadonlyArray<TimesMetric> = [
  {
    name: "db.client.connection.create_time",
    description: "The time it took to create a new connection.",
    unit: "s",
    read: ({ connectTimes }) => connectTimes
  },
  {
    name: "db.client.connection.wait_time",
    description: "The time it took to obtain an open connection from the pool.",
    unit: "s",
    read: ({ waitTimes }) => waitTimes
  },
  {
    name: "db.client.connection.use_time",
    description: "The time between borrowing a connection and returning it to the pool.",
    unit: "s",
    read: ({ useTimes }) => useTimes
  }
]

/** @internal What is counted for each statement. */
export const duration: Described = {
  name: "db.client.operation.duration",
  description: "Duration of database client operations.",
  unit: "s"
}
