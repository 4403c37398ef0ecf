/** Streams that end before their rows do, wherever they run: the server stops, and their connection goes on. */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Services } from "../../src/DbLayer.js"
import type { Queries } from "../../src/Queries.js"
import { idle, interrupt, kills, scene } from "../support/cancellation.js"
import { idOf, numbers, snapshot } from "../support/dbQuestions.js"

type Rows = Stream.Stream<unknown, unknown>
const large = `SELECT seq, REPEAT('x', 1000) AS filler FROM ${numbers(1_000_000, "victim")}`

/** Hands over the stream, and what completes a little later than its first row has come. */
const afterFirst = (
  rows: Rows,
  use: (begun: Rows, first: Effect.Effect<void>) => Effect.Effect<unknown, unknown>
): Effect.Effect<unknown, unknown> =>
  Effect.flatMap(Deferred.make<void>(), (reached) =>
    use(
      Stream.tap(rows, () => Deferred.succeed(reached, undefined)),
      Effect.zipRight(Deferred.await(reached), Effect.sleep(20))
    ))

/** Reads a little of the stream and ends it. */
const ends: Record<string, (rows: Rows) => Effect.Effect<unknown, unknown>> = {
  "are taken from": (rows) => Stream.runDrain(Stream.take(rows, 3)),
  "whose first is all that is wanted": (rows) => Stream.runHead(rows),
  "whose consumer fails": (rows) => Effect.exit(Stream.runForEach(rows, () => Effect.fail("no"))),
  "whose consumer dies": (rows) => Effect.exit(Stream.runForEach(rows, () => Effect.die("no"))),
  "whose consumer is interrupted while it works": (rows) =>
    afterFirst(rows, (begun, first) =>
      Effect.flatMap(
        Effect.fork(Stream.runForEach(begun, () => Effect.never)),
        (reading) => Effect.zipRight(first, Fiber.interrupt(reading))
      )),
  "whose consumer is interrupted while it reads": (rows) =>
    afterFirst(rows, (begun, first) =>
      Effect.flatMap(
        Effect.fork(Stream.runDrain(begun)),
        (reading) => Effect.zipRight(first, Fiber.interrupt(reading))
      )),
  "that lose a race": (rows) => afterFirst(rows, (begun, first) => Effect.raceFirst(Stream.runDrain(begun), first)),
  "that are interrupted from outside": (rows) =>
    afterFirst(rows, (begun, first) => Stream.runDrain(Stream.interruptWhen(begun, first))),
  "that were merged with one that fails": (rows) =>
    afterFirst(rows, (begun, first) =>
      Effect.exit(
        Stream.runDrain(Stream.merge(begun, Stream.fromEffect(Effect.zipRight(first, Effect.fail("no")))))
      ))
}

type Use = (queries: Queries, rows: Rows) => Effect.Effect<void, unknown, Services>
const places: Record<string, (db: Queries, use: Use) => Effect.Effect<void, unknown, Services>> = {
  "of a fiber": (db, use) => use(db, db.stream(large)),
  "of sql`SELECT`": (db, use) => Effect.flatMap(SqlClient.SqlClient, (sql) => use(db, sql.unsafe(large).stream))
}

describe("rows", () => {
  for (const [how, end] of Object.entries(ends)) {
    for (const [where, place] of Object.entries(places)) {
      it.live(`${where} ${how} stop coming, and their connection serves the next statement`, () =>
        scene({ poolSize: 1 }, ({ db, fixture, proxy }) =>
          place(db, (_, rows) =>
            Effect.gen(function*() {
              yield* end(rows)
              yield* fixture.notRunning("AS victim")
              expect(yield* db.value("SELECT SLEEP(0.01)")).toEqual(Option.some(0))
              expect(kills(proxy)).toBeGreaterThan(0)
              expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 1 })
            }))))
    }

    it.live(`of a session, a transaction and a connection ${how} leave them their connection and state`, () =>
      scene({ poolSize: 1 }, ({ db, fixture }) =>
        Effect.gen(function*() {
          const check = (queries: Queries) =>
            Effect.gen(function*() {
              const id = yield* idOf(queries)
              yield* queries.execute("SET @mine = 7")
              yield* end(queries.stream(large))
              expect(yield* queries.value("SELECT @mine + SLEEP(0.01)")).toEqual(Option.some(7))
              expect(yield* idOf(queries)).toBe(id)
              yield* fixture.notRunning("AS victim")
            })
          yield* db.session(check(db))
          yield* db.releaseFiberConnection
          yield* Effect.scoped(Effect.flatMap(db.connection, check))
          yield* db.execute("CREATE TABLE items (id INT) ENGINE = InnoDB")
          yield* db.transaction(Effect.gen(function*() {
            yield* db.execute("INSERT INTO items VALUES (1)")
            yield* check(db)
            yield* db.execute("INSERT INTO items VALUES (2)")
          }))
          expect(yield* db.list("SELECT id FROM items")).toEqual([1, 2])
          expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 3 })
        })))
  }

  it.live("of which exactly as many are taken as there are leave nothing to stop, or it is stopped", () =>
    scene({ poolSize: 1 }, ({ db }) =>
      Effect.gen(function*() {
        for (const count of [1, 511, 512, 513, 1024, 3000]) {
          const rows = yield* Stream.runCollect(Stream.take(db.stream(`SELECT seq FROM ${numbers(count)}`), count))
          expect(rows.length).toBe(count)
          expect(yield* db.value("SELECT SLEEP(0.01)")).toEqual(Option.some(0))
        }
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
      })))

  it.live("whose request to stop comes late do not have it hit the next statement", () =>
    scene({ poolSize: 1 }, ({ db, proxy }) =>
      Effect.gen(function*() {
        // with the side connection open, the request is made at once
        yield* Effect.timeoutOption(db.value("SELECT SLEEP(30)"), 100)
        yield* idle(1)
        const before = kills(proxy)
        // small enough to be over before the request comes
        proxy.rule({ text: "KILL QUERY", delay: 300 })
        yield* Stream.runDrain(Stream.take(db.stream(`SELECT seq, REPEAT('x', 1000) FROM ${numbers(20_000)}`), 3))
        expect(yield* db.value("SELECT SLEEP(0.5)")).toEqual(Option.some(0))
        expect(kills(proxy)).toBeGreaterThan(before)
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
      })))

  it.live("of a transaction that is interrupted with them are stopped, and it is rolled back", () =>
    scene({ poolSize: 2 }, ({ db, fixture, loop }) =>
      Effect.gen(function*() {
        yield* db.execute("CREATE TABLE items (id INT) ENGINE = InnoDB")
        const victim = yield* Effect.fork(db.transaction(Effect.zipRight(
          db.execute("INSERT INTO items VALUES (1)"),
          Stream.runForEach(db.stream(large), () => Effect.sleep(1))
        )))
        yield* fixture.running("AS victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* fixture.notRunning("AS victim")
        yield* idle(1)
        expect(yield* db.list("SELECT id FROM items")).toEqual([])
        expect(yield* snapshot).toMatchObject({ created: 2, lost: 0, cancelled: 1, resets: 1 })
      })))
})
