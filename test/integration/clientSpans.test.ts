/** The spans of the standard client: what they say of the database, and what they never say. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlStatement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { inspect } from "node:util"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as DbClient from "../../src/DbClient.js"
import { dialects, failure, withDialect } from "../support/bothDatabases.js"
import { withDb } from "../support/dbFixture.js"
import * as Recording from "../support/recording.js"

/** The spans of the client; whether there was a wait for a connection is none of its business. */
const recording = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Recording.recording(effect), (spans) => spans.filter(({ name }) => name !== "sql.acquire"))

const transactions = (spans: ReadonlyArray<Recording.Recorded>) =>
  spans.filter(({ name }) => name === "sql.transaction")

describe("a statement's span", () => {
  it.live("says which database it is, what is done and by which text", () =>
    withDb({}, (fixture) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const database = {
          "db.system.name": "mysql",
          "server.address": fixture.server.host,
          "server.port": fixture.server.port,
          "db.namespace": fixture.database
        }
        const statement = sql`SELECT ${1} AS one`
        const forms: Record<string, Effect.Effect<unknown, unknown>> = {
          execute: statement,
          executeRaw: statement.raw,
          executeValues: statement.values,
          executeUnprepared: statement.unprepared,
          executeWithoutTransform: statement.withoutTransform,
          executeStream: Stream.runDrain(statement.stream)
        }
        for (const [operation, form] of Object.entries(forms)) {
          expect(yield* recording(form)).toEqual([{
            name: "sql.execute",
            kind: "client",
            parent: undefined,
            attributes: { ...database, "db.operation.name": operation, "db.query.text": "SELECT ? AS one" },
            events: [],
            succeeded: true,
            error: ""
          }])
        }
        const [transaction] = transactions(yield* recording(sql.withTransaction(Effect.void)))
        expect(transaction).toEqual({
          name: "sql.transaction",
          kind: "client",
          parent: undefined,
          attributes: database,
          events: ["db.transaction.commit"],
          succeeded: true,
          error: ""
        })
      })))

  it.live("is the same whether the client runs it or db, but for the name of the client's method", () =>
    withDb({}, (fixture) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const db = yield* Db.Db
        const runs: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          sql`SELECT ${1} AS one`,
          db.value("SELECT ? AS one", [1]),
          Stream.runDrain(db.stream("SELECT ? AS one", [1]))
        ]
        const [[client] = [], ...others] = yield* Effect.forEach(runs, recording)
        const { "db.operation.name": _, ...attributes } = client?.attributes ?? {}
        expect(others).toEqual([[{ ...client, attributes }], [{ ...client, attributes }]])
        const [failing] = yield* recording(db.execute("SELECT * FROM nowhere"))
        expect(failing?.attributes).toMatchObject({
          "db.namespace": fixture.database,
          "error.type": "SqlSyntaxError",
          "db.response.status_code": "1146"
        })
      })))

  it.live("has the attributes that its client was made with", () =>
    withDb({}, () =>
      Effect.gen(function*() {
        const pool = yield* ConnectionPool.ConnectionPool
        const sql = yield* Effect.provide(
          DbClient.make(pool, { spanAttributes: { "peer.service": "people", retries: 2 } }),
          Reactivity.layer
        )
        const spans = yield* recording(sql.withTransaction(sql`SELECT 1`))
        expect(spans).toHaveLength(2)
        for (const { attributes } of spans) expect(attributes).toMatchObject({ "peer.service": "people", retries: 2 })
      })))

  it.live("names SQLite, which is on no server", () =>
    withDialect(
      "sqlite",
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const [span] = yield* recording(sql`SELECT 1`)
        expect(span?.attributes).toMatchObject({ "db.system.name": "sqlite" })
        expect(Object.keys(span?.attributes ?? {})).not.toContain("server.address")
      })
    ))

  it.live.each(dialects)("ends as its statement does, under the span around it (%s)", (dialect) =>
    withDialect(
      dialect,
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const spans = yield* recording(Effect.withSpan(Effect.either(sql`SELECT * FROM nowhere`), "mine"))
        expect(spans.map(({ name, parent, succeeded }) => [name, parent, succeeded])).toEqual([
          ["sql.execute", "mine", false],
          ["mine", undefined, true]
        ])
      })
    ))

  it.live("is handed to a transformer", () =>
    withDb({}, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const marked = SqlStatement.withTransformer(
          sql`SELECT 1`,
          (self, make, _, span) =>
            Effect.sync(() => {
              span.attribute("marked", true)
              return make`/* marked */ ${self}`
            })
        )
        const [span] = yield* recording(marked)
        expect(span?.attributes).toMatchObject({ marked: true, "db.query.text": "/* marked */ SELECT 1" })
      })))
})

describe("a transaction's span", () => {
  it.live.each(dialects)("tells its end, and is above what runs inside (%s)", (dialect) =>
    withDialect(
      dialect,
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const ends = (effect: Effect.Effect<unknown, unknown>) =>
          Effect.map(recording(effect), (spans) =>
            transactions(spans).map(({ events, parent, succeeded }) => [...events, parent, succeeded]))
        expect(yield* ends(sql.withTransaction(sql`SELECT 1`))).toEqual([["db.transaction.commit", undefined, true]])
        expect(yield* ends(sql.withTransaction(Effect.fail("x")))).toEqual([
          ["db.transaction.rollback", undefined, false]
        ])
        expect(yield* ends(sql.withTransaction(Effect.interrupt))).toEqual([
          ["db.transaction.rollback", undefined, false]
        ])
        expect(yield* ends(sql.withTransaction(sql.withTransaction(sql`SELECT 1`)))).toEqual([
          ["db.transaction.savepoint", "sql.transaction", true],
          ["db.transaction.commit", undefined, true]
        ])
        expect(yield* ends(sql.withTransaction(Effect.either(sql.withTransaction(Effect.fail("x")))))).toEqual([
          ["db.transaction.rollback", "sql.transaction", false],
          ["db.transaction.commit", undefined, true]
        ])
        const spans = yield* recording(sql.withTransaction(sql`SELECT 1`))
        expect(spans[0]).toMatchObject({ name: "sql.execute", parent: "sql.transaction" })
      })
    ))

  it.live.each(dialects)("is nested in one that db.transaction has opened (%s)", (dialect) =>
    withDialect(
      dialect,
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const db = yield* Db.Db
        const [span] = transactions(yield* recording(db.transaction(sql.withTransaction(sql`SELECT 1`))))
        expect(span?.events).toEqual(["db.transaction.savepoint"])
      })
    ))

  it.live("tells of no commit that the database has refused", () =>
    withDialect(
      "sqlite",
      {},
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE a (id INTEGER PRIMARY KEY)`
        yield* sql`CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)`
        const refused = sql.withTransaction(sql`INSERT INTO b VALUES (1)`)
        const [span] = transactions(yield* recording(refused))
        expect(span).toMatchObject({ events: ["db.transaction.rollback"], succeeded: false })
        expect(yield* failure(refused)).toMatchObject({ _tag: "SqlError" })
        expect(yield* sql`SELECT * FROM b`).toEqual([])
      })
    ))
})

describe("no span", () => {
  it.live("holds the value of a parameter or the password, whatever goes wrong", () =>
    withDb({ poolSize: 2 }, (fixture) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const { password } = new URL(Redacted.value(fixture.url))
        yield* sql`CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(9) UNIQUE)`
        const value = "s3cr3t"
        const insert = sql`INSERT INTO items ${sql.insert({ id: 1, name: value })}`
        const runs: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          insert,
          insert,
          insert.unprepared,
          sql.unsafe("SELECT ?; INSERT INTO items VALUES (2, ?)", [value, value]).unprepared,
          sql.withTransaction(Effect.zipRight(sql`SELECT * FROM items WHERE name = ${value}`, insert)),
          sql`INSERT INTO items VALUES (${value}, 'x')`,
          sql.unsafe("SELECT ?, 'x", [value]).unprepared,
          Stream.runDrain(sql`SELECT * FROM nowhere WHERE name = ${value}`.stream)
        ]
        const spans = yield* recording(Effect.forEach(runs, Effect.exit))
        expect(spans.length).toBeGreaterThan(runs.length)
        const said = inspect(spans, { depth: Infinity, maxArrayLength: Infinity })
        expect(said).toContain("UniqueViolation")
        expect(said).not.toContain(value)
        expect(said).not.toContain(password)
      })))
})
