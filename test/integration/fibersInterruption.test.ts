/** Interrupted statements, streams that end early and streams that end late. */
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import { eventually, withDb, withFixture, withLayer } from "../support/dbFixture.js"
import { connectionId, idOf, numbers, snapshot, valueOf } from "../support/dbQuestions.js"

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const started = performance.now()
    return Effect.map(effect, (value) => ({ value, millis: performance.now() - started }))
  })

const createItems = Effect.flatMap(
  Db.Db,
  (db) => db.execute("CREATE TABLE items (id INT) ENGINE = InnoDB")
)

describe("an interrupted statement", () => {
  it.live("returns in a few milliseconds, and is gone from the server", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const took: Array<number> = []
        for (let round = 0; round < 5; round++) {
          const running = yield* Effect.fork(db.value("SELECT SLEEP(30) AS interrupted"))
          yield* fixture.running("AS interrupted")
          took.push((yield* timed(Fiber.interrupt(running))).millis)
          yield* fixture.notRunning("AS interrupted")
        }
        process.stdout.write(`interruption took ${took.map((millis) => millis.toFixed(1)).join(", ")} ms\n`)
        expect(Math.min(...took)).toBeLessThan(500)
        yield* eventually(
          "its connection is idle again",
          Effect.map(snapshot, ({ busy, held }) => busy === 0 && held === 0)
        )
        expect(yield* snapshot).toMatchObject({ cancelled: 5, lost: 0, created: 1 })
      })))

  it.live("by a timeout returns in time, and the next statement of the fiber works", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const { millis, value } = yield* timed(Effect.timeoutOption(db.value("SELECT SLEEP(30) AS timedOut"), 200))
        expect(value).toEqual(Option.none())
        expect(millis).toBeLessThan(5000)
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
        yield* fixture.notRunning("AS timedOut")
      })))

  it.live("inside its own fiber leaves the fiber its connection", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const child = yield* Effect.fork(Effect.gen(function*() {
          yield* db.execute("SET @x = 1")
          // the finalizer runs in the fiber whose statement was interrupted
          yield* Effect.onInterrupt(db.value("SELECT SLEEP(30) AS interrupted"), () =>
            Effect.orDie(Effect.map(valueOf(db, "SELECT @x"), (x) => expect(x).toBe(1))))
        }))
        yield* fixture.running("AS interrupted")
        expect(Exit.isInterrupted(yield* Fiber.interrupt(child))).toBe(true)
        expect(yield* valueOf(db, "SELECT @x")).toBe(null)
      })))

  it.live("that writes leaves nothing of its work", () =>
    withDb({ poolSize: 2, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const running = yield* Effect.fork(db.execute(`INSERT INTO items SELECT seq + SLEEP(30) FROM ${numbers(3)}`))
        yield* fixture.running("INSERT INTO items")
        yield* Fiber.interrupt(running)
        yield* fixture.notRunning("INSERT INTO items")
        expect(Number(yield* valueOf(db, "SELECT COUNT(*) FROM items"))).toBe(0)
      })))

  it.live("never hits the next one on its connection, however fast they follow", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        for (let round = 0; round < 100; round++) {
          const running = yield* Effect.fork(db.value("SELECT SLEEP(0.002)"))
          yield* Effect.sleep(round % 5)
          yield* Fiber.interrupt(running)
          expect(yield* valueOf(db, "SELECT 42 + SLEEP(0.001)")).toBe(42)
        }
        expect(yield* snapshot).toMatchObject({ waiting: 0, lost: 0 })
      })))

  it.live("many at once: all return, nothing runs on, and the pool is as before", () =>
    withDb({ poolSize: 10, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const running = yield* Effect.forEach(
          Array.from({ length: 30 }),
          () => Effect.fork(db.value("SELECT SLEEP(30) AS many"))
        )
        yield* eventually(
          "ten run",
          Effect.map(fixture.processes, (all) => all.filter(({ info }) => info?.includes("AS many")).length === 10)
        )
        const { millis } = yield* timed(Fiber.interruptAll(running))
        expect(millis).toBeLessThan(5000)
        yield* fixture.notRunning("AS many")
        yield* eventually("all idle", Effect.map(snapshot, ({ busy, held, waiting }) => busy + held + waiting === 0))
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
      })))

  it.live("is stopped by closing its connection when cancelQueries is off", () =>
    withFixture((fixture) =>
      withLayer(
        { url: fixture.url, poolSize: 1, acquireTimeout: "5 seconds", cancelQueries: false },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const running = yield* Effect.fork(db.value("SELECT SLEEP(1) AS interrupted"))
          yield* fixture.running("AS interrupted")
          yield* Fiber.interrupt(running)
          expect(yield* valueOf(db, "SELECT 1")).toBe(1)
          expect((yield* snapshot).created).toBe(2)
        })
      )
    ))
})

describe("a stream", () => {
  it.live("of 100,000 rows is complete and in order, on a pool of 1 with the parent's connection in it", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* connectionId
        const { next, sum } = yield* Stream.runFold(
          db.stream<{ seq: number }>(`SELECT seq FROM ${numbers(100_000)}`),
          { next: 1, sum: 0 },
          ({ next, sum }, { seq }) => {
            if (Number(seq) !== next) throw new Error(`row ${seq} instead of ${next}`)
            return { next: next + 1, sum: sum + next }
          }
        )
        expect({ next, sum }).toEqual({ next: 100_001, sum: 5_000_050_000 })
        expect(yield* snapshot).toMatchObject({ created: 1, cancelled: 0, idle: 1 })
      })))

  it.live("of 100,000 rows with a slow consumer and statements in between is complete", () =>
    withDb({ poolSize: 2, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const count = yield* Stream.runFoldEffect(
          Stream.rechunk(db.stream<{ seq: number }>(`SELECT seq FROM ${numbers(100_000)}`), 10_000).pipe(Stream.chunks),
          0,
          (count, chunk) => Effect.as(connectionId, count + Chunk.size(chunk))
        )
        expect(count).toBe(100_000)
      })))

  it.live("of which three are taken stops the server's statement", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const large = `SELECT a.seq, REPEAT('x', 1000) AS filler FROM ${numbers(10_000, "a")}, ${
          numbers(10_000, "large")
        }`
        const { millis, value } = yield* timed(Stream.runCollect(Stream.take(db.stream<{ seq: number }>(large), 3)))
        expect(Array.from(value)).toHaveLength(3)
        expect(millis).toBeLessThan(5000)
        yield* fixture.notRunning("AS large")
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
        expect(yield* snapshot).toMatchObject({ created: 1, cancelled: 1, lost: 0 })
      })))

  it.live("whose consumer fails, dies or is interrupted stops the server's statement", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const large = db.stream(
          `SELECT a.seq, REPEAT('x', 1000) AS filler FROM ${numbers(10_000, "a")}, ${numbers(10_000, "large")}`
        )
        yield* Effect.exit(Stream.runForEach(large, () => Effect.fail("no")))
        yield* fixture.notRunning("AS large")
        yield* Effect.exit(Stream.runForEach(large, () => Effect.die("no")))
        yield* fixture.notRunning("AS large")
        const reached = yield* Deferred.make<void>()
        const reading = yield* Effect.fork(
          Stream.runForEach(large, () => Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never))
        )
        yield* Deferred.await(reached)
        yield* Fiber.interrupt(reading)
        yield* fixture.notRunning("AS large")
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
        expect(yield* snapshot).toMatchObject({ cancelled: 3, lost: 0 })
      })))

  it.live("reads nothing ahead while nobody asks", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const reached = yield* Deferred.make<void>()
        const goOn = yield* Deferred.make<void>()
        const reading = yield* Effect.fork(Stream.runFoldEffect(
          db.stream(`SELECT seq, REPEAT('x', 1000) AS filler FROM ${numbers(100_000, "patient")}`),
          0,
          (count) =>
            count === 0
              ? Effect.as(Effect.zipRight(Deferred.succeed(reached, undefined), Deferred.await(goOn)), 1)
              : Effect.succeed(count + 1)
        ))
        yield* Deferred.await(reached)
        // 100 MB do not fit in between: the server is still at it
        expect(yield* fixture.running("AS patient")).toBeGreaterThan(0)
        yield* Deferred.succeed(goOn, undefined)
        expect(yield* Fiber.join(reading)).toBe(100_000)
      })))

  it.live("that fails at once, and one without rows", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const error = yield* Effect.flip(Stream.runCollect(db.stream("SELECT nothing FROM nowhere")))
        expect(error).toMatchObject({ _tag: "SqlSyntaxError", errno: 1146 })
        expect(Array.from(yield* Stream.runCollect(db.stream("SELECT 1 FROM DUAL WHERE 1 = 0")))).toEqual([])
        expect(yield* snapshot).toMatchObject({ idle: 1, held: 0, cancelled: 0 })
      })))

  it.live("on a shared connection makes its other statements ConnectionBusy until it has ended", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        const tags: Array<string> = []
        yield* Stream.runForEach(
          Stream.take(connection.stream(`SELECT seq FROM ${numbers(1_000_000)}`), 2),
          () => Effect.map(Effect.flip(connection.value("SELECT 1")), ({ _tag }) => void tags.push(_tag))
        )
        expect(tags).toEqual(["ConnectionBusy", "ConnectionBusy"])
        expect(yield* valueOf(connection, "SELECT 1")).toBe(1)
        yield* connection.release
        yield* db.session(Effect.gen(function*() {
          yield* Stream.runForEach(
            Stream.take(db.stream(`SELECT seq FROM ${numbers(1_000_000)}`), 1),
            () => Effect.map(Effect.flip(db.value("SELECT 1")), ({ _tag }) => void tags.push(_tag))
          )
          expect(yield* valueOf(db, "SELECT 1")).toBe(1)
        }))
        expect(tags.at(-1)).toBe("ConnectionBusy")
      }))))

  it.live("whose explicit connection is released under it fails, and does not end as if it were complete", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        let seen = 0
        const exit = yield* Effect.exit(Stream.runForEach(
          connection.stream(`SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000)}`),
          () => Effect.suspend(() => ++seen === 600 ? connection.release : Effect.void)
        ))
        expect(seen).toBeLessThan(200_000)
        expect(Exit.isFailure(exit)).toBe(true)
        expect(yield* valueOf(db, "SELECT 1")).toBe(1)
      }))))

  it.live("whose explicit connection is invalidated under it fails", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.scoped(Effect.gen(function*() {
        const db = yield* Db.Db
        const connection = yield* db.connection
        const id = yield* idOf(connection)
        let seen = 0
        const exit = yield* Effect.exit(Stream.runForEach(
          connection.stream(`SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000)}`),
          () => Effect.suspend(() => ++seen === 600 ? connection.invalidate : Effect.void)
        ))
        expect(seen).toBeLessThan(200_000)
        expect(Exit.isFailure(exit)).toBe(true)
        expect(yield* connectionId).not.toBe(id)
      }))))
})
