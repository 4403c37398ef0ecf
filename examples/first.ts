import { Array, Console, Effect } from "effect"
import { Db, DbLayer, PoolStats } from "../src/index.js"

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)")
  yield* db.execute("INSERT INTO users VALUES (?, ?), (?, ?), (?, ?)", [1, "Ada", 2, "Grace", 3, "Barbara"])

  // each fiber runs on a connection of its own, without asking for one
  const names = yield* Effect.forEach(
    [1, 2, 3],
    (id) => db.value<string>("SELECT name FROM users WHERE id = :id", { id }),
    { concurrency: 20 }
  )
  yield* Console.log(Array.getSomes(names).join(", "))

  const { created, max } = yield* Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
  yield* Console.log(`${created} of at most ${max} connections were opened`)
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
