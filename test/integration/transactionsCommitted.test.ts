/** A transaction of which the server has committed a part by itself: never run twice, and never told to be rolled back. */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import type { DbError } from "../../src/DbError.js"
import { type DbFixture, eventually, withDb } from "../support/dbFixture.js"
import { connectionId, noWaitErrno, snapshot } from "../support/dbQuestions.js"
import { createLocks } from "../support/deadlocks.js"
import { noRetries } from "../support/retries.js"

const pool = { poolSize: 3, acquireTimeout: "10 seconds" } as const
const five = Schedule.recurs(5)

type Body = Effect.Effect<unknown, unknown, Db.Db | SqlClient>

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER) ENGINE = InnoDB"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const execute = (text: string) => Effect.flatMap(Db.Db, (db) => db.execute(text))
const unprepared = (text: string) => Effect.flatMap(SqlClient, (sql) => sql.unsafe(text).unprepared)
const noWait = execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE NOWAIT")

/** Ends the connection that this runs on, and waits until the pool has seen it. */
const loseConnection = (fixture: DbFixture) =>
  Effect.gen(function*() {
    const { lost } = yield* snapshot
    yield* fixture.kill(yield* connectionId)
    yield* eventually("the pool has seen the loss", Effect.map(snapshot, (counts) => counts.lost === lost + 1))
  })

/** Ends the connection that runs this text, as soon as it does. */
const killing = <A, E, R>(fixture: DbFixture, text: string, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const killer = yield* Effect.fork(Effect.flatMap(fixture.running(text), fixture.kill))
    return yield* Effect.ensuring(effect, Fiber.interrupt(killer))
  })

/** A schedule that writes down what it is asked about. */
const noting = (asked: Array<string>): Schedule.Schedule<unknown, DbError> =>
  Schedule.tapInput(five, (error: DbError) => Effect.sync(() => asked.push(error._tag)))

/** A schema with `items`, `locks` of which somebody holds row 1, and procedures that end a transaction. */
const onServer = (test: (fixture: DbFixture) => Effect.Effect<void, unknown, Db.Db | SqlClient | Services>) =>
  withDb(
    { ...pool, initialSql: ["SET SESSION lock_wait_timeout = 0"] },
    (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* createLocks
        yield* db.execute("CREATE TABLE taken (id INT)")
        yield* db.execute("CREATE PROCEDURE anew () BEGIN COMMIT; START TRANSACTION; END")
        const other = yield* db.connection
        yield* other.execute("START TRANSACTION")
        yield* other.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE")
        yield* test(fixture)
      }))
  )

type Services = Effect.Effect.Context<typeof snapshot>

const commits: Record<string, Body> = {
  "CREATE TABLE": execute("CREATE TABLE IF NOT EXISTS defined (id INT)"),
  "a CREATE TABLE that was refused": Effect.flip(execute("CREATE TABLE taken (id INT)")),
  "a DROP TABLE of none": Effect.flip(execute("DROP TABLE missing")),
  "an ALTER TABLE that waited for a lock in vain": Effect.flip(execute("ALTER TABLE locks ADD COLUMN more INT")),
  "a procedure that commits and begins anew": execute("CALL anew()"),
  "the same by the client": Effect.flatMap(SqlClient, (sql) => sql`CALL anew()`),
  "ANALYZE TABLE after an INSERT in one text": unprepared("INSERT INTO items VALUES (2); ANALYZE TABLE items"),
  "CREATE TABLE in a text that was refused": Effect.flip(
    unprepared("INSERT INTO items VALUES (2); CREATE TABLE IF NOT EXISTS defined (id INT); SELECT nonsense")
  ),
  "CREATE TABLE in a nested transaction": Effect.flatMap(
    Db.Db,
    (db) => db.transaction(db.execute("CREATE TABLE IF NOT EXISTS defined (id INT)"))
  )
}

interface Ending {
  readonly end: (fixture: DbFixture) => Effect.Effect<unknown, unknown, Db.Db | SqlClient | Services>
  readonly error: object
}

const unknown = { _tag: "ConnectionLost", outcome: "unknown" }
const endings: Record<string, Ending> = {
  "a lock wait": { end: () => noWait, error: { _tag: "LockTimeoutError", errno: noWaitErrno() } },
  "a loss that a statement notices": {
    end: (fixture) => Effect.zipRight(loseConnection(fixture), insert(3)),
    error: unknown
  },
  "a loss that COMMIT notices": { end: loseConnection, error: unknown },
  "a loss under a query": {
    end: (fixture) => killing(fixture, "AS doomed", execute("SELECT SLEEP(30) AS doomed")),
    error: unknown
  }
}

describe("a transaction is not run again, and what was committed is not told to be rolled back:", () => {
  for (const [what, commit] of Object.entries(commits)) {
    it.live(`whatever comes after ${what}`, () =>
      onServer((fixture) =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          for (const [which, { end, error }] of Object.entries(endings)) {
            yield* execute("DELETE FROM items")
            const asked: Array<string> = []
            const body = Effect.all([insert(1), commit, end(fixture)], { discard: true })
            const failed = yield* Effect.flip(db.transaction(body, { retry: noting(asked) }))
            expect(DbErrors.find(failed), which).toMatchObject(error)
            expect(asked, which).toEqual([])
            expect((yield* items).filter((id) => id === 1), which).toEqual([1])
            expect(yield* snapshot, which).toMatchObject(noRetries)
          }
        })
      ))
  }

  it.live("an ALTER TABLE that waits for a lock in vain", () =>
    onServer(() =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const asked: Array<string> = []
        const body = Effect.zipRight(insert(1), execute("ALTER TABLE locks ADD COLUMN more INT"))
        const error = yield* Effect.flip(db.transaction(body, { retry: noting(asked) }))
        expect(error).toMatchObject({ _tag: "LockTimeoutError", errno: 1205 })
        expect(asked).toEqual([])
        expect(yield* items).toEqual([1])
      })
    ))

  it.live("several statements, one of which commits, that are lost in flight", () =>
    onServer((fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const asked: Array<string> = []
        const text = "INSERT INTO items VALUES (1); CREATE TABLE IF NOT EXISTS defined (id INT)"
        let runs = 0
        const body = Effect.suspend(() => unprepared(++runs === 1 ? `${text}; DO SLEEP(30)` : text))
        const error = yield* Effect.flip(
          killing(fixture, "SLEEP(30)", db.transaction(body, { retry: noting(asked) }))
        )
        expect(DbErrors.find(error)).toMatchObject(unknown)
        expect(asked).toEqual([])
        expect(yield* items).toEqual([1])
      })
    ))
})

describe("a statement that commits and is refused", () => {
  for (const text of ["CREATE TABLE taken (id INT)", "DROP TABLE missing"]) {
    it.live(`aborts nothing: the transaction goes on after ${text}`, () =>
      onServer(() =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* db.transaction(Effect.gen(function*() {
            yield* insert(1)
            expect(yield* Effect.flip(execute(text))).toMatchObject({ errno: text.startsWith("DROP") ? 1051 : 1050 })
            yield* insert(2)
            yield* db.transaction(insert(3))
          }))
          expect(yield* items).toEqual([1, 2, 3])
        })
      ))
  }
})

describe("a transaction without any such statement", () => {
  it.live("is told to be rolled back, and run again", () =>
    onServer((fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const text = "INSERT INTO items VALUES (1); UPDATE items SET id = 2; SELECT 1"
        const lostOne = Effect.all([unprepared(text), loseConnection(fixture), insert(3)], { discard: true })
        expect(yield* Effect.flip(db.transaction(lostOne))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        let runs = 0
        yield* db.transaction(
          Effect.suspend(() => ++runs === 1 ? lostOne : Effect.asVoid(unprepared(text))),
          { retry: five }
        )
        expect(runs).toBe(2)
        expect(yield* items).toEqual([2])
      })
    ))

  it.live("is run again when one of several parallel parts has met a lock wait", () =>
    onServer(() =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        let runs = 0
        const body: Body = Effect.suspend((): Body =>
          ++runs === 1 ? Effect.all([Effect.never, noWait, Effect.never], { concurrency: "unbounded" }) : insert(runs)
        )
        yield* db.transaction(body, { retry: five })
        expect(yield* items).toEqual([2])
      })
    ))
})

describe("what the fiber had on its connection", () => {
  const lock = execute("DO GET_LOCK('mine', 0)")
  const variable = execute("SET @mine = 7")

  for (const [what, take] of Object.entries({ "a named lock": lock, "a variable": variable })) {
    for (const when of ["before", "inside"]) {
      it.live(`is told when it is gone, not missing in a second attempt: ${what}, lost ${when} the transaction`, () =>
        onServer((fixture) =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            const asked: Array<string> = []
            let runs = 0
            yield* take
            if (when === "before") yield* loseConnection(fixture)
            const body = Effect.suspend(() => {
              const first = ++runs === 1 && when === "inside"
              return Effect.zipRight(insert(runs), first ? loseConnection(fixture) : Effect.void)
            })
            const transaction = db.transaction(body, { retry: noting(asked) })
            expect(yield* Effect.flip(transaction)).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
            expect(asked).toEqual([])
            expect(yield* items).toEqual([])
            // it is told once
            yield* transaction
            expect(yield* items).toEqual([runs])
          })
        ))
    }
  }
})
