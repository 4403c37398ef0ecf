/**
 * How one statement is sent and its answer read: prepared, which also tells a statement that was never executed from
 * one that may have been, or as text where the server cannot prepare it.
 *
 * @internal
 */
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type { DbError } from "../DbError.js"
import { ParameterError, StatementCancelled } from "../DbError.js"
import type { Result, Statement } from "../Driver.js"
import { Answer, type Listener, preparedAs } from "./mysqlAnswer.js"
import type { RowCursor } from "./mysqlCursor.js"
import type { MysqlError } from "./mysqlErrors.js"
import { changedParameter } from "./mysqlLiterals.js"
import { type Host, Operation } from "./mysqlOperation.js"
import { type KnownColumns, makeExecute, preparedOf, renew } from "./mysqlPrepared.js"
import type { RawOk, RawQuery, RawStatement } from "./mysqlProtocol.js"
import { type Fields, readReply } from "./mysqlReply.js"
import { columnNames, rowConverter } from "./mysqlRows.js"
import type { Reading, RowConverter } from "./mysqlRows.js"
import { runSeveral } from "./mysqlSeveral.js"

const notPreparable = 1295
const tooManyStatements = 1461
const staleStatements: ReadonlySet<number | undefined> = new Set([1243, 1615])
const forgetId = "DO LAST_INSERT_ID(0)"
// MySQL refuses to prepare most of these, and preparing the others would cost a round trip for nothing.
const textVerbs: ReadonlySet<string> = new Set(
  ("BEGIN START COMMIT ROLLBACK SAVEPOINT RELEASE XA SET USE LOCK UNLOCK PREPARE EXECUTE DEALLOCATE LOAD HANDLER KILL")
    .split(" ")
)

abstract class Execution<A> extends Operation<A> implements Listener, Reading {
  private repeated = false
  private asText = false
  protected answer: Answer | undefined

  constructor(readonly host: Host, readonly statement: Statement) {
    super(statement.sql, statement.traits, statement.params)
  }

  protected abstract readonly keepsRows: boolean
  /** Whether it is told of nothing before the end, so that the command may be one that was used before. */
  protected abstract readonly reuses: boolean
  /** Asks the query to tell of more than its answer. */
  protected abstract listen(query: RawQuery): void
  abstract answered(result: unknown, fields: unknown): void
  abstract ended(status: number): void

  start(): void {
    const { params, sql, traits, unprepared } = this.statement
    if (unprepared === true) this.sendWritten()
    else if (params.length === 0 && (textVerbs.has(traits.verb) || this.host.unpreparable.has(sql))) this.sendText()
    else this.prepare()
  }

  get offsetMillis(): number {
    return this.host.offsetMillis
  }

  get compatible(): boolean {
    return this.statement.compatible === true
  }

  get binary(): boolean {
    return !this.asText
  }

  protected get isRunning(): boolean {
    return this.host.isRunning(this)
  }

  refused(error: MysqlError, inOrder = true): void {
    if (this.isRunning && !(inOrder && this.triesAgain(error))) this.host.fail(this, error, inOrder)
  }

  unwritten(): void {
    if (this.isRunning) this.giveUp(new ParameterError({ statement: this.statement.sql, reason: changedParameter }))
  }

  private prepare(): void {
    const known = preparedAs(this.host.raw, this.statement)
    if (known !== undefined) return this.execute(known)
    this.phase = "prepare"
    this.host.raw.prepare({ sql: this.statement.sql }, (error, prepared) => {
      if (!this.isRunning) return
      if (error === null) this.execute(prepared)
      else this.refused(error)
    })
  }

  private execute(prepared: RawStatement): void {
    const { params, sql } = this.statement
    const expected = prepared.parameters.length
    if (this.cancelled) {
      // The KILL may have come while nothing ran, and would not stop what is sent now.
      return this.giveUp(new StatementCancelled({ statement: sql, reason: "it was cancelled before it was executed" }))
    }
    if (expected !== params.length) {
      const reason = `it has ${expected} placeholders, and there are ${params.length} parameters`
      return this.giveUp(new ParameterError({ statement: sql, reason }))
    }
    const encoded = this.encoded()
    if (encoded === undefined) return this.unwritten()
    this.phase = "sent"
    this.host.tracker.sending(this.statement)
    const kept = this.reuses ? preparedOf(prepared) : undefined
    const command = kept === undefined ? makeExecute(prepared, encoded) : kept.command(encoded)
    this.host.raw.addCommand(this.answerTo(command, kept?.columns))
  }

  private encoded(): ReadonlyArray<unknown> | undefined {
    try {
      return this.host.encode(this.statement.params)
    } catch {
      // a getter that throws now, bytes that have been transferred
      return undefined
    }
  }

  private sendText(sql = this.statement.sql): void {
    this.asText = true
    this.phase = "sent"
    this.host.tracker.sending(this.statement)
    const { host, statement } = this
    const query = this.reuses ? renew(host.textQuery) : host.makeQuery(sql)
    query.sql = sql
    const answer = this.answerTo(query)
    if (statement.unprepared === true && statement.traits.statements > 1 && host.severalStatements) {
      runSeveral(host.raw, answer)
    } else host.raw.addCommand(answer)
  }

  private answerTo(query: RawQuery, columns?: KnownColumns): Answer {
    this.listen(query)
    return this.answer = new Answer(query, this, this.host.readDate, this.keepsRows, columns)
  }

  private sendWritten(): void {
    const written = this.host.write(this.statement)
    if (Either.isLeft(written)) return this.giveUp(written.left)
    this.sendText(this.forgetsId ? `${forgetId}; ${written.right}` : written.right)
  }

  /** Another borrower's id is not to be found where the text's own INSERT generates none. */
  protected get forgetsId(): boolean {
    const { traits, unprepared } = this.statement
    return unprepared === true && traits.readsOwnInsertId && this.host.severalStatements
  }

  private giveUp(error: DbError): void {
    this.host.finish(this, Exit.fail(error))
  }

  /** After refusals that mean "not like this". The server has run nothing. */
  private triesAgain({ errno }: MysqlError): boolean {
    const { raw, unpreparable } = this.host
    const { params, sql } = this.statement
    if (this.asText || this.cancelled) return false
    // Only without parameters: in a text mysql2 would have to write them itself, and it quotes wrongly under
    // NO_BACKSLASH_ESCAPES and takes a ? inside a string for a placeholder.
    if (params.length === 0 && (errno === notPreparable || errno === tooManyStatements)) {
      if (errno === notPreparable) unpreparable.add(sql)
      this.sendText()
      return true
    }
    if (this.repeated) return false
    this.repeated = true
    // The limit is the server's, over all connections: give up what this one keeps.
    if (errno === tooManyStatements) raw._statements.clear()
    else if (staleStatements.has(errno)) raw.unprepare({ sql })
    else return false
    this.prepare()
    return true
  }
}

/**
 * A statement that is answered as a whole.
 *
 * @internal
 */
export class RunExecution extends Execution<Result> {
  protected readonly keepsRows = true
  /** Of several results each is heard of in its turn, for one that is refused ends them. */
  private readonly several: boolean
  protected readonly reuses: boolean

  constructor(host: Host, statement: Statement, readonly settle: (exit: Exit.Exit<Result, DbError>) => void) {
    super(host, statement)
    this.several = mayGiveSeveral(statement)
    this.reuses = !this.several
  }

  protected listen(query: RawQuery): void {
    const { host, statement } = this
    if (!this.several) return
    query.on("result", (value) => {
      if (!Array.isArray(value) && this.isRunning) host.tracker.okReceived(statement, value)
    })
  }

  ended(status: number): void {
    if (this.several) this.host.tracker.rowsEnded(status)
  }

  answered(result: unknown, fields: unknown): void {
    if (!this.isRunning) return
    const read = this.read(result, fields)
    if (read !== undefined) this.host.finish(this, Exit.succeed(read))
  }

  /** What is thrown here would be taken for an error of mysql2's. */
  private read(result: unknown, fields: unknown): Result | undefined {
    const { host, statement } = this
    const { status = 0, warnings = 0 } = this.answer ?? {}
    try {
      const reply = readReply(result, fields, warnings, this, this.forgetsId ? 1 : 0)
      if (this.several) return reply.result
      if (reply.hasRows) host.tracker.rowsEnded(status)
      for (const ok of reply.oks) host.tracker.okReceived(statement, ok)
      return reply.result
    } catch {
      host.fail(this, senseless)
      return undefined
    }
  }
}

const senseless: MysqlError = { message: "the server's answer makes no sense", code: "PROTOCOL_ERROR" }

const mayGiveSeveral = ({ traits }: Statement): boolean => traits.statements > 1 || traits.mayCommit === "unseen"

/**
 * A statement whose rows are read a chunk at a time.
 *
 * @internal
 */
export class StreamExecution extends Execution<void> {
  protected readonly keepsRows = false
  protected readonly reuses = false
  private choice: Fields | undefined
  private current: Fields | undefined
  private convert: RowConverter | undefined

  constructor(host: Host, statement: Statement, readonly cursor: RowCursor) {
    super(host, statement)
  }

  settle(exit: Exit.Exit<void, DbError>): void {
    this.cursor.finish(exit)
  }

  override drain(): void {
    this.cursor.drain()
  }

  protected listen(query: RawQuery): void {
    query.on("fields", (fields) => this.begin(fields))
    query.on("result", (value) => this.receive(value))
    // a row that cannot be read; the answer says so at its end
    query.on("error", () => undefined)
  }

  ended(): void {}

  answered(): void {
    if (!this.isRunning) return
    if (this.current !== undefined) this.host.tracker.rowsEnded(this.answer?.status ?? 0)
    this.host.finish(this, Exit.void)
  }

  /** Only the first result with rows is given; `fields` is undefined for an OK packet. */
  private begin(fields: Fields | undefined): void {
    this.current = fields
    if (fields === undefined || this.choice !== undefined) return
    this.choice = fields
    this.convert = rowConverter(fields, this)
    this.cursor.begin(columnNames(fields))
  }

  private receive(value: RawOk | Array<unknown>): void {
    if (!this.isRunning) return
    if (!Array.isArray(value)) this.host.tracker.okReceived(this.statement, value)
    else if (this.current === this.choice) this.cursor.push(this.convert === undefined ? value : this.convert(value))
  }
}
