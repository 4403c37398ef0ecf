/**
 * A program that goes wrong in many ways and tells of all of it, for a process of its own: everything is logged, and it
 * ends by an error that nobody handles. The address and the value come by the environment.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolStats from "../../src/PoolStats.js"

const value = process.env["SECRET_VALUE"]
const url = Redacted.make(process.env["SECRET_URL"] ?? "")

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  const sql = yield* SqlClient.SqlClient
  const told = (effect: Effect.Effect<unknown, unknown>) =>
    Effect.catchAllCause(effect, (cause) => Effect.logError("it failed", cause).pipe(Effect.annotateLogs({ cause })))
  yield* told(db.execute("INSERT INTO items (name) VALUES (?)", [value]))
  yield* told(sql.unsafe("SELECT FROM ?", [value]).unprepared)
  yield* told(sql`INSERT INTO items (name) VALUES (${value})`)
  yield* Effect.logInfo(yield* (yield* PoolStats.PoolStats).snapshot, db, sql)
  const wrong = new URL(Redacted.value(url))
  wrong.username = "nobody"
  const layer = DbLayer.mysql({ url: Redacted.make(wrong.href) })
  yield* told(Effect.provide(Effect.flatMap(Db.Db, (other) => other.value("SELECT ?", [value])), layer))
  const held = Effect.zipRight(Effect.scoped(db.connection), db.transaction(db.value("SELECT SLEEP(0.5), ?", [value])))
  yield* held
  return yield* Effect.orDie(db.execute("INSERT INTO items (name) VALUES (:name)", { name: value }))
}).pipe(
  Effect.withSpan("the program"),
  Effect.provide(DbLayer.mysql({ url, leakDetectionThreshold: "100 millis" })),
  Logger.withMinimumLogLevel(LogLevel.All)
)

// nobody catches it: Node prints it and ends with a status of its own
await Effect.runPromise(program)
