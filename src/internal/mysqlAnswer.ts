/**
 * A statement's command, and the reading of its answer with what mysql2 keeps to itself.
 *
 * @internal
 */
import type { Statement } from "../Driver.js"
import type { MysqlError } from "./mysqlErrors.js"
import { type KnownColumns, letGo } from "./mysqlPrepared.js"
import {
  type DateReader,
  isInOrder,
  type RawConnection,
  type RawPacket,
  type RawQuery,
  type RawStatement,
  type Reader,
  refuseFile,
  stateChanged
} from "./mysqlProtocol.js"
import { readFloat } from "./mysqlRows.js"
import type { StatementTraits } from "./sessionState.js"

const keys = new WeakMap<StatementTraits, string>()

/**
 * What the connection has prepared the statement as, if it has. mysql2 would make a command to find that out.
 *
 * @internal
 */
export const preparedAs = (
  { _statements, constructor }: RawConnection,
  { sql, traits }: Statement
): RawStatement | undefined => {
  let key = keys.get(traits)
  if (key === undefined) keys.set(traits, key = constructor.statementKey({ sql }))
  return _statements.get(key)
}

/**
 * Who hears of a statement's answer.
 *
 * @internal
 */
export interface Listener {
  /** mysql2 could not write the command: nothing has been sent. */
  readonly unwritten: () => void
  /** Out of order, it may be another command's answer. */
  readonly refused: (error: MysqlError, inOrder?: boolean) => void
  /** The answer is complete. With several results, as of a CALL, both are arrays with one entry for each. */
  readonly answered: (result: unknown, fields: unknown) => void
  /** The end of each result's rows, and of its columns, with the status flags there. */
  readonly ended: (status: number) => void
}

const keep = (): void => undefined

/**
 * When all that has arrived is read: only then is it known that no packet was out of order, nor one too many, which the next
 * statement would take for its own answer.
 */
const deliver = (listener: Listener, result: unknown, fields: unknown): void => listener.answered(result, fields)

/**
 * Sends mysql2's command for a statement and reads its answer, with what mysql2 keeps to itself: what the packet at the end
 * of rows says. It gives the command no function of its own for each statement: V8 keeps such functions, and all that they
 * know, until the next full collection, which costs as much as the rest of a short statement.
 *
 * @internal
 */
export class Answer implements Reader {
  /** Of the last result; whether one of several changed the session is not lost. */
  status = 0
  warnings = 0

  constructor(
    readonly query: RawQuery,
    readonly listener: Listener,
    /** Reads a row's points in time. */
    readonly readDate: DateReader,
    /** Whether rows are kept for the end, or the query tells of each. */
    readonly keepsRows: boolean,
    /** What is known of its columns, if that is kept. */
    readonly columns: KnownColumns | undefined
  ) {}

  get next(): unknown {
    return this.query.next
  }

  get resultsetHeader(): unknown {
    return this.query.resultsetHeader
  }

  onResult(error: MysqlError): void {
    this.listener.refused(error)
  }

  execute(packet: RawPacket | undefined, connection: RawConnection): boolean {
    const { query } = this
    if (packet === undefined) return this.#begin(connection)
    // of most packets it is the one that mysql2 uses again and again; of large ones, or after a pause, another
    packet.readDateTimeString = this.readDate
    packet.parseLengthCodedFloat = readFloat
    if (query.next === query.row && packet.buffer[packet.offset] === 0) return this.#row(packet, connection)
    if (packet.isError()) {
      letGo(query)
      this.listener.refused(packet.asError(connection.clientEncoding), isInOrder(packet, connection))
      return true
    }
    if (this.columns !== undefined && query._resultIndex === 0) {
      if (query.next === query.readField) {
        this.columns.column(packet, query, connection)
        return false
      }
      if (query.next === query.fieldsEOF && packet.isEOF()) return this.#columnsEnd(this.columns, packet, connection)
    }
    const begins = query.next === query.resultsetHeader
    if (begins) refuseFile(packet)
    const ends = packet.isEOF()
    if (ends) this.#end(packet)
    // without a callback at the end of a result it does not start a tick
    query.onResult = begins || ends || !this.keepsRows ? undefined : keep
    if (!query.execute(packet, connection)) return false
    this.#finish()
    return true
  }

  /** By far the most packets: what begins with a zero here is neither the end of the rows nor an error. */
  #row(packet: RawPacket, connection: RawConnection): boolean {
    const { query } = this
    query.onResult = this.keepsRows ? keep : undefined
    query.next = query.row(packet, connection)
    if (query.next) return false
    // it could not be read
    this.#finish()
    return true
  }

  #columnsEnd(columns: KnownColumns, packet: RawPacket, connection: RawConnection): boolean {
    this.#end(packet)
    if (columns.end(this.query)) return false
    this.query.next = this.query.fieldsEOF(packet, connection)
    columns.learn(this.query)
    return false
  }

  #begin(connection: RawConnection): boolean {
    this.columns?.begin()
    // where there is no callback mysql2 throws, and ends the connection
    this.query.onResult = keep
    if (!this.query.execute(undefined, connection)) return false
    letGo(this.query)
    this.listener.unwritten()
    return true
  }

  #end(packet: RawPacket): void {
    const status = packet.eofStatusFlags()
    this.status = status | (this.status & stateChanged)
    this.warnings = packet.eofWarningCount()
    this.listener.ended(status)
  }

  #finish(): void {
    const { _fields, _localStreamError, _resultIndex, _rows } = this.query
    letGo(this.query)
    if (_localStreamError) this.listener.refused(_localStreamError)
    else if (_resultIndex === 0) process.nextTick(deliver, this.listener, _rows[0], _fields[0])
    else process.nextTick(deliver, this.listener, _rows, _fields)
  }
}

/**
 * mysql2 closes each cached statement when it clears the cache, a packet each; the server has forgotten them already.
 *
 * @internal
 */
export const forgetStatements = (connection: RawConnection): void => {
  for (const statement of connection._statements.values()) statement.close = () => undefined
  connection._statements.clear()
}
