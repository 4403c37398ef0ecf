/**
 * What an error of MySQL, MariaDB or mysql2 means: one table by error number, and by socket error code where there is
 * no number. Pure.
 *
 * mysql2's own error never gets out of here: it carries the statement with its values in it, and its message may quote
 * a value, which is cut out.
 *
 * @internal
 */
import type { ConnectFailure, DbError, ServerRefusal, StatementFailure } from "../DbError.js"
import * as Errors from "../DbError.js"
import { type MysqlError, reasonOf } from "./mysqlReason.js"

/** @internal */
export type Flavour = "mysql" | "mariadb"

/**
 * How far a statement had come: `unsent` no byte of it was written, `prepare` the server was asked to parse it only,
 * `sent` the server may have run it.
 *
 * @internal
 */
export type Phase = "unsent" | "prepare" | "sent"

export type { MysqlError } from "./mysqlReason.js"

/** @internal */
export interface StatementContext {
  readonly flavour: Flavour
  readonly phase: Phase
  readonly statement: string
  /** What no message may show. */
  readonly params?: ReadonlyArray<unknown> | undefined
  /** The user opened this transaction as READ ONLY, so that a refused write is no sign of a failover. */
  readonly readOnlyAsked?: boolean | undefined
  /** It is several statements, or calls such: those before the refused one have been executed. */
  readonly several?: boolean | undefined
}

/** The server surely did not run the statement, or may have; either way this connection is of no use any more. */
type Loss = "not executed" | "lost"
type Refusal = (refusal: ServerRefusal) => StatementFailure
type Meaning = Loss | Refusal

const syntax: Refusal = (refusal) => new Errors.SqlSyntaxError(refusal)
const unique: Refusal = (refusal) => new Errors.UniqueViolation(refusal)
const constraint: Refusal = (refusal) => new Errors.ConstraintError(refusal)
const authorization: Refusal = (refusal) => new Errors.AuthorizationError(refusal)
const deadlock: Refusal = (refusal) => new Errors.DeadlockError(refusal)
const serialization: Refusal = (refusal) => new Errors.SerializationError(refusal)
const lockTimeout: Refusal = (refusal) => new Errors.LockTimeoutError(refusal)
const timeout: Refusal = (refusal) => new Errors.StatementTimeoutError(refusal)
const cancelled: Refusal = (refusal) => new Errors.StatementCancelled(refusal)
const readOnly: Refusal = (refusal) => new Errors.ReadOnlyError(refusal)
const other: Refusal = (refusal) => new Errors.StatementError(refusal)

// 1290 names the option that forbids the statement; only --read-only (or --super-read-only) means a failover.
const forbiddenByOption: Refusal = (refusal) => /read.only/i.test(refusal.reason) ? readOnly(refusal) : other(refusal)

const table = <A>(
  ...rows: ReadonlyArray<readonly [A, ReadonlyArray<number | string>]>
): ReadonlyMap<number | string, A> =>
  new Map(rows.flatMap(([meaning, keys]) => keys.map((key) => [key, meaning] as const)))

const meanings = table<Meaning>(
  // 1047 is what a Galera node says that is not ready; 9001 and 9002 are ProxySQL's, which found no server.
  ["not executed", [1047, 9001, 9002]],
  ["lost", [1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2055, 3032, 3169]],
  [syntax, [1049, 1051, 1052, 1054, 1059, 1060, 1061, 1064, 1065, 1066, 1072, 1091, 1109, 1111, 1115, 1128, 1136]],
  [syntax, [1146, 1149, 1176, 1193, 1222, 1241, 1247, 1253, 1273, 1305, 1318, 1327, 1582, 1583, 1584, 1630]],
  [unique, [1022, 1062, 1169, 1586, 1859]],
  [constraint, [1048, 1216, 1217, 1263, 1364, 1451, 1452, 1557, 1761, 1762]],
  [authorization, [1044, 1045, 1095, 1141, 1142, 1143, 1227, 1370, 1419, 1820]],
  [deadlock, [1213]],
  [lockTimeout, [1205]],
  [serialization, [1614]],
  [cancelled, [1317]],
  [readOnly, [1792, 1836]],
  [forbiddenByOption, [1290]]
)

// The numbers above 1900 were given out by both projects, to different errors.
const flavoured: Record<Flavour, ReadonlyMap<number | string, Meaning>> = {
  mysql: table<Meaning>(
    ["not executed", [4031]],
    [timeout, [3024]],
    [lockTimeout, [3572]],
    [constraint, [3819]],
    [serialization, [3058, 3101]]
  ),
  mariadb: table<Meaning>([timeout, [1969]], [constraint, [4025]], [serialization, [1020]])
}

type ConnectMeaning = "later" | "never" | "credentials"

const connectMeanings = table<ConnectMeaning>(
  ["later", [1040, 1041, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1637, 1927]],
  ["later", [2006, 2013, 2055, 3032, 3168, 3169, 9001, 9002, "PROTOCOL_CONNECTION_LOST"]],
  ["never", ["EACCES", "EINVAL", "HANDSHAKE_NO_SSL_SUPPORT", "HANDSHAKE_UNKNOWN_ERROR"]],
  ["credentials", [1045, 1251, 1524, 1698, 1820, 1862, 3118, 4151]],
  ["credentials", ["AUTH_SWITCH_PLUGIN_ERROR", "MYSQL_CLEAR_PASSWORD_NOT_ENABLED"]]
)

const factsOf = (error: MysqlError) => ({
  code: typeof error.code === "string" ? error.code : undefined,
  errno: error.errno !== undefined && error.errno > 0 ? error.errno : undefined,
  sqlState: error.sqlState === "" ? undefined : error.sqlState
})

// A command added after the connection had ended: mysql2 gives it neither a code nor a number.
const isClosedState = (error: MysqlError): boolean => error.message.includes("when connection is in closed state")

const meaningOf = (error: MysqlError, flavour: Flavour): Meaning => {
  const { errno } = factsOf(error)
  if (errno !== undefined) return flavoured[flavour].get(errno) ?? meanings.get(errno) ?? other
  // Without the server's number it is the socket's error, or mysql2's that it cannot read the reply.
  return isClosedState(error) ? "not executed" : "lost"
}

/**
 * Why a statement failed. A `ConnectionLost` means that the connection has to be closed, if it is not yet.
 *
 * @internal
 */
export const statementFailure = (
  error: MysqlError,
  context: StatementContext
): Errors.ConnectionLost | StatementFailure => {
  const meaning = meaningOf(error, context.flavour)
  const { code, errno, sqlState } = factsOf(error)
  const { params, phase, statement } = context
  const reason = reasonOf(error, params)
  if (typeof meaning === "string") {
    const ran = phase === "sent" && (meaning === "lost" || (context.several === true && errno !== undefined))
    return new Errors.ConnectionLost({
      outcome: ran ? "unknown" : "not executed",
      reason,
      statement,
      code,
      errno,
      sqlState
    })
  }
  const refuse = meaning === readOnly && errno === 1792 && context.readOnlyAsked === true ? other : meaning
  return refuse({ statement, reason, code, errno, sqlState })
}

/**
 * Whether the server closes the connection after this refusal: it does not read the rest of a packet that is too big.
 *
 * @internal
 */
export const endsConnection = (failure: DbError): boolean => failure._tag === "StatementError" && failure.errno === 1153

const neverRollBack: ReadonlySet<DbError["_tag"]> = new Set(
  [
    "SqlSyntaxError",
    "UniqueViolation",
    "ConstraintError",
    "AuthorizationError",
    "ReadOnlyError"
  ] as const
)

/**
 * Whether the server may have undone the whole transaction along with the statement: it does for a deadlock, and with
 * `innodb_rollback_on_timeout` for a lock wait.
 *
 * @internal
 */
export const mayRollBack = (failure: DbError): boolean => !neverRollBack.has(failure._tag)

/**
 * Why a connection on which nothing ran is of no use any more.
 *
 * @internal
 */
export const idleLoss = (error: MysqlError): Errors.ConnectionLost =>
  new Errors.ConnectionLost({ outcome: "not executed", reason: reasonOf(error), ...factsOf(error) })

const connectMeaning = ({ code, errno, message }: MysqlError): ConnectMeaning => {
  const known = connectMeanings.get(errno ?? "") ?? connectMeanings.get(code ?? "")
  if (known !== undefined) return known
  // mysql2 gives whatever ends the TLS handshake one code of its own; a socket's error keeps its number, or is told by
  // its text. The others are about certificates and do not pass.
  if (code === "HANDSHAKE_SSL_ERROR") {
    return errno !== undefined || /socket disconnected|ECONNRESET|EPIPE|ETIMEDOUT/.test(message) ? "later" : "never"
  }
  // Errors of name resolution and of the socket may pass, another refusal by the server does not.
  return errno !== undefined && errno > 0 ? "never" : "later"
}

/**
 * Why a connect failed, whatever it was doing: resolving, connecting, encrypting, logging in, setting up the session.
 *
 * @internal
 */
export const connectFailure = (error: MysqlError, target: string, doing?: string): ConnectFailure => {
  const { code, errno, sqlState } = factsOf(error)
  const reason = doing === undefined ? reasonOf(error) : `${doing}: ${reasonOf(error)}`
  const meaning = connectMeaning(error)
  return meaning === "credentials"
    ? new Errors.AuthenticationError({ target, reason, errno, sqlState })
    : new Errors.ConnectionError({ target, reason, isRetryable: meaning === "later", code, errno, sqlState })
}
