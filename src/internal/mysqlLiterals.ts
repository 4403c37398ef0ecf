/**
 * Parameters written into a statement's text, for the text protocol, which has no others.
 *
 * A string is quoted as the servers read it by default. In a session that reads otherwise (`NO_BACKSLASH_ESCAPES`, another
 * character set) it is written in hexadecimal, which means the same everywhere; and a text of which it is uncertain where
 * its parameters are is not sent.
 *
 * @internal
 */
import * as Either from "effect/Either"
import { ParameterError } from "../DbError.js"
import type { Statement } from "../Driver.js"
import { scan } from "./sqlText.js"

/**
 * How the session reads a text: its zone, and whether its quotes are the default's.
 *
 * @internal
 */
export interface Writing {
  readonly offsetMillis: number
  readonly plain: boolean
}

const hex = (bytes: Uint8Array): string =>
  `x'${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")}'`

const writeString = (value: string, plain: boolean): string =>
  plain
    ? `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`
    : `_utf8mb4 ${hex(Buffer.from(value, "utf8"))}`

const pad = (value: number, width: number): string => String(value).padStart(width, "0")

const writeDate = (value: Date, offsetMillis: number): string => {
  // @effect-diagnostics-next-line globalDate:off
  const local = new Date(value.getTime() + offsetMillis)
  const day = `${pad(local.getUTCFullYear(), 4)}-${pad(local.getUTCMonth() + 1, 2)}-${pad(local.getUTCDate(), 2)}`
  const time = [local.getUTCHours(), local.getUTCMinutes(), local.getUTCSeconds()].map((part) => pad(part, 2)).join(":")
  return `'${day} ${time}.${pad(local.getUTCMilliseconds(), 3)}'`
}

const writeValue = (value: unknown, { offsetMillis, plain }: Writing): string => {
  switch (typeof value) {
    case "string":
      return writeString(value, plain)
    case "number":
    case "bigint":
      // After another minus a sign would begin a comment.
      return value < 0 ? ` ${value}` : String(value)
    case "boolean":
      return String(value)
    default:
      if (value === null) return "NULL"
      if (value instanceof Uint8Array) return hex(value)
      return value instanceof Date ? writeDate(value, offsetMillis) : writeString(JSON.stringify(value), plain)
  }
}

/** @internal Why a value that could be sent cannot be written any more. */
export const changedParameter =
  "a parameter cannot be written: it was changed after the statement was run, or is not always the same"

/**
 * The text with its values, which must be such as `rejectParameter` lets pass.
 *
 * @internal
 */
export const writeStatement = (
  { params, sql }: Statement,
  writing: Writing
): Either.Either<string, ParameterError> => {
  if (params.length === 0) return Either.right(sql)
  const { doubtful, tokens } = scan(sql, "mysql")
  const places = tokens.filter(({ kind }) => kind === "placeholder")
  const fail = (reason: string) => Either.left(new ParameterError({ statement: sql, reason }))
  // in double quotes too a backslash escapes, or not when they quote names, which no server tells
  const uncertain = tokens.some(({ end, kind, start }) =>
    kind === "quoted" && sql[start] === "\"" && sql.slice(start, end).includes("\\")
  )
  if (doubtful || uncertain || (!writing.plain && sql.includes("\\"))) {
    return fail("where its parameters are is uncertain, and an unprepared text has to hold their values")
  }
  if (places.length !== params.length) {
    return fail(`it has ${places.length} parameters, and ${params.length} values were given`)
  }
  let text = ""
  let from = 0
  try {
    places.forEach(({ end, start }, index) => {
      text += sql.slice(from, start) + writeValue(params[index], writing)
      from = end
    })
  } catch {
    return fail(changedParameter)
  }
  return Either.right(text + sql.slice(from))
}
