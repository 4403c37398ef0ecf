/** BEGIN on a connection that is of no use any more, or that has to wait. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { withDb, withFixture, withLayer, withSqlite } from "../support/dbFixture.js"
import { connectionId, latch, snapshot } from "../support/dbQuestions.js"
import { openDeafProxy } from "../support/deafProxy.js"

const pool = { poolSize: 4, acquireTimeout: "10 seconds" } as const
const five = Schedule.recurs(5)

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))

/** A schedule that writes down what it is asked about. */
const noting = (asked: Array<string>): Schedule.Schedule<unknown, DbError> =>
  Schedule.tapInput(five, (error: DbError) => Effect.sync(() => asked.push(error._tag)))

describe("BEGIN on a connection that the server has closed meanwhile succeeds on another:", () => {
  for (const options of [{}, { isolation: "READ COMMITTED" }, { isolation: "SERIALIZABLE", readOnly: true }] as const) {
    const how = JSON.stringify(options)
    it.live(`the fiber's own was ended, and the pool knows it, ${how}`, () =>
      withDb(pool, (fixture) =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* createItems
          const killed = yield* connectionId
          yield* fixture.kill(killed)
          let runs = 0
          const id = yield* db.transaction(Effect.tap(connectionId, () => Effect.sync(() => runs++)), options)
          expect(id).not.toBe(killed)
          expect(runs).toBe(1)
        })))

    it.live(`it breaks under BEGIN itself, ${how}`, () =>
      withFixture((fixture) =>
        Effect.scoped(Effect.gen(function*() {
          const proxy = yield* openDeafProxy(fixture.server)
          yield* withLayer(
            { ...pool, url: fixture.url, port: proxy.port },
            Effect.gen(function*() {
              const db = yield* Db.Db
              const first = yield* connectionId
              const said = yield* proxy.swallow("TRANSACTION")
              const cutting = yield* Effect.fork(Effect.zipRight(said, proxy.cut))
              let runs = 0
              const id = yield* db.transaction(Effect.tap(connectionId, () => Effect.sync(() => runs++)), options)
              yield* Fiber.join(cutting)
              expect(id).not.toBe(first)
              expect(runs).toBe(1)
              expect(yield* snapshot).toMatchObject({ lost: 1, retriedReads: 1 })
            })
          )
        }))
      ))
  }

  it.live("every idle one in the pool was ended", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const together = yield* latch(3)
        const ids = yield* Effect.forEach([1, 2, 3], () => Effect.zipLeft(connectionId, together), {
          concurrency: "unbounded"
        })
        yield* Effect.forEach(ids, fixture.kill, { discard: true })
        yield* Effect.forEach([1, 2, 3, 4], (n) => db.transaction(insert(n)), { concurrency: "unbounded" })
        expect(yield* items).toEqual([1, 2, 3, 4])
      })))
})

describe("on SQLite", () => {
  it.live("a BEGIN that waited for a lock in vain is run again when asked", () =>
    withSqlite(
      { ...pool, busyTimeout: 20 },
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const other = yield* db.connection
        yield* other.execute("BEGIN IMMEDIATE")
        const asked: Array<string> = []
        let runs = 0
        const body = Effect.suspend(() => insert(++runs))
        expect((yield* Effect.flip(db.transaction(body)))._tag).toBe("LockTimeoutError")
        const retry = Schedule.tapInput(noting(asked), () => Effect.ignore(other.execute("ROLLBACK")))
        yield* db.transaction(body, { retry })
        expect(asked).toEqual(["LockTimeoutError"])
        expect(runs).toBe(1)
        expect(yield* items).toEqual([1])
      }))
    ))
})
