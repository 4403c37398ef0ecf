/** What many tests ask of the database and of its pool. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
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
