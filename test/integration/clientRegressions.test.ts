/** What a client of `@effect/sql` shares with `Db`, and what one fiber must never get of another's. */
import { MysqlClient, TypeId as MysqlTypeId } from "@effect/sql-mysql2/MysqlClient"
import { SqlClient } from "@effect/sql/SqlClient"
import * as SqlResolver from "@effect/sql/SqlResolver"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import { failure } from "../support/bothDatabases.js"
import { withDb, withFixture, withLayer } from "../support/dbFixture.js"
import { connectionId, snapshot } from "../support/dbQuestions.js"

const pool = { poolSize: 2, acquireTimeout: "10 seconds" } as const
const one = { ...pool, poolSize: 1 } as const

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const unprepared = (text: string) => Effect.flatMap(SqlClient, (sql) => sql.unsafe(text).unprepared)

/** In a fiber of its own, which gives its connection back. */
const elsewhere = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.flatten(Effect.fork(effect))

describe("a resolver's batch inside of sql.withTransaction", () => {
  const insertInto = (db: Db.DbService, id: number) => db.execute("INSERT INTO items VALUES (?)", [id])
  const ways: Record<string, (db: Db.DbService, id: number) => Effect.Effect<unknown, DbError>> = {
    "db.execute": insertInto,
    "db.transaction": (db, id) => db.transaction(insertInto(db, id)),
    "db.session": (db, id) => db.session(insertInto(db, id)),
    "db.stream, which sees what was written": (db, id) =>
      Effect.zipRight(
        Effect.map(Stream.runCount(db.stream("SELECT * FROM items WHERE id = 0")), (count) => expect(count).toBe(1)),
        insertInto(db, id)
      )
  }
  for (const [what, write] of Object.entries(ways)) {
    it.live(`is in the transaction with ${what}`, () =>
      withDb(pool, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          const sql = yield* SqlClient
          yield* createItems
          const Insert = yield* SqlResolver.void("Insert", {
            Request: Schema.Number,
            execute: (ids) => Effect.orDie(Effect.forEach(ids, (id) => write(db, id)))
          })
          const all = Effect.zipRight(
            insert(0),
            Effect.forEach([1, 2], (id) => Insert.execute(id), { batching: true })
          )
          expect(yield* failure(sql.withTransaction(Effect.zipRight(all, Effect.fail("undo"))))).toBe("undo")
          expect(yield* items).toEqual([])
          yield* sql.withTransaction(all)
          expect(yield* items).toEqual([0, 1, 2])
          expect((yield* snapshot).created).toBe(1)
        })))
  }
})

describe("withoutTransforms", () => {
  it.live("is the whole MysqlClient but for its names: config and type included", () =>
    withFixture(({ url }) =>
      Effect.gen(function*() {
        const sql = yield* MysqlClient
        const plain = sql.withoutTransforms() as MysqlClient
        expect(yield* sql`SELECT 1 AS one`).toEqual([{ ONE: 1 }])
        expect(yield* plain`SELECT 1 AS one`).toEqual([{ one: 1 }])
        expect(plain.config).toBe(sql.config)
        expect(plain.config.database).toEqual(expect.any(String))
        expect(plain[MysqlTypeId]).toBe(MysqlTypeId)
        expect(plain.withoutTransforms()).toBe(plain)
      }).pipe(Effect.provide(DbLayer.mysql({ url, transformResultNames: (name) => name.toUpperCase() })))
    ))
})

describe("another fiber's generated id", () => {
  const createUsers = Effect.flatMap(Db.Db, (db) =>
    Effect.zipRight(
      db.execute("CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE)"),
      db.execute("INSERT INTO users VALUES (1, 'taken')")
    ))
  const own = "SELECT name FROM users WHERE id = LAST_INSERT_ID()"
  const texts: Record<string, readonly [text: string, rows: ReadonlyArray<object>]> = {
    "an INSERT IGNORE of a duplicate": [`INSERT IGNORE INTO users (name) VALUES ('taken'); ${own}`, []],
    "an INSERT with an id of its own": [`INSERT INTO users VALUES (77, 'eve'); ${own}`, []],
    "an INSERT of nothing": [`INSERT INTO users (name) SELECT name FROM users WHERE 1 = 0; ${own}`, []],
    "an INSERT that generates one": [`INSERT INTO users (name) VALUES ('eve'); ${own}`, [{ name: "eve" }]]
  }
  for (const [what, [text, rows]] of Object.entries(texts)) {
    it.live(`is not what ${what} finds in one text`, () =>
      withDb(one, () =>
        Effect.gen(function*() {
          yield* createUsers
          const insertAlice = Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO users (name) VALUES ('alice')"))
          const id = yield* elsewhere(Effect.zipRight(insertAlice, connectionId))
          const [same, results] = yield* elsewhere(Effect.zip(connectionId, unprepared(text)))
          expect(same).toBe(id)
          expect(results).toHaveLength(2)
          expect(results[1]).toEqual(rows)
        })))
  }
})

describe("another fiber's default database", () => {
  for (const text of ["SELECT 1; USE information_schema; SELECT nonsense", "SELECT 1; USE information_schema"]) {
    it.live(`is not the next borrower's of a pool without one, after ${text}`, () =>
      withFixture(({ server: { host, port }, url, user }) =>
        withLayer(
          { ...one, host, port, username: user, password: Redacted.make(new URL(Redacted.value(url)).password) },
          Effect.gen(function*() {
            const current = Effect.flatMap(Db.Db, (db) => db.list<string | null>("SELECT DATABASE()"))
            expect(yield* elsewhere(current)).toEqual([null])
            yield* elsewhere(Effect.ignore(unprepared(text)))
            expect(yield* elsewhere(current)).toEqual([null])
          })
        )
      ))
  }
})

describe("a connection on which the server has been found to be read-only", () => {
  const readOnly = { ...one, initialSql: ["SET SESSION TRANSACTION READ ONLY"] }
  const refused = Effect.map(failure(insert(1)), ({ _tag }) => expect(_tag).toBe("ReadOnlyError"))
  const meet = Effect.zipRight(refused, connectionId)
  const sections: Record<string, Effect.Effect<number, unknown, Db.Db>> = {
    "a transaction": Effect.flatMap(Db.Db, (db) => db.transaction(meet)),
    "a transaction that fails with it": Effect.flatMap(Db.Db, (db) =>
      Effect.gen(function*() {
        let id = 0
        yield* failure(db.transaction(Effect.zipRight(
          Effect.map(connectionId, (found) => {
            id = found
          }),
          insert(1)
        )))
        return id
      })),
    "a session": Effect.flatMap(Db.Db, (db) => db.session(meet)),
    "a transaction in a session": Effect.flatMap(Db.Db, (db) => db.session(db.transaction(meet)))
  }
  const create = Effect.flatMap(
    Db.Db,
    (db) =>
      Effect.zipRight(
        db.session(Effect.zipRight(db.execute("SET SESSION TRANSACTION READ WRITE"), createItems)),
        db.releaseFiberConnection
      )
  )
  for (const [what, use] of Object.entries(sections)) {
    it.live(`is closed after ${what}, instead of serving its fiber or another`, () =>
      withDb(readOnly, () =>
        Effect.gen(function*() {
          yield* create
          const own = yield* use
          expect(yield* connectionId).not.toBe(own)
          const given = yield* elsewhere(use)
          expect(yield* elsewhere(connectionId)).not.toBe(given)
          expect((yield* snapshot).lost).toBe(0)
        })))
  }

  it.live("stays with what its session holds, and is then lent to nobody", () =>
    withDb(readOnly, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* create
        const id = yield* elsewhere(db.session(Effect.gen(function*() {
          yield* db.execute("SET @mine = 7")
          yield* refused
          expect(yield* db.value("SELECT @mine")).toEqual(Option.some(7))
          return yield* connectionId
        })))
        expect(yield* elsewhere(connectionId)).not.toBe(id)
      })))
})

describe("daemons whose statements wait behind the end of their transaction are told at once:", () => {
  /** They ask when the body has ended, each a little later, so that what ends the transaction is with the server. */
  const outlived = (end: Effect.Effect<void, string>) =>
    Effect.gen(function*() {
      const db = yield* Db.Db
      const ended = yield* Deferred.make<void>()
      const daemons: Array<Fiber.Fiber<DbError>> = []
      yield* Effect.ignore(db.transaction(Effect.gen(function*() {
        yield* insert(1)
        for (let yields = 0; yields < 6; yields++) {
          const later = Effect.zipRight(Deferred.await(ended), Effect.repeatN(Effect.yieldNow(), yields))
          daemons.push(yield* Effect.forkDaemon(failure(Effect.zipRight(later, insert(2 + yields)))))
        }
        yield* Deferred.succeed(ended, undefined)
        yield* end
      })))
      return yield* Effect.forEach(daemons, Fiber.join)
    })
  const ends: Record<string, readonly [Effect.Effect<void, string>, left: ReadonlyArray<number>]> = {
    COMMIT: [Effect.void, [1]],
    ROLLBACK: [Effect.fail("undo"), []]
  }
  for (const [what, [end, left]] of Object.entries(ends)) {
    for (const nested of [false, true]) {
      it.live(`${what}${nested ? " of a nested one" : ""}`, () =>
        withDb({ ...pool, acquireTimeout: "5 seconds" }, () =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            const errors = yield* nested ? db.transaction(outlived(end)) : db.session(outlived(end))
            expect(errors.map(({ _tag }) => _tag)).toEqual(Array.from({ length: 6 }, () => "SessionEnded"))
            expect(yield* items).toEqual(left)
          })))
    }
  }
})
