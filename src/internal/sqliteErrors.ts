/**
 * What an error of SQLite means: one table by extended result code. Pure.
 *
 * Every refusal leaves the connection usable; a connection is lost only by being closed, and then its statement was
 * surely not executed.
 *
 * @internal
 */
import * as DbError from "../DbError.js"

/** @internal */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * What SQLite says when @photostructure/sqlite 1.2 forgets the code, as it does where reading rows fails. The words
 * are the same for a snapshot that is too old (517): that one is then waited for, in vain, like any lock.
 */
const codesByMessage: ReadonlyArray<readonly [start: string, code: number]> = [
  ["database is locked", 5],
  ["database table is locked", 6],
  ["attempt to write a readonly database", 8],
  ["CHECK constraint failed", 275],
  ["FOREIGN KEY constraint failed", 787],
  ["NOT NULL constraint failed", 1299],
  ["UNIQUE constraint failed", 2067]
]

/** SQLite's extended result code, where the error is SQLite's. */
const codeOf = (error: unknown): number | undefined => {
  if (!(error instanceof Error) || !("code" in error) || error.code !== "ERR_SQLITE_ERROR") return undefined
  if ("errcode" in error && typeof error.errcode === "number") return error.errcode
  return codesByMessage.find(([start]) => error.message.startsWith(start))?.[1]
}

/** SQLITE_BUSY and SQLITE_LOCKED, whatever their extension. */
const isLock = (code: number | undefined): boolean => code !== undefined && ((code & 0xff) === 5 || (code & 0xff) === 6)

/**
 * The table of https://sqlite.org/rescode.html: the low byte is the family.
 *
 * @internal
 */
export const refusal = (error: unknown, statement: string, inTransaction: boolean): DbError.DbError => {
  const errno = codeOf(error)
  const facts = { statement, reason: reasonOf(error), errno }
  // A snapshot that is too old never gets younger. Without a transaction the next attempt takes a new one.
  if (errno === 517 && inTransaction) return new DbError.SerializationError(facts)
  if (isLock(errno)) return new DbError.LockTimeoutError(facts)
  if (errno === 1555 || errno === 2067 || errno === 2579) return new DbError.UniqueViolation(facts)
  switch (errno === undefined ? undefined : errno & 0xff) {
    case 1:
      return new DbError.SqlSyntaxError(facts)
    case 3:
    // Not ReadOnlyError, which sends the pool to look for a server that can write: this file stays as it is.
    case 8:
    case 23:
      return new DbError.AuthorizationError(facts)
    case 19:
      return new DbError.ConstraintError(facts)
    case 25:
      return new DbError.ParameterError(facts)
    default:
      return new DbError.StatementError(facts)
  }
}

/** @internal */
export const refusedConnect = (error: unknown, target: string): DbError.ConnectionError =>
  new DbError.ConnectionError({
    target,
    reason: reasonOf(error),
    // A lock goes away; a missing directory or a file that is no database stays.
    isRetryable: isLock(codeOf(error)),
    code: error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined,
    errno: codeOf(error)
  })

/** @internal */
export const lost = (statement: string, reason = "it has been closed"): DbError.ConnectionLost =>
  new DbError.ConnectionLost({ outcome: "not executed", reason, statement })

/** @internal */
export const cancelled = (statement: string): DbError.StatementCancelled =>
  new DbError.StatementCancelled({ statement, reason: "it was stopped before its end" })
