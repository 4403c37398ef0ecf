/**
 * What may happen between an interruption and the answers to it: the request to stop comes late, its answer does, the
 * statement is faster, the connection breaks, changes hands or is given back meanwhile. The statement that comes next on
 * the connection is slow enough to be hit, and never is.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import { closed, executing, idle, interrupt, kills, scene } from "../support/cancellation.js"
import { eventually } from "../support/dbFixture.js"
import { connectionId, idOf, snapshot } from "../support/dbQuestions.js"
import type { Interceptor, Passed } from "../support/interceptor.js"

const zero = Option.some(0)

/** Where the first of them stands among what has passed; a text that never passed is a defect. */
const position = ({ passed }: Interceptor, text: string, what: Passed["what"] = "request"): number => {
  const index = passed.findIndex((one) => one.what === what && one.text.includes(text))
  if (index < 0) throw new Error(`never passed: ${text}`)
  return index
}

/** Where the answer to the first request to stop stands. */
const killAnswered = (proxy: Interceptor): number => {
  const kill = position(proxy, "KILL QUERY")
  const { connection } = proxy.passed[kill]!
  const index = proxy.passed.findIndex((one, index) =>
    index > kill && one.what === "answer" && one.connection === connection
  )
  if (index < 0) throw new Error("the request to stop was never answered")
  return index
}

describe("a request to stop a statement", () => {
  for (
    const [which, rule] of [
      ["that comes late", { text: "KILL QUERY", delay: 600 }],
      ["whose answer comes late", { text: "KILL QUERY", delayAnswer: 600 }]
    ] as const
  ) {
    it.live(`${which} is waited for, and does not hit the next statement on its connection`, () =>
      scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
        Effect.gen(function*() {
          proxy.rule(rule)
          const victim = yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS victim"))
          yield* executing(proxy, "AS victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          expect(yield* db.value("SELECT SLEEP(0.8) AS later")).toEqual(zero)
          expect(killAnswered(proxy)).toBeLessThan(position(proxy, "AS later"))
          expect(kills(proxy)).toBe(1)
          expect(yield* snapshot).toMatchObject({ created: 1, lost: 0, cancelled: 1 })
        })))
  }

  it.live("that comes when its connection was given up long ago does not hit the one that replaced it", () =>
    scene({ poolSize: 1, cancelTimeout: 200 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", delay: 700 })
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(2) AS victim"))
        yield* executing(proxy, "AS victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* closed(1)
        expect(kills(proxy)).toBe(0)
        expect(yield* db.value("SELECT SLEEP(1) AS later")).toEqual(zero)
        expect(kills(proxy)).toBe(1)
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  it.live("is not sent for a statement that ended while another's was under way", () =>
    scene({ poolSize: 2 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", delay: 900, times: 1 })
        const slow = yield* Effect.fork(db.value("SELECT SLEEP(30) AS slow_victim"))
        const slowId = yield* fixture.running("slow_victim")
        const fast = yield* Effect.fork(db.value("SELECT SLEEP(0.5) AS fast_victim"))
        yield* executing(proxy, "fast_victim")
        expect(yield* interrupt(slow, loop)).toBeLessThan(100)
        expect(yield* interrupt(fast, loop)).toBeLessThan(100)
        expect(yield* db.value("SELECT SLEEP(0.8) AS later")).toEqual(zero)
        yield* fixture.notRunning("slow_victim")
        const asked = proxy.passed.map(({ text }) => /KILL QUERY (\d+)/.exec(text)?.[1]).filter((id) =>
          id !== undefined
        )
        expect(new Set(asked)).toEqual(new Set([String(slowId)]))
        expect(yield* snapshot).toMatchObject({ created: 2, lost: 0, cancelled: 2 })
      })))

  it.live("of many at once comes one after the other, and each hits its own", () =>
    scene({ poolSize: 6 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", delayAnswer: 30 })
        const spared = yield* Effect.fork(db.value("SELECT SLEEP(1) AS spared"))
        const victims = yield* Effect.forEach(
          [1, 2, 3, 4, 5],
          (number) => Effect.fork(db.value(`SELECT SLEEP(30) AS victim_${number}`))
        )
        for (const number of [1, 2, 3, 4, 5]) yield* fixture.running(`victim_${number}`)
        for (const victim of victims) expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* fixture.notRunning("victim_")
        expect(yield* Fiber.join(spared)).toEqual(zero)
        expect(yield* snapshot).toMatchObject({ created: 6, lost: 0, cancelled: 5 })
      })))

  it.live("in the moment between preparing a write and executing it: it is never executed", () =>
    scene({ poolSize: 1 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        yield* fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT)`)
        proxy.rule({ text: "INSERT INTO items", delayAnswer: 200, times: 1 })
        const victim = yield* Effect.fork(db.execute("INSERT INTO items VALUES (?)", [1]))
        yield* eventually("it is being prepared", Effect.sync(() => proxy.applied() === 1))
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        expect(yield* db.value("SELECT SLEEP(0.3)")).toEqual(zero)
        expect(yield* db.list("SELECT id FROM items")).toEqual([])
        expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
      })))

  it.live("for a statement that waits for a lock stops it, and the lock's holder is not disturbed", () =>
    scene({ poolSize: 3 }, ({ db, fixture, loop }) =>
      Effect.gen(function*() {
        yield* db.execute("CREATE TABLE items (id INT PRIMARY KEY, n INT) ENGINE = InnoDB")
        yield* db.execute("INSERT INTO items VALUES (1, 0)")
        yield* db.transaction(Effect.gen(function*() {
          yield* db.execute("UPDATE items SET n = 1 WHERE id = 1")
          const victim = yield* Effect.forkDaemon(
            Effect.flatMap(Db.Db, (db) =>
              Effect.scoped(Effect.flatMap(db.connection, (own) =>
                own.execute("UPDATE items SET n = 7 WHERE id = 1 /* victim */"))))
          )
          yield* fixture.running("/* victim */")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          yield* fixture.notRunning("/* victim */")
          yield* db.execute("UPDATE items SET n = n + 1 WHERE id = 1")
        }))
        expect(yield* db.value("SELECT n FROM items")).toEqual(Option.some(2))
      })))
})

describe("a connection whose statement is being stopped", () => {
  const late = { text: "KILL QUERY", delay: 600 } as const

  it.live("waits in its session: the next statement there sees the state and is not hit", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      db.session(Effect.gen(function*() {
        proxy.rule(late)
        yield* db.execute("SET @mine = 7")
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS victim"))
        yield* executing(proxy, "AS victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        expect(yield* db.value("SELECT @mine + SLEEP(0.8) AS later")).toEqual(Option.some(7))
        expect(killAnswered(proxy)).toBeLessThan(position(proxy, "AS later"))
      }))))

  it.live("goes from its session to its fiber, which waits too", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule(late)
        const id = yield* connectionId
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @mine = 7")
          const victim = yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS victim"))
          yield* executing(proxy, "AS victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        }))
        expect(yield* db.value("SELECT @mine + SLEEP(0.8) AS later")).toEqual(Option.some(7))
        expect(yield* connectionId).toBe(id)
        expect(killAnswered(proxy)).toBeLessThan(position(proxy, "AS later"))
      })))

  it.live("is given back by its scope: the next borrower gets it pristine, and is not hit", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule(late)
        const id = yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* db.connection
          yield* connection.execute("SET @mine = 7")
          const victim = yield* Effect.fork(connection.value("SELECT SLEEP(0.3) AS victim"))
          yield* executing(proxy, "AS victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          return Number(connection.id)
        }))
        expect(yield* db.value("SELECT COALESCE(@mine, 0) + SLEEP(0.8) AS later")).toEqual(zero)
        expect(yield* connectionId).toBe(id)
        expect(killAnswered(proxy)).toBeLessThan(position(proxy, "AS later"))
      })))

  it.live("is invalidated meanwhile: it is closed once, and the late request hits nobody", () =>
    scene({ poolSize: 1 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule(late)
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* db.connection
          const victim = yield* Effect.fork(connection.value("SELECT SLEEP(1) AS victim"))
          yield* executing(proxy, "AS victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          yield* connection.invalidate
        }))
        expect(yield* db.value("SELECT SLEEP(0.9) AS later")).toEqual(zero)
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  it.live("breaks meanwhile: it is closed once, its session is told, and the next statement has another", () =>
    scene({ poolSize: 1 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule(late)
        yield* db.session(Effect.gen(function*() {
          yield* db.execute("SET @mine = 7")
          const id = yield* idOf(db)
          const victim = yield* Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
          yield* fixture.running("AS victim")
          expect(yield* interrupt(victim, loop)).toBeLessThan(100)
          yield* fixture.kill(id)
          expect(yield* Effect.flip(db.value("SELECT @mine"))).toMatchObject({ _tag: "ConnectionLost" })
        }))
        yield* closed(1)
        expect(yield* db.value("SELECT SLEEP(0.9) AS later")).toEqual(zero)
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  it.live("is not lent when the pool shrinks or grows meanwhile, and is one of those that go on", () =>
    scene({ poolSize: 2 }, ({ db, loop, proxy }) =>
      Effect.gen(function*() {
        const pool = yield* ConnectionPool.ConnectionPool
        proxy.rule(late)
        const victims = [
          yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS victim")),
          yield* Effect.fork(db.value("SELECT SLEEP(0.3) AS victim"))
        ]
        yield* executing(proxy, "AS victim", 2)
        for (const victim of victims) expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        yield* pool.resize(1)
        expect(yield* db.value("SELECT SLEEP(0.8) AS later")).toEqual(zero)
        yield* pool.resize(2)
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1, lost: 0 })
      })))

  it.live("by its statementTimeout and by the interruption of its fiber is stopped once", () =>
    scene({ poolSize: 1, statementTimeout: 200 }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", delay: 150 })
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
        yield* fixture.running("AS victim")
        yield* eventually("its time is over", Effect.map(snapshot, ({ cancelled }) => cancelled === 1))
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        expect(Exit.isInterrupted(yield* Fiber.await(victim))).toBe(true)
        proxy.rule(undefined)
        expect(yield* Db.withStatementTimeout(db.value("SELECT SLEEP(0.8)"), "10 seconds")).toEqual(zero)
        expect(yield* snapshot).toMatchObject({ created: 1, cancelled: 1, lost: 0 })
      })))

  it.live("is waited for by the pool's end, as long as that waits for anybody", () =>
    scene({ poolSize: 1, drainTimeout: "5 seconds" }, ({ db, fixture, loop, proxy }) =>
      Effect.gen(function*() {
        proxy.rule(late)
        const pool = yield* ConnectionPool.ConnectionPool
        const victim = yield* Effect.fork(db.value("SELECT SLEEP(30) AS victim"))
        yield* fixture.running("AS victim")
        expect(yield* interrupt(victim, loop)).toBeLessThan(100)
        expect(yield* pool.closeAll).toEqual({ cut: [] })
        yield* fixture.notRunning("AS victim")
        expect(kills(proxy)).toBeGreaterThan(0)
      })))

  it.live("leaves its fiber, which cleans up on another one, when nothing binds it to this one", () =>
    scene({ poolSize: 2 }, ({ db, fixture, proxy }) =>
      Effect.gen(function*() {
        proxy.rule({ text: "KILL QUERY", delay: 500 })
        const cleaned: Array<number> = []
        const victim = yield* Effect.fork(Effect.onInterrupt(
          db.value("SELECT SLEEP(30) AS victim"),
          () => Effect.orDie(Effect.map(connectionId, (id) => void cleaned.push(id)))
        ))
        const id = yield* fixture.running("AS victim")
        yield* Fiber.interrupt(victim)
        expect(kills(proxy)).toBe(0)
        expect(cleaned).toHaveLength(1)
        expect(cleaned).not.toContain(id)
        yield* fixture.notRunning("AS victim")
        yield* idle(2)
      })))
})
