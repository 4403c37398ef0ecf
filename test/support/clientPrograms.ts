/**
 * Programs of `@effect/sql` that know their client by the standard tags alone, run as they are: on `MysqlClient.layer` of
 * `@effect/sql-mysql2` and on `DbLayer.mysql`, each on an empty schema of its own, where they have to come to the same; and
 * on `DbLayer.sqlite`, which has no such counterpart. What they come to is the test's to assert.
 */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { expect } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as DbLayer from "../../src/DbLayer.js"
import { type DbFixture, expectAllClosed, withFixture, withSqlite } from "./dbFixture.js"

type MysqlServices = SqlClient.SqlClient | MysqlClient.MysqlClient

/** Where the server is and what names are in it, in words that both layers know. */
type Address = Pick<
  MysqlClient.MysqlClientConfig,
  | "url"
  | "host"
  | "port"
  | "database"
  | "username"
  | "password"
  | "transformQueryNames"
  | "transformResultNames"
>

export const byUrl = ({ url }: DbFixture): Address => ({ url })
export const byOptions = ({ database, server, url, user }: DbFixture): Address => ({
  host: server.host,
  port: server.port,
  database,
  username: user,
  password: Redacted.make(new URL(Redacted.value(url)).password)
})

const onTheirs = <A, E>(address: Address, program: Effect.Effect<A, E, MysqlServices>): Effect.Effect<A, E> =>
  Effect.provide(program, Layer.orDie(MysqlClient.layer(address)))

/** Proves at the end that the pool has closed everything. */
const onOurs = <A, E>(address: Address, program: Effect.Effect<A, E, MysqlServices>): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const [result, pool] = yield* Effect.provide(
      Effect.zip(program, ConnectionPool.ConnectionPool),
      Layer.orDie(DbLayer.mysql(address))
    )
    expectAllClosed(yield* pool.snapshot)
    return result
  })

/**
 * Runs the program on both clients of MySQL and asserts that they come to the same, down to the classes of the values. A
 * failure of either fails the test.
 */
export const onBothWith = <A, E>(
  addressOf: (fixture: DbFixture) => Address,
  program: (fixture: DbFixture) => Effect.Effect<A, E, MysqlServices>
): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const theirs = yield* withFixture((fixture) => onTheirs(addressOf(fixture), program(fixture)))
    const ours = yield* withFixture((fixture) => onOurs(addressOf(fixture), program(fixture)))
    expect(ours).toStrictEqual(theirs)
    return ours
  })

export const onBoth = <A, E>(program: Effect.Effect<A, E, MysqlServices>): Effect.Effect<A, E> =>
  onBothWith(byUrl, () => program)

export const onSqlite = <A, E>(program: Effect.Effect<A, E, SqlClient.SqlClient>): Effect.Effect<A, E> =>
  withSqlite({}, program)

/** Where a program that needs no more than `SqlClient` has to come to what the test expects. */
export const places: ReadonlyArray<
  readonly [
    string,
    <A, E>(program: Effect.Effect<A, E, SqlClient.SqlClient>) => Effect.Effect<A, E>,
    "mysql" | "sqlite"
  ]
> = [
  ["on MySQL, as with MysqlClient.layer", onBoth, "mysql"],
  ["on SQLite", onSqlite, "sqlite"]
]

export const onDialect = <A>(mysql: A, sqlite: A): Effect.Effect<A, never, SqlClient.SqlClient> =>
  Effect.map(SqlClient.SqlClient, (sql) => sql.onDialectOrElse({ mysql: () => mysql, orElse: () => sqlite }))

/** Runs statements that say the same to both kinds of database. */
export const execute = (...statements: ReadonlyArray<string>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true })
  )

/** The first failure or defect, in words that both clients share: whatever a `SqlError` has for a cause is its own. */
export const summary = <A>(exit: Exit.Exit<A, unknown>): A | { readonly tag: string; readonly message: string } => {
  if (Exit.isSuccess(exit)) return exit.value
  const error = Cause.squash(exit.cause) as { readonly _tag?: string; readonly name: string; readonly message: string }
  return { tag: error._tag ?? error.name, message: error.message }
}

/** Runs the effect and gives what it came to instead of failing. */
export const outcome = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Effect.exit(effect), summary)
