/**
 * Why a pool gave no connection, in the words and numbers that a person needs to act on it.
 *
 * @internal
 */
import * as FiberId from "effect/FiberId"
import {
  type AcquireError,
  type ConnectFailure,
  PoolClosed,
  type PoolCounts,
  PoolExhausted,
  PoolUnreachable
} from "../DbError.js"
import { type Connection, holdsNothing } from "../Driver.js"
import type { Lease } from "./lease.js"
import type { Origin } from "./leaseModel.js"
import type { Slot } from "./poolModel.js"

/** @internal Why a holder keeps its connection, in words for an error. */
export const describe = (lease: Lease): string => {
  const session = lease.connection?.session()
  switch (lease.state._tag) {
    case "Running":
      return session === "transaction" ? "a statement is running, a transaction is open" : "a statement is running"
    case "Streaming":
      return "a stream is open"
    case "Stopping":
    case "Leaving":
      return "an interrupted statement is being stopped"
    default:
      return session === "transaction"
        ? "a transaction is open"
        : session === "changed"
        ? "its session holds state"
        : lease.kind !== "fiber"
        ? `an explicit ${lease.kind}`
        : lease.rest === "keep"
        ? "strict affinity"
        : "idle"
  }
}

/** @internal Where a connection was acquired, in lines. */
export const originText = ({ trace, what }: Origin): string => [what, ...trace()].join("\n    ")

const hintFor = (lease: Lease | undefined): string | undefined => {
  if (lease === undefined) return undefined
  if (lease.kind === "fiber" && !(lease.connection !== undefined && holdsNothing(lease.connection.session()))) {
    return "A forked fiber does not share its parent's connection: use db.transaction or db.session around both, or"
      + " end the transaction first"
  }
  return "Hold connections for a shorter time, or raise poolSize"
}

/** @internal The pool at the moment of the refusal. */
export interface Situation {
  readonly pool: string
  readonly waitedMillis: number
  readonly counts: PoolCounts
  readonly held: ReadonlySet<Slot<Connection, Lease>>
  readonly lastFailure: ConnectFailure | undefined
  /** When a connect succeeded last. */
  readonly openedAt: number
  readonly now: number
}

/** Whether it was the server itself that refused a connection, such as one too many, and not the way to it. */
const refusedByServer = (failure: ConnectFailure | undefined): boolean =>
  failure !== undefined && (failure._tag === "AuthenticationError" || failure.errno !== undefined)

/** Whether nobody's holding explains the wait: there was room for one connection more, and none could be opened. */
const unreached = ({ counts, held, lastFailure, now, openedAt, waitedMillis }: Situation): boolean =>
  // nobody holds anything: what is open does not answer its validation, or there is nothing open
  held.size === 0 ||
  (held.size + counts.busy < counts.max && openedAt < now - waitedMillis && !refusedByServer(lastFailure))

/** @internal */
export const refusal = (why: "timeout" | "unreachable" | "closed", situation: Situation): AcquireError => {
  const { counts, held, lastFailure, pool, waitedMillis } = situation
  if (why === "closed") return new PoolClosed({ pool })
  if (why === "unreachable" && lastFailure !== undefined) return lastFailure
  if (unreached(situation)) return new PoolUnreachable({ pool, waitedMillis, counts, cause: lastFailure })
  const oldest = oldestOf(held)
  return new PoolExhausted({
    pool,
    waitedMillis,
    counts,
    oldest: oldest && {
      holder: FiberId.threadName(oldest.lease.holder),
      heldMillis: situation.now - oldest.since,
      why: describe(oldest.lease)
    },
    lastConnectFailure: lastFailure,
    hint: hintFor(oldest?.lease)
  })
}

const oldestOf = (
  held: Iterable<Slot<Connection, Lease>>
): { readonly lease: Lease; readonly since: number } | undefined => {
  let oldest: { readonly lease: Lease; readonly since: number } | undefined
  for (const { state } of held) {
    if (state._tag === "Held" && (oldest === undefined || state.since < oldest.since)) oldest = state
  }
  return oldest
}
