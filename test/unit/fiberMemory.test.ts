/** What remains of a fiber that has ended: nothing, however it ended and whatever it has done with its connection. */
import { expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { type Fixture, settle, withPool } from "../support/poolFixture.js"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** Collects garbage after the present job, whose end a `WeakRef` that was looked at in it waits for. */
const collected = Effect.promise(() =>
  new Promise<void>((resolve) =>
    setImmediate(() => {
      collect()
      resolve()
    })
  )
)

const takenBack = "a connection that was taken back"

const lives: ReadonlyArray<readonly [string, (f: Fixture) => Effect.Effect<unknown, unknown>]> = [
  ["a statement", (f) => f.run("SELECT id")],
  ["a statement that fails", (f) => f.run("FAIL")],
  ["a session that holds something", (f) => f.run("DIRTY")],
  ["an interruption", (f) => Effect.zipRight(f.run("SELECT id"), Effect.interrupt)],
  ["an interrupted statement", (f) => f.run("SLEEP 10")],
  ["a connection that was released", (f) => Effect.zipRight(f.run("SELECT id"), f.fibers.release)],
  // two others want one at the same time, and there are two
  [takenBack, (f) => {
    const other = Effect.fork(f.run("SELECT id"))
    return Effect.flatMap(
      Effect.zipRight(f.run("SELECT id"), Effect.zip(other, other)),
      ([one, two]) => Effect.zipRight(Fiber.join(one), Fiber.join(two))
    )
  }],
  ["a reconnect", (f) => f.fibers.reconnect],
  ["a refusal", (f) => f.run("SELECT LAST_INSERT_ID()")],
  ["a session", (f) => f.fibers.session(() => f.run("SELECT id"))],
  ["an explicit connection", (f) => Effect.scoped(f.fibers.connection)]
]

for (const [name, life] of lives) {
  it.effect(`a fiber that has ended is not kept: ${name}`, () =>
    withPool({ poolSize: 2 }, (fixture) =>
      Effect.gen(function*() {
        const fibers: Array<WeakRef<Fiber.RuntimeFiber<unknown, unknown>>> = []
        for (let n = 0; n < 5; n++) {
          const fiber = yield* Effect.fork(life(fixture))
          fibers.push(new WeakRef(fiber))
          yield* settle
          yield* Fiber.interrupt(fiber)
        }
        expect((yield* fixture.pool.snapshot).takenBack > 0).toBe(name === takenBack)
        // the last one is still in a variable
        yield* Effect.forEach([1, 2, 3], () => collected)
        expect(fibers.filter((fiber) => fiber.deref() !== undefined).length).toBeLessThanOrEqual(1)
      })))
}
