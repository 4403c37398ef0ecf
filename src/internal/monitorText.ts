/**
 * Words, numbers, bars and sparklines for a terminal, measured in columns: a wide character takes two.
 *
 * @internal
 */
import cliTruncate from "cli-truncate"
import stringWidth from "string-width"

/** @internal Text from outside, which must not steer the terminal: no control characters, one line, one direction. */
export const clean = (text: string): string => text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]+/gu, " ")

/** @internal As {@link clean}, of a text with lines and indentation. */
export const oneLine = (text: string): string => clean(text.trim().replace(/\s+/g, " "))

/** @internal No wider than that; what is cut ends in "…". */
export const cut = (text: string, columns: number): string => {
  if (columns <= 0) return ""
  if (stringWidth(text) <= columns) return text
  const short = cliTruncate(text, columns)
  // a wide character at the end may have stayed that needs a column more
  return stringWidth(short) <= columns ? short : cliTruncate(text, columns - 1)
}

/** @internal Exactly as wide as that. */
export const fit = (text: string, columns: number): string => {
  const short = cut(text, columns)
  return short + " ".repeat(Math.max(0, columns - stringWidth(short)))
}

/** @internal As {@link fit}, with the text at the right. */
export const fitRight = (text: string, columns: number): string => {
  const short = cut(text, columns)
  return " ".repeat(Math.max(0, columns - stringWidth(short))) + short
}

/** @internal The first of the texts that is no wider than that; else the last, cut. */
export const firstThatFits = (texts: ReadonlyArray<string>, columns: number): string =>
  texts.find((text) => stringWidth(text) <= columns) ?? cut(texts.at(-1) ?? "", columns)

/** @internal `1,234`, and of small numbers one digit after the point. */
export const number = (value: number): string =>
  value > 0 && value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toLocaleString("en-US")

/** @internal `12 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`. */
export const duration = (millis: number): string => {
  const whole = Math.max(0, Math.round(millis))
  if (whole < 1_000) return `${whole} ms`
  if (whole < 60_000) return `${(Math.floor(whole / 100) / 10).toFixed(1)} s`
  const seconds = Math.floor(whole / 1_000)
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`
  return `${number(Math.floor(minutes / 60))} h ${minutes % 60} min`
}

/** @internal `1 fiber`, `2 fibers`. */
export const count = (value: number, one: string, many = `${one}s`): string =>
  `${number(value)} ${value === 1 ? one : many}`

const levels = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

/** @internal The last values, one column each, the newest at the right; the highest fills the line, only 0 is the lowest. */
export const sparkline = (values: ReadonlyArray<number>, columns: number): string => {
  const shown = columns <= 0 ? [] : values.slice(-columns)
  const highest = Math.max(0, ...shown)
  const line = shown.map((value) => value <= 0 ? levels[0] : levels[Math.ceil(value / highest * (levels.length - 1))])
  return line.join("").padStart(Math.max(0, columns))
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** Where the value is that lies farthest beyond its share, of those that may be changed. */
const farthest = (values: ReadonlyArray<number>, beyond: (value: number, at: number) => number): number =>
  values.reduce((best, value, at) => beyond(value, at) > beyond(values[best]!, best) ? at : best, 0)

/**
 * @internal How many columns of a bar each count gets: each unit the same number, at most four, where they fit; else
 * its share of all columns, and at least one if it is not 0.
 */
export const shares = (counts: ReadonlyArray<number>, columns: number): ReadonlyArray<number> => {
  const total = sum(counts)
  if (total === 0 || columns < counts.length) return counts.map(() => 0)
  const each = Math.min(4, Math.floor(columns / total))
  if (each >= 1) return counts.map((value) => value * each)
  const exact = counts.map((value) => value * columns / total)
  const given = exact.map((value) => value === 0 ? 0 : Math.max(1, Math.floor(value)))
  while (sum(given) < columns) given[farthest(given, (value, at) => exact[at]! - value)]!++
  while (sum(given) > columns) {
    given[farthest(given, (value, at) => value > 1 ? value - exact[at]! : -Infinity)]!--
  }
  return given
}
