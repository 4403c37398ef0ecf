/**
 * What a statement on a connection that its fiber has costs beside itself: nothing. Counted, not timed.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as Statement from "@effect/sql/Statement"
import { expect, it } from "@effect/vitest"
import { Context, DefaultServices, Effect, identity, RuntimeFlags, RuntimeFlagsPatch, Supervisor, Tracer } from "effect"
import { vi } from "vitest"
import * as Db from "../../src/Db.js"
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

it.effect("a statement or transaction of the client opens its span only when somebody sees it", () =>
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
      yield* sql.withTransaction(sql`SELECT 1`)
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
      seen.length = 0
      yield* Effect.withTracer(sql.withTransaction(sql`SELECT 1`), tracer)
      expect(seen).toEqual(["sql.transaction", "sql.execute"])

      opened.mockClear()
      const transformed = Statement.withTransformer((statement) => Effect.succeed(statement))
      yield* transformed(sql`SELECT 1`)
      expect(opened).toHaveBeenCalledTimes(1)
    }).pipe(Effect.scoped)))

/** Counts the steps of fibers. */
class Steps extends Supervisor.AbstractSupervisor<void> {
  taken = 0
  override readonly value = Effect.void
  override onEffect(): void {
    this.taken++
  }
}

const stepsOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const steps = new Steps()
    const counted = RuntimeFlagsPatch.enable(RuntimeFlags.OpSupervision)
    return Effect.as(Effect.supervised(Effect.withRuntimeFlagsPatch(effect, counted), steps), steps).pipe(
      Effect.map(({ taken }) => taken)
    )
  })

it.effect("a statement, a session and a transaction take few steps of their fiber", () =>
  withPool({ poolSize: 1 }, ({ pool }) =>
    Effect.gen(function*() {
      const db = Db.make(pool)
      const one = db.execute("SELECT id")
      yield* one
      const nothing = yield* stepsOf(Effect.void)
      const most: ReadonlyArray<readonly [what: string, effect: Effect.Effect<unknown, unknown>, steps: number]> = [
        ["an answer by Effect.async, for comparison", Effect.async<void>((resume) => resume(Effect.void)), 2],
        ["a statement", one, 8],
        ["a session", db.session(Effect.void), 18],
        ["a transaction", db.transaction(Effect.void), 35],
        ["a statement in a transaction", db.transaction(one), 35 + 8]
      ]
      const more: Array<string> = []
      for (const [what, effect, steps] of most) {
        const taken = (yield* stepsOf(effect)) - nothing
        if (taken > steps) more.push(`${what}: ${taken}, and not ${steps}`)
      }
      expect(more).toEqual([])
    })))
