/**
 * The lost update: many fibers increment one counter by reading it and writing it back.
 *
 * Two fibers that read the same number write the same number, and one increment is lost: without a transaction, and in one
 * that only reads before it writes. `FOR UPDATE` makes the second reader wait for the first one's write; SERIALIZABLE
 * makes the server refuse one of the two, which is then run again.
 *
 * Runs on embedded SQLite, or on the server that `DB_PRIMARY_URL` names, in a table of its own.
 */
import { Config, Console, Effect, Layer, Option, Ref, Schedule } from "effect"
import { Db, type DbError, DbLayer, Recovery } from "../src/index.js"

const fibers = 20
const increments = 5

/** What a program does between its reading and its writing. */
const think = Effect.sleep("2 millis")

// #region increment
/** Reads the counter, thinks, and writes it back; `lock` is what the reading says besides. */
const increment = (lock: "" | "FOR UPDATE") =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const count = yield* db.value<number>(`SELECT count FROM espdemo_counter WHERE id = 1 ${lock}`)
    yield* think
    yield* db.execute("UPDATE espdemo_counter SET count = ? WHERE id = 1", [Option.getOrElse(count, () => 0) + 1])
  })

const inTransaction = (lock: "" | "FOR UPDATE") => Effect.flatMap(Db.Db, (db) => db.transaction(increment(lock)))

/** The server ends all but one of those that met, as a deadlock; they wait for a random time and try again. */
const serializable = (effect: Effect.Effect<void, DbError.DbError, Db.Db>) =>
  Effect.flatMap(Db.Db, (db) =>
    db.transaction(effect, {
      isolation: "SERIALIZABLE",
      retry: Schedule.intersect(
        Recovery.fullJitter({ base: "10 millis", cap: "500 millis" }),
        Schedule.recurs(100)
      )
    }))
// #endregion

const report = (what: string, increment: Effect.Effect<void, DbError.DbError, Db.Db>) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute("UPDATE espdemo_counter SET count = 0 WHERE id = 1")
    const asked = fibers * increments
    const one = Effect.repeatN(increment, increments - 1)
    yield* Effect.forEach(Array.from({ length: fibers }), () => one, { concurrency: "unbounded", discard: true })
    const count = Option.getOrElse(yield* db.value<number>("SELECT count FROM espdemo_counter WHERE id = 1"), () => 0)
    const verdict = count === asked ? "right" : `wrong: ${asked - count} lost`
    yield* Console.log(`${what.padEnd(34)}${String(count).padStart(4)} of ${asked}  ${verdict}`)
  })

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  const attempts = yield* Ref.make(0)
  const counted = Effect.zipRight(Ref.update(attempts, (n) => n + 1), increment(""))

  yield* Console.log(`${fibers} fibers, ${increments} increments each`)
  yield* report("without a transaction", increment(""))
  const sqlite = Option.isNone(yield* Effect.option(db.value("SELECT VERSION()")))
  if (sqlite) {
    // it has neither: its transactions that may write are serializable, and run one after the other
    yield* report("in a transaction", inTransaction(""))
  } else {
    yield* report("in a transaction", inTransaction("")).pipe(
      // MariaDB 11.6 and newer refuse it, because the row has changed since it was read
      Effect.catchTag("SerializationError", (error) => Console.log(`in a transaction: refused. ${error.message}`))
    )
    yield* report("SELECT ... FOR UPDATE", inTransaction("FOR UPDATE"))
  }
  yield* report("SERIALIZABLE, with retry", serializable(counted))
  const again = (yield* Ref.get(attempts)) - fibers * increments
  yield* Console.log(`${" ".repeat(34)}${again} of its transactions were run again`)
})

const table = Effect.acquireRelease(
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute("DROP TABLE IF EXISTS espdemo_counter")
    yield* db.execute("CREATE TABLE espdemo_counter (id INTEGER PRIMARY KEY, count INTEGER NOT NULL)")
    yield* db.execute("INSERT INTO espdemo_counter VALUES (1, 0)")
  }),
  () => Effect.flatMap(Db.Db, (db) => Effect.ignoreLogged(db.execute("DROP TABLE espdemo_counter")))
)

const database = Layer.unwrapEffect(Effect.map(
  Config.option(Config.redacted("DB_PRIMARY_URL")),
  Option.match({ onNone: () => DbLayer.sqlite(), onSome: () => DbLayer.primary })
))

await Effect.runPromise(program.pipe(
  (self) => Effect.scoped(Effect.zipRight(table, self)),
  Effect.provide(database)
))
