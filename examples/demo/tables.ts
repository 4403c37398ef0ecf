/** The demo's own tables, for as long as the scope. It touches no other. */
import { Effect, Exit } from "effect"
import type { Scope } from "effect"
import type { Db, DbError } from "../../src/index.js"
import { say } from "./screen.js"

const columns: Readonly<Record<string, string>> = {
  espdemo_users: "id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, email VARCHAR(100) NOT NULL",
  espdemo_cities:
    "id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(200) NOT NULL, country CHAR(2) NOT NULL, latitude DOUBLE NOT NULL, longitude DOUBLE NOT NULL",
  espdemo_jobs: "id INTEGER NOT NULL PRIMARY KEY, state VARCHAR(10) NOT NULL, claim VARCHAR(60)",
  espdemo_job_runs: "job INTEGER NOT NULL, worker INTEGER NOT NULL",
  espdemo_accounts: "id INTEGER NOT NULL PRIMARY KEY, balance INTEGER NOT NULL",
  espdemo_transfers:
    "id INTEGER NOT NULL PRIMARY KEY, payer INTEGER NOT NULL, payee INTEGER NOT NULL, amount INTEGER NOT NULL"
}
export const names: ReadonlyArray<string> = Object.keys(columns)

const drop = (db: Db.DbService): Effect.Effect<void, DbError.DbError> =>
  Effect.forEach(names, (name) => db.execute(`DROP TABLE IF EXISTS ${name}`), { discard: true })

const create = (db: Db.DbService, server: boolean): Effect.Effect<void, DbError.DbError> =>
  Effect.forEach(
    Object.entries(columns),
    ([name, definition]) =>
      db.execute(`CREATE TABLE ${name} (${definition})${server ? " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" : ""}`),
    {
      discard: true
    }
  )

const dropAtEnd = (db: Db.DbService): Effect.Effect<void> =>
  drop(db).pipe(
    // a fiber of its own, so that the time is bounded although finalizers cannot be interrupted
    Effect.interruptible,
    Effect.timeout("5 seconds"),
    Effect.exit,
    Effect.flatMap((exit) =>
      say(
        Exit.isSuccess(exit)
          ? `The demo's ${names.length} tables are dropped.`
          : `The demo's tables could not be dropped; these may be left: ${names.join(", ")}`
      )
    )
  )

/** Creates the tables, dropping first what an earlier run left that was cut off. */
export const scoped = (db: Db.DbService, server: boolean): Effect.Effect<void, DbError.DbError, Scope.Scope> =>
  drop(db).pipe(
    // before the first is created, so that none is left when a later one cannot be
    Effect.zipRight(Effect.addFinalizer(() => dropAtEnd(db))),
    Effect.zipRight(create(db, server))
  )
