/** Ten thousand fibers: all complete, nothing stays behind, and what a waiting one costs. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as PoolStats from "../../src/PoolStats.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { snapshot, valueOf } from "../support/dbQuestions.js"

const many = 10_000
const numbers = Array.from({ length: many }, (_, n) => n)

/** What the process has open and listens to. */
const openThings = () => ({
  sockets: process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length,
  listeners: Object.fromEntries(process.eventNames().map((name) => [String(name), process.listenerCount(name)]))
})

const leavesNothing = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const warnings: Array<string> = []
      const onWarning = (warning: Error): void => void warnings.push(warning.message)
      process.on("warning", onWarning)
      return { before: openThings(), warnings, onWarning }
    }),
    ({ before, warnings }) =>
      Effect.gen(function*() {
        const result = yield* effect
        yield* eventually("the sockets are closed", Effect.sync(() => openThings().sockets <= before.sockets))
        expect(openThings().listeners).toEqual(before.listeners)
        expect(warnings).toEqual([])
        return result
      }),
    ({ onWarning }) => Effect.sync(() => process.off("warning", onWarning))
  )

describe("10,000 fibers on a pool of 10", () => {
  it.live(
    "all complete, with nothing left open and no listener left behind",
    () =>
      leavesNothing(withDb({ poolSize: 10, acquireTimeout: "60 seconds" }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          const started = performance.now()
          const values = yield* Effect.forEach(numbers, (n) => db.value<number>("SELECT ? + 0", [n]), {
            concurrency: "unbounded"
          })
          process.stdout.write(`10,000 fibers on a pool of 10: ${Math.round(performance.now() - started)} ms\n`)
          expect(values.map((value) => Number(Option.getOrThrow(value)))).toEqual(numbers)
          expect(yield* snapshot).toMatchObject({
            created: 10,
            held: 0,
            idle: 10,
            waiting: 0,
            timedOut: 0,
            abandoned: 0,
            lost: 0
          })
        }))),
    60_000
  )

  it.live(
    "that end in all ways at once leave the pool as it was",
    () =>
      leavesNothing(withDb({ poolSize: 10, acquireTimeout: "60 seconds" }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          const end = (n: number): Effect.Effect<Option.Option<unknown>, DbError | string> =>
            n % 5 === 0 ? Effect.fail("failed") : n % 5 === 1 ? Effect.die("died") : db.value("SELECT @x")
          const fibers = yield* Effect.forEach(numbers, (n) =>
            Effect.fork(Effect.zipRight(
              Effect.asVoid(n % 7 === 0 ? db.value("SELECT @x := 1") : db.value("SELECT 1")),
              end(n)
            )))
          yield* eventually("some have run", Effect.map(snapshot, ({ acquiredAfterWait }) => acquiredAfterWait > 500))
          yield* Effect.forEach(fibers.filter((_, n) => n % 3 === 0), Fiber.interruptFork, { discard: true })
          const exits = yield* Effect.forEach(fibers, Fiber.await)
          for (const [n, exit] of exits.entries()) {
            if (!Exit.isSuccess(exit)) expect(n % 5 < 2 || n % 3 === 0).toBe(true)
            else expect(exit.value).toEqual(Option.some(n % 7 === 0 ? 1 : null))
          }
          yield* eventually(
            "all is idle",
            Effect.map(snapshot, ({ busy, held, waiting }) => busy + held + waiting === 0)
          )
          expect(yield* valueOf(db, "SELECT @x")).toBe(null)
        }))),
    60_000
  )
})

describe("a waiting fiber", () => {
  it.live(
    "costs little more heap than any fiber that waits",
    () =>
      withDb({ poolSize: 10, acquireTimeout: "10 minutes" }, () =>
        Effect.gen(function*() {
          setFlagsFromString("--expose-gc")
          const gc = runInNewContext("gc") as () => void
          const heap = Effect.gen(function*() {
            for (let pass = 0; pass < 3; pass++) {
              gc()
              yield* Effect.yieldNow()
            }
            return process.memoryUsage().heapUsed
          })
          const db = yield* Db.Db
          const statement = db.value("SELECT 1")
          const never = yield* Deferred.make<void>()

          /** The heap of ten thousand fibers that do this and wait, each. */
          const measure = <A, E>(wait: Effect.Effect<A, E>, allWait: Effect.Effect<void>) =>
            Effect.gen(function*() {
              const before = yield* heap
              const fibers = yield* Effect.forEach(numbers, () => Effect.fork(wait))
              yield* allWait
              const bytes = ((yield* heap) - before) / many
              yield* Fiber.interruptAll(fibers)
              return bytes
            })
          const onDeferred = measure(Deferred.await(never), Effect.sleep(0))

          yield* Effect.scoped(Effect.gen(function*() {
            for (let n = 0; n < 10; n++) yield* db.connection
            const { snapshot } = yield* PoolStats.PoolStats
            const onPool = measure(
              statement,
              eventually("all wait", Effect.map(snapshot, ({ waiting }) => waiting === many))
            )
            // once for the code, which is compiled and cached the first time
            yield* onDeferred
            yield* onPool
            const deferred = yield* onDeferred
            const pool = yield* onPool
            process.stdout.write(
              `heap of a waiting fiber: ${Math.round(pool)} bytes on a pool, ${Math.round(deferred)} on a Deferred, ` +
                `${Math.round(pool - deferred)} more\n`
            )
            expect(yield* snapshot).toMatchObject({ waiting: 0, held: 10 })
            expect(pool - deferred).toBeLessThan(8192)
          }))
        })),
    60_000
  )
})
