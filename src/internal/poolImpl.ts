/**
 * The pool at work: it does what its state machine says, and tells it what came of it.
 *
 * Everything a borrower does with the pool is synchronous except waiting for the grant, so that no interruption can
 * fall between having a connection and knowing it. What takes time runs in fibers of the pool.
 *
 * @internal
 */
import type * as Clock from "effect/Clock"
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as Schedule from "effect/Schedule"
import type { Pool } from "../ConnectionPool.js"
import {
  type AcquireError,
  type ConnectFailure,
  InvalidConfig,
  lossText,
  PoolClosed,
  type PoolCounts,
  TooManyWaiters
} from "../DbError.js"
import type { Connection, Driver } from "../Driver.js"
import type { Affinity, PoolConfig } from "../PoolConfig.js"
import type { CloseReason, PoolCounters } from "../PoolStats.js"
import type { Announcer } from "./announcer.js"
import { BackOff } from "./backOff.js"
import { changes } from "./changes.js"
import { Lease } from "./lease.js"
import type { LeaseHost, Limits } from "./leaseHost.js"
import type { Rest } from "./leaseModel.js"
import { Ledger } from "./ledger.js"
import * as maintenance from "./maintenance.js"
import { PoolEnd } from "./poolEnd.js"
import { refusal } from "./poolErrors.js"
import type { Action, Member } from "./poolModel.js"
import { countsOf, holdersOf, snapshotOf } from "./poolSnapshot.js"
import { PoolState } from "./poolState.js"
import { type Sleep, Sleeper } from "./sleeper.js"
import { type Attributes, databaseAttributes } from "./spans.js"
import { Timers } from "./timers.js"

/** Milliseconds after which a connect that is under way is no reason any more to leave a fiber what it does not use. */
const mostPatience = 1_000

type Host = LeaseHost<Lease>

const restOf: Record<Affinity, Rest> = { soft: "lend", strict: "keep", statement: "return" }

/** @internal */
export class PoolImpl implements Pool, Host, maintenance.Maintained {
  readonly attributes: Attributes
  listener: Pool["listener"] = undefined
  readonly #ledger: Ledger
  readonly #state: PoolState<Connection, Lease>
  readonly #timers: Timers
  readonly #patience: number
  readonly #backOff: BackOff
  readonly #end: PoolEnd
  /** Rejects waiters whose time is over. */
  readonly #alarm: Sleeper

  constructor(
    readonly driver: Driver,
    readonly config: PoolConfig,
    readonly clock: Clock.Clock,
    readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>,
    empty: Deferred.Deferred<void>,
    connects: Schedule.ScheduleDriver<unknown, ConnectFailure>,
    readonly announcer: Announcer
  ) {
    this.attributes = databaseAttributes(driver)
    this.#ledger = new Ledger(config.name, announcer)
    const sleep: Sleep = (millis, then) => {
      const fiber = this.fork(Effect.zipRight(Effect.sleep(millis), Effect.sync(then)))
      return () => fiber.unsafeInterruptAsFork(FiberId.none)
    }
    this.#timers = new Timers(this.now, sleep)
    this.#alarm = new Sleeper(this.now, sleep, () => this.#ring())
    this.#backOff = new BackOff(connects, fork)
    this.#patience = Math.min(mostPatience, config.acquireTimeout / 2)
    this.#state = new PoolState({ ...config, patience: this.#patience }, config.poolSize)
    this.#end = new PoolEnd(this, this.#state, (actions) => this.#do(actions), empty)
  }

  // --- the pool's own face -----------------------------------------------------------------------------------------

  readonly snapshot: Pool["snapshot"] = Effect.sync(() =>
    snapshotOf(this.#state, this.#ledger, {
      counts: this.#counts(),
      min: this.config.minimumIdle,
      now: this.now()
    })
  )

  readonly changes: Pool["changes"] = (interval = "1 second") => changes(this.snapshot, this.announcer, interval)

  readonly holders: Pool["holders"] = Effect.sync(() => holdersOf(this.#state, this.now()))

  get events(): Pool["events"] {
    return this.announcer.events
  }

  readonly resize = (poolSize: number): Effect.Effect<void, InvalidConfig> =>
    Effect.suspend(() => {
      const limit = this.driver.maxConnections ?? Infinity
      if (!Number.isSafeInteger(poolSize) || poolSize < 1 || poolSize > limit) {
        return Effect.fail(
          new InvalidConfig({
            issues: [`poolSize must be a whole number from 1${limit === Infinity ? "" : ` to ${limit}`}`]
          })
        )
      }
      this.#do(this.#state.resize(poolSize, this.now()))
      return Effect.void
    })

  readonly invalidateAll: Effect.Effect<void> = Effect.sync(() => this.#state.suspectAll())

  get drain(): Pool["drain"] {
    return this.#end.drain
  }

  get closeAll(): Pool["closeAll"] {
    return Effect.map(this.#end.closeAll, (cut) => ({ cut }))
  }

  readonly unsafeBorrow: Pool["unsafeBorrow"] = (kind, holder, options) => {
    const { maxWaiters, name } = this.config
    const lease = this.unsafeLease(kind, holder, options?.origin)
    this.announcer.changed()
    if (this.#state.phase !== "Open") {
      this.counters.turnedAway++
      lease.refuse(new PoolClosed({ pool: name }))
      return lease
    }
    const now = this.now()
    const slot = this.#state.lend(lease, now)
    if (slot !== undefined && slot.state._tag === "Held") {
      this.counters.acquiredAtOnce++
      lease.grant(slot, slot.state.member)
      return lease
    }
    if (this.#state.surplus >= maxWaiters) {
      this.counters.refused++
      lease.refuse(new TooManyWaiters({ pool: name, maxWaiters, counts: this.#counts() }))
      return lease
    }
    const deadline = now + (options?.acquireTimeout ?? this.config.acquireTimeout)
    const [node, actions] = this.#state.wait(lease, now, deadline)
    lease.node = node
    this.#do(actions)
    if (lease.state._tag === "Waiting") {
      this.#alarm.wakeBy(Math.min(deadline, now + this.#patience))
      this.#noteQueue()
    }
    return lease
  }

  readonly unsafeLease: Pool["unsafeLease"] = (kind, holder, origin) =>
    new Lease(this, kind, holder, kind === "fiber" ? restOf[this.config.affinity] : "keep", origin)

  readonly unsafeSuspect = (lease: Lease): boolean =>
    lease.slot !== undefined && this.#state.suspect(lease.slot, this.now())

  readonly unsafePatiently: Pool["unsafePatiently"] = (effect, giveUp) => this.patiently(effect, giveUp)

  readonly unsafeRetried: Pool["unsafeRetried"] = (what) => this.#ledger.retried(what)

  readonly unsafeTold: Pool["unsafeTold"] = (error) => this.told(error)

  get unsafeCounters(): Pool["unsafeCounters"] {
    return this.counters
  }

  get counters(): PoolCounters {
    return this.#ledger.counters
  }

  // --- for leases --------------------------------------------------------------------------------------------------

  readonly now = (): number => this.clock.unsafeCurrentTimeMillis()

  readonly abandon: Host["abandon"] = (node) => {
    if (this.#state.abandon(node)) this.counters.abandoned++
    this.#noteQueue()
    this.announcer.changed()
    this.#end.reportEmpty()
  }

  readonly reassign: Host["reassign"] = (slot, lease) => {
    this.#state.reassign(slot, lease)
    this.announcer.changed()
  }

  readonly setLendable: Host["setLendable"] = (slot, yes, condition) =>
    this.#do(this.#state.setLendable(slot, yes, this.now, condition))

  readonly giveBack: Host["giveBack"] = (slot, condition) => {
    if (condition === "clean") this.counters.resetsSpared++
    this.#do(this.#state.release(slot, condition, this.now()))
  }

  readonly discard: Host["discard"] = (slot, why) => {
    if (why === "lost" && slot.state._tag === "Held") {
      const { lease, member } = slot.state
      const end = lease.state._tag === "Ended" ? lease.state.end : undefined
      this.#loss(member.connection, end?._tag === "Lost" ? lossText(end.error) : "it was closed")
    }
    this.#do(this.#state.discard(slot, why, this.now()))
  }

  readonly demoted: Host["demoted"] = () => this.#do(this.#state.renewAll(this.now()))

  readonly answered: Host["answered"] = (member) => {
    member.usedAt = member.checkedAt = this.now()
    member.epoch = this.#state.epoch
    this.announcer.changed()
  }

  readonly began: Host["began"] = () => this.announcer.changed()

  readonly told: Host["told"] = (error) => this.#ledger.told(error)

  get limits(): Limits {
    return this.config
  }

  readonly after: Host["after"] = (millis, then) => this.#timers.after(millis, then)

  readonly patiently: Host["patiently"] = (effect, giveUp) =>
    Effect.map(
      Effect.timeoutOption(Effect.interruptible(effect), this.config.cancelTimeout),
      (answered) => answered._tag === "None" ? giveUp() : undefined
    )

  readonly stop: Host["stop"] = (connection, done) => {
    this.counters.cancelled++
    this.announcer.changed()
    this.fork(maintenance.stop(this, connection, done))
  }

  // --- for maintenance ---------------------------------------------------------------------------------------------

  readonly opened: maintenance.Maintained["opened"] = (slot, connection, expiresAt) => {
    const now = this.now()
    this.#backOff.worked(now)
    this.#ledger.opened(connection.id, slot.state._tag === "Opening" ? now - slot.state.since : 0, now)
    connection.onLost((error) => {
      // a statement's failure has said so already
      if (slot.state._tag === "Gone") return
      if (slot.state._tag === "Held") slot.state.lease.lost(error)
      this.#loss(connection, lossText(error))
      this.#do(this.#state.discard(slot, "lost", this.now()))
    })
    this.#do(this.#state.opened(slot, connection, expiresAt, this.now()))
    // no fiber of a closed pool can say good-bye any more
    if (this.#state.phase === "Closed") this.#do(this.#state.discard(slot, "cut", this.now()))
  }

  readonly openFailed: maintenance.Maintained["openFailed"] = (slot, failure) => {
    this.#backOff.failed(failure)
    // one that the pool's end has cut short says nothing of the server
    if (this.#state.phase !== "Closed") this.#ledger.connectFailed(failure, this.now())
    this.#do(this.#state.openFailed(slot, !failure.isRetryable, this.now()))
  }

  readonly prepared: maintenance.Maintained["prepared"] = (slot) => this.#do(this.#state.prepared(slot, this.now()))

  readonly broken: maintenance.Maintained["broken"] = (slot, work, lost) => {
    if (lost !== undefined && slot.state._tag === "Preparing") this.#loss(slot.state.member.connection, lost)
    this.#do(this.#state.discard(slot, work === "reset" ? "reset failed" : "invalid", this.now()))
  }

  readonly unanswered = (): void => this.#state.suspectAll()

  readonly closed: maintenance.Maintained["closed"] = (slot) => {
    // a connection that broke while it was closing has been counted
    if (slot.state._tag === "Retiring") this.#ledger.closed(slot.state.member, slot.state.reason, this.now())
    this.#do(this.#state.closed(slot, this.now()))
  }

  readonly leaks = (): void => {
    const now = this.now()
    const { leakDetectionThreshold } = this.config
    for (const { state } of this.#state.slots.held) {
      if (state._tag !== "Held" || state.lease.reported) continue
      const { busySince = now } = state.lease
      if (now - busySince < leakDetectionThreshold) continue
      state.lease.reported = true
      this.#ledger.leakSuspected(state.lease, now - busySince, now)
      this.announcer.changed()
    }
  }

  readonly housekeeping = (): void => this.#doIfAny(this.#state.housekeeping(this.now()))

  // --- inside ------------------------------------------------------------------------------------------------------

  /** A connection broke: whatever broke it may have broken the others that are open. */
  #loss(connection: Connection, reason: string): void {
    this.#ledger.lost(connection.id, reason, this.now())
    this.#state.suspectAll()
  }

  /** After a moment that may change nothing. */
  #doIfAny(actions: ReadonlyArray<Action<Connection, Lease>>): void {
    if (actions.length > 0) this.#do(actions)
  }

  #do(actions: ReadonlyArray<Action<Connection, Lease>>): void {
    for (const action of actions) this.#perform(action)
    if (actions.length > 0) this.#noteQueue()
    this.announcer.changed()
    if (this.#state.phase !== "Open") this.#end.reportEmpty()
  }

  #perform(action: Action<Connection, Lease>): void {
    switch (action._tag) {
      case "Open":
        this.fork(maintenance.open(this, action.slot))
        return
      case "Prepare":
        this.fork(maintenance.prepare(this, action.slot, action.member, action.work))
        return
      case "Close":
        this.fork(maintenance.close(this, action.slot, action.member))
        return
      case "Destroy":
        return this.#destroy(action.member, action.reason)
      case "Grant":
        this.counters.acquiredAfterWait++
        return action.lease.grant(action.slot, action.member)
      case "TakeBack":
        this.#ledger.takenBack(action.lease, this.now)
        return action.lease.takenBack()
      case "Reject":
        return action.lease.refuse(this.#refuse(action.why, this.now() - action.since))
      case "BackOff":
        return this.#waitOut()
    }
  }

  #destroy(member: Member<Connection>, reason: CloseReason): void {
    this.#ledger.closed(member, reason, this.now())
    member.connection.destroy()
  }

  #refuse(why: "timeout" | "unreachable" | "closed", waitedMillis: number): AcquireError {
    if (why === "timeout") this.counters.timedOut++
    else if (why === "unreachable") this.counters.unreachable++
    else this.counters.turnedAway++
    return refusal(why, {
      pool: this.config.name,
      waitedMillis,
      counts: this.#counts(),
      held: this.#state.slots.held,
      lastFailure: this.#backOff.lastFailure,
      openedAt: this.#backOff.openedAt,
      now: this.now()
    })
  }

  #counts(): PoolCounts {
    return countsOf(this.#state, this.#end.stopping)
  }

  #noteQueue(): void {
    const { max, slots, waiters } = this.#state
    this.#ledger.queue(waiters.size, slots.held.size, max, this.now)
  }

  /** A failed connect, before there may be another. */
  #waitOut(): void {
    if (this.#state.phase === "Closed") return
    this.#backOff.wait((again) => {
      if (again) this.#doIfAny(this.#state.connectorReady(this.now()))
      else this.#do(this.#state.connectorGaveUp(this.now()))
    })
  }

  #ring(): void {
    const now = this.now()
    this.#doIfAny(this.#state.expire(now))
    const next = this.#state.nextDeadline(now)
    if (next !== undefined) this.#alarm.wakeBy(next)
  }
}
