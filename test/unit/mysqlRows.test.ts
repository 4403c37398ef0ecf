import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import type { RawPacket } from "../../src/internal/mysqlProtocol.js"
import { dateReader, rowConverter } from "../../src/internal/mysqlRows.js"

const dateOnly = 10
const datetime = 12

/** As much of a packet as the reader of a point in time uses; what it cannot read is asked of the prototype, as in mysql2. */
const packetOf = (bytes: ReadonlyArray<number>, asText: string): RawPacket => {
  const buffer = Buffer.from(bytes)
  const prototype = { readDateTimeString: () => asText }
  return Object.assign(Object.create(prototype) as object, {
    buffer,
    offset: 0,
    readInt8(this: { offset: number }) {
      return buffer.readUInt8(this.offset++)
    },
    readInt16(this: { offset: number }) {
      this.offset += 2
      return buffer.readUInt16LE(this.offset - 2)
    },
    readInt32(this: { offset: number }) {
      this.offset += 4
      return buffer.readUInt32LE(this.offset - 4)
    }
  }) as unknown as RawPacket
}

/** A DATETIME of the binary protocol, with as many of its parts as the length says. */
const bytesOf = (at: Date, length: number, micros = 0): ReadonlyArray<number> => {
  const year = at.getUTCFullYear()
  const day = [year & 0xff, year >> 8, at.getUTCMonth() + 1, at.getUTCDate()]
  const time = [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()]
  const fraction = [micros & 0xff, (micros >> 8) & 0xff, (micros >> 16) & 0xff, micros >> 24]
  const all = [day, time, fraction].flat()
  return [length, ...all.slice(0, length)]
}

const read = (packet: RawPacket, columnType = datetime, offsetMillis = 0): unknown =>
  dateReader(offsetMillis).call(packet, 6, null, columnType)

describe("a point in time of a binary row", () => {
  const instants = FastCheck.date({
    min: new Date("0100-01-01T00:00:00Z"),
    max: new Date("9999-12-31T23:59:59.999Z"),
    noInvalidDate: true
  })

  it("is the instant that JavaScript's own calendar gives, from the year 100 to 9999", () => {
    FastCheck.assert(
      FastCheck.property(instants, FastCheck.integer({ min: -840, max: 840 }), (at, offsetMinutes) => {
        const micros = at.getUTCMilliseconds() * 1000 + 999
        const offset = offsetMinutes * 60_000
        expect(read(packetOf(bytesOf(at, 11, micros), "unused"), datetime, offset))
          .toEqual(new Date(at.getTime() - offset))
      }),
      { numRuns: 2000 }
    )
  })

  it("has no time of day where none was sent", () => {
    FastCheck.assert(FastCheck.property(instants, (at) => {
      const midnight = new Date(at)
      midnight.setUTCHours(0, 0, 0, 0)
      expect(read(packetOf(bytesOf(midnight, 4), "unused"))).toEqual(midnight)
    }))
  })

  it.each([
    ["a zero date", [4, 0, 0, 0, 0], "0000-00-00 00:00:00"],
    ["no bytes at all", [0], "0000-00-00 00:00:00"],
    ["30 February", [4, 0xea, 0x07, 2, 30], "2026-02-30 00:00:00"],
    ["29 February of 1900", [4, 0x6c, 0x07, 2, 29], "1900-02-29 00:00:00"],
    ["a month of zero", [4, 0xea, 0x07, 0, 1], "2026-00-01 00:00:00"]
  ])("stays text when it is none: %s", (_, bytes, text) => {
    expect(read(packetOf(bytes, text))).toBe(text)
  })

  it("is read from its text in a year below 100", () => {
    expect(read(packetOf([4, 99, 0, 2, 3], "0099-02-03 00:00:00"))).toEqual(new Date("0099-02-03T00:00:00Z"))
  })

  it("stays text when it is a DATE, which has no zone", () => {
    expect(read(packetOf([4, 0xea, 0x07, 2, 3], "2026-02-03"), dateOnly)).toBe("2026-02-03")
  })
})

describe("rowConverter", () => {
  const fields = [{ name: "at", columnType: datetime }]

  it("leaves a binary row's points in time alone, and reads those of a text row", () => {
    expect(rowConverter(fields, { offsetMillis: 0, compatible: false, binary: true })).toBeUndefined()
    const convert = rowConverter(fields, { offsetMillis: 0, compatible: false, binary: false })
    expect(convert?.(["2026-02-03 04:05:06"])).toEqual([new Date("2026-02-03T04:05:06Z")])
  })
})
