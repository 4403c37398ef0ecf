/**
 * MySQL and MariaDB, by mysql2: the only file that knows it.
 *
 * It opens connections and sets their sessions up; what one connection does is in `internal/mysqlConnection`.
 *
 * @module
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import Mysql from "mysql2"
import type { ConnectFailure, InvalidConfig } from "./DbError.js"
import { ConnectionError } from "./DbError.js"
import type { Driver } from "./Driver.js"
import { MysqlConnection } from "./internal/mysqlConnection.js"
import type { Shared } from "./internal/mysqlConnection.js"
import { connectFailure } from "./internal/mysqlErrors.js"
import type { MysqlError } from "./internal/mysqlErrors.js"
import { makeKiller } from "./internal/mysqlKiller.js"
import { UnpreparableTexts } from "./internal/mysqlOperation.js"
import { resolve, tlsMaterial } from "./internal/mysqlOptions.js"
import type { MysqlSettings } from "./internal/mysqlOptions.js"
import { encodeParameters, rejectParameter } from "./internal/mysqlParameters.js"
import { type Pipeline, pipeline, runPipeline } from "./internal/mysqlPipeline.js"
import { destroyRaw, watchSize } from "./internal/mysqlProtocol.js"
import type { RawConnection, RawQuery } from "./internal/mysqlProtocol.js"
import { dateReader } from "./internal/mysqlRows.js"
import { askRole, connectCharset, transactionSyntax } from "./internal/mysqlSession.js"
import { openSocket, type SocketAddress } from "./internal/mysqlSocket.js"
import type { Credentials, MysqlOptions, TlsOptions } from "./PoolConfig.js"

// Which of the servers behind one address it is; both flavours have all three.
const identify = "SELECT CONCAT_WS(':', @@hostname, @@port, @@server_id)"
const askCharset = "SELECT @@character_set_client"

const sslOf = ({ verify = true, ...material }: TlsOptions) => ({
  ...tlsMaterial(material),
  rejectUnauthorized: verify,
  verifyIdentity: verify
})

const addressOf = ({ host, port, socketPath }: MysqlSettings): SocketAddress =>
  socketPath === undefined ? { host, port } : { path: socketPath }

/** What does not change from one connect to the next; mysql2 keeps the TLS context by the identity of `ssl`. */
const configOf = (settings: MysqlSettings) => ({
  host: settings.host,
  port: settings.port,
  ...(settings.socketPath === undefined ? {} : { socketPath: settings.socketPath }),
  // mysql2 opens the one that is to be encrypted itself
  ...(settings.tls === undefined ? { stream: () => openSocket(addressOf(settings)) } : {}),
  ...(settings.database === undefined ? {} : { database: settings.database }),
  ...(settings.tls === undefined ? {} : { ssl: sslOf(settings.tls) }),
  charset: "utf8mb4_unicode_ci",
  // The fast path for the commonest zone.
  timezone: settings.timeZone === "+00:00" ? "Z" : settings.timeZone,
  rowsAsArray: true,
  supportBigNumbers: true,
  dateStrings: true,
  jsonStrings: true,
  // The pool bounds a connect with a timeout of its own and interrupts it.
  connectTimeout: 0,
  enableKeepAlive: true,
  maxPreparedStatements: settings.preparedStatements,
  flags: [
    "SESSION_TRACK",
    "-LOCAL_FILES",
    // It adds IGNORE_SPACE to sql_mode, until a reset takes it away again.
    "-IGNORE_SPACE",
    "-CLIENT_QUERY_ATTRIBUTES"
  ]
})

type Config = ReturnType<typeof configOf>

const createConnection = (config: Config, { password, username }: Credentials): RawConnection =>
  Mysql.createConnection({
    ...config,
    ...(username === undefined ? {} : { user: username }),
    ...(password === undefined ? {} : { password: Redacted.value(password) })
  } as Mysql.ConnectionOptions) as unknown as RawConnection

/** mysql2 exports it, and its types do not tell. */
const { createQuery } = Mysql as unknown as {
  readonly createQuery: (
    sql: string,
    values: undefined,
    done: undefined,
    config: RawConnection["config"]
  ) => RawQuery
}

/** One handshake and one session set up; whatever ends it early closes the socket. */
const openOnce = (
  config: Config,
  credentials: Credentials,
  setup: Pipeline,
  shared: Shared
): Effect.Effect<MysqlConnection, ConnectFailure> =>
  Effect.async((resume) => {
    const raw = createConnection(config, credentials)
    // Replaced by the encrypted one when there is TLS.
    const socket = raw.stream
    const destroy = (): void => {
      destroyRaw(raw)
      socket.destroy()
    }
    let over = false
    const fail = (error: MysqlError, doing?: string): void => {
      if (over) return
      over = true
      stopWatching()
      destroy()
      resume(Effect.fail(connectFailure(error, shared.settings.target, doing)))
    }
    const stopWatching = watchSize(raw, () => fail({ message: "the server says too much", code: "PROTOCOL_ERROR" }))
    raw.on("error", (error) => fail(error))
    socket.once("close", () => fail({ message: "the server closed the connection", code: "PROTOCOL_CONNECTION_LOST" }))
    raw.on("connect", ({ serverVersion }) => {
      // Whoever is in between can put an answer behind the greeting, and mysql2 believes what it has read by then.
      if (shared.settings.tls !== undefined && raw.stream.secureConnecting !== false) {
        const message = "the server answered before the connection was encrypted"
        return fail({ message, code: "HANDSHAKE_SSL_ERROR" })
      }
      // mysql2 copies its options for every statement.
      raw.config.password = undefined
      runPipeline(raw, setup, ({ refused, status, values }) => {
        if (refused !== undefined && refused.name !== identify) {
          return fail(refused.error, `the session's setup failed at ${refused.name}`)
        }
        const charset = values.get(askCharset) ?? connectCharset
        if (charset !== connectCharset) {
          const message =
            `initialSql has set the character set to ${charset}, and every text is sent in ${connectCharset}`
          return fail({ message, code: "EINVAL" })
        }
        over = true
        stopWatching()
        const flavour = /mariadb/i.test(serverVersion) ? "mariadb" : "mysql"
        // Made at once: from here on it is the connection that has to notice its own loss.
        const connection = new MysqlConnection(raw, shared, {
          flavour,
          server: values.get(identify) ?? "",
          status,
          role: values.get(askRole)
        })
        resume(Effect.succeed(connection))
      }, fail)
    })
    return Effect.sync(destroy)
  })

const open = (config: Config, setup: Pipeline, shared: Shared): Effect.Effect<MysqlConnection, ConnectFailure> => {
  const { credentials, credentialsChange, target } = shared.settings
  const known = Effect.catchAllCause(credentials, (cause) =>
    Cause.isInterruptedOnly(cause)
      ? Effect.interrupt
      // What a provider says of itself, even as it dies, may hold the secret it was to give.
      : Effect.fail(new ConnectionError({ target, reason: "the credentials could not be had", isRetryable: true })))
  const once = Effect.flatMap(known, (current) => openOnce(config, current, setup, shared))
  // A password may change between being asked for and being used.
  return credentialsChange ? Effect.catchTag(once, "AuthenticationError", () => once) : once
}

/**
 * A driver for MySQL 5.7 and later and MariaDB 10.4 and later.
 *
 * Building it checks the options, all of them at once, and opens nothing. Its scope closes the one side connection on
 * which statements are stopped; the connections it has opened belong to whoever opened them.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (options: MysqlOptions): Effect.Effect<Driver, InvalidConfig, Scope.Scope> =>
  Effect.gen(function*() {
    const settings = yield* resolve(options)
    const { initialSql, restoreDatabase, setup } = settings
    const config = configOf(settings)
    const sideSetup = pipeline([identify], { reset: false })
    const kill = yield* makeKiller(Effect.suspend(() => open(config, sideSetup, shared)))
    const shared: Shared = {
      settings,
      kill,
      unpreparable: new UnpreparableTexts(),
      readDate: dateReader(settings.offsetMillis),
      makeQuery: (raw, sql) => createQuery(sql, undefined, undefined, raw.config),
      resetCommands: pipeline([...restoreDatabase, ...setup, ...initialSql, askRole], { reset: true }),
      encode: (params) =>
        encodeParameters(
          params,
          (value, unsigned) =>
            unsigned ? Mysql.TypedParameter.LONGLONG.unsigned(value) : Mysql.TypedParameter.LONGLONG(value)
        )
    }
    return {
      dialect: "mysql",
      target: settings.target,
      namespace: settings.database,
      address: { host: settings.host, port: settings.port, ...settings.login },
      transaction: transactionSyntax,
      generatedId: "SELECT LAST_INSERT_ID()",
      severalStatements: settings.severalStatements,
      rejectParameter,
      connect: open(
        config,
        pipeline([...setup, identify, ...initialSql, askCharset, askRole], { reset: false }),
        shared
      )
    }
  })
