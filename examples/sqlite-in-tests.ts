/**
 * SQLite in tests and MySQL in production: a service that is tested on a private embedded database, new for every test.
 *
 * `npx tsx examples/sqlite-in-tests.ts` runs the tests without a server. Where `DB_PRIMARY_URL` names one they run on
 * it as well: what is written for both has to be tried on both now and then.
 */
import { SqlClient } from "@effect/sql"
import { Array, Effect, Layer, Option } from "effect"
import { deepEqual, equal } from "node:assert/strict"
import { test } from "node:test"
import { Db, DbLayer } from "../src/index.js"

// #region service
/** Counts visits. It knows `Db` and `SqlClient`, and not which database is behind them. */
class Visits extends Effect.Service<Visits>()("Visits", {
  effect: Effect.gen(function*() {
    const db = yield* Db.Db
    const sql = yield* SqlClient.SqlClient
    // where the dialects differ, each has its own text
    const upsert = sql.onDialectOrElse({
      mysql: () => "ON DUPLICATE KEY UPDATE visits = visits + 1",
      orElse: () => "ON CONFLICT (page) DO UPDATE SET visits = visits + 1"
    })
    return {
      add: (page: string) => db.execute(`INSERT INTO espdemo_visits (page, visits) VALUES (?, 1) ${upsert}`, [page]),
      of: (page: string) =>
        Effect.map(
          db.value<number>("SELECT visits FROM espdemo_visits WHERE page = ?", [page]),
          Option.getOrElse(() => 0)
        )
    }
  })
}) {}

/** What `main.ts` provides: the server that the environment names. */
export const production = Layer.provide(Visits.Default, DbLayer.primary)
// #endregion

/** The tables of the service; in a program of its own these are its migrations. */
const schema = Layer.scopedDiscard(Effect.gen(function*() {
  const db = yield* Db.Db
  const drop = db.execute("DROP TABLE IF EXISTS espdemo_visits")
  yield* Effect.acquireRelease(drop, () => Effect.ignoreLogged(drop))
  yield* db.execute("CREATE TABLE espdemo_visits (page VARCHAR(100) PRIMARY KEY, visits INTEGER NOT NULL)")
}))

// #region tests
/** A temporary file for each test, removed at its end. Unlike `:memory:` it has as many connections as the pool. */
const embedded = DbLayer.sqlite()

const tested = [
  { name: "embedded SQLite", database: embedded },
  ...(process.env["DB_PRIMARY_URL"] === undefined ? [] : [{ name: "the server", database: DbLayer.primary }])
]

for (const { database, name } of tested) {
  const visits = Layer.provide(Visits.Default, Layer.provideMerge(schema, database))
  const run = <E>(effect: Effect.Effect<void, E, Visits>) => () => Effect.runPromise(Effect.provide(effect, visits))

  test(
    `a page that nobody has seen has no visits, on ${name}`,
    run(Effect.gen(function*() {
      equal(yield* (yield* Visits).of("/"), 0)
    }))
  )

  test(
    `visits at the same time are all counted, on ${name}`,
    run(Effect.gen(function*() {
      const visits = yield* Visits
      yield* Effect.forEach(Array.range(1, 50), () => visits.add("/"), { concurrency: "unbounded" })
      yield* visits.add("/about")
      deepEqual(yield* Effect.all([visits.of("/"), visits.of("/about")]), [50, 1])
    }))
  )
}
// #endregion
