/**
 * Stale connections: what a program sees of connections that break, between statements and under them.
 *
 * Runs on the server that `DB_PRIMARY_URL` names, where it kills its own connections. On embedded SQLite there is none to
 * lose, and the same program runs without an incident.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Option, Redacted } from "effect"
import { Db, DbLayer, PoolStats, Recovery } from "../src/index.js"

const url = process.env["DB_PRIMARY_URL"]

// #region optimistic
/** A connection that was used a moment ago is lent as it is. What breaks all the same is replaced: the default. */
const optimistic = (url: Redacted.Redacted) => DbLayer.mysql({ url })
// #endregion

// #region pessimistic
/** Every connection is asked before it is lent: a round trip for each borrow, and still none is safe after the question. */
export const pessimistic = (url: Redacted.Redacted) => DbLayer.mysql({ url, validateAfter: 0 })
// #endregion

// #region payment
/** The caller gives a payment its key. So it may be sent twice: then the key says that it has been booked. */
const book = (id: number, amount: number) =>
  Effect.flatMap(
    Db.Db,
    (db) =>
      Recovery.idempotent(db.execute("INSERT INTO espdemo_payments (id, amount) VALUES (?, ?)", [id, amount])).pipe(
        Effect.catchTag("UniqueViolation", () => Effect.void)
      )
  )

/** Setting a value twice does no harm. */
const setAmount = (id: number, amount: number) =>
  Effect.flatMap(
    Db.Db,
    (db) => Recovery.idempotent(db.execute("UPDATE espdemo_payments SET amount = ? WHERE id = ?", [amount, id]))
  )

/** An increment may not be sent twice. What is not known is said, and whoever asked has to look. */
const increase = (id: number, by: number) =>
  Effect.flatMap(
    Db.Db,
    (db) => db.execute("UPDATE espdemo_payments SET amount = amount + ? WHERE id = ?", [by, id])
  ).pipe(
    Effect.as("done"),
    Effect.catchTag("ConnectionLost", ({ outcome }) => Effect.succeed(outcome))
  )
// #endregion

/** Kills the connection that this fiber or its transaction has, from another one. */
const killOwn = Effect.gen(function*() {
  const db = yield* Db.Db
  const { id } = Option.getOrThrow(yield* db.currentConnection)
  if (url !== undefined) {
    yield* Effect.scoped(Effect.flatMap(db.connection, (other) => other.execute(`KILL ${Number(id)}`)))
  }
})

const tables = Effect.gen(function*() {
  const db = yield* Db.Db
  const drop = db.execute("DROP TABLE IF EXISTS espdemo_payments")
  yield* Effect.acquireRelease(drop, () => Effect.ignoreLogged(drop))
  yield* db.execute("CREATE TABLE espdemo_payments (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)")
})

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* book(1, 100)
  yield* killOwn
  yield* Console.log(`a read afterwards: ${Option.getOrNull(yield* db.value("SELECT amount FROM espdemo_payments"))}`)
  yield* killOwn
  yield* book(2, 200)
  yield* killOwn
  yield* setAmount(2, 250)
  yield* Console.log(`booked: ${(yield* db.list("SELECT amount FROM espdemo_payments ORDER BY id")).join(", ")}`)

  yield* killOwn
  yield* Console.log(`an increment: ${yield* increase(2, 0)}`)

  const inTransaction = db.transaction(Effect.gen(function*() {
    yield* setAmount(1, 0)
    yield* killOwn
    yield* setAmount(2, 0)
  }))
  yield* inTransaction.pipe(
    Effect.zipRight(Console.log("a transaction: committed")),
    Effect.catchTag("ConnectionLost", ({ outcome }) => Console.log(`a transaction: ${outcome}`))
  )
  yield* Console.log(`at the end: ${(yield* db.list("SELECT amount FROM espdemo_payments ORDER BY id")).join(", ")}`)
  const { lost, retriedReads, retriedUnexecuted } = yield* Effect.flatMap(
    PoolStats.PoolStats,
    (stats) => stats.snapshot
  )
  yield* Console.log(`connections lost: ${lost}, statements run again: ${retriedReads + retriedUnexecuted}`)
})

const database = url === undefined ? DbLayer.sqlite() : optimistic(Redacted.make(url))

NodeRuntime.runMain(Effect.scoped(Effect.zipRight(tables, program)).pipe(Effect.provide(database)))
