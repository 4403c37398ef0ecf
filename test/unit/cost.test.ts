/**
 * What a statement on a connection that its fiber has costs beside itself: nothing. Counted, not timed.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Tracer } from "effect"
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
