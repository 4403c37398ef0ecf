import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { connectionId, idOf, numbers, snapshot, valueOf } from "../support/dbQuestions.js"

const marked = Effect.flatMap(Db.Db, (db) => valueOf(db, "SELECT @marked"))

describe("db.session on a pool of 1", () => {
  it.live("shows a user variable inside Effect.timeout, Effect.race, a concurrent forEach and a stream", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @marked = 7")
          expect(yield* Effect.timeout(marked, "5 seconds")).toBe(7)
          expect(yield* Effect.race(marked, marked)).toBe(7)
          expect(yield* Effect.forEach(Array.from({ length: 100 }), () => marked, { concurrency: "unbounded" }))
            .toEqual(Array.from({ length: 100 }, () => 7))
          const rows = yield* Stream.runCollect(db.stream<{ marked: number }>("SELECT @marked AS marked"))
          expect(Array.from(rows)).toEqual([{ marked: 7 }])
          expect(yield* marked).toBe(7)
        }))
      })))

  it.live("shows a variable that was set before the session, and its own afterwards, to the same fiber", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("SET @marked = 1")
        const outside = yield* connectionId
        yield* db.session(Effect.gen(function*() {
          expect(yield* connectionId).toBe(outside)
          expect(yield* Effect.timeout(marked, "5 seconds")).toBe(1)
          yield* Effect.timeout(db.execute("SET @marked = 2"), "5 seconds")
        }))
        expect(yield* marked).toBe(2)
        expect(yield* connectionId).toBe(outside)
      })))

  it.live("joins a session inside, in a forked fiber too, and goes on after the inner one has ended", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const ids = yield* db.session(Effect.gen(function*() {
          const outer = yield* connectionId
          const inner = yield* db.session(connectionId)
          const forked = yield* Effect.timeout(db.session(Effect.timeout(connectionId, "5 seconds")), "5 seconds")
          return [outer, inner, forked, yield* connectionId]
        }))
        expect(new Set(ids).size).toBe(1)
      })))

  it.live("gives its connection back when the fiber ends, without what it held", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.timeout(db.session(db.execute("SET @marked = 3")), "5 seconds")
        expect((yield* snapshot).held).toBe(0)
        expect(yield* marked).toBe(null)
      })))

  it.live("ends a statement that waits for its turn, and one that runs, with the fiber that is interrupted", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @marked = 4")
          const runs = yield* Effect.fork(db.value("SELECT SLEEP(30) AS runs"))
          yield* fixture.running("AS runs")
          const waits = yield* Effect.fork(db.value("SELECT SLEEP(30) AS waits"))
          yield* Effect.yieldNow()
          yield* Fiber.interrupt(waits)
          yield* Fiber.interrupt(runs)
          // the same session goes on
          expect(yield* marked).toBe(4)
        }))
        expect(yield* snapshot).toMatchObject({ created: 1, cancelled: 1, held: 1 })
      })))
})

describe("a fiber that outlives its session", () => {
  it.live("gets SessionEnded, and never the connection of whoever has it now", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const ended = yield* Deferred.make<void>()
        const daemon = yield* db.session(Effect.forkDaemon(Effect.zipRight(
          Deferred.await(ended),
          Effect.all([
            Effect.flip(db.value("SELECT 1")),
            Effect.flip(db.execute("DO 1")),
            Effect.flip(Stream.runCollect(db.stream("SELECT 1"))),
            Effect.flip(db.transaction(db.value("SELECT 1"))),
            Effect.flip(db.session(db.value("SELECT 1")))
          ])
        )))
        yield* Deferred.succeed(ended, undefined)
        const errors = yield* Fiber.join(daemon)
        expect(errors.map(({ _tag }) => _tag)).toEqual(Array.from({ length: 5 }, () => "SessionEnded"))
        expect(errors[0]?.message).toContain("forked outside")
        // what does not belong to the session it can still have
        expect(yield* valueOf(db, "SELECT 5")).toBe(5)
      })))

  it.live("has its running statement stopped, and its waiting one refused", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const [runs, waits] = yield* db.session(Effect.gen(function*() {
          const first = yield* Effect.forkDaemon(Effect.flip(db.value("SELECT 1 AS outlives WHERE SLEEP(30) = 0")))
          yield* fixture.running("AS outlives")
          const second = yield* Effect.forkDaemon(Effect.flip(db.value("SELECT 2")))
          yield* Effect.yieldNow()
          return [first, second] as const
        }))
        expect((yield* Fiber.join(waits))._tag).toBe("SessionEnded")
        expect((yield* Fiber.join(runs))._tag).toBe("StatementCancelled")
        yield* fixture.notRunning("AS outlives")
        expect(yield* valueOf(db, "SELECT 6")).toBe(6)
      })))
})

describe("a stream in a fiber that outlives its session", () => {
  it.live("fails, and does not end as if it were complete", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reached = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        let seen = 0
        const daemon = yield* db.session(Effect.zipLeft(
          Effect.forkDaemon(Effect.exit(Stream.runForEach(
            db.stream(`SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000)}`),
            () =>
              Effect.suspend(() =>
                ++seen === 600
                  ? Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(goOn))
                  : Effect.void
              )
          ))),
          Deferred.await(reached)
        ))
        yield* Deferred.succeed(goOn, undefined)
        const exit = yield* Fiber.join(daemon)
        expect(seen).toBeLessThan(200_000)
        expect(Exit.isFailure(exit)).toBe(true)
      })))
})

describe("db.connection", () => {
  it.live("inside a session is a connection of its own", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.session(Effect.scoped(Effect.gen(function*() {
          yield* db.execute("SET @marked = 1")
          const connection = yield* db.connection
          expect(yield* idOf(connection)).not.toBe(yield* connectionId)
          expect(yield* valueOf(connection, "SELECT @marked")).toBe(null)
          expect(connection.id).toBe(String(yield* idOf(connection)))
          expect(yield* marked).toBe(1)
        })))
      })))

  it.live("is the same for the fibers it is handed to, one statement at a time", () =>
    withDb({ poolSize: 1 }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        yield* connection.execute("SET @counted = 0")
        const ids = yield* Effect.forEach(
          Array.from({ length: 50 }),
          () => Effect.zipRight(connection.execute("SET @counted = @counted + 1"), idOf(connection)),
          { concurrency: "unbounded" }
        )
        expect(new Set(ids).size).toBe(1)
        expect(Number(yield* valueOf(connection, "SELECT @counted"))).toBe(50)
      }))))

  it.live("goes back before its scope ends when it is released, and using it then is a defect that says where", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        yield* connection.execute("SET @marked = 1")
        yield* connection.release
        yield* connection.release
        expect(yield* marked).toBe(null)
        const cause = yield* Effect.sandbox(connection.value("SELECT 1")).pipe(Effect.flip)
        expect(cause._tag).toBe("Die")
        expect(String(cause)).toContain("connection.release")
      }))))

  it.live("that is invalidated is closed and replaced", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        yield* connection.invalidate
        expect(String(yield* connectionId)).not.toBe(connection.id)
        yield* eventually(
          "the server has closed it",
          Effect.map(fixture.processes, (all) => all.every(({ id }) => String(id) !== connection.id))
        )
      }))))
})

describe("a session and the fiber's own connection", () => {
  it.live("leave nothing held when the fiber asks for db.reconnect inside the session", () =>
    withDb({ poolSize: 3, acquireTimeout: 500 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.fork(db.session(Effect.zipRight(db.reconnect, db.value("SELECT 1")))).pipe(
          Effect.flatMap(Fiber.join)
        )
        expect((yield* snapshot).held).toBe(0)
      })))

  it.live("leave nothing held when the session's fiber is interrupted while it waits for a connection", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          yield* db.connection
          const waits = yield* Effect.fork(db.session(db.value("SELECT 1")))
          yield* eventually("it waits", Effect.map(snapshot, ({ waiting }) => waiting === 1))
          yield* Fiber.interrupt(waits)
          expect(yield* snapshot).toMatchObject({ waiting: 0, held: 1, abandoned: 1 })
        }))
        expect(Option.getOrThrow(yield* db.value("SELECT 8"))).toBe(8)
      })))
})
