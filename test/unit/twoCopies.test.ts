/** Two copies of the package in one program, as two versions of a dependency bring them. */
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { vi } from "vitest"
import * as FakeDriver from "../support/fakeDriver.js"
import { config, withPool } from "../support/poolFixture.js"

const statement = FakeDriver.statement("SELECT id")

const otherCopy = Effect.promise(async () => {
  vi.resetModules()
  return {
    ConnectionPool: await import("../../src/ConnectionPool.js"),
    FiberConnection: await import("../../src/FiberConnection.js")
  }
})

// the first pool of each copy: their sessions had the same name
it.effect("a session of one copy's pool is none of the other's", () =>
  withPool({}, (fixture) =>
    Effect.gen(function*() {
      const { ConnectionPool, FiberConnection } = yield* otherCopy
      const driver = yield* FakeDriver.make()
      yield* Effect.scoped(Effect.gen(function*() {
        const others = FiberConnection.make(yield* ConnectionPool.make(driver, config({ name: "other" })))
        yield* fixture.fibers.session(() => others.run(statement))
        expect(fixture.fake.sentOn("1")).toEqual([])
        expect(driver.sentOn("1")).toEqual(["SELECT id"])
        yield* others.release
      }))
    })))

it.effect("a statement of one copy runs on the other's pool", () =>
  withPool({}, (fixture) =>
    Effect.gen(function*() {
      const { FiberConnection } = yield* otherCopy
      const fibers = FiberConnection.make(fixture.pool)
      yield* fibers.run(statement)
      yield* fibers.run(statement)
      expect(fixture.fake.sentOn("1")).toEqual(["SELECT id", "SELECT id"])
      yield* fibers.release
    })))
