/**
 * A program with a pool and a monitor beside it, in a process of its own: see `poolMonitor.test.ts`, which runs it on a
 * terminal and without. Its argument says how it ends; until then it works.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolMonitor from "../../src/PoolMonitor.js"

const ending = process.argv[2]

const endings: Readonly<Record<string, Effect.Effect<unknown>>> = {
  ends: Effect.void,
  waits: Effect.never,
  crashes: Effect.zipRight(
    Effect.sync(() =>
      setTimeout(() => {
        throw new Error("a crash on purpose")
      })
    ),
    Effect.never
  ),
  exits: Effect.sync(() => process.exit(3))
}

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* Effect.scoped(Effect.gen(function*() {
    yield* db.connection
    yield* Console.log("the program works")
    // until it has been seen
    yield* Effect.sleep("700 millis")
    yield* Console.log("the program goes on")
  }))
  yield* endings[ending ?? ""] ?? Effect.dieMessage(`unknown ending ${ending}`)
})

const monitored = PoolMonitor.layer({ interval: "100 millis" }).pipe(
  Layer.provideMerge(DbLayer.sqlite({ name: "watched", poolSize: 3 }))
)

if (process.argv[3] === "bare") Effect.runFork(Effect.provide(program, monitored))
else NodeRuntime.runMain(Effect.provide(program, monitored))
