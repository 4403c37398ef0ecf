/** A pool on a server, with options. It connects when the first statement asks, so that this runs without a server. */
import { Console, Duration, Effect, Redacted } from "effect"
import { DbLayer, PoolStats } from "../src/index.js"

// #region options
const shop = DbLayer.mysql({
  url: Redacted.make("mysql://app:secret@localhost/shop"),
  poolSize: 20,
  acquireTimeout: "3 seconds",
  maxLifetime: Duration.minutes(15),
  isolation: "READ COMMITTED",
  initialSql: ["SET SESSION innodb_lock_wait_timeout = 5"]
})
// #endregion

const program = Effect.gen(function*() {
  const stats = yield* PoolStats.PoolStats
  const { created, max, pool } = yield* stats.snapshot
  yield* Console.log(`${pool}: ${created} of at most ${max} connections are open`)
})

await Effect.runPromise(program.pipe(Effect.provide(shop)))
