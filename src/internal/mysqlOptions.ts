/**
 * From the user's options and URL to what the driver connects with. Names everything that is wrong at once; says
 * nothing of the URL's text, which holds the password, perhaps in the wrong place.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { isIP } from "node:net"
import { createSecureContext, type SecureContextOptions } from "node:tls"
import { InvalidConfig } from "../DbError.js"
import type { Credentials, MysqlOptions, TlsOptions } from "../PoolConfig.js"
import { connectCharset, isIsolation, quoteName } from "./mysqlSession.js"

/** @internal */
export interface MysqlSettings {
  readonly target: string
  readonly host: string
  readonly port: number
  readonly socketPath: string | undefined
  readonly database: string | undefined
  readonly credentials: Effect.Effect<Credentials, unknown>
  /** The credentials, if they are not a provider's. */
  readonly login: Credentials
  /** The credentials may be others next time. */
  readonly credentialsChange: boolean
  readonly tls: TlsOptions | undefined
  readonly timeZone: string
  /** What to add to UTC for a time in the session's zone. */
  readonly offsetMillis: number
  readonly preparedStatements: number
  readonly cancelQueries: boolean
  readonly severalStatements: boolean
  /** The driver's own statements for a new session, then the user's. */
  readonly setup: ReadonlyArray<string>
  readonly initialSql: ReadonlyArray<string>
  /** What a reset needs before {@link setup}: it does not bring the default database back. */
  readonly restoreDatabase: ReadonlyArray<string>
}

interface UrlParts {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly database?: string | undefined
  readonly username?: string | undefined
  readonly password?: Redacted.Redacted | undefined
}

const escapeHint = "write @ : / ? # and % in a name or password as %40 %3A %2F %3F %23 %25"

const decode = (part: string, what: string, issues: Array<string>): string | undefined => {
  if (part === "") return undefined
  try {
    return decodeURIComponent(part)
  } catch {
    issues.push(`The URL's ${what} is not percent-encoded properly: ${escapeHint}`)
    return undefined
  }
}

const parseUrl = (text: string, issues: Array<string>): UrlParts => {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    issues.push(`The URL is malformed, it has to be mysql://user:password@host:port/database; ${escapeHint}`)
    return {}
  }
  if (url.protocol !== "mysql:" && url.protocol !== "mariadb:") {
    issues.push("The URL's scheme has to be mysql or mariadb")
  }
  if (url.search !== "" || url.hash !== "") {
    issues.push(`The URL may hold no ? or #: settings are options of their own; ${escapeHint}`)
  }
  if (url.hostname === "") issues.push("The URL names no host")
  const path = url.pathname.slice(1)
  if (path.includes("/")) issues.push(`The URL's path has to be one database; ${escapeHint}`)
  const password = decode(url.password, "password", issues)
  return {
    host: decode(url.hostname.replace(/^\[(.*)\]$/, "$1"), "host", issues),
    port: url.port === "" ? undefined : Number(url.port),
    database: decode(path, "database", issues),
    username: decode(url.username, "user name", issues),
    password: password === undefined ? undefined : Redacted.make(password)
  }
}

const offsetOf = (zone: string): number | undefined => {
  const match = /^([+-])(\d\d):([0-5]\d)$/.exec(zone)
  if (match === null) return undefined
  const minutes = Number(match[2]) * 60 + Number(match[3])
  if (minutes > 14 * 60) return undefined
  return (match[1] === "-" ? -minutes : minutes) * 60_000
}

const verifies = ({ tls }: MysqlOptions): boolean => typeof tls === "object" ? tls.verify !== false : tls === true

const secret = (value: Redacted.Redacted | undefined): string | undefined =>
  value === undefined ? undefined : Redacted.value(value)

/**
 * What Node makes a TLS context of.
 *
 * @internal
 */
export const tlsMaterial = ({ key, passphrase, ...rest }: Omit<TlsOptions, "verify">): SecureContextOptions => ({
  ...rest,
  key: secret(key),
  passphrase: secret(passphrase)
})

/** Else each connect would fail of it, and be tried again. */
const tlsIssue = ({ verify: _, ...material }: TlsOptions): string | undefined => {
  try {
    createSecureContext(tlsMaterial(material))
    return undefined
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    // Of an option of the wrong type Node's message shows the value.
    return `tls cannot be used: ${code === "ERR_INVALID_ARG_TYPE" ? "an option is of the wrong type" : message}`
  }
}

const check = (options: MysqlOptions, host: string, port: number, issues: Array<string>): void => {
  const { collation, initialSql, isolation, preparedStatements, socketPath, timeZone, tls } = options
  const require = (fine: boolean, issue: string): void => {
    if (!fine) issues.push(issue)
  }
  require(host.trim() !== "", "host is empty")
  require(Number.isInteger(port) && port >= 1 && port <= 65535, "port has to be an integer from 1 to 65535")
  require(socketPath !== "", "socketPath is empty")
  // mysql2 would compare the certificate with "localhost".
  require(
    !verifies(options) || socketPath !== undefined || isIP(host) === 0,
    "tls verifies a host by its name, and host is an address: give its name, or set tls to { verify: false }"
  )
  const unusable = typeof tls === "object" ? tlsIssue(tls) : undefined
  if (unusable !== undefined) issues.push(unusable)
  require(
    isolation === undefined || isIsolation(isolation),
    "isolation has to be READ UNCOMMITTED, READ COMMITTED, REPEATABLE READ or SERIALIZABLE"
  )
  require(
    timeZone === undefined || offsetOf(timeZone) !== undefined,
    "timeZone has to be an offset between -14:00 and +14:00, such as +02:00"
  )
  require(
    collation === undefined || /^utf8mb4_\w+$/.test(collation),
    "collation has to be one of utf8mb4, such as utf8mb4_unicode_ci: other character sets cannot hold every text"
  )
  require(
    preparedStatements === undefined || (Number.isInteger(preparedStatements) && preparedStatements >= 1),
    "preparedStatements has to be an integer of at least 1"
  )
  initialSql?.forEach((sql, at) => require(sql.trim() !== "", `initialSql[${at}] is empty`))
}

const setupOf = ({ collation = "utf8mb4_unicode_ci", isolation, timeZone = "+00:00" }: MysqlOptions) => [
  // The handshake knows a collation by one byte, too few for the newer ones, and a reset forgets it on MySQL. The
  // tracker reports settings, temporary tables, user variables and the default database, and the character set by name; a
  // reset turns it off too.
  `SET NAMES '${connectCharset}' COLLATE '${collation}', time_zone = '${timeZone}', autocommit = 1, ` +
  `session_track_schema = ON, session_track_state_change = ON, ` +
  `session_track_system_variables = 'autocommit,character_set_client,character_set_connection,character_set_results'`,
  ...(isolation === undefined ? [] : [`SET SESSION TRANSACTION ISOLATION LEVEL ${isolation}`])
]

const targetOf = (options: MysqlOptions, host: string, port: number): string =>
  options.socketPath ?? (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`)

/** @internal */
export const resolve = (options: MysqlOptions): Effect.Effect<MysqlSettings, InvalidConfig> =>
  Effect.suspend(() => {
    const issues: Array<string> = []
    const url = options.url === undefined ? {} : parseUrl(Redacted.value(options.url), issues)
    const host = options.host ?? url.host ?? "localhost"
    const port = options.port ?? url.port ?? 3306
    check(options, host, port, issues)
    if (issues.length > 0) return Effect.fail(new InvalidConfig({ issues }))
    const database = (options.database ?? url.database) || undefined
    const timeZone = options.timeZone ?? "+00:00"
    const login = {
      username: options.username ?? url.username,
      password: options.password ?? url.password
    }
    return Effect.succeed<MysqlSettings>({
      target: targetOf(options, host, port),
      host,
      port,
      socketPath: options.socketPath,
      database,
      credentials: options.credentials ?? Effect.succeed(login),
      login: options.credentials === undefined ? login : {},
      credentialsChange: options.credentials !== undefined,
      tls: options.tls === true ? {} : options.tls === false ? undefined : options.tls,
      timeZone,
      offsetMillis: offsetOf(timeZone) ?? 0,
      preparedStatements: options.preparedStatements ?? 256,
      cancelQueries: options.cancelQueries ?? true,
      severalStatements: options.severalStatements ?? true,
      setup: setupOf(options),
      initialSql: options.initialSql ?? [],
      restoreDatabase: database === undefined ? [] : [`USE ${quoteName(database)}`]
    })
  })
