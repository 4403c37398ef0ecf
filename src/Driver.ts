/**
 * The contract with a database driver: types and the sentences that a driver must keep. The pool knows databases
 * through this file alone.
 *
 * A driver opens connections and speaks one protocol. It keeps no pool, retries nothing, starts no timer: the pool
 * bounds every effect here with a timeout and interrupts it. What it must know by itself is whether a connection is
 * still open, whether its session is pristine, and whether a lost statement can have reached the server.
 *
 * @module
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Redacted from "effect/Redacted"
import type { ConnectFailure, DbError } from "./DbError.js"
import type { StatementTraits } from "./internal/sessionState.js"

export type { StatementTraits } from "./internal/sessionState.js"

/**
 * One row: the column values in the order of the select list. Integers beyond ±2⁵³ are `bigint`, DECIMAL is text,
 * BLOB is `Uint8Array`, NULL is `null`.
 *
 * @since 0.1.0
 * @category models
 */
export type Row = ReadonlyArray<unknown>

/**
 * One statement, ready to send: `?` placeholders only, as many as `params`, none of them `undefined`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Statement {
  /** The text. */
  readonly sql: string
  /** The values for its placeholders, each one that {@link Driver.rejectParameter} lets pass. */
  readonly params: ReadonlyArray<unknown>
  /** What the text says. */
  readonly traits: StatementTraits
  /** Not prepared: sent as a text with the parameters written into it. Only so may it hold several statements. */
  readonly unprepared?: boolean | undefined
  /** Column values as the ecosystem's own client of the database gives them, where that differs from {@link Row}. */
  readonly compatible?: boolean | undefined
}

/**
 * What a statement gave back. A statement without rows has no columns; one with rows has affected none. Of several
 * results it is the first with rows, or else the last.
 *
 * @since 0.1.0
 * @category models
 */
export interface Result {
  /** The names of the columns in the order of the select list; empty for a statement without rows. */
  readonly columns: ReadonlyArray<string>
  /** The rows in the order in which the server sent them. */
  readonly rows: ReadonlyArray<Row>
  /** Rows changed, inserted or deleted (matched rows for an UPDATE on MySQL, as its protocol counts them). */
  readonly affectedRows: number
  /** The AUTO_INCREMENT or row id of the first inserted row; 0 when there is none. */
  readonly insertId: number | bigint
  /** How many warnings the server has for the statement. */
  readonly warnings: number
  /** What the server says of it besides, such as MySQL's `Rows matched: 1  Changed: 0  Warnings: 0`. */
  readonly info?: string | undefined
  /** All results in order, where there are several: of several statements, or of a procedure. */
  readonly all?: ReadonlyArray<Result> | undefined
}

/**
 * Whether the next borrower could tell that somebody used this connection: `clean` it could not, `changed` there is a
 * variable, temporary table, lock, setting or the like, `transaction` a transaction is open as well. `unknown`: its borrower
 * has put nothing there, but a refused statement may have, by a trigger or a function, so that a reset is due before
 * anybody else has it. In doubt a driver says `changed`.
 *
 * @since 0.1.0
 * @category models
 */
export type SessionState = "clean" | "unknown" | "changed" | "transaction"

/** @internal Whether the session holds nothing that its borrower would miss. */
export const holdsNothing = (session: SessionState): boolean => session === "clean" || session === "unknown"

/**
 * Rows of a running statement, a chunk at a time.
 *
 * @since 0.1.0
 * @category models
 */
export interface Cursor {
  /** The names of the columns; empty until the first chunk has come. */
  readonly columns: () => ReadonlyArray<string>
  /**
   * Asks for the next chunk; calls back exactly once. An empty chunk is the end, after which, as after a failure, the
   * statement has ended and nothing more may be asked. Nothing is read from the server while nobody asks, beyond what
   * is under way.
   */
  readonly next: (done: (chunk: Exit.Exit<ReadonlyArray<Row>, DbError>) => void) => void
}

/**
 * One open connection. It runs one statement (or cursor) at a time; the pool takes care of that.
 *
 * @since 0.1.0
 * @category models
 */
export interface Connection {
  /** What the server calls this connection (MySQL's `CONNECTION_ID()`). */
  readonly id: string
  /** False as soon as the connection is known to be lost or closed. No I/O. */
  readonly isOpen: () => boolean
  /** What the session holds; of a connection that broke, what it held. No I/O. */
  readonly session: () => SessionState
  /**
   * Starts a statement and calls `done` exactly once, when the server has answered or the connection is lost, never
   * before `run` has returned unless the result is known at once. It does not throw. A failure that ends the
   * connection is `ConnectionLost`; its outcome is `not executed` only when the server surely did not run the
   * statement, and `isOpen` is false by then. All other failures leave the connection usable.
   */
  readonly run: (statement: Statement, done: (result: Exit.Exit<Result, DbError>) => void) => void
  /** Starts a statement whose rows are read a chunk at a time. It does not throw and waits for nothing. */
  readonly stream: (statement: Statement) => Cursor
  /** Asks the server whether it is still there. Fails with `ConnectionLost`. */
  readonly ping: Effect.Effect<void, DbError>
  /**
   * Makes the session pristine again: rolled back, unlocked, no variable, no temporary table, character set, time
   * zone, default database and initial SQL as after connecting; `session()` is `clean` afterwards. One round trip.
   */
  readonly reset: Effect.Effect<void, DbError>
  /**
   * Stops what runs, a statement or a cursor. Succeeds when both the statement and the request to stop it have been
   * answered (a statement that was faster is fine), so that nothing can hit the next statement; fails when that cannot
   * be known, after which the connection must be destroyed. What ran may have been answered by the time it is asked.
   */
  readonly cancel: Effect.Effect<void, DbError>
  /** Says good-bye to the server and waits until the connection is closed. Interruption destroys it. Never fails. */
  readonly close: Effect.Effect<void>
  /** Closes the connection at once, telling nobody; a running statement ends as `ConnectionLost`. Idempotent. */
  readonly destroy: () => void
  /**
   * Registers the one listener that is called, once, when the connection breaks while nothing runs on it, or with a failure
   * that is not `ConnectionLost`.
   */
  readonly onLost: (listener: (error: DbError) => void) => void
}

/**
 * The statements that a dialect needs for a transaction.
 *
 * @since 0.1.0
 * @category models
 */
export interface TransactionSyntax {
  /** The level of every transaction, where there is only one. */
  readonly onlyIsolation?: Isolation | undefined
  /** The statements that open a transaction, in order; `undefined` when the database has no such level. */
  readonly begin: (options: {
    readonly isolation?: Isolation | undefined
    readonly readOnly?: boolean | undefined
  }) => ReadonlyArray<string> | undefined
  /** The statements that undo what `begin` set besides the transaction, after its end. */
  readonly after?: ((options: { readonly readOnly?: boolean | undefined }) => ReadonlyArray<string>) | undefined
  /** Commits the transaction. */
  readonly commit: string
  /** Undoes the transaction; harmless where none is open, or it fails there. */
  readonly rollback: string
  /** Sets a savepoint. Names are made by the pool, of letters, digits and underscores. */
  readonly savepoint: (name: string) => string
  /** Forgets a savepoint, keeping the work since. */
  readonly releaseSavepoint: (name: string) => string
  /** Undoes the work since a savepoint, keeping the savepoint. */
  readonly rollbackTo: (name: string) => string
}

/**
 * The isolation levels of the SQL standard.
 *
 * @since 0.1.0
 * @category models
 */
export type Isolation = "READ UNCOMMITTED" | "READ COMMITTED" | "REPEATABLE READ" | "SERIALIZABLE"

/**
 * A server and a login.
 *
 * @since 0.1.0
 * @category models
 */
export interface Address {
  /** A name or an address. */
  readonly host: string
  /** A TCP port. */
  readonly port: number
  /** The user, where one is known beforehand. */
  readonly username?: string | undefined
  /** The password, where one is known beforehand. */
  readonly password?: Redacted.Redacted | undefined
}

/**
 * A database, ready to be connected to.
 *
 * @since 0.1.0
 * @category models
 */
export interface Driver {
  /** How its SQL is read: quotes, comments, what a statement leaves in its session. MariaDB is `mysql`. */
  readonly dialect: "mysql" | "sqlite"
  /** Host and port or file, without credentials: what errors and statistics call the server. */
  readonly target: string
  /** The default database or schema, if there is one. */
  readonly namespace?: string | undefined
  /** Where and as whom it logs in, for tools that do so by themselves; without what a provider of credentials gives. */
  readonly address?: Address | undefined
  /** The most connections this database allows in one pool, where there is a limit (1 for SQLite in memory). */
  readonly maxConnections?: number | undefined
  /** How its transactions are spelled. */
  readonly transaction: TransactionSyntax
  /**
   * The query for the id that the session's last INSERT generated, where a reply's `insertId` does not tell a generated
   * id from one that was given (MySQL's manual, "mysql_insert_id()" against "LAST_INSERT_ID()").
   */
  readonly generatedId?: string | undefined
  /** Whether an unprepared text may hold several statements; absent, it may not. */
  readonly severalStatements?: boolean | undefined
  /** The reason why a parameter's value cannot be sent, or `undefined` when it can. Never names the value. */
  readonly rejectParameter: (value: unknown) => string | undefined
  /**
   * Opens one connection with a pristine session. Interruption closes what is half open. A name is resolved at each
   * connect. `isRetryable` on the error says whether the pool should try again.
   */
  readonly connect: Effect.Effect<Connection, ConnectFailure>
}
