/**
 * From mysql2's column values to the driver contract's: only columns that need it are touched, in place.
 *
 * mysql2 is told to give every date as text and every JSON as text, and both are read here, because its own readers are
 * wrong where it hurts: a year below 100 becomes 19xx, a zero month the December before, and JSON that the server cut
 * off (group_concat_max_len) breaks the connection. What cannot be read stays text.
 *
 * @internal
 */
import type { Row } from "../Driver.js"
import type { DateReader, RawField, RawPacket } from "./mysqlProtocol.js"

/** @internal */
export type RowConverter = (row: Array<unknown>) => Row

const timestamp = 7
const longlong = 8
const dateOnly = 10
const datetime = 12
const json = 245

/** mysql2 gives an integer as text when it is beyond ±2⁵³. */
const toInteger = (value: unknown): unknown => typeof value === "string" ? BigInt(value) : value

const toJson = (value: unknown): unknown => {
  if (typeof value !== "string") return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

const digits = (text: string, at: number): number => (text.charCodeAt(at) - 48) * 10 + text.charCodeAt(at + 1) - 48

/** `YYYY-MM-DD[ HH:MM:SS[.ffffff]]`, of which a Date holds milliseconds. A zero or impossible date stays text. */
const toDate = (text: string, offsetMillis: number): Date | string => {
  const year = digits(text, 0) * 100 + digits(text, 2)
  const month = digits(text, 5)
  const day = digits(text, 8)
  if (month === 0 || day === 0) return text
  const [hours, minutes, seconds] = text.length > 10
    ? [digits(text, 11), digits(text, 14), digits(text, 17)]
    : [0, 0, 0]
  const millis = text.length > 20 ? Number(text.slice(20, 23).padEnd(3, "0")) : 0
  // @effect-diagnostics-next-line globalDate:off
  const date = new Date(Date.UTC(2000, month - 1, day, hours, minutes, seconds, millis))
  // Date.UTC takes a year below 100 for 19xx. The year 2000 has every day that any year has.
  date.setUTCFullYear(year, month - 1, day)
  // 31 February, which ALLOW_INVALID_DATES lets in, would become a day in March.
  if (date.getUTCDate() !== day) return text
  if (offsetMillis !== 0) date.setTime(date.getTime() - offsetMillis)
  return date
}

const daysBeforeMonth = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365]

const isLeap = (year: number): boolean => year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)

const daysIn = (year: number, month: number): number =>
  month === 2 && isLeap(year) ? 29 : (daysBeforeMonth[month] ?? 0) - (daysBeforeMonth[month - 1] ?? 0)

const daysToEpoch = 719_162
const dayMillis = 86_400_000

/** What `Date.UTC` answers for midnight, at a fifth of its cost. */
const midnight = (year: number, month: number, day: number): number => {
  const before = year - 1
  const leaps = Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400)
  const days = before * 365 + leaps + (daysBeforeMonth[month - 1] ?? 0) + (month > 2 && isLeap(year) ? 1 : 0) + day - 1
  return (days - daysToEpoch) * dayMillis
}

/**
 * Reads a point in time of a binary row, the usual one without a detour by text, which costs as much as the rest of a short
 * row. A DATE stays text, and so does a zero or impossible date.
 *
 * @internal
 */
export const dateReader = (offsetMillis: number): DateReader =>
  function(decimals, separator, columnType) {
    const start = this.offset
    const length = this.readInt8()
    if (length > 3 && columnType !== dateOnly) {
      const year = this.readInt16()
      const month = this.readInt8()
      const day = this.readInt8()
      if (year >= 100 && month > 0 && day > 0 && day <= daysIn(year, month)) {
        const seconds = length > 6 ? this.readInt8() * 3600 + this.readInt8() * 60 + this.readInt8() : 0
        const millis = length > 10 ? Math.floor(this.readInt32() / 1000) : 0
        // @effect-diagnostics-next-line globalDate:off
        return new Date(midnight(year, month, day) + seconds * 1000 + millis - offsetMillis)
      }
    }
    this.offset = start
    const reader = (Object.getPrototypeOf(this) as RawPacket).readDateTimeString
    const text = reader.call(this, decimals, separator, columnType)
    return columnType !== dateOnly && typeof text === "string" ? toDate(text, offsetMillis) : text
  }

/**
 * Reads a FLOAT or DOUBLE of a row in text. mysql2 adds up the digits of one that is short, each with a rounding of its own:
 * of one value in five hundred the last digit is another.
 *
 * @internal
 */
export const readFloat = function(this: RawPacket): number | null {
  const length = this.readLengthCodedNumber()
  if (length === null) return null
  const start = this.offset
  this.offset += length
  return Number(this.buffer.toString("latin1", start, this.offset))
}

/**
 * How a connection's values are read: its zone, and whether a DATE is a Date at midnight in that zone and an integer
 * beyond ±2⁵³ stays text, as in the ecosystem's own client.
 *
 * @internal
 */
export interface Reading {
  readonly offsetMillis: number
  readonly compatible: boolean
  /** Whether the rows are those of a prepared statement, whose points in time have been read already. */
  readonly binary: boolean
}

const converterOf = (
  field: RawField,
  { binary, compatible, offsetMillis }: Reading
): ((value: unknown) => unknown) | undefined => {
  if (field.extendedFormat === "json") return toJson
  switch (field.columnType) {
    case longlong:
      return compatible ? undefined : toInteger
    case dateOnly:
      return compatible ? (value) => typeof value === "string" ? toDate(value, offsetMillis) : value : undefined
    case timestamp:
    case datetime:
      return binary ? undefined : (value) => typeof value === "string" ? toDate(value, offsetMillis) : value
    case json:
      return toJson
    default:
      return undefined
  }
}

/**
 * What to do with each row of a result, or `undefined` when its rows are right as they are.
 *
 * @internal
 */
export const rowConverter = (fields: ReadonlyArray<RawField>, reading: Reading): RowConverter | undefined => {
  const converters: Array<readonly [number, (value: unknown) => unknown]> = []
  for (let at = 0; at < fields.length; at++) {
    const field = fields[at]
    const convert = field === undefined ? undefined : converterOf(field, reading)
    if (convert !== undefined) converters.push([at, convert])
  }
  if (converters.length === 0) return undefined
  return (row) => {
    for (let index = 0; index < converters.length; index++) {
      const [at, convert] = converters[index] as readonly [number, (value: unknown) => unknown]
      row[at] = convert(row[at])
    }
    return row
  }
}

/**
 * AUTO_INCREMENT ids come as signed numbers, as text beyond ±2⁵³; one that large is an unsigned BIGINT.
 *
 * @internal
 */
export const toInsertId = (id: number | string): number | bigint =>
  typeof id === "number" ? id : BigInt.asUintN(64, BigInt(id))

/** @internal */
export const columnNames = (fields: ReadonlyArray<RawField>): ReadonlyArray<string> => fields.map(({ name }) => name)
