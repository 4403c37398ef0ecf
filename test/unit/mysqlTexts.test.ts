/** Rows in text, as of a statement that is not prepared, in mysql2's own reader and without a server. */
import { describe, expect, it } from "@effect/vitest"
import { Exit } from "effect"
import * as FastCheck from "effect/FastCheck"
import { setImmediate } from "node:timers/promises"
import { column, counted, open, rows, statement, types } from "../support/mysqlPackets.js"

/** What comes of numbers that a server writes. */
const read = async (texts: ReadonlyArray<string>): Promise<ReadonlyArray<unknown>> => {
  const { connection, stream } = open()
  let found: ReadonlyArray<unknown> = []
  connection.run(statement("SELECT x FROM t", { unprepared: true }), (exit) => {
    found = Exit.isSuccess(exit) ? exit.value.rows.map((row) => row[0]) : [exit]
  })
  stream.push(rows([column("x", types.double)], ...texts.map(counted)))
  for (let turns = 0; turns < 10; turns++) await setImmediate()
  return found
}

describe("a DOUBLE in text", () => {
  it("is the number that was written, to its last digit", async () => {
    const numbers = [
      95206838625.75497,
      0,
      -1.5,
      5e-324,
      1.7976931348623157e308,
      // of few digits, as servers write most
      ...FastCheck.sample(
        FastCheck.tuple(FastCheck.integer({ max: 2 ** 40 }), FastCheck.integer({ min: 0, max: 12 })),
        500
      )
        .map(([whole, places]) => whole / 10 ** places),
      ...FastCheck.sample(FastCheck.double({ noNaN: true, noDefaultInfinity: true }), 500)
    ]
    expect(await read(numbers.map(String))).toEqual(numbers.map((number) => number === 0 ? 0 : number))
  })
})
