/** The demo from its first line to its summary. */
import { Config, Duration, Effect, Layer, Option } from "effect"
import type { Scope } from "effect"
import { ConnectionPool, Db, type DbConnection, type DbError, DbLayer, PoolStats } from "../../src/index.js"
import { cities } from "./cities.js"
import { count, type Demo, DemoFailed, type Outcome, type Part } from "./demo.js"
import { jobWorkers } from "./jobs.js"
import * as Killer from "./killer.js"
import { monitor } from "./monitor.js"
import { scopedConnection } from "./scopedConnection.js"
import { endProgress, say } from "./screen.js"
import * as tables from "./tables.js"
import { accountTransfers } from "./transfers.js"
import { twentyFibers } from "./twentyFibers.js"

/** The parts in order, and which connections are killed meanwhile where there is a server. */
const parts: ReadonlyArray<{
  readonly title: string
  readonly run: (demo: Demo) => Part
  readonly kills: Killer.Kills
}> = [
  {
    title: "Twenty fibers over a hundred users: every fiber its own connection",
    run: twentyFibers,
    kills: { every: 80, times: 3 }
  },
  {
    title: "A batch processor over the cities of GeoNames, in constant memory",
    run: cities,
    kills: { every: 400, times: 8 }
  },
  { title: "Workers on a table of jobs", run: jobWorkers, kills: { every: 100, times: 4 } },
  {
    // a temporary table is gone with its connection, which only its program could make good
    title: "An explicit connection with a temporary table",
    run: scopedConnection,
    kills: { every: 0, times: 0 }
  },
  { title: "Transfers between accounts", run: accountTransfers, kills: { every: 100, times: 4 } }
]

const isSet = (name: string): Effect.Effect<boolean> =>
  Config.string(name).pipe(
    Effect.map((value) => value.trim() !== ""),
    Effect.orElseSucceed(() => false)
  )

/** The database that the environment names, else an embedded one in a temporary file. */
const database: Layer.Layer<DbLayer.Services, DbError.InvalidConfig> = Layer.unwrapEffect(
  Effect.map(
    Effect.all([isSet("DB_PRIMARY_URL"), isSet("DB_PRIMARY_HOST")]),
    (given) => given.includes(true) ? DbLayer.primary : DbLayer.sqlite()
  )
)

/** On a server: a connection for the demo itself, beside those of the parts. It keeps a second demo away, and kills. */
const ownConnection = (
  db: Db.DbService,
  pool: ConnectionPool.Pool
): Effect.Effect<DbConnection.DbConnection, DbError.DbError | DbError.InvalidConfig | DemoFailed, Scope.Scope> =>
  Effect.gen(function*() {
    yield* pool.resize(pool.config.poolSize + 1)
    const connection = yield* db.connection
    const locked = yield* connection.value("SELECT GET_LOCK('espdemo', 0)")
    if (Option.contains(locked, 1)) return connection
    return yield* new DemoFailed({ message: "Another demo is running on this server; run one at a time" })
  })

const introduce = (demo: Demo, target: string): Effect.Effect<void, DbError.DbError> =>
  Effect.gen(function*() {
    const version = yield* demo.db.value<string>(demo.server ? "SELECT VERSION()" : "SELECT sqlite_version()")
    yield* say(
      `effect-sql-pool on ${demo.server ? "the server" : "embedded SQLite"} `
        + `${Option.getOrElse(version, () => "of unknown version")}, ${target}\n`
        + `A pool of ${demo.poolSize} connections${
          demo.server ? ", and one for the demo itself" : ""
        }. The demo makes ${tables.names.length} tables of its own, named `
        + "espdemo_..., and drops them at the end.\n"
        + (demo.server
          ? "It kills connections of its own pool in the middle of their work: lines with [kill]."
          : "To run it on MySQL or MariaDB, set DB_PRIMARY_URL=mysql://user:password@host/database")
    )
  })

interface Done extends Outcome {
  readonly took: Duration.Duration
}

const runParts = (demo: Demo, killer: Killer.Killer): Effect.Effect<ReadonlyArray<Done>, Effect.Effect.Error<Part>> =>
  Effect.forEach(parts, (part, index) =>
    Effect.gen(function*() {
      yield* say(`\n${index + 1}  ${part.title}`)
      const [took, outcome] = yield* Effect.timed(killer.during(part.run(demo), part.kills))
      yield* endProgress
      // what this fiber does not need any more, the next part may have
      yield* demo.db.releaseFiberConnection
      return { ...outcome, took }
    }))

/** What is told at the end, when the pool is closed. */
interface Report {
  readonly parts: ReadonlyArray<Done>
  readonly killed: number
  readonly demo: Demo
  readonly statistics: PoolStats.PoolStatsService
}

const work = Effect.gen(function*() {
  const db = yield* Db.Db
  const pool = yield* ConnectionPool.ConnectionPool
  const statistics = yield* PoolStats.PoolStats
  const { name, poolSize } = pool.config
  if (poolSize < 2) {
    return yield* new DemoFailed({
      message: `The demo needs a pool of at least 2 connections, and this is of ${poolSize}`
    })
  }
  const demo: Demo = { db, server: pool.driver.dialect === "mysql", poolSize, connections: new Set(), begunAgain: 0 }
  if (demo.server) yield* say(`Connecting to ${name}`)
  yield* introduce(demo, name)
  const killer = Killer.make(demo, demo.server ? yield* ownConnection(db, pool) : undefined)
  yield* tables.scoped(db, demo.server)
  yield* db.releaseFiberConnection
  yield* monitor(statistics)
  const done = yield* runParts(demo, killer)
  yield* say("")
  const report: Report = { parts: done, killed: killer.killed(), demo, statistics }
  return report
})

const seconds = (took: Duration.Duration): string => `${(Duration.toMillis(took) / 1_000).toFixed(1)} s`

const summarize = ({ demo, killed, parts, statistics }: Report, took: Duration.Duration): Effect.Effect<void> =>
  Effect.flatMap(statistics.snapshot, (stats) => {
    const lines = parts.map(({ rows, took, what }) =>
      `  ${what.padEnd(60)}${count(rows).padStart(9)} rows${seconds(took).padStart(9)}`
    )
    const lent = stats.acquiredAtOnce + stats.acquiredAfterWait
    const connections = `  connections: ${stats.created} opened, ${stats.closed} closed, ${count(lent)} times lent, `
      + `${count(stats.acquiredAfterWait)} of them to a fiber that had to wait`
    const runAgain = stats.retriedReads + stats.retriedUnexecuted
    const recovery =
      `  recovery: ${killed} connections killed, ${stats.lost} found lost; run again: ${runAgain} statements `
      + `by the pool, ${demo.begunAgain} transactions and streams by the program`
    return say([
      "Summary",
      ...lines,
      connections,
      ...demo.server ? [recovery] : [],
      `Everything ran and every result is right. Done in ${seconds(took)}.`
    ].join("\n"))
  })

/** Everything; whatever it opened or made is gone when it ends, however it ends. */
export const demonstration: Effect.Effect<void, DbError.DbError | DbError.InvalidConfig | DemoFailed> = work.pipe(
  Effect.scoped,
  Effect.provide(database),
  Effect.timed,
  Effect.flatMap(([took, report]) => summarize(report, took)),
  Effect.ensuring(endProgress)
)
