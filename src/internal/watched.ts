/**
 * The statements of a program, as those see them who want to know: the fiber's tracer, by a span, and the pool's listener,
 * by how long each took and how it ended. With neither a statement runs as it is.
 *
 * A statement takes from the wish for a connection to its answer, runs of it again included; a stream, until its consumer
 * has read it. What a transaction sends by itself is no statement of the program.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberStatus from "effect/FiberStatus"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { Pool } from "../ConnectionPool.js"
import type { DbError } from "../DbError.js"
import type { Result, Statement } from "../Driver.js"
import { failed, isTraced, spanned } from "./spans.js"

type Listener = NonNullable<Pool["listener"]>

type Running = Fiber.RuntimeFiber<unknown, unknown>
type Run = <A>(
  statement: Statement,
  fiber: Running,
  status: FiberStatus.Running,
  shape: (result: Result) => A
) => Effect.Effect<A, DbError>

const name = "sql.execute"

const optionsOf = (pool: Pool, { sql }: Statement) => ({
  kind: "client" as const,
  attributes: { ...pool.attributes, "db.query.text": sql },
  captureStackTrace: false
})

/** Tells the listener when the time is over that begins now. */
const stopwatch = (fiber: Running, listener: Listener): (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void> => {
  const clock = Context.get(fiber.currentDefaultServices, Clock.Clock)
  const since = clock.unsafeCurrentTimeNanos()
  return (exit) => Effect.sync(() => listener(Number(clock.unsafeCurrentTimeNanos() - since) / 1e9, exit))
}

/** @internal Runs a statement, for the fiber that is going to do so right away, and tells the pool's listener. */
export const heard = <A>(
  pool: Pool,
  run: Run,
  statement: Statement,
  fiber: Running,
  status: FiberStatus.Running,
  shape: (result: Result) => A
): Effect.Effect<A, DbError> => {
  const listener = pool.listener
  if (listener === undefined) return run(statement, fiber, status, shape)
  const timed = Effect.withFiberRuntime<A, DbError>((fiber, status) => run(statement, fiber, status, shape))
  return Effect.suspend(() => Effect.onExit(timed, stopwatch(fiber, listener)))
}

/** @internal What runs statements, with a span for each. */
export const watched = (pool: Pool, run: Run): Run =>
<A>(
  statement: Statement,
  fiber: Running,
  status: FiberStatus.Running,
  shape: (result: Result) => A
): Effect.Effect<A, DbError> => {
  if (!isTraced(fiber)) return heard(pool, run, statement, fiber, status, shape)
  const inSpan = Effect.withFiberRuntime<A, DbError>((fiber, status) =>
    heard(pool, run, statement, fiber, status, shape)
  )
  return spanned(name, optionsOf(pool, statement), inSpan)
}

/** The rows, whose end is told; who reads them may stop or fail by itself, which is no failure of the statement. */
const heardStream = <A>(rows: Stream.Stream<A, DbError>, fiber: Running, listener: Listener) =>
  Effect.suspend(() => {
    const tell = stopwatch(fiber, listener)
    let failure: Exit.Exit<never, unknown> | undefined
    const noted = Stream.tapErrorCause(rows, (cause) =>
      Effect.sync(() => {
        failure = Exit.failCause(cause)
      }))
    return Effect.as(
      Effect.addFinalizer((exit) => tell(failure ?? (Exit.isInterrupted(exit) ? exit : Exit.void))),
      noted
    )
  })

/** @internal A statement's rows; the pool's listener is told, and a tracer when `spans` says so. */
export const watchedStream = <A>(
  pool: Pool,
  statement: Statement,
  rows: Stream.Stream<A, DbError>,
  spans: boolean
): Stream.Stream<A, DbError> =>
  Stream.unwrapScoped(Effect.withFiberRuntime((fiber) => {
    const { listener } = pool
    const timed = listener === undefined ? Effect.succeed(rows) : heardStream(rows, fiber, listener)
    if (!spans || !isTraced(fiber)) return timed
    return Effect.flatMap(
      Effect.makeSpanScoped(name, optionsOf(pool, statement)),
      (span) =>
        Effect.map(timed, (rows) => Stream.provideService(Stream.tapError(rows, failed(span)), Tracer.ParentSpan, span))
    )
  }))
