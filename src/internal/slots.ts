/**
 * Where the connections of a pool are: each slot in the one collection that its state names, and in none once it is gone.
 *
 * Invariants: only what is held is lendable, and a lendable slot knows its node; a held one's time of use is recorded once,
 * when it is not held any more.
 *
 * Which slot moves when, and where to, is `poolState`'s to say.
 *
 * @internal
 */
import type { CloseReason } from "../PoolStats.js"
import { Times } from "./histogram.js"
import { LinkedList } from "./linkedList.js"
import { Held, Idle, type Member, Slot, type Work } from "./poolModel.js"

/** @internal */
export class Slots<C, L> {
  readonly opening = new Set<Slot<C, L>>()
  /** Most recently used last. */
  readonly idle: Array<Slot<C, L>> = []
  readonly held = new Set<Slot<C, L>>()
  readonly preparing = new Set<Slot<C, L>>()
  readonly retiring = new Set<Slot<C, L>>()
  /** Held, but idle and clean, and their leases allow it: longest unused first. */
  readonly lendable = new LinkedList<Slot<C, L>>()
  /** From the grant until the end, through every lease of one borrower. */
  readonly useTimes = new Times()
  #nextId = 1

  get total(): number {
    return this.lasting + this.retiring.size
  }

  /** All but those whose connection is closing. */
  get lasting(): number {
    return this.opening.size + this.idle.length + this.held.size + this.preparing.size
  }

  /** Whether any connection is open, so that a waiter has hope without a connect. */
  get alive(): boolean {
    return this.idle.length + this.held.size + this.preparing.size > 0
  }

  /** The most recently used. To look for an element before the first of an array costs as much as a grant. */
  get lastIdle(): Slot<C, L> | undefined {
    return this.idle.length === 0 ? undefined : this.idle[this.idle.length - 1]
  }

  /** The most recently used leaves, without a search. */
  takeLastIdle(): void {
    this.idle.pop()
  }

  open(now: number): Slot<C, L> {
    const slot = new Slot<C, L>(this.#nextId++, now)
    this.opening.add(slot)
    return slot
  }

  /** A slot that has left where it was, or is held by another lease. */
  hold(slot: Slot<C, L>, member: Member<C>, lease: L, now: number): void {
    slot.state = new Held(member, lease, now)
    this.held.add(slot)
  }

  unhold(slot: Slot<C, L>, now: number): void {
    if (this.held.delete(slot) && slot.state._tag === "Held") this.useTimes.record(now - slot.state.since)
    this.forbidLending(slot)
  }

  allowLending(slot: Slot<C, L>): void {
    slot.lendable = this.lendable.append(slot)
  }

  forbidLending(slot: Slot<C, L>): void {
    if (slot.lendable === undefined) return
    this.lendable.remove(slot.lendable)
    slot.lendable = undefined
  }

  /** A slot that has left where it was; `oldest` when nobody has used it meanwhile, so that it stays the first to go. */
  rest(slot: Slot<C, L>, member: Member<C>, oldest = false): void {
    slot.state = new Idle(member)
    if (oldest) this.idle.unshift(slot)
    else this.idle.push(slot)
  }

  prepare(slot: Slot<C, L>, member: Member<C>, work: Work, now: number): void {
    this.leave(slot, now)
    slot.state = { _tag: "Preparing", member, work, since: now }
    this.preparing.add(slot)
  }

  retire(slot: Slot<C, L>, member: Member<C>, reason: CloseReason, now: number): void {
    this.leave(slot, now)
    slot.state = { _tag: "Retiring", member, reason }
    this.retiring.add(slot)
  }

  drop(slot: Slot<C, L>, now: number): void {
    this.leave(slot, now)
    slot.state = { _tag: "Gone" }
  }

  /** Takes the slot out of whatever it is in; its state says where that was until it is somewhere else. */
  leave(slot: Slot<C, L>, now: number): void {
    switch (slot.state._tag) {
      case "Opening":
        this.opening.delete(slot)
        return
      case "Idle": {
        const index = this.idle.lastIndexOf(slot)
        if (index >= 0) this.idle.splice(index, 1)
        return
      }
      case "Held":
        this.unhold(slot, now)
        return
      case "Preparing":
        this.preparing.delete(slot)
        return
      case "Retiring":
        this.retiring.delete(slot)
        return
      case "Gone":
        return
    }
  }
}
