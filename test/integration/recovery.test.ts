/** Connections that are killed from outside: idle, in mid-statement, in a transaction. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { inject } from "vitest"
import * as Db from "../../src/Db.js"
import * as Recovery from "../../src/Recovery.js"
import { eventually, withDb, withFixture, withLayer } from "../support/dbFixture.js"
import { connectionId, idOf, latch, numbers, snapshot, valueOf } from "../support/dbQuestions.js"
import { openProxy } from "../support/proxy.js"
import { noRetries } from "../support/retries.js"

const pool = { poolSize: 2, acquireTimeout: "5 seconds" } as const

/** MyISAM keeps what was written before the statement was cut, so that running it twice would show. */
const createWritten = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE written (id INT) ENGINE = MyISAM"))
const countWritten = Effect.flatMap(Db.Db, (db) => Effect.map(valueOf(db, "SELECT COUNT(*) FROM written"), Number))
/** Writes one row, then takes its time over the next. */
const slowWrite = (seconds: number) =>
  `INSERT INTO written SELECT seq + SLEEP(IF(seq = 2, ${seconds}, 0)) FROM ${numbers(2)}`

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INT PRIMARY KEY) ENGINE = InnoDB"))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))

const lost = (count: number) =>
  eventually(`the pool has seen ${count} losses`, Effect.map(snapshot, (counts) => counts.lost === count))

describe("KILL of an idle connection", () => {
  it.live("of a fiber: the next read succeeds, on another", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const killed = yield* connectionId
        yield* fixture.kill(killed)
        expect(yield* connectionId).not.toBe(killed)
        expect(yield* snapshot).toMatchObject({ created: 2, lost: 1, held: 1 })
      })))

  it.live("of a fiber: the next write succeeds, once", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createWritten
        yield* fixture.kill(yield* connectionId)
        yield* lost(1)
        yield* db.execute("INSERT INTO written VALUES (1)")
        expect(yield* countWritten).toBe(1)
      })))

  it.live("in the pool: the next borrowers do not notice, though every one was killed", () =>
    withDb({ poolSize: 5, acquireTimeout: "10 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createWritten
        yield* db.releaseFiberConnection
        for (let round = 1; round <= 5; round++) {
          const together = yield* latch(5)
          const ids = yield* Effect.forEach(
            [1, 2, 3, 4, 5],
            () => Effect.zipLeft(connectionId, together),
            { concurrency: "unbounded" }
          )
          yield* Effect.forEach(ids, fixture.kill, { concurrency: "unbounded", discard: true })
          yield* lost(5 * round)
          yield* Effect.forEach(
            Array.from({ length: 20 }, (_, n) => n),
            (n) =>
              n % 2 === 0
                ? Effect.asVoid(connectionId)
                : Effect.asVoid(db.execute("INSERT INTO written VALUES (?)", [n])),
            { concurrency: "unbounded", discard: true }
          )
          yield* db.releaseFiberConnection
        }
        expect(yield* countWritten).toBe(50)
      })))

  it.live("that the program has not seen yet: reads succeed all the same, and writes are never run twice", () =>
    withDb({ poolSize: 4, acquireTimeout: "10 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createWritten
        let unknown = 0
        let done = 0
        for (let round = 0; round < 40; round++) {
          const id = yield* connectionId
          // answered at about the moment when the connection breaks
          const killing = yield* Effect.fork(fixture.admin(`KILL ${id}`))
          for (let pause = 0; pause < round % 5; pause++) yield* Effect.yieldNow()
          if (round % 2 === 0) expect(yield* db.value("SELECT 1")).toEqual(Option.some(1))
          else {
            yield* Effect.matchEffect(db.execute("INSERT INTO written VALUES (?)", [round]), {
              onSuccess: () => Effect.sync(() => done++),
              onFailure: (error) =>
                Effect.sync(() => {
                  expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
                  unknown++
                })
            })
          }
          yield* Fiber.join(killing)
        }
        const rows = yield* countWritten
        expect(Number(yield* valueOf(db, "SELECT COUNT(DISTINCT id) FROM written"))).toBe(rows)
        expect(rows).toBeGreaterThanOrEqual(done)
        expect(rows).toBeLessThanOrEqual(done + unknown)
      })))

  it.live("that held session state: the next statement says that it is gone, and the one after works", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("SET @x = 1")
        yield* fixture.kill(yield* connectionId)
        yield* lost(1)
        expect(yield* Effect.flip(db.value("SELECT 1"))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        expect(yield* valueOf(db, "SELECT @x")).toBe(null)
      })))

  it.live("under db.session: its statements fail as not executed, and what comes after the session works", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.session(Effect.gen(function*() {
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
          for (const _ of [1, 2]) {
            const error = yield* Effect.flip(db.execute("DO 1"))
            expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
          }
        }))
        yield* db.execute("DO 1")
        expect((yield* snapshot).held).toBe(1)
      })))

  it.live("under db.connection: its statements fail, and the pool replaces it", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* db.connection
          yield* fixture.kill(yield* idOf(connection))
          yield* lost(1)
          expect(yield* Effect.flip(connection.value("SELECT 1"))).toMatchObject({ _tag: "ConnectionLost" })
          // its place is free at once
          yield* connectionId
        }))
        expect(yield* snapshot).toMatchObject({ created: 2, held: 1, idle: 0 })
      })))
})

describe("KILL in mid-statement", () => {
  it.live("of a read: it is run again, and the program does not notice", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reading = yield* Effect.fork(db.value("SELECT 42 + SLEEP(1) AS slowRead"))
        yield* fixture.kill(yield* fixture.running("AS slowRead"))
        expect(Number(Option.getOrThrow(yield* Fiber.join(reading)))).toBe(42)
        expect(yield* snapshot).toMatchObject({ lost: 1, retriedReads: 1 })
      })))

  it.live("of a write: ConnectionLost with outcome unknown, and it is not run twice", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createWritten
        const writing = yield* Effect.fork(Effect.flip(db.execute(slowWrite(30))))
        yield* fixture.kill(yield* fixture.running("INSERT INTO written"))
        const error = yield* Fiber.join(writing)
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown", isRetryable: false })
        expect(error.message).toContain("may have executed")
        yield* fixture.notRunning("INSERT INTO written")
        // MySQL's SLEEP is no error when it is killed, and so the row that it is part of is written too
        expect(yield* countWritten).toBe(inject("server").flavour === "mysql" ? 2 : 1)
        expect(yield* snapshot).toMatchObject({ lost: 1, ...noRetries })
      })))

  it.live("of a write that is declared idempotent: it is run again", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const replace = `REPLACE INTO items SELECT seq + SLEEP(IF(seq = 2, 0.5, 0)) FROM ${numbers(2)}`
        const writing = yield* Effect.fork(Recovery.idempotent(db.execute(replace)))
        yield* fixture.kill(yield* fixture.running("REPLACE INTO items"))
        yield* Fiber.join(writing)
        expect(yield* items).toEqual([1, 2])
        expect(yield* snapshot).toMatchObject({ lost: 1, retriedReads: 1 })
      })))

  it.live("of a read in a session that holds state: nothing is retried", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reading = yield* Effect.fork(Effect.flip(
          Effect.zipRight(db.execute("SET @x = 1"), db.value("SELECT @x + SLEEP(30) AS slowRead"))
        ))
        yield* fixture.kill(yield* fixture.running("AS slowRead"))
        expect((yield* Fiber.join(reading))._tag).toBe("ConnectionLost")
        expect(yield* snapshot).toMatchObject({ lost: 1, ...noRetries })
      })))

  it.live("of a stream that has given rows: it fails, and does not end as if it were complete", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reached = yield* Deferred.make<void>()
        const killed = yield* Deferred.make<void>()
        let seen = 0
        const reading = yield* Effect.fork(Effect.flip(Stream.runForEach(
          db.stream(`SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000, "slowStream")}`),
          () =>
            Effect.suspend(() =>
              ++seen === 600
                ? Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(killed))
                : Effect.void
            )
        )))
        yield* Deferred.await(reached)
        yield* fixture.kill(yield* fixture.running("AS slowStream"))
        yield* Deferred.succeed(killed, undefined)
        expect((yield* Fiber.join(reading))._tag).toBe("ConnectionLost")
        expect(seen).toBeLessThan(200_000)
        expect(yield* snapshot).toMatchObject(noRetries)
      })))

  it.live("of a stream that has given nothing yet: it begins again", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reading = yield* Effect.fork(Stream.runCollect(db.stream("SELECT 42 + SLEEP(1) AS slowStream")))
        yield* fixture.kill(yield* fixture.running("AS slowStream"))
        expect(Array.from(yield* Fiber.join(reading))).toHaveLength(1)
        expect(yield* snapshot).toMatchObject({ lost: 1, retriedReads: 1 })
      })))

  it.live("by KILL QUERY: StatementCancelled, not retried, and the connection lives on", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const id = yield* connectionId
        const killing = yield* Effect.fork(
          Effect.flatMap(fixture.running("AS slowRead"), (running) => fixture.admin(`KILL QUERY ${running}`))
        )
        // a condition, since MySQL's SLEEP alone is no error when it is killed
        const read = db.value("SELECT 1 AS slowRead WHERE SLEEP(30) = 0")
        expect((yield* Effect.flip(read))._tag).toBe("StatementCancelled")
        yield* Fiber.join(killing)
        expect(yield* connectionId).toBe(id)
        expect(yield* snapshot).toMatchObject({ lost: 0, ...noRetries })
      })))
})

describe("KILL in a transaction", () => {
  it.live("between two statements: rolled back, nothing is retried, its rows are gone", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* db.execute("INSERT INTO items VALUES (1)")
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
          yield* db.execute("INSERT INTO items VALUES (2)")
        })))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(yield* items).toEqual([])
        expect(yield* snapshot).toMatchObject({ ...noRetries, held: 1 })
      })))

  it.live("in mid-statement: rolled back, since COMMIT was not sent, and nothing is retried", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const running = yield* Effect.fork(Effect.flip(db.transaction(Effect.gen(function*() {
          yield* db.execute("INSERT INTO items VALUES (1)")
          yield* Recovery.idempotent(db.value("SELECT SLEEP(30) AS inTransaction"))
        }))))
        yield* fixture.kill(yield* fixture.running("AS inTransaction"))
        expect(yield* Fiber.join(running)).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(yield* items).toEqual([])
        expect(yield* snapshot).toMatchObject(noRetries)
      })))

  it.live("before COMMIT: rolled back", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* db.execute("INSERT INTO items VALUES (1)")
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
        })))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        expect(yield* items).toEqual([])
      })))

  it.live("with its COMMIT under way: a typed error with outcome unknown, and the rows are there", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          { url: fixture.url, port: proxy.port, poolSize: 1, acquireTimeout: "5 seconds" },
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            const running = yield* Effect.fork(Effect.flip(db.transaction(
              Effect.zipLeft(db.execute("INSERT INTO items VALUES (1)"), proxy.mute)
            )))
            yield* eventually(
              "the server has committed",
              Effect.map(fixture.admin(`SELECT id FROM ${fixture.database}.items`), (rows) => rows.length === 1)
            )
            yield* proxy.cut
            expect(yield* Fiber.join(running)).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
            expect(yield* items).toEqual([1])
            expect(yield* snapshot).toMatchObject(noRetries)
          })
        )
      }))
    ))

  it.live("that a statement has committed implicitly: not called rolled back", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* db.execute("INSERT INTO items VALUES (1)")
          yield* db.execute("CREATE TABLE others (id INT)")
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
        })))
        expect(yield* items).toEqual([1])
        expect(error).toMatchObject({ _tag: "ConnectionLost" })
        expect(error).not.toMatchObject({ outcome: "rolled back" })
      })))

  it.live("opened by hand: the next statement says rolled back, and the one after is outside", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.execute("START TRANSACTION")
        yield* db.execute("INSERT INTO items VALUES (1)")
        yield* fixture.kill(yield* connectionId)
        yield* lost(1)
        const error = yield* Effect.flip(db.execute("INSERT INTO items VALUES (2)"))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
        yield* db.execute("INSERT INTO items VALUES (3)")
        expect(yield* items).toEqual([3])
      })))

  it.live("makes every connection that was open be checked before its next use", () =>
    withDb({ poolSize: 4, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const together = yield* latch(4)
        const ids = yield* Effect.forEach([1, 2, 3, 4], () => Effect.zipLeft(connectionId, together), {
          concurrency: "unbounded"
        })
        yield* fixture.kill(ids[0] as number)
        yield* lost(1)
        expect((yield* snapshot).validations).toBe(0)
        const again = yield* latch(3)
        yield* Effect.forEach([1, 2, 3], () => Effect.zipLeft(connectionId, again), { concurrency: "unbounded" })
        expect(yield* snapshot).toMatchObject({ validations: 3, lost: 1 })
      })))
})
