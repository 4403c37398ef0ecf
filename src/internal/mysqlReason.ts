/**
 * What an error of the server or of mysql2 says, without the values that it quotes: those of known messages by their
 * form, whosever they are, and a statement's own parameters wherever they stand. Pure.
 *
 * @internal
 */

/**
 * What mysql2 throws, emits and calls back with. A server's error has a positive `errno`, a socket's a negative one or
 * none; `code` is a number for an idle 4031.
 *
 * @internal
 */
export interface MysqlError {
  readonly message: string
  readonly code?: string | number | undefined
  readonly errno?: number | undefined
  readonly sqlState?: string | undefined
  readonly sqlMessage?: string | undefined
  readonly fatal?: boolean | undefined
  /** Of an AggregateError, which Node gives when every address of a name refused; its own message is empty. */
  readonly errors?: ReadonlyArray<{ readonly message: string }> | undefined
}

type Quote = readonly [RegExp, string]

// Where the messages of these errors quote a value. Greedy: the value may hold a quote itself.
const quoted: ReadonlyArray<readonly [Quote, ReadonlyArray<number>]> = [
  [[/entry '.*'(?= for key )/s, "entry"], [1062, 1586, 1859]],
  [[/entry '.*'(?=,? (key|would) )/s, "entry"], [1557, 1761, 1762]],
  [[/ value: '.*'(?= for | in |$)/s, " value"], [1292, 1366, 1411, 1525]],
  [[/ '.*'(?= value found)/s, ""], [1367]],
  [[/ for value .*$/s, " for the value"], [1526]],
  [[/ in '.*'/s, ""], [1690]],
  [[/: ".*"(?= at position)/s, ""], [3140, 3141]]
]
const quotes: ReadonlyMap<number, Quote> = new Map(
  quoted.flatMap(([quote, errnos]) => errnos.map((errno) => [errno, quote] as const))
)

const hidden = "?"
// So much of a value tells what it is; a server cuts long ones off.
const telling = 6

/** As what a value can stand in a message. */
const formsOf = (value: unknown): ReadonlyArray<string> => {
  switch (typeof value) {
    case "string": {
      const escaped = value.replaceAll("\\", "\\\\").replaceAll("'", "''")
      return escaped === value ? [value] : [escaped, value]
    }
    case "number":
    case "bigint":
      return [String(value)]
    case "object":
      if (value instanceof Uint8Array) {
        const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
        const hex = bytes.toString("hex")
        return [bytes.toString("utf8"), bytes.toString("latin1"), hex, hex.toUpperCase()]
      }
      return value === null || value instanceof Date ? [] : formsOf(JSON.stringify(value))
    default:
      return []
  }
}

const hideLong = (text: string, form: string): string => {
  const start = form.slice(0, telling)
  let result = ""
  let from = 0
  for (let at = text.indexOf(start); at !== -1; at = text.indexOf(start, from)) {
    let end = at + start.length
    while (end - at < form.length && end < text.length && text[end] === form[end - at]) end += 1
    result += text.slice(from, at) + hidden
    from = end
  }
  return result + text.slice(from)
}

/** A short one is hidden where it stands in quotes; a number where it is no part of another. */
const hide = (text: string, value: unknown): string => {
  let result = text
  for (const form of formsOf(value)) {
    if (form === "") continue
    if (typeof value === "number" || typeof value === "bigint") {
      // of one digit or two there are others in every message, such as that of the row
      if (form.length > 2) result = result.replaceAll(new RegExp(`(?<![\\w.])${escape(form)}(?![\\w.])`, "g"), hidden)
    } else if (form.length >= telling) result = hideLong(result, form)
    else result = result.replaceAll(`'${form}'`, `'${hidden}'`)
  }
  return result
}

const escape = (text: string): string => text.replaceAll(/[.+-]/g, "\\$&")

/** @internal */
export const reasonOf = (error: MysqlError, params: ReadonlyArray<unknown> = []): string => {
  const text = error.sqlMessage ?? error.message
  const said = text === "" ? error.errors?.[0]?.message ?? String(error.code ?? "unknown error") : text
  const quote = error.errno === undefined ? undefined : quotes.get(error.errno)
  // The sentence goes on after it.
  const bare = (quote === undefined ? said : said.replace(quote[0], quote[1])).replace(/\.$/, "")
  return params.reduce(hide, bare)
}
