/** How often a pool has run something again, whatever it was and why it might be. */
import type { PoolSnapshot } from "../../src/PoolStats.js"

export const retriesOf = (
  { retriedReads, retriedTransactions, retriedUnexecuted }: Pick<
    PoolSnapshot,
    "retriedReads" | "retriedTransactions" | "retriedUnexecuted"
  >
): number => retriedReads + retriedTransactions + retriedUnexecuted

/** The part of a snapshot that says so. */
export const noRetries = { retriedReads: 0, retriedTransactions: 0, retriedUnexecuted: 0 }
