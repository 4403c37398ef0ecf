import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { withDb } from "../support/dbFixture.js"
import { connectionId, latch, snapshot } from "../support/dbQuestions.js"

describe("one fiber, one connection", () => {
  it.live("two statements of one fiber report one CONNECTION_ID()", () =>
    withDb({ poolSize: 20 }, () =>
      Effect.gen(function*() {
        const first = yield* connectionId
        expect(yield* connectionId).toBe(first)
        const db = yield* Db.Db
        const current = yield* db.currentConnection
        expect(Option.map(current, ({ id }) => id)).toEqual(Option.some(String(first)))
      })))

  it.live("twenty concurrent fibers on a pool of twenty report twenty", () =>
    withDb({ poolSize: 20 }, () =>
      Effect.gen(function*() {
        const together = yield* latch(20)
        const pairs = yield* Effect.forEach(
          Array.from({ length: 20 }),
          () =>
            Effect.gen(function*() {
              const before = yield* connectionId
              yield* together
              return [before, yield* connectionId] as const
            }),
          { concurrency: "unbounded" }
        )
        for (const [before, after] of pairs) expect(after).toBe(before)
        expect(new Set(pairs.map(([id]) => id)).size).toBe(20)
      })))

  it.live("a child does not use its parent's", () =>
    withDb({ poolSize: 3 }, () =>
      Effect.gen(function*() {
        const parent = yield* connectionId
        const child = yield* Effect.fork(
          Effect.zip(connectionId, Effect.fork(connectionId).pipe(Effect.flatMap(Fiber.join)))
        )
        const [ofChild, ofGrandchild] = yield* Fiber.join(child)
        expect(new Set([parent, ofChild, ofGrandchild]).size).toBe(3)
        expect(yield* connectionId).toBe(parent)
      })))

  it.live("a child starts with none and leaves its parent's alone", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const parent = yield* connectionId
        const inChild = yield* Fiber.join(
          yield* Effect.fork(Effect.zipRight(db.releaseFiberConnection, db.currentConnection))
        )
        expect(inChild).toEqual(Option.none())
        expect(Option.getOrThrow(yield* db.currentConnection).id).toBe(String(parent))
      })))

  it.live("a finalizer and a retry run on the connection of their fiber", () =>
    withDb({ poolSize: 3 }, () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const note = Effect.map(connectionId, (id) => void seen.push(id))
        yield* Effect.scoped(
          Effect.gen(function*() {
            // registered before the fiber's first statement
            yield* Effect.addFinalizer(() => Effect.orDie(note))
            yield* note
            let failures = 2
            yield* Effect.retry(
              Effect.zipRight(note, Effect.suspend(() => failures-- > 0 ? Effect.fail("again") : Effect.void)),
              {
                times: 3
              }
            )
          })
        )
        expect(seen).toHaveLength(5)
        expect(new Set(seen).size).toBe(1)
      })))

  describe("is back in the pool the moment the fiber has ended", () => {
    const ends: Record<string, (reached: Deferred.Deferred<void>) => Effect.Effect<void, string>> = {
      success: () => Effect.void,
      failure: () => Effect.fail("failed"),
      interruption: (reached) => Effect.zipRight(Deferred.succeed(reached, undefined), Effect.never),
      defect: () => Effect.die("died")
    }
    for (const [how, end] of Object.entries(ends)) {
      it.live(`by ${how}`, () =>
        withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
          Effect.gen(function*() {
            const reached = yield* Deferred.make<void>()
            const child = yield* Effect.fork(Effect.zipLeft(connectionId, end(reached)))
            if (how === "interruption") yield* Effect.zipRight(Deferred.await(reached), Fiber.interrupt(child))
            const exit = yield* Fiber.await(child)
            expect(Exit.isSuccess(exit)).toBe(how === "success")
            const counts = yield* snapshot
            expect({ idle: counts.idle, held: counts.held, created: counts.created }).toEqual({
              idle: 1,
              held: 0,
              created: 1
            })
            yield* connectionId
            const after = yield* snapshot
            expect({ created: after.created, resets: after.resets, takenBack: after.takenBack }).toEqual({
              created: 1,
              resets: 0,
              takenBack: 0
            })
          })))

      it.live(`by ${how}, with a transaction left open, rolled back`, () =>
        withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* db.execute("CREATE TABLE rowsLeft (id INT) ENGINE = InnoDB")
            const reached = yield* Deferred.make<void>()
            const child = yield* Effect.fork(
              Effect.gen(function*() {
                yield* db.execute("START TRANSACTION")
                yield* db.execute("INSERT INTO rowsLeft VALUES (1)")
                yield* end(reached)
              })
            )
            if (how === "interruption") yield* Effect.zipRight(Deferred.await(reached), Fiber.interrupt(child))
            yield* Fiber.await(child)
            expect((yield* snapshot).held).toBe(0)
            expect(yield* db.list("SELECT COUNT(*) FROM rowsLeft")).toEqual([0])
            const { created, resets } = yield* snapshot
            expect({ created, resets }).toEqual({ created: 1, resets: 1 })
          })))
    }
  })
})

describe("a pool of 1 and one fiber", () => {
  const doubled = (n: number) =>
    Effect.flatMap(
      Db.Db,
      (db) => Effect.map(db.value<number>("SELECT ? * 2", [n]), (value) => Number(Option.getOrThrow(value)))
    )

  it.live("completes a statement, then a timeout, a race, a concurrent forEach of 100 and a stream over statements", () =>
    withDb({ poolSize: 1, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        expect(yield* doubled(1)).toBe(2)
        expect(yield* Effect.timeout(doubled(2), "5 seconds")).toBe(4)
        expect([6, 8]).toContain(yield* Effect.race(doubled(3), doubled(4)))
        const hundred = Array.from({ length: 100 }, (_, n) => n)
        expect(yield* Effect.forEach(hundred, doubled, { concurrency: "unbounded" })).toEqual(hundred.map((n) => n * 2))
        expect(Array.from(yield* Stream.runCollect(Stream.mapEffect(Stream.range(1, 20), doubled)))).toHaveLength(20)
        const rows = yield* Stream.runCollect(
          Stream.mapEffect(db.stream<{ n: number }>("SELECT 1 AS n UNION ALL SELECT 2"), ({ n }) => Effect.succeed(n))
        )
        expect(Array.from(rows)).toEqual([1, 2])
        expect(yield* doubled(5)).toBe(10)
        const { created, takenBack } = yield* snapshot
        expect(created).toBe(1)
        expect(takenBack).toBeGreaterThan(0)
      })))

  it.live("completes the same from every one of four such fibers on a pool of 4", () =>
    withDb({ poolSize: 4, acquireTimeout: "5 seconds" }, () =>
      Effect.gen(function*() {
        const together = yield* latch(4)
        const all = yield* Effect.forEach(
          [1, 2, 3, 4],
          (n) =>
            Effect.gen(function*() {
              yield* doubled(n)
              yield* together
              yield* Effect.timeout(doubled(n), "5 seconds")
              return yield* Effect.forEach([n, n], doubled, { concurrency: 2 })
            }),
          { concurrency: 4 }
        )
        expect(all.flat()).toEqual([2, 2, 4, 4, 6, 6, 8, 8])
      })))

  const operators: Record<
    string,
    (statement: Effect.Effect<number, DbError, Db.Db>) => Effect.Effect<unknown, unknown, Db.Db>
  > = {
    "Effect.timeout": (statement) => Effect.timeout(statement, "20 seconds"),
    "Effect.race": (statement) => Effect.raceFirst(statement, Effect.never),
    "a concurrent forEach": (statement) => Effect.forEach([1, 2], () => statement, { concurrency: 2 }),
    "a stream over statements": (statement) => Stream.runDrain(Stream.mapEffect(Stream.make(1, 2), () => statement))
  }
  for (const [name, operator] of Object.entries(operators)) {
    it.live(`ends with PoolExhausted that says why when a transaction is open around ${name}`, () =>
      withDb({ poolSize: 1, acquireTimeout: 300 }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* db.execute("START TRANSACTION")
          const started = performance.now()
          const error = yield* Effect.flip(operator(doubled(1)))
          const waited = performance.now() - started
          expect(error).toMatchObject({ _tag: "PoolExhausted", isRetryable: true })
          const fiber = FiberId.threadName(yield* Effect.fiberId)
          expect(String((error as Error).message)).toContain("a transaction is open")
          expect(String((error as Error).message)).toContain(`held by ${fiber} `)
          expect(String((error as Error).message)).toContain("db.transaction or db.session")
          expect(waited).toBeGreaterThanOrEqual(290)
          // the parent's transaction is as it was
          expect(Option.getOrThrow(yield* db.currentConnection).session).toBe("transaction")
          yield* db.execute("ROLLBACK")
          expect(yield* Effect.timeout(doubled(4), "5 seconds")).toBe(8)
        })))
  }

  it.live("with strict affinity keeps its connection from its own children until acquireTimeout", () =>
    withDb({ poolSize: 1, acquireTimeout: 200, affinity: "strict" }, () =>
      Effect.gen(function*() {
        const first = yield* connectionId
        const error = yield* Effect.flip(Effect.timeout(doubled(1), "20 seconds"))
        expect(error).toMatchObject({ _tag: "PoolExhausted", oldest: { why: "strict affinity" } })
        expect(yield* connectionId).toBe(first)
      })))

  it.live("with statement affinity holds nothing between two statements", () =>
    withDb({ poolSize: 1, acquireTimeout: 2000, affinity: "statement" }, () =>
      Effect.gen(function*() {
        yield* connectionId
        expect(yield* snapshot).toMatchObject({ idle: 1, held: 0, takenBack: 0 })
        expect(yield* Effect.timeout(doubled(1), "5 seconds")).toBe(2)
        expect(yield* snapshot).toMatchObject({ idle: 1, held: 0, takenBack: 0 })
        const db = yield* Db.Db
        yield* db.execute("SET @kept = 1")
        expect(yield* snapshot).toMatchObject({ idle: 0, held: 1 })
        expect(yield* db.list("SELECT @kept")).toEqual([1])
      })))
})
