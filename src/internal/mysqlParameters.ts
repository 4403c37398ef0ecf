/**
 * Which parameter values can be sent, and how they have to be handed to mysql2.
 *
 * @internal
 */

const largestSigned = 2n ** 63n - 1n
const largestUnsigned = 2n ** 64n - 1n
const smallestSigned = -(2n ** 63n)
// From here on the servers write a DOUBLE, which is how mysql2 sends a number, as 1e15 when they turn it into text.
const exponentFrom = 1e15

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype || Array.isArray(value)
}

const rejectObject = (value: object): string | undefined => {
  if (value instanceof Uint8Array) return undefined
  if (value instanceof Date) {
    const year = value.getUTCFullYear()
    if (Number.isNaN(year)) return "an invalid Date cannot be sent"
    return year < 1 || year > 9999 ? "a Date outside of the years 1 to 9999 cannot be sent" : undefined
  }
  if (!isPlain(value)) {
    return "only plain objects and arrays can be sent, as JSON: turn an instance of a class into one of these first"
  }
  try {
    return JSON.stringify(value) === undefined ? "an object without JSON cannot be sent" : undefined
  } catch {
    return "an object that is circular or holds a bigint has no JSON and cannot be sent"
  }
}

/** @internal */
export const rejectParameter = (value: unknown): string | undefined => {
  switch (typeof value) {
    case "string":
    case "boolean":
      return undefined
    case "number":
      return Number.isFinite(value) ? undefined : "NaN and infinity cannot be sent"
    case "bigint":
      return value < smallestSigned || value > largestUnsigned
        ? "a bigint beyond 64 bits cannot be sent: send it as text"
        : undefined
    case "object":
      return value === null ? undefined : rejectObject(value)
    case "undefined":
      return "undefined cannot be sent: use null for SQL's NULL"
    default:
      return `a ${typeof value} cannot be sent`
  }
}

/**
 * Makes mysql2's typed BIGINT parameter.
 *
 * @internal
 */
export type TypedInteger = (value: bigint, unsigned: boolean) => unknown

/** mysql2 recognizes a JSON object by its constructor, which one without a prototype lacks, and a key may hide. */
const recognizable = (value: object): object => {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) return value
  if (Object.hasOwn(value, "constructor")) return { toJSON: () => value }
  return prototype === null ? { ...value } : value
}

const encodeOne = (value: unknown, typedInteger: TypedInteger): unknown => {
  switch (typeof value) {
    case "bigint":
      // Untyped, mysql2 sends text, and servers compute with text as with a DOUBLE.
      return typedInteger(value, value > largestSigned)
    case "number":
      return Math.abs(value) >= exponentFrom && Number.isSafeInteger(value)
        ? typedInteger(BigInt(value), false)
        : value
    case "object":
      if (value instanceof Uint8Array && !Buffer.isBuffer(value)) {
        return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
      }
      return value === null ? null : recognizable(value)
    default:
      return value
  }
}

/**
 * The same array when nothing has to be converted.
 *
 * @internal
 */
export const encodeParameters = (
  params: ReadonlyArray<unknown>,
  typedInteger: TypedInteger
): ReadonlyArray<unknown> => {
  let encoded: Array<unknown> | undefined
  for (let at = 0; at < params.length; at++) {
    const value = encodeOne(params[at], typedInteger)
    if (value !== params[at]) {
      encoded ??= [...params]
      encoded[at] = value
    }
  }
  return encoded ?? params
}
