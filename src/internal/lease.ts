/**
 * One borrowed connection, from the wish for it to its return: `Waiting` until the pool grants it, then one statement
 * at a time, `Ended` once.
 *
 * Invariants: a statement is on the connection exactly while `Running`, a cursor exactly while `Streaming`; `Stopping`
 * until the server has stopped what was interrupted, and nothing is sent meanwhile; the pool gets the connection back
 * exactly once, and never with something running on it.
 *
 * The lease knows the connection and the order of statements. Which fiber may use it is `FiberConnection`'s business.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type AcquireError, ConnectionBusy, ConnectionLost, type DbError, StatementCancelled } from "../DbError.js"
import { type Connection, type Cursor, holdsNothing, type Result, type Row, type Statement } from "../Driver.js"
import { awaiting } from "./awaiting.js"
import {
  type End,
  type History,
  type LeaseKind,
  type LeaseState,
  noHistory,
  noteFate,
  type OpenCursor,
  type Origin,
  outOfTime,
  outside,
  refusal,
  remember,
  type Rest,
  sectionRefusal,
  stoppedRead,
  toldOutcome,
  type Turn
} from "./leaseModel.js"
import type { Node } from "./linkedList.js"
import type { Condition, Member, Slot, Waiter } from "./poolModel.js"
import { type Attributes, isTraced, spanned } from "./spans.js"
import { type Section, Turns, type Waiting } from "./turns.js"

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
export interface LeaseHost {
  readonly now: () => number
  /** The waiter leaves the queue. */
  readonly abandon: (node: Node<Waiter<Lease>>) => void
  /** Another lease of the same borrower holds the slot from now on. */
  readonly reassign: (slot: Slot<Connection, Lease>, lease: Lease) => void
  /** `condition` is the one in which the connection would come back. */
  readonly setLendable: (slot: Slot<Connection, Lease>, yes: boolean, condition?: Condition) => void
  readonly giveBack: (slot: Slot<Connection, Lease>, condition: Condition) => void
  /** The connection is of no use any more. */
  readonly discard: (slot: Slot<Connection, Lease>, why: "lost" | "cancel failed" | "invalidated") => void
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

const ready: LeaseState = { _tag: "Ready" }
const running: LeaseState = { _tag: "Running" }
const streaming: LeaseState = { _tag: "Streaming" }
const stopping: LeaseState = { _tag: "Stopping" }
const waiting: LeaseState = { _tag: "Waiting" }
const nothing = (): Effect.Effect<void> => Effect.void

/** A cursor that is being read: whether it has not ended, a chunk has been asked for, and one has been given. */
interface Open {
  active: boolean
  asked: boolean
  given: boolean
  readonly turn: Turn
  connection: Connection | undefined
  note: Note | undefined
}

/** The answer with what the shape makes of its result; that may be a program's own function, and throw. */
const shaped = <A>(answer: Exit.Exit<Result, DbError>, shape: (result: Result) => A): Exit.Exit<A, DbError> => {
  if (Exit.isFailure(answer)) return Exit.failCause(answer.cause)
  try {
    return Exit.succeed(shape(answer.value))
  } catch (defect) {
    return Exit.die(defect)
  }
}

/** What is said of an answer that may have come too late. */
type InTime = <A>(statement: Statement, exit: Exit.Exit<A, DbError>, partial?: boolean) => Exit.Exit<A, DbError>

/** What is made of a statement's answer in a transaction, besides giving it. */
type Note = (exit: Exit.Exit<unknown, DbError>) => void

/** @internal */
export class Lease {
  state: LeaseState = waiting
  /** Its place in the queue, while it waits. */
  node: Node<Waiter<Lease>> | undefined
  /** What the connection has done for this borrower, and may so be read back by it. */
  history: History = noHistory
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
  /** The lease that has the connection after this one. */
  #heir: Lease | undefined
  #advancing = false
  /** Whether what runs is waited for instead of stopped. */
  #patient = false

  constructor(
    readonly host: LeaseHost,
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
    this.#tell(Exit.void)
  }

  refuse(error: AcquireError): void {
    this.node = undefined
    this.state = { _tag: "Ended", end: { _tag: "Refused", error } }
    this.#tell(Exit.fail(error))
  }

  takenBack(): void {
    this.#slot = this.#member = undefined
    this.state = { _tag: "Ended", end: { _tag: "TakenBack" } }
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
   * Who has claimed it runs no further statement now: what waits is started, and the connection may serve somebody else. A
   * wish that has not been granted is given up.
   */
  unclaim(): void {
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
    this.#interrupted()
    for (const { start } of popped?.waiting ?? []) start()
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
      return Effect.sync(() => this.#ungrant())
    })
  }

  /**
   * Gives the connection back: at once when nothing runs, else when the server has stopped what does. Idempotent,
   * synchronous, never throws.
   */
  release(by: string): void {
    const end: End = { _tag: "Released", by }
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

  /**
   * Runs one statement, after those that came before it. Interruption stops it on the server, without waiting for that.
   */
  run(statement: Statement, turn: Turn = outside): Effect.Effect<Result, DbError> {
    return this.runAs(statement, turn, identity, undefined)
  }

  /** What {@link run} does, then what `Effect.map` and `Effect.catchAll` would do, at a fraction of their cost. */
  runAs<A, A2 = never, E2 = DbError>(
    statement: Statement,
    turn: Turn,
    shape: (result: Result) => A,
    failed: ((error: DbError) => Effect.Effect<A2, E2>) | undefined
  ): Effect.Effect<A | A2, DbError | E2> {
    return awaiting<A, DbError, A2, E2>(
      (resume, fiber) => this.unsafeRun(statement, turn, shape, resume, fiber),
      failed
    )
  }

  /** What {@link runAs} starts. It answers with what has to be done when the fiber is interrupted before it is resumed. */
  unsafeRun<A>(
    statement: Statement,
    turn: Turn,
    shape: (result: Result) => A,
    resume: (exit: Exit.Exit<A, DbError>) => void,
    fiber: Fiber.RuntimeFiber<unknown, unknown>
  ): () => Effect.Effect<void> {
    return this.#exclusive<A>(
      statement,
      turn,
      running,
      (connection, done) => {
        if (turn.enters !== undefined) this.#sections.section = turn.enters
        const note = this.#fateOf(statement, turn)
        const inTime = this.#limit(turn)
        connection.run(statement, (answered) => {
          const whole = this.state._tag === "Running" ? answered : stoppedRead(statement, answered)
          const exit = inTime === undefined ? whole : inTime(statement, whole)
          note?.(exit)
          // of the connection, which the lease may have given up by now
          const answer = connection.session() === "transaction" ? toldOutcome(statement, turn, exit) : exit
          // who runs on the fiber's own may run it again instead
          if (this.kind !== "fiber" && turn.opens !== true) this.#told(answer)
          this.history = remember(this.history, statement, exit)
          if (turn.enters !== undefined && Exit.isFailure(exit) && this.state._tag === "Running") {
            // one that was interrupted may have been done: then its section has to undo it
            this.#sections.section = turn.section
          }
          if (turn.leaves === true && Exit.isSuccess(exit) && turn.section !== undefined) {
            this.#sections.pop(turn.section)
          }
          this.#answered(exit, turn.holds)
          done(shaped(answer, shape))
        })
      },
      resume,
      fiber
    )
  }

  /** A cursor over the statement's rows, for as long as the scope; ending it early stops the statement on the server. */
  cursor(statement: Statement, turn: Turn = outside): Effect.Effect<OpenCursor, DbError, Scope.Scope> {
    return Effect.suspend(() => {
      const open: Open = { active: false, asked: false, given: false, turn, connection: undefined, note: undefined }
      // the finalizer comes first: nothing can be lost between the start of the cursor and its registration
      return Effect.zipRight(
        Effect.addFinalizer(() =>
          Effect.sync(() => {
            if (open.active) this.#interrupted()
          })
        ),
        Effect.map(
          awaiting<Cursor, DbError>((resume, fiber) =>
            this.#exclusive<Cursor>(
              statement,
              turn,
              streaming,
              (connection, done) => {
                open.active = true
                open.connection = connection
                open.note = this.#fateOf(statement, turn)
                done(Exit.succeed(connection.stream(statement)))
              },
              resume,
              fiber
            )
          ),
          (cursor) => ({ columns: cursor.columns, pull: this.#pull(statement, cursor, open) })
        )
      )
    })
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
    this.state = { _tag: "Ended", end: { _tag: "Released", by: "the end of its session" } }
    heir.#slot = slot
    heir.#member = this.#member
    heir.history = this.history
    heir.#doomed = this.#doomed
    heir.state = state
    heir.#busy()
    this.#heir = heir
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

  get #holdsNothing(): boolean {
    return this.#member === undefined || holdsNothing(this.#member.connection.session())
  }

  get #sections(): Turns {
    this.#turns ??= new Turns()
    return this.#turns
  }

  #pull(statement: Statement, cursor: Cursor, open: Open): OpenCursor["pull"] {
    const stop = (): Effect.Effect<void> =>
      Effect.sync(() => {
        // after the last row it may be another's statement that runs
        if (open.active) this.#interrupted()
      })
    return awaiting<ReadonlyArray<Row>, Option.Option<DbError>>((resume) => {
      const fail = (exit: Exit.Exit<never, DbError>): void => resume(Exit.mapError(exit, Option.some))
      if (!open.active) {
        resume(Exit.fail(Option.none()))
        return nothing
      }
      // a stream whose connection was taken from it, or that was interrupted while it read, must not look complete
      if (this.state._tag !== "Streaming" || open.asked) {
        fail(this.#refusal(statement, open.turn))
        return nothing
      }
      open.asked = true
      const inTime = this.#limit(open.turn)
      cursor.next((answered) => {
        // rows that came while the statement was being stopped are not all
        const read = inTime === undefined ? answered : inTime(statement, answered, true)
        open.note?.(read)
        const exit = open.connection?.session() === "transaction" ? toldOutcome(statement, open.turn, read) : read
        const streaming = this.state._tag === "Streaming"
        if (streaming && Exit.isSuccess(exit) && exit.value.length > 0) {
          open.asked = false
          open.given = true
          return resume(Exit.succeed(exit.value))
        }
        open.active = false
        // a stream of its own may begin again before it has given anything
        if (open.given || this.kind !== "stream") this.#told(exit)
        this.#answered(exit)
        if (Exit.isFailure(exit)) fail(Exit.failCause(exit.cause))
        else if (streaming) resume(Exit.fail(Option.none()))
        else fail(this.#refusal(statement, open.turn))
      })
      return stop
    })
  }

  /** Who waited for the grant was interrupted. */
  #ungrant(): void {
    this.#notify = undefined
    if (this.state._tag === "Waiting") this.release("interruption")
    else this.#rest()
  }

  /** Waits for the grant and for the statement's turn, then starts; `begin` is called synchronously with the connection. */
  #exclusive<A>(
    statement: Statement,
    turn: Turn,
    activity: LeaseState,
    begin: (connection: Connection, done: (exit: Exit.Exit<A, DbError>) => void) => void,
    resume: (exit: Exit.Exit<A, DbError>) => void,
    { currentScheduler }: Fiber.RuntimeFiber<unknown, unknown>
  ): () => Effect.Effect<void> {
    let waiting: Node<Waiting> | undefined
    let stopWaiting: (() => void) | undefined
    let phase: "granting" | "waiting" | "started" | "settled" = "waiting"
    let afterwards: (() => void) | undefined
    const settle = (exit: Exit.Exit<A, DbError>): void => {
      phase = "settled"
      stopWaiting?.()
      resume(exit)
      afterwards?.()
    }
    const start = (): void => {
      // what the grant has started may have been interrupted since
      if (phase === "settled") return
      waiting = undefined
      stopWaiting?.()
      const connection = this.connection
      if (this.state._tag !== "Ready" || connection === undefined) return settle(this.#refusal(statement, turn))
      const refused = sectionRefusal(turn, statement)
      if (refused !== undefined) {
        settle(Exit.fail(refused))
        return this.#next()
      }
      this.state = activity
      this.#patient = turn.patient === true
      phase = "started"
      this.claim()
      this.host.began()
      try {
        begin(connection, settle)
      } catch (defect) {
        // first, since the end of its connection answers the statement too
        settle(Exit.die(defect))
        return this.#defective()
      }
      // who came after a stream would wait for its consumer, which may be waiting for them
      if (activity === streaming) this.#wakeAll()
    }
    if (this.state._tag === "Waiting") {
      phase = "granting"
      // not from inside of the event that grants it; the fiber itself goes on with the answer
      this.#notify = (granted) => {
        if (Exit.isSuccess(granted)) currentScheduler.scheduleTask(start, 0)
        else settle(Exit.failCause(granted.cause))
      }
    } else if (this.#mustWait(turn)) {
      waiting = this.#sections.enqueue({ section: turn.section, start })
      const waitedMillis = this.host.limits.acquireTimeout
      stopWaiting = this.host.after(waitedMillis, () => {
        if (waiting === undefined) return
        this.#turns?.leave(waiting)
        settle(Exit.fail(new ConnectionBusy({ statement: statement.sql, waitedMillis })))
      })
    } else start()
    return () => {
      if (waiting !== undefined) this.#turns?.leave(waiting)
      stopWaiting?.()
      if (phase === "granting") {
        phase = "settled"
        return Effect.sync(() => this.#ungrant())
      }
      if (phase !== "started") return Effect.void
      if (turn.patient !== true) return Effect.sync(() => this.#interrupted())
      return this.host.patiently(
        Effect.async<void>((answered) => {
          if (phase === "settled") answered(Effect.void)
          else afterwards = () => answered(Effect.void)
        }),
        () => this.invalidate("an unanswered end of a transaction")
      )
    }
  }

  /**
   * Stops what runs now when its time is over. What it answers tells what to say of the answer, which comes all the same:
   * that of the server, or of the loss of a connection on which nothing could be stopped.
   */
  #limit({ limit = this.host.limits.statementTimeout }: Turn): InTime | undefined {
    if (limit === Infinity) return undefined
    let over = false
    const stop = this.host.after(limit, () => {
      over = true
      this.#interrupted()
    })
    return (statement, exit, partial = false) => {
      stop()
      if (!over) return exit
      const told = partial && Exit.isSuccess(exit)
        ? Exit.fail(new StatementCancelled({ statement: statement.sql, reason: "" }))
        : exit
      const answer = outOfTime(statement, limit, told)
      this.overdue = Exit.isFailure(answer) && answer.cause._tag === "Fail" &&
        answer.cause.error._tag === "ConnectionLost"
      return answer
    }
  }

  /** What the answer means for the transaction that the statement runs in, if it runs in one. */
  #fateOf(statement: Statement, { final, section }: Turn): Note | undefined {
    const connection = this.#member?.connection
    if (section === undefined || final !== undefined || connection?.session() !== "transaction") return undefined
    return (exit) => noteFate(section.whole, statement, exit, connection.isOpen(), connection.session())
  }

  #mustWait({ section }: Turn): boolean {
    const tag = this.state._tag
    if (tag === "Running" || tag === "Stopping") return true
    return tag === "Ready" && (this.#advancing || (this.#turns !== undefined && !this.#turns.mayStart(section)))
  }

  #refusal(statement: Statement, turn: Turn): Exit.Exit<never, DbError> {
    if (this.state._tag === "Ended" && this.state.end._tag === "Lost") this.told = true
    return refusal(this.kind, this.state, statement, turn)
  }

  #told(exit: Exit.Exit<unknown, DbError>): void {
    if (Exit.isFailure(exit) && exit.cause._tag === "Fail") this.host.told(exit.cause.error)
  }

  /** A statement or cursor has come to its end, whichever. */
  #answered(exit: Exit.Exit<unknown, DbError>, holds = false): void {
    const member = this.#member
    if (member === undefined || (this.state._tag !== "Running" && this.state._tag !== "Streaming")) return
    const error = Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined
    if (!member.connection.isOpen()) return this.#broke(error)
    this.host.answered(member)
    // a server that has become read-only is not the one that the next statement should find
    if (error?._tag === "ReadOnlyError") {
      this.#doomed = true
      this.host.demoted()
    }
    if (this.#doomed && this.kind === "fiber" && this.#holdsNothing) {
      return this.invalidate("a read-only server")
    }
    if (holds) this.state = ready
    else this.#next()
  }

  #broke(error: DbError | undefined): void {
    const slot = this.#slot
    this.lost(error ?? new ConnectionLost({ outcome: "unknown", reason: "it was closed" }))
    this.told = true
    if (slot !== undefined) this.host.discard(slot, "lost")
  }

  /** A driver does not throw; of one that does nobody knows in which state its connection is. */
  #defective(): void {
    const slot = this.#slot
    this.lost(new ConnectionLost({ outcome: "unknown", reason: "its driver threw" }))
    if (slot !== undefined) this.host.discard(slot, "lost")
  }

  /** The connection is free: for the next statement of this lease, or to rest. */
  #next(): void {
    this.state = ready
    // a statement that is answered at once comes back here before it has returned: one loop starts them all
    if (this.#advancing) return
    this.#advancing = true
    while (this.state._tag === "Ready") {
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

  #interrupted(): void {
    if (this.state._tag !== "Running" && this.state._tag !== "Streaming") return
    this.state = stopping
    this.#stop()
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

  #tell(exit: Exit.Exit<void, AcquireError>): void {
    const notify = this.#notify
    this.#notify = undefined
    notify?.(exit)
  }
}
