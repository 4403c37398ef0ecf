/** The spans of `db`: what they say of a statement and of the wait for a connection, and when there are none. */
import { describe, expect, it } from "@effect/vitest"
import { Context, DefaultServices, Deferred, Effect, Fiber, Stream, TestClock, Tracer } from "effect"
import { inspect } from "node:util"
import { vi } from "vitest"
import * as Db from "../../src/Db.js"
import { joinAfter, settle, withPool } from "../support/poolFixture.js"
import { recording } from "../support/recording.js"

const database = { "db.system.name": "mysql" }
/** The spans of the statements alone. */
const statements = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(recording(effect), (spans) => spans.filter(({ name }) => name === "sql.execute"))

const execute = { name: "sql.execute", kind: "client", events: [], error: "", succeeded: true }

describe("a statement's span", () => {
  it.effect("says which database it is and by which text, on whichever connection", () =>
    withPool({ poolSize: 2 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const attributes = { ...database, "db.query.text": "SELECT id" }
        const one = { ...execute, parent: "mine", attributes }
        const ways: Record<string, Effect.Effect<unknown, unknown>> = {
          own: db.value("SELECT id"),
          session: db.session(db.values("SELECT id")),
          transaction: db.transaction(db.execute("SELECT id")),
          connection: Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.list("SELECT id")))
        }
        for (const [way, effect] of Object.entries(ways)) {
          expect([way, ...(yield* statements(Effect.withSpan(effect, "mine")))]).toEqual([way, one])
        }
        const connection = Effect.flatMap(db.connection, (connection) => Stream.runDrain(connection.stream("ROWS 5")))
        for (const stream of [Stream.runDrain(db.stream("ROWS 5")), Effect.scoped(connection)]) {
          expect(yield* statements(stream)).toEqual([
            { ...execute, parent: undefined, attributes: { ...database, "db.query.text": "ROWS 5" } }
          ])
        }
      })))

  it.effect("says why its statement failed, by the error's tag and the server's number", () =>
    withPool({ poolSize: 1 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const [span] = yield* joinAfter(yield* Effect.fork(statements(db.execute("READ ONLY"))), 60_000)
        expect(span).toMatchObject({ succeeded: false, error: expect.stringContaining("ReadOnlyError: ") })
        expect(span?.attributes).toEqual({
          ...database,
          "db.query.text": "READ ONLY",
          "error.type": "ReadOnlyError",
          "db.response.status_code": "1290"
        })
        const [lost] = yield* statements(Stream.runDrain(db.stream("ROWS 4 THEN LOSE")))
        expect(lost).toMatchObject({ succeeded: false })
        expect(lost?.attributes).toMatchObject({ "error.type": "ConnectionLost" })
        expect(Object.keys(lost?.attributes ?? {})).not.toContain("db.response.status_code")
      })))

  it.effect("holds all runs of a statement that is run again", () =>
    withPool({ poolSize: 1 }, ({ fake, pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        yield* db.value("SELECT id")
        const running = yield* Effect.fork(statements(db.value("LOSE UNSENT")))
        const spans = yield* joinAfter(running, 60_000)
        expect(spans.map(({ succeeded }) => succeeded)).toEqual([false])
        expect(fake.sent.filter(({ sql }) => sql === "LOSE UNSENT").length).toBeGreaterThan(1)
      })))

  it.effect("never holds the value of a parameter", () =>
    withPool({ poolSize: 1 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const value = "s3cr3t"
        const spans = yield* statements(Effect.all([
          db.execute("INSERT INTO t VALUES (?)", [value]),
          Effect.either(db.execute("INSERT INTO t VALUES (:value)", { value, other: value })),
          Stream.runDrain(db.stream("SELECT ?", [value]))
        ]))
        expect(spans.map(({ attributes }) => attributes["db.query.text"])).toEqual([
          "INSERT INTO t VALUES (?)",
          "INSERT INTO t VALUES (?)",
          "SELECT ?"
        ])
        expect(inspect(spans, { depth: Infinity })).not.toContain(value)
      })))

  it.effect("ends with an interrupted statement, and with a stream that is left early", () =>
    withPool({ poolSize: 1 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const interrupted = Effect.flatMap(
          Effect.fork(db.execute("SLEEP 1000")),
          (fiber) => Effect.zipRight(Effect.sleep(100), Fiber.interrupt(fiber))
        )
        const ends = (effect: Effect.Effect<unknown, unknown>) =>
          Effect.gen(function*() {
            const spans = yield* joinAfter(yield* Effect.fork(statements(effect)), 5_000)
            return spans.map(({ attributes, succeeded }) => [succeeded, attributes["error.type"]])
          })
        expect(yield* ends(interrupted)).toEqual([[false, undefined]])
        expect(yield* ends(Stream.runDrain(Stream.take(db.stream("ROWS 9"), 2)))).toEqual([[true, undefined]])
      })))
})

describe("the span of a wait for a connection", () => {
  it.effect("is opened for who is not served at once, below that of its statement", () =>
    withPool({ poolSize: 1 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const done = yield* Deferred.make<void>()
        const holder = yield* Effect.fork(db.session(Effect.zipRight(db.value("SELECT id"), Deferred.await(done))))
        yield* settle
        const waiter = yield* Effect.fork(recording(db.value("SELECT id")))
        yield* TestClock.adjust(100)
        yield* Deferred.succeed(done, undefined)
        yield* Fiber.join(holder)
        const spans = yield* Fiber.join(waiter)
        expect(spans.map(({ kind, name, parent }) => [name, kind, parent])).toEqual([
          ["sql.acquire", "internal", "sql.execute"],
          ["sql.execute", "client", undefined]
        ])
        expect(spans[0]?.attributes).toEqual({ ...database, "db.client.connection.pool.name": "test" })
        // the connection is there now
        expect((yield* recording(db.value("SELECT id"))).map(({ name }) => name)).toEqual(["sql.execute"])
      })))

  it.effect("fails as the wait does", () =>
    withPool({ poolSize: 1, acquireTimeout: 1_000 }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        const holder = yield* Effect.fork(db.session(Effect.zipRight(db.value("SELECT id"), Effect.never)))
        yield* settle
        const waiter = yield* Effect.fork(recording(Effect.scoped(db.connection)))
        const [span, ...others] = yield* joinAfter(waiter, 1_000)
        expect(others).toEqual([])
        expect(span).toMatchObject({ name: "sql.acquire", succeeded: false })
        expect(span?.attributes).toMatchObject({ "error.type": "PoolExhausted" })
        yield* Fiber.interrupt(holder)
      })))
})

it.effect("nobody sees a span who has only Effect's own tracer, and none is opened", () =>
  withPool({ poolSize: 1 }, ({ pool }) =>
    Effect.gen(function*() {
      const db = Db.make(pool)
      const native = Context.get(DefaultServices.liveServices, Tracer.Tracer)
      const opened = yield* Effect.acquireRelease(
        Effect.sync(() => vi.spyOn(native, "span")),
        (spy) => Effect.sync(() => spy.mockRestore())
      )
      yield* db.value("SELECT id")
      yield* Stream.runDrain(db.stream("ROWS 5"))
      yield* Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.value("SELECT id")))
      expect(opened).not.toHaveBeenCalled()
      yield* Effect.withSpan(db.value("SELECT id"), "counted")
      expect(opened).toHaveBeenCalledTimes(1)
    }).pipe(Effect.scoped)))
