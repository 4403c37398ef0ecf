/**
 * Values on their way in and out. What SQLite cannot hold, or would give back as something else, is refused before
 * anything runs; what it gives back are integers as `number` where they fit, as `bigint` where they do not. Pure.
 *
 * @internal
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Row } from "../Driver.js"

/** @internal */
export type SqliteValue = string | number | bigint | null | Uint8Array

const encodeObject = (value: object): Either.Either<SqliteValue, string> => {
  if (value instanceof Uint8Array) return Either.right(value)
  if (value instanceof Date) {
    return Number.isNaN(value.getTime())
      ? Either.left("an invalid Date has no text")
      : Either.right(value.toISOString())
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) {
    return Either.left("of objects only Uint8Array, Date, plain objects and arrays can be bound")
  }
  try {
    const json: string | undefined = JSON.stringify(value)
    return json === undefined ? Either.left("the object has no JSON text") : Either.right(json)
  } catch {
    return Either.left("the object has no JSON text: it holds itself or a bigint")
  }
}

/**
 * Either what SQLite is given, or the reason why there is no such thing.
 *
 * @internal
 */
export const encode = (value: unknown): Either.Either<SqliteValue, string> => {
  if (value === null) return Either.right(null)
  switch (typeof value) {
    case "string":
      // Both bindings write all of it, but read it back only up to the NUL (Node 24 does not).
      return value.includes("\0")
        ? Either.left("text with a NUL is cut when it is read; use Uint8Array")
        : Either.right(value)
    case "number":
      if (!Number.isFinite(value)) return Either.left("NaN and Infinity cannot be stored")
      // A bigint, since node:sqlite binds every number as REAL, which a column without a type keeps.
      return Either.right(Number.isSafeInteger(value) ? BigInt(value) : value)
    case "bigint":
      return BigInt.asIntN(64, value) === value ? Either.right(value) : Either.left("the bigint has more than 64 bits")
    case "boolean":
      return Either.right(value ? 1n : 0n)
    case "object":
      return encodeObject(value)
    default:
      return Either.left(`a value of type ${typeof value} cannot be bound`)
  }
}

/**
 * The driver's `rejectParameter`.
 *
 * @internal
 */
export const rejectParameter = (value: unknown): string | undefined =>
  Option.getOrUndefined(Either.getLeft(encode(value)))

/** @internal */
export const readInteger = (value: number | bigint): number | bigint => {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : value
}

/**
 * The binding made the row for us, so it is changed in place.
 *
 * @internal
 */
export const toRow = (raw: unknown): Row => {
  const row = raw as Array<unknown>
  for (let at = 0; at < row.length; at++) {
    const value = row[at]
    if (typeof value === "bigint") row[at] = readInteger(value)
  }
  return row
}
