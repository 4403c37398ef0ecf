/** The memory that a connection's answers are read into. */
import { describe, expect, it } from "@effect/vitest"
import { ReadBuffer } from "../../src/internal/mysqlSocket.js"

/** Reads as a socket does: as many bytes as there are, or as there is room for. */
const readAll = (buffer: ReadBuffer, sent: Buffer, sizes: ReadonlyArray<number>) => {
  const taken: Array<Buffer> = []
  let at = 0
  for (const size of sizes) {
    const length = Math.min(size, buffer.room().length)
    sent.copy(buffer.room(), 0, at, at + length)
    taken.push(buffer.take(length))
    at += length
  }
  return { taken, read: sent.subarray(0, at) }
}

const sent = Buffer.from(Array.from({ length: 1_000_000 }, (_, at) => (at * 7919) % 251))

describe("what is read", () => {
  const sizes = {
    "short answers": Array.from({ length: 500 }, (_, at) => 1 + at % 300),
    "long answers": Array.from({ length: 15 }, () => 65_536),
    "answers of all lengths": Array.from({ length: 60 }, (_, at) => 1 + (at * 4_099) % 30_000)
  }
  for (const [what, lengths] of Object.entries(sizes)) {
    it(`stays as it was, whatever is read afterwards: ${what}`, () => {
      const { read, taken } = readAll(new ReadBuffer(), sent, lengths)
      expect(Buffer.concat(taken).equals(read)).toBe(true)
    })
  }

  it("does not keep the buffer when it is short, and is not copied when it is long", () => {
    const buffer = new ReadBuffer()
    const room = buffer.room()
    expect(buffer.take(4_096).buffer).not.toBe(room.buffer)
    expect(buffer.room()).toBe(room)
    expect(buffer.take(4_097).buffer).toBe(room.buffer)
    expect(buffer.room().byteOffset).toBe(4_097)
  })

  it("has room for a quarter of a buffer at least", () => {
    const buffer = new ReadBuffer()
    for (let round = 0; round < 100; round++) {
      expect(buffer.room().length).toBeGreaterThanOrEqual(16_384)
      buffer.take(5_000)
    }
  })
})
