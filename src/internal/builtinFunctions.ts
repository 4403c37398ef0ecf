/**
 * Which parentheses of a statement call a function, and what that call may do to the session.
 *
 * A function that is not built in is somebody's program: it may take a lock or set a variable, and the server reports
 * neither. The names are those of MySQL 5.7 to 9 and MariaDB 10 and 11 together, and of SQLite 3; what changes or reads
 * the session's state is not among them but listed by itself. A name before a parenthesis that is no call (a table's
 * column list, a word of the grammar) is recognised by what stands around it. When in doubt, it is a call.
 *
 * @internal
 */
import { type Dialect, isMark, isWord, type Token } from "./sqlText.js"

/**
 * `unknown` is not built in; `lock` takes or releases a named lock; `sequence` moves a sequence; `setsInsertId` is
 * LAST_INSERT_ID(x); `readsInsertId` and `readsOutcome` read what an earlier INSERT, or the last statement, left.
 *
 * @internal
 */
export type CallEffect = "none" | "unknown" | "lock" | "sequence" | "setsInsertId" | "readsInsertId" | "readsOutcome"

const names = (text: string, prefix = ""): ReadonlyArray<string> =>
  text.trim().split(/\s+/).map((name) => prefix + name)

const common = names(`
  ABS ACOS ASIN ATAN ATAN2 AVG CEIL CEILING CHAR COALESCE CONCAT CONCAT_WS COS COUNT CUME_DIST CURRENT_DATE
  CURRENT_TIME CURRENT_TIMESTAMP DATE DEGREES DENSE_RANK EXP FIRST_VALUE FLOOR FORMAT GROUP_CONCAT HEX IF IFNULL
  INSTR JSON_ARRAY JSON_ARRAY_INSERT JSON_EXTRACT JSON_INSERT JSON_OBJECT JSON_PRETTY JSON_QUOTE JSON_REMOVE
  JSON_REPLACE JSON_SET JSON_TYPE JSON_VALID LAG LAST_VALUE LEAD LENGTH LN LOG LOG10 LOG2 LOWER LTRIM MAX MIN MOD
  NTH_VALUE NTILE NULLIF OCTET_LENGTH PERCENT_RANK PI POW POWER QUOTE RADIANS RANK REPLACE ROUND ROW_NUMBER RTRIM
  SIGN SIN SOUNDEX SQRT SUBSTR SUBSTRING SUM TAN TIME TIMEDIFF TRIM UNHEX UPPER CAST MEDIAN PERCENTILE_CONT
  PERCENTILE_DISC
`)

const mysqlNames = new Set([
  ...common,
  // arithmetic, text, control flow
  ...names(`
    ANY_VALUE ASCII BENCHMARK BIN BIN_TO_UUID BIT_AND BIT_COUNT BIT_LENGTH BIT_OR BIT_XOR CHARACTER_LENGTH CHARSET
    CHAR_LENGTH CHR COERCIBILITY COLLATION CONV CONVERT COT CRC32 CRC32C DEFAULT ELT EXPORT_SET FIELD FIND_IN_SET
    FORMAT_BYTES FORMAT_PICO_TIME GREATEST GROUPING INSERT INTERVAL ISNULL LCASE LEAST LEFT LENGTHB LOCATE LPAD
    MAKE_SET MID NAME_CONST NATURAL_SORT_KEY NVL NVL2 OCT ORD POSITION RAND REGEXP_INSTR REGEXP_LIKE REGEXP_REPLACE
    REGEXP_SUBSTR REPEAT REVERSE RIGHT ROWNUM RPAD SFORMAT SPACE STD STDDEV STDDEV_POP STDDEV_SAMP STRCMP
    SUBSTRING_INDEX TO_BASE64 FROM_BASE64 TO_CHAR TRUNCATE UCASE VALUES VARIANCE VAR_POP VAR_SAMP WEIGHT_STRING
  `),
  // dates
  ...names(`
    ADDDATE ADDTIME ADD_MONTHS CONVERT_TZ CURDATE CURTIME DATEDIFF DATE_ADD DATE_FORMAT DATE_SUB DAY DAYNAME
    DAYOFMONTH DAYOFWEEK DAYOFYEAR EXTRACT FROM_DAYS FROM_UNIXTIME GET_FORMAT HOUR LAST_DAY LOCALTIME LOCALTIMESTAMP
    MAKEDATE MAKETIME MICROSECOND MINUTE MONTH MONTHNAME NOW PERIOD_ADD PERIOD_DIFF QUARTER SECOND SEC_TO_TIME
    STR_TO_DATE SUBDATE SUBTIME SYSDATE TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF TIME_FORMAT TIME_TO_SEC TO_DAYS
    TO_SECONDS UNIX_TIMESTAMP UTC_DATE UTC_TIME UTC_TIMESTAMP WEEK WEEKDAY WEEKOFYEAR YEAR YEARWEEK
  `),
  // JSON, XML, dynamic columns, vectors
  ...names(`
    COLUMN_ADD COLUMN_CHECK COLUMN_CREATE COLUMN_DELETE COLUMN_EXISTS COLUMN_GET COLUMN_JSON COLUMN_LIST
    EXTRACTVALUE JSON_ARRAYAGG JSON_ARRAY_APPEND JSON_ARRAY_INTERSECT JSON_COMPACT JSON_CONTAINS JSON_CONTAINS_PATH
    JSON_DEPTH JSON_DETAILED JSON_EQUALS JSON_EXISTS JSON_KEYS JSON_KEY_VALUE JSON_LENGTH JSON_LOOSE JSON_MERGE
    JSON_MERGE_PATCH JSON_MERGE_PRESERVE JSON_NORMALIZE JSON_OBJECTAGG JSON_OBJECT_FILTER_KEYS JSON_OBJECT_TO_ARRAY
    JSON_OVERLAPS JSON_QUERY JSON_SCHEMA_VALID JSON_SCHEMA_VALIDATION_REPORT JSON_SEARCH JSON_STORAGE_FREE
    JSON_STORAGE_SIZE JSON_TABLE JSON_UNQUOTE JSON_VALUE UPDATEXML STRING_TO_VECTOR TO_VECTOR VECTOR_DIM
    VECTOR_TO_STRING VEC_DISTANCE VEC_DISTANCE_COSINE VEC_DISTANCE_EUCLIDEAN VEC_FROMTEXT VEC_TOTEXT
  `),
  // identity, encryption, network, replication; IS_USED_LOCK and IS_FREE_LOCK only look
  ...names(`
    AES_DECRYPT AES_ENCRYPT COMPRESS CONNECTION_ID CURRENT_ROLE CURRENT_USER DATABASE DECODE DES_DECRYPT DES_ENCRYPT
    ENCODE ENCRYPT GTID_SUBSET GTID_SUBTRACT ICU_VERSION INET6_ATON INET6_NTOA INET_ATON INET_NTOA IS_FREE_LOCK
    IS_IPV4 IS_IPV4_COMPAT IS_IPV4_MAPPED IS_IPV6 IS_USED_LOCK IS_UUID KDF LOAD_FILE MD5 MASTER_GTID_WAIT
    MASTER_POS_WAIT OLD_PASSWORD PASSWORD PS_CURRENT_THREAD_ID PS_THREAD_ID RANDOM_BYTES ROLES_GRAPHML SCHEMA
    SESSION_USER SHA SHA1 SHA2 SLEEP SOURCE_POS_WAIT STATEMENT_DIGEST STATEMENT_DIGEST_TEXT SYSTEM_USER SYS_GUID
    UNCOMPRESS UNCOMPRESSED_LENGTH USER UUID UUID_SHORT UUID_TO_BIN UUID_V4 UUID_V7 VALIDATE_PASSWORD_STRENGTH
    VERSION WAIT_FOR_EXECUTED_GTID_SET WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS
  `),
  // geometry
  ...names(`
    GEOMETRYCOLLECTION LINESTRING MULTILINESTRING MULTIPOINT MULTIPOLYGON POINT POLYGON MBRCONTAINS MBRCOVEREDBY
    MBRCOVERS MBRDISJOINT MBREQUAL MBREQUALS MBRINTERSECTS MBROVERLAPS MBRTOUCHES MBRWITHIN
  `),
  ...names(
    `
      AREA ASBINARY ASGEOJSON ASTEXT ASWKB ASWKT BOUNDARY BUFFER BUFFER_STRATEGY CENTROID COLLECT CONTAINS
      CONVEXHULL CROSSES DIFFERENCE DIMENSION DISJOINT DISTANCE DISTANCE_SPHERE ENDPOINT ENVELOPE EQUALS
      EXTERIORRING FRECHETDISTANCE GEOHASH GEOMCOLLFROMTEXT GEOMCOLLFROMWKB GEOMETRYFROMTEXT GEOMETRYFROMWKB
      GEOMETRYN GEOMETRYTYPE GEOMFROMGEOJSON GEOMFROMTEXT GEOMFROMWKB HAUSDORFFDISTANCE INTERIORRINGN INTERSECTION
      INTERSECTS ISCLOSED ISEMPTY ISRING ISSIMPLE ISVALID LATFROMGEOHASH LATITUDE LENGTH LINEFROMTEXT LINEFROMWKB
      LINEINTERPOLATEPOINT LINESTRINGFROMTEXT LONGFROMGEOHASH LONGITUDE MAKEENVELOPE MLINEFROMTEXT MPOINTFROMTEXT
      MPOLYFROMTEXT NUMGEOMETRIES NUMINTERIORRING NUMINTERIORRINGS NUMPOINTS OVERLAPS POINTATDISTANCE
      POINTFROMGEOHASH POINTFROMTEXT POINTFROMWKB POINTN POINTONSURFACE POLYFROMTEXT POLYFROMWKB POLYGONFROMTEXT
      RELATE SIMPLIFY SRID STARTPOINT SWAPXY SYMDIFFERENCE TOUCHES TRANSFORM UNION VALIDATE WITHIN X Y
    `,
    "ST_"
  )
])

// Not here: load_extension, fts3_tokenizer and sqlite_log, which do more than compute.
const sqliteNames = new Set([
  ...common,
  ...names(`
    ACOSH ASINH ATANH BM25 COSH DATETIME GLOB HIGHLIGHT IIF JSON JSONB JSONB_ARRAY JSONB_ARRAY_INSERT JSONB_EXTRACT
    JSONB_GROUP_ARRAY JSONB_GROUP_OBJECT JSONB_INSERT JSONB_OBJECT JSONB_PATCH JSONB_REMOVE JSONB_REPLACE JSONB_SET
    JSON_ARRAY_LENGTH JSON_EACH JSON_TREE JSONB_EACH JSONB_TREE JSON_ERROR_POSITION JSON_GROUP_ARRAY
    JSON_GROUP_OBJECT JSON_PATCH JULIANDAY LIKE LIKELIHOOD LIKELY MATCHINFO OFFSETS PRINTF RANDOM RANDOMBLOB SINH
    SNIPPET SQLITE_COMPILEOPTION_GET SQLITE_COMPILEOPTION_USED SQLITE_OFFSET SQLITE_SOURCE_ID SQLITE_VERSION
    STRFTIME STRING_AGG SUBTYPE TANH TOTAL TRUNC TYPEOF UNICODE UNISTR UNISTR_QUOTE UNIXEPOCH UNLIKELY ZEROBLOB
    RAISE GENERATE_SERIES
  `),
  ...names(
    "FUNCTION_LIST FOREIGN_KEY_LIST INDEX_INFO INDEX_LIST INDEX_XINFO TABLE_INFO TABLE_LIST TABLE_XINFO",
    "PRAGMA_"
  )
])

// Reserved in every version, so that no function can have the name unquoted; and types that take a length.
const grammar = new Set(names(`
  ALL AND AS BETWEEN BINARY BY CASE CHECK CROSS DISTINCT DISTINCTROW DIV ELSE EXISTS FROM GROUP HAVING IN INDEX INNER
  IS JOIN KEY LIKE LIMIT MATCH NOT ON OR PARTITION REGEXP RLIKE ROW SELECT SET STRAIGHT_JOIN THEN UNION USING VALUES
  WHEN WHERE XOR DECIMAL DOUBLE FLOAT NUMERIC VARBINARY VARCHAR
`))

const mysqlEffects: ReadonlyMap<string, CallEffect> = new Map([
  ["GET_LOCK", "lock"],
  ["RELEASE_LOCK", "lock"],
  ["RELEASE_ALL_LOCKS", "lock"],
  ["NEXTVAL", "sequence"],
  ["SETVAL", "sequence"],
  ["LASTVAL", "readsOutcome"],
  ["LAST_INSERT_ID", "readsInsertId"],
  ["FOUND_ROWS", "readsOutcome"],
  ["ROW_COUNT", "readsOutcome"]
])

// changes() keeps the count of the last write, however many reads came since, as last_insert_rowid() keeps its row.
const sqliteEffects: ReadonlyMap<string, CallEffect> = new Map([
  ["LAST_INSERT_ROWID", "readsInsertId"],
  ["CHANGES", "readsOutcome"],
  ["TOTAL_CHANGES", "readsOutcome"]
])

// Without IGNORE_SPACE, MySQL knows these only directly before the parenthesis: `count (x)` calls a stored function.
const needsNoSpace = new Set(names(`
  ADDDATE BIT_AND BIT_OR BIT_XOR CAST COUNT CURDATE CURTIME DATE_ADD DATE_SUB EXTRACT GROUP_CONCAT MAX MID MIN NOW
  POSITION SESSION_USER STD STDDEV STDDEV_POP STDDEV_SAMP SUBDATE SUBSTR SUBSTRING SUM SYSDATE SYSTEM_USER TRIM
  VARIANCE VAR_POP VAR_SAMP
`))

const insertHead = new Set(names("INSERT REPLACE LOW_PRIORITY HIGH_PRIORITY DELAYED IGNORE"))

const isName = (token: Token | undefined): boolean => token?.kind === "word" || token?.kind === "quoted"

/** The first token of `a.b.name`, where `last` is `name`. */
const startOfChain = (tokens: ReadonlyArray<Token>, last: number): number => {
  let start = last
  while (isMark(tokens[start - 1], ".")) start -= isName(tokens[start - 2]) ? 2 : 1
  return start
}

/** `WITH name (a, b) AS (`: nothing else has AS and a parenthesis after a closing one. */
const isColumnListOfWith = (tokens: ReadonlyArray<Token>, open: number): boolean => {
  let close = open + 1
  // Only names and commas: so this looks at each token once, however deep the parentheses.
  while (isName(tokens[close]) || isMark(tokens[close], ",")) close++
  if (!isMark(tokens[close], ")") || !isWord(tokens[close + 1], "AS")) return false
  const body = tokens[close + 2]
  return isMark(body, "(") || isWord(body, "MATERIALIZED") || isWord(body, "NOT")
}

/** Whether what stands before a name says that the name is not called. */
const isDeclared = (tokens: ReadonlyArray<Token>, start: number): boolean => {
  const before = tokens[start - 1]
  if (before === undefined) return false
  if (before.kind === "mark") return before.text === ")"
  // After an operand comes an operator, a keyword or an alias, never a call.
  if (before.kind !== "word") return true
  switch (before.text) {
    case "AS":
    case "INTO":
      return true
    case "MEMBER":
      return isWord(tokens[start], "OF")
    case "ON":
      return isWord(tokens[start], "CONFLICT")
    default:
      return start <= 4 && tokens.slice(0, start).every((token) => token.kind === "word" && insertHead.has(token.text))
  }
}

/**
 * What the parenthesis at `open` does, as a call. `tokens` are those of one statement.
 *
 * @internal
 */
export const effectOfCall = (tokens: ReadonlyArray<Token>, open: number, dialect: Dialect): CallEffect => {
  const name = tokens[open - 1]
  if (name === undefined || !isName(name)) return "none"
  const start = startOfChain(tokens, open - 1)
  const qualified = start < open - 1
  if (name.kind === "word" && !qualified && grammar.has(name.text)) return "none"
  const argument = tokens[open + 1]
  // A subquery is never an argument without parentheses of its own: ANY (SELECT, LATERAL (SELECT.
  if (isDeclared(tokens, start) || isWord(argument, "SELECT") || isWord(argument, "WITH")) return "none"
  const effect = (dialect === "mysql" ? mysqlEffects : sqliteEffects).get(name.text)
  if (effect !== undefined && !qualified) {
    if (effect !== "readsInsertId" || isMark(argument, ")")) return effect
    if (name.text === "LAST_INSERT_ID") return "setsInsertId"
  }
  const known = (dialect === "mysql" ? mysqlNames : sqliteNames).has(name.text)
  const adjacent = dialect === "sqlite" || name.end === tokens[open]?.start || !needsNoSpace.has(name.text)
  // Quoted, a name that is also a keyword means a stored function, so no quoted name is trusted.
  if (known && adjacent && !qualified && name.kind === "word") return "none"
  return isColumnListOfWith(tokens, open) ? "none" : "unknown"
}

/**
 * SQLite's pragmas that only tell a value, as long as none is given.
 *
 * @internal
 */
export const pragmaValues: ReadonlySet<string> = new Set(names(`
  ANALYSIS_LIMIT APPLICATION_ID AUTO_VACUUM AUTOMATIC_INDEX BUSY_TIMEOUT CACHE_SIZE CACHE_SPILL CELL_SIZE_CHECK
  CHECKPOINT_FULLFSYNC COLLATION_LIST COMPILE_OPTIONS DATA_VERSION DATABASE_LIST DEFER_FOREIGN_KEYS ENCODING
  FOREIGN_KEYS FREELIST_COUNT FULLFSYNC FUNCTION_LIST HARD_HEAP_LIMIT IGNORE_CHECK_CONSTRAINTS JOURNAL_MODE
  JOURNAL_SIZE_LIMIT LEGACY_ALTER_TABLE LOCKING_MODE MAX_PAGE_COUNT MMAP_SIZE MODULE_LIST PAGE_COUNT PAGE_SIZE
  PRAGMA_LIST QUERY_ONLY READ_UNCOMMITTED RECURSIVE_TRIGGERS REVERSE_UNORDERED_SELECTS SCHEMA_VERSION SECURE_DELETE
  SOFT_HEAP_LIMIT SYNCHRONOUS TEMP_STORE THREADS TRUSTED_SCHEMA USER_VERSION WAL_AUTOCHECKPOINT WRITABLE_SCHEMA
`))

/**
 * SQLite's pragmas whose argument says what to look at, not what to set.
 *
 * @internal
 */
export const pragmaReports: ReadonlySet<string> = new Set(names(`
  TABLE_INFO TABLE_XINFO TABLE_LIST INDEX_INFO INDEX_LIST INDEX_XINFO FOREIGN_KEY_LIST FOREIGN_KEY_CHECK
  INTEGRITY_CHECK QUICK_CHECK
`))
