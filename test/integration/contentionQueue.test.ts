/** Who waits, in what order, and what is left of a waiter or a connect that was interrupted. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Db from "../../src/Db.js"
import { eventually, withDb, withFixture, withLayer } from "../support/dbFixture.js"
import { connectionId, snapshot, valueOf } from "../support/dbQuestions.js"
import { openProxy } from "../support/proxy.js"

const waiting = (count: number) =>
  eventually(`${count} wait`, Effect.map(snapshot, (counts) => counts.waiting === count))

/** Takes every connection of the pool; the answer gives them back. */
const holdAll = (count: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const scope = yield* Scope.make()
    for (let n = 0; n < count; n++) yield* Scope.extend(db.connection, scope)
    return Scope.close(scope, Exit.void)
  })

describe("waiters", () => {
  it.live("are served in order, 1,000 of them, and no newcomer overtakes", () =>
    withDb({ poolSize: 1, acquireTimeout: "30 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("CREATE TABLE served (place INT AUTO_INCREMENT PRIMARY KEY, waiter INT) ENGINE = InnoDB")
        const letGo = yield* holdAll(1)
        const fibers = []
        for (let waiter = 0; waiter < 1000; waiter++) {
          fibers.push(yield* Effect.fork(db.execute("INSERT INTO served (waiter) VALUES (?)", [waiter])))
          if (waiter % 100 === 0) yield* Effect.yieldNow()
        }
        yield* waiting(1000)
        yield* letGo
        // these come while the first are being served
        for (let waiter = 1000; waiter < 1050; waiter++) {
          fibers.push(yield* Effect.fork(db.execute("INSERT INTO served (waiter) VALUES (?)", [waiter])))
          yield* Effect.yieldNow()
        }
        yield* Fiber.joinAll(fibers)
        const order = yield* db.list("SELECT waiter FROM served ORDER BY place")
        expect(order).toEqual(Array.from({ length: 1050 }, (_, n) => n))
        expect(yield* snapshot).toMatchObject({ created: 1, waiting: 0, held: 1, timedOut: 0 })
      })))

  it.live("that are interrupted leave no trace, and the others keep their order", () =>
    withDb({ poolSize: 1, acquireTimeout: "30 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const served: Array<number> = []
        const letGo = yield* holdAll(1)
        const fibers = []
        for (let waiter = 0; waiter < 100; waiter++) {
          fibers.push(yield* Effect.fork(Effect.map(valueOf(db, "SELECT 1"), () => served.push(waiter))))
          yield* Effect.yieldNow()
        }
        yield* waiting(100)
        yield* Effect.forEach(fibers.filter((_, n) => n % 3 === 0), Fiber.interrupt, { discard: true })
        expect(yield* snapshot).toMatchObject({ waiting: 66, held: 1, abandoned: 34 })
        yield* letGo
        const exits = yield* Effect.forEach(fibers, Fiber.await)
        expect(exits.filter(Exit.isSuccess)).toHaveLength(66)
        expect(served).toEqual(Array.from({ length: 100 }, (_, n) => n).filter((n) => n % 3 !== 0))
        expect(yield* snapshot).toMatchObject({ created: 1, waiting: 0, held: 0, idle: 1 })
      })))

  it.live("that are interrupted while they are being served lose no connection", () =>
    withDb({ poolSize: 2, acquireTimeout: "30 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        for (let round = 0; round < 30; round++) {
          const letGo = yield* holdAll(2)
          const fibers = yield* Effect.forEach(
            Array.from({ length: 20 }),
            () => Effect.fork(Effect.scoped(Effect.zipRight(db.connection, db.value("SELECT 1"))))
          )
          yield* waiting(20)
          yield* letGo
          for (let pause = 0; pause < round % 7; pause++) yield* Effect.yieldNow()
          yield* Fiber.interruptAll(fibers)
          expect(yield* snapshot).toMatchObject({ waiting: 0, held: 0 })
        }
        yield* eventually("all is idle again", Effect.map(snapshot, ({ busy, idle }) => busy === 0 && idle > 0))
        const { closed, created, idle } = yield* snapshot
        expect(created - closed).toBe(idle)
        expect(idle).toBeLessThanOrEqual(2)
      })))

  it.live("that wait too long are told who holds what, each at its own time", () =>
    withDb({ poolSize: 2, acquireTimeout: 200 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const letGo = yield* holdAll(2)
        const errors = yield* Effect.forEach([1, 2, 3], () => Effect.flip(db.execute("DO 1")), { concurrency: 3 })
        for (const error of errors) {
          expect(error).toMatchObject({ _tag: "PoolExhausted", counts: { idle: 0, held: 2, max: 2 } })
          expect(error.message).toContain("an explicit connection")
        }
        expect(yield* snapshot).toMatchObject({ timedOut: 3, waiting: 0, held: 2 })
        yield* letGo
        yield* db.execute("DO 1")
      })))

  it.live("beyond maxWaiters are turned away at once", () =>
    withDb({ poolSize: 1, acquireTimeout: "10 seconds", maxWaiters: 1 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const letGo = yield* holdAll(1)
        const first = yield* Effect.fork(valueOf(db, "SELECT 1"))
        yield* waiting(1)
        expect(yield* Effect.flip(db.execute("DO 1"))).toMatchObject({ _tag: "TooManyWaiters", maxWaiters: 1 })
        yield* letGo
        expect(yield* Fiber.join(first)).toBe(1)
      })))
})

describe("acquireTimeout", () => {
  it.live("also ends a wait that cannot be interrupted", () =>
    withDb({ poolSize: 1, acquireTimeout: 200 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const letGo = yield* holdAll(1)
        const started = performance.now()
        for (
          const what of [db.value("SELECT 1"), db.transaction(db.value("SELECT 1")), db.session(db.value("SELECT 1"))]
        ) {
          expect((yield* Effect.flip(Effect.uninterruptible(what)))._tag).toBe("PoolExhausted")
        }
        expect(performance.now() - started).toBeLessThan(5000)
        yield* letGo
      })))

  it.live("does not pass while a fiber has a clean connection to part with and a connect hangs", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          { url: fixture.url, port: proxy.port, poolSize: 2, connectTimeout: "20 seconds", acquireTimeout: 500 },
          Effect.gen(function*() {
            const id = yield* connectionId
            yield* proxy.hold
            const inChild = yield* Effect.fork(Effect.either(connectionId))
            expect(yield* Fiber.join(inChild)).toEqual(Either.right(id))
            yield* proxy.release
          })
        )
      }))
    ))
})

describe("an interrupted connect", () => {
  it.live("serves the next waiter, and is the only one", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          {
            url: fixture.url,
            port: proxy.port,
            poolSize: 1,
            connectTimeout: "20 seconds",
            acquireTimeout: "20 seconds"
          },
          Effect.gen(function*() {
            yield* proxy.hold
            const first = yield* Effect.fork(connectionId)
            yield* eventually("the connect hangs", Effect.sync(() => proxy.open() === 1))
            const second = yield* Effect.fork(connectionId)
            yield* waiting(2)
            const started = performance.now()
            yield* Fiber.interrupt(first)
            expect(performance.now() - started).toBeLessThan(5000)
            expect(yield* snapshot).toMatchObject({ waiting: 1, opening: 1, abandoned: 1 })
            yield* proxy.release
            yield* Fiber.join(second)
            expect(proxy.accepted()).toBe(1)
            expect(yield* snapshot).toMatchObject({ created: 1, connectFailures: 0, idle: 1 })
          })
        )
        yield* eventually("nobody is connected", Effect.sync(() => proxy.open() === 0))
      }))
    ))

  it.live("that nobody waits for any more goes into the pool", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          {
            url: fixture.url,
            port: proxy.port,
            poolSize: 1,
            connectTimeout: "20 seconds",
            acquireTimeout: "20 seconds"
          },
          Effect.gen(function*() {
            yield* proxy.hold
            const only = yield* Effect.fork(connectionId)
            yield* eventually("the connect hangs", Effect.sync(() => proxy.open() === 1))
            yield* Fiber.interrupt(only)
            yield* proxy.release
            yield* eventually("it is idle", Effect.map(snapshot, ({ idle }) => idle === 1))
            yield* connectionId
            expect(proxy.accepted()).toBe(1)
          })
        )
      }))
    ))

  it.live("that is never answered ends at connectTimeout, and the waiter with PoolUnreachable or its reason", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          { url: fixture.url, port: proxy.port, poolSize: 5, connectTimeout: 150, acquireTimeout: 600 },
          Effect.gen(function*() {
            yield* proxy.hold
            const errors = yield* Effect.forEach(
              Array.from({ length: 5 }),
              () => Effect.flip(connectionId),
              { concurrency: "unbounded" }
            )
            for (const error of errors) {
              expect(error).toMatchObject({ _tag: "PoolUnreachable", counts: { held: 0, idle: 0 } })
              expect(error.message).toContain("no answer within 150 ms")
            }
            // never more than one at a time
            expect(proxy.open()).toBeLessThanOrEqual(1)
            expect(proxy.accepted()).toBeLessThanOrEqual(6)
            yield* proxy.release
            yield* connectionId
          })
        )
        yield* eventually("nobody is connected", Effect.sync(() => proxy.open() === 0))
      }))
    ))

  it.live("is closed when the layer is released meanwhile", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* proxy.hold
        const started = performance.now()
        yield* withLayer(
          {
            url: fixture.url,
            port: proxy.port,
            poolSize: 1,
            connectTimeout: "20 seconds",
            acquireTimeout: "20 seconds",
            drainTimeout: 200
          },
          Effect.gen(function*() {
            const only = yield* Effect.fork(connectionId)
            yield* eventually("the connect hangs", Effect.sync(() => proxy.open() === 1))
            yield* Fiber.interrupt(only)
          })
        )
        expect(performance.now() - started).toBeLessThan(5000)
        yield* eventually("nobody is connected", Effect.sync(() => proxy.open() === 0))
      }))
    ))
})
