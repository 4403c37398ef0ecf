/**
 * What this library uses of a mysql2 connection, as types, and how one is ended, watched and kept from what it should not do.
 *
 * @internal
 */
import type { MysqlError } from "./mysqlErrors.js"

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
  /** Its number, and how many packets it came in; a long one has that of the first. */
  readonly sequenceId: number
  readonly numPackets: number
  offset: number
  readonly end: number
  readonly clone: () => RawPacket
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
  /** Reads a FLOAT or DOUBLE of a row in text. */
  parseLengthCodedFloat: (this: RawPacket) => number | null
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

/** @internal What reads an answer. */
export interface Reader extends RawCommand {
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
  /** All of the connection's options, which it copies whenever it is sent. */
  options: unknown
  /** The text, of what is sent as one. */
  sql: string | undefined
  /** The values of a prepared statement's placeholders. */
  parameters?: ReadonlyArray<unknown> | undefined
  /** What reads a packet: a column, the end of the columns, a row or the end of the rows. Answers with what reads the next. */
  readonly readField: (packet: RawPacket, connection: RawConnection) => unknown
  readonly fieldsEOF: (packet: RawPacket, connection: RawConnection) => unknown
  readonly row: (packet: RawPacket, connection: RawConnection) => unknown
  /** What it has read, an entry for each result, and which of them is the last. */
  _rows: ReadonlyArray<unknown>
  _fields: ReadonlyArray<unknown>
  _resultIndex: number
  /** Of the last result: how many columns it has, they themselves, its rows, and what reads a row. */
  readonly _fieldCount: number
  _currentFields: ReadonlyArray<RawField> | null
  _currentRows: ReadonlyArray<unknown> | null
  _rowParser: unknown
  /** Why a row could not be read. */
  _localStreamError?: MysqlError | null | undefined
  readonly on: {
    (event: "fields", listener: (fields: ReadonlyArray<RawField> | undefined) => void): void
    (event: "result", listener: (value: RawOk | Array<unknown>) => void): void
    (event: "error", listener: () => void): void
  }
}

/** @internal */
export interface RawParameter {
  readonly columnType: number
  readonly flags: number
}

/** @internal A prepared statement whose command goes to whoever is in the connection's place. */
export interface Unsent {
  readonly id: number
  readonly parameters: ReadonlyArray<unknown>
  readonly _connection: { readonly addCommand: (command: RawQuery) => RawQuery }
}

/** @internal */
export interface RawStatement {
  readonly id: number
  /** What the server has said of its placeholders. mysql2 needs of each the type and the flags, and keeps the rest. */
  parameters: ReadonlyArray<RawParameter>
  /** What the server has said of its rows, of which mysql2 makes no use. */
  columns: ReadonlyArray<unknown>
  close: () => void
  /** Gives the command for it to the connection. */
  readonly execute: (this: Unsent, params: ReadonlyArray<unknown>) => RawQuery
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

/** @internal Whether a packet is the one that must follow. mysql2 has counted it by then. */
export const isInOrder = ({ numPackets, sequenceId }: RawPacket, connection: RawConnection): boolean =>
  (sequenceId + numPackets) % 256 === connection.sequenceId

const fileRequest = 0xfb

/** @internal LOCAL INFILE is switched off, and a server that asks for a file all the same is none to go on with. */
export const refuseFile = ({ buffer, offset }: RawPacket): void => {
  if (buffer[offset] !== fileRequest) return
  throw Object.assign(new Error("the server asked for a file of the client, which no server is given"), {
    code: "LOCAL_INFILE_REFUSED"
  })
}

/**
 * MariaDB sets it also at the end of rows, when a function called by a SELECT has changed the session; MySQL does not, and
 * reports it with the next OK packet.
 *
 * @internal
 */
export const stateChanged = 0x4000

/** @internal The bytes of a command, as the first packet of an exchange. */
export const frame = (command: number, content: string | Uint8Array): Buffer => {
  const body = typeof content === "string" ? Buffer.from(content, "utf8") : Buffer.from(content)
  const header = Buffer.alloc(5)
  header.writeUIntLE(body.length + 1, 0, 3)
  header.writeUInt8(command, 4)
  return Buffer.concat([header, body])
}
