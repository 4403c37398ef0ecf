import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import type { DbService } from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { type DbFixture, withDb } from "../support/dbFixture.js"
import {
  connectionId,
  errnoOf,
  idOf,
  inTransaction,
  isolationLevel,
  snapshot,
  valueOf
} from "../support/dbQuestions.js"

/** What a fiber can leave on its connection: how, how the fiber sees it later, and how nobody else may. */
interface Holding {
  readonly set: (db: DbService, fixture: DbFixture) => Effect.Effect<unknown, DbError>
  /** What is there for the fiber that has set it. */
  readonly mine: (db: DbService, fixture: DbFixture) => Effect.Effect<unknown, DbError>
  readonly expected: unknown
}

const holdings: Record<string, Holding> = {
  "SET @x": {
    set: (db) => db.execute("SET @x = 'mine'"),
    mine: (db) => valueOf(db, "SELECT @x"),
    expected: "mine"
  },
  "SELECT @x := 1": {
    set: (db) => db.value("SELECT @x := 'mine'"),
    mine: (db) => valueOf(db, "SELECT @x"),
    expected: "mine"
  },
  "SELECT ... INTO @x": {
    set: (db) => db.execute("SELECT 'mine' INTO @x"),
    mine: (db) => valueOf(db, "SELECT @x"),
    expected: "mine"
  },
  "a temporary table": {
    set: (db) =>
      Effect.zipRight(
        db.execute("CREATE TEMPORARY TABLE picked (id INT)"),
        db.execute("INSERT INTO picked VALUES (1), (2)")
      ),
    mine: (db) => Effect.map(valueOf(db, "SELECT COUNT(*) FROM picked"), Number),
    expected: 2
  },
  "GET_LOCK": {
    set: (db, { database }) => db.value("SELECT GET_LOCK(?, 0)", [database]),
    mine: (db, { database }) =>
      Effect.map(db.value<number>("SELECT IS_USED_LOCK(?) = CONNECTION_ID()", [database]), Option.getOrThrow),
    expected: 1
  },
  "LOCK TABLES": {
    set: (db) => db.execute("LOCK TABLES locked WRITE"),
    // with tables locked, a table that is not among them cannot be read
    mine: (db) => errnoOf(db.value("SELECT COUNT(*) FROM other")),
    expected: 1100
  },
  "an open transaction": {
    set: (db) => Effect.zipRight(db.execute("START TRANSACTION"), db.execute("INSERT INTO other VALUES (42)")),
    mine: (db) => Effect.map(valueOf(db, "SELECT COUNT(*) FROM other WHERE id = 42"), Number),
    expected: 1
  },
  "autocommit = 0": {
    set: (db) => Effect.zipRight(db.execute("SET autocommit = 0"), db.execute("INSERT INTO other VALUES (42)")),
    mine: (db) => Effect.map(valueOf(db, "SELECT COUNT(*) FROM other WHERE id = 42"), Number),
    expected: 1
  },
  "SET sql_mode": {
    set: (db) => db.execute("SET sql_mode = 'ANSI_QUOTES'"),
    mine: (db) => valueOf(db, "SELECT @@sql_mode"),
    expected: "ANSI_QUOTES"
  },
  "SET time_zone": {
    set: (db) => db.execute("SET time_zone = '+05:00'"),
    mine: (db) => valueOf(db, "SELECT @@time_zone"),
    expected: "+05:00"
  },
  "SET NAMES": {
    set: (db) => db.execute("SET NAMES latin1"),
    mine: (db) => valueOf(db, "SELECT @@character_set_client"),
    expected: "latin1"
  },
  "USE": {
    set: (db) => db.execute("USE information_schema"),
    mine: (db) => valueOf(db, "SELECT DATABASE()"),
    expected: "information_schema"
  },
  "PREPARE": {
    set: (db) => db.execute("PREPARE mine FROM 'SELECT 42'"),
    mine: (db) => valueOf(db, "EXECUTE mine"),
    expected: 42
  },
  "a setting of a called procedure": {
    set: (db) => db.execute("CALL sets_x()"),
    mine: (db) => valueOf(db, "SELECT @x"),
    expected: "procedure"
  }
}

const schema = (db: DbService) =>
  Effect.forEach([
    "CREATE TABLE locked (id INT) ENGINE = InnoDB",
    "CREATE TABLE other (id INT) ENGINE = InnoDB",
    "CREATE PROCEDURE sets_x() BEGIN SET @x = 'procedure'; SELECT 1; END"
  ], (sql) =>
    db.execute(sql), { discard: true })

/** Everything that another borrower could tell by; each must be as on a new connection. */
const stranger = (db: DbService, { database }: DbFixture) =>
  Effect.gen(function*() {
    const seen = Option.getOrThrow(
      yield* db.dictionary(
        `SELECT CONNECTION_ID() AS id, @x AS x, DATABASE() AS db, @@sql_mode AS sql_mode, @@time_zone AS time_zone,
          @@character_set_client AS client, @@character_set_results AS results, @@collation_connection AS collation,
          @@autocommit AS autocommit, ${inTransaction()} AS in_transaction, ${isolationLevel()} AS isolation,
          COALESCE(IS_USED_LOCK(?) = CONNECTION_ID(), 0) AS locked`,
        [database]
      )
    )
    const { id, ...session } = seen
    return { id: Number(id), session }
  })

/** Besides, in statements of their own: their failing is what is looked for. */
const strangerTables = (db: DbService) =>
  Effect.gen(function*() {
    const picked = yield* errnoOf(db.value("SELECT COUNT(*) FROM picked"))
    const prepared = yield* errnoOf(db.execute("EXECUTE mine"))
    const others = yield* db.value("SELECT COUNT(*) FROM other WHERE id = 42")
    return { picked, prepared, others }
  })

describe("a fiber keeps its connection under contention, and no other borrower sees any of it, with", () => {
  for (const [name, { expected, mine, set }] of Object.entries(holdings)) {
    it.live(name, () =>
      withDb({ poolSize: 2, acquireTimeout: "20 seconds" }, (fixture) =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* schema(db)
          const fresh = yield* stranger(db, fixture)
          yield* db.releaseFiberConnection

          const ids: Array<number> = []
          const strangers = yield* Effect.fork(Effect.forEach(
            Array.from({ length: 20 }),
            () =>
              Effect.gen(function*() {
                for (let round = 0; round < 10; round++) {
                  const { id, session } = yield* stranger(db, fixture)
                  ids.push(id)
                  expect(session).toEqual(fresh.session)
                  yield* Effect.yieldNow()
                }
                expect(yield* strangerTables(db)).toEqual({ picked: 1146, prepared: 1243, others: Option.some(0) })
              }),
            { concurrency: "unbounded", discard: true }
          ))
          const holder = yield* Effect.fork(Effect.gen(function*() {
            yield* set(db, fixture)
            const id = yield* idOf(db)
            for (let round = 0; round < 30; round++) {
              expect(yield* mine(db, fixture)).toEqual(expected)
              expect(yield* idOf(db)).toBe(id)
              yield* Effect.yieldNow()
            }
            const before = ids.length
            return { id, before }
          }))
          const { id } = yield* Fiber.join(holder)
          yield* Fiber.join(strangers)
          expect(ids).toHaveLength(200)
          // what the holder left is gone from the very connection that it had
          const counts = yield* snapshot
          expect(counts).toMatchObject({ held: 0, waiting: 0, lost: 0 })
          expect(counts.resets).toBeGreaterThanOrEqual(1)
          yield* Effect.scoped(Effect.gen(function*() {
            const all = [yield* db.connection, yield* db.connection]
            const one = all.find((connection) => connection.id === String(id))
            if (one === undefined) return yield* Effect.dieMessage("the holder's connection was not reset but replaced")
            const { session } = yield* stranger({ ...db, ...one }, fixture)
            expect(session).toEqual(fresh.session)
            expect(yield* strangerTables({ ...db, ...one })).toEqual({
              picked: 1146,
              prepared: 1243,
              others: Option.some(0)
            })
          }))
        })))
  }
})

describe("a fiber with a clean connection", () => {
  it.live("parts with it under contention and cannot tell the difference", () =>
    withDb({ poolSize: 2, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.forEach(
          Array.from({ length: 40 }, (_, n) => n),
          (n) =>
            Effect.gen(function*() {
              for (let round = 0; round < 20; round++) {
                expect(Number(Option.getOrThrow(yield* db.value("SELECT ? + ?", [n, round])))).toBe(n + round)
                yield* Effect.yieldNow()
              }
            }),
          { concurrency: "unbounded", discard: true }
        )
        const counts = yield* snapshot
        expect(counts).toMatchObject({
          created: 2,
          held: 0,
          idle: 2,
          waiting: 0,
          timedOut: 0,
          resets: 0,
          validations: 0
        })
        expect(counts.takenBack).toBeGreaterThan(0)
      })))

  it.live("keeps it while nobody waits", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const id = yield* connectionId
        for (let round = 0; round < 50; round++) {
          expect(yield* Effect.fork(connectionId).pipe(Effect.flatMap(Fiber.join))).not.toBe(id)
        }
        expect(yield* connectionId).toBe(id)
        expect(yield* snapshot).toMatchObject({ created: 2, takenBack: 0 })
      })))

  it.live("parts with it at any moment of its own run, also just before its next statement", () =>
    withDb({ poolSize: 1, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const wraps: ReadonlyArray<<A>(effect: Effect.Effect<A, DbError>) => Effect.Effect<A, DbError>> = [
          (effect) => effect,
          db.transaction,
          db.session
        ]
        const rounds = Effect.forEach(wraps, (wrap) =>
          Effect.gen(function*() {
            yield* db.value("SELECT 1")
            const other = yield* Effect.fork(db.value("SELECT 2"))
            expect(yield* wrap(db.value("SELECT 3"))).toEqual(Option.some(3))
            expect(yield* Fiber.join(other)).toEqual(Option.some(2))
          }))
        // Effect lets other fibers run after so many steps: here at every step around the start of a statement. With
        // very few it makes no progress of its own.
        for (let steps = 10; steps <= 60; steps++) yield* Effect.withMaxOpsBeforeYield(rounds, steps)
        yield* db.value("SELECT 4")
        expect(yield* snapshot).toMatchObject({ created: 1, held: 1, lost: 0 })
      })))
})
