/** The metrics of a pool as an exporter shows them, compared with OpenTelemetry's conventions and with the pool. */
import { describe, expect, it } from "@effect/vitest"
import * as Conventions from "@opentelemetry/semantic-conventions/incubating"
import { Deferred, Effect, Exit, Fiber, Metric, Scope, Stream, TestClock } from "effect"
import * as Db from "../../src/Db.js"
import { distribution } from "../../src/internal/pulled.js"
import * as PoolMetrics from "../../src/PoolMetrics.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"
import { scrape } from "../support/scrape.js"

/** Effect's registry outlives a test: each has a pool with a name of its own. */
let pools = 0
const withMetrics = <A, E, R>(
  options: Parameters<typeof withPool>[0],
  use: (fixture: Fixture & { readonly db: Db.DbService; readonly name: string }) => Effect.Effect<A, E, R>
) => {
  const name = `pool ${++pools}`
  return withPool({ ...options, name }, (fixture) =>
    Effect.scoped(Effect.zipRight(
      PoolMetrics.make(fixture.pool),
      Effect.suspend(() => use({ ...fixture, db: Db.make(fixture.pool), name }))
    )))
}

// https://opentelemetry.io/docs/specs/semconv/db/database-metrics/
const pool = [Conventions.ATTR_DB_CLIENT_CONNECTION_POOL_NAME]
const conventions: Record<string, readonly [type: string, unit: string, attributes: ReadonlyArray<string>]> = {
  [Conventions.METRIC_DB_CLIENT_CONNECTION_COUNT]: [
    "UpDownCounter",
    "{connection}",
    [...pool, Conventions.ATTR_DB_CLIENT_CONNECTION_STATE]
  ],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_IDLE_MAX]: ["UpDownCounter", "{connection}", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_IDLE_MIN]: ["UpDownCounter", "{connection}", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_LIMIT]: ["UpDownCounter", "{connection}", pool],
  // what the one before was called until version 1.44
  "db.client.connection.max": ["UpDownCounter", "{connection}", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_PENDING_REQUESTS]: ["UpDownCounter", "{request}", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_TIMEOUTS]: ["Counter", "{timeout}", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_CREATE_TIME]: ["Histogram", "s", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_WAIT_TIME]: ["Histogram", "s", pool],
  [Conventions.METRIC_DB_CLIENT_CONNECTION_USE_TIME]: ["Histogram", "s", pool],
  // the pool's name is ours: two pools may be on one database
  [Conventions.METRIC_DB_CLIENT_OPERATION_DURATION]: ["Histogram", "s", [...pool, Conventions.ATTR_DB_SYSTEM_NAME]]
}

/** Beyond the conventions. */
const own: typeof conventions = {
  "effect_sql_pool.connections": ["UpDownCounter", "{connection}", [...pool, "effect_sql_pool.state"]],
  "effect_sql_pool.connections.running": ["UpDownCounter", "{connection}", pool],
  "effect_sql_pool.connections.lendable": ["UpDownCounter", "{connection}", pool],
  "effect_sql_pool.oldest_wait": ["Gauge", "s", pool],
  "effect_sql_pool.acquisitions": ["Counter", "{request}", [...pool, "effect_sql_pool.outcome"]],
  "effect_sql_pool.connections.created": ["Counter", "{connection}", pool],
  "effect_sql_pool.connections.closed": ["Counter", "{connection}", [...pool, "effect_sql_pool.reason"]],
  "effect_sql_pool.connections.lost": ["Counter", "{connection}", pool],
  "effect_sql_pool.connect_failures": ["Counter", "{failure}", pool],
  "effect_sql_pool.affinity_hits": ["Counter", "{statement}", pool],
  "effect_sql_pool.taken_back": ["Counter", "{connection}", pool],
  "effect_sql_pool.resets": ["Counter", "{connection}", [...pool, "effect_sql_pool.outcome"]],
  "effect_sql_pool.validations": ["Counter", "{connection}", pool],
  "effect_sql_pool.kills": ["Counter", "{statement}", pool],
  "effect_sql_pool.retries": ["Counter", "{retry}", [...pool, "effect_sql_pool.kind"]],
  "effect_sql_pool.unknown_outcomes": ["Counter", "{statement}", pool],
  "effect_sql_pool.leaks_suspected": ["Counter", "{connection}", pool]
}

const bounds = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]

describe("what is exported", () => {
  it.effect("has the names, types, units and attributes of the conventions, and ours besides", () =>
    withMetrics({}, ({ name }) =>
      Effect.gen(function*() {
        const { metrics } = yield* scrape(name)
        const seen = Object.fromEntries(
          Object.entries(metrics).map(([metric, { points, type, unit }]) => {
            const attributes = new Set(points.flatMap((point) => Object.keys(point.attributes)))
            // where Effect keeps the unit
            expect([metric, attributes.delete("unit")]).toEqual([metric, true])
            return [metric, [type, unit, [...attributes].sort()]]
          })
        )
        const expected = Object.entries({ ...conventions, ...own })
        expect(seen).toEqual(
          Object.fromEntries(expected.map(([metric, [type, unit, keys]]) => [metric, [type, unit, [...keys].sort()]]))
        )
      })))

  it.effect("counts times by the conventions' bounds", () =>
    withMetrics({}, ({ name }) =>
      Effect.gen(function*() {
        const { metrics } = yield* scrape(name)
        const histograms = Object.values(metrics).filter(({ type }) => type === "Histogram")
        expect(histograms).toHaveLength(4)
        for (const { points } of histograms) {
          for (const { value } of points) expect(value).toMatchObject({ buckets: { boundaries: bounds } })
        }
      })))

  it.effect("is text that Prometheus reads, with a suffix for what only grows", () =>
    withMetrics({ poolSize: 7 }, ({ name }) =>
      Effect.gen(function*() {
        const { text } = yield* scrape(name)
        expect(text).toMatch(new RegExp(`^db_client_connection_limit\\{.*"${name}".*\\} 7$`, "m"))
        expect(text).toMatch(new RegExp(`^db_client_connection_timeouts_total\\{.*"${name}".*\\} 0$`, "m"))
        expect(text).toMatch(
          new RegExp(`^db_client_connection_wait_time_bucket\\{.*"${name}".*le="0.001".*\\} 0$`, "m")
        )
      })))
})

describe("the numbers", () => {
  it.effect("follow the traffic", () =>
    withMetrics({ poolSize: 2, minimumIdle: 0, acquireTimeout: 1_000 }, ({ db, fake, name }) =>
      Effect.gen(function*() {
        const count = "db.client.connection.count"
        const state = (value: string) => ({ "db.client.connection.state": value })
        fake.script.connect = FakeDriver.takes(20)
        const open = yield* Deferred.make<void>()
        const hold = Effect.scoped(Effect.zipRight(db.connection, Deferred.await(open)))
        const holders = yield* Effect.fork(Effect.all([hold, hold], { concurrency: 2 }))
        yield* TestClock.adjust(100)
        const waiters = yield* Effect.fork(
          Effect.all([db.value("SELECT id"), db.value("SELECT id")].map(Effect.either), {
            concurrency: 2
          })
        )
        yield* TestClock.adjust(400)
        const during = yield* scrape(name)
        expect(during.value(count, state("used"))).toBe(2)
        expect(during.value(count, state("idle"))).toBe(0)
        expect(during.value("db.client.connection.pending_requests")).toBe(2)
        expect(during.value("db.client.connection.timeouts")).toBe(0)
        expect(during.value("effect_sql_pool.oldest_wait")).toBe(0.4)
        expect(during.value("effect_sql_pool.connections", { "effect_sql_pool.state": "held_explicitly" })).toBe(2)
        expect(during.value("db.client.connection.create_time")).toEqual({
          buckets: { boundaries: bounds, counts: [0, 0, 0, 2, 0, 0, 0, 0, 0, 0] },
          count: 2,
          sum: 0.04,
          min: 0.01,
          max: 0.02
        })
        yield* TestClock.adjust(600)
        yield* Fiber.join(waiters)
        yield* Deferred.succeed(open, undefined)
        yield* Fiber.join(holders)
        yield* settle
        const after = yield* scrape(name)
        expect(after.value(count, state("used"))).toBe(0)
        expect(after.value(count, state("idle"))).toBe(2)
        expect(after.value("db.client.connection.pending_requests")).toBe(0)
        expect(after.value("db.client.connection.timeouts")).toBe(2)
        expect(after.value("effect_sql_pool.acquisitions", { "effect_sql_pool.outcome": "timed_out" })).toBe(2)
        expect(after.value("db.client.connection.use_time")).toMatchObject({ count: 2, max: 1.08 })
        expect(after.value("db.client.operation.duration", {
          "db.system.name": "mysql",
          "error.type": "PoolExhausted"
        })).toMatchObject({ count: 2, sum: 2 })
      })))

  it.effect("are those of the pool's own snapshot", () =>
    withMetrics({ poolSize: 3, leakDetectionThreshold: 1_000 }, ({ db, name, pool }) =>
      Effect.gen(function*() {
        const work = Effect.all([
          db.execute("DIRTY"),
          db.value("SELECT id"),
          Effect.either(db.execute("LOSE")),
          db.transaction(Effect.zipRight(db.execute("INSERT"), Effect.sleep(2_000))),
          Effect.fork(db.execute("SLEEP 5000")).pipe(
            Effect.flatMap((fiber) => Effect.delay(Fiber.interrupt(fiber), 10))
          )
        ])
        const working = yield* Effect.fork(Effect.all([work, work, work, work], { concurrency: 4 }))
        yield* joinAfter(working, 10_000)
        const snapshot = yield* pool.snapshot
        const { value } = yield* scrape(name)
        expect(value("effect_sql_pool.connections.created")).toBe(snapshot.created)
        expect(value("effect_sql_pool.connections.lost")).toBe(snapshot.lost)
        expect(value("effect_sql_pool.kills")).toBe(snapshot.cancelled)
        expect(value("effect_sql_pool.unknown_outcomes")).toBe(snapshot.unknownOutcomes)
        expect(value("effect_sql_pool.leaks_suspected")).toBe(snapshot.leaksSuspected)
        expect(value("effect_sql_pool.affinity_hits")).toBe(snapshot.affinityHits)
        expect(value("effect_sql_pool.resets", { "effect_sql_pool.outcome": "done" })).toBe(snapshot.resets)
        expect(value("effect_sql_pool.resets", { "effect_sql_pool.outcome": "spared" })).toBe(snapshot.resetsSpared)
        expect(value("effect_sql_pool.connections.closed", { "effect_sql_pool.reason": "lost" }))
          .toBe(snapshot.closedBy.lost)
        // the work did something of each
        for (
          const metric of ["created", "lost", "cancelled", "unknownOutcomes", "leaksSuspected", "affinityHits"] as const
        ) {
          expect([metric, snapshot[metric] > 0]).toEqual([metric, true])
        }
        expect(value("db.client.connection.wait_time")).toMatchObject({
          count: snapshot.waitTimes.count,
          sum: snapshot.waitTimes.sumMillis / 1_000,
          max: snapshot.waitTimes.maxMillis / 1_000
        })
      })))

  it.effect("are exact in the conventions' buckets, since the pool's own are finer", () =>
    withMetrics({}, ({ pool }) =>
      Effect.gen(function*() {
        const { waitTimes } = yield* pool.snapshot
        const finer = waitTimes.buckets.map(([upTo]) => upTo)
        expect(finer).toEqual(expect.arrayContaining(bounds.map((bound) => bound * 1_000)))
        const buckets = finer.map((upTo, at) => [upTo, at + 1] as const)
        const all = buckets.reduce((sum, [, count]) => sum + count, 0)
        const times = distribution([...bounds, Infinity], { buckets, count: all, sumMillis: 5, maxMillis: 7 })
        expect(times.counts.reduce((sum, count) => sum + count, 0)).toBe(all)
        for (const [at, bound] of bounds.entries()) {
          const upTo = buckets.filter(([millis]) => millis <= bound * 1_000).reduce((sum, [, count]) => sum + count, 0)
          expect(times.counts.slice(0, at + 1).reduce((sum, count) => sum + count, 0)).toBe(upTo)
        }
      })))
})

describe("the duration of statements", () => {
  const duration = "db.client.operation.duration"
  const database = { "db.system.name": "mysql" }

  it.effect("is counted for each, however it is run, and by what went wrong", () =>
    withMetrics({ poolSize: 1 }, ({ db, fake, name }) =>
      Effect.gen(function*() {
        yield* db.value("SELECT id")
        fake.script.run = FakeDriver.takes(30)
        const run = <A, E>(effect: Effect.Effect<A, E>) =>
          Effect.flatMap(Effect.fork(effect), (fiber) => joinAfter(fiber, 60_000))
        yield* run(db.execute("INSERT"))
        yield* run(db.session(db.values("SELECT id")))
        yield* run(Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.list("SELECT id"))))
        fake.script.run = { _tag: "Succeeds" }
        yield* run(Stream.runDrain(db.stream("ROWS 7")))
        yield* run(Stream.runDrain(Stream.take(db.stream("ROWS 7"), 1)))
        yield* run(Effect.either(Stream.runForEach(db.stream("ROWS 7"), () => Effect.fail("mine"))))
        yield* run(Effect.either(db.execute("FAIL")))
        yield* run(Effect.either(db.execute("READ ONLY")))
        yield* run(Effect.either(Stream.runDrain(db.stream("ROWS 4 THEN LOSE"))))
        yield* run(Effect.flatMap(
          Effect.fork(db.execute("SLEEP 5000")),
          (fiber) => Effect.delay(Fiber.interrupt(fiber), 200)
        ))
        const { metrics, value } = yield* scrape(name)
        expect(value(duration, database)).toMatchObject({ count: 7, sum: expect.closeTo(0.09, 9), max: 0.03 })
        const failed = (type: string, code?: string) => {
          const status: Record<string, string> = code === undefined ? {} : { "db.response.status_code": code }
          return value(duration, { ...database, "error.type": type, ...status })
        }
        expect(failed("StatementError")).toMatchObject({ count: 1 })
        expect(failed("ReadOnlyError", "1290")).toMatchObject({ count: 1 })
        expect(failed("ConnectionLost")).toMatchObject({ count: 1 })
        expect(failed("Interrupted")).toMatchObject({ count: 1, sum: 0.2 })
        expect(metrics[duration]?.points).toHaveLength(5)
      })))

  it.effect("is not asked for without the metrics, and not any more after them", () =>
    withPool({ poolSize: 1, name: "unheard" }, ({ pool }) =>
      Effect.gen(function*() {
        const db = Db.make(pool)
        expect(pool.listener).toBeUndefined()
        yield* Effect.scoped(Effect.zipRight(PoolMetrics.make(pool), db.value("SELECT id")))
        expect(pool.listener).toBeUndefined()
        yield* db.value("SELECT id")
        expect((yield* scrape("unheard")).value(duration, database)).toMatchObject({ count: 1 })
      })))

  it.effect("is counted for who asks while the metrics end that were there before", () =>
    withPool({ poolSize: 1, name: "asked again" }, ({ pool }) =>
      Effect.gen(function*() {
        const [before, after] = [yield* Scope.make(), yield* Scope.make()]
        yield* Scope.extend(PoolMetrics.make(pool), before)
        let { listener } = pool
        // somebody asks just before the end touches the listener
        let ask = (): void => {
          ask = () => undefined
          Effect.runSync(Scope.extend(PoolMetrics.make(pool), after))
        }
        Object.defineProperty(pool, "listener", {
          get: () => {
            ask()
            return listener
          },
          set: (other: typeof listener) => {
            ask()
            listener = other
          }
        })
        yield* Scope.close(before, Exit.void)
        expect(listener).toBeDefined()
        yield* Scope.close(after, Exit.void)
        expect(listener).toBeUndefined()
      })))
})

describe("several", () => {
  it.effect("times the same pool is counted once", () =>
    withPool({ poolSize: 1, name: "thrice" }, ({ pool, run }) =>
      Effect.gen(function*() {
        for (let times = 1; times <= 3; times++) {
          yield* Effect.scoped(Effect.zipRight(PoolMetrics.make(pool), run("SELECT id")))
          const { value } = yield* scrape("thrice")
          expect(value("effect_sql_pool.connections.created")).toBe(1)
          const { acquiredAfterWait, acquiredAtOnce } = yield* pool.snapshot
          expect(value("db.client.connection.wait_time")).toMatchObject({ count: acquiredAfterWait + acquiredAtOnce })
        }
      })))

  it.effect("pools of one name are added up; what one counted stays when it ends, and what it has does not", () =>
    Effect.gen(function*() {
      const name = "twins"
      const values = Effect.map(scrape(name), ({ value }) => ({
        limit: value("db.client.connection.limit"),
        created: value("effect_sql_pool.connections.created"),
        waits: (value("db.client.connection.wait_time") as { count: number }).count,
        oldest: value("effect_sql_pool.oldest_wait")
      }))
      yield* withPool({ poolSize: 3, name }, (one) =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          yield* Scope.extend(PoolMetrics.make(one.pool), scope)
          yield* one.run("SELECT id")
          expect(yield* values).toEqual({ limit: 3, created: 1, waits: 1, oldest: 0 })
          yield* withPool({ poolSize: 4, name }, (other) =>
            Effect.scoped(Effect.gen(function*() {
              yield* PoolMetrics.make(other.pool)
              yield* other.run("SELECT id")
              expect(yield* values).toEqual({ limit: 7, created: 2, waits: 2, oldest: 0 })
            })))
          expect(yield* values).toEqual({ limit: 3, created: 2, waits: 2, oldest: 0 })
          yield* Scope.close(scope, yield* Effect.exit(Effect.void))
          expect(yield* values).toEqual({ limit: 0, created: 2, waits: 2, oldest: 0 })
        }))
    }))

  it.effect("askers have one pool counted once, until the last of them has gone", () =>
    withMetrics({ poolSize: 3 }, ({ db, name, pool }) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.zipRight(PoolMetrics.make(pool), db.value("SELECT id")))
        yield* db.value("SELECT id")
        const { value } = yield* scrape(name)
        expect(value("db.client.connection.limit")).toBe(3)
        expect(value("db.client.operation.duration", { "db.system.name": "mysql" })).toMatchObject({ count: 2 })
      })))

  it.effect("labels around it are attributes of all", () =>
    withPool({ poolSize: 1, name: "labelled" }, ({ pool }) =>
      Effect.scoped(Effect.gen(function*() {
        yield* Effect.tagMetrics(PoolMetrics.make(pool), { service: "shop" })
        const { metrics } = yield* scrape("labelled")
        for (const { points } of Object.values(metrics)) {
          for (const { attributes } of points) expect(attributes).toMatchObject({ service: "shop" })
        }
        expect(Object.keys(metrics)).toHaveLength(28)
      }))))
})

it.effect("Effect's own snapshot has them too, without an exporter", () =>
  withMetrics({ poolSize: 5 }, ({ name }) =>
    Effect.gen(function*() {
      const all = yield* Metric.snapshot
      const limit = all.find(({ metricKey }) =>
        metricKey.name === "db.client.connection.limit" && metricKey.tags.some(({ value }) => value === name)
      )
      expect(limit?.metricState).toMatchObject({ count: 5 })
    })))
