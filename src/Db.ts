/**
 * The database as a program sees it: queries that run on the fiber's own connection, explicit connections, sessions,
 * transactions.
 *
 * With a tracer besides Effect's own, each query has a span `sql.execute` by OpenTelemetry's attributes for databases: its
 * text with placeholders, never a parameter; when it fails `error.type` (the error's tag) and `db.response.status_code`. Who
 * is not served a connection at once has a span `sql.acquire` for the wait. Without such a tracer no span is opened.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Pool } from "./ConnectionPool.js"
import * as DbConnection from "./DbConnection.js"
import type { AcquireError, ConnectionLost, DbError } from "./DbError.js"
import * as FiberConnection from "./FiberConnection.js"
import { callsFor } from "./internal/origin.js"
import { watched, watchedStream } from "./internal/watched.js"
import * as PoolConfig from "./PoolConfig.js"
import * as Queries from "./Queries.js"
import * as Transaction from "./Transaction.js"

/**
 * A database. Its queries run on the connection of the fiber that runs them, or of the session or transaction around
 * them. Safe to share between fibers: that is what it is for.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Db, DbLayer } from "effect-sql-pool"
 *
 * const program = Effect.gen(function*() {
 *   const db = yield* Db.Db
 *   yield* db.execute("CREATE TABLE visits (page VARCHAR(100) NOT NULL, seconds INTEGER NOT NULL)")
 *   yield* db.execute("INSERT INTO visits VALUES (?, ?), (?, ?)", ["/", 3, "/about", 40])
 *   // Option<number>: what the type parameter says of the column is taken at its word
 *   return yield* db.value<number>("SELECT SUM(seconds) FROM visits WHERE seconds > :least", { least: 1 })
 * })
 *
 * const runnable = program.pipe(Effect.provide(DbLayer.sqlite()))
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export interface DbService extends Queries.Queries {
  /**
   * A connection of its own for as long as the scope, whatever the fiber has besides. What it leaves in its session is
   * undone when it goes back. Fails with `AcquireError`; interruption while waiting leaves no trace.
   */
  readonly connection: Effect.Effect<DbConnection.DbConnection, AcquireError, Scope.Scope>
  /**
   * Runs the effect in a transaction: committed on success, else rolled back. What it forks takes part, one statement
   * at a time; a transaction inside it is a savepoint. See `Transaction.run` for outcomes and interruption.
   */
  readonly transaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: Transaction.TransactionOptions
  ) => Effect.Effect<A, E | DbError, R>
  /**
   * One connection for the effect and everything it forks, one statement at a time; variables, temporary tables and
   * locks are seen by all of it. Sessions and transactions inside join it. A fiber that outlives it gets `SessionEnded`.
   *
   * The connection stays with the fiber that opened the session, and what was left on it too. Fails with `AcquireError`
   * when none is had, and with `ConnectionLost` when what the fiber held before was lost; interruption stops what runs.
   */
  readonly session: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AcquireError | ConnectionLost, R>
  /**
   * The connection that this fiber, or the session around it, has now, if any: the server's id for it and what its
   * session holds. It takes none and waits for nothing.
   */
  readonly currentConnection: Effect.Effect<Option.Option<FiberConnection.CurrentConnection>>
  /**
   * Gives the fiber's own connection back now instead of at the fiber's end, and rolls back what is open on it. The
   * next statement takes another. Never fails.
   */
  readonly releaseFiberConnection: Effect.Effect<void>
  /**
   * Closes the fiber's own connection, has every other checked before its next use, and takes one that works. Recovery
   * does this by itself; by hand it is for what only the program knows, such as a failover.
   */
  readonly reconnect: Effect.Effect<void, AcquireError>
}

/**
 * The program's default database.
 *
 * @since 0.1.0
 * @category services
 */
export class Db extends Context.Tag("effect-sql-pool/Db")<Db, DbService>() {}

/**
 * Identifies the database called `Name`.
 *
 * @since 0.1.0
 * @category services
 */
export interface Named<Name extends string> {
  readonly _: "effect-sql-pool/Db"
  readonly name: Name
}

/**
 * The tag of a named database, beside the default one: `const replica = yield* Db.tag("replica")`.
 *
 * @since 0.1.0
 * @category services
 */
export const tag = <Name extends string>(name: Name): Context.Tag<Named<Name>, DbService> =>
  Context.GenericTag<Named<Name>, DbService>(`effect-sql-pool/Db/${name}`)

/**
 * The database on a pool. Several on one pool share its connections.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (pool: Pool): DbService => {
  const fibers = FiberConnection.make(pool)
  const connection = DbConnection.make(fibers)
  const calls = callsFor(pool.config.leakDetectionThreshold)
  return {
    ...Queries.make({
      driver: pool.driver,
      run: watched(pool, fibers.unsafeRun),
      stream: (statement) => watchedStream(pool, statement, fibers.stream(statement), true),
      calls
    }),
    get connection() {
      return calls.effect("db.connection", connection)
    },
    transaction: (effect, options) => calls.effect("db.transaction", Transaction.run(fibers, effect, options)),
    session: (effect) => calls.effect("db.session", fibers.session(() => effect)),
    currentConnection: fibers.current,
    releaseFiberConnection: fibers.release,
    reconnect: fibers.reconnect
  }
}

/**
 * Lets no statement of the effect, and of what it forks, run for longer than this, whatever the pool's `statementTimeout`
 * is: it is stopped on the server and fails with `StatementTimeoutError`. One that cannot be stopped loses its connection.
 * `Duration.infinity` is without limit. The wait for a connection, and BEGIN and COMMIT, are not in it.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Db } from "effect-sql-pool"
 *
 * const report = Effect.flatMap(Db.Db, (db) => db.dictionaries("SELECT * FROM a_view_that_takes_long"))
 *
 * const bounded = report.pipe(
 *   Db.withStatementTimeout("30 seconds"),
 *   Effect.catchTag("StatementTimeoutError", () => Effect.succeed([]))
 * )
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const withStatementTimeout: {
  (limit: Duration.DurationInput): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, limit: Duration.DurationInput): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(effect: Effect.Effect<A, E, R>, limit: Duration.DurationInput): Effect.Effect<A, E, R> =>
    Effect.provideService(effect, PoolConfig.StatementLimit, PoolConfig.duration(limit))
)

/**
 * Says that connections acquired by the effect, and by what it forks, are meant to be held for long: leak detection
 * (`leakDetectionThreshold`) leaves them alone.
 *
 * @since 0.1.0
 * @category combinators
 */
export const longLived = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, PoolConfig.LongLived, true)
