/**
 * Promise 8, on programs in processes of their own that are ended from outside: no new borrows, running work finishes
 * within drainTimeout, the rest is cut and reported, the process ends by itself, and nothing is left on the server.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { PoolOptions } from "../../src/PoolConfig.js"
import { type DbFixture, withFixture, withServer } from "../support/dbFixture.js"
import { numbers } from "../support/dbQuestions.js"
import { openProxy, type Proxy } from "../support/proxy.js"
import { type ShutdownOptions, type ShutdownRun, startShutdown } from "../support/shutdownRun.js"

const drainTimeout = 1_000
const cancelTimeout = 500
const pool: PoolOptions = { poolSize: 4, acquireTimeout: "20 seconds", drainTimeout, cancelTimeout }
/**
 * Milliseconds beyond what the pool may take: 50, what a busy server takes longer to answer, and, measured in the program
 * itself, what a busy machine did not let it run.
 */
const noise = (stalled: number) => 50 + 250 + stalled

const mine = (seconds: number) => `SELECT 42 + SLEEP(${seconds}) AS mine`

const through = (fixture: DbFixture, proxy: Proxy): Redacted.Redacted => {
  const url = new URL(Redacted.value(fixture.url))
  url.port = String(proxy.port)
  return Redacted.make(url.href)
}

/** What the program says of its own end; in milliseconds since the signal. */
interface Exit {
  readonly handles: ReadonlyArray<string>
  readonly millis: number
  readonly stalled: number
}

interface Expected {
  readonly atLeast?: number
  readonly atMost: number
  /** How many connections were cut. */
  readonly cut?: number
}

/** Expects the process to have ended by itself and in time, having said what it cut and leaving nothing behind. */
const expectEnd = (run: ShutdownRun, { atLeast = 0, atMost, cut = 0 }: Expected, name: string) =>
  Effect.map(run.ended, (ended) => {
    const { handles, millis, stalled } = run.said("exit") as unknown as Exit
    console.log(`${name}: ended after ${millis} ms (did not run for ${stalled} ms), at most ${atMost} allowed`)
    expect({ ...ended, log: run.log() }).toMatchObject({
      code: 0,
      signal: null,
      log: cut === 0 ? "" : expect.stringContaining(`cut ${cut} connections in use`)
    })
    expect(millis).toBeLessThanOrEqual(atMost + noise(stalled))
    expect(millis).toBeGreaterThanOrEqual(atLeast)
    expect(run.said("released")).toBeDefined()
    expect(run.said("unhandled")).toBeUndefined()
    expect(run.said("process.exit")).toBeUndefined()
    expect(handles).toEqual([])
  })

/** New borrows were refused, at once. */
const expectLate = (run: ShutdownRun) => {
  expect(run.said("late")).toMatchObject({ tag: "PoolClosed" })
  const { stalled } = run.said("exit") as unknown as Exit
  expect(run.said("late")!["millis"]).toBeLessThan(50 + stalled)
}

const start = (fixture: DbFixture, scenario: ShutdownOptions["scenario"], options: Partial<ShutdownOptions> = {}) =>
  startShutdown(fixture.url, { scenario, sql: "SELECT 1", ...options, pool: { ...pool, ...options.pool } })

const createItems = (fixture: DbFixture) =>
  fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT PRIMARY KEY) ENGINE = InnoDB`)
const items = (fixture: DbFixture) => fixture.admin(`SELECT id FROM ${fixture.database}.items`)

const scenario = (
  name: string,
  test: (fixture: DbFixture, name: string) => Effect.Effect<void, never, Scope.Scope>
) => it.live(name, () => withFixture((fixture) => Effect.scoped(test(fixture, name))))

describe.concurrent("a program whose main fiber ends", () => {
  scenario(
    "ends by itself, with code 0, while its pool had an idle connection",
    (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "ends", { exits: true })
        yield* run.heard("ready")
        yield* expectEnd(run, { atMost: Infinity }, name)
        expectLate(run)
      })
  )
})

describe.concurrent("after a signal", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    scenario(`${signal}: idle connections say good-bye, and that is all`, (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "idle", { sql: "SELECT SLEEP(0.05)" })
        yield* run.heard("ready")
        expect((yield* fixture.processes).length).toBe(3)
        yield* run.signal(signal)
        yield* expectEnd(run, { atMost: cancelTimeout }, name)
        expectLate(run)
      }))

    scenario(
      `${signal}: runMain ends the process with code 0 as soon as the layer is released`,
      (fixture) =>
        Effect.gen(function*() {
          const run = yield* start(fixture, "works", { sql: mine(0.5), exits: true })
          yield* fixture.running("AS mine")
          yield* run.signal(signal)
          expect(yield* run.ended).toMatchObject({ code: 0, signal: null })
          expect(run.said("work")).toMatchObject({ value: 42 })
          expect(run.said("released")).toBeDefined()
        })
    )
  }

  scenario(
    "work of other fibers finishes within the drain timeout, while newcomers are refused",
    (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "works", { sql: mine(0.8), pool: { drainTimeout: "20 seconds" } })
        yield* fixture.running("AS mine")
        yield* run.signal("SIGTERM")
        yield* run.heard("late")
        expect(run.said("work")).toBeUndefined()
        yield* expectEnd(run, { atMost: 800 }, name)
        expect(run.said("work")).toMatchObject({ value: 42 })
        expectLate(run)
      })
  )

  scenario("who waits already is served", (fixture, name) =>
    Effect.gen(function*() {
      const run = yield* start(fixture, "queue", {
        sql: mine(0.8),
        pool: { poolSize: 1, drainTimeout: "20 seconds" }
      })
      yield* run.heard("ready")
      yield* fixture.running("AS mine")
      yield* run.signal("SIGTERM")
      yield* expectEnd(run, { atMost: 800 }, name)
      expect([run.said("work"), run.said("first"), run.said("second")]).toMatchObject([
        { value: 42 },
        { value: "first" },
        { value: "second" }
      ])
      expectLate(run)
    }))

  scenario(
    "work that lasts longer is cut, reported, and stopped on the server",
    (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "works", { sql: "SELECT 42 AS mine WHERE SLEEP(30) = 0" })
        yield* fixture.running("AS mine")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout + cancelTimeout, cut: 1 }, name)
        expect(run.said("work")).toMatchObject({ tag: "StatementCancelled" })
        expectLate(run)
        yield* fixture.notRunning("AS mine")
      })
  )

  scenario(
    "who waits behind work that lasts longer is turned away when it is cut",
    (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "queue", { sql: mine(30), pool: { poolSize: 1 } })
        yield* run.heard("ready")
        yield* fixture.running("AS mine")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout + cancelTimeout, cut: 1 }, name)
        expect([run.said("first"), run.said("second")]).toMatchObject([{ tag: "PoolClosed" }, { tag: "PoolClosed" }])
        expectLate(run)
      })
  )

  scenario(
    "the main fiber's own statement is not waited for but stopped on the server",
    (fixture, name) =>
      Effect.gen(function*() {
        const run = yield* start(fixture, "main works", { sql: mine(30), pool: { drainTimeout: "20 seconds" } })
        yield* fixture.running("AS mine")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atMost: cancelTimeout }, name)
        expect(run.said("work")).toMatchObject({ tag: "interrupted" })
        yield* fixture.notRunning("AS mine")
      })
  )

  scenario(
    "a transaction of the main fiber is not waited for but rolled back",
    (fixture, name) =>
      Effect.gen(function*() {
        yield* createItems(fixture)
        const run = yield* start(fixture, "main transaction", { pool: { drainTimeout: "20 seconds" } })
        yield* run.heard("inside")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atMost: 2 * cancelTimeout }, name)
        expect(yield* items(fixture)).toEqual([])
      })
  )

  scenario(
    "a transaction of another fiber has until the drain timeout, then it is cut and rolled back",
    (fixture, name) =>
      Effect.gen(function*() {
        yield* createItems(fixture)
        const run = yield* start(fixture, "transaction")
        yield* run.heard("inside")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout, cut: 1 }, name)
        expect(run.log()).toContain("a transaction is open")
        expectLate(run)
        expect(yield* items(fixture)).toEqual([])
      })
  )

  scenario(
    "a stream that is being read is cut, fails, and does not end as if it were complete",
    (fixture, name) =>
      Effect.gen(function*() {
        const sql = `SELECT seq, REPEAT('x', 500) AS filler FROM ${numbers(200_000)}`
        const run = yield* start(fixture, "stream", { sql })
        yield* run.heard("inside")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout + cancelTimeout, cut: 1 }, name)
        expect(["StatementCancelled", "ConnectionLost"]).toContain(run.said("work")!["tag"])
        expectLate(run)
      })
  )

  scenario(
    "a second signal ends the process at once, and the server undoes what was open",
    (fixture) =>
      Effect.gen(function*() {
        yield* createItems(fixture)
        const run = yield* start(fixture, "transaction", { pool: { drainTimeout: "20 seconds" } })
        yield* run.heard("inside")
        yield* run.signal("SIGTERM")
        yield* run.heard("late")
        yield* run.signal("SIGTERM")
        expect(yield* run.ended).toEqual({ code: null, signal: "SIGTERM" })
        expect(yield* items(fixture)).toEqual([])
      })
  )
})

describe.concurrent("after SIGTERM, behind a black hole", () => {
  const scenario = (
    name: string,
    test: (fixture: DbFixture, proxy: Proxy, name: string) => Effect.Effect<void, never, Scope.Scope>
  ) =>
    it.live(
      name,
      () =>
        withFixture((fixture) =>
          Effect.scoped(Effect.flatMap(openProxy(fixture.server), (proxy) => test(fixture, proxy, name)))
        )
    )

  const startThrough = (
    fixture: DbFixture,
    proxy: Proxy,
    scenario: ShutdownOptions["scenario"],
    options: Partial<ShutdownOptions> = {}
  ) => start({ ...fixture, url: through(fixture, proxy) }, scenario, options)

  const blackHole = (proxy: Proxy) => Effect.zipRight(proxy.hold, proxy.mute)

  scenario(
    "a connect that is not answered is given up with the drain timeout",
    (fixture, proxy, name) =>
      Effect.gen(function*() {
        yield* proxy.hold
        const run = yield* startThrough(fixture, proxy, "works")
        yield* run.heard("ready")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout }, name)
        expect(run.said("work")).toMatchObject({ tag: "PoolClosed" })
        expectLate(run)
      })
  )

  scenario(
    "idle connections that do not say good-bye are closed after cancelTimeout",
    (fixture, proxy, name) =>
      Effect.gen(function*() {
        const run = yield* startThrough(fixture, proxy, "idle", { sql: "SELECT SLEEP(0.05)" })
        yield* run.heard("ready")
        yield* blackHole(proxy)
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atMost: cancelTimeout }, name)
        expectLate(run)
      })
  )

  scenario(
    "a statement without an answer is cut: whether it was done is unknown",
    (fixture, proxy, name) =>
      Effect.gen(function*() {
        const run = yield* startThrough(fixture, proxy, "works", { sql: mine(0.2) })
        yield* fixture.running("AS mine")
        yield* blackHole(proxy)
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout + cancelTimeout, cut: 1 }, name)
        expect(run.said("work")).toMatchObject({ tag: "ConnectionLost", outcome: "unknown" })
        expectLate(run)
      })
  )

  scenario(
    "a COMMIT without an answer is cut: its outcome is unknown, and here it was done",
    (fixture, proxy, name) =>
      Effect.gen(function*() {
        yield* createItems(fixture)
        const run = yield* startThrough(fixture, proxy, "commit")
        yield* run.heard("inside")
        yield* blackHole(proxy)
        yield* run.goOn
        yield* run.heard("going on")
        yield* run.signal("SIGTERM")
        yield* expectEnd(run, { atLeast: drainTimeout, atMost: drainTimeout + cancelTimeout, cut: 1 }, name)
        expect(run.said("work")).toMatchObject({ tag: "ConnectionLost", outcome: "unknown" })
        expectLate(run)
        expect(yield* items(fixture)).toEqual([[1]])
      })
  )
})

describe("after SIGTERM, while the server is frozen", () => {
  it.live("idle connections, statements and transactions end with the drain timeout, and nothing is left when it thaws", () =>
    withServer({}, (server) =>
      withFixture((fixture) =>
        Effect.scoped(Effect.gen(function*() {
          yield* createItems(fixture)
          const idle = yield* start(fixture, "idle")
          const works = yield* start(fixture, "works", { sql: mine(30) })
          const transaction = yield* start(fixture, "transaction")
          yield* idle.heard("ready")
          yield* fixture.running("AS mine")
          yield* transaction.heard("inside")
          server.kill("SIGSTOP")
          yield* Effect.gen(function*() {
            for (const run of [idle, works, transaction]) yield* run.signal("SIGTERM")
            yield* expectEnd(idle, { atMost: cancelTimeout }, "frozen, idle")
            yield* expectEnd(transaction, { atMost: drainTimeout, cut: 1 }, "frozen, in a transaction")
            yield* expectEnd(works, { atMost: drainTimeout + cancelTimeout, cut: 1 }, "frozen, in a statement")
            expect(works.said("work")).toMatchObject({ tag: "ConnectionLost", outcome: "unknown" })
            for (const run of [idle, works, transaction]) expectLate(run)
          }).pipe(Effect.ensuring(Effect.sync(() => server.kill("SIGCONT"))))
          expect(yield* items(fixture)).toEqual([])
          // the server looks at the socket of who has gone when the statement has ended, not before
          for (const { id } of yield* fixture.processes) yield* Effect.exit(fixture.kill(id))
        })), server)))
})
