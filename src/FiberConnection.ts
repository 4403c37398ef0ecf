/**
 * Which connection belongs to this fiber.
 *
 * Statements run on the connection of the session or transaction around the fiber, if it is in one, see `internal/place`;
 * else on the fiber's own, see `internal/ownLeases`, and again on another one when that may be.
 *
 * @module
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberStatus from "effect/FiberStatus"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Pool } from "./ConnectionPool.js"
import { type AcquireError, AffinityLost, type DbError } from "./DbError.js"
import type { Result, Row, SessionState, Statement } from "./Driver.js"
import { openAt, unsafeRunAt } from "./internal/atPlace.js"
import { type Again, isAgain, judge, retry, runChecked, thenUnclaim, turnOf } from "./internal/attempts.js"
import { nothingStarted, unsafeAwaiting } from "./internal/awaiting.js"
import { type FirstChunk, firstChunk, rowsOf } from "./internal/cursorStream.js"
import type { Lease } from "./internal/lease.js"
import { isLease, OwnLeases } from "./internal/ownLeases.js"
import { Places } from "./internal/place.js"
import { borrowIn, Sessions } from "./internal/sessions.js"
import { isTraced } from "./internal/spans.js"
import { textOnly } from "./internal/statement.js"
import { runOn, unsafeRun } from "./internal/submission.js"

/**
 * One row of a stream, with the names of its columns.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamedRow {
  /** The names of the columns, in the order of the select list; the same array for every row of a statement. */
  readonly columns: ReadonlyArray<string>
  /** The column values, in the same order. */
  readonly row: Row
}

/**
 * Rows as they come, in the chunks in which they were read. Ending the stream early stops its statement on the server.
 *
 * @since 0.1.0
 * @category models
 */
export type RowStream = Stream.Stream<StreamedRow, DbError>

/**
 * The connection that a fiber has now.
 *
 * @since 0.1.0
 * @category models
 */
export interface CurrentConnection {
  /** What the server calls it (`CONNECTION_ID()`); for SQLite a number that counts up in its pool. */
  readonly id: string
  /** What its session holds. */
  readonly session: SessionState
}

/**
 * The fibers' connections of one pool.
 *
 * @since 0.1.0
 * @category models
 */
export interface FiberConnection {
  /** The pool whose connections they are. */
  readonly pool: Pool
  /** @internal Where fibers are that share a connection of the pool. */
  readonly places: Places
  /** @internal Whether the fiber has something on its connection, or shares one, that another connection would not have. */
  readonly isBound: (fiber: Fiber.RuntimeFiber<unknown, unknown>) => boolean
  /**
   * Runs a statement on the connection of the session around it, else on the fiber's own, which is taken from the pool
   * if the fiber has none. A lost connection is replaced and the statement run again when `Recovery` allows it.
   */
  readonly run: (statement: Statement) => Effect.Effect<Result, DbError>
  /** @internal What {@link run} does, for the fiber that is going to run it right away, and what the shape makes of it. */
  readonly unsafeRun: <A>(
    statement: Statement,
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    status: FiberStatus.Running,
    shape: (result: Result) => A
  ) => Effect.Effect<A, DbError>
  /**
   * The rows of a statement as they come, in chunks. A stream runs in a fiber of its own and so on a connection of its
   * own, except in a session.
   */
  readonly stream: (statement: Statement) => RowStream
  /** @internal See {@link Sessions}. */
  readonly session: Sessions["session"]
  /** @internal See {@link Sessions}. */
  readonly inSession: Sessions["inSession"]
  /** @internal A connection of its own for as long as the scope. */
  readonly connection: Effect.Effect<Lease, AcquireError, Scope.Scope>
  /** The connection that the fiber or its session has now, if any. It takes none and waits for nothing. */
  readonly current: Effect.Effect<Option.Option<CurrentConnection>>
  /**
   * Closes the fiber's own connection, has all others checked before use, and takes a working one. In a session, whose
   * connection cannot be replaced without losing what it holds, it only has them checked.
   */
  readonly reconnect: Effect.Effect<void, AcquireError>
  /** @internal Gives the fiber's own connection back without a word to the server: the pool resets or closes it. */
  readonly abandon: Effect.Effect<void>
  /** Rolls back what is open on the fiber's own connection and gives it back now. Never fails. */
  readonly release: Effect.Effect<void>
}

class FiberConnectionImpl implements FiberConnection {
  readonly places = new Places()
  readonly session: Sessions["session"]
  readonly inSession: Sessions["inSession"]
  readonly #own: OwnLeases
  readonly #rollback: Statement

  constructor(readonly pool: Pool) {
    this.#own = new OwnLeases(pool)
    const sessions = new Sessions(pool, this.places, this.#own)
    this.session = sessions.session
    this.inSession = sessions.inSession
    const { rollback } = pool.driver.transaction
    this.#rollback = textOnly(rollback, pool.driver)
  }

  readonly run: FiberConnection["run"] = (statement) =>
    Effect.withFiberRuntime((fiber, status) => this.unsafeRun(statement, fiber, status, identity))

  readonly unsafeRun: FiberConnection["unsafeRun"] = (statement, fiber, status, shape) => {
    const place = this.places.of(fiber)
    if (place !== undefined) return unsafeRunAt(this.pool.driver, place, statement, fiber, status, shape)
    return this.#runOwn(fiber, status, statement, shape)
  }

  /** Runs the statement on the fiber's own connection, and again on another one when it may be. */
  #runOwn<A>(
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    status: FiberStatus.Running,
    statement: Statement,
    shape: (result: Result) => A
  ): Effect.Effect<A, DbError> {
    return this.#attempt(fiber, status, statement, shape, (lease, error) => {
      const again = Effect.withFiberRuntime<A, DbError | Again>((fiber, status) =>
        this.#attempt(fiber, status, statement, shape, (lease, error) => judge(lease, statement, error))
      )
      return Effect.catchIf(judge(lease, statement, error), isAgain, (first) => retry(this.pool, first, again))
    })
  }

  /** Runs the statement once on the fiber's own connection. */
  #attempt<A, E>(
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    status: FiberStatus.Running,
    statement: Statement,
    shape: (result: Result) => A,
    failed: (lease: Lease, error: DbError) => Effect.Effect<A, E>
  ): Effect.Effect<A, DbError | E> {
    const turn = turnOf(fiber)
    if (statement.traits.readsPrevious || isTraced(fiber)) {
      return this.#inSteps(fiber, statement, (lease) => {
        const onFailure = (error: DbError): Effect.Effect<A, E> => failed(lease, error)
        const onSuccess = (): Effect.Effect<A, DbError | E> =>
          runChecked(this.pool.driver, lease, statement, turn, shape, onFailure)
        // a tracer sees the wait
        return lease.state._tag === "Waiting"
          ? Effect.matchEffect(lease.granted(), { onFailure, onSuccess })
          : onSuccess()
      })
    }
    let lease: Lease | DbError | undefined
    // the lease is chosen in the step from which an interruption is heard, lest it stays claimed for nothing
    return unsafeAwaiting<A, DbError, A, DbError | E>(
      fiber,
      status,
      (resume) => {
        lease = this.#own.fitFor(fiber, statement)
        if (isLease(lease)) return unsafeRun(lease, statement, turn, shape, resume, fiber)
        resume(Exit.fail(lease))
        return nothingStarted
      },
      (error) => lease !== undefined && isLease(lease) ? failed(lease, error) : Effect.fail(error)
    )
  }

  /** Has the fiber's own lease for more than one step; after them it may serve somebody else again. */
  #inSteps<A, E>(
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    statement: Statement,
    use: (lease: Lease) => Effect.Effect<A, E>
  ): Effect.Effect<A, DbError | E> {
    return Effect.uninterruptibleMask((restore): Effect.Effect<A, DbError | E> => {
      const lease = this.#own.fitFor(fiber, statement)
      return isLease(lease) ? thenUnclaim(lease, restore(use(lease))) : Effect.fail(lease)
    })
  }

  readonly stream: FiberConnection["stream"] = (statement) => rowsOf((scope) => this.#openStream(statement, scope))

  #openStream(statement: Statement, scope: Scope.Scope): Effect.Effect<FirstChunk, DbError> {
    return Effect.withFiberRuntime<FirstChunk, DbError>((fiber) => {
      const place = this.places.of(fiber)
      if (place !== undefined) return openAt(this.pool.driver, place, statement, scope)
      if (statement.traits.readsPrevious) return Effect.fail(new AffinityLost({ statement: statement.sql }))
      // nothing has been emitted before the first chunk, so that a read may begin again
      const turn = turnOf(fiber)
      const attempt = Effect.flatMap(
        borrowIn(this.pool, scope, "stream", statement.sql),
        (lease) => Effect.catchAll(firstChunk(lease, statement, scope, turn), (error) => judge(lease, statement, error))
      )
      return Effect.catchTag(attempt, "Again", (again) => retry(this.pool, again, attempt))
    })
  }

  readonly isBound: FiberConnection["isBound"] = (fiber) =>
    this.places.of(fiber) !== undefined || this.#own.isBound(fiber)

  readonly connection: Effect.Effect<Lease, AcquireError, Scope.Scope> = Effect.flatMap(
    Effect.scope,
    (scope) => borrowIn(this.pool, scope, "connection", "db.connection")
  )

  readonly current = Effect.withFiberRuntime<Option.Option<CurrentConnection>>((fiber) => {
    const lease = this.places.of(fiber)?.lease ?? this.#own.of(fiber)
    const connection = lease?.connection
    return Effect.succeed(
      connection === undefined ? Option.none() : Option.some({ id: connection.id, session: connection.session() })
    )
  })

  readonly release: Effect.Effect<void> = Effect.withFiberRuntime((fiber) => {
    const lease = this.#own.of(fiber)
    if (lease === undefined) return Effect.void
    const rollBack = lease.state._tag === "Ready" && lease.connection?.session() === "transaction"
      // if the rollback fails the connection is lost, and with it the transaction
      ? this.pool.unsafePatiently(
        Effect.asVoid(Effect.ignore(runOn(lease, this.#rollback))),
        () => lease.invalidate("an unanswered rollback")
      )
      : Effect.void
    return Effect.ensuring(
      rollBack,
      Effect.sync(() => {
        lease.release("db.releaseFiberConnection")
        this.#own.forget(fiber)
      })
    )
  })

  readonly abandon: Effect.Effect<void> = Effect.withFiberRuntime((fiber) => {
    this.#own.of(fiber)?.release("the end of its pool")
    this.#own.forget(fiber)
    return Effect.void
  })

  readonly reconnect: Effect.Effect<void, AcquireError> = Effect.withFiberRuntime<void, AcquireError>((fiber) => {
    // a session's connection cannot be replaced without losing what it holds
    if (this.places.of(fiber) !== undefined) return this.pool.invalidateAll
    this.#own.of(fiber)?.invalidate("db.reconnect")
    const fresh = Effect.uninterruptibleMask((restore) => {
      const lease = this.#own.borrow(fiber, "db.reconnect")
      return thenUnclaim(lease, lease.state._tag === "Ready" ? Effect.void : restore(lease.granted()))
    })
    return Effect.zipRight(this.pool.invalidateAll, fresh)
  })
}

const made = new WeakMap<Pool, FiberConnection>()

/**
 * Gives every fiber its own connection of the pool. One and the same for one pool, so that databases that share a pool
 * share its fibers' connections and sessions.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (pool: Pool): FiberConnection => {
  const known = made.get(pool)
  if (known !== undefined) return known
  const fibers = new FiberConnectionImpl(pool)
  made.set(pool, fibers)
  return fibers
}
