/**
 * What this library uses of a mysql2 connection, as types, and the one thing mysql2 cannot do: several commands in one
 * round trip. mysql2 sends a command only when the one before has been answered; servers read them one after the other
 * all the same, so a {@link Pipeline} writes them at once and counts the answers.
 *
 * @internal
 */
import type { Statement } from "../Driver.js"
import type { MysqlError } from "./mysqlErrors.js"
import type { StatementTraits } from "./sessionState.js"

/** @internal */
export interface RawSocket {
  readonly destroyed: boolean
  readonly readableEnded: boolean
  readonly writable: boolean
  /** Of an encrypted one: true until the certificate has been seen and accepted. */
  readonly secureConnecting?: boolean | undefined
  readonly destroy: () => void
  readonly once: (event: "close", listener: () => void) => void
  readonly on: (event: "data", listener: (bytes: Buffer) => void) => void
  readonly off: (event: "data", listener: (bytes: Buffer) => void) => void
}

/** @internal */
export interface RawPacket {
  readonly buffer: Buffer
  offset: number
  readonly end: number
  readonly isEOF: () => boolean
  readonly isError: () => boolean
  readonly eofStatusFlags: () => number
  readonly eofWarningCount: () => number
  readonly asError: (encoding: string) => MysqlError
  readonly readLengthCodedNumber: () => number | null
  readonly readInt8: () => number
  readonly readInt16: () => number
  readonly readInt32: () => number
  /** Reads a DATE, DATETIME or TIMESTAMP of a row in the binary protocol, which is text unless it is replaced. */
  readDateTimeString: DateReader
  readonly skip: (bytes: number) => void
}

/** @internal */
export type DateReader = (
  this: RawPacket,
  decimals: number | null,
  separator: string | null,
  columnType: number | null
) => unknown

/** @internal */
export interface RawField {
  readonly name: string
  readonly columnType: number
  /** MariaDB sends JSON as text; only this tells. */
  readonly extendedFormat?: string | undefined
}

/**
 * An OK packet. The two numbers are text when they are beyond ±2⁵³.
 *
 * @internal
 */
export interface RawOk {
  readonly affectedRows: number | string
  readonly insertId: number | string
  readonly serverStatus: number
  readonly warningStatus: number
  readonly info?: string | undefined
  readonly stateChanges?: StateChanges | undefined
}

/** @internal */
export interface StateChanges {
  readonly systemVariables: Readonly<Record<string, string>>
  readonly schema: string | null
  /** mysql2 misreads its value on both servers: all that counts is that it is there. */
  readonly trackStateChange: string | null
}

/** @internal */
export interface RawCommand {
  execute: (packet: RawPacket | undefined, connection: RawConnection) => boolean
  onResult?: ((error: MysqlError) => void) | undefined
}

/** What reads an answer. */
interface Reader extends RawCommand {
  /** What reads the next packet; {@link resultsetHeader} at the beginning of a result. */
  next: unknown
  readonly resultsetHeader: unknown
}

/**
 * A command of mysql2's for a statement. It keeps rows only for a callback, and tells of them otherwise.
 *
 * @internal
 */
export interface RawQuery extends Reader {
  /** What reads a row, and the end of the rows. Answers with what reads the next packet, if one is to come. */
  readonly row: (packet: RawPacket, connection: RawConnection) => unknown
  /** What it has read, an entry for each result, and which of them is the last. */
  readonly _rows: ReadonlyArray<unknown>
  readonly _fields: ReadonlyArray<unknown>
  readonly _resultIndex: number
  /** Why a row could not be read. */
  readonly _localStreamError?: MysqlError | null | undefined
  readonly on: {
    (event: "fields", listener: (fields: ReadonlyArray<RawField> | undefined) => void): void
    (event: "result", listener: (value: RawOk | Array<unknown>) => void): void
    (event: "error", listener: () => void): void
  }
}

/** @internal */
export interface RawStatement {
  readonly id: number
  readonly parameters: ReadonlyArray<unknown>
  close: () => void
  /** Gives the command for it to the connection. */
  readonly execute: (this: UnsentStatement, params: ReadonlyArray<unknown>) => RawQuery
}

/** @internal */
export interface RawConnection {
  /** Replaced by mysql2 when the connection is encrypted. */
  readonly stream: RawSocket
  readonly threadId: number
  readonly config: { charsetNumber: number; password?: unknown }
  sequenceId: number
  readonly _command: RawCommand | undefined
  readonly constructor: { readonly statementKey: (options: { readonly sql: string }) => string }
  readonly _statements: {
    readonly get: (key: string) => RawStatement | undefined
    readonly values: () => Iterable<RawStatement>
    readonly clear: () => void
  }
  readonly addCommand: (command: RawCommand) => void
  handlePacket: (packet?: RawPacket) => void
  readonly write: (bytes: Buffer) => void
  readonly prepare: (
    options: { readonly sql: string },
    done: (error: MysqlError | null, statement: RawStatement) => void
  ) => void
  readonly unprepare: (options: { readonly sql: string }) => void
  readonly clientEncoding: string
  readonly ping: (done: (error?: MysqlError | null) => void) => void
  readonly end: () => void
  readonly destroy: () => void
  readonly pause: () => void
  readonly resume: () => void
  readonly on: {
    (event: "error" | "warn", listener: (error: MysqlError) => void): void
    (event: "connect", listener: (handshake: { readonly serverVersion: string }) => void): void
  }
}

/**
 * Closes the connection at once; what it has read already is heard no more. mysql2 goes on with the packets of the same
 * chunk, and complains of each: of small ones that costs half a second in which nothing else runs.
 *
 * @internal
 */
export const destroyRaw = (connection: RawConnection): void => {
  connection.handlePacket = () => undefined
  connection.destroy()
  // mysql2 only ends the socket, and a peer that is gone never answers that.
  connection.stream.destroy()
}

// A packet in parts has no end but the sender's.
const mostBeforeOpen = 2 ** 24

/**
 * Calls back when the server has said more than it ever needs to until the session is set up, instead of keeping it all
 * until the connect's time is over. What it returns ends that.
 *
 * @internal
 */
export const watchSize = (connection: RawConnection, exceeded: () => void): () => void => {
  let bytes = 0
  let watched = connection.stream
  const count = (chunk: Buffer): void => {
    bytes += chunk.length
    if (bytes > mostBeforeOpen) return exceeded()
    // Encrypted from here on, by a stream of its own.
    if (connection.stream !== watched) {
      watched.off("data", count)
      watched = connection.stream
      watched.on("data", count)
    }
  }
  watched.on("data", count)
  return () => watched.off("data", count)
}

const fileRequest = 0xfb

/** LOCAL INFILE is switched off, and a server that asks for a file all the same is none to go on with. */
const refuseFile = ({ buffer, offset }: RawPacket): void => {
  if (buffer[offset] !== fileRequest) return
  throw Object.assign(new Error("the server asked for a file of the client, which no server is given"), {
    code: "LOCAL_INFILE_REFUSED"
  })
}

const moreResults = 8

/**
 * MariaDB sets it also at the end of rows, when a function called by a SELECT has changed the session; MySQL does not, and
 * reports it with the next OK packet.
 *
 * @internal
 */
export const stateChanged = 0x4000

/** @internal */
export interface Pipeline {
  readonly bytes: Buffer
  /** What each command is called when it is refused; a statement is called by its text. */
  readonly names: ReadonlyArray<string>
}

const frame = (command: number, content: string | Uint8Array): Buffer => {
  const body = typeof content === "string" ? Buffer.from(content, "utf8") : Buffer.from(content)
  const header = Buffer.alloc(5)
  header.writeUIntLE(body.length + 1, 0, 3)
  header.writeUInt8(command, 4)
  return Buffer.concat([header, body])
}

/**
 * The bytes of a COM_RESET_CONNECTION, if asked for, and of statements after it. They hold no attributes, so
 * CLIENT_QUERY_ATTRIBUTES must be off.
 *
 * @internal
 */
export const pipeline = (statements: ReadonlyArray<string>, options: { readonly reset: boolean }): Pipeline => ({
  bytes: Buffer.concat([
    ...(options.reset ? [frame(0x1f, "")] : []),
    ...statements.map((sql) => frame(0x03, sql))
  ]),
  names: options.reset ? ["COM_RESET_CONNECTION", ...statements] : statements
})

/** @internal */
export interface PipelineReply {
  /** The first command that was refused; those after it were run all the same. */
  readonly refused?: { readonly name: string; readonly error: MysqlError } | undefined
  /** Of each command that gave rows, the first column of the first, as text. */
  readonly values: ReadonlyMap<string, string>
  /** The status flags after the last command. */
  readonly status: number
}

class PipelineCommand implements RawCommand {
  private expecting: "answer" | "columns" | "rows" = "answer"
  private answered = 0
  private status = 0
  private refused: PipelineReply["refused"]
  private readonly values = new Map<string, string>()

  constructor(
    readonly commands: Pipeline,
    readonly done: (reply: PipelineReply) => void,
    readonly onResult: (error: MysqlError) => void
  ) {}

  execute(packet: RawPacket | undefined, connection: RawConnection): boolean {
    if (packet === undefined) {
      connection.write(this.commands.bytes)
      // Each answer counts its packets from 1, as to a command that was sent alone.
      connection.sequenceId = 1
      return false
    }
    if (!this.endsAnswer(packet)) return false
    this.expecting = "answer"
    this.answered += 1
    connection.sequenceId = 1
    if (this.answered < this.commands.names.length) return false
    this.done({ refused: this.refused, values: this.values, status: this.status })
    return true
  }

  private endsAnswer(packet: RawPacket): boolean {
    const name = this.commands.names[this.answered] ?? ""
    if (packet.isError()) {
      this.refused ??= { name, error: packet.asError("utf8") }
      return true
    }
    switch (this.expecting) {
      case "answer":
        refuseFile(packet)
        if (packet.buffer[packet.offset] === 0) return this.endsResult(okStatus(packet))
        this.expecting = "columns"
        return false
      case "columns":
        if (packet.isEOF()) this.expecting = "rows"
        return false
      case "rows":
        if (packet.isEOF()) return this.endsResult(packet.eofStatusFlags())
        if (!this.values.has(name)) this.values.set(name, firstColumn(packet))
        return false
    }
  }

  private endsResult(status: number): boolean {
    this.status = status
    this.expecting = "answer"
    return (status & moreResults) === 0
  }
}

const okStatus = (packet: RawPacket): number => {
  packet.skip(1)
  packet.readLengthCodedNumber()
  packet.readLengthCodedNumber()
  return packet.readInt16()
}

const firstColumn = (packet: RawPacket): string => {
  const length = packet.readLengthCodedNumber() ?? 0
  return packet.buffer.toString("utf8", packet.offset, packet.offset + length)
}

/**
 * Sends all commands at once; calls one of the two, once, unless the connection is destroyed first.
 *
 * @internal
 */
export const runPipeline = (
  connection: RawConnection,
  commands: Pipeline,
  done: (reply: PipelineReply) => void,
  lost: (error: MysqlError) => void
): void => connection.addCommand(new PipelineCommand(commands, done, lost))

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

/** Takes a command that is not to be sent yet. */
const collector = { addCommand: (command: RawQuery): RawQuery => command }

class UnsentStatement {
  readonly _connection = collector
  constructor(readonly id: number, readonly parameters: ReadonlyArray<unknown>) {}
}

/**
 * The command that executes a prepared statement; it has not been sent.
 *
 * @internal
 */
export const makeExecute = (prepared: RawStatement, params: ReadonlyArray<unknown>): RawQuery =>
  prepared.execute.call(new UnsentStatement(prepared.id, prepared.parameters), params)

/**
 * Who hears of a statement's answer.
 *
 * @internal
 */
export interface Listener {
  readonly refused: (error: MysqlError) => void
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
    readonly keepsRows: boolean
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
    if (query.next === query.row && packet.buffer[packet.offset] === 0) return this.#row(packet, connection)
    if (packet.isError()) {
      this.listener.refused(packet.asError(connection.clientEncoding))
      return true
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

  #begin(connection: RawConnection): boolean {
    const over = this.query.execute(undefined, connection)
    // nothing follows what could not be written
    if (over) this.listener.refused({ message: "the statement could not be written" })
    return over
  }

  #end(packet: RawPacket): void {
    const status = packet.eofStatusFlags()
    this.status = status | (this.status & stateChanged)
    this.warnings = packet.eofWarningCount()
    this.listener.ended(status)
  }

  #finish(): void {
    const { _fields, _localStreamError, _resultIndex, _rows } = this.query
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

// COM_SET_OPTION with MYSQL_OPTION_MULTI_STATEMENTS_ON and _OFF.
const allowSeveral = frame(0x1b, Uint8Array.of(0, 0))
const forbidSeveral = frame(0x1b, Uint8Array.of(1, 0))

const stoppedBetween: MysqlError = {
  message: "Query execution was interrupted",
  code: "ER_QUERY_INTERRUPTED",
  errno: 1317,
  sqlState: "70100"
}

/**
 * A query between two options, in one round trip: the server takes several statements for this one text and for no other.
 */
class SeveralStatements implements RawCommand {
  private expecting: "allowed" | "reply" | "forbidden" = "allowed"
  private replySequence = 1
  /** The packet that was read last answered the command after the query, and was numbered so. */
  stopped = false
  readonly onResult: RawCommand["onResult"]

  constructor(readonly query: Reader) {
    this.onResult = (error) => query.onResult?.(error)
  }

  execute(packet: RawPacket | undefined, connection: RawConnection): boolean {
    if (packet === undefined) {
      connection.write(allowSeveral)
      this.query.execute(undefined, connection)
      connection.write(forbidSeveral)
      this.replySequence = connection.sequenceId
      connection.sequenceId = 1
      return false
    }
    switch (this.expecting) {
      case "allowed":
        refuseFile(packet)
        // If that was refused, so is the query, which then says why.
        this.expecting = "reply"
        connection.sequenceId = this.replySequence
        return false
      case "reply":
        // No result begins like this. MariaDB, stopped by KILL QUERY between two of them, announces one more and sends none:
        // this is the answer to what comes after the query.
        if (packet.isEOF() && this.query.next === this.query.resultsetHeader) {
          this.stopped = true
          this.query.onResult?.(stoppedBetween)
          return true
        }
        if (!this.query.execute(packet, connection)) return false
        this.expecting = "forbidden"
        connection.sequenceId = 1
        return false
      case "forbidden":
        // Never seen; a connection that goes on taking several statements must not go on.
        if (packet.isError()) connection.destroy()
        return true
    }
  }
}

/** @internal */
export const runSeveral = (connection: RawConnection, query: Answer): void =>
  connection.addCommand(new SeveralStatements(query))

/**
 * Calls after each packet that is not the one that must follow: the answer that it belongs to may be another command's, and
 * must not be believed. The packet has been read by then; what it delivers in a later tick has not arrived.
 *
 * @internal
 */
export const onDisorder = (connection: RawConnection, found: (error: MysqlError) => void): void =>
  connection.on("warn", (error) => {
    const command = connection._command
    process.nextTick(() => {
      if (!(command instanceof SeveralStatements && command.stopped)) found(error)
    })
  })

const statusQuestion: Pipeline = { bytes: frame(0x0e, ""), names: ["COM_PING"] }

/**
 * Asks for the status flags, which a refusal does not carry, and leaves the warnings of the last statement alone.
 *
 * @internal
 */
export const askStatus = (
  connection: RawConnection,
  done: (status: number) => void,
  lost: (error: MysqlError) => void
): void =>
  runPipeline(
    connection,
    statusQuestion,
    ({ refused, status }) => refused === undefined ? done(status) : lost(refused.error),
    lost
  )
