/**
 * The side connection on which statements are stopped, and what happens when it cannot be had: the interrupted fiber never
 * waits for it, the statement's connection is closed and replaced when its time is over.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { closed, executing, idle, interrupt, kills, scene } from "../support/cancellation.js"
import { eventually } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"
import type { EventLoop } from "../support/eventLoop.js"

/** How long until that many connections are closed, from now. */
const untilClosed = (count: number, loop: EventLoop) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(closed(count), () => {
      const to = performance.now()
      return { millis: to - from, late: loop.blocked(from, to) }
    })
  })

describe("the side connection", () => {
  it.live("is opened when it is first needed, is one for all, and is kept", () =>
    scene({ poolSize: 5 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        const sleeping = Effect.forEach(
          Array.from({ length: 5 }),
          () => Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
        )
        const running = Effect.map(
          fixture.processes,
          (all) => all.filter(({ info }) => info?.includes("victim")).length === 5
        )
        for (let round = 0; round < 3; round++) {
          const victims = yield* sleeping
          yield* eventually("all five run", running)
          expect(proxy.accepted()).toBe(round === 0 ? 5 : 6)
          for (const victim of victims) expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          yield* fixture.notRunning("victim")
          yield* idle(5)
        }
        expect({ accepted: proxy.accepted(), open: proxy.open() }).toEqual({ accepted: 6, open: 6 })
        expect(yield* snapshot).toMatchObject({ created: 5, cancelled: 15, lost: 0 })
      })))

  it.live("that nobody accepts: the statement's connection is closed at once, and replaced", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(1) AS victim"))
        yield* executing(proxy, "victim")
        proxy.newcomers("refuse")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* closed(1)
        proxy.newcomers("forward")
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  it.live("that gets no answer: the statement's connection is closed when cancelTimeout is over, and replaced", () =>
    scene({ poolSize: 2, cancelTimeout: 400 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        const victims = [
          yield* Effect.fork(db.value("SELECT SLEEP(2) AS first_victim")),
          yield* Effect.fork(db.value("SELECT SLEEP(2) AS second_victim"))
        ]
        yield* executing(proxy, "first_victim")
        yield* executing(proxy, "second_victim")
        proxy.newcomers("stall")
        for (const victim of victims) expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        const { late, millis } = yield* untilClosed(2, loop)
        process.stdout.write(`closed after ${millis.toFixed(0)} ms, ${late.toFixed(0)} of them the loop's\n`)
        expect(millis).toBeGreaterThan(300)
        expect(millis - late).toBeLessThan(450)
        // both waited for one and the same, or one after the other
        expect(proxy.accepted()).toBeLessThanOrEqual(4)
        proxy.newcomers("forward")
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 3, closed: 2 })
        yield* eventually("nobody waits at the door", Effect.sync(() => proxy.open() === 1))
      })))

  it.live("that the server refuses because the user has as many as he may", () =>
    scene({ poolSize: 1 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        yield* fixture.admin(`ALTER USER ${fixture.user}@'%' WITH MAX_USER_CONNECTIONS 1`)
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(1) AS victim"))
        yield* executing(proxy, "victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* closed(1)
        // the server counts the closed one until its statement has ended; until then it is "not now"
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  it.live("whose KILL is never answered is closed with the statement's, and the next one is stopped on another", () =>
    scene({ poolSize: 1, cancelTimeout: 300 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", instead: "swallow", times: 1 })
        const unheard = yield* Effect.fork(db.value("SELECT SLEEP(1) AS unheard"))
        yield* executing(proxy, "unheard")
        expect(yield* interrupt(unheard, loop)).toBeLessThan(100)
        yield* closed(1)
        yield* eventually("both are closed", Effect.sync(() => proxy.open() === 0))
        const heard = yield* Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
        yield* fixture.running("AS victim")
        expect(yield* interrupt(heard, loop)).toBeLessThan(100)
        yield* fixture.notRunning("AS victim")
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1, cancelled: 2 })
      })))

  it.live("that breaks under its KILL is opened again, and the statement's connection lives on", () =>
    scene({ poolSize: 1 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", instead: "cut", times: 1 })
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
        yield* fixture.running("victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* fixture.notRunning("victim")
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(proxy.applied()).toBe(1)
        expect(kills(proxy)).toBeGreaterThan(0)
        expect(yield* snapshot).toMatchObject({ created: 1, closed: 0, lost: 0 })
      })))

  it.live("that breaks under every KILL: the statement's connection is closed, and replaced", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", instead: "cut" })
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(1) AS victim"))
        yield* executing(proxy, "victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* closed(1)
        expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
        expect(yield* snapshot).toMatchObject({ created: 2 })
      })))

  it.live("is closed with the pool, even while its KILL is not answered", () =>
    scene(
      { poolSize: 2, drainTimeout: 300, cancelTimeout: "20 seconds" },
      ({ db, loop, proxy }) =>
        Effect.gen(function*() {
          proxy.rule({ text: "KILL QUERY", instead: "swallow" })
          const victim = yield* Effect.fork(db.value("SELECT SLEEP(1) AS victim"))
          yield* executing(proxy, "victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          yield* eventually("the KILL was sent", Effect.sync(() => proxy.applied() === 1))
          expect(yield* snapshot).toMatchObject({ held: 1, closed: 0 })
          // the fixture proves that no connection is left
        })
    ))

  it.live("is never opened when cancelQueries is off: what is interrupted loses its connection", () =>
    scene({ poolSize: 1, cancelQueries: false }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        const works = [
          db.value("SELECT SLEEP(1) AS victim"),
          db.transaction(db.value("SELECT SLEEP(1) AS victim")),
          db.session(db.value("SELECT SLEEP(1) AS victim"))
        ]
        for (const [index, work] of works.entries()) {
          const victim = yield* Effect.fork(work)
          yield* executing(proxy, "victim", index + 1)
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          expect(yield* db.value("SELECT 42")).toEqual(Option.some(42))
          expect(yield* snapshot).toMatchObject({ created: index + 2, closed: index + 1 })
          yield* db.releaseFiberConnection
          yield* fixture.notRunning("victim")
        }
        expect(proxy.accepted()).toBe(4)
        expect(kills(proxy)).toBe(0)
      })))
})
