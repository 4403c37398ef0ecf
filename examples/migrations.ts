/**
 * Migrations with the migrator of `@effect/sql`, as part of the layer: whoever is given the database is given it migrated.
 *
 * Runs on embedded SQLite, or on the server that `DB_PRIMARY_URL` names. There, each CREATE and ALTER commits by itself, so
 * that of a migration that fails half of it may stay: one change in each is the rule.
 */
import { Migrator, SqlClient } from "@effect/sql"
import { Console, Effect, Layer } from "effect"
import { Db, DbLayer } from "../src/index.js"

// #region migrations
const migrations = {
  "0001_create_books": Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`CREATE TABLE espdemo_books (id INTEGER PRIMARY KEY, title VARCHAR(100) NOT NULL)`
  ),
  "0002_first_books": Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql`INSERT INTO espdemo_books ${sql.insert([{ id: 1, title: "Emma" }, { id: 2, title: "Persuasion" }])}`
  )
}

/** What is new runs once, in the order of the numbers; a table keeps the account. */
const migrate = (migrations: Readonly<Record<string, Effect.Effect<unknown, unknown, SqlClient.SqlClient>>>) =>
  Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: "espdemo_migrations" }).pipe(
    Effect.tap((done) =>
      Console.log(`migrations that were new: ${done.map(([id, name]) => `${id} ${name}`).join(", ")}`)
    )
  )

/** The database, migrated before anybody gets it. */
const migrated = Layer.effectDiscard(migrate(migrations))
// #endregion

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* Console.log(`books: ${(yield* db.list<string>("SELECT title FROM espdemo_books ORDER BY id")).join(", ")}`)

  // the next release knows one migration more
  yield* migrate({
    ...migrations,
    "0003_add_year": Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`ALTER TABLE espdemo_books ADD COLUMN published INTEGER NOT NULL DEFAULT 1815`
    )
  })
  yield* Console.log(`of the year: ${yield* db.list<number>("SELECT DISTINCT published FROM espdemo_books")}`)
})

/** Takes away what an earlier run may have left, and what this one leaves. */
const clean = Effect.gen(function*() {
  const db = yield* Db.Db
  const drop = Effect.zip(
    db.execute("DROP TABLE IF EXISTS espdemo_books"),
    db.execute("DROP TABLE IF EXISTS espdemo_migrations")
  )
  yield* Effect.acquireRelease(drop, () => Effect.ignoreLogged(drop))
})

const database = process.env["DB_PRIMARY_URL"] === undefined ? DbLayer.sqlite() : DbLayer.primary

await Effect.runPromise(program.pipe(
  Effect.provide(migrated.pipe(Layer.provideMerge(Layer.scopedDiscard(clean)), Layer.provideMerge(database)))
))
