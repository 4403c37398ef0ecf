/**
 * The same test on a real server and on embedded SQLite, each on a database of its own that ends by proving that what
 * was opened is closed, once; and what a test of bad input asks: that nothing is lost.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { inspect } from "node:util"
import { expect } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import type { Driver } from "../../src/Driver.js"
import type { PoolOptions, SqliteOptions } from "../../src/PoolConfig.js"
import type { PoolSnapshot } from "../../src/PoolStats.js"
import type { Queries } from "../../src/Queries.js"
import { expectAllClosed, withDb } from "./dbFixture.js"

export type Dialect = Driver["dialect"]
export const dialects: ReadonlyArray<Dialect> = ["mysql", "sqlite"]

/** Runs the effect on a SQLite database of its own, and proves at the end that the pool has closed everything. */
export const withSqlite = <A, E, R>(
  options: SqliteOptions & PoolOptions,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const services = yield* Effect.orDie(Layer.buildWithScope(DbLayer.sqlite(options), scope))
      const exit = yield* Effect.exit(restore(Effect.provide(test, services)))
      yield* Scope.close(scope, exit)
      const snapshot = yield* Context.get(services, ConnectionPool.ConnectionPool).snapshot
      if (Exit.isSuccess(exit)) expectAllClosed(snapshot)
      return yield* exit
    })
  )

/** Runs the effect on an empty database of that kind. */
export const withDialect = <A, E, R>(
  dialect: Dialect,
  options: PoolOptions,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> =>
  dialect === "mysql" ? withDb(options, () => test) : withSqlite(options, test)

// --- where a statement can be run --------------------------------------------------------------------------------------

export type Surface = "Db" | "a connection" | "a session" | "a transaction"
export const surfaces: ReadonlyArray<Surface> = ["Db", "a connection", "a session", "a transaction"]

/** Hands the queries of the surface to the effect; a transaction is rolled back when the effect fails. */
export const on = <A, E, R>(
  surface: Surface,
  use: (queries: Queries) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | DbError, R | Db.Db> =>
  Effect.flatMap(Db.Db, (db): Effect.Effect<A, E | DbError, R> => {
    switch (surface) {
      case "Db":
        return use(db)
      case "a connection":
        return Effect.scoped(Effect.flatMap(db.connection, use))
      case "a session":
        return db.session(use(db))
      case "a transaction":
        return db.transaction(use(db))
    }
  })

// --- nothing is lost -------------------------------------------------------------------------------------------------

const pool = ConnectionPool.ConnectionPool

const standing = (
  { busy, closed, connectFailures, created, held, idle, lost, opening, phase, waiting }: PoolSnapshot
) => ({
  open: idle + held + busy,
  opening,
  waiting,
  created,
  closed,
  lost,
  connectFailures,
  phase
})

/** What is said of the effect's failure; it dies when the effect does not fail. */
export const failure = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.orDieWith(Effect.flip(effect), (value) => new Error(`it did not fail but gave ${inspect(value)}`))

/** The message of the effect's defect; it dies when there is none. */
export const defect = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<string, never, R> =>
  Effect.flatMap(Effect.exit(effect), (exit) => {
    const died = Exit.isFailure(exit) ? Cause.dieOption(exit.cause) : Option.none()
    return died._tag === "Some" && died.value instanceof Error
      ? Effect.succeed(died.value.message)
      : Effect.dieMessage(`it did not die but gave ${inspect(exit)}`)
  })

/**
 * Expects the effect to fail and the pool to be afterwards what it was before: the same connections, nobody who waits,
 * nothing broken; the next statement works. The fiber has the connection that it had, unless the effect ended a stream
 * in the midst, which takes a moment to stop, while the fiber goes on with another.
 */
export const harmless = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  { endsStream = false }: { readonly endsStream?: boolean } = {}
): Effect.Effect<E, DbError, R | Db.Db | ConnectionPool.ConnectionPool> =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const { snapshot } = yield* pool
    // the most connections that one of the surfaces needs, so that none is opened on the way
    yield* Effect.scoped(Effect.zipRight(db.connection, db.value("SELECT 1")))
    const id = Option.map(yield* db.currentConnection, (current) => current.id)
    const before = standing(yield* snapshot)
    const error = yield* failure(effect)
    expect(yield* db.value("SELECT 40 + 2")).toEqual(Option.some(42))
    expect(standing(yield* snapshot)).toEqual(before)
    if (!endsStream) expect(Option.map(yield* db.currentConnection, (current) => current.id)).toEqual(id)
    return error
  })

// --- logs ------------------------------------------------------------------------------------------------------------

/** What is logged while the effect runs, and by what it builds, instead of printing it: level, message, cause, rest. */
export const logged = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [A, ReadonlyArray<string>], E, R> =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    const recorder = Logger.make(({ annotations, cause, logLevel, message, spans }) => {
      const rest = [message, Cause.isEmpty(cause) ? "" : Cause.pretty(cause), annotations, spans]
      lines.push(`${logLevel.label} ${inspect(rest, { depth: Infinity })}`)
    })
    return Effect.map(effect, (value) => [value, lines] as const).pipe(
      Effect.provide(Logger.replace(Logger.defaultLogger, recorder)),
      Logger.withMinimumLogLevel(LogLevel.All),
      Effect.withUnhandledErrorLogLevel(Option.some(LogLevel.Error))
    )
  })

// --- secrets ---------------------------------------------------------------------------------------------------------

/** Expects the secret nowhere in what a log could show of the value. */
export const expectSecretless = (value: unknown, secret: string): void => {
  const texts = [
    String(value),
    JSON.stringify(value) ?? "",
    inspect(value, { depth: Infinity, showHidden: true, maxArrayLength: Infinity, maxStringLength: Infinity }),
    ...(value instanceof Error ? [value.message, value.stack ?? "", Cause.pretty(Cause.fail(value))] : [])
  ]
  for (const text of texts) expect(text).not.toContain(secret)
}
