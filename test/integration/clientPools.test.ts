/** Several clients and several pools, batches of resolvers in transactions, and what errors hold. */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as SqlResolver from "@effect/sql/SqlResolver"
import { describe, expect, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Str from "effect/String"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as DbClient from "../../src/DbClient.js"
import * as DbError from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import { failure } from "../support/bothDatabases.js"
import { type DbFixture, withDb, withFixture, withLayer } from "../support/dbFixture.js"

type Client = SqlClient.SqlClient
type Error = SqlError | DbError.DbError

const idOf = (sql: Client) => Effect.map(sql<{ id: number }>`SELECT CONNECTION_ID() AS id`, (found) => found[0]?.id)
const items = (sql: Client) =>
  Effect.map(sql<{ id: number }>`SELECT id FROM items ORDER BY id`, (found) => found.map(({ id }) => id))
const create = (sql: Client) => sql`CREATE TABLE items (id INT PRIMARY KEY)`
const add = (sql: Client, id: number) => sql`INSERT INTO items VALUES (${id})`
/** What another fiber sees, which has a connection of its own. */
const elsewhere = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.flatMap(Effect.fork(effect), Fiber.join)
const tag = SqlClient.TransactionConnection

const onServer = (
  test: (sql: Client, db: Db.DbService, fixture: DbFixture) => Effect.Effect<void, Error, DbLayer.Services>,
  poolSize = 3
) =>
  withDb({ poolSize, acquireTimeout: "5 seconds" }, (fixture) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* create(sql)
      yield* test(sql, yield* Db.Db, fixture)
    }))

describe("a pool's client", () => {
  /** Two databases, each with a client of its own. */
  const onTwo = (test: (a: Client, b: Client) => Effect.Effect<void, Error>) =>
    onServer((a) =>
      withFixture((second) =>
        withLayer(
          { url: second.url, poolSize: 3 },
          Effect.gen(function*() {
            const b = yield* SqlClient.SqlClient
            yield* create(b)
            yield* test(a, b)
          })
        )
      )
    )

  it.live("ignores another pool's transaction", () =>
    onTwo((a, b) =>
      Effect.gen(function*() {
        const both = Effect.zipRight(add(a, 1), add(b, 1))
        expect(yield* failure(a.withTransaction(Effect.zipRight(both, Effect.fail("undone"))))).toBe("undone")
        expect(yield* items(a)).toEqual([])
        expect(yield* items(b)).toEqual([1])
      })
    ))

  it.live("finds its own transaction again inside another pool's", () =>
    onTwo((a, b) =>
      Effect.gen(function*() {
        const inner = b.withTransaction(Effect.gen(function*() {
          yield* add(a, 2)
          yield* add(b, 2)
          expect(yield* failure(a.withTransaction(Effect.zipRight(add(a, 3), Effect.fail("nested"))))).toBe("nested")
          expect(yield* items(a)).toEqual([1, 2])
        }))
        const all = a.withTransaction(Effect.gen(function*() {
          yield* add(a, 1)
          const id = yield* idOf(a)
          yield* inner
          expect(yield* b.withTransaction(idOf(a))).toBe(id)
          return yield* Effect.fail("undone")
        }))
        expect(yield* failure(all)).toBe("undone")
        expect(yield* items(a)).toEqual([])
        expect(yield* items(b)).toEqual([2])
      })
    ))

  it.live("shares transactions and connections with every other on its pool, each with its own names", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const pool = yield* ConnectionPool.ConnectionPool
        const camel = yield* DbClient.make(pool, {
          transformQueryNames: Str.camelToSnake,
          transformResultNames: Str.snakeToCamel
        })
        const upper = yield* DbClient.make(pool, { transformResultNames: Str.toUpperCase })
        const asked = "SELECT 1 AS the_one"
        expect(yield* camel.unsafe(asked)).toEqual([{ theOne: 1 }])
        expect(yield* upper.unsafe(asked)).toEqual([{ THE_ONE: 1 }])
        expect(yield* sql.unsafe(asked)).toEqual([{ the_one: 1 }])
        const id = yield* idOf(sql)
        expect(yield* camel`SELECT CONNECTION_ID() AS id`).toEqual([{ id }])
        const undone = camel.withTransaction(Effect.gen(function*() {
          yield* add(camel, 1)
          yield* upper.withTransaction(add(upper, 2))
          expect(yield* items(sql)).toEqual([1, 2])
          return yield* Effect.fail("undone")
        }))
        expect(yield* failure(undone)).toBe("undone")
        expect(yield* items(sql)).toEqual([])
      }).pipe(Effect.provide(Reactivity.layer))
    ))

  it.live("has a tag of its own for a named database", () =>
    withFixture((fixture) => {
      const variables = new Map([["DB_REPORTS_URL", Redacted.value(fixture.url)]])
      const layer = Layer.provide(
        DbLayer.config("reports"),
        Layer.setConfigProvider(ConfigProvider.fromMap(variables))
      )
      return Effect.gen(function*() {
        const sql = yield* DbClient.tag("reports")
        const db = yield* Db.tag("reports")
        const id = yield* idOf(sql)
        expect(yield* db.value("SELECT CONNECTION_ID()")).toEqual(Option.some(id))
        expect(yield* sql`SELECT DATABASE() AS name`).toEqual([{ name: fixture.database }])
      }).pipe(Effect.provide(layer))
    }))
})

describe("a resolver", () => {
  it.live("runs its batch in the transaction of its requests, nested transactions included", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const ids: Array<number | undefined> = []
        const Insert = yield* SqlResolver.void("Insert", {
          Request: Schema.Number,
          execute: (requests) =>
            sql.withTransaction(Effect.gen(function*() {
              ids.push(yield* idOf(sql))
              expect(yield* failure(sql.withTransaction(Effect.zipRight(add(sql, 99), Effect.fail("nested"))))).toBe(
                "nested"
              )
              return yield* Effect.forEach(requests, (id) => add(sql, id))
            })).pipe(Effect.orDie)
        })
        const insert = Effect.forEach([1, 2, 3], (id) => Effect.orDie(Insert.execute(id)), { batching: true })
        const undone = sql.withTransaction(Effect.gen(function*() {
          const id = yield* idOf(sql)
          yield* insert
          expect(ids).toEqual([id])
          expect(yield* items(sql)).toEqual([1, 2, 3])
          return yield* Effect.fail("undone")
        }))
        expect(yield* failure(undone)).toBe("undone")
        expect(yield* items(sql)).toEqual([])
        yield* sql.withTransaction(insert)
        expect(yield* elsewhere(items(sql))).toEqual([1, 2, 3])
      })
    ))

  it.live("or any other fiber that knows nothing but TransactionConnection is in the transaction", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        const undone = db.transaction(Effect.gen(function*() {
          const id = yield* idOf(sql)
          const connection = Option.getOrThrow(yield* Effect.serviceOption(tag))
          const alone = <A, E>(effect: Effect.Effect<A, E>) =>
            Effect.promise(() => Effect.runPromise(Effect.provideService(effect, tag, connection)))
          expect(yield* alone(idOf(sql))).toBe(id)
          yield* alone(sql.withTransaction(Effect.zipRight(add(sql, 1), db.execute("INSERT INTO items VALUES (2)"))))
          yield* alone(Effect.flip(sql.withTransaction(Effect.zipRight(add(sql, 3), Effect.fail("nested")))))
          expect(yield* items(sql)).toEqual([1, 2])
          return yield* Effect.fail("undone")
        }))
        expect(yield* failure(undone)).toBe("undone")
        expect(yield* items(sql)).toEqual([])
      })
    ))
})

describe("an error", () => {
  it.live("of the pool says that no connection was had, and holds the pool's own", () =>
    withDb({ poolSize: 1, acquireTimeout: "50 millis" }, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const holding = yield* Deferred.make<void>()
        const end = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(
          Effect.scoped(
            Effect.andThen(sql.reserve, Effect.zipRight(Deferred.succeed(holding, undefined), Deferred.await(end)))
          )
        )
        yield* Deferred.await(holding)
        const runs: ReadonlyArray<Effect.Effect<unknown, SqlError>> = [
          sql`SELECT 1`,
          sql`SELECT 1`.unprepared,
          sql.withTransaction(Effect.void),
          Effect.scoped(sql.reserve)
        ]
        for (const run of runs) {
          const error = yield* failure(run)
          expect(error).toMatchObject({ _tag: "SqlError", message: "Failed to acquire connection" })
          expect(error.cause).toMatchObject({ _tag: "PoolExhausted" })
          expect(DbError.find(error)).toBe(error.cause)
        }
        yield* Deferred.succeed(end, undefined)
        yield* Fiber.join(holder)
        expect(yield* sql`SELECT 1 AS one`).toEqual([{ one: 1 }])
      })))

  it.live("of a statement has the server's number and name, in and out of a transaction", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        yield* add(sql, 1)
        for (const run of [add(sql, 1), add(sql, 1).unprepared, sql.withTransaction(add(sql, 1))]) {
          const error = yield* failure(run)
          expect(error).toMatchObject({ _tag: "SqlError", cause: { code: "ER_DUP_ENTRY", errno: 1062 } })
          expect(DbError.find(error)).toBeInstanceOf(DbError.UniqueViolation)
        }
      })
    ))
})
