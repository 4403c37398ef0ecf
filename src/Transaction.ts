/**
 * Transactions on the connection of a session: begin, savepoints for nested ones, commit or rollback, with outcomes
 * that are errors of their own and never defects.
 *
 * @module
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as DbErrors from "./DbError.js"
import type { DbError } from "./DbError.js"
import { holdsNothing, type Isolation } from "./Driver.js"
import type { FiberConnection } from "./FiberConnection.js"
import { Again, isAgain, isReplaceable, retry } from "./internal/attempts.js"
import type { Restore } from "./internal/awaiting.js"
import type { Lease } from "./internal/lease.js"
import { OneTurn, type Turn } from "./internal/leaseModel.js"
import { Place, type TransactionScope, type TransactionWhole } from "./internal/place.js"
import { textOnly } from "./internal/statement.js"
import { runOn, unsafeRunRestoring } from "./internal/submission.js"
import { duration } from "./PoolConfig.js"
import * as Recovery from "./Recovery.js"

/**
 * How a transaction is opened, and whether it is run again.
 *
 * @since 0.1.0
 * @category options
 */
export interface TransactionOptions {
  /** Default: the session's. A nested transaction has that of the outermost; asking for another is an error. */
  readonly isolation?: Isolation | undefined
  /** Whether the transaction may only read. Default false; nested as the outermost is. */
  readonly readOnly?: boolean | undefined
  /**
   * When to run the whole of it again after what `Recovery.mayRetryTransaction` names: a deadlock, a lock wait, a
   * connection that was lost before COMMIT was sent. Then the effect must do nothing that may not be done twice. Not after
   * a statement that may have committed by itself, such as CREATE TABLE or CALL on MySQL. Default: never;
   * `Recovery.schedule` is one with full jitter. Of a nested transaction it is the outermost's that counts, since the
   * server undoes all of it.
   */
  readonly retry?: Schedule.Schedule<unknown, DbError> | undefined
  /** How long to wait for a connection. Default: the pool's `acquireTimeout`. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
}

/**
 * Runs the effect in a transaction: committed when it succeeds, rolled back when it fails, dies or is interrupted. All
 * statements inside, those of forked fibers too, run on one connection, one at a time. A transaction inside another is
 * a savepoint.
 *
 * A connection lost before COMMIT was sent gives `ConnectionLost` with `outcome: "rolled back"`, a lost COMMIT
 * `outcome: "unknown"`. After the server has undone all of it by itself, as for a deadlock, further statements and the
 * COMMIT are `TransactionAborted`. Interruption stops the running statement, leaves the rollback to the pool and returns
 * at once; only a COMMIT that has been sent is waited for, and what a session or transaction around it goes on with.
 *
 * A program says `db.transaction`, or `sql.withTransaction`:
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Db, Recovery } from "effect-sql-pool"
 *
 * const move = (from: number, to: number, amount: number) =>
 *   Effect.flatMap(Db.Db, (db) =>
 *     db.transaction(
 *       Effect.gen(function*() {
 *         yield* db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, from])
 *         yield* db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, to])
 *       }),
 *       { isolation: "SERIALIZABLE", retry: Recovery.schedule }
 *     ))
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const run = <A, E, R>(
  fibers: FiberConnection,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions = {}
): Effect.Effect<A, E | DbError, R> =>
  Effect.withFiberRuntime((fiber) => {
    const place = fibers.places.of(fiber)
    if (place?.transaction !== undefined) return nested(fibers, fiber, place.lease, place.transaction, effect, options)
    return options.retry === undefined
      ? once(fibers, effect, options, new OneWhole(options))
      : repeatedly(fibers, effect, options, options.retry, fibers.isBound(fiber))
  })

class OneWhole implements TransactionWhole {
  aborted: DbError | undefined
  committed = false
  nextSavepoint = 1
  readonly isolation: Isolation | undefined
  readonly readOnly: boolean

  constructor({ isolation, readOnly = false }: TransactionOptions) {
    this.isolation = isolation
    this.readOnly = readOnly
  }
}

/** Runs the transaction again while the schedule allows it. */
const repeatedly = <A, E, R>(
  fibers: FiberConnection,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions,
  schedule: Schedule.Schedule<unknown, DbError>,
  isBound: boolean
): Effect.Effect<A, E | DbError, R> =>
  Effect.flatMap(Schedule.driver(schedule), (driver) => {
    const attempt: Effect.Effect<A, E | DbError, R> = Effect.suspend(() => {
      const whole = new OneWhole(options)
      return Effect.catchAllCause(once(fibers, effect, options, whole), (cause) => {
        const failure = passing(cause, whole)
        // what the session around it, or the fiber, had on the connection is gone with it, and would be missing
        if (failure === undefined || (isBound && Recovery.isStale(failure))) return Effect.failCause(cause)
        return Effect.matchEffect(driver.next(failure), {
          onFailure: () => Effect.failCause(cause),
          onSuccess: () => {
            fibers.pool.unsafeRetried("transaction")
            return attempt
          }
        })
      })
    })
    return attempt
  })

/** The database's failure that ended the transaction and need not come again; user code may have wrapped it, or died of it. */
const passing = (cause: Cause.Cause<unknown>, { aborted, committed }: TransactionWhole): DbError | undefined => {
  if (committed || Cause.isInterruptedOnly(cause)) return undefined
  const errors = [...Cause.failures(cause), ...Cause.defects(cause), aborted]
  return errors.map(DbErrors.find).find((error) => error !== undefined && Recovery.mayRetryTransaction(error))
}

/** The transaction in a session of its own, or in the one around it. */
const once = <A, E, R>(
  fibers: FiberConnection,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions,
  whole: TransactionWhole
): Effect.Effect<A, E | DbError, R> => {
  const begin = fibers.pool.driver.transaction.begin(options)
  if (begin === undefined) return noSuchLevel(fibers, options)
  const acquireTimeout = options.acquireTimeout === undefined ? undefined : duration(options.acquireTimeout)
  const attempt = fibers.inSession(
    (fiber, { lease }, restore) => outermost(fibers, fiber, lease, restore, effect, { begin, options, whole }),
    { acquireTimeout }
  )
  // a BEGIN whose connection was gone has begun nothing
  return Effect.catchIf(attempt, isAgain, (again) => retry(fibers.pool, again, attempt))
}

const noSuchLevel = ({ pool }: FiberConnection, { isolation }: TransactionOptions): Effect.Effect<never, DbError> =>
  Effect.fail(new DbErrors.InvalidTransaction({ reason: `${pool.driver.target} has no isolation level ${isolation}` }))

type Running = Fiber.RuntimeFiber<unknown, unknown>

interface Opening {
  readonly begin: ReadonlyArray<string>
  readonly options: TransactionOptions
  readonly whole: TransactionWhole
}

const outermost = <A, E, R>(
  fibers: FiberConnection,
  fiber: Running,
  lease: Lease,
  restore: Restore | undefined,
  effect: Effect.Effect<A, E, R>,
  { begin, options, whole }: Opening
): Effect.Effect<A, E | DbError | Again, R> =>
  // what a driver throws dies in here, where the session is closed after it
  Effect.suspend(() => {
    const { driver } = fibers.pool
    if (lease.connection?.session() === "transaction") {
      return Effect.fail(
        new DbErrors.InvalidTransaction({
          reason: "A transaction that was opened by hand is still open on this connection, and BEGIN would commit it"
        })
      )
    }
    const { commit, rollback } = driver.transaction
    const after = driver.transaction.after?.(options)
    const bracket = new Bracket(
      new OneScope(whole, undefined, nothing),
      restore !== undefined,
      begin,
      after === undefined ? [commit] : [commit, ...after],
      after === undefined ? [rollback] : [rollback, ...after]
    )
    return inSection(fibers, fiber, lease, bracket, effect, restore)
  })

const nested = <A, E, R>(
  fibers: FiberConnection,
  fiber: Running,
  lease: Lease,
  outer: TransactionScope,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions
): Effect.Effect<A, E | DbError, R> =>
  Effect.suspend(() => {
    const { whole } = outer
    const refused = refuseNested(fibers, whole, options)
    if (refused !== undefined) return refused
    const { releaseSavepoint, rollbackTo, savepoint } = fibers.pool.driver.transaction
    const name = `effect_sql_pool_${whole.nextSavepoint++}`
    const undo = [rollbackTo(name), releaseSavepoint(name)]
    const section = new OneScope(whole, outer, undo)
    const bracket = new Bracket(section, false, [savepoint(name)], [releaseSavepoint(name)], undo)
    return Effect.catchIf(
      inSection(fibers, fiber, lease, bracket, effect, undefined),
      isAgain,
      ({ error }) => Effect.fail(error)
    )
  })

/** What the outermost transaction cannot give any more. */
const refuseNested = (
  fibers: FiberConnection,
  whole: TransactionWhole,
  options: TransactionOptions
): Effect.Effect<never, DbError> | undefined => {
  const { begin, onlyIsolation } = fibers.pool.driver.transaction
  const { isolation, readOnly } = options
  if (begin(options) === undefined) return noSuchLevel(fibers, options)
  if (isolation !== undefined && isolation !== (onlyIsolation ?? whole.isolation)) {
    const given = whole.isolation === undefined ? "that of its session" : whole.isolation
    const reason = `A nested transaction cannot be ${isolation}: its isolation level is the outermost's, ${given}`
    return Effect.fail(new DbErrors.InvalidTransaction({ reason }))
  }
  return readOnly === false && whole.readOnly
    ? Effect.fail(new DbErrors.InvalidTransaction({ reason: "A transaction nested in a read-only one cannot write" }))
    : undefined
}

class OneScope implements TransactionScope {
  ended = false
  readonly depth: number

  constructor(
    readonly whole: TransactionWhole,
    readonly parent: TransactionScope | undefined,
    readonly undo: ReadonlyArray<string>
  ) {
    this.depth = parent === undefined ? 0 : parent.depth + 1
  }
}

class Bracket {
  constructor(
    readonly section: TransactionScope,
    /** Whether the connection is this transaction's alone, and not a session's that goes on after it. */
    readonly owned: boolean,
    readonly begin: ReadonlyArray<string>,
    readonly commit: ReadonlyArray<string>,
    readonly rollBack: ReadonlyArray<string>
  ) {}
}

const nothing: ReadonlyArray<never> = []

/**
 * Runs the effect between two brackets, with the connection for itself. What runs outside of it on the same connection
 * waits until it has ended: neither a rollback to a savepoint nor one of the whole tells whose work it undoes.
 */
const inSection = <A, E, R>(
  fibers: FiberConnection,
  fiber: Running,
  lease: Lease,
  bracket: Bracket,
  effect: Effect.Effect<A, E, R>,
  restore: Restore | undefined
): Effect.Effect<A, E | DbError | Again, R> => {
  if (restore === undefined) {
    return Effect.uninterruptibleMask((restore) => inSection(fibers, fiber, lease, bracket, effect, restore))
  }
  const { back, there } = fibers.places.unsafeWay(fiber, new Place(lease, bracket.section))
  const send: Send = (text, turn, failed) =>
    unsafeRunRestoring(fiber, restore, lease, textOnly(text, fibers.pool.driver), turn, failed)
  const failed = (cause: Cause.Cause<E | DbError | Again>) =>
    Effect.zipRight(rollBack(fibers, lease, bracket, cause), Effect.failCause(cause))
  const inside = Effect.zipRight(there, restore(effect))
  return Effect.matchCauseEffect(Effect.zipRight(enter(fibers, lease, bracket, send), inside), {
    onSuccess: (value) =>
      Effect.matchCauseEffect(Effect.zipRight(back, commit(lease, bracket, send)), {
        onSuccess: () => Effect.succeed(value),
        onFailure: failed
      }),
    onFailure: (cause) => Effect.zipRight(back, failed(cause))
  })
}

/** Sends one of the statements around the effect, as interruptible as that is. */
type Send = <E = never>(
  text: string,
  turn: Turn,
  failed?: (error: DbError) => Effect.Effect<never, DbError | E>
) => Effect.Effect<unknown, DbError | E>

/** Sends the texts, one after the other. Without any there would be no transaction, and nobody would be told. */
const inOrder = <E>(
  texts: ReadonlyArray<string>,
  send: (sql: string, index: number) => Effect.Effect<unknown, E>
): Effect.Effect<unknown, E> =>
  texts.reduce<Effect.Effect<unknown, E> | undefined>(
    (before, sql, index) => before === undefined ? send(sql, index) : Effect.zipRight(before, send(sql, index)),
    undefined
  ) ?? Effect.dieMessage("the driver gives no statement that begins or ends a transaction")

const enter = (
  fibers: FiberConnection,
  lease: Lease,
  { begin, owned, section }: Bracket,
  send: Send
): Effect.Effect<unknown, DbError | Again> => {
  // SET TRANSACTION ISOLATION LEVEL is a change too, but one that would be made again
  const replaceable = owned && lease.connection !== undefined && holdsNothing(lease.connection.session())
  const failed = (error: DbError): Effect.Effect<never, DbError | Again> => {
    if (replaceable && isReplaceable(lease, error, true)) return Effect.fail(new Again(error))
    fibers.pool.unsafeTold(error)
    return Effect.fail(error)
  }
  return inOrder(begin, (sql, index) => {
    const turn = new OneTurn(index === 0 ? section.parent : section)
    if (index === 0) turn.enters = section
    turn.opens = true
    return send<Again>(sql, turn, failed)
  })
}

/** Sends the statements that end the section. */
const leave = (
  section: TransactionScope,
  final: "commit" | "rollback",
  texts: ReadonlyArray<string>,
  send: Send
): Effect.Effect<unknown, DbError> =>
  inOrder(texts, (sql, index) => {
    const turn = new OneTurn(section)
    turn.final = final
    // even when the fiber is interrupted, what becomes of a COMMIT must be known
    turn.patient = final === "commit"
    turn.leaves = index === texts.length - 1
    return send(sql, turn)
  })

/**
 * Whoever has been forked in the section and still uses it has outlived it: what it runs is stopped, and a transaction
 * that it has nested and not finished is undone.
 */
const commit = (lease: Lease, { commit, section }: Bracket, send: Send): Effect.Effect<unknown, DbError> =>
  Effect.suspend((): Effect.Effect<unknown, DbError> => {
    // a section that has been left behind by the one around it ends with SessionEnded, like all statements of it
    if (!lease.has(section)) return inOrder(commit.slice(0, 1), (sql) => send(sql, new OneTurn(section)))
    // before anybody is woken who waits for a turn in it
    section.ended = true
    const unfinished = lease.popTo(section)
    if (committedImplicitly(lease, section)) return Effect.sync(() => lease.leave(section))
    return leave(section, "commit", unfinished === undefined ? commit : [...unfinished.undo, ...commit], send)
  })

/** A statement inside, such as CREATE TABLE on MySQL, has committed everything, and the savepoint is gone. */
const committedImplicitly = (lease: Lease, { parent, whole }: TransactionScope): boolean =>
  parent !== undefined && whole.aborted === undefined && lease.state._tag === "Ready" &&
  lease.connection?.session() !== "transaction"

/**
 * Undoes the work. An interrupted transaction that has its connection for itself waits for nothing: the pool resets the
 * connection, or closes it. Otherwise the rollback is waited for as long as a cancel may take.
 */
const rollBack = (
  fibers: FiberConnection,
  lease: Lease,
  { owned, rollBack, section }: Bracket,
  cause: Cause.Cause<unknown>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    // never entered, committed all the same, or undone by the section around it
    if (!lease.has(section)) {
      section.ended = true
      return Effect.void
    }
    section.ended = true
    lease.popTo(section)
    if (owned && Cause.isInterrupted(cause)) {
      return Effect.sync(() => {
        // whether or not the connection is lost already, the fiber knows that the transaction is
        lease.told = true
        lease.release("an interrupted transaction")
      })
    }
    if (section.parent !== undefined && lease.connection?.session() !== "transaction" && lease.state._tag === "Ready") {
      // the server has undone everything by itself, savepoints included, as for a deadlock
      return Effect.sync(() => lease.leave(section))
    }
    const giveUp = (why: string): void => {
      // what has been left behind while it waited for its turn is undone by the section around it
      if (lease.has(section)) lease.invalidate(why)
    }
    return fibers.pool.unsafePatiently(
      Effect.catchAll(
        Effect.asVoid(
          leave(section, "rollback", rollBack, (text, turn) => runOn(lease, textOnly(text, fibers.pool.driver), turn))
        ),
        () => Effect.sync(() => giveUp("a failed rollback"))
      ),
      () => giveUp("an unanswered rollback")
    )
  })
