/** What a lease remembers of the ids that its inserts gave back. */
import { describe, expect, it } from "@effect/vitest"
import { Exit } from "effect"
import type { Result } from "../../src/Driver.js"
import { History } from "../../src/internal/leaseModel.js"
import { statement } from "../support/fakeDriver.js"

const inserted = (insertId: number | bigint, all?: ReadonlyArray<Result>): Exit.Exit<Result> =>
  Exit.succeed({ columns: [], rows: [], affectedRows: 1, insertId, warnings: 0, all })

const resultOf = (insertId: number): Result => ({ columns: [], rows: [], affectedRows: 1, insertId, warnings: 0 })

const insert = statement("INSERT INTO t VALUES (1)")

describe("a lease's history", () => {
  it("keeps the last sixteen ids", () => {
    const history = new History()
    for (let id = 1; id <= 18; id++) history.add(insert, inserted(id))
    expect([...history.insertIds].sort((one, two) => Number(one) - Number(two))).toEqual(
      Array.from({ length: 16 }, (_, at) => at + 3)
    )
  })

  it("keeps no id of what generated none", () => {
    const history = new History()
    history.add(insert, inserted(0))
    expect(history.insertIds).toEqual([])
    expect(history).toMatchObject({ statements: 1, wrote: true })
  })

  it("keeps that of each of several results", () => {
    const history = new History()
    history.add(insert, inserted(5, [resultOf(5), resultOf(0), resultOf(6)]))
    expect([...history.insertIds].sort()).toEqual([5, 6])
  })
})
