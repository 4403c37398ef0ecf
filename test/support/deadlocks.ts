/** A deadlock that the server really makes, and of which it is known whom it hits. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { numbers } from "./dbQuestions.js"

/** What a transaction meets a deadlock with: the statement that is to fail, in the words of any interface. */
export type Lock<A, E, R> = (sql: string) => Effect.Effect<A, E, R>

export interface Opponent {
  /** Run in a transaction: takes one lock, and asks for another in a circle. The server undoes this transaction. */
  readonly meet: <A, E, R>(lock: Lock<A, E, R>) => Effect.Effect<A, E | DbError, R | Db.Db>
  /** The other side has had its locks, and has committed. */
  readonly committed: Effect.Effect<void, DbError>
}

/** Two rows, 1 and 2, to fight over. */
export const createLocks = Effect.flatMap(Db.Db, (db) =>
  Effect.gen(function*() {
    yield* db.execute("CREATE TABLE locks (id INT PRIMARY KEY, n INT NOT NULL) ENGINE = InnoDB")
    yield* db.execute("INSERT INTO locks VALUES (1, 0), (2, 0)")
    yield* db.execute("CREATE TABLE ballast (id INT) ENGINE = InnoDB")
  }))

/**
 * A transaction on a connection of its own, which holds row 2 and asks for row 1 as soon as somebody {@link Opponent.meet}s
 * it. It has so much to lose that the server undoes the other one. Whoever comes later is not in its way any more.
 */
export const opponent: Effect.Effect<Opponent, DbError, Db.Db | Scope.Scope> = Effect.gen(function*() {
  const db = yield* Db.Db
  const connection = yield* db.connection
  yield* connection.execute("START TRANSACTION")
  yield* connection.execute(`INSERT INTO ballast SELECT seq FROM ${numbers(200)}`)
  yield* connection.execute("UPDATE locks SET n = n + 1 WHERE id = 2")
  const met = yield* Deferred.make<void>()
  const rest = yield* Effect.forkScoped(Effect.gen(function*() {
    yield* Deferred.await(met)
    yield* connection.execute("UPDATE locks SET n = n + 1 WHERE id = 1")
    yield* connection.execute("COMMIT")
  }))
  return {
    meet: (lock) =>
      Effect.gen(function*() {
        yield* db.execute("SELECT n FROM locks WHERE id = 1 FOR UPDATE")
        yield* Deferred.succeed(met, undefined)
        return yield* lock("SELECT n FROM locks WHERE id = 2 FOR UPDATE")
      }),
    committed: Fiber.join(rest)
  }
})
