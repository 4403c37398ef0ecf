/**
 * What a statement's text says about the state of its session.
 *
 * The server reports most changes of a session, but not named locks, table locks, `:=` and INTO @x, and nothing at all
 * with rows. For these there is only the text. The rule is "when in doubt, dirty": only statements known to leave
 * nothing behind come out clean, since a false alarm costs one reset and a miss shows one user's data to another.
 *
 * The text cannot tell what a view, a trigger or a generated default calls.
 *
 * @internal
 */
import { type CallEffect, effectOfCall, pragmaReports, pragmaValues } from "./builtinFunctions.js"
import {
  type Dialect,
  has,
  isMark,
  isProgram,
  isWord,
  keywordAt,
  objectIndex,
  scan,
  split,
  type Token,
  type Tokens
} from "./sqlText.js"

/**
 * What a statement's text says of its parameters and of the state of its session.
 *
 * @since 0.1.0
 * @category models
 */
export interface StatementTraits {
  /** Nothing but white space, comments and semicolons. */
  readonly empty: boolean
  /** The number of `?` outside quotes and comments. */
  readonly placeholders: number
  /** Holds at least one `:name`. */
  readonly named: boolean
  /** The first keyword of the first statement in upper case, past parentheses and comments; else "". */
  readonly verb: string
  /** One statement that reads, changes nothing, and means the same on another connection: safe to run twice. */
  readonly plainRead: boolean
  /** May leave state on the connection that the server does not report. */
  readonly changesSession: boolean
  /**
   * Reads what an earlier statement left on the connection. Not so when that statement is in the same text:
   * `INSERT ...; SELECT LAST_INSERT_ID()`.
   */
  readonly readsPrevious: boolean
  /** Among that, the id that an earlier INSERT generated, however many statements ago. */
  readonly readsInsertId: boolean
  /** Non-empty statements, separated by `;`; a stored program with its body is one. */
  readonly statements: number
  /** Of several statements, what the last one that begins or ends a transaction does. */
  readonly transaction: "begin" | "end" | undefined
  /**
   * Whether it may end the transaction it runs in, as CREATE TABLE does on MySQL: never, as the server's status after it
   * tells, or so that no status tells, since another has been begun behind it.
   */
  readonly mayCommit: "never" | "seen" | "unseen"
  /** Reads the id that an INSERT in the same text has generated; of an earlier one if that generates none. */
  readonly readsOwnInsertId: boolean
}

interface Finding {
  verb: string
  plain: boolean
  dirty: boolean
  readsInsertId: boolean
  readsOutcome: boolean
  transaction: "begin" | "end" | undefined
}

const set = (text: string): ReadonlySet<string> => new Set(text.split(" "))
const queries = set("SELECT VALUES TABLE SHOW")
const writes = set("INSERT UPDATE DELETE REPLACE")
const explains = set("EXPLAIN DESCRIBE DESC ANALYZE")
const mysqlDefinitions = set("CREATE ALTER DROP TRUNCATE RENAME OPTIMIZE REPAIR CHECK CHECKSUM GRANT REVOKE")
const sqliteDefinitions = set("CREATE ALTER DROP REINDEX VACUUM ANALYZE")
const insertIdVariables = set("IDENTITY LAST_INSERT_ID")
const outcomeVariables = set("WARNING_COUNT ERROR_COUNT")

const verbIndex = (tokens: Tokens): number => {
  const at = tokens.findIndex((token) => !isMark(token, "("))
  return tokens[at]?.kind === "word" ? at : -1
}

const applyCall = (finding: Finding, effect: CallEffect, writing: boolean): void => {
  switch (effect) {
    case "none":
      return
    case "unknown":
    case "lock":
    case "sequence":
      finding.dirty = true
      break
    case "setsInsertId":
      // A write's reply carries the id, as after any INSERT; rows carry nothing.
      if (!writing) finding.dirty = true
      break
    case "readsInsertId":
      finding.readsInsertId = true
      break
    case "readsOutcome":
      finding.readsOutcome = true
  }
  finding.plain = false
}

const applyKeyword = (finding: Finding, tokens: Tokens, at: number, writing: boolean): void => {
  const next = tokens[at + 1]
  switch (keywordAt(tokens, at)) {
    case "INTO":
      finding.plain = false
      if (next?.kind === "variable") finding.dirty = true
      if (!writing && !isWord(next, "OUTFILE") && !isWord(next, "DUMPFILE")) finding.dirty = true
      return
    case "FOR":
      if (isWord(tokens[at - 1], "VALUE") && (isWord(tokens[at - 2], "NEXT") || isWord(tokens[at - 2], "PREVIOUS"))) {
        applyCall(finding, isWord(tokens[at - 2], "NEXT") ? "sequence" : "readsOutcome", writing)
      }
      if (isWord(next, "UPDATE") || isWord(next, "SHARE")) finding.plain = false
      return
    case "LOCK":
      if (isWord(next, "IN")) finding.plain = false
  }
}

const applySystemVariable = (finding: Finding, tokens: Tokens, at: number): void => {
  // `@@session . identity` may have spaces.
  const name = (isMark(tokens[at + 1], ".") ? tokens[at + 2] : tokens[at])?.text ?? ""
  if (insertIdVariables.has(name)) finding.readsInsertId = true
  if (outcomeVariables.has(name)) finding.readsOutcome = true
}

/** Everything an expression may do, anywhere in a statement that reads or writes rows. */
const applyExpressions = (finding: Finding, tokens: Tokens, dialect: Dialect, writing: boolean): void => {
  for (let at = 0; at < tokens.length; at++) {
    const token = tokens[at]
    switch (token?.kind) {
      case "mark":
        if (token.text === ":=") finding.dirty = true
        if (token.text === "(") applyCall(finding, effectOfCall(tokens, at, dialect), writing)
        break
      case "word":
        applyKeyword(finding, tokens, at, writing)
        break
      case "variable":
        // Another connection does not have the variable.
        if (dialect === "mysql") finding.plain = false
        break
      case "system":
        applySystemVariable(finding, tokens, at)
    }
  }
}

/** The statement after the common table expressions: what follows a closing parenthesis, unless a comma or AS does. */
const mainOfWith = (tokens: Tokens, from: number): string => {
  let depth = 0
  for (let at = from; at < tokens.length; at++) {
    if (isMark(tokens[at], "(")) depth++
    else if (isMark(tokens[at], ")") && --depth === 0) {
      let next = at + 1
      if (isMark(tokens[next], ",") || isWord(tokens[next], "AS")) continue
      while (isMark(tokens[next], "(")) next++
      return keywordAt(tokens, next)
    }
  }
  return ""
}

const describeRows = (finding: Finding, tokens: Tokens, main: string, dialect: Dialect): void => {
  const writing = writes.has(main)
  finding.plain = queries.has(main)
  finding.dirty = !(writing || finding.plain || main === "DO" || main === "KILL")
  applyExpressions(finding, tokens, dialect, writing)
  const shown = isWord(tokens[1], "COUNT") && isMark(tokens[2], "(") ? tokens[5] : tokens[1]
  if (main === "SHOW" && (isWord(shown, "WARNINGS") || isWord(shown, "ERRORS"))) finding.readsOutcome = true
}

/** Where the explained statement starts; -1 when it is only the name of a table or connection. */
const explainedIndex = (tokens: Tokens, dialect: Dialect): number => {
  if (dialect === "sqlite") return isWord(tokens[1], "QUERY") ? 3 : 1
  return tokens.findIndex((_, at) => {
    const keyword = keywordAt(tokens, at)
    return at > 0 && keyword !== "SHOW" && (queries.has(keyword) || writes.has(keyword) || keyword === "WITH")
  })
}

/** EXPLAIN runs the statement only with ANALYZE, but planning alone may call functions (MariaDB) and set pragmas. */
const describeExplain = (finding: Finding, tokens: Tokens, dialect: Dialect): void => {
  const inner = explainedIndex(tokens, dialect)
  if (isWord(tokens[inner], "EXPLAIN")) return
  const head = inner < 0 ? tokens : tokens.slice(0, inner)
  const explained = inner < 0 ? undefined : describe(tokens.slice(inner), dialect)
  const runs = has(head, "ANALYZE")
  finding.dirty = has(head, "INTO") || explained?.dirty === true
  finding.readsInsertId = explained?.readsInsertId === true
  finding.readsOutcome = explained?.readsOutcome === true
  const read = explained === undefined || explained.plain
  finding.plain = runs ? explained?.plain === true : read || writes.has(explained.verb)
}

/** CREATE TABLE ... SELECT runs a query; VALUES LESS THAN and VALUES IN belong to partitions. */
const fillsTable = (tokens: Tokens): boolean =>
  tokens.some((_, at) => {
    const keyword = keywordAt(tokens, at)
    const next = keywordAt(tokens, at + 1)
    return keyword === "SELECT" || (keyword === "VALUES" && next !== "LESS" && next !== "IN")
  })

const describeDefinition = (finding: Finding, tokens: Tokens): void => {
  const object = objectIndex(tokens)
  const head = object < 0 ? tokens : tokens.slice(0, object)
  const temporary = finding.verb === "CREATE" && (has(head, "TEMPORARY") || has(head, "TEMP"))
  // After a program's body there may be another statement: its end cannot be told without a grammar.
  const open = isProgram(tokens) && tokens.some((token, at) => isMark(token, ";") && at < tokens.length - 1)
  finding.dirty = temporary || open ||
    (finding.verb === "CREATE" && isWord(tokens[object], "TABLE") && fillsTable(tokens))
}

const describeEnd = (finding: Finding, tokens: Tokens): void => {
  if (finding.verb === "ROLLBACK" && has(tokens, "TO")) {
    finding.dirty = true
    return
  }
  finding.transaction = "end"
  finding.dirty = tokens.some((_, at) => {
    const keyword = keywordAt(tokens, at)
    return (keyword === "CHAIN" || keyword === "RELEASE") && !isWord(tokens[at - 1], "NO")
  })
}

const beginsTransaction = (tokens: Tokens): boolean => {
  const next = keywordAt(tokens, 1)
  switch (keywordAt(tokens, 0)) {
    case "BEGIN":
      return next !== "NOT"
    case "START":
      return next === "TRANSACTION"
    case "XA":
      return next === "START" || next === "BEGIN"
    default:
      return false
  }
}

const describePragma = (finding: Finding, tokens: Tokens): void => {
  const at = isMark(tokens[2], ".") ? 3 : 1
  const name = tokens[at]?.text ?? ""
  const withArgument = pragmaReports.has(name) && !isMark(tokens[at + 1], "=")
  finding.plain = withArgument || (pragmaValues.has(name) && tokens.length === at + 1)
  finding.dirty = !finding.plain
}

const describeKind = (finding: Finding, tokens: Tokens, from: number, dialect: Dialect): void => {
  const { verb } = finding
  const mysql = dialect === "mysql"
  const maintenance = mysql && verb === "ANALYZE" && tokens.slice(1, 3).some((token) => isWord(token, "TABLE"))
  const definitions = mysql ? mysqlDefinitions : sqliteDefinitions
  if (definitions.has(verb) || maintenance) return describeDefinition(finding, tokens)
  if (verb === "COMMIT" || verb === "ROLLBACK" || (verb === "END" && !mysql)) return describeEnd(finding, tokens)
  if (verb === "PRAGMA" && !mysql) return describePragma(finding, tokens)
  if (verb === "EXPLAIN" || (mysql && explains.has(verb))) return describeExplain(finding, tokens, dialect)
  const rows = queries.has(verb) || writes.has(verb) || (mysql && (verb === "DO" || verb === "KILL"))
  if (verb === "WITH") return describeRows(finding, tokens, mainOfWith(tokens, from), dialect)
  if (rows) return describeRows(finding, tokens, verb, dialect)
  // Locks that outlive the statement.
  if (verb === "FLUSH") finding.dirty = has(tokens, "LOCK") || has(tokens, "EXPORT")
  if (verb === "XA" && ["COMMIT", "ROLLBACK"].includes(keywordAt(tokens, 1))) finding.transaction = "end"
  if (beginsTransaction(tokens)) finding.transaction = "begin"
  if (verb === "GET") finding.readsOutcome = true
}

/** One statement. It starts as dirty; each kind that is understood says otherwise. */
const describe = (tokens: Tokens, dialect: Dialect): Finding => {
  const from = verbIndex(tokens)
  const verb = tokens[from]?.text ?? ""
  const finding: Finding = {
    verb,
    plain: false,
    dirty: true,
    readsInsertId: false,
    readsOutcome: false,
    transaction: undefined
  }
  describeKind(finding, tokens, from, dialect)
  // SQLite also takes 'temp' in single quotes for a schema's name.
  const temporary = (token: Token, at: number): boolean =>
    (token.text === "TEMP" || token.kind === "string") && isMark(tokens[at + 1], ".")
  if (dialect === "sqlite" && tokens.some(temporary)) finding.dirty = true
  finding.plain &&= !finding.dirty && !finding.readsInsertId && !finding.readsOutcome
  return finding
}

/** Statements that commit nothing, whatever becomes of them. */
const neverCommits = set("SELECT INSERT UPDATE DELETE REPLACE WITH VALUES TABLE SHOW SAVEPOINT RELEASE")
const runsAnything = set("CALL EXECUTE")

const mayCommit = (findings: ReadonlyArray<Finding>, doubtful: boolean): StatementTraits["mayCommit"] => {
  if (!doubtful && findings.every(({ verb }) => neverCommits.has(verb))) return "never"
  return doubtful || findings.length > 1 || runsAnything.has(findings[0]?.verb ?? "") ? "unseen" : "seen"
}

const readsInsertId = (findings: ReadonlyArray<Finding>): boolean => {
  const insert = findings.findIndex(({ verb }) => verb === "INSERT" || verb === "REPLACE")
  return findings.some((finding, at) => finding.readsInsertId && (insert < 0 || at <= insert))
}

const readsPrevious = (findings: ReadonlyArray<Finding>): boolean =>
  findings[0]?.readsOutcome === true || readsInsertId(findings)

const read = (sql: string, dialect: Dialect): StatementTraits => {
  const { doubtful, tokens } = scan(sql, dialect)
  const findings = split(tokens).map((statement) => describe(statement, dialect))
  const earlierInsertId = readsInsertId(findings)
  return {
    empty: findings.length === 0 && !doubtful,
    placeholders: tokens.filter((token) => token.kind === "placeholder").length,
    named: tokens.some((token) => token.kind === "named"),
    verb: findings[0]?.verb ?? "",
    plainRead: !doubtful && findings.length === 1 && findings[0]?.plain === true,
    changesSession: doubtful || findings.some((finding) => finding.dirty),
    readsPrevious: readsPrevious(findings),
    readsInsertId: earlierInsertId,
    statements: findings.length,
    mayCommit: mayCommit(findings, doubtful),
    readsOwnInsertId: !earlierInsertId && findings.some((finding) => finding.readsInsertId),
    transaction: findings.map((finding) => finding.transaction).filter((change) => change !== undefined).at(-1)
  }
}

const longestCached = 4096
const mostCached = 1000
const caches: Readonly<Record<Dialect, Map<string, StatementTraits>>> = { mysql: new Map(), sqlite: new Map() }

/**
 * The traits of a text. On the path of every statement, so a repeated text costs one look-up; the oldest texts are
 * forgotten, and long ones, which are rarely the same twice, are not kept.
 *
 * @internal
 */
export const analyze = (sql: string, dialect: Dialect): StatementTraits => {
  if (sql.length > longestCached) return read(sql, dialect)
  const cache = caches[dialect]
  const cached = cache.get(sql)
  if (cached !== undefined) return cached
  const traits = read(sql, dialect)
  if (cache.size >= mostCached) {
    const oldest = cache.keys().next()
    if (oldest.done !== true) cache.delete(oldest.value)
  }
  cache.set(sql, traits)
  return traits
}
