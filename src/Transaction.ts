/**
 * Transactions on the connection of a session: begin, savepoints for nested ones, commit or rollback, with outcomes
 * that are errors of their own and never defects.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type DbError, InvalidTransaction } from "./DbError.js"
import type { Isolation, Statement } from "./Driver.js"
import type { FiberConnection, TransactionScope } from "./FiberConnection.js"
import type { Lease } from "./internal/lease.js"
import { analyze } from "./internal/sessionState.js"
import type { Section } from "./internal/turns.js"
import { duration } from "./PoolConfig.js"

/**
 * How a transaction is opened.
 *
 * @since 0.1.0
 * @category options
 */
export interface TransactionOptions {
  /** Default: the session's. Nested transactions have that of the outermost. */
  readonly isolation?: Isolation | undefined
  /** Whether the transaction may only read. Default false. */
  readonly readOnly?: boolean | undefined
  /** How long to wait for a connection. Default: the pool's `acquireTimeout`. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
}

/**
 * Runs the effect in a transaction: committed when it succeeds, rolled back when it fails, dies or is interrupted. All
 * statements inside, those of forked fibers too, run on one connection, one at a time. A transaction inside another is
 * a savepoint.
 *
 * A connection lost before COMMIT was sent gives `ConnectionLost` with `outcome: "rolled back"`, a lost COMMIT
 * `outcome: "unknown"`. Interruption stops the running statement, leaves the rollback to the pool and returns at once;
 * only a COMMIT that has been sent is waited for.
 *
 * @since 0.1.0
 * @category combinators
 */
export const run = <A, E, R>(
  fibers: FiberConnection,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions = {}
): Effect.Effect<A, E | DbError, R> =>
  fibers.session(
    (lease, owned): Effect.Effect<A, E | DbError, R> =>
      Effect.flatMap(Effect.serviceOption(fibers.transaction), (current) =>
        current._tag === "Some"
          ? nested(fibers, lease, current.value, effect)
          : outermost(fibers, lease, owned, effect, options)),
    { acquireTimeout: options.acquireTimeout === undefined ? undefined : duration(options.acquireTimeout) }
  )

const outermost = <A, E, R>(
  fibers: FiberConnection,
  lease: Lease,
  owned: boolean,
  effect: Effect.Effect<A, E, R>,
  options: TransactionOptions
): Effect.Effect<A, E | DbError, R> =>
  Effect.suspend(() => {
    const { driver } = fibers.pool
    const begin = driver.transaction.begin(options)
    if (begin === undefined) {
      return Effect.fail(
        new InvalidTransaction({ reason: `${driver.target} has no isolation level ${options.isolation}` })
      )
    }
    if (lease.connection?.session() === "transaction") {
      return Effect.fail(
        new InvalidTransaction({
          reason: "A transaction that was opened by hand is still open on this connection, and BEGIN would commit it"
        })
      )
    }
    const after = driver.transaction.after?.(options) ?? []
    return inSection(fibers, lease, {
      section: { parent: undefined, undo: [], ended: false, savepoints: { next: 1 } },
      owned,
      begin,
      commit: [driver.transaction.commit, ...after],
      rollBack: [driver.transaction.rollback, ...after]
    }, effect)
  })

const nested = <A, E, R>(
  fibers: FiberConnection,
  lease: Lease,
  outer: TransactionScope,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | DbError, R> =>
  Effect.suspend(() => {
    const { releaseSavepoint, rollbackTo, savepoint } = fibers.pool.driver.transaction
    const name = `effect_sql_pool_${outer.savepoints.next++}`
    const undo = [rollbackTo(name), releaseSavepoint(name)]
    return inSection(fibers, lease, {
      section: { parent: outer, undo, ended: false, savepoints: outer.savepoints },
      owned: false,
      begin: [savepoint(name)],
      commit: [releaseSavepoint(name)],
      rollBack: undo
    }, effect)
  })

interface Bracket {
  readonly section: TransactionScope
  /** Whether the connection is this transaction's alone, and not a session's that goes on after it. */
  readonly owned: boolean
  readonly begin: ReadonlyArray<string>
  readonly commit: ReadonlyArray<string>
  readonly rollBack: ReadonlyArray<string>
}

/**
 * Runs the effect between two brackets, with the connection for itself. What runs outside of it on the same connection
 * waits until it has ended: neither a rollback to a savepoint nor one of the whole tells whose work it undoes.
 */
const inSection = <A, E, R>(
  fibers: FiberConnection,
  lease: Lease,
  bracket: Bracket,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | DbError, R> => {
  const body = Effect.provideService(effect, fibers.transaction, bracket.section)
  return Effect.uninterruptibleMask((restore) =>
    Effect.matchCauseEffect(
      restore(Effect.zipRight(enter(fibers, lease, bracket), body)),
      {
        onSuccess: (value) =>
          Effect.matchCauseEffect(restore(commit(fibers, lease, bracket)), {
            onSuccess: () => Effect.succeed(value),
            onFailure: (cause) => Effect.zipRight(rollBack(fibers, lease, bracket, cause), Effect.failCause(cause))
          }),
        onFailure: (cause) => Effect.zipRight(rollBack(fibers, lease, bracket, cause), Effect.failCause(cause))
      }
    )
  )
}

const statement = (fibers: FiberConnection, sql: string): Statement => ({
  sql,
  params: [],
  traits: analyze(sql, fibers.pool.driver.dialect)
})

const enter = (fibers: FiberConnection, lease: Lease, { begin, section }: Bracket): Effect.Effect<void, DbError> =>
  Effect.forEach(
    begin,
    (sql, index) =>
      lease.run(statement(fibers, sql), index === 0 ? { section: section.parent, enters: section } : { section }),
    { discard: true }
  )

/** Sends the statements that end the section. */
const leave = (
  fibers: FiberConnection,
  lease: Lease,
  section: TransactionScope,
  texts: ReadonlyArray<string>,
  patient = false
): Effect.Effect<void, DbError> =>
  Effect.forEach(
    texts,
    (sql, index) =>
      lease.run(statement(fibers, sql), {
        section,
        final: true,
        patient,
        leaves: index === texts.length - 1
      }),
    { discard: true }
  )

/**
 * Whoever has been forked in the section and still uses it has outlived it: what it runs is stopped, and a transaction
 * that it has nested and not finished is undone.
 */
const commit = (fibers: FiberConnection, lease: Lease, { commit, section }: Bracket): Effect.Effect<void, DbError> =>
  Effect.suspend(() => {
    // a section that has been left behind by the one around it ends with SessionEnded, as any statement of it does
    if (!lease.has(section)) return leaveBehind(fibers, lease, section, commit)
    const unfinished = lease.popTo(section)
    section.ended = true
    // patient: even when the fiber is interrupted, what becomes of a COMMIT must be known
    return leave(fibers, lease, section, [...undoing(unfinished), ...commit], true)
  })

const undoing = (unfinished: Section | undefined): ReadonlyArray<string> => unfinished?.undo ?? []

const leaveBehind = (
  fibers: FiberConnection,
  lease: Lease,
  section: TransactionScope,
  [first = ""]: ReadonlyArray<string>
): Effect.Effect<void, DbError> => Effect.asVoid(lease.run(statement(fibers, first), { section }))

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
    lease.popTo(section)
    section.ended = true
    if (owned && Cause.isInterrupted(cause)) {
      return Effect.sync(() => lease.release("an interrupted transaction"))
    }
    if (section.parent !== undefined && lease.connection?.session() !== "transaction" && lease.state._tag === "Ready") {
      // the server has undone everything by itself, savepoints included, as for a deadlock
      return Effect.sync(() => lease.leave(section))
    }
    return fibers.pool.unsafePatiently(
      Effect.catchAll(
        leave(fibers, lease, section, rollBack),
        () => Effect.sync(() => lease.invalidate("a failed rollback"))
      ),
      () => lease.invalidate("an unanswered rollback")
    )
  })
