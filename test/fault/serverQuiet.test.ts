/** What is left of a pool that met a fault once it is released: nothing, and in a bounded time. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { ConnectionPool } from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import { eventually, withFixture, withLayer, withServer } from "../support/dbFixture.js"
import { connectionId, latch, numbers } from "../support/dbQuestions.js"
import { type FaultProxy, openFaultProxy } from "../support/faultProxy.js"
import { watchUnhandled } from "../support/noise.js"

/** What keeps the process alive, by kind; the tests' own proxies and questions are gone when this is asked. */
const resources = (): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) {
    if (/Timeout|Immediate|TCP|TLS|GetAddrInfo|Connect/.test(kind)) counts[kind] = (counts[kind] ?? 0) + 1
  }
  return counts
}

const drainTimeout = 300
const cancelTimeout = 300

const options = {
  poolSize: 5,
  acquireTimeout: "20 seconds",
  connectTimeout: "10 seconds",
  statementTimeout: "20 seconds",
  keepalive: "5 seconds",
  minimumIdle: 2,
  leakDetectionThreshold: "10 seconds",
  drainTimeout,
  cancelTimeout
} as const

/** Everything that a pool can have under way: timers, sleepers, a stream, a transaction, waiters, an interrupted statement. */
const busy = Effect.gen(function*() {
  const db = yield* Db.Db
  const pool = yield* ConnectionPool
  const started = yield* latch(4)
  // not Effect.never, which is a timer
  const forever = Effect.zipRight(started, Effect.async<never>(() => undefined))
  yield* Effect.forEach([
    Effect.zipRight(started, db.execute("DO SLEEP(1)")),
    db.transaction(Effect.zipRight(db.execute("DO 1"), forever)),
    Stream.runForEach(db.stream(`SELECT seq, REPEAT('x', 8000) FROM ${numbers(20_000)}`), () => forever)
  ], (work) => Effect.forkDaemon(Effect.exit(work)))
  yield* started
  const interrupted = yield* Effect.fork(db.execute("DO SLEEP(1)"))
  yield* eventually("all run", Effect.map(pool.snapshot, ({ held }) => held >= 4))
  yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkDaemon(Effect.exit(connectionId)), { discard: true })
  return Fiber.interrupt(interrupted)
})

const faults: Record<string, (proxy: FaultProxy) => Effect.Effect<void>> = {
  "no fault": () => Effect.void,
  "a reset": (proxy) => proxy.reset,
  "a clean close": (proxy) => proxy.close,
  "a slow close": (proxy) => proxy.closeSlowly(100),
  "a black hole": (proxy) => proxy.blackHole,
  "stalled handshakes": (proxy) => proxy.stallHandshakes,
  "a refused port": (proxy) => proxy.refuse
}

describe("a pool that is released leaves no timer, no socket and no unhandled error behind,", () => {
  for (const [name, fault] of Object.entries(faults)) {
    it.live(`after ${name} in the middle of everything`, () =>
      Effect.scoped(Effect.gen(function*() {
        const unhandled = yield* watchUnhandled
        const before = resources()
        let released = 0
        yield* withFixture((fixture) =>
          Effect.scoped(Effect.flatMap(openFaultProxy(fixture.server), (proxy) =>
            withLayer(
              { ...options, url: fixture.url, port: proxy.port },
              Effect.gen(function*() {
                const interrupt = yield* busy
                yield* fault(proxy)
                yield* interrupt
                yield* Effect.sleep(150)
                released = performance.now()
              })
            ).pipe(Effect.tap(() =>
              Effect.sync(() => {
                released = performance.now() - released
              })
            ))))
        )
        yield* eventually(
          `nothing is active beyond ${JSON.stringify(before)}`,
          Effect.sync(() => Object.entries(resources()).every(([kind, count]) => count <= (before[kind] ?? 0))),
          3_000
        )
        expect(unhandled()).toEqual([])
        // draining, then closing what does not close by itself; this test asks for no precision
        expect(released).toBeLessThan(drainTimeout + cancelTimeout + 1_000)
        process.stdout.write(`released after ${name} in ${Math.round(released)} ms\n`)
      })))
  }

  it.live(
    "from a frozen server, in a bounded time",
    () =>
      withServer({}, (server) =>
        withFixture((fixture) =>
          Effect.gen(function*() {
            const took = yield* Effect.ensuring(
              Effect.gen(function*() {
                let began = 0
                yield* withLayer(
                  { ...options, url: fixture.url },
                  Effect.gen(function*() {
                    const interrupt = yield* busy
                    server.kill("SIGSTOP")
                    yield* interrupt
                    began = performance.now()
                  })
                )
                return performance.now() - began
              }),
              Effect.sync(() => server.kill("SIGCONT"))
            )
            expect(took).toBeLessThan(drainTimeout + cancelTimeout + 1_000)
          }), server)),
    60_000
  )
})
