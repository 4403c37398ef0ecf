/**
 * A batch processor: invoices for 20,000 orders, by four fibers, stopped on the way and gone on with.
 *
 * Each fiber has a part of the orders. It commits the invoices of a page together with how far it has come, so that after
 * whatever happens the next run begins where the last one ended, and no order has two invoices or none.
 *
 * Runs on embedded SQLite, or on the server that `DB_PRIMARY_URL` names.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Array, Console, Effect, Option, Ref } from "effect"
import { Db, DbLayer, PoolStats, Recovery } from "../src/index.js"

const orders = 20_000
const parts = 4
const page = 500

interface Order {
  readonly id: number
  readonly amount: number
}

// #region step
/** The next page of a part: reads it, writes its invoices, notes how far it is; how many there were. */
const step = (part: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const last = yield* db.value<number>("SELECT last FROM espdemo_progress WHERE part = ?", [part])
    const rows = yield* db.dictionaries<Order>(
      "SELECT id, amount FROM espdemo_orders WHERE part = ? AND id > ? ORDER BY id LIMIT ?",
      [part, Option.getOrElse(last, () => 0), page]
    )
    if (rows.length === 0) return 0
    yield* db.execute(
      `INSERT INTO espdemo_invoices (order_id, total) VALUES ${rows.map(() => "(?, ?)").join(", ")}`,
      rows.flatMap(({ amount, id }) => [id, amount * 119])
    )
    yield* db.execute("UPDATE espdemo_progress SET last = ? WHERE part = ?", [rows.at(-1)!.id, part])
    return rows.length
  })

/** All parts side by side, each in a fiber and so on a connection of its own. */
const writeInvoices = <E>(done: (rows: number) => Effect.Effect<void, E>) =>
  Effect.forEach(
    Array.range(1, parts),
    (part) =>
      Effect.flatMap(Db.Db, (db) =>
        db.transaction(step(part), { retry: Recovery.schedule }).pipe(
          Effect.tap(done),
          Effect.repeat({ until: (rows) => rows === 0 })
        )),
    { concurrency: parts, discard: true }
  )
// #endregion

const tables = Effect.gen(function*() {
  const db = yield* Db.Db
  const drop = Effect.forEach(
    ["espdemo_orders", "espdemo_invoices", "espdemo_progress"],
    (table) => db.execute(`DROP TABLE IF EXISTS ${table}`)
  )
  yield* Effect.acquireRelease(drop, () => Effect.ignoreLogged(drop))
  yield* db.execute(
    "CREATE TABLE espdemo_orders (id INTEGER PRIMARY KEY, part INTEGER NOT NULL, amount INTEGER NOT NULL)"
  )
  yield* db.execute("CREATE INDEX espdemo_orders_part ON espdemo_orders (part, id)")
  yield* db.execute("CREATE TABLE espdemo_invoices (order_id INTEGER PRIMARY KEY, total INTEGER NOT NULL)")
  yield* db.execute("CREATE TABLE espdemo_progress (part INTEGER PRIMARY KEY, last INTEGER NOT NULL)")
  const ids = Array.chunksOf(Array.range(1, orders), 1_000)
  yield* Effect.forEach(ids, (ids) =>
    db.execute(
      `INSERT INTO espdemo_orders VALUES ${ids.map(() => "(?, ?, ?)").join(", ")}`,
      ids.flatMap((id) => [id, 1 + id % parts, id % 50])
    ))
  yield* Effect.forEach(
    Array.range(1, parts),
    (part) => db.execute("INSERT INTO espdemo_progress VALUES (?, 0)", [part])
  )
})

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  const invoices = Effect.map(
    db.values<[count: number, orders: number, total: number | string]>(
      "SELECT COUNT(*), COUNT(DISTINCT order_id), SUM(total) FROM espdemo_invoices"
    ),
    (rows) => rows[0]!
  )

  // as if the process broke down after a third
  const written = yield* Ref.make(0)
  const breakDown = (rows: number) =>
    Effect.flatMap(
      Ref.updateAndGet(written, (n) => n + rows),
      (n) => n < orders / 3 ? Effect.void : Effect.fail("broken down")
    )
  yield* Effect.either(writeInvoices(breakDown))
  const [stopped] = yield* invoices
  yield* Console.log(`broken down on the way: ${stopped} of ${orders} invoices are written`)

  yield* writeInvoices(() => Effect.void)
  const [count, distinct, total] = yield* invoices
  const asked = yield* db.value<number | string>("SELECT SUM(amount * 119) FROM espdemo_orders")
  yield* Console.log(`gone on: ${count} invoices for ${distinct} of ${orders} orders`)
  yield* Console.log(`their total is right: ${Option.contains(asked, total)}`)
  const { created } = yield* Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
  yield* Console.log(`connections: ${created}`)
})

const database = process.env["DB_PRIMARY_URL"] === undefined ? DbLayer.sqlite() : DbLayer.primary

NodeRuntime.runMain(Effect.scoped(Effect.zipRight(tables, program)).pipe(Effect.provide(database)))
