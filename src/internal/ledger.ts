/**
 * What has happened to a pool: each event is counted here, and told to whom it may concern. What a pool has now is the
 * state machine's to know.
 *
 * @internal
 */
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type { ConnectFailure, DbError } from "../DbError.js"
import type { Connection } from "../Driver.js"
import { PoolEvent } from "../PoolEvents.js"
import { type CloseReason, makeClosedBy, makeCounters } from "../PoolStats.js"
import type { Announcer } from "./announcer.js"
import { Times } from "./histogram.js"
import type { Lease } from "./lease.js"
import { describe, originText } from "./poolErrors.js"
import type { Member } from "./poolModel.js"

/** @internal What was run again, and why it might be. */
export type Retried = "unexecuted" | "read" | "transaction"

/** @internal */
export class Ledger {
  readonly counters = makeCounters()
  readonly closedBy = makeClosedBy()
  readonly connectTimes = new Times()
  lastConnectFailure: { readonly at: number; readonly error: ConnectFailure } | undefined
  /** The connects that have failed since one worked, and the first of them. */
  #failures = 0
  #downSince = 0
  #exhausted = false

  constructor(readonly pool: string, readonly announcer: Announcer) {}

  opened(connection: string, connectMillis: number, at: number): void {
    const { announcer, pool } = this
    this.counters.created++
    this.connectTimes.record(connectMillis)
    if (announcer.hears("Opened")) announcer.tell(PoolEvent.Opened({ pool, at, connection, connectMillis }))
    if (this.#failures === 0) return
    const [downMillis, failures] = [at - this.#downSince, this.#failures]
    this.#failures = 0
    if (announcer.hears("Recovered")) announcer.tell(PoolEvent.Recovered({ pool, at, downMillis, failures }))
  }

  connectFailed(error: ConnectFailure, at: number): void {
    const { announcer, pool } = this
    this.counters.connectFailures++
    this.lastConnectFailure = { at, error }
    if (this.#failures++ === 0) this.#downSince = at
    if (announcer.hears("ConnectFailed")) announcer.tell(PoolEvent.ConnectFailed({ pool, at, error }))
  }

  closed({ connection, openedAt }: Member<Connection>, reason: CloseReason, at: number): void {
    const { announcer, pool } = this
    this.counters.closed++
    this.closedBy[reason]++
    if (!announcer.hears("Closed")) return
    announcer.tell(PoolEvent.Closed({ pool, at, connection: connection.id, reason, ageMillis: at - openedAt }))
  }

  lost(connection: string, reason: string, at: number): void {
    const { announcer, pool } = this
    this.counters.lost++
    if (announcer.hears("Lost")) announcer.tell(PoolEvent.Lost({ pool, at, connection, reason }))
  }

  /** Before the lease knows of it. */
  takenBack({ connection, holder, slot }: Lease, now: () => number): void {
    const { announcer, pool } = this
    this.counters.takenBack++
    if (slot?.condition === "clean") this.counters.resetsSpared++
    if (connection === undefined || !announcer.hears("TakenBack")) return
    const fiber = FiberId.threadName(holder)
    announcer.tell(PoolEvent.TakenBack({ pool, at: now(), connection: connection.id, fiber }))
  }

  leakSuspected(lease: Lease, heldMillis: number, at: number): void {
    const { announcer, pool } = this
    this.counters.leaksSuspected++
    if (!announcer.hears("LeakSuspected")) return
    announcer.tell(PoolEvent.LeakSuspected({
      pool,
      at,
      connection: lease.connection?.id ?? "",
      fiber: FiberId.threadName(lease.holder),
      heldMillis,
      holding: describe(lease),
      origin: Option.map(Option.fromNullable(lease.origin), originText)
    }))
  }

  /** How many wait, and how many of the places are held. */
  queue(waiting: number, held: number, max: number, now: () => number): void {
    if (waiting === 0) this.#exhausted = false
    else if (!this.#exhausted && held >= max) {
      this.#exhausted = true
      const { announcer, pool } = this
      if (!announcer.hears("Exhausted")) return
      announcer.tell(PoolEvent.Exhausted({ pool, at: now(), waiting, held, max }))
    }
  }

  retried(what: Retried): void {
    if (what === "unexecuted") this.counters.retriedUnexecuted++
    else if (what === "read") this.counters.retriedReads++
    else this.counters.retriedTransactions++
    this.announcer.changed()
  }

  /** The program is told of this failure of a statement. */
  told(error: DbError): void {
    if (error._tag !== "ConnectionLost" || error.outcome !== "unknown") return
    this.counters.unknownOutcomes++
    this.announcer.changed()
  }
}
