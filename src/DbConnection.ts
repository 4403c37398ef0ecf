/**
 * One explicit connection: the same queries on a connection that is the caller's until the scope ends or it is released.
 *
 * @module
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AcquireError } from "./DbError.js"
import type { FiberConnection } from "./FiberConnection.js"
import { streamAt, unsafeRunAt } from "./internal/atPlace.js"
import type { Lease } from "./internal/lease.js"
import { watched, watchedStream } from "./internal/watched.js"
import * as Queries from "./Queries.js"

/**
 * A connection that its holder alone uses, until it is released.
 *
 * Fibers that share it run one statement at a time, first come first served. A statement while a stream from it is open
 * is `ConnectionBusy`. Using it after its release is a defect that says what released it. Nothing is run again by itself
 * on it: a lost connection is `ConnectionLost`, and what its session held is gone.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Db } from "effect-sql-pool"
 *
 * const picked = Effect.scoped(Effect.gen(function*() {
 *   const db = yield* Db.Db
 *   const connection = yield* db.connection
 *   yield* connection.execute("CREATE TEMPORARY TABLE picked (id INTEGER)")
 *   yield* connection.execute("INSERT INTO picked VALUES (?), (?)", [1, 2])
 *   return yield* connection.list<number>("SELECT id FROM picked ORDER BY id")
 * }))
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export interface DbConnection extends Queries.Queries {
  /** What the server calls the connection (`CONNECTION_ID()`); for SQLite a number that counts up in its pool. */
  readonly id: string
  /** Gives it back before its scope ends. Idempotent, never fails; what it left in its session is undone. */
  readonly release: Effect.Effect<void>
  /** Closes it instead of giving it back, because something is wrong with it. Idempotent, never fails. */
  readonly invalidate: Effect.Effect<void>
}

/** @internal */
export const fromLease = (fibers: FiberConnection, lease: Lease): DbConnection => {
  const { pool } = fibers
  const place = { lease, transaction: undefined }
  const queries = Queries.make({
    driver: pool.driver,
    run: watched(
      pool,
      (statement, fiber, status, shape) => unsafeRunAt(pool.driver, place, statement, fiber, status, shape)
    ),
    stream: (statement) => watchedStream(pool, statement, streamAt(pool.driver, place, statement), true)
  })
  // not spread into a literal, which takes a third of what it costs to borrow and return a connection
  return Object.assign(queries, {
    id: lease.connection?.id ?? "",
    release: Effect.sync(() => lease.release("connection.release")),
    invalidate: Effect.sync(() => lease.invalidate("connection.invalidate"))
  })
}

/**
 * Takes a connection from the pool for as long as the scope; a program says `db.connection`. Fails with `AcquireError`
 * within `acquireTimeout`; interruption while waiting leaves no trace.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (fibers: FiberConnection): Effect.Effect<DbConnection, AcquireError, Scope.Scope> =>
  Effect.map(fibers.connection, (lease) => fromLease(fibers, lease))
