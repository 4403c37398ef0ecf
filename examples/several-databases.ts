/** Several databases side by side, each with a pool and tags of its own, from the environment. */
import { ConfigProvider, Console, Effect, Layer } from "effect"
import { Db, DbLayer, PoolStats } from "../src/index.js"

// #region databases
const program = Effect.gen(function*() {
  const primary = yield* Db.Db
  const replica = yield* Db.tag("replica")
  const reports = yield* Db.tag("reports")
  const [one, two, three] = yield* Effect.all(
    [primary.list("SELECT 1"), replica.list("SELECT 2"), reports.list("SELECT 3")],
    { concurrency: "unbounded" }
  )
  yield* Console.log(`answers of the three: ${one}, ${two}, ${three}`)
  const { max, pool } = yield* Effect.flatMap(PoolStats.tag("reports"), (stats) => stats.snapshot)
  yield* Console.log(`${pool} has a pool of ${max}`)
})

const databases = Layer.mergeAll(DbLayer.primary, DbLayer.config("replica"), DbLayer.config("reports"))
// #endregion

// what the environment does not say is embedded SQLite here, so that the example runs anywhere
const embedded = new Map([
  ["DB_PRIMARY_URL", "sqlite:"],
  ["DB_REPLICA_URL", "sqlite:"],
  ["DB_REPORTS_URL", "sqlite::memory:"]
])
const environment = Layer.setConfigProvider(
  ConfigProvider.orElse(ConfigProvider.fromEnv(), () => ConfigProvider.fromMap(embedded))
)

await Effect.runPromise(program.pipe(Effect.provide(Layer.provide(databases, environment))))
