import * as FastCheck from "effect/FastCheck"
import type * as Fiber from "effect/Fiber"
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { describe, expect, it } from "vitest"
import { FiberTable } from "../../src/internal/fiberTable.js"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** As much of a fiber as the table asks: its number. Another copy of Effect may count the same numbers. */
const fiberOf = (id: number, more: object = {}): AnyFiber => ({ ...more, id: () => ({ id }) }) as unknown as AnyFiber

// few numbers, of which some are the same, others beyond 32 bits
const fibers = [0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 1, 2 ** 40, 16, 17]
  .map((id) => fiberOf(id))
const more = Array.from({ length: 60 }, (_, id) => fiberOf(id * 5))
const known = [...fibers, ...more]

const step = FastCheck.record({
  fiber: FastCheck.nat({ max: known.length - 1 }),
  value: FastCheck.option(FastCheck.nat(), { nil: undefined }),
  leaves: FastCheck.boolean()
})

describe("a table of fibers", () => {
  it("finds what a Map finds, however they come and go", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.array(step, { maxLength: 400, size: "max" }), (steps) => {
        const table = new FiberTable<number | undefined>()
        const model = new Map<AnyFiber, number | undefined>()
        for (const { fiber: index, leaves, value } of steps) {
          const fiber = known[index]!
          if (leaves) {
            table.delete(fiber)
            model.delete(fiber)
          } else {
            table.set(fiber, value)
            model.set(fiber, value)
          }
          expect(table.size).toBe(model.size)
          expect(known.map((each) => table.get(each))).toEqual(known.map((each) => model.get(each)))
          expect(known.map((each) => table.has(each))).toEqual(known.map((each) => model.has(each)))
        }
      }),
      { numRuns: 60 }
    )
  })

  it("grows with a crowd, finds everyone of it, and is small again after it", () => {
    const table = new FiberTable<number>()
    const crowd = Array.from({ length: 10_000 }, (_, n) => fiberOf(7 * n))
    crowd.forEach((fiber, n) => table.set(fiber, n))
    expect(crowd.every((fiber, n) => table.get(fiber) === n)).toBe(true)
    for (const fiber of crowd.slice(5)) table.delete(fiber)
    expect([table.size, table.capacity]).toEqual([5, 32])
    expect(crowd.slice(0, 6).map((fiber) => table.get(fiber))).toEqual([0, 1, 2, 3, 4, undefined])
  })

  it("leaves nothing behind that keeps those alive who come after it", () => {
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as (options?: { readonly type: "minor" }) => void
    const table = new FiberTable<object>()
    const present: Array<AnyFiber> = []
    const kilobytes = 10
    const pass = (id: number): void => {
      const fiber = fiberOf(id, { more: Array.from({ length: 128 * kilobytes }, () => id) })
      table.set(fiber, fiber)
      present.push(fiber)
      if (present.length > 20) table.delete(present.shift()!)
    }
    const old = (): number =>
      getHeapSpaceStatistics()
        .filter(({ space_name }) => space_name === "old_space" || space_name === "large_object_space")
        .reduce((sum, { space_used_size }) => sum + space_used_size, 0) / 1000
    for (let id = 0; id < 100; id++) pass(id)
    // whoever is there now is old
    collect()
    const before = old()
    for (let id = 100; id < 1100; id++) {
      pass(id)
      if (id % 50 === 0) collect({ type: "minor" })
    }
    // twenty are there, and as many may have been when the young were collected for the last two times
    expect(old() - before).toBeLessThan(4 * 20 * kilobytes)
  })
})
