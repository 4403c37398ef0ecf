/** The standard `SqlClient` of `@effect/sql` on the pool: models, and `db` beside it in one transaction. */
import { Model, SqlClient } from "@effect/sql"
import { Console, Effect, Schema } from "effect"
import { Db, DbLayer } from "../src/index.js"

// #region model
class Person extends Model.Class<Person>("Person")({
  id: Model.Generated(Schema.Number),
  name: Schema.String
}) {}

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const db = yield* Db.Db
  yield* sql`CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)`
  const people = yield* Model.makeRepository(Person, { tableName: "people", spanPrefix: "People", idColumn: "id" })

  // `sql` and `db` are on one connection, here on that of the transaction; `db.transaction` would do as well
  yield* sql.withTransaction(Effect.gen(function*() {
    const ada = yield* people.insert(Person.insert.make({ name: "Ada" }))
    yield* db.execute("UPDATE people SET name = ? WHERE id = ?", ["Ada Lovelace", ada.id])
    yield* sql`INSERT INTO people ${sql.insert([{ name: "Grace" }, { name: "Barbara" }])}`
  }))
  yield* Console.log(yield* db.list<string>(sql`SELECT name FROM people WHERE name <> ${"Grace"}`))
})
// #endregion

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
