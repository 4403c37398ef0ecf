/**
 * The options of a pool and of the two databases: their meaning, their defaults, their validation, and how they are
 * read from the environment. Pure data: nothing here opens anything.
 *
 * @module
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Schedule from "effect/Schedule"
import type { SecureContextOptions } from "node:tls"
import { InvalidConfig } from "./DbError.js"
import type { ConnectFailure, DbError } from "./DbError.js"
import type { Isolation } from "./Driver.js"

/**
 * How tightly a fiber keeps its connection between statements.
 *
 * - `soft`: until somebody waits and the connection carries no state; the fiber gets another when it needs one.
 * - `strict`: until the fiber ends, as `threading.local` does. Nested fibers can then deadlock until `acquireTimeout`.
 * - `statement`: not at all, unless the connection carries state.
 *
 * @since 0.1.0
 * @category models
 */
export type Affinity = "soft" | "strict" | "statement"

/**
 * What a pool does, whatever the database. Every option has a default.
 *
 * @since 0.1.0
 * @category options
 */
export interface PoolOptions {
  /** What the pool is called in errors and statistics. Default: the server's address and database. */
  readonly name?: string | undefined
  /** The most connections open at a time. Default 10. */
  readonly poolSize?: number | undefined
  /** How many idle connections are kept open in advance. Default 0. */
  readonly minimumIdle?: number | undefined
  /** How long a caller waits for a connection, all included. Default 10 seconds. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** How long one connect may take. Default 5 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** How long a validation may take. Default 2 seconds. */
  readonly validationTimeout?: Duration.DurationInput | undefined
  /** A connection unused for longer than this is validated before it is lent. Default 500 milliseconds. */
  readonly validateAfter?: Duration.DurationInput | undefined
  /** How long cancelling or resetting a connection may take before it is replaced instead. Default 2 seconds. */
  readonly cancelTimeout?: Duration.DurationInput | undefined
  /** An idle connection above `minimumIdle` is closed after this time. Default 10 minutes. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** A connection is replaced at this age, less up to 10 % at random so that they do not all go at once. Default 30 minutes. */
  readonly maxLifetime?: Duration.DurationInput | undefined
  /** An idle connection is validated this often. Default 2 minutes; `Duration.infinity` for never. */
  readonly keepalive?: Duration.DurationInput | undefined
  /**
   * How long one statement may run, or a stream may wait for its next rows, before it is stopped on the server as
   * `StatementTimeoutError`. Default: without limit. `Db.withStatementTimeout` sets another for an effect.
   */
  readonly statementTimeout?: Duration.DurationInput | undefined
  /**
   * A connection held for longer than this is reported once, as a warning with where it was acquired and by which fiber.
   * What a fiber holds counts while it cannot be taken back. Default: none are reported. It costs a stack trace for each
   * connection acquired by name, so it is for finding a leak; `Db.longLived` exempts what is meant to be held.
   */
  readonly leakDetectionThreshold?: Duration.DurationInput | undefined
  /** How long the pool's release lets running work go on before it cuts it. Default 5 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /** How many fibers may wait while every connection is in use. Default: without limit. */
  readonly maxWaiters?: number | undefined
  /** How tightly a fiber keeps its connection. Default `soft`. */
  readonly affinity?: Affinity | undefined
  /** When to retry a statement that may be retried. Default {@link Recovery.schedule}. */
  readonly recovery?: Schedule.Schedule<unknown, DbError> | undefined
  /** When to try a failed connect again. Default {@link Recovery.connectSchedule}. */
  readonly connectSchedule?: Schedule.Schedule<unknown, ConnectFailure> | undefined
}

/**
 * A pool's options with every default filled in and every duration in milliseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface PoolConfig {
  /** What the pool is called in errors and statistics. */
  readonly name: string
  /** The most connections open at a time. */
  readonly poolSize: number
  /** How many idle connections are kept open in advance. */
  readonly minimumIdle: number
  /** How long a caller waits for a connection, all included, in milliseconds as all times here. */
  readonly acquireTimeout: number
  /** How long one connect may take. */
  readonly connectTimeout: number
  /** How long a validation may take. */
  readonly validationTimeout: number
  /** A connection unused for longer than this is validated before it is lent. */
  readonly validateAfter: number
  /** How long cancelling or resetting a connection may take before it is replaced instead. */
  readonly cancelTimeout: number
  /** An idle connection above `minimumIdle` is closed after this time; `Infinity` for a database in memory. */
  readonly idleTimeout: number
  /** A connection is replaced at this age, less up to 10 %; `Infinity` for a database in memory. */
  readonly maxLifetime: number
  /** An idle connection is validated this often; `Infinity` for never. */
  readonly keepalive: number
  /** How long one statement may run before it is stopped; `Infinity` for no limit. */
  readonly statementTimeout: number
  /** A connection held for longer than this is reported; `Infinity` for never. */
  readonly leakDetectionThreshold: number
  /** How long the pool's release lets running work go on before it cuts it. */
  readonly drainTimeout: number
  /** How many fibers may wait while every connection is in use; `Infinity` for no limit. */
  readonly maxWaiters: number
  /** How tightly a fiber keeps its connection. */
  readonly affinity: Affinity
  /** When to retry a statement that may be retried; absent, `Recovery.schedule`. */
  readonly recovery: Schedule.Schedule<unknown, DbError> | undefined
  /** When to try a failed connect again; absent, `Recovery.connectSchedule`. */
  readonly connectSchedule: Schedule.Schedule<unknown, ConnectFailure> | undefined
}

/**
 * Who logs in.
 *
 * @since 0.1.0
 * @category options
 */
export interface Credentials {
  /** The user's name. */
  readonly username?: string | undefined
  /** The password, redacted so that nothing prints it. */
  readonly password?: Redacted.Redacted | undefined
}

/**
 * Encryption of the connection. The certificate and its host name are verified unless `verify` is false.
 *
 * @since 0.1.0
 * @category options
 */
export interface TlsOptions
  extends Pick<SecureContextOptions, "ca" | "cert" | "ciphers" | "minVersion" | "maxVersion">
{
  /** The client's private key in PEM, for a server that asks for a certificate. */
  readonly key?: Redacted.Redacted | undefined
  /** The passphrase of {@link TlsOptions.key}. */
  readonly passphrase?: Redacted.Redacted | undefined
  /** Default true. False encrypts without knowing for whom. */
  readonly verify?: boolean | undefined
}

/**
 * A MySQL or MariaDB server. Explicit options win over what the URL says.
 *
 * @since 0.1.0
 * @category options
 */
export interface MysqlOptions {
  /** `mysql://user:password@host:port/database`; redacted, since it holds the password. */
  readonly url?: Redacted.Redacted | undefined
  /** Default `localhost`. */
  readonly host?: string | undefined
  /** Default 3306. */
  readonly port?: number | undefined
  /** A Unix socket instead of host and port. */
  readonly socketPath?: string | undefined
  /** The default database. Default: none. */
  readonly database?: string | undefined
  /** Who logs in. */
  readonly username?: string | undefined
  /** Their password. */
  readonly password?: Redacted.Redacted | undefined
  /** Asked at each connect, for passwords that change; wins over `username` and `password`. */
  readonly credentials?: Effect.Effect<Credentials, unknown> | undefined
  /** `true` for verified TLS with the system's certificates. Default: none. */
  readonly tls?: boolean | TlsOptions | undefined
  /** The isolation level of every session. Default: the server's. */
  readonly isolation?: Isolation | undefined
  /** Statements that run on each new connection and after each reset. */
  readonly initialSql?: ReadonlyArray<string> | undefined
  /** The session's time zone as an offset, in which DATETIME values are read and written. Default `+00:00`. */
  readonly timeZone?: string | undefined
  /** The collation of the session. Default `utf8mb4_unicode_ci`. */
  readonly collation?: string | undefined
  /** Prepared statements kept open per connection. Default 256. */
  readonly preparedStatements?: number | undefined
  /**
   * Whether an interrupted statement is stopped on the server by `KILL QUERY`. Default true; false behind proxies that
   * rewrite thread ids.
   */
  readonly cancelQueries?: boolean | undefined
  /** Whether `unprepared` statements of `@effect/sql` may hold several, as its Model needs. Default true. */
  readonly severalStatements?: boolean | undefined
}

/**
 * An embedded SQLite database.
 *
 * @since 0.1.0
 * @category options
 */
export interface SqliteOptions {
  /** `sqlite:path`, `sqlite::memory:`, or `sqlite:` for a private temporary file. */
  readonly url?: Redacted.Redacted | string | undefined
  /** A file; `:memory:` for one connection in memory; none for a private temporary file, removed at the end. */
  readonly filename?: string | undefined
  /** Opens the file for reading only. Default false. */
  readonly readOnly?: boolean | undefined
  /** How long a statement waits for another connection's lock before it fails. Default 5 seconds. */
  readonly busyTimeout?: Duration.DurationInput | undefined
  /** Statements that run on each new connection. */
  readonly initialSql?: ReadonlyArray<string> | undefined
}

/** @internal How long a statement of the effect that is running may run, in milliseconds, instead of as the pool says. */
export class StatementLimit
  extends Context.Reference<StatementLimit>()<"effect-sql-pool/PoolConfig/StatementLimit", number | undefined>(
    "effect-sql-pool/PoolConfig/StatementLimit",
    { defaultValue: () => undefined }
  )
{}

/** @internal Whether what the effect that is running acquires is meant to be held for long. */
export class LongLived extends Context.Reference<LongLived>()("effect-sql-pool/PoolConfig/LongLived", {
  defaultValue: () => false
}) {}

/** @internal */
export const duration = (input: Duration.DurationInput): number => Duration.toMillis(input)

const positive = [
  "acquireTimeout",
  "connectTimeout",
  "validationTimeout",
  "cancelTimeout",
  "idleTimeout",
  "maxLifetime",
  "keepalive",
  "statementTimeout",
  "leakDetectionThreshold"
] as const
const nonNegative = ["validateAfter", "drainTimeout"] as const
const defaults = {
  acquireTimeout: 10_000,
  connectTimeout: 5_000,
  validationTimeout: 2_000,
  validateAfter: 500,
  cancelTimeout: 2_000,
  idleTimeout: 600_000,
  maxLifetime: 1_800_000,
  keepalive: 120_000,
  statementTimeout: Infinity,
  leakDetectionThreshold: Infinity,
  drainTimeout: 5_000
}
const affinities: ReadonlyArray<Affinity> = ["soft", "strict", "statement"]

const isCount = (value: number, from: number): boolean => Number.isSafeInteger(value) && value >= from

/** Effect takes a negative duration for none at all, which here would be a mistake that nobody sees. */
const isNegative = (input: Duration.DurationInput): boolean =>
  typeof input === "string" ? input.trim().startsWith("-") : typeof input !== "object" && !(input >= 0)

/** The options that cannot be, one sentence each. */
const issuesOf = (config: PoolConfig, maxConnections: number): ReadonlyArray<string> => {
  const issues: Array<string> = []
  if (!isCount(config.poolSize, 1)) issues.push(`poolSize must be a whole number from 1, not ${config.poolSize}`)
  else if (config.poolSize > maxConnections) {
    issues.push(`poolSize must be at most ${maxConnections} for this database, not ${config.poolSize}`)
  }
  if (!isCount(config.minimumIdle, 0)) {
    issues.push(`minimumIdle must be a whole number from 0, not ${config.minimumIdle}`)
  } else if (isCount(config.poolSize, 1) && config.minimumIdle > config.poolSize) {
    issues.push(`minimumIdle must be at most poolSize (${config.poolSize}), not ${config.minimumIdle}`)
  }
  if (config.maxWaiters !== Infinity && !isCount(config.maxWaiters, 0)) {
    issues.push(`maxWaiters must be a whole number from 0, not ${config.maxWaiters}`)
  }
  for (const name of positive) if (!(config[name] > 0)) issues.push(`${name} must be longer than nothing`)
  for (const name of nonNegative) if (!(config[name] >= 0)) issues.push(`${name} must not be negative`)
  if (!affinities.includes(config.affinity)) {
    issues.push(`affinity must be one of ${affinities.join(", ")}, not ${config.affinity}`)
  }
  return issues
}

/**
 * Fills in the defaults and checks the options; fails with every issue at once. `database` gives the pool its name where
 * the options do not, and the most connections that it allows, which bounds `poolSize`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: PoolOptions,
  database: { readonly name: string; readonly maxConnections?: number | undefined }
): Effect.Effect<PoolConfig, InvalidConfig> =>
  Effect.suspend(() => {
    const maxConnections = database.maxConnections ?? Infinity
    const unreadable: Array<string> = []
    const time = (name: keyof typeof defaults): number => {
      const value = options[name]
      if (value === undefined) return defaults[name]
      if (isNegative(value)) return -1
      const decoded = Option.liftThrowable(duration)(value)
      if (Option.isNone(decoded)) unreadable.push(`${name} is not a duration`)
      return Option.getOrElse(decoded, () => defaults[name])
    }
    const config: PoolConfig = {
      name: options.name ?? database.name,
      poolSize: options.poolSize ?? Math.min(10, maxConnections),
      minimumIdle: options.minimumIdle ?? 0,
      acquireTimeout: time("acquireTimeout"),
      connectTimeout: time("connectTimeout"),
      validationTimeout: time("validationTimeout"),
      validateAfter: time("validateAfter"),
      cancelTimeout: time("cancelTimeout"),
      // one connection that is the database itself must never be closed for its age
      idleTimeout: maxConnections === 1 ? Infinity : time("idleTimeout"),
      maxLifetime: maxConnections === 1 ? Infinity : time("maxLifetime"),
      keepalive: time("keepalive"),
      statementTimeout: time("statementTimeout"),
      leakDetectionThreshold: time("leakDetectionThreshold"),
      drainTimeout: time("drainTimeout"),
      maxWaiters: options.maxWaiters ?? Infinity,
      affinity: options.affinity ?? "soft",
      recovery: options.recovery,
      connectSchedule: options.connectSchedule
    }
    const issues = [...unreadable, ...issuesOf(config, maxConnections)]
    return issues.length === 0 ? Effect.succeed(config) : Effect.fail(new InvalidConfig({ issues }))
  })

/**
 * A database and its pool, as the environment describes them.
 *
 * @since 0.1.0
 * @category models
 */
export type DatabaseOptions =
  | {
    /** MySQL or MariaDB. */
    readonly database: "mysql"
    /** Of `MysqlDriver.make` and of the pool. */
    readonly options: MysqlOptions & PoolOptions
  }
  | {
    /** Embedded SQLite. */
    readonly database: "sqlite"
    /** Of `SqliteDriver.make` and of the pool. */
    readonly options: SqliteOptions & PoolOptions
  }

/**
 * Reads the options of the database called `name` from Effect's `Config`: `DB_<NAME>_URL` (whose scheme chooses
 * `mysql:` or `sqlite:`), or `_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_NAME`; besides `_POOL_SIZE`, `_MINIMUM_IDLE`,
 * `_ACQUIRE_TIMEOUT`, `_CONNECT_TIMEOUT`, `_IDLE_TIMEOUT`, `_MAX_LIFETIME`, `_STATEMENT_TIMEOUT`, `_AFFINITY`,
 * `_ISOLATION` and `_TLS`.
 * Durations are read as Effect writes them (`30 seconds`). What is missing or malformed is named in the error.
 *
 * @since 0.1.0
 * @category config
 */
export const fromEnvironment = (name: string): Effect.Effect<DatabaseOptions, InvalidConfig> =>
  Effect.suspend(() => {
    if (!/^[A-Za-z][A-Za-z0-9_-]*$/.test(name)) {
      return Effect.fail(
        new InvalidConfig({ issues: [`"${name}" cannot be the name of a database in the environment`] })
      )
    }
    return Effect.mapError(environment(`DB_${name.toUpperCase().replaceAll("-", "_")}`), (error) =>
      error._tag === "InvalidConfig"
        ? error
        : new InvalidConfig({ issues: [`The database "${name}" is not configured: ${describe(error)}`] }))
  })

const describe = (error: ConfigError.ConfigError): string =>
  ConfigError.reduceWithContext(error, undefined, {
    andCase: (_, left, right) => `${left}; ${right}`,
    orCase: (_, left, right) => `${left}, or ${right}`,
    missingDataCase: (_, path) => `${path.join("_")} is missing`,
    // the provider's own message can quote the value
    invalidDataCase: (_, path) => `${path.join("_")} has a value that cannot be read`,
    sourceUnavailableCase: (_, path) => `${path.join("_")} cannot be looked up`,
    unsupportedCase: (_, path) => `${path.join("_")} cannot be looked up`
  })

const isolations: ReadonlyArray<Isolation> = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

const optional = <A>(config: Config.Config<A>): Config.Config<A | undefined> =>
  Config.map(Config.option(config), Option.getOrUndefined)

const environment = (prefix: string): Effect.Effect<DatabaseOptions, InvalidConfig | ConfigError.ConfigError> =>
  Effect.gen(function*() {
    const pool = yield* Config.all({
      poolSize: optional(Config.number(`${prefix}_POOL_SIZE`)),
      minimumIdle: optional(Config.number(`${prefix}_MINIMUM_IDLE`)),
      acquireTimeout: optional(Config.duration(`${prefix}_ACQUIRE_TIMEOUT`)),
      connectTimeout: optional(Config.duration(`${prefix}_CONNECT_TIMEOUT`)),
      idleTimeout: optional(Config.duration(`${prefix}_IDLE_TIMEOUT`)),
      maxLifetime: optional(Config.duration(`${prefix}_MAX_LIFETIME`)),
      statementTimeout: optional(Config.duration(`${prefix}_STATEMENT_TIMEOUT`)),
      affinity: optional(Config.literal(...(affinities as ["soft", "strict", "statement"]))(`${prefix}_AFFINITY`))
    })
    const url = yield* optional(Config.redacted(`${prefix}_URL`))
    const scheme = url === undefined
      ? "mysql"
      : /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(Redacted.value(url))?.[1]?.toLowerCase()
    if (scheme === "sqlite") return { database: "sqlite", options: { ...pool, url } }
    if (scheme !== "mysql" && scheme !== "mariadb") {
      const found = scheme === undefined ? "no scheme" : `the scheme "${scheme}:"`
      return yield* new InvalidConfig({ issues: [`${prefix}_URL has ${found}; mysql: and sqlite: are known`] })
    }
    const server = yield* Config.all({
      // without a URL the host is what has to be there, and what the error names beside it
      host: url === undefined
        ? Config.mapOrFail(optional(Config.string(`${prefix}_HOST`)), (host) =>
          host === undefined
            ? Either.left(ConfigError.MissingData([`${prefix}_URL or ${prefix}_HOST`], ""))
            : Either.right<string | undefined>(host))
        : optional(Config.string(`${prefix}_HOST`)),
      port: optional(Config.port(`${prefix}_PORT`)),
      username: optional(Config.string(`${prefix}_USER`)),
      password: optional(Config.redacted(`${prefix}_PASSWORD`)),
      database: optional(Config.string(`${prefix}_NAME`)),
      isolation: optional(Config.literal(...(isolations as ["READ COMMITTED"]))(`${prefix}_ISOLATION`)),
      tls: optional(Config.boolean(`${prefix}_TLS`))
    })
    return { database: "mysql", options: { ...pool, ...server, url } }
  })
