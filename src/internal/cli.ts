/**
 * The command `effect-sql-pool`: `monitor` shows a pool under load, on an embedded database or the one that the
 * environment names.
 *
 * A program, not a module: it runs when it is loaded.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import type * as Scope from "effect/Scope"
import { parseArgs } from "node:util"
import type { Pool } from "../ConnectionPool.js"
import type { InvalidConfig } from "../DbError.js"
import * as DbLayer from "../DbLayer.js"
import * as PoolConfig from "../PoolConfig.js"
import * as PoolMonitor from "../PoolMonitor.js"
import { leakAfterMillis, load } from "./monitorLoad.js"

const usage = `Usage: effect-sql-pool monitor [--seconds N] [--fibers N] [--pool-size N]

Shows a pool of connections under load, until Ctrl-C or for so many seconds: on an embedded SQLite database in a
temporary file, or on the server that DB_PRIMARY_URL names (mysql://user:password@host:port/database). It needs no
table and writes nothing; on a server it kills connections of its own now and then.

  --seconds N    end after so many seconds
  --fibers N     how many fibers read (default: 30)
  --pool-size N  the most connections (default: DB_PRIMARY_POOL_SIZE, or 10)
`

interface Arguments {
  readonly seconds: number | undefined
  readonly fibers: number
  readonly poolSize: number | undefined
}

const positive = (name: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === "" || !Number.isFinite(value) || value <= 0) throw new Error(`--${name} must be a number above 0`)
  return value
}

/** Throws with what is wrong; `undefined` when help is asked for. */
const parse = (): Arguments | undefined => {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: "string" },
      fibers: { type: "string" },
      "pool-size": { type: "string" },
      help: { type: "boolean", short: "h" }
    }
  })
  if (values.help === true) return undefined
  if (positionals.join(" ") !== "monitor") throw new Error(`the command is "monitor", not "${positionals.join(" ")}"`)
  return {
    seconds: positive("seconds", values.seconds),
    fibers: Math.ceil(positive("fibers", values.fibers) ?? 30),
    poolSize: positive("pool-size", values["pool-size"])
  }
}

const isSet = (name: string): boolean => (process.env[name] ?? "").trim() !== ""

const openPool = ({ poolSize }: Arguments): Effect.Effect<Pool, InvalidConfig, Scope.Scope> => {
  const embedded = !isSet("DB_PRIMARY_URL") && !isSet("DB_PRIMARY_HOST")
  // named like any other, so that what else the environment says holds for it too
  if (embedded) process.env["DB_PRIMARY_URL"] = "sqlite:"
  return Effect.flatMap(PoolConfig.fromEnvironment("primary"), (found) => {
    const options = {
      leakDetectionThreshold: leakAfterMillis,
      drainTimeout: 2_000,
      poolSize: poolSize ?? found.options.poolSize,
      name: embedded ? "embedded SQLite" : undefined
    }
    return found.database === "mysql"
      ? DbLayer.mysqlPool({ ...found.options, ...options })
      : DbLayer.sqlitePool({ ...found.options, ...options })
  })
}

const say = (text: string): Effect.Effect<void> =>
  Effect.sync(() => {
    process.stdout.write(`${text}\n`)
  })

const monitor = (options: Arguments): Effect.Effect<void, InvalidConfig> =>
  Effect.gen(function*() {
    const pool = yield* openPool(options)
    yield* say(`A pool of ${pool.config.poolSize} connections to ${pool.config.name} under load; Ctrl-C ends it.`)
    yield* PoolMonitor.make([pool])
    yield* Effect.raceFirst(
      load(pool, options.fibers, say),
      options.seconds === undefined ? Effect.never : Effect.sleep(options.seconds * 1_000)
    )
  }).pipe(
    Effect.scoped,
    // on a terminal the events are in the view
    process.stdout.isTTY ? Logger.withMinimumLogLevel(LogLevel.None) : (effect) => effect
  )

const run = (options: Arguments): void => {
  let stopped = false
  let cancel = (): void => {}
  const stop = (): void => {
    // asked twice: at once, whatever is left
    if (stopped) process.exit(130)
    stopped = true
    cancel()
  }
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const
  for (const signal of signals) process.on(signal, stop)
  // whoever reads the output has gone
  process.stdout.on("error", () => stopped || stop())
  cancel = Effect.runCallback(monitor(options), {
    onExit: (exit) => {
      for (const signal of signals) process.off(signal, stop)
      if (Exit.isSuccess(exit)) return
      process.exitCode = stopped ? 130 : 1
      if (Cause.isInterruptedOnly(exit.cause)) return
      const error = Cause.squash(exit.cause)
      process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    }
  })
}

try {
  const options = parse()
  if (options === undefined) process.stdout.write(usage)
  else run(options)
} catch (error) {
  process.stderr.write(`effect-sql-pool: ${error instanceof Error ? error.message : String(error)}\n\n${usage}`)
  process.exitCode = 2
}
