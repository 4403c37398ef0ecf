/**
 * Hundreds of fibers move money between accounts, in transactions that nest, fail, are interrupted, deadlock and are run
 * again. The total never changes, and whoever looks on meanwhile from a snapshot sees no other.
 */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import type { DbError } from "../../src/DbError.js"
import * as Recovery from "../../src/Recovery.js"
import type { TransactionOptions } from "../../src/Transaction.js"
import { withDb, withSqlite } from "../support/dbFixture.js"
import { snapshot, valueOf } from "../support/dbQuestions.js"
import { retriesOf } from "../support/retries.js"

interface Size {
  readonly fibers: number
  readonly rounds: number
  readonly accounts: number
  /** How an onlooker sees everything at one moment. */
  readonly onlooker: TransactionOptions
}

interface Counts {
  committed: number
  rolledBack: number
  interrupted: number
  deadlocks: number
  retries: number
  looks: number
}

const initial = 1_000

const createAccounts = (accounts: number) =>
  Effect.flatMap(Db.Db, (db) =>
    Effect.gen(function*() {
      yield* db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
      for (let id = 1; id <= accounts; id++) yield* db.execute("INSERT INTO accounts VALUES (?, ?)", [id, initial])
      yield* db.execute("CREATE TABLE transfers (id INTEGER PRIMARY KEY, fiber INTEGER NOT NULL)")
    }))

/** Never the same account twice, and in no order, so that those who want the same ones meet in a deadlock. */
const move = (accounts: number, by: "db" | "sql") =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const sql = yield* SqlClient
    const from = yield* Random.nextIntBetween(1, accounts + 1)
    const to = 1 + (from - 1 + (yield* Random.nextIntBetween(1, accounts))) % accounts
    const amount = yield* Random.nextIntBetween(1, 100)
    if (by === "db") yield* db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, from])
    else yield* sql`UPDATE accounts SET balance = balance - ${amount} WHERE id = ${from}`
    yield* Effect.yieldNow()
    yield* db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, to])
  })

/** What one fiber does in one transaction; whatever it is, it moves money or nothing. */
const body = (kind: number, accounts: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const sql = yield* SqlClient
    switch (kind % 7) {
      case 0:
        return yield* move(accounts, "db")
      case 1:
        return yield* sql.withTransaction(move(accounts, "sql"))
      case 2: {
        yield* move(accounts, "db")
        // half a transfer that is undone alone
        const half = db.execute("UPDATE accounts SET balance = balance - 7 WHERE id = 1")
        return yield* Effect.catchTag(
          db.transaction(Effect.zipRight(half, Effect.fail({ _tag: "Undo" } as const))),
          "Undo",
          () => Effect.void
        )
      }
      case 3:
        yield* move(accounts, "sql")
        return yield* Effect.fail({ _tag: "Undo" } as const)
      case 4: {
        yield* db.execute("UPDATE accounts SET balance = balance - 13 WHERE id = ?", [accounts])
        return yield* Effect.interrupt
      }
      case 5:
        return yield* Effect.all([move(accounts, "db"), sql.withTransaction(move(accounts, "sql"))], { concurrency: 2 })
      default:
        // a deadlock as a repository passes it on
        return yield* Effect.orDie(move(accounts, "db"))
    }
  })

const run = (seed: number, { accounts, fibers, onlooker, rounds }: Size) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const counts: Counts = { committed: 0, rolledBack: 0, interrupted: 0, deadlocks: 0, retries: 0, looks: 0 }
    const total = accounts * initial
    yield* createAccounts(accounts)

    const retry = Schedule.tapInput(
      Schedule.intersect(
        Recovery.fullJitter({ base: "2 millis", cap: "100 millis" }),
        Schedule.forever
      ),
      (error: DbError) =>
        Effect.sync(() => {
          counts.retries++
          if (error._tag === "DeadlockError" || error._tag === "TransactionAborted") counts.deadlocks++
        })
    )
    const life = (fiber: number) =>
      Effect.gen(function*() {
        for (let round = 0; round < rounds; round++) {
          const kind = yield* Random.nextIntBetween(0, 7)
          const transfer = fiber * rounds + round
          const transaction = db.transaction(
            Effect.zipLeft(
              body(kind, accounts),
              db.execute("INSERT INTO transfers VALUES (?, ?)", [transfer, fiber])
            ),
            { retry }
          )
          // in a child, so that an interruption is not this fiber's own; some are interrupted at any moment
          const child = yield* Effect.fork(transaction)
          if ((yield* Random.nextIntBetween(0, 8)) === 0) {
            yield* Effect.sleep(yield* Random.nextIntBetween(0, 10))
            yield* Fiber.interrupt(child)
          }
          const exit = yield* Fiber.await(child)
          if (Exit.isSuccess(exit)) counts.committed++
          else {
            if (Cause.isInterrupted(exit.cause)) counts.interrupted++
            else counts.rolledBack++
            const bad = [...Cause.failures(exit.cause), ...Cause.defects(exit.cause)].filter((error) =>
              DbErrors.find(error) !== undefined || !(typeof error === "object" && "_tag" in (error as object))
            )
            expect(bad, String(exit.cause)).toEqual([])
          }
        }
      })

    const done = yield* Ref.make(false)
    const look = db.transaction(
      Effect.gen(function*() {
        const balances = yield* db.list<number>("SELECT balance FROM accounts WHERE id % 2 = 0")
        yield* Effect.yieldNow()
        const others = yield* db.list<number>("SELECT balance FROM accounts WHERE id % 2 = 1")
        return [...balances, ...others].reduce((sum, balance) => sum + Number(balance), 0)
      }),
      onlooker
    )
    // on a connection of its own, or it would wait behind all the others for each look
    const watching = yield* Effect.fork(db.session(Effect.gen(function*() {
      while (!(yield* Ref.get(done))) {
        expect(yield* look).toBe(total)
        counts.looks++
      }
    })))
    yield* Effect.forEach(
      Array.from({ length: fibers }, (_, n) => n),
      life,
      { concurrency: "unbounded", discard: true }
    )
    yield* Ref.set(done, true)
    yield* Fiber.join(watching)
    expect(Number(yield* valueOf(db, "SELECT SUM(balance) FROM accounts"))).toBe(total)
    // what was said to have been committed has been, and nothing else
    const written = Number(yield* valueOf(db, "SELECT COUNT(*) FROM transfers"))
    return { counts, written, retried: retriesOf(yield* snapshot) }
  }).pipe(
    Effect.withRandom(Random.make(seed)),
    Effect.tapErrorCause(() => Effect.sync(() => process.stderr.write(`accounts: the seed was ${seed}\n`)))
  )

const seed = Number(process.env["ACCOUNTS_SEED"] ?? Date.now() % 1_000_000)

const verdict = (
  name: string,
  size: Size,
  { counts, retried, written }: Effect.Effect.Success<ReturnType<typeof run>>
) => {
  process.stderr.write(`accounts on ${name}, seed ${seed}: ${JSON.stringify({ ...counts, written })}\n`)
  expect(counts.committed + counts.rolledBack + counts.interrupted).toBe(size.fibers * size.rounds)
  expect(counts.committed).toBeGreaterThan(0)
  expect(counts.rolledBack).toBeGreaterThan(0)
  expect(counts.looks).toBeGreaterThan(1)
  // of those that were interrupted during COMMIT some have committed all the same
  expect(written).toBeGreaterThanOrEqual(counts.committed)
  expect(written).toBeLessThanOrEqual(counts.committed + counts.interrupted)
  expect(retried).toBeGreaterThanOrEqual(counts.retries)
}

describe("the total of all accounts never changes", () => {
  it.live("while 500 fibers move money on a pool of 10", () => {
    const size: Size = {
      fibers: 500,
      rounds: 3,
      accounts: 12,
      onlooker: { isolation: "REPEATABLE READ", readOnly: true }
    }
    return withDb(
      { poolSize: 10, acquireTimeout: "60 seconds" },
      () =>
        Effect.map(run(seed, size), (result) => {
          verdict("MariaDB", size, result)
          expect(result.counts.deadlocks).toBeGreaterThan(0)
        })
    )
  }, 120_000)

  it.live("while 60 fibers move money on SQLite", () => {
    const size: Size = { fibers: 60, rounds: 3, accounts: 12, onlooker: { readOnly: true } }
    return withSqlite(
      { poolSize: 5, acquireTimeout: "60 seconds", busyTimeout: "30 seconds" },
      Effect.map(run(seed, size), (result) => verdict("SQLite", size, result))
    )
  }, 120_000)
})
