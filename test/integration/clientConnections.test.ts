/** Where a statement of the standard client runs: beside the helpers of `Db`, in transactions, on reserved connections. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import { defect, type Dialect, dialects, failure, withDialect } from "../support/bothDatabases.js"
import { type DbFixture, withDb } from "../support/dbFixture.js"
import { connectionId, snapshot } from "../support/dbQuestions.js"

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

const onEither = (dialect: Dialect, test: (sql: Client, db: Db.DbService) => Effect.Effect<void, Error>) =>
  withDialect(
    dialect,
    { poolSize: 3 },
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* create(sql)
      yield* test(sql, yield* Db.Db)
    })
  )

describe("a statement and a helper", () => {
  it.live("of one fiber use one connection, in every form, and another fiber has its own", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const own = yield* connectionId
        const asked = sql<{ id: number }>`SELECT CONNECTION_ID() AS id`
        expect(yield* asked).toEqual([{ id: own }])
        expect(yield* asked.unprepared).toEqual([{ id: own }])
        expect(yield* asked.raw).toEqual([{ id: own }])
        expect(yield* asked.values).toEqual([[own]])
        expect(yield* idOf(sql.withoutTransforms())).toBe(own)
        expect(yield* elsewhere(idOf(sql))).not.toBe(own)
        expect((yield* snapshot).created).toBe(2)
      })
    ))

  it.live("share a session, and what it holds", () =>
    onServer((sql, db) =>
      db.session(Effect.gen(function*() {
        yield* sql`SET @x = 5`
        const [found] = yield* elsewhere(sql<{ x: number; id: number }>`SELECT @x AS x, CONNECTION_ID() AS id`)
        expect(found).toEqual({ x: 5, id: yield* connectionId })
        expect(Chunk.toReadonlyArray(yield* Stream.runCollect(sql`SELECT @x AS x`.stream))).toEqual([{ x: 5 }])
      }))
    ))

  it.live.each(dialects)(
    "share a transaction, whichever of the two has opened it (%s)",
    (dialect) =>
      onEither(dialect, (sql, db) =>
        Effect.gen(function*() {
          const count = Effect.map(db.value("SELECT COUNT(*) FROM items"), Option.getOrThrow)
          yield* db.transaction(Effect.gen(function*() {
            yield* add(sql, 1)
            expect(yield* count).toBe(1)
            yield* sql.withTransaction(add(sql, 2))
          }))
          yield* sql.withTransaction(Effect.gen(function*() {
            yield* db.execute("INSERT INTO items VALUES (3)")
            expect(yield* items(sql)).toEqual([1, 2, 3])
            yield* db.transaction(db.execute("INSERT INTO items VALUES (4)"))
          }))
          expect(yield* elsewhere(items(sql))).toEqual([1, 2, 3, 4])
          const outer = yield* failure(db.transaction(Effect.zipRight(add(sql, 5), Effect.fail("outer"))))
          expect(outer).toBe("outer")
          expect(
            yield* failure(sql.withTransaction(
              Effect.zipRight(db.execute("INSERT INTO items VALUES (6)"), Effect.fail("outer"))
            ))
          ).toBe("outer")
          expect(yield* items(sql)).toEqual([1, 2, 3, 4])
        }))
  )

  it.live.each(dialects)(
    "undo a nested transaction alone, whichever is around it (%s)",
    (dialect) =>
      onEither(dialect, (sql, db) =>
        Effect.gen(function*() {
          const inner = (id: number) => Effect.zipRight(add(sql, id), Effect.fail("inner"))
          yield* db.transaction(Effect.gen(function*() {
            yield* add(sql, 1)
            expect(yield* failure(sql.withTransaction(inner(2)))).toBe("inner")
          }))
          yield* sql.withTransaction(Effect.gen(function*() {
            yield* add(sql, 3)
            expect(yield* failure(db.transaction(inner(4)))).toBe("inner")
            expect(yield* failure(sql.withTransaction(inner(5)))).toBe("inner")
          }))
          expect(yield* items(sql)).toEqual([1, 3])
        }))
  )

  it.live.each(dialects)(
    "take neither BEGIN nor COMMIT nor ROLLBACK inside a transaction (%s)",
    (dialect) =>
      onEither(dialect, (sql) =>
        sql.withTransaction(Effect.gen(function*() {
          for (const text of ["BEGIN", "COMMIT", "ROLLBACK"]) {
            for (const run of [sql.unsafe(text), sql.unsafe(text).unprepared, sql.unsafe(text).raw]) {
              expect(DbError.find(yield* failure(run))).toMatchObject({ _tag: "InvalidTransaction" })
            }
          }
        })))
  )
})

describe("sql.reserve", () => {
  it.live("gives a connection of its own for its scope, which keeps its state and takes it along", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const own = yield* idOf(sql)
        const id = yield* Effect.scoped(Effect.gen(function*() {
          const reserved = yield* sql.reserve
          const [[id]] = (yield* reserved.executeValues("SELECT CONNECTION_ID()", [])) as [[number]]
          yield* reserved.execute("CREATE TEMPORARY TABLE picked (id INT)", [], undefined)
          yield* reserved.executeUnprepared("INSERT INTO picked VALUES (?), (2)", [1], undefined)
          yield* reserved.executeRaw("SET @x = 7", [])
          const rows = [{ id: 1, x: 7 }, { id: 2, x: 7 }]
          const text = "SELECT id, @x AS x FROM picked WHERE id < ? ORDER BY id"
          expect(yield* reserved.execute(text, [9], undefined)).toEqual(rows)
          const streamed = yield* Stream.runCollect(reserved.executeStream(text, [9], undefined))
          expect(Chunk.toReadonlyArray(streamed)).toEqual(rows)
          expect(yield* idOf(sql)).toBe(own)
          expect(DbError.find(yield* failure(sql`SELECT * FROM picked`))).toMatchObject({ _tag: "SqlSyntaxError" })
          return id
        }))
        expect(id).not.toBe(own)
        const [after] = yield* elsewhere(sql<{ x: unknown; id: number }>`SELECT @x AS x, CONNECTION_ID() AS id`)
        expect(after).toEqual({ x: null, id })
      })
    ))

  it.live("is where statements run for whom it is put in TransactionConnection, in a transaction too", () =>
    onServer((sql) =>
      Effect.scoped(Effect.gen(function*() {
        const own = yield* idOf(sql)
        const reserved = yield* sql.reserve
        const there = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, tag, [reserved, 0])
        const id = yield* there(idOf(sql))
        expect(id).not.toBe(own)
        expect(yield* there(elsewhere(idOf(sql)))).toBe(id)
        const streamed = there(Stream.runCollect(sql`SELECT CONNECTION_ID() AS id`.stream))
        expect(Chunk.toReadonlyArray(yield* streamed)).toEqual([{ id }])
        yield* there(sql.withTransaction(Effect.gen(function*() {
          expect(yield* idOf(sql)).toBe(id)
          yield* add(sql, 1)
          expect(yield* failure(sql.withTransaction(Effect.zipRight(add(sql, 2), Effect.fail("inner"))))).toBe("inner")
        })))
        expect(yield* failure(there(sql.withTransaction(Effect.zipRight(add(sql, 3), Effect.fail("outer")))))).toBe(
          "outer"
        )
        expect(yield* there(items(sql))).toEqual([1])
        expect(yield* items(sql)).toEqual([1])
      }))
    ))

  it.live("is of no use to whoever keeps it beyond its scope", () =>
    onServer((sql) =>
      Effect.gen(function*() {
        const reserved = yield* Effect.scoped(sql.reserve)
        expect(yield* defect(reserved.execute("SELECT 1", [], undefined))).toContain("after its release")
        expect(yield* items(sql)).toEqual([])
      })
    ))
})

describe("a stream", () => {
  const rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i FROM n"

  it.live.each(["a transaction", "a reserved connection"])(
    "of %s lets no other statement of it wait behind itself",
    (where) =>
      onServer((sql) => {
        const test = Effect.gen(function*() {
          const refused = yield* Stream.runHead(Stream.mapEffect(sql.unsafe(rows).stream, () => failure(items(sql))))
          const error = Option.getOrThrow(refused)
          expect(error).toMatchObject({ _tag: "SqlError", message: "Failed to execute statement" })
          expect(error.cause).toMatchObject({ _tag: "ConnectionBusy" })
          expect(yield* items(sql)).toEqual([])
        })
        return where === "a transaction"
          ? sql.withTransaction(test)
          : Effect.scoped(Effect.flatMap(sql.reserve, (one) => Effect.provideService(test, tag, [one, 0])))
      })
  )
})
