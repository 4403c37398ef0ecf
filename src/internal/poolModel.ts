/**
 * The words of the pool's state machine: what a connection's place can be, and what the machine asks the pool to do.
 *
 * @internal
 */
import type { CloseReason } from "../PoolStats.js"
import type { Node } from "./linkedList.js"

/** @internal What the machine must know of the options; times in milliseconds. */
export interface Policy {
  readonly minimumIdle: number
  readonly idleTimeout: number
  readonly keepalive: number
  readonly validateAfter: number
  /** For how long a waiter leaves fibers their idle connections because a connect is under way for it. */
  readonly patience: number
}

/** @internal What the pool does with a connection before it may be lent again. */
export type Work = "validate" | "keepalive" | "reset"

/** @internal In what condition a lease gives its connection back. */
export type Condition = "clean" | "changed"

/** @internal An open connection and what the pool remembers of it. */
export interface Member<C> {
  readonly connection: C
  readonly openedAt: number
  /** When its lifetime ends. */
  expiresAt: number
  /** Whether its lifetime was cut short, since it may lead to a server that nobody wants any more. */
  outdated: boolean
  /** The number of losses the pool had seen when this connection was last known to be good. */
  epoch: number
  /** When a borrower last used it. */
  usedAt: number
  /** When it was last known to be good. */
  checkedAt: number
}

/** @internal A class, as those below, for the reason that `linkedList` gives: one is made for every borrow. */
export class Idle<C> {
  readonly _tag = "Idle"
  constructor(readonly member: Member<C>) {}
}

/** @internal */
export class Held<C, L> {
  readonly _tag = "Held"
  constructor(readonly member: Member<C>, readonly lease: L, readonly since: number) {}
}

/** @internal */
export type SlotState<C, L> =
  | { readonly _tag: "Opening"; readonly since: number }
  | Idle<C>
  | Held<C, L>
  | { readonly _tag: "Preparing"; readonly member: Member<C>; readonly work: Work; readonly since: number }
  | { readonly _tag: "Retiring"; readonly member: Member<C>; readonly reason: CloseReason }
  | { readonly _tag: "Gone" }

/** @internal A place for one connection. */
export class Slot<C, L> {
  state: SlotState<C, L>
  /** Where the slot stands among the lendable ones, while it does. */
  lendable: Node<Slot<C, L>> | undefined
  /** In what condition a lendable one would come back. */
  condition: Condition = "clean"
  constructor(readonly id: number, now: number) {
    this.state = { _tag: "Opening", since: now }
  }
}

/** @internal A lease that waits for a connection. */
export class Waiter<L> {
  constructor(readonly lease: L, readonly since: number, readonly deadline: number) {}
}

/** @internal What the pool has to do after an event, in this order. */
export type Action<C, L> =
  /** Open a connection and answer with `opened` or `openFailed`. */
  | { readonly _tag: "Open"; readonly slot: Slot<C, L> }
  /** Do the work and answer with `prepared` or `discard`. */
  | { readonly _tag: "Prepare"; readonly slot: Slot<C, L>; readonly member: Member<C>; readonly work: Work }
  /** Close the connection and answer with `closed`. */
  | { readonly _tag: "Close"; readonly slot: Slot<C, L>; readonly member: Member<C>; readonly reason: CloseReason }
  /** Destroy the connection; its slot is free already. */
  | { readonly _tag: "Destroy"; readonly member: Member<C>; readonly reason: CloseReason }
  /** The lease holds the slot from now on. */
  | { readonly _tag: "Grant"; readonly lease: L; readonly slot: Slot<C, L>; readonly member: Member<C> }
  /** The lease has lost its idle, clean connection to somebody else. */
  | { readonly _tag: "TakeBack"; readonly lease: L }
  /** The lease gets no connection. */
  | {
    readonly _tag: "Reject"
    readonly lease: L
    readonly since: number
    readonly why: "timeout" | "unreachable" | "closed"
  }
  /** Wait as the connect schedule says, then answer with `connectorReady`. */
  | { readonly _tag: "BackOff" }

/** @internal */
export type Phase = "Open" | "Draining" | "Closed"
