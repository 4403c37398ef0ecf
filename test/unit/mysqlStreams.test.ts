/** The packets of a stream, in mysql2's own reader and without a server: what is left of it on the connection. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { Duplex } from "node:stream"
import { setImmediate } from "node:timers/promises"
import type { Result, Statement } from "../../src/Driver.js"
import { MysqlConnection, type Shared } from "../../src/internal/mysqlConnection.js"
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
  createQuery: (options: object, callback: undefined, values: undefined, config: object) => RawQuery
}
const Config = load(inside("connection_config.js")) as new(options: object) => object

const packet = (sequence: number, body: Uint8Array): Buffer => {
  const head = Buffer.alloc(4)
  head.writeUIntLE(body.length, 0, 3)
  head.writeUInt8(sequence & 255, 3)
  return Buffer.concat([head, body])
}
const counted = (text: string): Buffer => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)])
const column = Buffer.concat([
  ...["def", "", "t", "t", "n", "n"].map(counted),
  Buffer.from([0x0c, 33, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0])
])
const end = Buffer.from([0xfe, 0, 0, 2, 0])
const answer = (rows: number): Buffer => {
  const bodies = [
    Buffer.from([1]),
    column,
    end,
    ...Array.from({ length: rows }, (_, row) => counted(`r${row}`)),
    end
  ]
  return Buffer.concat(bodies.map((body, index) => packet(index + 1, body)))
}

const statement = (sql: string): Statement => ({ sql, params: [], traits: analyze(sql, "mysql"), unprepared: true })

const open = () => {
  const written: Array<string> = []
  const stream = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _encoding, done) => {
      written.push(chunk.toString("latin1"))
      done()
    }
  })
  const raw = new Base({ config: new Config({ stream, user: "x", rowsAsArray: true }) })
  raw._command = null
  raw.threadId = 1
  raw._handshakePacket = { capabilityFlags: 0xffffffff }
  const shared = {
    settings: { offsetMillis: 0, severalStatements: true, cancelQueries: true },
    readDate: dateReader(0),
    kill: () => Effect.void,
    makeQuery: ({ config }: RawConnection, sql: string) => Base.createQuery({ sql }, undefined, undefined, config)
  } as unknown as Shared
  const connection = new MysqlConnection(raw as RawConnection, shared, {
    flavour: "mysql",
    server: "",
    status: 2,
    role: undefined
  })
  return { connection, stream, written }
}

describe("a stream whose consumer works on the last rows when it goes", () => {
  it("leaves a connection that the next statement is sent on", async () => {
    const { connection, stream, written } = open()
    const cursor = connection.stream(statement("SELECT n FROM t"))
    const chunks: Array<number> = []
    // as a fiber does, which asks in a microtask of the chunk before
    const ask = (): void =>
      cursor.next((exit) => {
        if (Exit.isSuccess(exit)) chunks.push(exit.value.length)
        if (chunks.length < 2) queueMicrotask(ask)
      })
    ask()
    stream.push(answer(600))
    for (let turns = 0; turns < 5; turns++) await setImmediate()
    expect(chunks).toEqual([512, 88])
    await Effect.runPromise(connection.cancel)
    let answered: Exit.Exit<Result, unknown> | undefined
    connection.run(statement("SELECT 2"), (exit) => {
      answered = exit
    })
    expect(written.filter((text) => text.includes("SELECT 2"))).toHaveLength(1)
    stream.push(answer(1))
    for (let turns = 0; turns < 5; turns++) await setImmediate()
    expect(answered).toMatchObject({ _tag: "Success", value: { rows: [["r0"]] } })
  })
})
