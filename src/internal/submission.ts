/**
 * One statement's way to the connection of a lease and back: it waits for the grant and for its turn, is on the connection,
 * and is settled once, whatever becomes of the lease or of its fiber meanwhile.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import { ConnectionBusy, type DbError, StatementCancelled } from "../DbError.js"
import type { Connection, Result, Statement } from "../Driver.js"
import { awaiting, type Restore, type Started, unsafeRestoring } from "./awaiting.js"
import type { Lease } from "./lease.js"
import type { Submitted } from "./leaseHost.js"
import { noteFate, outOfTime, outside, stoppedRead, toldOutcome, type Turn } from "./leaseModel.js"
import type { Node } from "./linkedList.js"
import type { Section, Waiting } from "./turns.js"

/** @internal */
export abstract class Submission<A> implements Submitted, Started {
  abstract readonly streams: boolean
  #phase: "granting" | "waiting" | "started" | "settled" = "waiting"
  /** Its place among those that wait for their turn. */
  #place: Node<Waiting> | undefined
  #stopClock: (() => void) | undefined
  #afterwards: (() => void) | undefined

  constructor(
    readonly lease: Lease,
    readonly statement: Statement,
    readonly turn: Turn,
    readonly resume: (exit: Exit.Exit<A, DbError>) => void
  ) {}

  /** Called by the lease, with the connection that is the statement's until it has told the lease that it is answered. */
  abstract begin(connection: Connection): void

  get section(): Section | undefined {
    return this.turn.section
  }

  /** Starts the statement now, or waits for that. Synchronous: it may be settled when this returns. */
  submit({ currentScheduler }: Fiber.RuntimeFiber<unknown, unknown>): this {
    const { lease } = this
    if (lease.state._tag === "Waiting") {
      this.#phase = "granting"
      // not from inside of the event that grants it; the fiber itself goes on with the answer
      lease.onGrant((granted) => {
        if (Exit.isSuccess(granted)) currentScheduler.scheduleTask(() => this.start(), 0)
        else this.settle(Exit.failCause(granted.cause))
      })
    } else if (lease.mustWait(this)) this.#wait()
    else this.start()
    return this
  }

  start(): void {
    // what the grant has started may have been interrupted since
    if (this.#phase === "settled") return
    this.#leaveQueue()
    this.#phase = "started"
    this.lease.start(this)
  }

  settle(exit: Exit.Exit<A, DbError>): void {
    this.#phase = "settled"
    this.#stopClock?.()
    this.resume(exit)
    this.#afterwards?.()
  }

  interrupted(): Effect.Effect<void> {
    const { lease, turn } = this
    this.#leaveQueue()
    switch (this.#phase) {
      case "granting":
        this.#phase = "settled"
        return Effect.sync(() => lease.ungrant())
      case "started":
        return turn.patient === true ? this.#patiently() : Effect.sync(() => lease.interrupt())
      case "waiting":
      case "settled":
        return Effect.void
    }
  }

  #wait(): void {
    const { host } = this.lease
    const waitedMillis = host.limits.acquireTimeout
    this.#place = this.lease.sections.enqueue(this)
    this.#stopClock = host.after(waitedMillis, () => {
      if (this.#place === undefined) return
      this.#leaveQueue()
      this.settle(Exit.fail(new ConnectionBusy({ statement: this.statement.sql, waitedMillis })))
    })
  }

  #leaveQueue(): void {
    const place = this.#place
    if (place === undefined) return
    this.#place = undefined
    this.#stopClock?.()
    // who is started has left it already
    place.list?.remove(place)
  }

  /** Waits for the answer as long as a cancel may take. */
  #patiently(): Effect.Effect<void> {
    const { lease } = this
    const answered = Effect.async<void>((resume) => {
      if (this.#phase === "settled") resume(Effect.void)
      else this.#afterwards = () => resume(Effect.void)
    })
    return lease.host.patiently(answered, () => lease.invalidate("an unanswered end of a transaction"))
  }
}

/** A statement that is answered as a whole. */
class RunSubmission<A> extends Submission<A> {
  readonly streams = false

  constructor(
    lease: Lease,
    statement: Statement,
    turn: Turn,
    resume: (exit: Exit.Exit<A, DbError>) => void,
    readonly shape: (result: Result) => A
  ) {
    super(lease, statement, turn, resume)
  }

  begin(connection: Connection): void {
    const { lease, statement, turn } = this
    if (turn.enters !== undefined) lease.sections.section = turn.enters
    const noted = isNoted(connection, turn)
    const inTime = limited(lease, turn)
    connection.run(statement, (answered) => {
      const whole = lease.state._tag === "Running" ? answered : stoppedRead(statement, answered)
      const exit = inTime === undefined ? whole : inTime(statement, whole)
      if (noted) note(connection, statement, turn, exit)
      this.#answered(connection, exit)
    })
  }

  #answered(connection: Connection, exit: Exit.Exit<Result, DbError>): void {
    const { lease, statement, turn } = this
    // of the connection, which the lease may have given up by now
    const answer = connection.session() === "transaction" ? toldOutcome(statement, turn, exit) : exit
    // who runs on the fiber's own may run it again instead
    if (lease.kind !== "fiber" && turn.opens !== true) lease.report(answer)
    lease.history.add(statement, exit)
    if (turn.enters !== undefined && Exit.isFailure(exit) && lease.state._tag === "Running") {
      // one that was interrupted may have been done: then its section has to undo it
      lease.sections.section = turn.section
    }
    if (turn.leaves === true && Exit.isSuccess(exit) && turn.section !== undefined) lease.sections.pop(turn.section)
    lease.answered(exit, turn.holdsFor)
    this.settle(shaped(answer, this.shape))
  }
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

/** @internal Whether the statement's answer means something for the transaction that it runs in. */
export const isNoted = (connection: Connection, { final, section }: Turn): boolean =>
  section !== undefined && final === undefined && connection.session() === "transaction"

/** @internal Notes what the answer to a statement means for the whole of its transaction. */
export const note = (
  connection: Connection,
  statement: Statement,
  { section }: Turn,
  exit: Exit.Exit<unknown, DbError>
): void => {
  if (section !== undefined) noteFate(section.whole, statement, exit, connection.isOpen(), connection.session())
}

/** @internal What is said of an answer that may have come too late; `partial` when there may be more of it to come. */
export type InTime = <A>(statement: Statement, exit: Exit.Exit<A, DbError>, partial?: boolean) => Exit.Exit<A, DbError>

/**
 * @internal Stops what runs now when its time is over. What it answers tells what to say of the answer, which comes all the
 * same: that of the server, or of the loss of a connection on which nothing could be stopped.
 */
export const limited = (
  lease: Lease,
  { limit = lease.host.limits.statementTimeout }: Turn
): InTime | undefined => {
  if (limit === Infinity) return undefined
  let over = false
  const stop = lease.host.after(limit, () => {
    over = true
    lease.interrupt()
  })
  return (statement, exit, partial = false) => {
    stop()
    if (!over) return exit
    const told = partial && Exit.isSuccess(exit)
      ? Exit.fail(new StatementCancelled({ statement: statement.sql, reason: "" }))
      : exit
    const answer = outOfTime(statement, limit, told)
    lease.overdue = Exit.isFailure(answer) && answer.cause._tag === "Fail" &&
      answer.cause.error._tag === "ConnectionLost"
    return answer
  }
}

/** @internal Runs one statement on a lease, for the fiber that calls and is resumed with what the shape makes of the answer. */
export const unsafeRun = <A>(
  lease: Lease,
  statement: Statement,
  turn: Turn,
  shape: (result: Result) => A,
  resume: (exit: Exit.Exit<A, DbError>) => void,
  fiber: Fiber.RuntimeFiber<unknown, unknown>
): Started => new RunSubmission(lease, statement, turn, resume, shape).submit(fiber)

/** @internal What {@link runOn} does, then what `Effect.map` and `Effect.catchAll` would do, at a fraction of their cost. */
export const runShaped = <A, A2 = never, E2 = DbError>(
  lease: Lease,
  statement: Statement,
  turn: Turn,
  shape: (result: Result) => A,
  failed: ((error: DbError) => Effect.Effect<A2, E2>) | undefined
): Effect.Effect<A | A2, DbError | E2> =>
  awaiting<A, DbError, A2, E2>((resume, fiber) => unsafeRun(lease, statement, turn, shape, resume, fiber), failed)

/**
 * @internal Runs one statement on a lease, after those that came before it. Interruption stops it on the server, without
 * waiting for that.
 */
export const runOn = (lease: Lease, statement: Statement, turn: Turn = outside): Effect.Effect<Result, DbError> =>
  runShaped(lease, statement, turn, identity, undefined)

/** @internal What {@link runOn} does where the fiber cannot be interrupted, as interruptible as `restore` makes it. */
export const unsafeRunRestoring = <E2>(
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  restore: Restore,
  lease: Lease,
  statement: Statement,
  turn: Turn,
  failed?: (error: DbError) => Effect.Effect<never, DbError | E2>
): Effect.Effect<Result, DbError | E2> =>
  unsafeRestoring<Result, DbError, never, DbError | E2>(
    fiber,
    restore,
    (resume, fiber) => unsafeRun(lease, statement, turn, identity, resume, fiber),
    failed
  )
