/** What is known of the session after several statements in one text, and after what failed. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import { failure } from "../support/bothDatabases.js"
import { type DbFixture, eventually, withDb } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"

type Client = SqlClient.SqlClient
type Test = (
  sql: Client,
  db: Db.DbService,
  fixture: DbFixture
) => Effect.Effect<void, SqlError | DbError.DbError, DbLayer.Services>

const onServer = (test: Test, options: MysqlOptions = {}) =>
  withDb({ poolSize: 2, acquireTimeout: "5 seconds", ...options }, (fixture) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50)) ENGINE = InnoDB`
      yield* test(sql, yield* Db.Db, fixture)
    }))

const names = (sql: Client) =>
  Effect.map(sql<{ name: string }>`SELECT name FROM items ORDER BY id`, (found) => found.map(({ name }) => name))
const stateOf = (db: Db.DbService) => Effect.map(db.currentConnection, (current) => Option.getOrThrow(current).session)
const refusal = <A, E>(effect: Effect.Effect<A, E>) => Effect.map(failure(effect), DbError.find)

describe("the session", () => {
  it.live("is clean after statements that leave nothing, and the connection goes back without a reset", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        const child = yield* Effect.fork(Effect.gen(function*() {
          const text = "INSERT INTO items (name) VALUES (?); SELECT LAST_INSERT_ID() AS id; UPDATE items SET name = 'b'"
          expect(yield* sql.unsafe(text, ["a"]).unprepared).toMatchObject([{ insertId: 1 }, [{ id: 1 }], {}])
          expect(yield* stateOf(db)).toBe("clean")
          yield* sql.unsafe("SELECT ?", ["x"]).unprepared
          expect(yield* stateOf(db)).toBe("clean")
        }))
        yield* Fiber.join(child)
        yield* eventually("it is back", Effect.map(snapshot, ({ busy, held }) => busy === 0 && held === 1))
        expect((yield* snapshot).resets).toBe(0)
      })
    ))

  for (
    const change of ["SET @x = 1", "CREATE TEMPORARY TABLE t (a INT)", "SELECT GET_LOCK('l', 0)", "SELECT @y := 2"]
  ) {
    it.live.each([
      `${change}; SELECT 1`,
      `SELECT 1; ${change}`,
      `INSERT INTO items (name) VALUES ('a'); ${change}; SELECT nonsense`
    ])("is changed by %s", (text) =>
      onServer((sql, db) =>
        Effect.gen(function*() {
          yield* Effect.ignore(sql.unsafe(text).unprepared)
          expect(yield* stateOf(db)).toBe("changed")
        })
      ))
  }

  it.live.each(["BEGIN; SELECT 1", "SELECT 1; BEGIN", "BEGIN; INSERT INTO items (name) VALUES ('a'); SELECT nonsense"])(
    "is in a transaction after %s",
    (text) =>
      onServer((sql, db) =>
        Effect.gen(function*() {
          yield* Effect.ignore(sql.unsafe(text).unprepared)
          expect(yield* stateOf(db)).toBe("transaction")
          expect(yield* refusal(sql.withTransaction(Effect.void))).toMatchObject({ _tag: "InvalidTransaction" })
          yield* db.releaseFiberConnection
          expect(yield* names(sql)).toEqual([])
        })
      )
  )

  it.live("is not known after a refusal: the fiber need not keep it, and whoever has it next gets it after a reset", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        const child = yield* Effect.fork(Effect.gen(function*() {
          yield* failure(sql.unsafe("INSERT INTO items (name) VALUES ('b'); SELECT nonsense").unprepared)
          expect(yield* stateOf(db)).toBe("unknown")
        }))
        yield* Fiber.join(child)
        yield* eventually("it is back", Effect.map(snapshot, ({ busy, held }) => busy === 0 && held === 1))
        expect((yield* snapshot).resets).toBe(1)
      })
    ))

  it.live("is not pristine after what a trigger or a view did before a statement failed", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        yield* sql.unsafe("CREATE TRIGGER marks BEFORE INSERT ON items FOR EACH ROW SET @mark = NEW.name").unprepared
        yield* sql.unsafe("CREATE FUNCTION marked () RETURNS INT DETERMINISTIC RETURN @mark := 5").unprepared
        yield* sql`CREATE VIEW marking AS SELECT marked() AS mark`
        for (const text of ["INSERT INTO items (name) VALUES ('secret')", "SELECT * FROM marking"]) {
          yield* db.releaseFiberConnection
          expect(yield* refusal(sql.unsafe(`${text}; SELECT nonsense`).unprepared)).toMatchObject({ errno: 1054 })
          expect(yield* stateOf(db)).not.toBe("clean")
          yield* db.releaseFiberConnection
          expect(yield* sql`SELECT @mark AS mark`).toEqual([{ mark: null }])
        }
      })
    ))

  it.live("is not known after what a trigger did before its own statement failed", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        yield* sql.unsafe("CREATE TRIGGER marks BEFORE INSERT ON items FOR EACH ROW SET @mark = NEW.name").unprepared
        yield* sql`INSERT INTO items VALUES (1, 'a')`
        yield* db.releaseFiberConnection
        expect(yield* refusal(sql`INSERT INTO items VALUES (1, 'secret')`)).toMatchObject({ errno: 1062 })
        expect(yield* stateOf(db)).toBe("unknown")
        yield* db.releaseFiberConnection
        expect(yield* sql`SELECT @mark AS mark`).toEqual([{ mark: null }])
      })
    ))

  it.live("is in a transaction after a procedure that began one and failed", () =>
    onServer((sql, db) =>
      Effect.gen(function*() {
        yield* sql.unsafe(
          "CREATE PROCEDURE half () BEGIN START TRANSACTION; INSERT INTO items (name) VALUES ('a'); SELECT * FROM gone; END"
        ).unprepared
        expect(yield* refusal(sql`CALL half()`)).toMatchObject({ errno: 1146 })
        expect(yield* stateOf(db)).toBe("transaction")
        expect(yield* refusal(sql.withTransaction(Effect.void))).toMatchObject({ _tag: "InvalidTransaction" })
        yield* db.releaseFiberConnection
        expect(yield* names(sql)).toEqual([])
      })
    ))
})
