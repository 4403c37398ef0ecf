/** What an Effect program would use: the field's client, `effect/Pool` around mysql2, and this library's two faces. */
import { MysqlClient } from "@effect/sql-mysql2"
import { SqlClient } from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Pool from "effect/Pool"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Connection } from "mysql2"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import type { Target } from "../model.js"
import { connect, countRows } from "./mysql2.js"
import { type Client, connections, effectClient, idOf, type OpenClient, texts } from "./operations.js"

/** How both Effect clients are told where the server is. */
export const options = ({ database, host, password, port, user }: Target) => ({
  host,
  port,
  database,
  username: user,
  password: Redacted.make(password)
})

const sqlClient = async <E>(layer: Layer.Layer<SqlClient, E>): Promise<Client> => {
  const runtime = ManagedRuntime.make(layer)
  const sql = await runtime.runPromise(SqlClient)
  return effectClient({
    select: (n) => sql`SELECT name FROM bench_items WHERE id = ${idOf(n)}`,
    insert: (n) => sql`INSERT INTO bench_rows (name) VALUES (${`row ${n}`})`,
    transaction: (n) =>
      sql.withTransaction(Effect.all([
        sql`SELECT n FROM bench_accounts WHERE id = ${idOf(n)} FOR UPDATE`,
        sql`UPDATE bench_accounts SET n = n + 1 WHERE id = ${idOf(n)}`,
        sql`INSERT INTO bench_log (account) VALUES (${idOf(n)})`
      ], { discard: true })),
    rows: () => sql.unsafe(texts.rows),
    stream: () => Stream.runCount(sql.unsafe(texts.stream).stream)
  }, () => runtime.dispose())
}

export const sqlMysql2: OpenClient = (target) =>
  sqlClient(MysqlClient.layer({ ...options(target), maxConnections: connections }))

/** The standard `SqlClient` on this library's pool. */
export const ownSqlClient: OpenClient = (target) =>
  sqlClient(DbLayer.mysql({ ...options(target), poolSize: connections }))

const db = (rows: (db: Db.DbService) => Effect.Effect<unknown, unknown>): OpenClient => async (target) => {
  const runtime = ManagedRuntime.make(DbLayer.mysql({ ...options(target), poolSize: connections }))
  const db = await runtime.runPromise(Db.Db)
  return effectClient({
    select: (n) => db.values(texts.select, [idOf(n)]),
    insert: (n) => db.execute(texts.insert, [`row ${n}`]),
    transaction: (n) =>
      db.transaction(Effect.all([
        db.values(texts.lock, [idOf(n)]),
        db.execute(texts.update, [idOf(n)]),
        db.execute(texts.log, [idOf(n)])
      ], { discard: true })),
    rows: () => rows(db),
    stream: () => Stream.runCount(db.stream(texts.stream))
  }, () => runtime.dispose())
}

export const ownDb: OpenClient = db((db) => db.values(texts.rows))

/** `Db` with the rows as records, which most of the others build and `values` does not. */
export const ownDictionaries: OpenClient = db((db) => db.dictionaries(texts.rows))

const executed = (connection: Connection, sql: string, params: ReadonlyArray<unknown> = []) =>
  Effect.async<unknown, Error>((resume) => {
    connection.execute(
      sql,
      params as Array<string>,
      (error, result) => resume(error === null ? Effect.succeed(result) : Effect.fail(error))
    )
  })

const queried = (connection: Connection, sql: string) =>
  Effect.async<unknown, Error>((resume) => {
    connection.query(sql, (error, result) => resume(error === null ? Effect.succeed(result) : Effect.fail(error)))
  })

/**
 * What Effect itself costs: mysql2's connections, held, in `Effect.async` and nothing else. Nothing is borrowed, checked or
 * counted, and an interruption leaves its statement running.
 */
export const held: OpenClient = async (target) => {
  const all = await Promise.all(Array.from({ length: connections }, () => connect(target)))
  const of = (lane: number): Connection => all[lane % all.length]!
  return effectClient({
    select: (n, lane) => executed(of(lane), texts.select, [idOf(n)]),
    insert: (n, lane) => executed(of(lane), texts.insert, [`row ${n}`]),
    transaction: (n, lane) =>
      Effect.all([
        queried(of(lane), "START TRANSACTION"),
        executed(of(lane), texts.lock, [idOf(n)]),
        executed(of(lane), texts.update, [idOf(n)]),
        executed(of(lane), texts.log, [idOf(n)]),
        queried(of(lane), "COMMIT")
      ], { discard: true }),
    rows: (_, lane) => executed(of(lane), texts.rows),
    stream: (_, lane) => Effect.promise(() => countRows(of(lane).execute(texts.stream).stream()))
  }, () => Promise.resolve(all.forEach((connection) => connection.destroy())))
}

/** What one writes with `effect/Pool` in a few lines. */
export const effectPool: OpenClient = async (target) => {
  const scope = await Effect.runPromise(Scope.make())
  const acquire = Effect.acquireRelease(
    Effect.promise(() => connect(target)),
    (connection) => Effect.sync(() => connection.destroy())
  )
  const pool = await Effect.runPromise(Scope.extend(Pool.make({ acquire, size: connections }), scope))
  const use = <A, E>(f: (connection: Connection) => Effect.Effect<A, E>) => Effect.scoped(Effect.flatMap(pool.get, f))
  return effectClient({
    select: (n) => use((connection) => executed(connection, texts.select, [idOf(n)])),
    insert: (n) => use((connection) => executed(connection, texts.insert, [`row ${n}`])),
    transaction: (n) =>
      use((connection) =>
        Effect.acquireUseRelease(
          queried(connection, "START TRANSACTION"),
          () =>
            Effect.all([
              executed(connection, texts.lock, [idOf(n)]),
              executed(connection, texts.update, [idOf(n)]),
              executed(connection, texts.log, [idOf(n)])
            ], { discard: true }),
          (_, exit) => Effect.orDie(queried(connection, Exit.isSuccess(exit) ? "COMMIT" : "ROLLBACK"))
        )
      ),
    rows: () => use((connection) => executed(connection, texts.rows)),
    stream: () => use((connection) => Effect.promise(() => countRows(connection.execute(texts.stream).stream())))
  }, () => Effect.runPromise(Scope.close(scope, Exit.void)))
}
