/**
 * Whom a lease deals with: the pool that lends it its connection, and the statements that want it.
 *
 * @internal
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type { DbError } from "../DbError.js"
import type { Connection, Statement } from "../Driver.js"
import type { Turn } from "./leaseModel.js"
import type { Node } from "./linkedList.js"
import type { Condition, Member, Slot, Waiter } from "./poolModel.js"
import type { Attributes } from "./spans.js"
import type { Waiting } from "./turns.js"

/** @internal The times, in milliseconds, that a lease keeps. */
export interface Limits {
  /** How long a statement waits for its turn: as long as anybody waits for a connection. */
  readonly acquireTimeout: number
  /** How long one may run. */
  readonly statementTimeout: number
  /** After how long a borrower is suspected to have forgotten its connection. */
  readonly leakDetectionThreshold: number
}

/** @internal What a lease asks of its pool. All but `patiently` is synchronous. */
export interface LeaseHost<L> {
  readonly now: () => number
  /** The waiter leaves the queue. */
  readonly abandon: (node: Node<Waiter<L>>) => void
  /** Another lease of the same borrower holds the slot from now on. */
  readonly reassign: (slot: Slot<Connection, L>, lease: L) => void
  /** `condition` is the one in which the connection would come back. */
  readonly setLendable: (slot: Slot<Connection, L>, yes: boolean, condition?: Condition) => void
  readonly giveBack: (slot: Slot<Connection, L>, condition: Condition) => void
  /** The connection is of no use any more. */
  readonly discard: (slot: Slot<Connection, L>, why: "lost" | "cancel failed" | "invalidated") => void
  /** It answered that it takes no writes: a server that is not the primary any more. */
  readonly demoted: () => void
  /** Something has begun to run on its connection. */
  readonly began: () => void
  /** The connection has just answered. */
  readonly answered: (member: Member<Connection>) => void
  /** The program is told of the failure. */
  readonly told: (error: DbError) => void
  readonly limits: Limits
  /** What a span says of the database, and of the pool. */
  readonly attributes: Attributes
  readonly config: { readonly name: string }
  /** Calls back after the time, unless what it returns is called first. */
  readonly after: (millis: number, then: () => void) => () => void
  /** Waits as long as a cancel may take, then gives up. */
  readonly patiently: (effect: Effect.Effect<void>, giveUp: () => void) => Effect.Effect<void>
  /** Stops what runs on the connection within the pool's time limit and tells whether that worked. */
  readonly stop: (connection: Connection, done: (stopped: boolean) => void) => void
}

/** @internal A statement that wants the connection. */
export interface Submitted extends Waiting {
  readonly statement: Statement
  readonly turn: Turn
  /** Whether it has the connection until its rows are read. */
  readonly streams: boolean
  readonly begin: (connection: Connection) => void
  /** It is told once why it will not run. */
  readonly settle: (exit: Exit.Exit<never, DbError>) => void
}
