/** The types of the columns: as the standard client gives them, and as `Db` does. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import { withDialect } from "../support/bothDatabases.js"
import { withDb } from "../support/dbFixture.js"

type Client = SqlClient.SqlClient

const onServer = (
  test: (sql: Client, db: Db.DbService) => Effect.Effect<void, SqlError | DbError>,
  options: MysqlOptions = {}
) =>
  withDb({ poolSize: 2, ...options }, () =>
    Effect.gen(function*() {
      yield* test(yield* SqlClient.SqlClient, yield* Db.Db)
    }))

/** The one value of the one column, by each form of the client. */
const byEachForm = (sql: Client, text: string) =>
  Effect.gen(function*() {
    const statement = sql.unsafe<{ v: unknown }>(text)
    const streamed = yield* Stream.runCollect(statement.stream)
    const rows = [
      ...(yield* statement),
      ...(yield* statement.unprepared),
      ...((yield* statement.raw) as ReadonlyArray<{ v: unknown }>),
      ...(yield* statement.withoutTransform),
      ...Chunk.toReadonlyArray(streamed)
    ]
    return [...rows.map(({ v }) => v), ...(yield* statement.values).map(([v]) => v)]
  })

interface Kind {
  readonly type: string
  readonly literal: string
  readonly client: unknown
  /** Where it is another than the client's. */
  readonly db?: unknown
}

const moment = (text: string) => new Date(text)

const kinds: ReadonlyArray<Kind> = [
  { type: "DATE", literal: "'2024-02-29'", client: moment("2024-02-29T00:00:00Z"), db: "2024-02-29" },
  { type: "DATE", literal: "'0099-01-01'", client: moment("0099-01-01T00:00:00Z"), db: "0099-01-01" },
  { type: "DATE", literal: "'0000-00-00'", client: "0000-00-00" },
  { type: "DATE", literal: "'2024-00-00'", client: "2024-00-00" },
  { type: "DATE", literal: "'2023-02-31'", client: "2023-02-31" },
  { type: "DATETIME(6)", literal: "'2024-02-29 12:34:56.789999'", client: moment("2024-02-29T12:34:56.789Z") },
  { type: "DATETIME", literal: "'0000-00-00 00:00:00'", client: "0000-00-00 00:00:00" },
  { type: "TIMESTAMP(3)", literal: "'2024-02-29 12:34:56.7'", client: moment("2024-02-29T12:34:56.700Z") },
  { type: "TIMESTAMP", literal: "0", client: "0000-00-00 00:00:00" },
  { type: "TIME", literal: "'-838:59:59'", client: "-838:59:59" },
  { type: "YEAR", literal: "2024", client: 2024 },
  { type: "BIGINT", literal: "9007199254740991", client: 9_007_199_254_740_991 },
  { type: "BIGINT", literal: "-9007199254740993", client: "-9007199254740993", db: -9_007_199_254_740_993n },
  { type: "BIGINT UNSIGNED", literal: "18446744073709551615", client: "18446744073709551615", db: 2n ** 64n - 1n },
  { type: "INT", literal: "-1", client: -1 },
  { type: "BOOLEAN", literal: "TRUE", client: 1 },
  { type: "DECIMAL(20, 10)", literal: "1234567890.0123456789", client: "1234567890.0123456789" },
  { type: "DOUBLE", literal: "0.1", client: 0.1 },
  { type: "JSON", literal: "'{\"a\": [1, null, \"x\"]}'", client: { a: [1, null, "x"] } },
  { type: "BLOB", literal: "x'00275cff'", client: Buffer.from([0, 39, 92, 255]) },
  { type: "VARBINARY(9)", literal: "x''", client: Buffer.alloc(0) },
  { type: "BIT(10)", literal: "b'1000000001'", client: Buffer.from([2, 1]) },
  { type: "VARCHAR(20) CHARACTER SET utf8mb4", literal: "'é😀'", client: "é😀" },
  { type: "ENUM('a', 'b')", literal: "'b'", client: "b" },
  { type: "SET('a', 'b')", literal: "'a,b'", client: "a,b" },
  ...["DATE", "BIGINT", "JSON", "BLOB", "BIT(1)", "DATETIME"].map((type) => ({ type, literal: "NULL", client: null }))
]

describe("a column", () => {
  // zero and impossible dates have to be let in first
  const lenient = { initialSql: ["SET sql_mode = 'ALLOW_INVALID_DATES'"] }

  for (const { client, literal, type, ...rest } of kinds) {
    it.live(`${type} holds ${literal}, in every form the same`, () =>
      onServer((sql, db) =>
        Effect.gen(function*() {
          yield* sql.unsafe(`CREATE TABLE kinds (v ${type} NULL)`)
          yield* sql.unsafe(`INSERT INTO kinds VALUES (${literal})`)
          const found = yield* byEachForm(sql, "SELECT v FROM kinds")
          expect(found).toEqual(Array.from({ length: 6 }, () => client))
          const expected = "db" in rest ? rest.db : client
          expect(yield* db.value("SELECT v FROM kinds")).toEqual(Option.some(expected))
          const streamed = yield* Stream.runCollect(db.stream("SELECT v FROM kinds"))
          expect(Chunk.toReadonlyArray(streamed)).toEqual([{ v: expected }])
        }), lenient))
  }

  it.live("of a moment is read in the session's zone, and a DATE is midnight there", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const texts = ["TIMESTAMP '2024-03-01 00:30:00'", "DATE '2024-03-01'", "FROM_UNIXTIME(1709245800)"]
        const expected = ["2024-02-29T22:30:00Z", "2024-02-29T22:00:00Z", "2024-02-29T22:30:00Z"]
        for (const [at, text] of texts.entries()) {
          const found = yield* byEachForm(sql, `SELECT ${text} AS v`)
          expect(found).toEqual(Array.from({ length: 6 }, () => new Date(expected[at] ?? "")))
        }
        const [now] = yield* sql<{ v: Date }>`SELECT NOW() AS v`
        const [stamp] = yield* sql<{ v: number }>`SELECT UNIX_TIMESTAMP() AS v`
        expect(Math.abs(Number(now?.v) / 1000 - Number(stamp?.v))).toBeLessThanOrEqual(5)
      }), { timeZone: "+02:00" }))

  it.live("of JSON that the server has cut off is text, and the connection lives on", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE docs (body JSON)`
        yield* sql`INSERT INTO docs ${sql.insert([{ body: { a: "x".repeat(40) } }, { body: [1, 2, 3] }])}`
        const [id] = yield* byEachForm(sql, "SELECT CONNECTION_ID() AS v")
        yield* sql`SET group_concat_max_len = 10`
        const found = yield* byEachForm(sql, "SELECT JSON_ARRAYAGG(body) AS v FROM docs")
        for (const value of found) expect(typeof value === "string" || Array.isArray(value)).toBe(true)
        expect(yield* byEachForm(sql, "SELECT CONNECTION_ID() AS v")).toContain(id)
      })
    ))

  it.live("that is written by one and read by the other is the same", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE both_ways (n BIGINT, t DATETIME(3), j JSON, b BLOB)`
        const row = { n: 2n ** 60n, t: new Date("2024-02-29T12:34:56.789Z"), j: { a: [1] }, b: Buffer.from([1, 0]) }
        yield* sql`INSERT INTO both_ways ${sql.insert(row)}`
        yield* sql`INSERT INTO both_ways ${sql.insert(row)}`.unprepared
        yield* db.execute("INSERT INTO both_ways VALUES (?, ?, ?, ?)", Object.values(row))
        expect(yield* db.dictionaries("SELECT * FROM both_ways")).toEqual([row, row, row])
        const read = { ...row, n: String(row.n) }
        expect(yield* sql`SELECT * FROM both_ways`).toEqual([read, read, read])
        expect(yield* sql`SELECT COUNT(*) AS n FROM both_ways WHERE n = ${read.n} AND t = ${row.t}`).toEqual([{ n: 3 }])
      })
    ))
})

describe("on SQLite", () => {
  it.live("a value is the same by the client and by Db", () =>
    withDialect(
      "sqlite",
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const db = yield* Db.Db
        const values = [1, 1.5, "x", null, 2n ** 60n, Buffer.from([1, 0])]
        for (const value of values) {
          const [row] = yield* sql<{ v: unknown }>`SELECT ${value} AS v`
          expect(row?.v).toEqual(value instanceof Buffer ? new Uint8Array(value) : value)
          expect(yield* db.value("SELECT ?", [value])).toEqual(Option.some(row?.v))
        }
        const [sent] = yield* sql`SELECT ${true} AS b, ${new Date(0)} AS d, ${{ a: [1] }} AS j`
        expect(sent).toEqual({ b: 1, d: "1970-01-01T00:00:00.000Z", j: "{\"a\":[1]}" })
        yield* sql`CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)`
        expect(yield* sql`INSERT INTO t (v) VALUES ('a'), ('b')`.raw).toEqual({ changes: 2, lastInsertRowid: 2 })
      })
    ))
})
