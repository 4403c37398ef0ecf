/**
 * The state of a pool and every way it can change. Synchronous, without Effect's runtime and without I/O: each event
 * is one transition, and its answer is the list of things to do next, which `ConnectionPool` does.
 *
 * Invariants, after every event:
 * - opening + idle + held + preparing + retiring is at most `max` (after a shrink: at most what it was before it);
 * - somebody waits only while nothing is idle that a connection under preparation does not already cover, and while
 *   nothing lendable is held unless a connect is on its way or due, which is waited for only so long;
 * - waiters leave first come first served; nobody who comes later overtakes;
 * - at most one connect is in flight after a failed one, and none while backing off;
 * - a draining pool has nothing lendable, and nothing idle once nobody waits; a closed one has besides no waiter and
 *   nothing held.
 *
 * It does not know what a connection or a lease is, nor whether a statement runs: it is told.
 *
 * @internal
 */
import type { CloseReason } from "../PoolStats.js"
import { Connector } from "./connector.js"
import { Times } from "./histogram.js"
import { LinkedList, type Node } from "./linkedList.js"
import {
  type Action,
  type Condition,
  type Member,
  type Phase,
  type Policy,
  type Slot,
  Waiter,
  type Work
} from "./poolModel.js"
import { Slots } from "./slots.js"

const nothing: ReadonlyArray<never> = []

/** Why a connection is closed whose lifetime is over. */
const ageOf = ({ outdated }: Member<unknown>): CloseReason => outdated ? "epoch" : "lifetime"

/** @internal */
export class PoolState<C, L> {
  phase: Phase = "Open"
  max: number
  /** Losses seen so far: a connection not checked since the last one is suspect. */
  epoch = 0
  readonly connector = new Connector()
  readonly slots = new Slots<C, L>()
  readonly waiters = new LinkedList<Waiter<L>>()
  /** From the wish until the grant, of those that waited. */
  readonly waitTimes = new Times()
  #renewedAt = -Infinity
  #actions: Array<Action<C, L>> = []

  constructor(readonly policy: Policy, max: number) {
    this.max = max
  }

  /** How many wait beyond those for whom a connection is free, under preparation, or can be opened. */
  get surplus(): number {
    return this.waiters.size - Math.max(0, this.max - this.slots.held.size - this.slots.retiring.size)
  }

  // --- borrowing ---------------------------------------------------------------------------------------------------

  /** Lends an idle connection at once if that takes no preparation and overtakes nobody. */
  lend(lease: L, now: number): Slot<C, L> | undefined {
    const slot = this.slots.lastIdle
    if (slot === undefined || this.waiters.size > 0 || slot.state._tag !== "Idle") return undefined
    if (this.#expired(slot.state.member, now) || this.#suspect(slot.state.member, now)) return undefined
    this.slots.takeLastIdle()
    this.slots.hold(slot, slot.state.member, lease, now)
    return slot
  }

  /** Puts a lease into the queue; it leaves it by `Grant`, by `Reject` or by `abandon`. */
  wait(lease: L, now: number, deadline: number): readonly [Node<Waiter<L>>, ReadonlyArray<Action<C, L>>] {
    const node = this.waiters.append(new Waiter(lease, now, deadline))
    this.connector.asked()
    return [node, this.#settle(now)]
  }

  /** The waiter does not want a connection any more; false when it is not waiting. */
  abandon(node: Node<Waiter<L>>): boolean {
    return this.waiters.remove(node)
  }

  /** Gives a held connection back. */
  release(slot: Slot<C, L>, condition: Condition, now: number): ReadonlyArray<Action<C, L>> {
    if (slot.state._tag !== "Held") return nothing
    const { member } = slot.state
    this.slots.unhold(slot, now)
    // a connection that is clean was usable a moment ago, which is what `checkedAt` says
    if (condition === "clean") {
      // the common case costs neither a queue nor a list of actions
      if (
        this.waiters.size === 0 && this.phase === "Open" && this.slots.total < this.max && now < member.expiresAt
      ) {
        this.slots.rest(slot, member)
        return nothing
      }
      this.#offer(slot, member, now)
    } else if (this.phase !== "Open" && this.waiters.size === 0) {
      // closing it undoes all that a reset would
      this.#retire(slot, member, "drained", now)
    } else {
      this.#prepare(slot, member, "reset", now)
    }
    return this.#settle(now)
  }

  /** The slot is held by another lease of the same borrower from now on. */
  reassign(slot: Slot<C, L>, lease: L): void {
    if (slot.state._tag !== "Held") return
    this.slots.forbidLending(slot)
    const { member, since } = slot.state
    this.slots.hold(slot, member, lease, since)
  }

  /** The lease of a held slot is idle and holds nothing, so that it may be taken back (`yes`), or is in use. */
  setLendable(
    slot: Slot<C, L>,
    yes: boolean,
    // before and after every statement, and seldom needed
    now: () => number,
    condition: Condition = "clean"
  ): ReadonlyArray<Action<C, L>> {
    slot.condition = condition
    if (!yes) {
      this.slots.forbidLending(slot)
      return nothing
    }
    if (slot.state._tag !== "Held" || slot.lendable !== undefined) return nothing
    this.slots.allowLending(slot)
    return this.waiters.size > 0 || this.phase !== "Open" || this.slots.total > this.max ? this.#settle(now()) : nothing
  }

  // --- what the pool reports back ----------------------------------------------------------------------------------

  opened(
    slot: Slot<C, L>,
    connection: C,
    expiresAt: number,
    now: number
  ): ReadonlyArray<Action<C, L>> {
    const member: Member<C> = {
      connection,
      openedAt: now,
      expiresAt,
      outdated: false,
      epoch: this.epoch,
      usedAt: now,
      checkedAt: now
    }
    this.slots.leave(slot, now)
    this.connector.worked(this.waiters.size > 0)
    this.#offer(slot, member, now)
    return this.#settle(now)
  }

  /** A connect failed. `hopeless` says that trying again cannot help. */
  openFailed(slot: Slot<C, L>, hopeless: boolean, now: number): ReadonlyArray<Action<C, L>> {
    this.slots.drop(slot, now)
    const isFirst = this.connector.failed(hopeless)
    // the waiters of a pool that has working connections are better served by those than by an error
    if (hopeless && !this.slots.alive) this.#rejectAll("unreachable")
    if (isFirst) this.#actions.push({ _tag: "BackOff" })
    return this.#settle(now)
  }

  /** The back-off after a failed connect is over. */
  connectorReady(now: number): ReadonlyArray<Action<C, L>> {
    this.connector.ready()
    return this.#settle(now)
  }

  /** The schedule for connects has come to its end: who waits for one gets an error, and only a new wish starts another. */
  connectorGaveUp(now: number): ReadonlyArray<Action<C, L>> {
    this.connector.giveUp()
    if (!this.slots.alive) this.#rejectAll("unreachable")
    return this.#settle(now)
  }

  /** The work on a connection succeeded: it is known to be good and pristine. */
  prepared(slot: Slot<C, L>, now: number): ReadonlyArray<Action<C, L>> {
    if (slot.state._tag !== "Preparing") return nothing
    const { member, work } = slot.state
    this.slots.leave(slot, now)
    member.epoch = this.epoch
    member.checkedAt = now
    this.#offer(slot, member, now, work === "keepalive")
    return this.#settle(now)
  }

  /** A connection is broken or unwanted; wherever it is, its place is free at once. */
  discard(slot: Slot<C, L>, reason: CloseReason, now: number): ReadonlyArray<Action<C, L>> {
    const state = slot.state
    if (state._tag === "Opening" || state._tag === "Gone") return nothing
    this.slots.drop(slot, now)
    this.#actions.push({ _tag: "Destroy", member: state.member, reason })
    return this.#settle(now)
  }

  /** A retiring connection is closed. */
  closed(slot: Slot<C, L>, now: number): ReadonlyArray<Action<C, L>> {
    if (slot.state._tag !== "Retiring") return nothing
    this.slots.drop(slot, now)
    return this.#settle(now)
  }

  // --- time --------------------------------------------------------------------------------------------------------

  /** When to call `expire` next: the earliest end of a waiter's time or patience that is still to come. */
  nextDeadline(now: number): number | undefined {
    let earliest: number | undefined
    for (const { value: { deadline, since } } of this.waiters.nodes()) {
      const patient = since + this.policy.patience
      const next = patient > now && patient < deadline ? patient : deadline
      if (earliest === undefined || next < earliest) earliest = next
    }
    return earliest
  }

  /** Rejects the waiters whose deadline has come, after those whose patience is over have got what there is. */
  expire(now: number): ReadonlyArray<Action<C, L>> {
    this.#takeBack(now)
    for (const node of this.waiters.nodes()) {
      if (node.value.deadline <= now && this.waiters.remove(node)) this.#reject(node.value, "timeout")
    }
    return this.#settle(now)
  }

  /** Closes what is too old or idle for too long, checks what has been idle for long, opens what `minimumIdle` asks. */
  housekeeping(now: number): ReadonlyArray<Action<C, L>> {
    this.connector.asked()
    // longest unused first, so that those are the ones to go
    for (const slot of this.slots.idle.slice()) {
      if (slot.state._tag !== "Idle") continue
      const { member } = slot.state
      if (this.#expired(member, now)) this.#retire(slot, member, ageOf(member), now)
      else if (now - member.usedAt >= this.policy.idleTimeout && this.slots.idle.length > this.policy.minimumIdle) {
        this.#retire(slot, member, "idle", now)
      } else if (now - member.checkedAt >= this.policy.keepalive) this.#prepare(slot, member, "keepalive", now)
    }
    for (const { value: slot } of this.slots.lendable.nodes()) {
      if (slot.state._tag !== "Held") continue
      const { lease, member } = slot.state
      const old = this.#expired(member, now)
      if (!old && now - member.usedAt < this.policy.idleTimeout) continue
      this.#actions.push({ _tag: "TakeBack", lease })
      this.#retire(slot, member, old ? ageOf(member) : "idle", now)
    }
    return this.#settle(now)
  }

  // --- the pool as a whole -----------------------------------------------------------------------------------------

  resize(max: number, now: number): ReadonlyArray<Action<C, L>> {
    this.max = max
    return this.#settle(now)
  }

  /** Every connection open now must be checked before it is used again. */
  suspectAll(): void {
    this.epoch++
  }

  /**
   * Every connection open now may lead to a server that nobody wants any more, which no check would find out: none is lent
   * again. At most once a second, lest a program that writes to a replica leaves it without connections.
   */
  renewAll(now: number): ReadonlyArray<Action<C, L>> {
    if (now - this.#renewedAt < 1_000) return nothing
    this.#renewedAt = now
    this.epoch++
    for (const slot of [...this.slots.idle, ...this.slots.held, ...this.slots.preparing]) {
      if (slot.state._tag !== "Idle" && slot.state._tag !== "Held" && slot.state._tag !== "Preparing") continue
      const { member } = slot.state
      member.expiresAt = Math.min(member.expiresAt, now)
      member.outdated = true
      if (slot.state._tag === "Idle") this.#retire(slot, member, "epoch", now)
    }
    return this.#settle(now)
  }

  /** Whether the connection must be checked before it is used. */
  suspect(slot: Slot<C, L>, now: number): boolean {
    return slot.state._tag === "Held" && this.#suspect(slot.state.member, now)
  }

  /** Lends no more; what is idle closes now, what is held when it comes back. Those who wait already are served. */
  drain(now: number): ReadonlyArray<Action<C, L>> {
    if (this.phase === "Open") this.phase = "Draining"
    return this.#settle(now)
  }

  /** Ends everything: waiters are turned away, held connections are cut. */
  close(now: number): ReadonlyArray<Action<C, L>> {
    this.phase = "Closed"
    this.#rejectAll("closed")
    for (const slot of [...this.slots.held, ...this.slots.preparing]) {
      if (slot.state._tag !== "Held" && slot.state._tag !== "Preparing") continue
      const { member } = slot.state
      this.slots.drop(slot, now)
      this.#actions.push({ _tag: "Destroy", member, reason: "cut" })
    }
    return this.#settle(now)
  }

  // --- transitions -------------------------------------------------------------------------------------------------

  #expired(member: Member<C>, now: number): boolean {
    return now >= member.expiresAt
  }

  #suspect(member: Member<C>, now: number): boolean {
    return member.epoch !== this.epoch || now - member.checkedAt > this.policy.validateAfter
  }

  #prepare(slot: Slot<C, L>, member: Member<C>, work: Work, now: number): void {
    this.slots.prepare(slot, member, work, now)
    this.#actions.push({ _tag: "Prepare", slot, member, work })
  }

  #retire(slot: Slot<C, L>, member: Member<C>, reason: CloseReason, now: number): void {
    this.slots.retire(slot, member, reason, now)
    this.#actions.push({ _tag: "Close", slot, member, reason })
  }

  #reject(waiter: Waiter<L>, why: "timeout" | "unreachable" | "closed"): void {
    this.#actions.push({ _tag: "Reject", lease: waiter.lease, since: waiter.since, why })
  }

  #rejectAll(why: "unreachable" | "closed"): void {
    for (let waiter = this.waiters.shift(); waiter !== undefined; waiter = this.waiters.shift()) {
      this.#reject(waiter, why)
    }
  }

  /** Gives a connection that is good and clean to the longest waiter, keeps it, or closes it. */
  #offer(slot: Slot<C, L>, member: Member<C>, now: number, oldest = false): void {
    if (this.phase === "Closed") return this.#retire(slot, member, "drained", now)
    if (this.#expired(member, now)) return this.#retire(slot, member, ageOf(member), now)
    // the slot itself is in none of the sets at this moment
    if (this.slots.lasting >= this.max) return this.#retire(slot, member, "shrunk", now)
    if (this.waiters.size > 0 && this.#suspect(member, now)) return this.#prepare(slot, member, "validate", now)
    const waiter = this.waiters.shift()
    if (waiter !== undefined) {
      this.slots.hold(slot, member, waiter.lease, now)
      this.waitTimes.record(now - waiter.since)
      this.#actions.push({ _tag: "Grant", lease: waiter.lease, slot, member })
      return
    }
    if (this.phase === "Draining") return this.#retire(slot, member, "drained", now)
    this.slots.rest(slot, member, oldest)
  }

  /** Restores the invariants after an event and returns what is to be done. */
  #settle(now: number): ReadonlyArray<Action<C, L>> {
    // who waited for a connection that has just gone has nothing else to wait for
    if (this.waiters.size > 0 && !this.slots.alive) this.connector.asked()
    this.#serveFromIdle(now)
    this.#shrink(now)
    this.#open(now)
    this.#takeBack(now)
    if (this.#actions.length === 0) return nothing
    const actions = this.#actions
    this.#actions = []
    return actions
  }

  #shrink(now: number): void {
    // in a draining pool those who wait already come first
    if (this.phase === "Draining" && this.waiters.size > 0) return
    while (this.slots.idle.length > 0 && (this.phase !== "Open" || this.slots.lasting > this.max)) {
      const slot = this.slots.idle[0]
      if (slot === undefined || slot.state._tag !== "Idle") return
      this.#retire(slot, slot.state.member, this.phase === "Open" ? "shrunk" : "drained", now)
    }
  }

  #serveFromIdle(now: number): void {
    // each connection under preparation will serve one of the waiters
    while (this.waiters.size > this.slots.preparing.size) {
      const slot = this.slots.lastIdle
      if (slot === undefined || slot.state._tag !== "Idle") return
      this.slots.takeLastIdle()
      this.#offer(slot, slot.state.member, now)
    }
  }

  #open(now: number): void {
    if (this.phase === "Closed") return
    const { connector, slots } = this
    const spare = this.phase === "Open" && !connector.discouraged ? this.policy.minimumIdle : 0
    const wanted = this.waiters.size + spare - slots.idle.length - slots.preparing.size
    const most = connector.allowed(wanted, slots.opening.size)
    while (slots.opening.size < most && slots.total < this.max) {
      this.#actions.push({ _tag: "Open", slot: slots.open(now) })
    }
  }

  #takeBack(now: number): void {
    while (this.slots.lendable.size > 0 && this.#lacking(now)) {
      const slot = this.slots.lendable.first
      if (slot === undefined || slot.state._tag !== "Held") return
      const { lease, member } = slot.state
      this.slots.unhold(slot, now)
      this.#actions.push({ _tag: "TakeBack", lease })
      const wanted = this.waiters.size > 0 && this.slots.lasting < this.max
      if (slot.condition === "clean") this.#offer(slot, member, now)
      else if (wanted) this.#prepare(slot, member, "reset", now)
      else this.#retire(slot, member, this.phase === "Open" ? "shrunk" : "drained", now)
    }
  }

  /** Whether a fiber has to part with a connection that it does not use at the moment. */
  #lacking(now: number): boolean {
    if (this.phase !== "Open" || this.slots.lasting > this.max) return true
    // a fiber keeps its connection while a connect for the waiter is on its way, or will be started
    const room = this.connector.state === "Ready" ? Math.max(0, this.max - this.slots.total) : 0
    if (this.waiters.size > this.slots.opening.size + this.slots.preparing.size + room) return true
    const first = this.waiters.first
    return first !== undefined && this.waiters.size > this.slots.preparing.size &&
      now - first.since >= this.policy.patience
  }
}
