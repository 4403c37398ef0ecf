/**
 * One connection, on top of mysql2's.
 *
 * At most one operation runs on it, and that one is answered exactly once: by the server, or by the loss of the
 * connection, in which everything ends that mysql2 or the socket can report. mysql2 alone does not promise that: after
 * `destroy`, a protocol error or a lost statement that streams, it calls nobody back.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { ConnectionLost, StatementError } from "../DbError.js"
import type { DbError } from "../DbError.js"
import type { Cursor, Result, SessionState, Statement } from "../Driver.js"
import { forgetStatements } from "./mysqlAnswer.js"
import { RowCursor } from "./mysqlCursor.js"
import { endsConnection, idleLoss, mayRollBack, statementFailure } from "./mysqlErrors.js"
import type { Flavour, MysqlError } from "./mysqlErrors.js"
import type { Kill, SideConnection } from "./mysqlKiller.js"
import { writeStatement } from "./mysqlLiterals.js"
import { Command, type Host, type Operation, type UnpreparableTexts } from "./mysqlOperation.js"
import type { MysqlSettings } from "./mysqlOptions.js"
import { askStatus, type Pipeline, runPipeline } from "./mysqlPipeline.js"
import { destroyRaw } from "./mysqlProtocol.js"
import type { DateReader, RawConnection, RawQuery } from "./mysqlProtocol.js"
import { askRole, SessionTracker } from "./mysqlSession.js"
import { onDisorder } from "./mysqlSeveral.js"
import { RunExecution, StreamExecution } from "./mysqlStatement.js"

/**
 * What the connections of one driver have in common.
 *
 * @internal
 */
export interface Shared {
  readonly settings: MysqlSettings
  readonly resetCommands: Pipeline
  readonly encode: (params: ReadonlyArray<unknown>) => ReadonlyArray<unknown>
  readonly kill: Kill
  readonly unpreparable: UnpreparableTexts
  readonly readDate: DateReader
  /** A query that has not been sent. */
  readonly makeQuery: (raw: RawConnection, sql: string) => RawQuery
}

/**
 * Who answers at the other end.
 *
 * @internal
 */
export interface Peer {
  readonly flavour: Flavour
  readonly server: string
  /** The status flags after the session was set up. */
  readonly status: number
  /** The session's roles at that time. */
  readonly role: string | undefined
}

/** @internal */
export class MysqlConnection implements SideConnection {
  readonly id: string
  readonly server: string
  private life: "open" | "closing" | "closed" = "open"
  private operation: Operation<never> | undefined
  private readonly tracker: SessionTracker
  private readonly host: Host
  private lossListener: ((error: DbError) => void) | undefined
  private unreported: DbError | undefined
  private readonly charsetNumber: number

  constructor(readonly raw: RawConnection, readonly shared: Shared, readonly peer: Peer) {
    this.id = String(raw.threadId)
    this.server = peer.server
    this.charsetNumber = raw.config.charsetNumber
    this.tracker = new SessionTracker(peer.status)
    this.host = {
      raw,
      tracker: this.tracker,
      offsetMillis: shared.settings.offsetMillis,
      readDate: shared.readDate,
      unpreparable: shared.unpreparable,
      encode: shared.encode,
      write: (statement) =>
        writeStatement(statement, {
          offsetMillis: shared.settings.offsetMillis,
          // several statements may change it on the way
          plain: this.tracker.readsPlainly &&
            (statement.traits.statements === 1 || !statement.traits.changesSession)
        }),
      severalStatements: shared.settings.severalStatements,
      textQuery: shared.makeQuery(raw, ""),
      makeQuery: (sql) => shared.makeQuery(raw, sql),
      isRunning: (operation) => this.operation === operation,
      finish: (operation, exit) => this.finish(operation, exit),
      fail: (operation, error, inOrder) => this.fail(operation, error, operation.text, inOrder)
    }
    raw.on("error", (error) => this.lose(error))
    onDisorder(raw, (error) => this.lose(error))
    raw.stream.once("close", () => this.lose({ message: "the server closed the connection" }))
  }

  isOpen(): boolean {
    const { destroyed, readableEnded, writable } = this.raw.stream
    return this.life === "open" && !destroyed && !readableEnded && writable
  }

  session(): SessionState {
    return this.tracker.state()
  }

  run(statement: Statement, done: (result: Exit.Exit<Result, DbError>) => void): void {
    const execution = new RunExecution(this.host, statement, done)
    if (this.begin(execution)) execution.start()
  }

  stream(statement: Statement): Cursor {
    const cursor = new RowCursor(this.raw)
    const execution = new StreamExecution(this.host, statement, cursor)
    if (this.begin(execution)) execution.start()
    return cursor
  }

  readonly ping: Effect.Effect<void, DbError> = Effect.async((resume) => {
    const operation = new Command("COM_PING", resume)
    if (!this.begin(operation)) return
    operation.phase = "sent"
    this.raw.ping((error) => {
      if (error) this.fail(operation, error)
      else this.finish(operation, Exit.void)
    })
  })

  readonly reset: Effect.Effect<void, DbError> = Effect.async((resume) => {
    const operation = new Command("COM_RESET_CONNECTION", resume)
    if (!this.begin(operation)) return
    if (this.tracker.databaseChanged && this.shared.settings.database === undefined) {
      return this.notRestored(
        operation,
        "the session has chosen a default database, and nothing brings it back to none"
      )
    }
    if (this.tracker.keepsProfiles) return this.notRestored(operation, "the session keeps a profile of its statements")
    operation.phase = "sent"
    runPipeline(this.raw, this.shared.resetCommands, ({ refused, status, values }) => {
      if (refused !== undefined) return this.fail(operation, refused.error, refused.name)
      if (values.get(askRole) !== this.peer.role) {
        return this.notRestored(operation, "the session has chosen another role")
      }
      forgetStatements(this.raw)
      // mysql2 encodes in what it was last told that the session uses.
      this.raw.config.charsetNumber = this.charsetNumber
      this.tracker.wasReset(status)
      this.finish(operation, Exit.void)
    }, (error) => this.fail(operation, error))
  })

  readonly cancel: Effect.Effect<void, DbError> = Effect.suspend(() => {
    const operation = this.operation
    if (operation === undefined) return Effect.void
    if (!this.shared.settings.cancelQueries) {
      return Effect.fail(new ConnectionLost({ outcome: "unknown", reason: "cancelQueries is off" }))
    }
    operation.cancelled = true
    operation.drain()
    const isRunning = (): boolean => this.operation === operation
    const ended = Effect.async<void>((resume) => {
      if (isRunning()) (operation.waiting ??= []).push(() => resume(Effect.void))
      else resume(Effect.void)
    })
    const stillOpen = Effect.suspend(() =>
      this.isOpen()
        ? Effect.void
        : Effect.fail(new ConnectionLost({ outcome: "unknown", reason: "it broke while its statement was stopped" }))
    )
    return this.shared.kill({ id: this.id, server: this.server, isRunning, ended }).pipe(
      Effect.zipRight(ended),
      Effect.zipRight(stillOpen)
    )
  })

  readonly close: Effect.Effect<void> = Effect.async((resume) => {
    if (this.life === "closed") return resume(Effect.void)
    this.life = "closing"
    this.raw.stream.once("close", () => resume(Effect.void))
    this.raw.end()
    return Effect.sync(() => this.destroy())
  })

  destroy(): void {
    this.lose({ message: "it was destroyed" }, { report: false })
  }

  onLost(listener: (error: DbError) => void): void {
    this.lossListener = listener
    if (this.unreported !== undefined) queueMicrotask(() => this.report())
  }

  /** Answers with a failure at once, and false, when there is nothing to run on. */
  private begin(operation: Operation<never>): boolean {
    this.operation = operation
    if (this.isOpen()) return true
    this.shut()
    this.fail(operation, { message: "it was closed already" })
    return false
  }

  private finish<A>(operation: Operation<A>, exit: Exit.Exit<A, DbError>): void {
    if (this.operation !== operation) return
    this.operation = undefined
    operation.settle(exit)
    for (const listener of operation.waiting ?? []) listener()
  }

  private fail(operation: Operation<never>, error: MysqlError, statement = operation.text, inOrder = true): void {
    const { flavour } = this.peer
    const { readOnlyAsked } = this.tracker
    const { params, phase, traits } = operation
    const several = traits !== undefined && (traits.statements > 1 || traits.mayCommit === "unseen")
    const failure = statementFailure(error, { flavour, phase, statement, params, readOnlyAsked, several })
    const ends = endsConnection(failure)
    // It may be the answer to another command: the connection is lost for that in a moment, and the operation with it.
    if (!inOrder && !ends && failure._tag !== "ConnectionLost") return
    if (ends || failure._tag === "ConnectionLost") this.shut()
    if (phase === "sent" && traits !== undefined) this.tracker.refused()
    if (this.isOpen() && this.leavesDoubt(operation, failure, several)) return this.learnFate(operation, failure)
    this.finish(operation, Exit.fail(failure))
    if (ends) this.lostIdle(error)
  }

  /**
   * A refusal does not say whether a transaction is open after it: a deadlock has undone the whole, ALTER TABLE has committed
   * it before it was refused, and of several statements one may have begun it.
   */
  private leavesDoubt({ phase, traits }: Operation<never>, failure: DbError, several: boolean): boolean {
    if (phase === "unsent" || traits === undefined) return false
    if (phase === "sent" && several) return true
    const mayHaveEnded = mayRollBack(failure) || (phase === "sent" && traits.mayCommit !== "never")
    return mayHaveEnded && this.tracker.state() === "transaction"
  }

  private learnFate(operation: Operation<never>, failure: DbError): void {
    const give = (): void => this.finish(operation, Exit.fail(failure))
    askStatus(this.raw, (status) => {
      this.tracker.rowsEnded(status)
      give()
    }, (error) => {
      this.shut()
      give()
      this.lostIdle(error)
    })
  }

  /** What a reset cannot undo: the pool will replace the connection. */
  private notRestored(operation: Operation<never>, reason: string): void {
    const error = new StatementError({ statement: operation.text, reason })
    this.finish(operation, Exit.fail(error))
  }

  private lose(error: MysqlError, { report }: { readonly report: boolean } = { report: true }): void {
    if (this.life === "closed") return
    const expected = this.life === "closing" || !report
    const operation = this.operation
    this.shut()
    if (operation !== undefined) this.fail(operation, error)
    else if (!expected) this.lostIdle(error)
  }

  private lostIdle(error: MysqlError): void {
    this.unreported = idleLoss(error)
    this.report()
  }

  private report(): void {
    if (this.lossListener === undefined || this.unreported === undefined) return
    const error = this.unreported
    this.unreported = undefined
    this.lossListener(error)
  }

  private shut(): void {
    this.life = "closed"
    destroyRaw(this.raw)
  }
}
