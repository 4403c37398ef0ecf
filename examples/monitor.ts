/**
 * A view of the pool beside a program. On a terminal it is drawn at the lower end, below what the program prints; without one,
 * as in a pipe, it is a line for each interval.
 */
import { Console, Effect, Layer, Random } from "effect"
import { Db, DbLayer, PoolMonitor } from "../src/index.js"

// #region monitor
// the view stands beside the database whose pool it shows, and is gone before it
const Database = Layer.provideMerge(
  PoolMonitor.layer({ interval: "250 millis" }),
  DbLayer.sqlite({ poolSize: 4, name: "shop" })
)
// #endregion

/** A look at the shop, which keeps its connection while the customer thinks: others wait. */
const visit = Effect.gen(function*() {
  const db = yield* Db.Db
  const thinking = yield* Random.nextIntBetween(20, 100)
  yield* db.session(Effect.zipRight(db.value("SELECT 1"), Effect.sleep(thinking)))
})

const customer = (id: number) =>
  Effect.zipRight(Effect.repeatN(visit, 9), Console.log(`customer ${id} has seen enough`))

const program = Effect.gen(function*() {
  yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], customer, { concurrency: 12 })
  yield* Console.log("the shop is closed")
})

await Effect.runPromise(program.pipe(Effect.provide(Database)))
