/**
 * What a statement on a connection that its fiber has costs beside itself: nothing. Counted, not timed.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Statement from "@effect/sql/Statement"
import { expect, it } from "@effect/vitest"
import { Context, DefaultServices, Effect, identity, Tracer } from "effect"
import { vi } from "vitest"
import * as DbClient from "../../src/DbClient.js"
import { watched } from "../../src/internal/watched.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { withPool } from "../support/poolFixture.js"

it.effect("a hundred statements of one fiber fork nothing, start no timer and open no span", () =>
  withPool({ poolSize: 1 }, (fixture) =>
    Effect.gen(function*() {
      yield* fixture.run("SELECT id")
      const counted = { forks: 0, spans: 0 }
      // whatever takes time in a pool runs in a fiber of it, its timers too
      const pool = fixture.pool as unknown as { fork: (effect: Effect.Effect<void>) => unknown }
      const fork = pool.fork
      Object.assign(pool, {
        fork: (effect: Effect.Effect<void>) => {
          counted.forks++
          return fork(effect)
        }
      })
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: native.context,
        span: (...args) => {
          counted.spans++
          return native.span(...args)
        }
      })
      yield* Effect.withTracer(Effect.repeatN(fixture.run("SELECT id"), 99), tracer)
      expect(counted).toEqual({ forks: 0, spans: 0 })
      expect(fixture.fake.connection("1").roundTrips).toEqual({ run: 101, ping: 0, reset: 0, cancel: 0, close: 0 })
      // the counters count: a session's end on a changed connection is work for the pool
      yield* Effect.withSpan(Effect.zipRight(fixture.run("DIRTY"), fixture.fibers.release), "counted").pipe(
        Effect.withTracer(tracer)
      )
      expect(counted).toEqual({ forks: 1, spans: 1 })
    })))

it.effect("a statement that nobody watches is run as it is", () =>
  withPool({ poolSize: 1 }, ({ pool }) =>
    Effect.withFiberRuntime<void>((fiber, status) => {
      const effect = Effect.never
      const run = watched(pool, () => effect)
      const statement = FakeDriver.statement("SELECT id")
      expect(run(statement, fiber, status, identity)).toBe(effect)
      pool.listener = () => undefined
      expect(run(statement, fiber, status, identity)).not.toBe(effect)
      return Effect.void
    })))

it.effect("a statement of the client opens its span only when somebody sees it", () =>
  withPool({ poolSize: 1 }, (fixture) =>
    Effect.gen(function*() {
      const sql = yield* Effect.provide(DbClient.make(fixture.pool), Reactivity.layer)
      const native = Context.get(DefaultServices.liveServices, Tracer.Tracer)
      const opened = yield* Effect.acquireRelease(
        Effect.sync(() => vi.spyOn(native, "span")),
        (spy) => Effect.sync(() => spy.mockRestore())
      )
      const ways = [sql`SELECT 1`, sql.unsafe("SELECT 1"), sql`SELECT 1`.values, sql`SELECT 1`.raw]
      for (const way of ways) yield* way
      expect(opened).not.toHaveBeenCalled()

      const seen: Array<string> = []
      const tracer = Tracer.make({
        context: native.context,
        span: (name, ...rest) => {
          seen.push(name)
          return native.span(name, ...rest)
        }
      })
      for (const way of ways) yield* Effect.withTracer(way, tracer)
      expect(seen).toEqual(ways.map(() => "sql.execute"))

      opened.mockClear()
      const transformed = Statement.withTransformer((statement) => Effect.succeed(statement))
      yield* transformed(sql`SELECT 1`)
      expect(opened).toHaveBeenCalledTimes(1)
    }).pipe(Effect.scoped)))
