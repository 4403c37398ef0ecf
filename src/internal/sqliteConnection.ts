/**
 * One connection: a handle that can be exchanged for a new one, and what its statements may have left on it.
 *
 * A statement runs while its caller looks on: SQLite is a library, and its answer is there when the call returns. An
 * open cursor, or a statement that waits for a lock, is the only thing that goes on after a call.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import type * as DbError from "../DbError.js"
import type { Connection, Cursor, Result, Row, SessionState, Statement } from "../Driver.js"
import { cancelled, lost, refusal } from "./sqliteErrors.js"
import { closeHandle, dropTemporary, type Handle, prepare } from "./sqliteHandle.js"
import { isLockTimeout, patiently } from "./sqliteLocks.js"
import { admit, columnNames, execute, noResult, openSource, type Source, take } from "./sqliteStatement.js"
import type { SqliteValue } from "./sqliteValues.js"

/** What the statements so far may have left besides a transaction: nothing, temporary objects alone, or anything. */
type Traces = "none" | "temporary" | "anything"

/** They change tables and rows, no more: for everything else that a session has it takes PRAGMA, ATTACH or DETACH. */
const temporaryAtMost = new Set(
  ["CREATE", "ALTER", "DROP", "INSERT", "REPLACE", "UPDATE", "DELETE", "SELECT", "VALUES", "WITH"]
)

/** @internal Has the connection take no writes. The comment tells it from a program's own statement, which leaves a trace. */
export const forbidWrites = "PRAGMA query_only = 1 /* for a transaction */"

/** @internal Takes {@link forbidWrites} back, unless the connection had taken no writes before. */
export const allowWrites = "PRAGMA query_only = 0 /* for a transaction */"

const isReadOnly = (handle: Handle): boolean => {
  const [row] = prepare(handle, "PRAGMA query_only").all()
  return String(row) === "1"
}

/** Transactions and savepoints leave nothing that `isTransaction` does not tell. */
const tracesOf = ({ changesSession, transaction, verb }: Statement["traits"]): Traces => {
  const ofTransaction = transaction === "begin" || verb === "SAVEPOINT" || verb === "RELEASE" || verb === "ROLLBACK"
  if (!changesSession || ofTransaction) return "none"
  return temporaryAtMost.has(verb) ? "temporary" : "anything"
}

const rowsInChunk = 256

/**
 * What the connections of one driver have in common.
 *
 * @internal
 */
export interface Shared {
  readonly busyTimeout: number
  readonly open: () => Handle
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.RuntimeFiber<A, E>
  readonly forget: (connection: Connection) => void
}

/** @internal */
export class SqliteConnection implements Connection {
  /** Absent while the session is given up for a new one, and after the end. */
  #handle: Handle | undefined
  #ended = false
  #traces: Traces = "none"
  /** Whether it takes no writes for a transaction's sake alone. */
  #writesForbidden = false
  #waiting: Fiber.RuntimeFiber<unknown, unknown> | undefined
  #endCursor: ((why: DbError.DbError) => void) | undefined
  readonly #shared: Shared

  constructor(readonly id: string, shared: Shared) {
    this.#handle = shared.open()
    this.#shared = shared
  }

  readonly isOpen = (): boolean => this.#handle !== undefined

  readonly session = (): SessionState => {
    if (this.#handle?.database.isTransaction === true) return "transaction"
    return this.#traces === "none" && !this.#writesForbidden ? "clean" : "changed"
  }

  readonly run = (statement: Statement, done: (result: Exit.Exit<Result, DbError.DbError>) => void): void => {
    const params = admit(statement)
    if (Either.isLeft(params)) return done(Exit.fail(params.left))
    if (statement.sql === allowWrites && !this.#writesForbidden) return done(Exit.succeed(noResult))
    this.#perform(statement, (handle) => {
      if (statement.sql === forbidWrites) this.#writesForbidden ||= !isReadOnly(handle)
      if (statement.sql === allowWrites) this.#writesForbidden = false
      return execute(handle, statement, params.right)
    }, done)
  }

  readonly stream = (statement: Statement): Cursor => {
    const params = admit(statement)
    return Either.isRight(params)
      ? this.#openCursor(statement, params.right)
      : { columns: () => [], next: (done) => done(Exit.fail(params.left)) }
  }

  /** There is no server to ask; this finds out whether the handle still works. */
  readonly ping: Effect.Effect<void, DbError.DbError> = Effect.suspend(() =>
    Either.mapLeft(
      this.#attempt("SELECT 1", ({ database }) => database.exec("SELECT 1")),
      (error) => lost("SELECT 1", error.message)
    )
  )

  /**
   * A changed session goes with its handle: nothing else surely takes back every PRAGMA and ATTACH. The old handle is
   * closed first, since it may hold the file for itself alone (`PRAGMA locking_mode`). Temporary objects alone are
   * dropped instead: on Node 20 a closed handle keeps its file descriptors until garbage collection.
   */
  readonly reset: Effect.Effect<void, DbError.DbError> = Effect.suspend(() => {
    return Effect.mapError(patiently(() => this.#restore(), isLockTimeout, this.#shared.busyTimeout), (error) => {
      this.destroy()
      return lost("reset", error.message)
    })
  })

  readonly cancel: Effect.Effect<void, DbError.DbError> = Effect.suspend(() => {
    const waiting = this.#waiting
    this.#endCursor?.(cancelled("the cursor"))
    return waiting === undefined ? Effect.void : Effect.asVoid(Fiber.interrupt(waiting))
  })

  readonly close: Effect.Effect<void> = Effect.sync(() => this.destroy())

  readonly destroy = (): void => {
    if (this.#ended) return
    this.#ended = true
    this.#shared.forget(this)
    const handle = this.#handle
    // Gone before the waiting statement hears of it, so that this one knows why.
    this.#handle = undefined
    this.#waiting?.unsafeInterruptAsFork(FiberId.none)
    this.#endCursor?.(lost("the cursor"))
    if (handle !== undefined) closeHandle(handle)
  }

  /** Nothing can break while nothing runs. */
  readonly onLost = (): void => {}

  #attempt<A>(sql: string, step: (handle: Handle) => A): Either.Either<A, DbError.DbError> {
    const handle = this.#handle
    if (handle === undefined) return Either.left(lost(sql))
    return Either.try({
      try: () => step(handle),
      catch: (error) => refusal(error, sql, handle.database.isTransaction)
    })
  }

  #perform<A>(
    { sql, traits }: Statement,
    step: (handle: Handle) => A,
    done: (result: Exit.Exit<A, DbError.DbError>) => void,
    mayWait = true
  ): void {
    const traces = sql === forbidWrites || sql === allowWrites ? "none" : tracesOf(traits)
    if (this.#traces !== "anything" && traces !== "none") this.#traces = traces
    const attempt = (): Either.Either<A, DbError.DbError> => this.#attempt(sql, step)
    const first = attempt()
    if (!mayWait || !isLockTimeout(first)) return done(Exit.fromEither(first))
    const fiber = this.#shared.fork(patiently(attempt, isLockTimeout, this.#shared.busyTimeout, first))
    this.#waiting = fiber
    fiber.addObserver((exit) => {
      this.#waiting = undefined
      done(Exit.isInterrupted(exit) ? Exit.fail(this.isOpen() ? cancelled(sql) : lost(sql)) : exit)
    })
  }

  #restore(): Either.Either<void, DbError.DbError> {
    if (this.#ended) return Either.left(lost("reset"))
    const old = this.#handle
    return Either.try({
      try: () => {
        const inTransaction = old?.database.isTransaction === true
        if (inTransaction) old.database.exec("ROLLBACK")
        if (this.#writesForbidden) old?.database.exec(allowWrites)
        this.#writesForbidden = false
        if (this.#traces === "none") return
        const tidy = this.#traces === "temporary" && !inTransaction && old !== undefined && dropTemporary(old)
        if (!tidy) this.#reopen(old)
        this.#traces = "none"
      },
      catch: (error) => refusal(error, "reset", false)
    })
  }

  #reopen(old: Handle | undefined): void {
    this.#handle = undefined
    if (old !== undefined) closeHandle(old)
    this.#handle = this.#shared.open()
  }

  #openCursor(statement: Statement, params: ReadonlyArray<SqliteValue>): Cursor {
    let columns: ReadonlyArray<string> = []
    let source: Source | undefined
    let end: Exit.Exit<ReadonlyArray<Row>, DbError.DbError> | undefined
    const release = (): void => {
      source?.rows.return?.()
      source = undefined
    }
    const finish = (how: Exit.Exit<ReadonlyArray<Row>, DbError.DbError>): void => {
      end ??= how
      this.#endCursor = undefined
      release()
    }
    const pull = (handle: Handle): ReadonlyArray<Row> => {
      try {
        source ??= openSource(handle, statement, params)
        const chunk = take(source.rows, rowsInChunk)
        if (columns.length === 0) columns = columnNames(source.prepared)
        if (chunk.length < rowsInChunk) finish(Exit.succeed([]))
        return chunk
      } catch (error) {
        // Also when a lock is in the way: the next attempt begins anew.
        release()
        throw error
      }
    }
    this.#endCursor = (why) => finish(Exit.fail(why))
    return {
      columns: () => columns,
      next: (done) => {
        if (end !== undefined) return done(end)
        this.#perform(statement, pull, (chunk) => {
          if (Exit.isFailure(chunk)) finish(chunk)
          done(chunk)
        }, source === undefined)
      }
    }
  }
}
