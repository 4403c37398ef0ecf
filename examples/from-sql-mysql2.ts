/** From `MysqlClient.layer` of `@effect/sql-mysql2` to a pool of this library: one line changes, and none of the program. */
import { SqlClient } from "@effect/sql"
import { MysqlClient } from "@effect/sql-mysql2"
import { Config, Console, Duration, Effect, Layer, String } from "effect"
import { Db, DbLayer } from "../src/index.js"

// #region before
export const before = MysqlClient.layerConfig({
  url: Config.redacted("DATABASE_URL"),
  maxConnections: Config.succeed(20),
  connectionTTL: Config.succeed(Duration.minutes(15)),
  transformQueryNames: Config.succeed(String.camelToSnake),
  transformResultNames: Config.succeed(String.snakeToCamel)
})
// #endregion

// #region after
export const after = Effect.map(Config.redacted("DATABASE_URL"), (url) =>
  DbLayer.mysql({
    url,
    poolSize: 20,
    idleTimeout: Duration.minutes(15),
    transformQueryNames: String.camelToSnake,
    transformResultNames: String.snakeToCamel
  })).pipe(Layer.unwrapEffect)
// #endregion

/** It asks for `SqlClient` as before; what is new may ask for `Db` as well, and is on the same connection. */
const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)`
  yield* sql`INSERT INTO people ${
    sql.insert([{ id: 1, name: "Ada" }, { id: 2, name: "Grace" }, { id: 3, name: "Mary" }])
  }`
  const dialect = sql.onDialectOrElse({ sqlite: () => "sqlite", orElse: () => "another" })
  const people = yield* Effect.flatMap(Db.Db, (db) => db.list("SELECT id FROM people"))
  yield* Console.log(`the client is of ${dialect}, and Db is beside it: ${people.length} people`)
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
