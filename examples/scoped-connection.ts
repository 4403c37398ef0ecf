/** An explicit connection: for temporary tables, locks, variables, whatever belongs to one session of the server. */
import { Console, Effect } from "effect"
import { Db, DbLayer } from "../src/index.js"

const program = Effect.gen(function*() {
  const db = yield* Db.Db

  // #region scoped
  const picked = yield* Effect.scoped(Effect.gen(function*() {
    const connection = yield* db.connection
    yield* connection.execute("CREATE TEMPORARY TABLE picked (id INTEGER)")
    yield* connection.execute("INSERT INTO picked VALUES (?), (?)", [1, 2])
    return yield* connection.list<number>("SELECT id FROM picked ORDER BY id")
  }))
  // here it is back in the pool, and the temporary table is gone
  // #endregion
  yield* Console.log(`picked ${picked.join(" and ")}`)

  yield* db.list("SELECT id FROM picked").pipe(
    Effect.catchTag("SqlSyntaxError", (error) => Console.log(`afterwards: ${error.message}`))
  )
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
