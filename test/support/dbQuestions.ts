/** What many tests ask of the database and of its pool. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { inject } from "vitest"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as PoolStats from "../../src/PoolStats.js"
import type { Queries, Sql } from "../../src/Queries.js"

/** What the server calls the connection that the statement runs on. */
export const idOf = (queries: Queries): Effect.Effect<number, DbError> =>
  Effect.map(queries.value<number>("SELECT CONNECTION_ID()"), Option.getOrThrow)

/** The same for the fiber's own. */
export const connectionId: Effect.Effect<number, DbError, Db.Db> = Effect.flatMap(Db.Db, idOf)

/** The one value of a statement; a statement without rows is a defect. */
export const valueOf = (queries: Queries, sql: Sql): Effect.Effect<unknown, DbError> =>
  Effect.map(queries.value(sql), Option.getOrThrow)

export const snapshot = Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)

/** A table of the numbers from 1 to the last, in this order, as `seq`; for a FROM clause. */
export const numbers = (last: number, alias = "numbers"): string =>
  inject("server").flavour === "mariadb"
    ? `seq_1_to_${last} AS ${alias}`
    : `JSON_TABLE(CONCAT('[0', REPEAT(',0', ${last - 1}), ']'), '$[*]' COLUMNS (seq FOR ORDINALITY)) AS ${alias}`

/** What NOWAIT is refused with: MariaDB has only the number of a wait that took too long. */
export const noWaitErrno = (): number => inject("server").flavour === "mysql" ? 3572 : 1205

/** Whether a transaction is open in the session that asks, as 0 or 1; for a SELECT. */
export const inTransaction = (): string =>
  inject("server").flavour === "mariadb" ? "@@in_transaction" : `(SELECT COUNT(*)
    FROM performance_schema.events_transactions_current
    WHERE thread_id = PS_CURRENT_THREAD_ID() AND state = 'ACTIVE' AND autocommit = 'NO')`

/** The session's isolation level; for a SELECT. */
export const isolationLevel = (): string =>
  inject("server").flavour === "mariadb" ? "@@tx_isolation" : "@@transaction_isolation"

/** All must have come before any goes on. */
export const latch = (size: number): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(Deferred.make<void>(), (open) => {
    let come = 0
    return Effect.suspend(() => {
      come += 1
      return come === size ? Effect.asVoid(Deferred.succeed(open, undefined)) : Deferred.await(open)
    })
  })

/** The server's number for why it refuses; a success is a defect. */
export const errnoOf = <A>(effect: Effect.Effect<A, DbError>): Effect.Effect<number | undefined> =>
  Effect.matchEffect(effect, {
    onFailure: (error) => Effect.succeed("errno" in error ? error.errno : undefined),
    onSuccess: () => Effect.dieMessage("it was not refused")
  })
