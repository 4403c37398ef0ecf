/** Transfers between accounts in transactions: each is done once, and the total stays what it was. */
import { Array as Arr, Effect, Option, Random } from "effect"
import { type DbError, Recovery } from "../../src/index.js"
import { count, currentConnection, type Demo, expect, mayRunAgain, type Outcome, type Part } from "./demo.js"
import { progress, say } from "./screen.js"

const accounts = 20
const startBalance = 1_000
const transfers = 400
const fibers = 20

interface Transfer {
  readonly id: number
  readonly payer: number
  readonly payee: number
  readonly amount: number
}

/**
 * One transfer. It writes its id down in the same transaction, so that a later run knows whether an earlier one whose
 * COMMIT got no answer was done.
 */
const transfer = (demo: Demo, { amount, id, payee, payer }: Transfer): Effect.Effect<void, DbError.DbError> => {
  const { db } = demo
  const change = (account: number, by: number) =>
    db.execute("UPDATE espdemo_accounts SET balance = balance + ? WHERE id = ?", [by, account])
  return db.transaction(Effect.gen(function*() {
    const done = yield* db.value("SELECT id FROM espdemo_transfers WHERE id = ?", [id])
    if (Option.isSome(done)) return
    yield* db.execute("INSERT INTO espdemo_transfers VALUES (?, ?, ?, ?)", [id, payer, payee, amount])
    yield* currentConnection(demo)
    // always the smaller account first, so that two transfers do not wait for each other
    const changes = [[payer, -amount], [payee, amount]] as const
    for (const [account, by] of payer < payee ? changes : [...changes].reverse()) yield* change(account, by)
  })).pipe(Effect.retry({ while: mayRunAgain(demo), schedule: Recovery.schedule }))
}

export const accountTransfers = (demo: Demo): Part =>
  Effect.gen(function*() {
    const { db } = demo
    yield* db.execute(
      `INSERT INTO espdemo_accounts VALUES ${Arr.makeBy(accounts, () => "(?, ?)").join(", ")}`,
      Arr.range(1, accounts).flatMap((id) => [id, startBalance])
    )
    let done = 0
    yield* Effect.forEach(Arr.range(1, transfers), (id) =>
      Effect.gen(function*() {
        const payer = yield* Random.nextIntBetween(1, accounts + 1)
        const payee = 1 + (payer + (yield* Random.nextIntBetween(0, accounts - 1))) % accounts
        yield* transfer(demo, { id, payer, payee, amount: yield* Random.nextIntBetween(1, 100) })
        yield* progress(`transfers: ${++done} of ${transfers}`)
      }), { concurrency: fibers, discard: true })

    const total = yield* db.value("SELECT SUM(balance) FROM espdemo_accounts")
    const noted = yield* db.value<number>("SELECT COUNT(*) FROM espdemo_transfers")
    const wrong = yield* db.list(
      `SELECT a.id FROM espdemo_accounts a WHERE a.balance <> ?
         + (SELECT COALESCE(SUM(amount), 0) FROM espdemo_transfers WHERE payee = a.id)
         - (SELECT COALESCE(SUM(amount), 0) FROM espdemo_transfers WHERE payer = a.id)`,
      [startBalance]
    )
    // MySQL's SUM is a DECIMAL, which comes as text
    yield* expect("the total of the accounts", Number(Option.getOrNull(total)), accounts * startBalance)
    yield* expect("the number of transfers", Option.getOrElse(noted, () => 0), transfers)
    yield* expect("the number of accounts whose balance is not the sum of its transfers", wrong.length, 0)
    yield* say(
      `   ${transfers} transfers between ${accounts} accounts by ${fibers} fibers: each done once, the total is still `
        + count(accounts * startBalance)
    )
    return { what: `${count(transfers)} transfers in transactions`, rows: 4 * transfers } as Outcome
  })
