/**
 * What is kept from one execution to the next: mysql2's command, and of a prepared statement the columns of its rows. mysql2
 * makes a new command for each execution, and reads what the server says of the columns, which it says with every answer and
 * most often as the time before; for a short row that costs as much as the rest of it.
 *
 * @internal
 */
import type { RawConnection, RawField, RawPacket, RawQuery, RawStatement, Unsent } from "./mysqlProtocol.js"

/** Takes a command that is not to be sent yet. */
const collector = { addCommand: (command: RawQuery): RawQuery => command }

class UnsentStatement implements Unsent {
  readonly _connection = collector
  constructor(readonly id: number, readonly parameters: ReadonlyArray<unknown>) {}
}

/**
 * A command of mysql2's that executes a prepared statement once; it has not been sent.
 *
 * @internal
 */
export const makeExecute = ({ execute, id, parameters }: RawStatement, params: ReadonlyArray<unknown>): RawQuery =>
  execute.call(new UnsentStatement(id, parameters), params)

/** A packet of its own memory: the one that mysql2 reads into is used again, and its bytes are part of much more. */
const copyOf = (packet: RawPacket): RawPacket => {
  const { buffer, end, offset } = packet
  const bytes = Buffer.allocUnsafeSlow(end - offset)
  buffer.copy(bytes, 0, offset, end)
  return Object.assign(packet.clone(), { buffer: bytes, start: 0, offset: 0, end: bytes.length })
}

const isSame = (bytes: Buffer, { buffer, end, offset }: RawPacket): boolean => {
  if (end - offset !== bytes.length) return false
  for (let at = 0; at < bytes.length; at++) if (bytes[at] !== buffer[offset + at]) return false
  return true
}

/**
 * The columns of a statement's rows, as the server has described them last. mysql2 reads a description that is not known, or is
 * another one now.
 *
 * @internal
 */
export class KnownColumns {
  /** Each description. While {@link #parser} is unknown they are those that have been read so far. */
  #descriptions: Array<RawPacket> = []
  #fields: ReadonlyArray<RawField> = []
  #parser: unknown
  /** How many of the answer's columns are as they were. */
  #recognized = 0

  /** An answer comes. */
  begin(): void {
    this.#recognized = 0
    if (this.#parser === undefined) this.#descriptions = []
  }

  /** Reads a column. */
  column(packet: RawPacket, query: RawQuery, connection: RawConnection): void {
    if (this.#parser !== undefined) {
      if (this.#recognizes(packet, query)) return
      const same = this.#descriptions.slice(0, this.#recognized)
      this.#parser = undefined
      this.#descriptions = []
      for (const description of same) this.#read(description, query, connection)
    }
    this.#read(copyOf(packet), query, connection)
  }

  /** Reads the end of the columns, unless that has to be read by mysql2. */
  end(query: RawQuery): boolean {
    if (this.#parser === undefined) return false
    query._rowParser = this.#parser
    query.next = query.row
    return true
  }

  /** mysql2 has read the columns and their end. */
  learn({ _fields, _rowParser }: RawQuery): void {
    this.#fields = _fields[0] as ReadonlyArray<RawField>
    this.#parser = _rowParser
  }

  #recognizes(packet: RawPacket, query: RawQuery): boolean {
    const count = this.#descriptions.length
    const description = this.#descriptions[this.#recognized]
    if (query._fieldCount !== count || description === undefined || !isSame(description.buffer, packet)) return false
    if (++this.#recognized === count) {
      query._currentFields = this.#fields
      query._fields = [this.#fields]
      query.next = query.fieldsEOF
    }
    return true
  }

  #read(description: RawPacket, query: RawQuery, connection: RawConnection): void {
    this.#descriptions.push(description)
    description.offset = 0
    query.next = query.readField(description, connection)
  }
}

const nothing: ReadonlyArray<never> = []

/**
 * The one command that executes a statement time after time, and its columns.
 *
 * @internal
 */
export class Prepared {
  readonly columns = new KnownColumns()
  readonly #command: RawQuery

  constructor(statement: RawStatement) {
    // what else it holds keeps the bytes that it was read from
    statement.columns = nothing
    statement.parameters = statement.parameters.map(({ columnType, flags }) => ({ columnType, flags }))
    this.#command = makeExecute(statement, nothing)
  }

  command(params: ReadonlyArray<unknown>): RawQuery {
    const command = renew(this.#command)
    command.parameters = params
    return command
  }
}

/**
 * The command as if it were new. It has ended.
 *
 * @internal
 */
export const renew = (command: RawQuery): RawQuery => {
  command.next = null
  command._rows = []
  command._fields = []
  command._resultIndex = 0
  command._localStreamError = undefined
  return command
}

/**
 * The command has ended; what it was given and has read belongs to somebody else now.
 *
 * @internal
 */
export const letGo = (command: RawQuery): void => {
  command.sql = command.options = undefined
  command.parameters = command._rows = command._fields = nothing
  command._currentRows = command._currentFields = null
}

/** As mysql2 knows it, and what is kept with it. */
interface Keeping extends RawStatement {
  kept?: Prepared | undefined
}

/** @internal What is kept with the statement. */
export const preparedOf = (statement: Keeping): Prepared => statement.kept ??= new Prepared(statement)
