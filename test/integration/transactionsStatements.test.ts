/** Statements with which a transaction has to be careful: those that end it, those that commit by themselves, streams. */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import { type Dialect, dialects, withDialect } from "../support/bothDatabases.js"
import { withDb, withSqlite } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"

const one = { poolSize: 1, acquireTimeout: "20 seconds" } as const

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))

describe("a statement that would begin or end the transaction", () => {
  const texts: Record<Dialect, ReadonlyArray<string>> = {
    mysql: ["COMMIT", "ROLLBACK", "BEGIN", "START TRANSACTION", "/* now */ commit work", "COMMIT AND CHAIN"],
    sqlite: ["COMMIT", "ROLLBACK", "BEGIN", "BEGIN IMMEDIATE", "END TRANSACTION", "-- now\nrollback transaction"]
  }
  const ways: Record<string, (text: string) => Effect.Effect<unknown, unknown, Db.Db | SqlClient>> = {
    "db.execute": (text) => Effect.flatMap(Db.Db, (db) => db.execute(text)),
    "db.stream": (text) => Effect.flatMap(Db.Db, (db) => Stream.runDrain(db.stream(text))),
    "sql.unsafe": (text) => Effect.flatMap(SqlClient, (sql) => sql.unsafe(text)),
    "sql.unsafe unprepared": (text) => Effect.flatMap(SqlClient, (sql) => sql.unsafe(text).unprepared),
    "sql.unsafe stream": (text) => Effect.flatMap(SqlClient, (sql) => Stream.runDrain(sql.unsafe(text).stream)),
    "a nested transaction": (text) => Effect.flatMap(Db.Db, (db) => db.transaction(db.execute(text)))
  }
  for (const dialect of dialects) {
    for (const [way, send] of Object.entries(ways)) {
      it.live(`is refused by ${way}, and the transaction goes on (${dialect})`, () =>
        withDialect(
          dialect,
          one,
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            for (const [n, text] of texts[dialect].entries()) {
              const undone = yield* Effect.exit(db.transaction(Effect.gen(function*() {
                yield* insert(2 * n)
                expect(DbErrors.find(yield* Effect.flip(send(text)))?._tag, text).toBe("InvalidTransaction")
                expect(Option.map(yield* db.currentConnection, ({ session }) => session)).toEqual(
                  Option.some("transaction")
                )
                return yield* Effect.fail("undo")
              })))
              expect(undone).toEqual(Exit.fail("undo"))
              yield* db.transaction(Effect.gen(function*() {
                yield* insert(2 * n + 1)
                yield* Effect.flip(send(text))
              }))
            }
            expect(yield* items).toEqual(texts[dialect].map((_, n) => 2 * n + 1))
          })
        ))
    }
  }

  it.live("is refused among several in one unprepared text, of which none is sent", () =>
    withDb({ ...one, severalStatements: true }, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient
        yield* createItems
        yield* sql.withTransaction(Effect.gen(function*() {
          for (
            const text of ["COMMIT; INSERT INTO items VALUES (1)", "INSERT INTO items VALUES (1); COMMIT; SELECT 1"]
          ) {
            const error = yield* Effect.flip(sql.unsafe(text).unprepared)
            expect(DbErrors.find(error)?._tag).toBe("InvalidTransaction")
          }
          yield* insert(2)
        }))
        expect(yield* items).toEqual([2])
      })))

  it.live("is none when it is about a savepoint of one's own", () =>
    withDb(one, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* db.execute("SAVEPOINT mine")
          yield* insert(1)
          yield* db.execute("ROLLBACK TO SAVEPOINT mine")
          yield* db.execute("RELEASE SAVEPOINT mine")
          yield* insert(2)
        }))
        expect(yield* items).toEqual([2])
      })))
})

describe("DDL, which commits what came before it,", () => {
  const define = (name: string) => Effect.flatMap(Db.Db, (db) => db.execute(`CREATE TABLE ${name} (id INT)`))
  const works = (name: string, body: Effect.Effect<unknown, unknown, Db.Db>, expected: ReadonlyArray<number>) =>
    it.live(`${name} works, and the connection is as good as before`, () =>
      withDb(one, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* db.transaction(body)
          expect(yield* items).toEqual(expected)
          expect(Option.map(yield* db.currentConnection, ({ session }) => session)).toEqual(Option.some("clean"))
          yield* Effect.flip(db.transaction(Effect.zipRight(insert(99), Effect.fail("undo"))))
          expect(yield* items).toEqual(expected)
          expect((yield* snapshot).created).toBe(1)
        })))

  const inTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Db.Db, (db) => db.transaction(effect))
  const all = (...effects: ReadonlyArray<Effect.Effect<unknown, unknown, Db.Db>>) =>
    Effect.asVoid(Effect.forEach(effects, (effect) => effect))

  works("in a transaction", all(insert(1), define("a"), insert(2)), [1, 2])
  works("in a nested one", all(insert(1), inTransaction(all(insert(2), define("a"), insert(3))), insert(4)), [
    1,
    2,
    3,
    4
  ])
  works(
    "in two nested ones, and one after it,",
    all(inTransaction(inTransaction(all(insert(1), define("a")))), inTransaction(insert(2)), insert(3)),
    [1, 2, 3]
  )
  works(
    "before a nested one that fails",
    all(define("a"), Effect.ignore(inTransaction(all(insert(1), define("b"), Effect.fail("inner")))), insert(2)),
    [1, 2]
  )

  it.live("before a failure is not undone, and the failure is the transaction's", () =>
    withDb(one, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          yield* db.transaction(define("a"))
          return yield* Effect.fail("outer")
        })))
        expect(error).toBe("outer")
        expect(yield* items).toEqual([1])
        expect(yield* db.list("SHOW TABLES")).toEqual(["a", "items"])
      })))

  it.live("commits nothing on SQLite: it is undone with the rest", () =>
    withSqlite(
      one,
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* insert(1)
          yield* Effect.flip(db.transaction(Effect.zipRight(define("a"), Effect.fail("inner"))))
        }))
        yield* Effect.flip(db.transaction(Effect.zipRight(define("b"), Effect.fail("outer"))))
        expect(yield* db.list("SELECT name FROM sqlite_schema WHERE name IN ('a', 'b')")).toEqual([])
        expect(yield* items).toEqual([1])
      })
    ))
})

describe("a stream that is open on the transaction's connection", () => {
  const uses: Record<string, Effect.Effect<unknown, unknown, Db.Db | SqlClient>> = {
    "a statement": insert(1000),
    "a statement of sql": Effect.flatMap(SqlClient, (sql) => sql`INSERT INTO items VALUES (1000)`),
    "another stream": Effect.flatMap(Db.Db, (db) => Stream.runDrain(db.stream("SELECT 1"))),
    "a nested transaction": Effect.flatMap(Db.Db, (db) => db.transaction(Effect.void)),
    "sql.withTransaction": Effect.flatMap(SqlClient, (sql) => sql.withTransaction(Effect.void))
  }
  const numbers = Array.from({ length: 900 }, (_, n) => n)
  const fill = Effect.flatMap(
    Db.Db,
    (db) =>
      db.execute(
        "INSERT INTO items WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 899) SELECT id FROM n"
      )
  )
  for (const dialect of dialects) {
    for (const [what, use] of Object.entries(uses)) {
      it.live(`refuses ${what} at once, from the parent and from a child, and is complete (${dialect})`, () =>
        withDialect(
          dialect,
          one,
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            yield* fill
            yield* db.transaction(Effect.gen(function*() {
              let refused = 0
              const ids = yield* Stream.runCollect(Stream.mapEffect(
                db.stream<{ id: number }>("SELECT id FROM items ORDER BY id"),
                ({ id }) =>
                  id % 300 !== 0 ? Effect.succeed(id) : Effect.gen(function*() {
                    const errors = [yield* Effect.flip(use), yield* Effect.flip(Effect.flatten(Effect.fork(use)))]
                    for (const error of errors) {
                      const busy = DbErrors.find(error)
                      // one that waited for its turn says for how long
                      expect(busy?._tag).toBe("ConnectionBusy")
                      expect(busy).not.toHaveProperty("waitedMillis")
                      refused++
                    }
                    return id
                  })
              ))
              expect(Array.from(ids)).toEqual(numbers)
              expect(refused).toBe(6)
              yield* insert(2000)
            }))
            expect(yield* items).toEqual([...numbers, 2000])
          })
        ))
    }

    it.live(`ends with it, and does not look complete to whoever reads on (${dialect})`, () =>
      withDialect(
        dialect,
        one,
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          yield* fill
          const scope = yield* Scope.make()
          const pull = yield* db.transaction(Effect.gen(function*() {
            yield* insert(1000)
            const pull = yield* Scope.extend(Stream.toPull(db.stream("SELECT id FROM items")), scope)
            expect((yield* pull).length).toBeGreaterThan(0)
            return pull
          }))
          expect(yield* db.list("SELECT id FROM items WHERE id >= 900")).toEqual([1000])
          const rest = yield* Effect.exit(Effect.forever(pull))
          expect(rest).toMatchObject({
            cause: { error: Option.some(expect.objectContaining({ _tag: "SessionEnded" })) }
          })
          yield* Scope.close(scope, Exit.void)
          expect(yield* db.list("SELECT id FROM items WHERE id >= 900")).toEqual([1000])
        })
      ))
  }
})
