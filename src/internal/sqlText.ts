/**
 * Where the words, marks and parameters of an SQL text are, and where they only seem to be.
 *
 * One pass over the text, without a grammar. Text in quotes and comments gives no token that could be taken for code;
 * executable comments (`/*! ... *\/`) are code. Never throws, always terminates. What a reader in one of the server's
 * modes might see differently (an unterminated quote, a comment that only some versions run) is `doubtful`, and it is
 * for the caller to assume the worst. Quotes are read as in the server's default `sql_mode`: a backslash escapes.
 *
 * @internal
 */

/** @internal */
export type Dialect = "mysql" | "sqlite"

/**
 * `quoted` is `"x"`, `` `x` `` or `[x]` (a name, or in MySQL also a string), `string` is `'x'`, `variable` is `@x`,
 * `system` is `@@x`. `text` holds words, quoted names and system variables in upper case, a named parameter and a mark
 * as written, and nothing for the rest. Only ASCII changes case, so that no foreign letter ever spells a keyword.
 *
 * @internal
 */
export interface Token {
  readonly kind: "word" | "quoted" | "string" | "number" | "placeholder" | "named" | "variable" | "system" | "mark"
  readonly text: string
  readonly start: number
  readonly end: number
}

/** @internal */
export interface Scan {
  readonly tokens: ReadonlyArray<Token>
  readonly doubtful: boolean
}

/** @internal */
export type Tokens = ReadonlyArray<Token>

interface Cursor {
  readonly sql: string
  readonly mysql: boolean
  readonly tokens: Array<Token>
  at: number
  executableComment: boolean
  doubtful: boolean
}

const quote = 0x27
const doubleQuote = 0x22
const backtick = 0x60
const backslash = 0x5c
const openBracket = 0x5b
const zero = 0x30
const nine = 0x39
const underscore = 0x5f

const isDigit = (code: number): boolean => code >= zero && code <= nine
const isNameStart = (code: number): boolean =>
  (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a) || code === underscore || code >= 0x80
const isNamePart = (code: number): boolean => isNameStart(code) || isDigit(code) || code === 0x24
const isSpace = (code: number): boolean => code === 0x20 || (code >= 0x09 && code <= 0x0d)

const ascii = /^[\x20-\x7e]*$/
const upper = (text: string): string => (ascii.test(text) ? text.toUpperCase() : text)

// The forms a run of letters and digits may have to be a number: MySQL allows names that begin with a digit.
const numeric = /^(?:\d+(?:e\d+)?|0x[\da-f]+|0b[01]+)$/i

const push = (cursor: Cursor, kind: Token["kind"], text: string, start: number, end: number): void => {
  cursor.tokens.push({ kind, text, start, end })
  cursor.at = end
}

const skipLine = (cursor: Cursor): void => {
  const { mysql, sql } = cursor
  let at = cursor.at
  // MySQL's scanner also ends the line at a NUL, and what follows runs.
  while (at < sql.length && sql.charCodeAt(at) !== 0x0a && !(mysql && sql.charCodeAt(at) === 0)) at++
  cursor.at = at
}

const skipBlock = (cursor: Cursor): void => {
  const end = cursor.sql.indexOf("*/", cursor.at + 2)
  if (end < 0) cursor.doubtful = true
  cursor.at = end < 0 ? cursor.sql.length : end + 2
}

const versioned = /\/\*(?:!(\d{5,6})?|M!(?:\d{5,6})?)/y

const openBlock = (cursor: Cursor): void => {
  // Inside an executable comment the servers differ on what a further comment closes.
  if (cursor.executableComment) cursor.doubtful = true
  versioned.lastIndex = cursor.at
  const executable = cursor.mysql ? versioned.exec(cursor.sql) : null
  if (executable === null) return skipBlock(cursor)
  // A server outside the version, or not MariaDB, skips the content unread: quotes in it then hide nothing.
  if (executable[0] !== "/*!") cursor.doubtful = true
  cursor.executableComment = true
  cursor.at += executable[0].length
}

const scanComment = (cursor: Cursor, code: number): boolean => {
  const { at, mysql, sql } = cursor
  const next = sql.charCodeAt(at + 1)
  if (code === 0x23 && mysql) {
    skipLine(cursor)
  } else if (code === 0x2d && next === 0x2d) {
    // `5--3` is arithmetic in MySQL: its comment needs a space or a control character, or the end of the text.
    if (mysql && !(at + 2 >= sql.length || sql.charCodeAt(at + 2) <= 0x20 || sql.charCodeAt(at + 2) === 0x7f)) {
      return false
    }
    skipLine(cursor)
  } else if (code === 0x2f && next === 0x2a) {
    openBlock(cursor)
  } else if (code === 0x2a && next === 0x2f && cursor.executableComment) {
    cursor.executableComment = false
    cursor.at += 2
  } else {
    return false
  }
  return true
}

/** The index after the closing quote; a doubled quote does not close, nor in MySQL's strings an escaped one. */
const endOfQuoted = (cursor: Cursor, from: number): number => {
  const { mysql, sql } = cursor
  const open = sql.charCodeAt(from)
  const close = open === openBracket ? 0x5d : open
  const escapes = mysql && open !== backtick
  for (let at = from + 1; at < sql.length; at++) {
    const code = sql.charCodeAt(at)
    if (code === backslash && escapes) {
      at++
    } else if (code === close) {
      if (open === openBracket || sql.charCodeAt(at + 1) !== close) return at + 1
      at++
    }
  }
  cursor.doubtful = true
  return sql.length
}

const isQuote = (cursor: Cursor, code: number): boolean =>
  code === quote || code === doubleQuote || code === backtick || (code === openBracket && !cursor.mysql)

const scanQuoted = (cursor: Cursor, code: number): void => {
  const { at, sql } = cursor
  const end = endOfQuoted(cursor, at)
  if (code === quote) push(cursor, "string", "", at, end)
  else push(cursor, "quoted", upper(sql.slice(at + 1, end - 1)), at, end)
}

/** @internal */
export const isMark = (token: Token | undefined, text: string): boolean => token?.kind === "mark" && token.text === text

const endOfName = (sql: string, from: number): number => {
  let at = from
  while (at < sql.length && isNamePart(sql.charCodeAt(at))) at++
  return at
}

const scanWord = (cursor: Cursor): void => {
  const { at, sql } = cursor
  const end = endOfName(sql, at)
  const text = sql.slice(at, end)
  // After the dot of a qualified name MySQL reads a name, whatever it looks like.
  const number = isDigit(sql.charCodeAt(at)) && numeric.test(text) && !isMark(cursor.tokens.at(-1), ".")
  if (!number) return push(cursor, "word", upper(text), at, end)
  const fraction = sql.charCodeAt(end) === 0x2e && isDigit(sql.charCodeAt(end + 1)) ? endOfName(sql, end + 1) : end
  push(cursor, "number", "", at, fraction)
}

/** `@x`, `@'x'` and `@@x`; of `@@session.x` only the first name, as spaces and comments may follow it. */
const scanVariable = (cursor: Cursor): void => {
  const { at, mysql, sql } = cursor
  const system = mysql && sql.charCodeAt(at + 1) === 0x40
  const from = system ? at + 2 : at + 1
  const code = sql.charCodeAt(from)
  if (isQuote(cursor, code) && mysql) {
    const end = endOfQuoted(cursor, from)
    return push(cursor, system ? "system" : "variable", system ? upper(sql.slice(from + 1, end - 1)) : "", at, end)
  }
  let end = endOfName(sql, from)
  while (!system && mysql && sql.charCodeAt(end) === 0x2e) end = endOfName(sql, end + 1)
  push(cursor, system ? "system" : "variable", system ? upper(sql.slice(from, end)) : "", at, end)
}

/** `:name`, but neither `::`, `:=`, a label such as `here:BEGIN`, nor the minutes of a time. */
const scanColon = (cursor: Cursor): void => {
  const { at, sql } = cursor
  const next = sql.charCodeAt(at + 1)
  if (next === 0x3d || next === 0x3a) return push(cursor, "mark", next === 0x3d ? ":=" : "::", at, at + 2)
  const before = at === 0 ? 0x20 : sql.charCodeAt(at - 1)
  if (!isNameStart(next) || isNamePart(before) || before === 0x3a) return push(cursor, "mark", ":", at, at + 1)
  const end = endOfName(sql, at + 1)
  push(cursor, "named", sql.slice(at + 1, end), at, end)
}

const scanMark = (cursor: Cursor, code: number): void => {
  // Outside quotes a backslash means that this scanner and the server disagree on where a quote ended.
  if (code === backslash || code === 0) cursor.doubtful = true
  push(cursor, "mark", cursor.sql.charAt(cursor.at), cursor.at, cursor.at + 1)
}

const scanPlaceholder = (cursor: Cursor): void => {
  const { at, mysql, sql } = cursor
  let end = at + 1
  // SQLite's numbered form.
  while (!mysql && isDigit(sql.charCodeAt(end))) end++
  push(cursor, "placeholder", "", at, end)
}

const scanNext = (cursor: Cursor, code: number): void => {
  if (isSpace(code)) cursor.at++
  else if (scanComment(cursor, code)) return
  else if (isQuote(cursor, code)) scanQuoted(cursor, code)
  else if (code === 0x24 && !cursor.mysql) push(cursor, "variable", "", cursor.at, endOfName(cursor.sql, cursor.at + 1))
  else if (isNamePart(code)) scanWord(cursor)
  else if (code === 0x3f) scanPlaceholder(cursor)
  else if (code === 0x40) scanVariable(cursor)
  else if (code === 0x3a) scanColon(cursor)
  else if (code === 0x2e && isDigit(cursor.sql.charCodeAt(cursor.at + 1)) && !followsName(cursor)) {
    push(cursor, "number", "", cursor.at, endOfName(cursor.sql, cursor.at + 1))
  } else scanMark(cursor, code)
}

/** After a name, `.5` is not a number but the name of a column that begins with a digit. */
const followsName = (cursor: Cursor): boolean => {
  const last = cursor.tokens.at(-1)
  return last !== undefined && last.end === cursor.at && (last.kind === "word" || last.kind === "quoted")
}

/** @internal */
export const scan = (sql: string, dialect: Dialect): Scan => {
  const cursor: Cursor = {
    sql,
    mysql: dialect === "mysql",
    tokens: [],
    at: 0,
    executableComment: false,
    doubtful: false
  }
  while (cursor.at < sql.length) scanNext(cursor, sql.charCodeAt(cursor.at))
  return { tokens: cursor.tokens, doubtful: cursor.doubtful || cursor.executableComment }
}

/** @internal */
export const isWord = (token: Token | undefined, text: string): boolean => token?.kind === "word" && token.text === text

/**
 * A keyword at `at`: not a column `t.keyword`.
 *
 * @internal
 */
export const keywordAt = (tokens: Tokens, at: number): string => {
  const token = tokens[at]
  return token?.kind === "word" && !isMark(tokens[at - 1], ".") ? token.text : ""
}

/** @internal */
export const has = (tokens: Tokens, keyword: string): boolean =>
  tokens.some((_, at) => keywordAt(tokens, at) === keyword)

const programs = new Set(["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"])
const others = ["TABLE", "VIEW", "INDEX", "DATABASE", "SCHEMA", "USER", "ROLE", "SERVER", "SEQUENCE", "TABLESPACE"]
const objects = new Set([...programs, ...others])

/**
 * The kind of thing a CREATE or ALTER is about.
 *
 * @internal
 */
export const objectIndex = (tokens: Tokens): number => tokens.findIndex((_, at) => objects.has(keywordAt(tokens, at)))

/**
 * A stored program, or MariaDB's compound statement: its semicolons separate nothing.
 *
 * @internal
 */
export const isProgram = (tokens: Tokens): boolean => {
  const verb = keywordAt(tokens, 0)
  if (verb === "BEGIN") return isWord(tokens[1], "NOT")
  return (verb === "CREATE" || verb === "ALTER") && programs.has(keywordAt(tokens, objectIndex(tokens)))
}

/**
 * The tokens of each non-empty statement.
 *
 * @internal
 */
export const split = (tokens: Tokens): ReadonlyArray<Tokens> => {
  const statements: Array<Tokens> = []
  let from = 0
  for (let at = 0; at <= tokens.length; at++) {
    if (at < tokens.length && !isMark(tokens[at], ";")) continue
    if (at > from) {
      const statement = from === 0 && at === tokens.length ? tokens : tokens.slice(from, at)
      if (isProgram(statement)) return [...statements, tokens.slice(from)]
      statements.push(statement)
    }
    from = at + 1
  }
  return statements
}

/**
 * The text with `?` for each `:name` outside quotes and comments, and the names in that order, each as often as it
 * stands there. `?` that were there before stay, and are not counted.
 *
 * @internal
 */
export const bindNamed = (sql: string, dialect: Dialect): { sql: string; names: ReadonlyArray<string> } => {
  const names: Array<string> = []
  if (!sql.includes(":")) return { sql, names }
  let bound = ""
  let from = 0
  for (const token of scan(sql, dialect).tokens) {
    if (token.kind !== "named") continue
    names.push(token.text)
    bound += sql.slice(from, token.start) + "?"
    from = token.end
  }
  return { sql: bound + sql.slice(from), names }
}
