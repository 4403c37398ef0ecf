/** Several statements in one text, or in a procedure, of which one is refused or stopped: what the others have done counts. */
import { SqlClient } from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import { failure } from "../support/bothDatabases.js"
import { withDb } from "../support/dbFixture.js"
import { connectionId, snapshot } from "../support/dbQuestions.js"
import { noRetries } from "../support/retries.js"

const one = { poolSize: 1, acquireTimeout: "10 seconds" } as const

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER) ENGINE = InnoDB"))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const unprepared = (text: string) => Effect.flatMap(SqlClient, (sql) => sql.unsafe(text).unprepared)
const session = Effect.flatMap(
  Db.Db,
  (db) => Effect.map(db.currentConnection, (current) => Option.getOrThrow(current).session)
)

describe("what a server says that takes no statements", () => {
  const said: Record<number, object> = {
    1047: { _tag: "ConnectionLost", outcome: "unknown", errno: 1047 },
    1836: { _tag: "ReadOnlyError", errno: 1836 }
  }
  const ways: Record<string, Effect.Effect<unknown, SqlError | DbErrors.DbError, SqlClient | Db.Db>> = {
    "to the second of several": unprepared("INSERT INTO items VALUES (1); INSERT INTO refused VALUES (1)"),
    "in a procedure": Effect.flatMap(SqlClient, (sql) => sql`CALL refused()`),
    "in a procedure called by db.execute": Effect.flatMap(Db.Db, (db) => db.execute("CALL refused()"))
  }
  for (const [errno, error] of Object.entries(said)) {
    for (const [where, run] of Object.entries(ways)) {
      it.live(`${where} is no reason to run the others again (${errno})`, () =>
        withDb(one, () =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            yield* db.execute("CREATE TABLE refused (id INT)")
            yield* db.execute(
              "CREATE TRIGGER refuses BEFORE INSERT ON refused FOR EACH ROW"
                + ` SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = ${errno}, MESSAGE_TEXT = 'not now'`
            )
            yield* db.execute(
              "CREATE PROCEDURE refused () BEGIN INSERT INTO items VALUES (1); INSERT INTO refused VALUES (1); END"
            )
            expect(DbErrors.find(yield* failure(run))).toMatchObject(error)
            expect(yield* items).toEqual([1])
            expect(yield* snapshot).toMatchObject(noRetries)
          })))
    }
  }
})

describe("of several results the last one tells whether a transaction is open:", () => {
  const analyze = "ANALYZE TABLE items"
  const insert = "INSERT INTO items VALUES (1)"
  const texts: Record<string, string> = {
    [`BEGIN; ${insert}; ${analyze}`]: "changed",
    [`${analyze}; BEGIN; ${insert}`]: "transaction",
    [`BEGIN; ${analyze}; ${insert}`]: "changed",
    [`BEGIN; ${insert}; SELECT 1`]: "transaction",
    [`BEGIN; ${insert}; ${analyze}; SELECT nonsense`]: "changed",
    [`BEGIN; ${insert}; SELECT 1; SELECT nonsense`]: "transaction"
  }
  for (const [text, state] of Object.entries(texts)) {
    it.live(`${text} (${state})`, () =>
      withDb(one, () =>
        Effect.gen(function*() {
          yield* createItems
          yield* Effect.ignore(unprepared(text))
          expect(yield* session).toBe(state)
        })))
  }

  it.live("rows of a statement that has committed come after the OK of one that has not", () =>
    withDb(one, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.transaction(Effect.gen(function*() {
          yield* unprepared(`${insert}; ${analyze}`)
          expect(yield* session).toBe("clean")
        }))
      })))
})

describe("many statements in one text, stopped at any moment, leave the connection and its next results alone:", () => {
  // the answer to one of these is 256 packets, which is where their numbers begin anew
  const rows = Array.from({ length: 252 }, (_, id) => `(${id})`).join(", ")
  const texts: Record<string, string> = {
    "OK and no more": "DO 1",
    writes: "INSERT INTO written VALUES (1)",
    rows: "SELECT id FROM items"
  }
  const expectOwn = (n: number) =>
    Effect.map(
      unprepared(`SELECT ${n} AS a; SELECT ${n + 1} AS b`),
      (found) => expect(found, `after run ${n}`).toEqual([[{ a: n }], [{ b: n + 1 }]])
    )
  const length = 1000
  const manyTimes = (
    statement: string,
    run: (
      text: string,
      moment: Effect.Effect<unknown>,
      kill: Effect.Effect<unknown>
    ) => Effect.Effect<boolean, unknown, Db.Db | SqlClient>
  ) =>
    withDb(one, (fixture) =>
      Effect.flatMap(Db.Db, (db) =>
        db.session(Effect.gen(function*() {
          yield* createItems
          yield* db.execute(`INSERT INTO items VALUES ${rows}`)
          yield* db.execute("CREATE TABLE written (id INTEGER) ENGINE = InnoDB")
          const id = yield* connectionId
          const text = Array.from({ length }, () => statement).join("; ")
          let stopped = 0
          for (let n = 0; n < 25; n++) {
            // the time that questions of others take makes the moment another one each time
            const moment = Effect.repeatN(fixture.admin("DO 1"), n % 5)
            if (yield* run(text, moment, fixture.admin(`KILL QUERY ${id}`))) stopped += 1
            yield* expectOwn(n)
          }
          expect(stopped).toBeGreaterThan(0)
          expect(yield* connectionId).toBe(id)
          expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
        }))))

  for (const [what, statement] of Object.entries(texts)) {
    it.live(`by KILL QUERY (${what})`, () =>
      manyTimes(statement, (text, moment, kill) =>
        Effect.gen(function*() {
          const killing = yield* Effect.fork(Effect.zipRight(moment, kill))
          const found = yield* Effect.either(unprepared(text))
          yield* Fiber.join(killing)
          if (found._tag === "Right") expect(found.right).toHaveLength(length)
          else expect(DbErrors.find(found.left)).toMatchObject({ _tag: "StatementCancelled", errno: 1317 })
          return found._tag === "Left"
        })))

    it.live(`by interruption (${what})`, () =>
      manyTimes(statement, (text, moment) =>
        Effect.gen(function*() {
          const running = yield* Effect.fork(unprepared(text))
          yield* moment
          return Exit.isInterrupted(yield* Fiber.interrupt(running))
        })))
  }
})
