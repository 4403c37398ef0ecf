/**
 * The layers: a database with its pool and statistics, from options, from the environment or from a pool that exists.
 *
 * A layer opens its pool when it is built and drains it when it is released. It connects when somebody asks, so that a
 * program starts while its server does.
 *
 * @module
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as ConnectionPool from "./ConnectionPool.js"
import * as Db from "./Db.js"
import * as DbClient from "./DbClient.js"
import type { InvalidConfig } from "./DbError.js"
import type { Driver } from "./Driver.js"
import * as FiberConnection from "./FiberConnection.js"
import * as MysqlDriver from "./MysqlDriver.js"
import * as PoolConfig from "./PoolConfig.js"
import * as PoolEvents from "./PoolEvents.js"
import * as PoolStats from "./PoolStats.js"
import * as SqliteDriver from "./SqliteDriver.js"

/**
 * What the layer of a default database provides: `Db`, its pool, its statistics, and the `SqlClient` of `@effect/sql`.
 *
 * @since 0.1.0
 * @category models
 */
export type Services =
  | Db.Db
  | ConnectionPool.ConnectionPool
  | PoolStats.PoolStats
  | PoolEvents.PoolEvents
  | DbClient.Services

/**
 * What the layer of a MySQL or MariaDB database provides: the `MysqlClient` of `@effect/sql-mysql2` besides.
 *
 * @since 0.1.0
 * @category models
 */
export type MysqlServices = Services | DbClient.MysqlServices

/**
 * What the layer of a named database provides: the same, under tags that have its name.
 *
 * @since 0.1.0
 * @category models
 */
export type NamedServices<Name extends string> =
  | Db.Named<Name>
  | ConnectionPool.Named<Name>
  | PoolStats.Named<Name>
  | PoolEvents.Named<Name>
  | DbClient.Named<Name>

const poolOn = (
  driver: Driver,
  options: PoolConfig.PoolOptions
): Effect.Effect<ConnectionPool.Pool, InvalidConfig, Scope.Scope> =>
  Effect.gen(function*() {
    const namespace = driver.namespace === undefined ? "" : `/${driver.namespace}`
    const config = yield* PoolConfig.make(options, {
      name: `${driver.target}${namespace}`,
      maxConnections: driver.maxConnections
    })
    const pool = yield* ConnectionPool.make(driver, config)
    // runs before the pool's own end: the fiber that releases a layer has not ended yet, and would be waited for
    yield* Effect.addFinalizer(() => FiberConnection.make(pool).abandon)
    return pool
  })

/**
 * A pool on a MySQL or MariaDB server, for as long as the scope; for {@link fromPool}.
 *
 * @since 0.1.0
 * @category pools
 */
export const mysqlPool = (
  options: PoolConfig.MysqlOptions & PoolConfig.PoolOptions
): Effect.Effect<ConnectionPool.Pool, InvalidConfig, Scope.Scope> =>
  Effect.flatMap(MysqlDriver.make(options), (driver) => poolOn(driver, options))

/**
 * A pool on an embedded SQLite database, for as long as the scope; for {@link fromPool}.
 *
 * @since 0.1.0
 * @category pools
 */
export const sqlitePool = (
  options: PoolConfig.SqliteOptions & PoolConfig.PoolOptions
): Effect.Effect<ConnectionPool.Pool, InvalidConfig, Scope.Scope> =>
  Effect.flatMap(SqliteDriver.make(options), (driver) => poolOn(driver, options))

const configuredPool = (name: string): Effect.Effect<ConnectionPool.Pool, InvalidConfig, Scope.Scope> =>
  Effect.flatMap(
    PoolConfig.fromEnvironment(name),
    (found) => found.database === "mysql" ? mysqlPool(found.options) : sqlitePool(found.options)
  )

const statsOf = ({ changes, holders, snapshot }: ConnectionPool.Pool): PoolStats.PoolStatsService => ({
  snapshot,
  changes,
  holders
})

const servicesOf = (pool: ConnectionPool.Pool): Context.Context<Exclude<Services, DbClient.Services>> =>
  Context.make(Db.Db, Db.make(pool)).pipe(
    Context.add(ConnectionPool.ConnectionPool, pool),
    Context.add(PoolStats.PoolStats, statsOf(pool)),
    Context.add(PoolEvents.PoolEvents, { stream: pool.events })
  )

const services = (
  pool: ConnectionPool.Pool,
  options?: DbClient.ClientOptions
): Effect.Effect<Context.Context<Services>, never, Reactivity.Reactivity> =>
  Effect.map(DbClient.context(pool, options), Context.merge(servicesOf(pool)))

const mysqlServices = (
  pool: ConnectionPool.Pool,
  options: DbClient.ClientOptions
): Effect.Effect<Context.Context<MysqlServices>, never, Reactivity.Reactivity> =>
  Effect.map(DbClient.mysqlContext(pool, options), Context.merge(servicesOf(pool)))

const layer = <A, E>(
  make: Effect.Effect<Context.Context<A>, E, Reactivity.Reactivity | Scope.Scope>
): Layer.Layer<A, E> => Layer.provide(Layer.scopedContext(make), Reactivity.layer)

/**
 * A MySQL or MariaDB server as the default database. Building it fails with `InvalidConfig` when an option cannot be, and
 * connects to nothing: a server that is down is the error of the first statement. Its end lets running work go on for
 * `drainTimeout`, then stops it on the server.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { DbLayer } from "effect-sql-pool"
 *
 * const shop = DbLayer.mysql({
 *   url: Redacted.make("mysql://app:secret@localhost/shop"),
 *   poolSize: 20,
 *   acquireTimeout: "3 seconds",
 *   tls: { verify: true }
 * })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const mysql = (
  options: PoolConfig.MysqlOptions & PoolConfig.PoolOptions & DbClient.ClientOptions
): Layer.Layer<MysqlServices, InvalidConfig> =>
  layer(Effect.flatMap(mysqlPool(options), (pool) => mysqlServices(pool, options)))

/**
 * An embedded SQLite database as the default database: a file, memory, or a private temporary file. Building it fails with
 * `InvalidConfig` when an option cannot be, or there is no SQLite: it is in Node 22.16 and newer, and for older ones in the
 * package `@photostructure/sqlite` 1.x.
 *
 * @example
 * ```ts
 * import { DbLayer } from "effect-sql-pool"
 *
 * const temporary = DbLayer.sqlite()
 * const inMemory = DbLayer.sqlite({ filename: ":memory:" })
 * const file = DbLayer.sqlite({ filename: "shop.db", poolSize: 4, busyTimeout: "2 seconds" })
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const sqlite = (
  options: PoolConfig.SqliteOptions & PoolConfig.PoolOptions & DbClient.ClientOptions = {}
): Layer.Layer<Services, InvalidConfig> => layer(Effect.flatMap(sqlitePool(options), (pool) => services(pool, options)))

/**
 * A database on a pool that exists already and outlives the layer: its end closes nothing.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { DbLayer } from "effect-sql-pool"
 *
 * const database = Layer.unwrapScoped(Effect.map(DbLayer.sqlitePool({ poolSize: 4 }), (pool) => DbLayer.fromPool(pool)))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const fromPool = (
  pool: ConnectionPool.Pool,
  options?: DbClient.ClientOptions
): Layer.Layer<Services> => layer(services(pool, options))

/**
 * The default database as the environment describes it: `DB_PRIMARY_URL` or `DB_PRIMARY_HOST` and the like, see
 * `PoolConfig.fromEnvironment`. One layer: wherever it is provided in one program, it is the same pool.
 *
 * @since 0.1.0
 * @category layers
 */
export const primary: Layer.Layer<Services, InvalidConfig> = layer(
  Effect.flatMap(configuredPool("primary"), (pool) => services(pool))
)

const named = <Name extends string>(name: Name): Layer.Layer<NamedServices<Name>, InvalidConfig> =>
  layer(Effect.gen(function*() {
    const pool = yield* configuredPool(name)
    return Context.make(Db.tag(name), Db.make(pool)).pipe(
      Context.add(ConnectionPool.tag(name), pool),
      Context.add(PoolStats.tag(name), statsOf(pool)),
      Context.add(PoolEvents.tag(name), { stream: pool.events }),
      Context.add(DbClient.tag(name), yield* DbClient.make(pool))
    )
  }))

/**
 * The database of that name as the environment describes it (`DB_<NAME>_URL`, ...). `"primary"` is the default
 * database; any other has tags of its own, so that several live side by side: `Db.tag("replica")`. Building it fails with
 * `InvalidConfig`, which names the variables that are missing or cannot be read.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Db, DbLayer } from "effect-sql-pool"
 *
 * const program = Effect.gen(function*() {
 *   const primary = yield* Db.Db
 *   const replica = yield* Db.tag("replica")
 *   return yield* Effect.all([primary.list("SELECT 1"), replica.list("SELECT 2")], { concurrency: 2 })
 * })
 *
 * // DB_PRIMARY_URL and DB_REPLICA_URL say where they are
 * const runnable = program.pipe(Effect.provide(Layer.merge(DbLayer.primary, DbLayer.config("replica"))))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export function config(name: "primary"): Layer.Layer<Services, InvalidConfig>
export function config<Name extends string>(name: Name): Layer.Layer<NamedServices<Name>, InvalidConfig>
export function config(
  name: string
): Layer.Layer<Services, InvalidConfig> | Layer.Layer<NamedServices<string>, InvalidConfig> {
  return name === "primary" ? primary : named(name)
}
