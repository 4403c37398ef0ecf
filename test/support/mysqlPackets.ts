/** A connection of the MySQL driver on mysql2's own reader, without a server: the test says what the server answers. */
import { Effect } from "effect"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { Duplex } from "node:stream"
import type { Statement } from "../../src/Driver.js"
import { MysqlConnection, type Shared } from "../../src/internal/mysqlConnection.js"
import { UnpreparableTexts } from "../../src/internal/mysqlOperation.js"
import type { RawConnection, RawQuery } from "../../src/internal/mysqlProtocol.js"
import { dateReader } from "../../src/internal/mysqlRows.js"
import { analyze } from "../../src/internal/sessionState.js"

// the base of mysql2's connections, which takes any stream and says no hello of its own
const load = createRequire(import.meta.url)
const inside = (file: string): string => join(dirname(load.resolve("mysql2")), "lib", file)
const Base = load(inside("base/connection.js")) as {
  new(
    options: object
  ): Omit<RawConnection, "_command" | "threadId"> & { _command: unknown; _handshakePacket: unknown; threadId: number }
  createQuery: (sql: string, callback: undefined, values: undefined, config: object) => RawQuery
}
const Config = load(inside("connection_config.js")) as new(options: object) => object

const packet = (sequence: number, body: Uint8Array): Buffer => {
  const head = Buffer.alloc(4)
  head.writeUIntLE(body.length, 0, 3)
  head.writeUInt8(sequence & 255, 3)
  return Buffer.concat([head, body])
}

/** A text with its length before it. */
export const counted = (text: string): Buffer => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)])

export const types = { long: 3, double: 5, varString: 253 } as const

/** How a column is described. */
export const column = (name: string, type: number = types.varString): Buffer =>
  Buffer.concat([
    ...["def", "", "t", "t", name, name].map(counted),
    Buffer.from([0x0c, type === types.varString ? 33 : 63, 0, 255, 0, 0, 0, type, 0, 0, 0, 0, 0])
  ])

/** The end of columns or of rows. */
export const end = Buffer.from([0xfe, 0, 0, 2, 0])

/** A row of a prepared statement without a NULL. */
export const binaryRow = (columns: number, ...values: ReadonlyArray<Buffer>): Buffer =>
  Buffer.concat([Buffer.alloc(1 + Math.floor((columns + 9) / 8)), ...values])

export const long = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes
}

/** The packets of one answer. */
export const answer = (...bodies: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat(bodies.map((body, index) => packet(index + 1, body)))

/** An answer with rows. */
export const rows = (columns: ReadonlyArray<Buffer>, ...bodies: ReadonlyArray<Buffer>): Buffer =>
  answer(Buffer.from([columns.length]), ...columns, end, ...bodies, end)

/** The answer to a preparation: the statement's number, and its columns and placeholders as they are then. */
export const prepared = (
  id: number,
  columns: ReadonlyArray<Buffer>,
  placeholders: ReadonlyArray<Buffer> = []
): Buffer =>
  answer(
    Buffer.from([0, id, 0, 0, 0, columns.length, 0, placeholders.length, 0, 0, 0, 0]),
    ...(placeholders.length === 0 ? [] : [...placeholders, end]),
    ...(columns.length === 0 ? [] : [...columns, end])
  )

/** A statement without parameters. */
export const statement = (sql: string, options?: Partial<Statement>): Statement => ({
  sql,
  params: [],
  traits: analyze(sql, "mysql"),
  ...options
})

/** A connection, the stream on which the test answers, and what was sent. */
export const open = () => {
  const written: Array<string> = []
  const stream = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk.toString("latin1"))
      done()
    }
  })
  const raw = new Base({ config: new Config({ stream, user: "x", rowsAsArray: true, maxPreparedStatements: 10 }) })
  raw._command = null
  raw.threadId = 1
  raw._handshakePacket = { capabilityFlags: 0xffffffff }
  const shared = {
    settings: { offsetMillis: 0, severalStatements: true, cancelQueries: true },
    readDate: dateReader(0),
    kill: () => Effect.void,
    unpreparable: new UnpreparableTexts(),
    encode: (params: ReadonlyArray<unknown>) => params,
    makeQuery: ({ config }: RawConnection, sql: string) => Base.createQuery(sql, undefined, undefined, config)
  } as unknown as Shared
  const connection = new MysqlConnection(raw as RawConnection, shared, {
    flavour: "mysql",
    server: "",
    status: 2,
    role: undefined
  })
  return { connection, raw: raw as RawConnection, stream, written }
}
