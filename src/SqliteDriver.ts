/**
 * Embedded SQLite behind the driver's contract, over `node:sqlite` (Node 22.16 and later) or `@photostructure/sqlite`.
 *
 * This file chooses the binding, and no other one imports it; the rest takes it as a value. What it owns besides are the
 * connections of one driver: those that are still open when its scope closes are closed.
 *
 * @module
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import type * as DbError from "./DbError.js"
import type { Connection, Driver, TransactionSyntax } from "./Driver.js"
import { allowWrites, forbidWrites, type Shared, SqliteConnection } from "./internal/sqliteConnection.js"
import { reasonOf, refusedConnect } from "./internal/sqliteErrors.js"
import { type Binding, openHandle } from "./internal/sqliteHandle.js"
import { patiently } from "./internal/sqliteLocks.js"
import { invalid, settingsOf } from "./internal/sqliteOptions.js"
import { locate } from "./internal/sqlitePlace.js"
import { rejectParameter } from "./internal/sqliteValues.js"
import type { SqliteOptions } from "./PoolConfig.js"

/** Node's own where it is complete: rows as arrays came with 22.16. */
const loadBinding: Effect.Effect<Binding, DbError.InvalidConfig> = Effect.suspend(() => {
  const builtin = process.getBuiltinModule("node:sqlite") as Binding | undefined
  if (builtin !== undefined && "setReturnArrays" in builtin.StatementSync.prototype) return Effect.succeed(builtin)
  return Effect.tryPromise({
    try: (): Promise<Binding> => import("@photostructure/sqlite"),
    catch: (error) =>
      invalid(
        "SQLite needs Node 22.16 or newer, or the package @photostructure/sqlite (npm install @photostructure/sqlite@1)",
        reasonOf(error)
      )
  })
})

const transactionSyntax = (readOnlyDatabase: boolean): TransactionSyntax => ({
  onlyIsolation: "SERIALIZABLE",
  // One that may write takes its lock at once: a snapshot that turns to writing
  // later can only fail when somebody else wrote in between.
  begin: ({ isolation, readOnly }) => {
    if (isolation !== undefined && isolation !== "SERIALIZABLE") return undefined
    if (readOnlyDatabase) return ["BEGIN DEFERRED"]
    return readOnly === true ? [forbidWrites, "BEGIN DEFERRED"] : ["BEGIN IMMEDIATE"]
  },
  after: ({ readOnly }) => readOnly === true && !readOnlyDatabase ? [allowWrites] : [],
  commit: "COMMIT",
  rollback: "ROLLBACK",
  savepoint: (name) => `SAVEPOINT ${name}`,
  releaseSavepoint: (name) => `RELEASE ${name}`,
  rollbackTo: (name) => `ROLLBACK TO ${name}`
})

/**
 * A SQLite database, to be given to a pool. A private temporary file, and a database in memory, live as long as the
 * scope; connections that are still open when it closes are closed. Fails when an option is wrong or there is no binding.
 *
 * - A waiting writer fails with `LockTimeoutError` after `busyTimeout`, and with `SerializationError` at once where its
 *   transaction reads a snapshot that another connection has overwritten.
 * - Parameters: a boolean is stored as 1 or 0, a Date as ISO 8601 text in UTC, a plain object or an array as JSON text.
 *   Text with a NUL character is refused.
 * - `insertId` is the row id of the *last* inserted row, which is all that SQLite keeps; it is 0 for an upsert (`DO UPDATE`)
 *   and means nothing for a table WITHOUT ROWID. `INSERT ... RETURNING` tells all ids; as a statement with rows it has
 *   affected none.
 * - A database in memory has one connection, and at most 1 GiB.
 * - A statement runs in the thread of the program: while a long one runs, nothing else does, and nothing can cancel it.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: SqliteOptions): Effect.Effect<Driver, DbError.InvalidConfig, Scope.Scope> =>
  Effect.gen(function*() {
    const settings = yield* settingsOf(options)
    const binding = yield* loadBinding
    const { location, target } = yield* locate(binding, settings)
    const runtime = yield* Effect.runtime<never>()
    const connections = new Set<Connection>()
    yield* Effect.addFinalizer(() => Effect.sync(() => connections.forEach((connection) => connection.destroy())))
    const shared: Shared = {
      busyTimeout: settings.busyTimeout,
      open: () => openHandle(binding, location, settings),
      fork: (effect) => Runtime.runFork(runtime)(effect),
      forget: (connection) => connections.delete(connection)
    }
    let opened = 0
    const connect = (): Either.Either<Connection, DbError.ConnectionError> =>
      Either.try({
        try: () => {
          const connection = new SqliteConnection(String(opened + 1), shared)
          opened++
          connections.add(connection)
          return connection
        },
        catch: (error) => refusedConnect(error, target)
      })
    return {
      dialect: "sqlite",
      target,
      maxConnections: settings.place.kind === "memory" ? 1 : undefined,
      transaction: transactionSyntax(settings.readOnly),
      rejectParameter,
      connect: Effect.suspend(() =>
        patiently(connect, (result) => Either.isLeft(result) && result.left.isRetryable, settings.busyTimeout)
      )
    }
  })
