/**
 * A program with a pool, to be ended from outside: see `shutdownRun.ts`, which starts it. It says what happens to it, one
 * line of JSON each, and reads one line when it is to go on.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { once } from "node:events"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import type { ShutdownOptions } from "./shutdownRun.js"

const options = JSON.parse(process.argv[2] ?? "{}") as ShutdownOptions

const say = (event: string, facts: object = {}): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`)
  })

/** Says how it ended, with how long that took. */
const reported = (name: string, effect: Effect.Effect<unknown, DbError, Db.Db>) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.onExit(effect, (exit) => {
      const millis = Math.round(performance.now() - from)
      if (Exit.isSuccess(exit)) {
        const { value } = exit
        return say(name, { millis, value: Option.isOption(value) ? Option.getOrNull(value) : value })
      }
      const error = Option.getOrUndefined(Cause.failureOption(exit.cause))
      const tag = error?._tag ?? (Cause.isInterruptedOnly(exit.cause) ? "interrupted" : "died")
      return say(name, {
        millis,
        tag,
        ...(error !== undefined && "outcome" in error ? { outcome: error.outcome } : {})
      })
    })
  })

/** Work of which the main fiber's end knows nothing, like a server's that answers requests. */
const daemon = (name: string, effect: Effect.Effect<unknown, DbError, Db.Db>) =>
  Effect.forkDaemon(Effect.ignore(reported(name, effect)))

/** Comes as soon as the pool does not lend any more, and asks for a connection all the same. */
const latecomer = Effect.gen(function*() {
  const pool = yield* ConnectionPool.ConnectionPool
  const closing = Effect.map(pool.snapshot, ({ phase }) => phase !== "Open")
  yield* Effect.repeat(Effect.zipRight(Effect.sleep(2), closing), { until: (yes) => yes })
  yield* Effect.ignore(reported("late", Effect.flatMap(Db.Db, (db) => db.value("SELECT 'late'"))))
})

/** For ever, like `Effect.never`, which besides keeps the process alive with a timer. */
const waits = Effect.async<never>(() => {})

const goOn = Effect.promise(async () => {
  await once(process.stdin, "data")
  // reading holds the process
  process.stdin.destroy()
})

const value = (sql: string) => Effect.flatMap(Db.Db, (db) => db.value(sql))
const insert = Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (1)"))
const transaction = (rest: Effect.Effect<unknown, DbError, Db.Db>) =>
  Effect.flatMap(Db.Db, (db) => db.transaction(Effect.zipRight(insert, rest)))

const { sql } = options
const scenarios: Record<ShutdownOptions["scenario"], Effect.Effect<unknown, DbError, Db.Db>> = {
  "ends": value(sql),
  "idle": Effect.forEach([1, 2, 3], () => value(sql), { concurrency: "unbounded", discard: true }),
  "works": daemon("work", value(sql)),
  "main works": reported("work", value(sql)),
  "transaction": daemon("work", transaction(Effect.zipRight(say("inside"), waits))),
  "main transaction": reported("work", transaction(Effect.zipRight(say("inside"), waits))),
  "commit": daemon("work", transaction(Effect.zipRight(Effect.zipRight(say("inside"), goOn), say("going on")))),
  "stream": daemon(
    "work",
    Effect.flatMap(
      Db.Db,
      (db) =>
        Stream.runForEach(
          db.stream<{ readonly seq: number }>(sql),
          ({ seq }) => seq === 1 ? say("inside") : Effect.sleep(1)
        )
    )
  ),
  "queue": Effect.all([
    daemon("work", value(sql)),
    ...["first", "second"].map((name) => Effect.zipRight(Effect.sleep(50), daemon(name, value(`SELECT '${name}'`))))
  ], { discard: true })
}

const program = Effect.zipRight(
  Effect.zipRight(say("started"), Effect.forkDaemon(latecomer)),
  Effect.zipRight(scenarios[options.scenario], say("ready"))
)

const layer = DbLayer.mysql({ ...options.pool, url: Redacted.make(process.env["SHUTDOWN_URL"] ?? "") })

const exit = process.exit.bind(process)
process.exit = (code) => {
  process.stdout.write(`${JSON.stringify({ event: "process.exit" })}\n`)
  return exit(code)
}

// How long it takes to end, and for how much of that a busy machine did not let it run.
let signalledAt = performance.now()
let stalled = 0
const watch = (): void => {
  signalledAt = performance.now()
  let last = signalledAt
  setInterval(() => {
    const late = performance.now() - last - 10
    if (late > 5) stalled += late
    last = performance.now()
  }, 10).unref()
}
// only once, or the second signal would not end the process
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, watch)

process.on("exit", () => {
  const handles = process.getActiveResourcesInfo().filter((name) => name !== "PipeWrap")
  const millis = Math.round(performance.now() - signalledAt)
  process.stdout.write(`${JSON.stringify({ event: "exit", handles, millis, stalled: Math.round(stalled) })}\n`)
})
for (const fault of ["uncaughtExceptionMonitor", "unhandledRejection"] as const) {
  process.on(fault, (error: unknown) => {
    process.stdout.write(`${JSON.stringify({ event: "unhandled", error: String(error) })}\n`)
  })
}

NodeRuntime.runMain(
  program.pipe(
    Effect.zipRight(options.scenario === "ends" ? Effect.void : Effect.never),
    Effect.provide(layer),
    Effect.ensuring(say("released"))
  ),
  // after a signal runMain would call process.exit, and nobody would see what is left: without, the process ends only
  // when nothing holds it
  options.exits ? {} : { teardown: () => {} }
)
