/**
 * One borrowed connection, from the wish for it to its return: `Waiting` until the pool grants it, then one statement
 * at a time, `Ended` once.
 *
 * Invariants: a statement is on the connection exactly while `Running`, a cursor exactly while `Streaming`; `Stopping`
 * until the server has stopped what was interrupted, and nothing is sent meanwhile; the pool gets the connection back
 * exactly once, and never with something running on it. While it is held for a statement the lease is `Ready`, is not
 * lendable, and starts nothing but that statement; who asked for it lets go, by submitting it or by `unclaim`.
 *
 * The lease knows the connection and the order of statements. Which fiber may use it is `FiberConnection`'s business.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FiberId from "effect/FiberId"
import { type AcquireError, ConnectionLost, type DbError, SessionEnded } from "../DbError.js"
import { type Connection, holdsNothing, type Statement } from "../Driver.js"
import type { LeaseHost, Submitted } from "./leaseHost.js"
import {
  type End,
  History,
  type LeaseKind,
  type LeaseState,
  type Origin,
  refusal,
  type Rest,
  sectionRefusal,
  type Turn
} from "./leaseModel.js"
import type { Node } from "./linkedList.js"
import type { Member, Slot, Waiter } from "./poolModel.js"
import { isTraced, spanned } from "./spans.js"
import { type Section, Turns } from "./turns.js"

const ready: LeaseState = { _tag: "Ready" }
const running: LeaseState = { _tag: "Running" }
const streaming: LeaseState = { _tag: "Streaming" }
const stopping: LeaseState = { _tag: "Stopping" }
const waiting: LeaseState = { _tag: "Waiting" }
const handedOver: LeaseState = { _tag: "Ended", end: { _tag: "Released", by: "the end of its session" } }
const takenBack: LeaseState = { _tag: "Ended", end: { _tag: "TakenBack" } }

/** @internal */
export class Lease {
  state: LeaseState = waiting
  /** Its place in the queue, while it waits. */
  node: Node<Waiter<Lease>> | undefined
  /** What the connection has done for this borrower, and may so be read back by it. */
  history = new History()
  /** Whether the borrower knows that the connection is lost. */
  told = false
  /** Whether the connection was lost because a statement's time was over: there is none left to run it again. */
  overdue = false
  /** Since when the pool could not have taken the connection back, if it has to know. */
  busySince: number | undefined
  /** Whether it was said that the borrower holds it for too long, or need not be. */
  reported: boolean
  /** Whether the connection is to be closed when it comes back. */
  #doomed = false
  #slot: Slot<Connection, Lease> | undefined
  #member: Member<Connection> | undefined
  #notify: ((granted: Exit.Exit<void, AcquireError>) => void) | undefined
  /** Statements of other fibers that wait for their turn on this connection. */
  #turns: Turns | undefined
  /** The only statement that may be started now, because it reads what the one before has asked for. */
  #heldFor: Statement | undefined
  /** The lease that has the connection after this one, if it was handed over while something was being stopped on it. */
  #heir: Lease | undefined
  #advancing = false
  /** Whether what runs is waited for instead of stopped. */
  #patient = false

  constructor(
    readonly host: LeaseHost<Lease>,
    readonly kind: LeaseKind,
    readonly holder: FiberId.FiberId,
    readonly rest: Rest,
    /** Where it was acquired, if that is to be known. */
    readonly origin?: Origin | undefined
  ) {
    this.reported = origin === undefined
  }

  // --- from the pool -----------------------------------------------------------------------------------------------

  grant(slot: Slot<Connection, Lease>, member: Member<Connection>): void {
    this.#busy()
    this.#slot = slot
    this.#member = member
    this.node = undefined
    this.state = ready
    this.#answerGrant(Exit.void)
  }

  refuse(error: AcquireError): void {
    this.node = undefined
    this.state = { _tag: "Ended", end: { _tag: "Refused", error } }
    this.#answerGrant(Exit.fail(error))
  }

  takenBack(): void {
    this.#slot = this.#member = undefined
    this.state = takenBack
  }

  /** The connection broke or was cut while nothing ran on it; what runs is told by its own answer. */
  lost(error: DbError): void {
    if (this.state._tag === "Ended" || this.state._tag === "Waiting") return
    const session = this.#member?.connection.session() ?? "clean"
    const held = holdsNothing(session) ? "clean" : session
    this.#slot = this.#member = undefined
    this.state = { _tag: "Ended", end: { _tag: "Lost", error, held } }
    this.#wakeAll()
  }

  /**
   * The pool ends. Answers with the connection when something runs on it that should not go on without anybody who
   * hears of it; a COMMIT is not stopped halfway.
   */
  cut(error: DbError): Connection | undefined {
    const stoppable = (this.state._tag === "Running" || this.state._tag === "Streaming") && !this.#patient
    const connection = this.#member?.connection
    this.lost(error)
    return stoppable ? connection : undefined
  }

  // --- to the borrower ---------------------------------------------------------------------------------------------

  /** The connection, while it is this lease's. */
  get connection(): Connection | undefined {
    return this.#slot === undefined ? undefined : this.#member?.connection
  }

  get slot(): Slot<Connection, Lease> | undefined {
    return this.#slot
  }

  /** Whether a statement could start now or after those before it. */
  get usable(): boolean {
    const tag = this.state._tag
    return tag === "Ready" || tag === "Running" || tag === "Streaming" || tag === "Stopping"
  }

  /** From now on the pool does not take the connection back, until a statement has run. */
  claim(): void {
    this.#busy()
    if (this.#slot?.lendable !== undefined) this.host.setLendable(this.#slot, false)
  }

  /**
   * Who has claimed it, be it for `statement`, runs nothing further now: what waits is started, and the connection may serve
   * somebody else. A wish that has not been granted is given up.
   */
  unclaim(statement?: Statement): void {
    if (this.#heldFor === statement) this.#heldFor = undefined
    if (this.state._tag === "Waiting") this.release("interruption")
    else if (this.state._tag === "Ready") this.#next()
  }

  /** Whether the section is on the stack of those that have the connection. */
  has(section: Section): boolean {
    return this.#turns?.has(section) === true
  }

  /**
   * Ends what is inside the section, which must be on the stack, and stops what runs, whoever started it. Answers with
   * the outermost of the sections inside, if there was one: its work has to be undone.
   */
  popTo(section: Section): Section | undefined {
    const popped = this.#turns?.popTo(section)
    this.interrupt()
    for (const late of popped?.waiting ?? []) late.start()
    return popped?.unfinished
  }

  /** Gives the connection to the section around the one on top, when there is nothing to send for that. */
  leave(section: Section): void {
    this.#turns?.pop(section)
    if (this.state._tag === "Ready") this.#next()
  }

  /**
   * Completes when the connection is granted. Interruption leaves the queue; what was granted stays with the lease. Only who
   * is not served at once comes here, so that a tracer sees the waits.
   */
  granted(): Effect.Effect<void, AcquireError> {
    return Effect.withFiberRuntime((fiber) => {
      if (!isTraced(fiber)) return this.#granted()
      const { attributes, config: { name } } = this.host
      const options = {
        attributes: { ...attributes, "db.client.connection.pool.name": name },
        captureStackTrace: false
      }
      return spanned("sql.acquire", options, this.#granted())
    })
  }

  #granted(): Effect.Effect<void, AcquireError> {
    return Effect.async<void, AcquireError>((resume) => {
      if (this.state._tag === "Waiting") this.#notify = resume
      else if (this.state._tag === "Ended" && this.state.end._tag === "Refused") resume(Exit.fail(this.state.end.error))
      else resume(Exit.void)
      return Effect.sync(() => this.ungrant())
    })
  }

  /**
   * Gives the connection back: at once when nothing runs, else when the server has stopped what does. Idempotent,
   * synchronous, never throws. `by` and `fiber` say what did it, and in which fiber if that is to be known.
   */
  release(by: string, fiber?: FiberId.FiberId): void {
    const end: End = { _tag: "Released", by, fiber }
    switch (this.state._tag) {
      case "Waiting": {
        if (this.node !== undefined) this.host.abandon(this.node)
        this.node = undefined
        this.state = { _tag: "Ended", end }
        return
      }
      case "Ready":
        return this.#end(end)
      case "Running":
      case "Streaming":
        this.state = { _tag: "Leaving", end }
        this.#wakeAll()
        return this.#stop()
      case "Stopping":
        this.state = { _tag: "Leaving", end }
        return this.#wakeAll()
      case "Leaving":
      case "Ended":
        return
    }
  }

  // --- to its statements -------------------------------------------------------------------------------------------

  /** Whose turn it is. */
  get sections(): Turns {
    this.#turns ??= new Turns()
    return this.#turns
  }

  /** Calls back with the grant or the refusal, unless {@link ungrant} comes first. */
  onGrant(notify: (granted: Exit.Exit<void, AcquireError>) => void): void {
    this.#notify = notify
  }

  /** Who waited for the grant was interrupted. */
  ungrant(): void {
    this.#notify = undefined
    if (this.state._tag === "Waiting") this.release("interruption")
    else this.#rest()
  }

  /** Whether the statement has to wait for others. What was held for it is not any more. */
  mustWait({ section, statement }: Submitted): boolean {
    if (this.#heldFor === statement) this.#heldFor = undefined
    const tag = this.state._tag
    if (tag === "Running" || tag === "Stopping") return true
    if (tag !== "Ready") return false
    return this.#advancing || this.#heldFor !== undefined ||
      (this.#turns !== undefined && !this.#turns.mayStart(section))
  }

  /** Puts the statement on the connection, or tells it why it has none. */
  start(submitted: Submitted): void {
    const { statement, streams, turn } = submitted
    const { connection } = this
    if (this.state._tag !== "Ready" || connection === undefined) {
      return submitted.settle(this.refusal(statement, turn))
    }
    const refused = sectionRefusal(turn, statement) ?? this.#leftBehind(turn, statement)
    if (refused !== undefined) {
      submitted.settle(Exit.fail(refused))
      return this.#next()
    }
    this.state = streams ? streaming : running
    this.#patient = turn.patient === true
    this.claim()
    this.host.began()
    try {
      submitted.begin(connection)
    } catch (defect) {
      // first, since the end of its connection answers the statement too
      submitted.settle(Exit.die(defect))
      // a driver does not throw: of one that does nobody knows in which state its connection is
      return this.#broke(new ConnectionLost({ outcome: "unknown", reason: "its driver threw" }))
    }
    // who came after a stream would wait for its consumer, which may be waiting for them
    if (streams) this.#wakeAll()
  }

  /** What runs is stopped on the server; nothing is sent until it has been. */
  interrupt(): void {
    if (this.state._tag !== "Running" && this.state._tag !== "Streaming") return
    this.state = stopping
    this.#stop()
  }

  /** A statement or cursor has come to its end, whichever; nothing but `next`, if given, may come after it. */
  answered(exit: Exit.Exit<unknown, DbError>, next?: Statement): void {
    const member = this.#member
    if (member === undefined || (this.state._tag !== "Running" && this.state._tag !== "Streaming")) return
    const error = Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined
    if (!member.connection.isOpen()) {
      this.told = true
      return this.#broke(error ?? new ConnectionLost({ outcome: "unknown", reason: "it was closed" }))
    }
    this.host.answered(member)
    // a server that has become read-only is not the one that the next statement should find
    if (error?._tag === "ReadOnlyError") {
      this.#doomed = true
      this.host.demoted()
    }
    if (this.#doomed && this.kind === "fiber" && this.#holdsNothing) {
      return this.invalidate("a read-only server")
    }
    this.#heldFor = next
    this.#next()
  }

  /** The program is told of a failure. */
  report(exit: Exit.Exit<unknown, DbError>): void {
    if (Exit.isFailure(exit) && exit.cause._tag === "Fail") this.host.told(exit.cause.error)
  }

  /** Why the statement cannot run on this lease (any more), for its borrower, who knows then. */
  refusal(statement: Statement, turn: Turn): Exit.Exit<never, DbError> {
    if (this.state._tag === "Ended" && this.state.end._tag === "Lost") this.told = true
    return refusal(this.kind, this.state, statement, turn)
  }

  /**
   * Hands the connection to another lease of the same borrower, which goes on where this one ends; false, and nothing
   * happens, while a statement runs on this one. Who still waits on this one has come too late.
   */
  handOver(heir: Lease): boolean {
    const slot = this.#slot
    const { state } = this
    if ((state._tag !== "Ready" && state._tag !== "Stopping") || slot === undefined) return false
    // no state goes with it, so that there is nothing to hand over
    if (this.#doomed && this.#holdsNothing) return false
    this.state = handedOver
    heir.#slot = slot
    heir.#member = this.#member
    heir.history = this.history
    heir.#doomed = this.#doomed
    heir.state = state
    heir.#busy()
    // nobody else asks for it, and each lease of a fiber would keep all that came after it
    if (state._tag === "Stopping") this.#heir = heir
    this.#slot = this.#member = undefined
    this.host.reassign(slot, heir)
    this.#wakeAll()
    heir.#rest()
    return true
  }

  /** Ends the lease and closes the connection instead of lending it again. */
  invalidate(by: string): void {
    const slot = this.#slot
    if (slot === undefined || this.state._tag === "Ended") return
    this.state = { _tag: "Ended", end: { _tag: "Released", by } }
    this.#slot = this.#member = undefined
    this.#wakeAll()
    this.host.discard(slot, "invalidated")
  }

  // --- inside ------------------------------------------------------------------------------------------------------

  /** Why a statement is not sent that would end a section which the one around it has ended and undone already. */
  #leftBehind({ final, section }: Turn, { sql }: Statement): SessionEnded | undefined {
    return final === undefined || section === undefined || this.has(section)
      ? undefined
      : new SessionEnded({ statement: sql })
  }

  get #holdsNothing(): boolean {
    return this.#member === undefined || holdsNothing(this.#member.connection.session())
  }

  #broke(error: DbError): void {
    const slot = this.#slot
    this.lost(error)
    if (slot !== undefined) this.host.discard(slot, "lost")
  }

  /** The connection is free: for the statement that it is held for, or the next that waits, or to rest. */
  #next(): void {
    this.state = ready
    // a statement that is answered at once comes back here before it has returned: one loop starts them all
    if (this.#advancing) return
    this.#advancing = true
    while (this.state._tag === "Ready" && this.#heldFor === undefined) {
      const waiting = this.#turns?.next()
      if (waiting === undefined) break
      waiting.start()
    }
    this.#advancing = false
    this.#rest()
  }

  /** Nothing runs and nobody waits on this lease: a clean connection may serve somebody else. */
  #rest(): void {
    if (this.rest === "keep" || this.state._tag !== "Ready" || this.#slot === undefined) return
    if (this.#heldFor !== undefined) return
    const session = this.#member?.connection.session() ?? "clean"
    if (!holdsNothing(session)) return
    if (this.rest === "lend") {
      this.busySince = undefined
      this.host.setLendable(this.#slot, true, session === "clean" ? "clean" : "changed")
    } else this.release("the end of its statement")
  }

  #busy(): void {
    if (!this.reported) this.busySince ??= this.host.now()
  }

  #stop(): void {
    const member = this.#member
    if (member === undefined) return
    this.host.stop(
      member.connection,
      (stopped) => this.#holder().#stopped(member, stopped && member.connection.isOpen())
    )
  }

  /** The lease that has the connection now. */
  #holder(): Lease {
    return this.#heir === undefined ? this : this.#heir.#holder()
  }

  #stopped(member: Member<Connection>, stopped: boolean): void {
    const slot = this.#slot
    if (this.state._tag !== "Stopping" && this.state._tag !== "Leaving") return
    if (!stopped) {
      const error = new ConnectionLost({ outcome: "unknown", reason: "an interrupted statement could not be stopped" })
      if (this.state._tag === "Stopping") this.lost(error)
      else this.state = { _tag: "Ended", end: this.state.end }
      if (slot !== undefined) this.host.discard(slot, "cancel failed")
      return
    }
    this.host.answered(member)
    if (this.state._tag === "Leaving") this.#end(this.state.end)
    else this.#next()
  }

  #end(end: End): void {
    this.state = { _tag: "Ended", end }
    const slot = this.#slot
    const clean = this.#member?.connection.session() === "clean"
    this.#slot = this.#member = undefined
    this.#wakeAll()
    if (slot === undefined) return
    if (this.#doomed) return this.host.discard(slot, "invalidated")
    this.host.giveBack(slot, clean ? "clean" : "changed")
  }

  /** Who waits is told why it waits in vain. */
  #wakeAll(): void {
    for (let waiting = this.#turns?.any(); waiting !== undefined; waiting = this.#turns?.any()) waiting.start()
  }

  #answerGrant(exit: Exit.Exit<void, AcquireError>): void {
    const notify = this.#notify
    this.#notify = undefined
    notify?.(exit)
  }
}
