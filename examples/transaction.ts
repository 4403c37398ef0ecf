/** Transactions: committed on success, rolled back otherwise, and with outcomes that can be acted on. */
import { Console, Data, Effect, Option } from "effect"
import { Db, DbLayer, Recovery } from "../src/index.js"

class TooLittle extends Data.TaggedError("TooLittle")<{ readonly account: number }> {}

// #region transfer
const transfer = (from: number, to: number, amount: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, from])
    const left = yield* db.value<number>("SELECT balance FROM accounts WHERE id = ?", [from])
    // a failure of the effect, whichever, rolls back
    if (Option.getOrElse(left, () => 0) < 0) return yield* new TooLittle({ account: from })
    yield* db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, to])
  })

/** Run again, all of it, when the server surely rolled it back; a lost COMMIT has `outcome: "unknown"` and is not. */
const transferSafely = (from: number, to: number, amount: number) =>
  Effect.flatMap(
    Db.Db,
    (db) => db.transaction(transfer(from, to, amount), { isolation: "SERIALIZABLE", retry: Recovery.schedule })
  )
// #endregion

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
  yield* db.execute("INSERT INTO accounts VALUES (1, 100), (2, 100)")
  const show = (what: string) =>
    Effect.flatMap(
      db.list("SELECT balance FROM accounts ORDER BY id"),
      (balances) => Console.log(`${what}: ${balances.join(", ")}`)
    )

  yield* transferSafely(1, 2, 30)
  yield* show("after a transfer of 30")
  yield* transferSafely(1, 2, 1_000).pipe(
    Effect.catchTag("TooLittle", ({ account }) => Console.log(`account ${account} has too little`))
  )
  yield* show("after one that failed")

  // a transaction inside another is a savepoint: it can fail alone
  yield* db.transaction(
    Effect.zipRight(transfer(2, 1, 5), Effect.ignore(db.transaction(transfer(2, 1, 1_000))))
  )
  yield* show("after one of two that failed alone")
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
