/**
 * Every way in which the database can say no, as one closed union of small tagged classes.
 *
 * Each carries the facts to act on: `isRetryable` says whether the same call may succeed later without a change,
 * server errors keep the server's `errno` and `sqlState`, pool errors the pool's counts. None ever carries a secret
 * or a parameter's value. Names follow the reasons of `@effect/sql` 4 where those exist.
 *
 * @module
 * @since 0.1.0
 */
import * as Data from "effect/Data"

/**
 * How many connections a pool has in each state, and how many fibers wait.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolCounts {
  /** Connections that nobody holds and that are ready. */
  readonly idle: number
  /** Connections that a borrower holds, whether a statement runs on them or not. */
  readonly held: number
  /** Connections being opened. */
  readonly opening: number
  /** Connections being validated, reset, cancelled or closed by the pool. */
  readonly busy: number
  /** Fibers waiting for a connection. */
  readonly waiting: number
  /** The most connections the pool may have. */
  readonly max: number
}

/**
 * What every error says besides its tag.
 *
 * @since 0.1.0
 * @category models
 */
export interface Facts {
  /** Whether the same call, or the whole transaction where it ended one, may succeed later without a change. */
  readonly isRetryable: boolean
  /** What happened in one plain line, with the numbers that a person needs and a hint what to do. */
  readonly message: string
}

/** @internal */
export const formatCounts = (counts: PoolCounts): string =>
  `(max=${counts.max}, idle=${counts.idle}, held=${counts.held}, opening=${counts.opening}, busy=${counts.busy}, waiting=${counts.waiting})`

const sentence = (...parts: ReadonlyArray<string | undefined>): string =>
  parts.filter((part) => part !== undefined && part !== "").join(". ")

const identifiers = (
  error: { readonly errno?: number | undefined; readonly sqlState?: string | undefined }
): string => {
  const facts = [
    error.errno === undefined ? undefined : `errno ${error.errno}`,
    error.sqlState === undefined || error.sqlState === "" ? undefined : `sqlState ${error.sqlState}`
  ].filter((fact) => fact !== undefined)
  return facts.length === 0 ? "" : ` (${facts.join(", ")})`
}

/**
 * An option, URL or environment variable that cannot be used; nothing was opened.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidConfig extends Data.TaggedError("InvalidConfig")<{
  /** One plain sentence for each thing that is wrong. */
  readonly issues: ReadonlyArray<string>
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return sentence(...this.issues)
  }
}

/**
 * No connection became free within the acquire timeout although the server answers: everything is in use.
 *
 * @since 0.1.0
 * @category errors
 */
export class PoolExhausted extends Data.TaggedError("PoolExhausted")<{
  /** The pool's name. */
  readonly pool: string
  /** For how long this caller waited, in milliseconds. */
  readonly waitedMillis: number
  /** The pool as it was then. */
  readonly counts: PoolCounts
  /** Who has held a connection for the longest, if any is held. */
  readonly oldest?: {
    /** The name of its fiber. */
    readonly holder: string
    /** For how long it has held it, in milliseconds. */
    readonly heldMillis: number
    /** What it holds it for, and why that was not taken back. */
    readonly why: string
  } | undefined
  /** Why the last connect failed, if one has since the last success. */
  readonly lastConnectFailure?: ConnectFailure | undefined
  /** What to do about it, if there is more to say than that everything is in use. */
  readonly hint?: string | undefined
}> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return sentence(
      `No connection of pool ${this.pool} became free within ${this.waitedMillis} ms ${formatCounts(this.counts)}`,
      this.oldest &&
        `The oldest is held by ${this.oldest.holder} for ${this.oldest.heldMillis} ms (${this.oldest.why})`,
      this.lastConnectFailure && `The last connect failed: ${this.lastConnectFailure.message}`,
      this.hint
    )
  }
}

/**
 * No connection could be opened within the acquire timeout, and none was free or to be waited for: the server cannot be
 * reached. Others may still hold connections that have fallen silent.
 *
 * @since 0.1.0
 * @category errors
 */
export class PoolUnreachable extends Data.TaggedError("PoolUnreachable")<{
  /** The pool's name. */
  readonly pool: string
  /** For how long this caller waited, in milliseconds. */
  readonly waitedMillis: number
  /** The pool as it was then. */
  readonly counts: PoolCounts
  /** Why the last connect failed; absent when it has not been answered yet. */
  readonly cause?: ConnectFailure | undefined
}> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return sentence(
      `The server of pool ${this.pool} was not reached within ${this.waitedMillis} ms ${formatCounts(this.counts)}`,
      this.cause ? `The last connect failed: ${this.cause.message}` : "The connect has not been answered yet"
    )
  }
}

/**
 * More fibers wait than `maxWaiters` allows; this one was turned away at once.
 *
 * @since 0.1.0
 * @category errors
 */
export class TooManyWaiters extends Data.TaggedError("TooManyWaiters")<{
  /** The pool's name. */
  readonly pool: string
  /** How many the pool lets wait. */
  readonly maxWaiters: number
  /** The pool as it was then. */
  readonly counts: PoolCounts
}> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return `Pool ${this.pool} lets at most ${this.maxWaiters} fibers wait ${formatCounts(this.counts)}`
  }
}

/**
 * The pool is draining or closed and lends nothing any more.
 *
 * @since 0.1.0
 * @category errors
 */
export class PoolClosed extends Data.TaggedError("PoolClosed")<{
  /** The pool's name. */
  readonly pool: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return `Pool ${this.pool} is closed`
  }
}

/**
 * A connection could not be opened: refused, unresolved, timed out, stalled, TLS refused, unknown database.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConnectionError extends Data.TaggedError("ConnectionError")<{
  /** Host and port, or file, without credentials. */
  readonly target: string
  /** What the server, the driver or the system said. */
  readonly reason: string
  /** Whether a later attempt may succeed without a change of configuration. */
  readonly isRetryable: boolean
  /** The driver's or the system's name for the error, such as `ECONNREFUSED`. */
  readonly code?: string | undefined
  /** The server's number for the error; absent where the error is the system's. */
  readonly errno?: number | undefined
  /** The server's SQLSTATE. */
  readonly sqlState?: string | undefined
}> implements Facts {
  override get message(): string {
    return `Cannot connect to ${this.target}: ${this.reason}${identifiers(this)}`
  }
}

/**
 * The server refused the credentials; they are not tried again by themselves.
 *
 * @since 0.1.0
 * @category errors
 */
export class AuthenticationError extends Data.TaggedError("AuthenticationError")<{
  /** Host and port, without credentials. */
  readonly target: string
  /** What the server said. */
  readonly reason: string
  /** The server's number for the error. */
  readonly errno?: number | undefined
  /** The server's SQLSTATE. */
  readonly sqlState?: string | undefined
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return `${this.target} refused the credentials: ${this.reason}${identifiers(this)}`
  }
}

/**
 * Why a connect failed.
 *
 * @since 0.1.0
 * @category models
 */
export type ConnectFailure = ConnectionError | AuthenticationError

/**
 * What is known about a statement whose connection was lost: the server surely did not run it, it may have run it,
 * or its transaction was surely rolled back.
 *
 * @since 0.1.0
 * @category models
 */
export type Outcome = "not executed" | "unknown" | "rolled back"

/**
 * The connection broke under a statement, a transaction or a session.
 *
 * `outcome: "unknown"` means that the server may or may not have done the work: look before you repeat it.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConnectionLost extends Data.TaggedError("ConnectionLost")<{
  /** What is known about the work that was under way. */
  readonly outcome: Outcome
  /** How the connection was lost. */
  readonly reason: string
  /** The statement's text, if one was running, without the values of its parameters. */
  readonly statement?: string | undefined
  /** The driver's or the system's name for the error, such as `ECONNRESET`. */
  readonly code?: string | undefined
  /** The server's number for the error; absent where the error is the system's. */
  readonly errno?: number | undefined
  /** The server's SQLSTATE. */
  readonly sqlState?: string | undefined
}> implements Facts {
  get isRetryable(): boolean {
    return this.outcome !== "unknown"
  }
  override get message(): string {
    return sentence(
      `The connection was lost: ${this.reason}${identifiers(this)}`,
      this.outcome === "unknown"
        ? "Outcome unknown: the server may have executed the statement"
        : `Outcome: ${this.outcome}`
    )
  }
}

/**
 * The statement reads what an earlier one left on its connection, and that connection is not this fiber's any more.
 *
 * @since 0.1.0
 * @category errors
 */
export class AffinityLost extends Data.TaggedError("AffinityLost")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return sentence(
      "The statement reads what the previous statement left on its connection, which this fiber does not hold any more",
      "Run both on one connection: Effect.scoped with db.connection, db.session or db.transaction;"
        + " an insert's id is also in the result of db.execute"
    )
  }
}

/**
 * The shared connection does something else: a stream from it is open, or a transaction of another part of the program
 * has had it for as long as anybody waits for a connection. Nothing was sent.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConnectionBusy extends Data.TaggedError("ConnectionBusy")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** For how long the statement waited for its turn, in milliseconds; absent when a stream is open. */
  readonly waitedMillis?: number | undefined
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return this.waitedMillis === undefined
      ? sentence(
        "A stream is open on this connection, and a connection does one thing at a time",
        "End the stream first, or run one of the two outside the session, transaction or explicit connection"
      )
      : sentence(
        `The statement waited ${this.waitedMillis} ms for its turn on the connection of its session or transaction`,
        "A nested transaction, or a statement before it, still has the connection: do not wait inside of one for what"
          + " runs outside of it"
      )
  }
}

/**
 * The session or transaction to which the statement belongs has ended; nothing was sent.
 *
 * @since 0.1.0
 * @category errors
 */
export class SessionEnded extends Data.TaggedError("SessionEnded")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return sentence(
      "The session or transaction of this fiber has ended, and its connection serves others",
      "A fiber that outlives the session it was forked in has to be forked outside of it"
    )
  }
}

/**
 * A text that cannot be sent as one statement: empty, or more than one statement.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidStatement extends Data.TaggedError("InvalidStatement")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** Why it was refused, in words. */
  readonly reason: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return `The statement was not sent: ${this.reason}`
  }
}

/**
 * Parameters that do not fit the statement or cannot be sent; nothing was sent.
 *
 * @since 0.1.0
 * @category errors
 */
export class ParameterError extends Data.TaggedError("ParameterError")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** Why it was refused, in words. */
  readonly reason: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return `The statement was not sent: ${this.reason}`
  }
}

/**
 * A row did not fit the schema it was to be decoded with.
 *
 * @since 0.1.0
 * @category errors
 */
export class DecodeError extends Data.TaggedError("DecodeError")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** The schema's own description of what did not fit and where. */
  readonly reason: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return `The rows of the statement do not fit the schema: ${this.reason}`
  }
}

/**
 * A transaction that cannot be: an isolation level the database has not, or BEGIN inside a transaction opened by hand.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidTransaction extends Data.TaggedError("InvalidTransaction")<{
  /** Why it cannot be, in words. */
  readonly reason: string
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return this.reason
  }
}

/**
 * The server has rolled the whole transaction back because of an earlier statement, so that this one, or the COMMIT,
 * would stand alone: it was not sent. `cause` is what the earlier statement was told, such as a deadlock.
 *
 * @since 0.1.0
 * @category errors
 */
export class TransactionAborted extends Data.TaggedError("TransactionAborted")<{
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** What the earlier statement was told. */
  readonly cause: DbError
}> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return sentence(
      `The server has rolled back the transaction: ${this.cause.message}`,
      "Let that error end the transaction; db.transaction with `retry` runs the whole of it again"
    )
  }
}

/**
 * What the server said of a statement it refused, and the statement's text (without parameter values).
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerRefusal {
  /** The statement's text, without the values of its parameters. */
  readonly statement: string
  /** What the server said. */
  readonly reason: string
  /** The server's name for the error, such as `ER_DUP_ENTRY`; not every error has one. */
  readonly code?: string | undefined
  /** The server's number for the error, such as 1062. */
  readonly errno?: number | undefined
  /** The server's SQLSTATE, five characters; SQLite has none. */
  readonly sqlState?: string | undefined
}

const describe = (what: string, error: ServerRefusal): string => `${what}: ${error.reason}${identifiers(error)}`

/**
 * The server could not parse the statement, or it names a table or column that does not exist.
 *
 * @since 0.1.0
 * @category errors
 */
export class SqlSyntaxError extends Data.TaggedError("SqlSyntaxError")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("The statement is not valid", this)
  }
}

/**
 * A unique key already has this value.
 *
 * @since 0.1.0
 * @category errors
 */
export class UniqueViolation extends Data.TaggedError("UniqueViolation")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("A unique key is violated", this)
  }
}

/**
 * A foreign key, check or NOT NULL constraint forbids the change.
 *
 * @since 0.1.0
 * @category errors
 */
export class ConstraintError extends Data.TaggedError("ConstraintError")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("A constraint is violated", this)
  }
}

/**
 * The user may not do this.
 *
 * @since 0.1.0
 * @category errors
 */
export class AuthorizationError extends Data.TaggedError("AuthorizationError")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("Not permitted", this)
  }
}

/**
 * The server broke a deadlock by rolling back this transaction; the whole transaction may be run again.
 *
 * @since 0.1.0
 * @category errors
 */
export class DeadlockError extends Data.TaggedError("DeadlockError")<ServerRefusal> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return describe("Deadlock", this)
  }
}

/**
 * The transaction conflicts with another one that has committed; the whole transaction may be run again.
 *
 * @since 0.1.0
 * @category errors
 */
export class SerializationError extends Data.TaggedError("SerializationError")<ServerRefusal> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return describe("The transaction conflicts with another", this)
  }
}

/**
 * A lock was not had in time. The server rolled back the statement only: roll back the transaction all the same.
 *
 * @since 0.1.0
 * @category errors
 */
export class LockTimeoutError extends Data.TaggedError("LockTimeoutError")<ServerRefusal> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return describe("A lock was not granted in time", this)
  }
}

/**
 * The statement ran longer than its time limit and was stopped.
 *
 * @since 0.1.0
 * @category errors
 */
export class StatementTimeoutError extends Data.TaggedError("StatementTimeoutError")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("The statement exceeded its time limit", this)
  }
}

/**
 * Somebody stopped the statement on the server (`KILL QUERY`).
 *
 * @since 0.1.0
 * @category errors
 */
export class StatementCancelled extends Data.TaggedError("StatementCancelled")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("The statement was cancelled", this)
  }
}

/**
 * The server is read-only, as after a failover: the write was refused and not executed.
 *
 * @since 0.1.0
 * @category errors
 */
export class ReadOnlyError extends Data.TaggedError("ReadOnlyError")<ServerRefusal> implements Facts {
  readonly isRetryable = true
  override get message(): string {
    return describe("The server is read-only", this)
  }
}

/**
 * Any other refusal of a statement by the server.
 *
 * @since 0.1.0
 * @category errors
 */
export class StatementError extends Data.TaggedError("StatementError")<ServerRefusal> implements Facts {
  readonly isRetryable = false
  override get message(): string {
    return describe("The statement failed", this)
  }
}

/**
 * The server's refusals of one statement, after which the connection is as good as before.
 *
 * @since 0.1.0
 * @category models
 */
export type StatementFailure =
  | SqlSyntaxError
  | UniqueViolation
  | ConstraintError
  | AuthorizationError
  | DeadlockError
  | SerializationError
  | LockTimeoutError
  | StatementTimeoutError
  | StatementCancelled
  | ReadOnlyError
  | StatementError

/**
 * Why no connection was had.
 *
 * @since 0.1.0
 * @category models
 */
export type AcquireError = PoolExhausted | PoolUnreachable | TooManyWaiters | PoolClosed | ConnectFailure

/**
 * Every error of this library except {@link InvalidConfig}, which only building a layer gives.
 *
 * @since 0.1.0
 * @category models
 */
export type DbError =
  | AcquireError
  | ConnectionLost
  | AffinityLost
  | ConnectionBusy
  | SessionEnded
  | InvalidStatement
  | ParameterError
  | DecodeError
  | InvalidTransaction
  | TransactionAborted
  | StatementFailure

const classes = [
  PoolExhausted,
  PoolUnreachable,
  TooManyWaiters,
  PoolClosed,
  ConnectionError,
  AuthenticationError,
  ConnectionLost,
  AffinityLost,
  ConnectionBusy,
  SessionEnded,
  InvalidStatement,
  ParameterError,
  DecodeError,
  InvalidTransaction,
  TransactionAborted,
  SqlSyntaxError,
  UniqueViolation,
  ConstraintError,
  AuthorizationError,
  DeadlockError,
  SerializationError,
  LockTimeoutError,
  StatementTimeoutError,
  StatementCancelled,
  ReadOnlyError,
  StatementError
] as const

/** Errors that cause each other in a circle are not followed for ever. */
const deepestCause = 16

/**
 * This library's error in any error: itself, or the first in its chain of `cause`s, where `SqlError` of `@effect/sql` and
 * errors of one's own keep it.
 *
 * @since 0.1.0
 * @category accessors
 */
export const find = (error: unknown): DbError | undefined => {
  let found = error
  for (let depth = 0; depth < deepestCause; depth++) {
    if (classes.some((known) => found instanceof known)) return found as DbError
    if (typeof found !== "object" || found === null || !("cause" in found)) return undefined
    found = found.cause
  }
  return undefined
}

/** @internal How a connection broke, whatever became of what ran on it. */
export const lossText = (error: DbError): string => error._tag === "ConnectionLost" ? error.reason : error.message
