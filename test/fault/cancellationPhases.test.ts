/** Fibers that are interrupted while something else than a statement goes on for them, and statements that run too long. */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import { closed, idle, interrupt, kills, scene } from "../support/cancellation.js"
import { eventually } from "../support/dbFixture.js"
import { connectionId, numbers, snapshot } from "../support/dbQuestions.js"

/** The whole packet of a command without arguments. */
const command = (number: number): string => String.fromCharCode(1, 0, 0, 0, number)
const ping = command(0x0e)
const reset = command(0x1f)
const waiting = (count: number) => eventually(`${count} wait`, Effect.map(snapshot, (now) => now.waiting === count))

describe("a fiber that is interrupted", () => {
  it.live("while it waits for a connect that is not answered goes at once; the next one is served when it is", () =>
    scene({ poolSize: 1, connectTimeout: 500 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.newcomers("stall")
        for (
          const work of [db.value("SELECT 1"), db.session(db.value("SELECT 1")), db.transaction(db.value("SELECT 1"))]
        ) {
          const waiter = yield* Effect.fork(work)
          yield* waiting(1)
          expect(yield* interrupt(waiter, loop)).toBeLessThan(100)
          yield* waiting(0)
        }
        const reader = yield* Effect.fork(Stream.runDrain(db.stream("SELECT 1")))
        yield* waiting(1)
        expect(yield* interrupt(reader, loop)).toBeLessThan(100)
        proxy.newcomers("forward")
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 1, waiting: 0, abandoned: 4 })
      })))

  it.live("while its connection is validated goes at once, and the connection serves the next", () =>
    scene(
      { poolSize: 1, validateAfter: 50, validationTimeout: "5 seconds" },
      ({ db, loop, proxy }) =>
        Effect.gen(function*() {
          const id = yield* connectionId
          yield* db.releaseFiberConnection
          yield* Effect.sleep(100)
          proxy.rule({ text: ping, delayAnswer: 300, times: 1 })
          const waiter = yield* Effect.fork(db.value("SELECT 1"))
          yield* eventually("it is validated", Effect.sync(() => proxy.applied() === 1))
          expect(yield* interrupt(waiter, loop)).toBeLessThan(100)
          expect(yield* connectionId).toBe(id)
          expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 0 })
        })
    ))

  it.live("while a connection is reset for it goes at once, and the next one finds it pristine", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: reset, delayAnswer: 300, times: 1 })
        yield* db.execute("SET @mine = 7")
        const waiter = yield* Effect.fork(db.value("SELECT 1"))
        yield* waiting(1)
        yield* db.releaseFiberConnection
        yield* eventually("it is reset", Effect.sync(() => proxy.applied() === 1))
        expect(yield* interrupt(waiter, loop)).toBeLessThan(100)
        expect(yield* db.value("SELECT @mine IS NULL")).toEqual(Option.some(1))
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 0, resets: 1 })
      })))

  it.live("while it waits for its turn in a session goes at once, and was never sent", () =>
    scene({ poolSize: 1 }, ({ db, fixture, loop, proxy }) =>
      db.session(Effect.gen(function*() {
        const first = yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS first"))
        yield* fixture.running("AS first")
        const second = yield* Effect.fork(db.value("SELECT 'never sent'"))
        yield* Effect.sleep(20)
        expect(yield* interrupt(second, loop)).toBeLessThan(100)
        expect(yield* Fiber.join(first)).toEqual(Option.some(0))
        expect(proxy.passed.filter(({ text }) => text.includes("never sent"))).toEqual([])
        expect(kills(proxy)).toBe(0)
      }))))

  it.live("while it waits to run its statement again goes at once", () =>
    scene({ poolSize: 1, recovery: Schedule.spaced("1 hour") }, ({ db, fixture, loop }) =>
      Effect.gen(function*() {
        const reader = yield* Effect.fork(db.value("SELECT SLEEP(30) AS lost"))
        yield* fixture.kill(yield* fixture.running("AS lost"))
        yield* closed(1)
        expect(yield* interrupt(reader, loop)).toBeLessThan(100)
        expect(Exit.isInterrupted(yield* Fiber.await(reader))).toBe(true)
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
      })))
})

describe("a statement that runs too long", () => {
  it.live("by the pool's limit is stopped on the server, and its connection lives on", () =>
    scene({ poolSize: 1, statementTimeout: 200 }, ({ db, fixture }) =>
      Effect.gen(function*() {
        const id = yield* connectionId
        const from = performance.now()
        const error = yield* Effect.flip(db.value("SELECT SLEEP(30) AS victim"))
        process.stdout.write(`told after ${(performance.now() - from).toFixed(0)} ms of 200\n`)
        expect(error).toBeInstanceOf(DbErrors.StatementTimeoutError)
        expect((yield* fixture.processes).filter(({ info }) => info?.includes("AS victim"))).toEqual([])
        expect(yield* db.value("SELECT SLEEP(0.1)")).toEqual(Option.some(0))
        expect(yield* connectionId).toBe(id)
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 1 })
      })))

  it.live("by its effect's limit, which wins over the pool's, shorter or longer or none", () =>
    scene({ poolSize: 1, statementTimeout: 300 }, ({ db }) =>
      Effect.gen(function*() {
        const sleep = (seconds: number) => db.value(`SELECT SLEEP(${seconds})`)
        const told = Effect.flip(Db.withStatementTimeout(sleep(0.25), 100))
        expect(yield* told).toMatchObject({ _tag: "StatementTimeoutError" })
        expect(yield* Db.withStatementTimeout(sleep(0.5), "5 seconds")).toEqual(Option.some(0))
        expect(yield* Db.withStatementTimeout(sleep(0.5), Infinity)).toEqual(Option.some(0))
        expect(yield* Effect.flip(sleep(0.5))).toMatchObject({ _tag: "StatementTimeoutError" })
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 2 })
      })))

  it.live("in a transaction rolls it back; one that writes leaves nothing; by the client it is the cause", () =>
    scene({ poolSize: 1, statementTimeout: 300 }, ({ db, fixture }) =>
      Effect.gen(function*() {
        yield* db.execute("CREATE TABLE items (id BIGINT) ENGINE = InnoDB")
        const slow = db.execute(`INSERT INTO items SELECT seq + SLEEP(0.05) FROM ${numbers(1000, "victim")}`)
        const works = [slow, db.transaction(Effect.zipRight(db.execute("INSERT INTO items VALUES (1)"), slow))]
        for (const work of works) {
          expect(yield* Effect.flip(work)).toMatchObject({ _tag: "StatementTimeoutError" })
          expect(yield* db.list("SELECT id FROM items")).toEqual([])
        }
        const sql = yield* SqlClient.SqlClient
        const error = yield* Effect.flip(sql`SELECT SLEEP(30) AS victim`)
        expect(error.cause).toMatchObject({ _tag: "StatementTimeoutError" })
        yield* fixture.notRunning("AS victim")
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 3 })
      })))

  it.live("as a stream that waits for rows fails after those that came, and its connection lives on", () =>
    scene({ poolSize: 1, statementTimeout: 300 }, ({ db, fixture }) =>
      Effect.gen(function*() {
        let seen = 0
        const error = yield* Effect.flip(Stream.runForEach(
          db.stream(`SELECT seq, REPEAT('x', 1000), SLEEP(IF(seq > 2000, 30, 0)) FROM ${numbers(3000, "victim")}`),
          () => Effect.sync(() => void seen++)
        ))
        expect(error).toMatchObject({ _tag: "StatementTimeoutError" })
        expect(seen).toBeGreaterThan(0)
        expect(seen).toBeLessThanOrEqual(2000)
        yield* fixture.notRunning("AS victim")
        expect(yield* db.value("SELECT SLEEP(0.1)")).toEqual(Option.some(0))
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 1 })
      })))

  it.live("and cannot be stopped is lost with its connection: a write is unknown, and the next one has another", () =>
    scene(
      { poolSize: 1, statementTimeout: 200, cancelTimeout: 200 },
      ({ db, fixture, proxy }) =>
        Effect.gen(function*() {
          yield* fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT)`)
          proxy.rule({ text: "KILL QUERY", instead: "swallow" })
          const error = yield* Effect.flip(db.execute("INSERT INTO items SELECT 1 + SLEEP(1) AS victim"))
          expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
          yield* closed(1)
          expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
          yield* db.releaseFiberConnection
          yield* idle(1)
          yield* fixture.notRunning("AS victim")
          expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
        })
    ))
})
