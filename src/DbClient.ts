/**
 * The standard `SqlClient` of `@effect/sql`, and the `MysqlClient` of `@effect/sql-mysql2`, on a pool of this library: the
 * only file that knows them. A program written for those clients runs on it as it is.
 *
 * A statement runs where a helper of `Db` would: on the connection of its fiber, or of the session or transaction around
 * it. `sql.withTransaction` and `db.transaction` are one thing and join each other. Failures are `SqlError`, whose
 * `cause` is this library's error; `DbError.find` gets it out.
 *
 * What differs from `MysqlClient.layer` on purpose:
 *
 * - Times are UTC, or what `timeZone` says, and the session's zone is set to match. There, DATETIME and DATE are taken for
 *   the local time of the process while the server's functions go by its own, so that `NOW()` may come back shifted.
 * - A zero or impossible date is text instead of an invalid `Date`; JSON that the server cut off is text instead of a broken
 *   connection.
 * - Streams are prepared statements, and a parameter is not written into the text: only `unprepared` does that, and there an
 *   array or object is JSON, as in a prepared statement, instead of a list or `key = value`.
 * - `undefined` as a parameter is an error instead of a defect.
 * - An unprepared text with parameters of which it is uncertain where they are (an unclosed quote, an executable comment)
 *   is refused.
 * - The header that `raw` gives of a statement without rows has no `serverStatus` and no `stateChanges`.
 * - COMMIT, ROLLBACK or BEGIN as a statement inside `withTransaction` is refused.
 * - A nested transaction's savepoint is released when it succeeds; after a deadlock the rest of the transaction is refused
 *   instead of being committed statement by statement; a failed COMMIT is an error instead of a defect.
 * - A statement while a stream of the same transaction or reserved connection is open is an error instead of a hang.
 * - A connection of `reserve` that is used after its scope is a defect.
 * - With no tracer but Effect's own, which shows a span to nobody, statements and transactions open none: what asks for the
 *   current span inside `withTransaction` finds the one around it.
 * - `TransactionConnection` of another pool's client is ignored. The field's own clients believe any: inside a transaction
 *   of this pool a client of theirs runs on its connection.
 *
 * @module
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import { makeCompiler, MysqlClient, TypeId as MysqlTypeId } from "@effect/sql-mysql2/MysqlClient"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { Pool } from "./ConnectionPool.js"
import type { DbError } from "./DbError.js"
import type * as Driver from "./Driver.js"
import * as FiberConnection from "./FiberConnection.js"
import { streamAt, unsafeRunAt } from "./internal/atPlace.js"
import { callsFor } from "./internal/origin.js"
import type { Place } from "./internal/place.js"
import { analyze } from "./internal/sessionState.js"
import { isTraced } from "./internal/spans.js"
import { OneStatement } from "./internal/statement.js"
import { untraced } from "./internal/untraced.js"
import { heard, watchedStream } from "./internal/watched.js"
import * as Queries from "./Queries.js"
import * as Transaction from "./Transaction.js"

/**
 * What a client does with names, and what its spans say besides the database's attributes.
 *
 * @since 0.1.0
 * @category options
 */
export interface ClientOptions {
  /** From the names in a program to those in the database, such as `String.camelToSnake`. */
  readonly transformQueryNames?: ((name: string) => string) | undefined
  /** From the names of columns to those in a program, such as `String.snakeToCamel`. */
  readonly transformResultNames?: ((name: string) => string) | undefined
  /** Attributes of every span of the client, beside those that name the database. */
  readonly spanAttributes?: Record<string, unknown> | undefined
}

/**
 * Identifies the client of the database called `Name`.
 *
 * @since 0.1.0
 * @category services
 */
export interface Named<Name extends string> {
  readonly _: "effect-sql-pool/DbClient"
  readonly name: Name
}

/**
 * The tag of a named database's client: `const sql = yield* DbClient.tag("replica")`. The default database's is
 * `SqlClient.SqlClient`.
 *
 * @since 0.1.0
 * @category services
 */
export const tag = <Name extends string>(name: Name): Context.Tag<Named<Name>, SqlClient.SqlClient> =>
  Context.GenericTag<Named<Name>, SqlClient.SqlClient>(`effect-sql-pool/DbClient/${name}`)

type Params = ReadonlyArray<unknown>
type Records = ReturnType<Connection["execute"]>
type TransformRows = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

const failed = (message: string) => (cause: DbError): SqlError => new SqlError({ cause, message })
const notAcquired = failed("Failed to acquire connection")
const notExecuted = failed("Failed to execute statement")
const notStreamed = failed("Failed to stream statement")

const acquireErrors: ReadonlySet<string> = new Set<DbError["_tag"]>([
  "PoolExhausted",
  "PoolUnreachable",
  "TooManyWaiters",
  "PoolClosed",
  "ConnectionError",
  "AuthenticationError"
])

const toSqlError = (error: DbError): SqlError => acquireErrors.has(error._tag) ? notAcquired(error) : notExecuted(error)

/** What a statement without rows did, in the words of mysql2 or of a SQLite binding. */
const headerOf = ({ affectedRows, info = "", insertId, warnings }: Driver.Result, dialect: Driver.Driver["dialect"]) =>
  dialect === "sqlite" ? { changes: affectedRows, lastInsertRowid: insertId } : {
    fieldCount: 0,
    affectedRows,
    insertId: typeof insertId === "bigint" ? String(insertId) : insertId,
    info,
    warningStatus: warnings,
    changedRows: Number(/\bchanged:\s*(\d+)/i.exec(info)?.[1] ?? 0)
  }

const recordsOf = ({ columns, rows }: Driver.Result): ReadonlyArray<Record<string, unknown>> =>
  rows.map((row) => Queries.toRecord(columns, row))

const hasRows = ({ columns }: Driver.Result): boolean => columns.length > 0

/** A connection as `@effect/sql` knows it: the fiber's own, wherever that is, or that of one place. */
class ClientConnection implements Connection {
  constructor(
    readonly fibers: FiberConnection.FiberConnection,
    readonly place: Place | undefined
  ) {}

  execute(sql: string, params: Params, transformRows: TransformRows): Records {
    return this.#run(sql, params, (result) => this.#rows(result, transformRows))
  }

  executeRaw(sql: string, params: Params): Effect.Effect<unknown, SqlError> {
    return this.#run<unknown>(
      sql,
      params,
      (result) => result.all !== undefined || hasRows(result) ? this.#rows(result, undefined) : this.#header(result)
    )
  }

  executeValues(sql: string, params: Params): ReturnType<Connection["executeValues"]> {
    return this.#run(
      sql,
      params,
      ({ all, rows }) =>
        all === undefined ? rows : all.map((each) => hasRows(each) ? each.rows : this.#header(each)) as typeof rows
    )
  }

  executeUnprepared(sql: string, params: Params, transformRows: TransformRows): Records {
    return this.#run(sql, params, (result) => this.#rows(result, transformRows), true)
  }

  executeStream(sql: string, params: Params, transformRows: TransformRows): ReturnType<Connection["executeStream"]> {
    const rows = Stream.unwrap(Effect.map(
      Effect.suspend(() => Queries.sendable(this.#statement(sql, params, false))),
      (statement) =>
        Stream.mapChunks(
          watchedStream(this.fibers.pool, statement, this.#stream(statement), false),
          (chunk) => {
            const records = Chunk.map(chunk, ({ columns, row }) => Queries.toRecord(columns, row))
            return transformRows === undefined
              ? records
              : Chunk.unsafeFromArray(transformRows(Chunk.toReadonlyArray(records)))
          }
        )
    ))
    return Stream.mapError(rows, notStreamed)
  }

  #statement(
    sql: string,
    params: ReadonlyArray<unknown>,
    unprepared: boolean
  ): Driver.Statement | DbError {
    const { driver } = this.fibers.pool
    const traits = analyze(sql, driver.dialect)
    const several = unprepared && driver.severalStatements === true
    return Queries.refuse(driver, sql, params, traits, { several }) ??
      new OneStatement(sql, params, traits, unprepared, true)
  }

  #run<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    shape: (result: Driver.Result) => A,
    unprepared = false
  ): Effect.Effect<A, SqlError> {
    return Effect.withFiberRuntime((fiber, status) => {
      const statement = this.#statement(sql, params, unprepared)
      if (!Queries.isStatement(statement)) return Effect.fail(notExecuted(statement))
      const ran = heard(this.fibers.pool, this.#runner(), statement, fiber, status, shape)
      return Effect.catchAllCause(ran, (cause) => Effect.failCause(Cause.map(cause, toSqlError)))
    })
  }

  #runner(): FiberConnection.FiberConnection["unsafeRun"] {
    const { fibers, place } = this
    return place === undefined
      ? fibers.unsafeRun
      : (statement, fiber, status, shape) => unsafeRunAt(fibers.pool.driver, place, statement, fiber, status, shape)
  }

  #stream(statement: Driver.Statement): FiberConnection.RowStream {
    return this.place === undefined
      ? this.fibers.stream(statement)
      : streamAt(this.fibers.pool.driver, this.place, statement)
  }

  #header(result: Driver.Result): object {
    return headerOf(result, this.fibers.pool.driver.dialect)
  }

  /** The rows of one result; of several, one entry for each. */
  #rows(result: Driver.Result, transformRows: TransformRows): ReadonlyArray<object> {
    const { all } = result
    const rows: ReadonlyArray<object> = all === undefined
      ? recordsOf(result)
      : all.map((each) => hasRows(each) ? recordsOf(each) : this.#header(each))
    return transformRows === undefined ? rows : transformRows(rows)
  }
}

/** The place of the transaction that the context names, if it is of this pool. */
const placeIn = (
  fibers: FiberConnection.FiberConnection,
  context: Context.Context<never>
): Place | undefined => {
  const found = context.unsafeMap.get(SqlClient.TransactionConnection.key) as
    | Context.Tag.Service<typeof SqlClient.TransactionConnection>
    | undefined
  const connection = found?.[0]
  return connection instanceof ClientConnection && connection.fibers === fibers ? connection.place : undefined
}

/** What has failed inside of a transaction, as against the transaction itself. */
class Inside<E> {
  constructor(readonly error: E) {}
}

/** Runs the effect in a transaction, whose own failures are told as this client tells them. */
const inTransaction = <A, E, R>(
  fibers: FiberConnection.FiberConnection,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.mapError(
    Transaction.run(fibers, Effect.mapError(effect, (error) => new Inside(error))),
    (error) => error instanceof Inside ? error.error : toSqlError(error)
  )

const makeWithTransaction = (
  fibers: FiberConnection.FiberConnection,
  attributes: ReadonlyArray<readonly [string, unknown]>
): SqlClient.SqlClient["withTransaction"] =>
<A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.withFiberRuntime<A, E | SqlError, R>((fiber) => {
    if (!isTraced(fiber)) return inTransaction(fibers, effect)
    const clock = Context.get(fiber.currentDefaultServices, Clock.Clock)
    const nested = fibers.places.of(fiber)?.transaction !== undefined
    return Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) => {
      for (const [key, value] of attributes) span.attribute(key, value)
      return Effect.onExit(
        inTransaction(fibers, Effect.provideService(effect, Tracer.ParentSpan, span)),
        (exit) =>
          Effect.sync(() => {
            const end = Exit.isFailure(exit) ? "rollback" : nested ? "savepoint" : "commit"
            span.event(`db.transaction.${end}`, clock.unsafeCurrentTimeNanos())
          })
      )
    })
  })

const attributesOf = (
  { attributes }: Pool,
  { spanAttributes = {} }: ClientOptions
): ReadonlyArray<readonly [string, unknown]> => [...Object.entries(spanAttributes), ...Object.entries(attributes)]

/**
 * The client on a pool. Several on one pool share its connections, sessions and transactions. It takes no connection
 * before a statement does; interrupting a statement stops it on the server.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  pool: Pool,
  options: ClientOptions = {}
): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> => makeWith(pool, options, {})

/** `more` is what this client and the one without transformations have besides. */
const makeWith = <More extends object>(
  pool: Pool,
  options: ClientOptions,
  more: More
): Effect.Effect<SqlClient.SqlClient & More, never, Reactivity.Reactivity> =>
  Effect.map(Reactivity.Reactivity, (reactivity) => {
    const fibers = FiberConnection.make(pool)
    // a batch of a resolver runs in a fiber that knows the transaction by this tag alone
    fibers.places.announce({
      key: SqlClient.TransactionConnection.key,
      service: (place): Context.Tag.Service<typeof SqlClient.TransactionConnection> | undefined =>
        place.transaction && [new ClientConnection(fibers, place), place.transaction.depth],
      find: (context) => placeIn(fibers, context)
    })
    const connection = new ClientConnection(fibers, undefined)
    const acquirer: Connection.Acquirer = Effect.succeed(connection)
    const { transformQueryNames, transformResultNames } = options
    const compiler = pool.driver.dialect === "mysql"
      ? makeCompiler(transformQueryNames)
      : Statement.makeCompilerSqlite(transformQueryNames)
    const transformRows: TransformRows = transformResultNames === undefined
      ? undefined
      : Statement.defaultTransforms(transformResultNames).array
    const attributes = attributesOf(pool, options)
    const reserve: SqlClient.SqlClient["reserve"] = Effect.mapBoth(fibers.connection, {
      onFailure: notAcquired,
      onSuccess: (lease) => new ClientConnection(fibers, { lease, transaction: undefined })
    })
    const calls = callsFor(pool.config.leakDetectionThreshold)
    const withTransaction = makeWithTransaction(fibers, attributes)
    const rest = {
      ...more,
      [SqlClient.TypeId]: SqlClient.TypeId,
      withTransaction: ((effect) =>
        calls.effect("sql.withTransaction", withTransaction(effect))) as typeof withTransaction,
      reactive: reactivity.stream,
      reactiveMailbox: reactivity.query
    }
    const finish = (
      constructor: Statement.Constructor,
      withoutTransforms?: () => SqlClient.SqlClient
    ): SqlClient.SqlClient & More => {
      const client = untraced(constructor, connection) as unknown as SqlClient.SqlClient & More
      // what transforms a statement is given the constructor
      for (const each of [constructor, client]) {
        Object.assign(each, rest, { safe: client, withoutTransforms: withoutTransforms ?? (() => client) })
        // a getter, since reading it is the call that a leak is told with
        Object.defineProperty(each, "reserve", {
          configurable: true,
          enumerable: true,
          get: () => calls.effect("sql.reserve", reserve)
        })
      }
      return client
    }
    const plain = (): SqlClient.SqlClient =>
      finish(Statement.make(acquirer, compiler.withoutTransform, attributes, undefined))
    return finish(
      Statement.make(acquirer, compiler, attributes, transformRows),
      transformRows === undefined ? undefined : plain
    )
  })

/**
 * What programs of `@effect/sql` ask for.
 *
 * @since 0.1.0
 * @category models
 */
export type Services = SqlClient.SqlClient

/**
 * What programs of `@effect/sql-mysql2` ask for.
 *
 * @since 0.1.0
 * @category models
 */
export type MysqlServices = SqlClient.SqlClient | MysqlClient

/**
 * The client on a pool, as a context, for a layer of one's own; `DbLayer` has it already.
 *
 * @since 0.1.0
 * @category constructors
 */
export const context = (
  pool: Pool,
  options?: ClientOptions
): Effect.Effect<Context.Context<Services>, never, Reactivity.Reactivity> =>
  Effect.map(make(pool, options), (client) => Context.make(SqlClient.SqlClient, client))

/**
 * The client on a MySQL pool, as a context, with the `config` from which the migrator of `@effect/sql-mysql2` logs in to
 * dump the schema. That holds no credentials that come from a provider.
 *
 * @since 0.1.0
 * @category constructors
 */
export const mysqlContext = (
  pool: Pool,
  options: ClientOptions = {}
): Effect.Effect<Context.Context<MysqlServices>, never, Reactivity.Reactivity> =>
  Effect.suspend(() => {
    const { transformQueryNames, transformResultNames, spanAttributes } = options
    const config: MysqlClient["config"] = {
      ...pool.driver.address,
      database: pool.driver.namespace,
      maxConnections: pool.config.poolSize,
      spanAttributes,
      transformQueryNames,
      transformResultNames
    }
    return Effect.map(
      makeWith(pool, options, { [MysqlTypeId]: MysqlTypeId, config } as const),
      (client) => Context.make(MysqlClient, client).pipe(Context.add(SqlClient.SqlClient, client))
    )
  })
