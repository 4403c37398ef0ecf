/** Unprepared texts: the values written into them, and several statements in one. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import { failure } from "../support/bothDatabases.js"
import { type DbFixture, withDb } from "../support/dbFixture.js"

type Client = SqlClient.SqlClient

const onServer = (
  test: (
    sql: Client,
    fixture: DbFixture,
    db: Db.DbService
  ) => Effect.Effect<void, SqlError | DbError.DbError, DbLayer.Services>,
  options: MysqlOptions = {}
) =>
  withDb({ poolSize: 2, acquireTimeout: "5 seconds", ...options }, (fixture) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50))`
      yield* test(sql, fixture, yield* Db.Db)
    }))

/** What is asked of a parameter, so that a literal and a prepared parameter of different types give the same. */
const questions = {
  string: "HEX(CONVERT(? USING utf8mb4))",
  bytes: "HEX(?)",
  integer: "CAST(? AS CHAR)",
  // not in HEX, which MySQL refuses for a number beyond 64 bits; and a zero in a text has no sign
  number: "CAST(? AS DOUBLE) + 0",
  moment: "CAST(CAST(? AS DATETIME(3)) AS CHAR)",
  any: "?"
} as const

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex").toUpperCase()

/** Many values in one round trip; each is asked for in the same way. After SET NAMES binary every text is bytes. */
const ask = (sql: Client, question: string, values: ReadonlyArray<unknown>, how: "unprepared" | "prepared") => {
  const text = `SELECT ${values.map((_, at) => `${question} AS v${at}`).join(", ")}`
  const statement = sql.unsafe<Record<string, unknown>>(text, values)
  return Effect.map(
    how === "unprepared" ? statement.unprepared : statement,
    ([row]) =>
      Object.values(row ?? {}).map((value) => value instanceof Uint8Array ? Buffer.from(value).toString() : value)
  )
}

const samples = <A>(arbitrary: fc.Arbitrary<A>, numRuns = 150): ReadonlyArray<A> => fc.sample(arbitrary, numRuns)

const awkward = [
  "",
  "'",
  "''",
  "\\",
  "\\'",
  "'\\",
  "\"",
  "`",
  "\0",
  "\x1a",
  "\n\r\t\b",
  "%_",
  "é",
  "😀",
  "\ud800",
  "\udc00x"
]
const injections = [
  "' OR '1'='1",
  "\\' OR 1=1 -- ",
  "'; DROP TABLE items; -- ",
  "\\'; DROP TABLE items; -- ",
  "?",
  ":name",
  "/*! */",
  "*/ ' /*",
  "-- ",
  "#",
  // their last byte in UTF-8 and a backslash or quote after it are one letter in GBK or Shift-JIS
  "你\\",
  "é\\' OR 1=1 -- ",
  "\u00bf' OR 1=1 -- ",
  "縗\\'; DROP TABLE items; -- "
]

const anyString = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({
    unit: fc.constantFrom("'", "\"", "\\", "\0", "`", "?", "é", "你", "😀", "\ud83d", "x", " ", "\x1a", "\n")
  })
)
const strings = () => [...awkward, ...injections, ...samples(anyString)]

const expectStrings = (sql: Client) =>
  Effect.gen(function*() {
    const values = strings()
    const found = yield* ask(sql, questions.string, values, "unprepared")
    // an unpaired surrogate is no letter, and sent as U+FFFD
    expect(values.filter((value, at) => found[at] !== toHex(Buffer.from(value, "utf8")))).toEqual([])
    expect(yield* sql`SELECT COUNT(*) AS n FROM items`).toEqual([{ n: 0 }])
  })

const expectOthers = (sql: Client) =>
  Effect.gen(function*() {
    const same = (question: string, values: ReadonlyArray<unknown>) =>
      Effect.gen(function*() {
        const unprepared = yield* ask(sql, question, values, "unprepared")
        expect(unprepared).toEqual(yield* ask(sql, question, values, "prepared"))
        return unprepared
      })
    const integers = [0, 1, -1, 2 ** 53 - 1, -(2 ** 53 - 1), 0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n - 1n]
    const bigints = samples(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }), 50)
    const whole = [...integers.slice(5), ...bigints]
    expect(yield* same(questions.integer, whole)).toEqual(whole.map(String))
    expect(yield* same(questions.any, whole)).toHaveLength(whole.length)
    const numbers = [...integers.slice(0, 5), 0.1, -0.1, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, 95206838625.75497]
    yield* same(questions.number, [...numbers, ...samples(fc.double({ noNaN: true, noDefaultInfinity: true }), 100)])
    const bytes = [new Uint8Array(0), Buffer.from([0, 39, 92, 34, 255]), ...samples(fc.uint8Array(), 50)]
    expect(yield* same(questions.bytes, bytes)).toEqual(bytes.map(toHex))
    const moments = samples(
      fc.date({ min: new Date("0100-01-01"), max: new Date("9999-12-31"), noInvalidDate: true }),
      50
    )
    expect(yield* same(questions.moment, moments)).toEqual(
      moments.map((moment) => moment.toISOString().replace("T", " ").slice(0, -1))
    )
    const jsons = [{}, [], [1, [2]], { a: "'\\\"", b: [null, true] }, ["' OR '1'='1"]]
    for (const how of ["unprepared", "prepared"] as const) {
      const found = yield* ask(sql, questions.string, jsons, how)
      expect(found.map((hex) => JSON.parse(Buffer.from(String(hex), "hex").toString()))).toEqual(jsons)
    }
    expect(yield* same(questions.any, [true, false, null])).toEqual([1, 0, null])
  })

describe("a value in an unprepared text", () => {
  const modes: Record<string, { readonly sql?: ReadonlyArray<string>; readonly initialSql?: ReadonlyArray<string> }> = {
    "by default": {},
    "under NO_BACKSLASH_ESCAPES": { sql: ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'"] },
    "under ANSI_QUOTES": { sql: ["SET sql_mode = 'ANSI_QUOTES'"] },
    "under both of them": { sql: ["SET sql_mode = 'ANSI,NO_BACKSLASH_ESCAPES'"] },
    "under NO_BACKSLASH_ESCAPES from initialSql": { initialSql: ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'"] },
    "after a procedure has set NO_BACKSLASH_ESCAPES": { sql: ["CALL set_mode()"] },
    "when escapes are on again": {
      sql: ["SET sql_mode = 'NO_BACKSLASH_ESCAPES'", "SET sql_mode = 'STRICT_TRANS_TABLES'"]
    }
  }
  const charsets = ["latin1", "gbk", "sjis", "cp932", "big5", "gb2312", "ujis", "macce", "ascii", "binary", "utf8mb3"]
  for (const charset of charsets) modes[`after SET NAMES ${charset}`] = { sql: [`SET NAMES ${charset}`] }
  modes["after SET CHARACTER SET gbk"] = { sql: ["SET CHARACTER SET gbk"] }

  for (const [name, { initialSql = [], sql: texts = [] }] of Object.entries(modes)) {
    it.live(`is a string of the same bytes ${name}`, () =>
      onServer(
        (sql, _, db) =>
          db.session(Effect.gen(function*() {
            yield* sql.unsafe("CREATE PROCEDURE set_mode () SET @@session.sql_mode = 'NO_BACKSLASH_ESCAPES'").unprepared
            for (const text of texts) yield* sql.unsafe(text)
            yield* expectStrings(sql)
          })),
        { initialSql }
      ))
  }

  it.live("is never sent in another character set than the session's: initialSql may not change that", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        onServer((sql) => Effect.asVoid(sql`SELECT 1`), { initialSql: ["SET NAMES gbk"] })
      )
      expect(DbError.find(error)).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
      expect(DbError.find(error)?.message).toContain("initialSql has set the character set to gbk")
    }))

  for (const name of ["by default", "under NO_BACKSLASH_ESCAPES", "under ANSI_QUOTES", "after SET NAMES gbk"]) {
    it.live(`is the same as in a prepared statement ${name}: numbers, bytes, moments, JSON, truth and NULL`, () =>
      onServer((sql, _, db) =>
        db.session(Effect.gen(function*() {
          for (const text of modes[name]?.sql ?? []) yield* sql.unsafe(text)
          yield* expectOthers(sql)
        }))
      ))
  }

  it.live("is a moment in the session's zone", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const moment = new Date("2024-02-29T12:34:56.789Z")
        const both = yield* sql.unsafe("SELECT CAST(? AS DATETIME(3)) AS at, UNIX_TIMESTAMP(?) AS stamp", [
          moment,
          moment
        ])
          .unprepared
        expect(both).toEqual([{ at: moment, stamp: "1709210096.789" }])
      }), { timeZone: "-11:30" }))

  // What a statement sets, the server reads the rest of the same text by.
  const before: Record<string, string> = {
    "a character set": "SET NAMES gbk",
    "a mode": "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"
  }
  for (const [what, set] of Object.entries(before)) {
    it.live(`is the same after a statement of its own text has set ${what}`, () =>
      onServer((sql) =>
        Effect.gen(function*() {
          const wrong: Array<string> = []
          for (const value of [...injections, "a\\b"]) {
            // each on a connection that is as after connecting
            const exit = yield* Effect.exit(Effect.scoped(Effect.flatMap(sql.reserve, (reserved) =>
              reserved.executeUnprepared(`${set}; SELECT ${questions.string} AS v`, [value], undefined))))
            const [, found] = exit._tag === "Success" ? exit.value : []
            if (JSON.stringify(found) !== JSON.stringify([{ v: toHex(Buffer.from(value)) }])) {
              wrong.push(value)
            }
          }
          expect(wrong).toEqual([])
        })
      ))
  }

  it.live("is never run, whatever the statements before it have set", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE setting (id INT)`
        yield* sql.unsafe("CREATE TRIGGER sets BEFORE INSERT ON setting FOR EACH ROW SET character_set_client = gbk")
          .unprepared
        for (const set of [...Object.values(before), "INSERT INTO setting VALUES (1)"]) {
          for (const value of ["你\\", "a\\", "'", "縗\\'"]) {
            yield* Effect.ignore(
              Effect.scoped(
                Effect.flatMap(
                  sql.reserve,
                  (reserved) =>
                    reserved.executeUnprepared(`${set}; SELECT ?, ?`, [value, "; DROP TABLE items; -- "], undefined)
                )
              )
            )
            expect(yield* sql`SHOW TABLES`, set).toHaveLength(2)
          }
        }
      })
    ))

  it.live("is the same when a statement that set the mode was followed by one that failed", () =>
    onServer((sql, _, db) =>
      db.session(Effect.gen(function*() {
        yield* failure(sql.unsafe("SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SELECT nonsense").unprepared)
        yield* expectStrings(sql)
      }))
    ))
})

describe("an unprepared text", () => {
  it.live("is refused, and not sent, when it is uncertain where its parameters are", () =>
    onServer((sql, _, db) =>
      Effect.gen(function*() {
        const { executed } = yield* counted(sql)
        const texts = [
          "SELECT ?, 'x",
          "SELECT ?, \"x",
          "SELECT ? /* x",
          "SELECT /*!50000 ? */",
          "SELECT /*M! ? */",
          "SELECT /*!99999 ' */ ? /*!99999 ' */",
          "SELECT ? \\"
        ]
        for (const text of texts) {
          const error = DbError.find(yield* failure(sql.unsafe(text, ["v"]).unprepared))
          expect(error, text).toMatchObject({ _tag: "ParameterError" })
          expect(String(error?.message)).not.toContain("'v'")
        }
        expect(yield* executed).toBe(0)
        yield* db.session(Effect.gen(function*() {
          yield* sql`SET sql_mode = 'NO_BACKSLASH_ESCAPES'`
          const error = yield* failure(sql.unsafe("SELECT 'a\\', ?", ["v"]).unprepared)
          expect(DbError.find(error)).toMatchObject({ _tag: "ParameterError" })
          yield* sql`SET sql_mode = 'ANSI_QUOTES'`
          // a name that ends in a backslash; read as by default, what stands in the second name is a parameter
          const hidden = yield* failure(sql.unsafe("SELECT 1 AS \"a\\\", 'x' AS \"?\" -- \"", ["v"]).unprepared)
          expect(DbError.find(hidden)).toMatchObject({ _tag: "ParameterError" })
        }))
      })
    ))

  it.live("needs as many values as it has parameters", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const wrong: ReadonlyArray<readonly [string, ReadonlyArray<unknown>]> = [
          ["SELECT ?", []],
          ["SELECT ?, ?", [1]],
          ["SELECT 1", [1]],
          ["SELECT '?', ? -- ?", [1, 2]],
          ["SELECT ?; SELECT ?", [1]]
        ]
        for (const [text, values] of wrong) {
          expect(DbError.find(yield* failure(sql.unsafe(text, values).unprepared))).toMatchObject({
            _tag: "ParameterError"
          })
        }
        expect(yield* sql.unsafe("SELECT '?' AS a, ? AS b -- ?", [2]).unprepared).toEqual([{ a: "?", b: 2 }])
        expect(yield* sql.unsafe("SELECT 5-? AS n, 5 -? AS m", [-3, -3]).unprepared).toEqual([{ n: 8, m: 8 }])
      })
    ))
})

/** How many statements of the connection the server has executed since, this question aside. */
const counted = (sql: Client) =>
  Effect.gen(function*() {
    const questionsAsked = Effect.map(
      sql<{ Value: string }>`SHOW SESSION STATUS LIKE 'Questions'`,
      (found) => Number(found[0]?.Value)
    )
    yield* questionsAsked
    const before = yield* questionsAsked
    return { executed: Effect.map(questionsAsked, (now) => now - before - 1) }
  })
