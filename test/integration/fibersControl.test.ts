/** What a program does with the pool by hand: release, reconnect, share, resize, invalidate, end. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import { eventually, expectAllClosed, withDb, withFixture } from "../support/dbFixture.js"
import { connectionId, idOf, inTransaction, latch, numbers, snapshot, valueOf } from "../support/dbQuestions.js"

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INT PRIMARY KEY) ENGINE = InnoDB"))

describe("db.releaseFiberConnection", () => {
  it.live("rolls back what is open and returns the connection now", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        yield* db.execute("START TRANSACTION")
        yield* db.execute("INSERT INTO items VALUES (1)")
        yield* db.releaseFiberConnection
        expect(yield* db.currentConnection).toEqual(Option.none())
        expect((yield* snapshot).held).toBe(0)
        const inChild = yield* Effect.fork(valueOf(db, "SELECT COUNT(*) FROM items"))
        expect(Number(yield* Fiber.join(inChild))).toBe(0)
        expect((yield* snapshot).created).toBe(1)
      })))

  it.live("leaves nothing of the session's state behind", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("SET @x = 1")
        yield* db.execute("START TRANSACTION")
        yield* db.releaseFiberConnection
        expect(yield* valueOf(db, "SELECT @x")).toBe(null)
        expect((yield* snapshot).resets).toBe(1)
      })))

  it.live("does nothing without a connection, twice, and inside a session", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.releaseFiberConnection
        yield* connectionId
        yield* db.releaseFiberConnection
        yield* db.releaseFiberConnection
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @x = 1")
          yield* db.releaseFiberConnection
          expect(yield* valueOf(db, "SELECT @x")).toBe(1)
        }))
      })))
})

describe("db.reconnect", () => {
  it.live("closes the fiber's connection, takes one that works, and has the others checked before use", () =>
    withDb({ poolSize: 2, acquireTimeout: "2 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const first = yield* connectionId
        yield* Effect.flatMap(Effect.fork(connectionId), Fiber.join)
        expect(yield* snapshot).toMatchObject({ idle: 1, held: 1, validations: 0 })
        yield* db.reconnect
        expect(yield* connectionId).not.toBe(first)
        expect((yield* snapshot).validations).toBe(1)
        yield* eventually(
          "the server has closed it",
          Effect.map(fixture.processes, (all) => all.every(({ id }) => id !== first))
        )
      })))

  it.live("works on a fiber without a connection, and forgets what the old one held", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.flatMap(Effect.fork(db.reconnect), Fiber.join)
        expect((yield* snapshot).held).toBe(0)
        yield* db.execute("SET @x = 1")
        yield* db.reconnect
        expect(yield* valueOf(db, "SELECT @x")).toBe(null)
      })))
})

describe("DbLayer.fromPool", () => {
  it.live("shares one pool, and a fiber's connection of it, between two databases", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const pool = yield* Effect.scoped(Effect.gen(function*() {
          const pool = yield* DbLayer.mysqlPool({ url: fixture.url, poolSize: 2, acquireTimeout: "2 seconds" })
          const one = yield* Effect.provide(Db.Db, DbLayer.fromPool(pool))
          const two = yield* Effect.provide(Db.Db, DbLayer.fromPool(pool))
          yield* one.execute("SET @x = 1")
          expect(yield* valueOf(two, "SELECT @x")).toBe(1)
          expect(yield* idOf(one)).toBe(yield* idOf(two))
          // a session of the one is joined by the other
          yield* one.session(Effect.gen(function*() {
            expect(yield* Effect.timeout(valueOf(two, "SELECT @x"), "5 seconds")).toBe(1)
          }))
          yield* one.execute("CREATE TABLE items (id INT) ENGINE = InnoDB")
          yield* Effect.ignore(
            one.transaction(Effect.zipRight(two.execute("INSERT INTO items VALUES (1)"), Effect.fail("no")))
          )
          expect(Number(yield* valueOf(two, "SELECT COUNT(*) FROM items"))).toBe(0)
          // the layer's end leaves the pool open
          yield* Effect.scoped(Layer.build(DbLayer.fromPool(pool)))
          expect(yield* pool.snapshot).toMatchObject({ phase: "Open", held: 1 })
          return pool
        }))
        expectAllClosed(yield* pool.snapshot)
      })
    ))

  it.live("keeps two pools apart: a fiber has a connection of each, and a session of one is not the other's", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const options = { url: fixture.url, poolSize: 1, acquireTimeout: "2 seconds" } as const
        const one = Db.make(yield* DbLayer.mysqlPool(options))
        const two = Db.make(yield* DbLayer.mysqlPool(options))
        yield* one.session(Effect.gen(function*() {
          yield* one.execute("SET @x = 1")
          expect(yield* valueOf(two, "SELECT @x")).toBe(null)
          yield* two.transaction(Effect.gen(function*() {
            expect(yield* idOf(one)).not.toBe(yield* idOf(two))
            expect(yield* valueOf(one, `SELECT ${inTransaction()}`)).toBe(0)
            expect(yield* valueOf(two, `SELECT ${inTransaction()}`)).toBe(1)
          }))
        }))
      }))
    ))
})

describe("pool.resize", () => {
  it.live("up and down under load: every statement completes, and the pool never has more than it may", () =>
    withDb({ poolSize: 2, acquireTimeout: "20 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        let completed = 0
        let isOver = false
        const load = yield* Effect.forEach(
          Array.from({ length: 30 }),
          () =>
            Effect.fork(Effect.whileLoop({
              while: () => !isOver,
              body: () => valueOf(db, "SELECT 1"),
              step: () => {
                completed++
              }
            }))
        )
        for (const size of [8, 1, 5, 3, 10, 2]) {
          const before = completed
          yield* pool.resize(size)
          yield* eventually(`statements complete with ${size}`, Effect.sync(() => completed > before + 50))
          yield* eventually(
            `there are at most ${size}`,
            Effect.map(pool.snapshot, ({ busy, held, idle, max, opening }) =>
              max === size && busy + held + idle + opening <= size)
          )
          yield* eventually(
            `the server has at most ${size}`,
            Effect.map(fixture.processes, (all) =>
              all.length <= size)
          )
        }
        isOver = true
        yield* Fiber.joinAll(load)
        expect(yield* pool.snapshot).toMatchObject({ waiting: 0, held: 0, timedOut: 0, lost: 0 })
      })))

  it.live("down leaves a connection in use alone until it comes back", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        yield* Effect.scoped(Effect.gen(function*() {
          const connections = [yield* db.connection, yield* db.connection]
          yield* pool.resize(1)
          for (const connection of connections) expect(String(yield* idOf(connection))).toBe(connection.id)
        }))
        yield* eventually(
          "at most one is left",
          Effect.map(pool.snapshot, ({ busy, held, idle }) => held + idle + busy <= 1)
        )
        yield* connectionId
        expect(yield* pool.snapshot).toMatchObject({ max: 1, held: 1, idle: 0 })
      })))

  it.live("to what cannot be is InvalidConfig, and changes nothing", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const pool = yield* ConnectionPool.ConnectionPool
        for (const size of [0, -1, 1.5, Number.NaN, Infinity]) {
          expect((yield* Effect.flip(pool.resize(size)))._tag).toBe("InvalidConfig")
        }
        expect((yield* pool.snapshot).max).toBe(2)
      })))
})

describe("pool.invalidateAll", () => {
  it.live("has every open connection checked once before its next use", () =>
    withDb({ poolSize: 3 }, () =>
      Effect.gen(function*() {
        const pool = yield* ConnectionPool.ConnectionPool
        const own = yield* connectionId
        const together = yield* latch(2)
        yield* Effect.forEach([1, 2], () => Effect.zipLeft(connectionId, together), { concurrency: 2 })
        yield* pool.invalidateAll
        const again = yield* latch(2)
        yield* connectionId
        yield* Effect.forEach([1, 2], () => Effect.zipLeft(connectionId, again), { concurrency: 2 })
        expect(yield* pool.snapshot).toMatchObject({ validations: 3, created: 3, lost: 0 })
        expect(yield* connectionId).toBe(own)
      })))

  it.live("leaves session state alone", () =>
    withDb({ poolSize: 1 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        yield* db.execute("SET @x = 1")
        yield* pool.invalidateAll
        expect(yield* valueOf(db, "SELECT @x")).toBe(1)
      })))
})

describe("the end of the layer", () => {
  it.live("lets running work finish and refuses new", () =>
    withDb({ poolSize: 2, drainTimeout: "10 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        const running = yield* Effect.fork(valueOf(db, "SELECT 7 + SLEEP(0.5) AS draining"))
        yield* fixture.running("AS draining")
        const report = yield* pool.closeAll
        expect(report.cut).toEqual([])
        expect(Number(yield* Fiber.join(running))).toBe(7)
        expect((yield* Effect.flip(db.value("SELECT 1")))._tag).toBe("PoolClosed")
        expectAllClosed(yield* pool.snapshot)
      })))

  it.live("cuts after drainTimeout what still runs, and says what it was", () =>
    withDb({ poolSize: 3, drainTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        yield* createItems
        yield* db.releaseFiberConnection
        const reading = yield* Effect.fork(Effect.flip(db.value("SELECT 1 AS cutOff WHERE SLEEP(30) = 0")))
        const writing = yield* Effect.fork(Effect.flip(db.execute("INSERT INTO items SELECT 1 WHERE SLEEP(30) = 0")))
        yield* fixture.running("AS cutOff")
        yield* fixture.running("INSERT INTO items")
        const scope = yield* Scope.make()
        const explicit = yield* Scope.extend(db.connection, scope)
        const report = yield* pool.closeAll
        expect(report.cut.join("; ")).toContain("a statement is running")
        expect(report.cut.join("; ")).toContain("an explicit connection")
        expect((yield* Fiber.join(reading))._tag).toBe("StatementCancelled")
        expect((yield* Fiber.join(writing))._tag).toBe("StatementCancelled")
        expect(yield* fixture.admin(`SELECT id FROM ${fixture.database}.items`)).toEqual([])
        expect((yield* Effect.flip(explicit.value("SELECT 1")))._tag).toBe("ConnectionLost")
        yield* Scope.close(scope, Exit.void)
        expectAllClosed(yield* pool.snapshot)
      })))

  it.live("cuts a stream that is being read: it fails, and does not end as if it were complete", () =>
    withDb({ poolSize: 1, drainTimeout: 100 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        const reached = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        let seen = 0
        const reading = yield* Effect.fork(Effect.exit(Stream.runForEach(
          db.stream(`SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000)}`),
          () =>
            Effect.suspend(() =>
              ++seen === 600 ? Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(goOn)) : Effect.void
            )
        )))
        yield* Deferred.await(reached)
        expect((yield* pool.closeAll).cut).toHaveLength(1)
        yield* Deferred.succeed(goOn, undefined)
        const exit = yield* Fiber.join(reading)
        expect(seen).toBeLessThan(200_000)
        expect(Exit.isFailure(exit)).toBe(true)
      })))

  it.live("serves who waits already", () =>
    withDb({ poolSize: 1, drainTimeout: "10 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const pool = yield* ConnectionPool.ConnectionPool
        const running = yield* Effect.fork(valueOf(db, "SELECT SLEEP(0.3) AS draining"))
        yield* fixture.running("AS draining")
        const waits = yield* Effect.fork(valueOf(db, "SELECT 9"))
        yield* eventually("it waits", Effect.map(pool.snapshot, ({ waiting }) => waiting === 1))
        yield* pool.closeAll
        yield* Fiber.join(running)
        expect(yield* Fiber.join(waits)).toBe(9)
      })))
})
