/**
 * A statement on a lease whose rows are read a chunk at a time.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { DbError } from "../DbError.js"
import type { Connection, Cursor, Row, Statement } from "../Driver.js"
import { awaiting, nothingStarted, type Started } from "./awaiting.js"
import type { Lease } from "./lease.js"
import { outside, toldOutcome, type Turn } from "./leaseModel.js"
import { isNoted, limited, note, Submission } from "./submission.js"

/** @internal Rows a chunk at a time; `pull` fails with `None` at the end. */
export interface OpenCursor {
  readonly columns: () => ReadonlyArray<string>
  readonly pull: Effect.Effect<ReadonlyArray<Row>, Option.Option<DbError>>
}

type Chunk = Exit.Exit<ReadonlyArray<Row>, Option.Option<DbError>>

/** A cursor that is opened; its answer is the cursor, which then runs until its last row, or its end. */
class CursorSubmission extends Submission<Cursor> {
  readonly streams = true

  constructor(readonly reading: Reading, resume: (exit: Exit.Exit<Cursor, DbError>) => void) {
    super(reading.lease, reading.statement, reading.turn, resume)
  }

  begin(connection: Connection): void {
    this.reading.opened(connection)
    this.settle(Exit.succeed(connection.stream(this.statement)))
  }
}

/** Where the reading of a cursor is. */
class Reading {
  /** Whether it has begun and not ended. */
  active = false
  /** Whether a chunk has been asked for, and one has been given. */
  #asked = false
  #given = false
  #connection: Connection | undefined
  #noted = false

  constructor(readonly lease: Lease, readonly statement: Statement, readonly turn: Turn) {}

  opened(connection: Connection): void {
    this.active = true
    this.#connection = connection
    this.#noted = isNoted(connection, this.turn)
  }

  /** Stops it on the server, unless it has ended: then it may be another's statement that runs. */
  readonly end: Effect.Effect<void> = Effect.sync(() => {
    if (this.active) this.lease.interrupt()
  })

  readonly #asking: Started = { interrupted: () => this.end }

  next(cursor: Cursor, resume: (chunk: Chunk) => void): Started {
    if (!this.active) resume(Exit.fail(Option.none()))
    // a stream whose connection was taken from it, or that was interrupted while it read, must not look complete
    else if (this.lease.state._tag !== "Streaming" || this.#asked) resume(this.#refused())
    else {
      this.#ask(cursor, resume)
      return this.#asking
    }
    return nothingStarted
  }

  #ask(cursor: Cursor, resume: (chunk: Chunk) => void): void {
    this.#asked = true
    const { lease, statement, turn } = this
    const inTime = limited(lease, turn)
    cursor.next((answered) => {
      // rows that came while the statement was being stopped are not all
      const read = inTime === undefined ? answered : inTime(statement, answered, true)
      const connection = this.#connection
      if (this.#noted && connection !== undefined) note(connection, statement, turn, read)
      const exit = connection?.session() === "transaction" ? toldOutcome(statement, turn, read) : read
      const streaming = lease.state._tag === "Streaming"
      if (streaming && Exit.isSuccess(exit) && exit.value.length > 0) {
        this.#asked = false
        this.#given = true
        return resume(Exit.succeed(exit.value))
      }
      this.active = false
      // a stream of its own may begin again before it has given anything
      if (this.#given || lease.kind !== "stream") lease.report(exit)
      lease.answered(exit)
      if (Exit.isFailure(exit)) resume(Exit.mapError(Exit.failCause(exit.cause), Option.some))
      else resume(streaming ? Exit.fail(Option.none()) : this.#refused())
    })
  }

  #refused(): Chunk {
    return Exit.mapError(this.lease.refusal(this.statement, this.turn), Option.some)
  }
}

/** @internal A cursor over the statement's rows, for as long as the scope; ending it early stops the statement on the server. */
export const cursor = (
  lease: Lease,
  statement: Statement,
  turn: Turn = outside
): Effect.Effect<OpenCursor, DbError, Scope.Scope> =>
  Effect.suspend(() => {
    const reading = new Reading(lease, statement, turn)
    const open = awaiting<Cursor, DbError>((resume, fiber) => new CursorSubmission(reading, resume).submit(fiber))
    // the finalizer comes first: nothing can be lost between the start of the cursor and its registration
    return Effect.zipRight(
      Effect.addFinalizer(() => reading.end),
      Effect.map(open, (cursor) => ({
        columns: cursor.columns,
        pull: awaiting<ReadonlyArray<Row>, Option.Option<DbError>>((resume) => reading.next(cursor, resume))
      }))
    )
  })
