/** Where a fault finds a caller: what has to be there before, and what the caller does. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type { Pool } from "../../src/ConnectionPool.js"
import type { DbService } from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { numbers } from "./dbQuestions.js"

/** What a caller tells of itself while it runs. */
export interface Scene {
  readonly db: DbService
  readonly pool: Pool
  /** From now on what the pool says is kept by the proxy, so that the fault meets what comes next in flight. */
  readonly holdNow: Effect.Effect<void>
  /** Waits until the fault has begun. */
  readonly wait: Effect.Effect<void>
  /** The time of the caller's wait begins anew: it was given something. */
  readonly restart: Effect.Effect<void>
}

export interface Phase {
  readonly before: (scene: Scene) => Effect.Effect<unknown, DbError>
  readonly caller: (scene: Scene) => Effect.Effect<unknown, DbError>
  /** The rows that are there, all of them, if the caller succeeded, and none if it was told that it did nothing. */
  readonly writes: ReadonlyArray<number>
}

export const insert = ({ db }: Pick<Scene, "db">, id: number) => db.execute("INSERT INTO items VALUES (?)", [id])

/** One idle connection, on which the statement is prepared. */
const warm = (scene: Scene) => Effect.flatMap(Effect.fork(insert(scene, 1)), Fiber.join)
const nothing = (): Effect.Effect<void> => Effect.void

// 32 MB: more than all buffers on the way
const rowsWanted = 4_000
const manyRows = `SELECT seq, REPEAT('x', 8000) AS filler FROM ${numbers(20_000)}`

const readMany = ({ db, restart, wait }: Scene): Effect.Effect<void, DbError> =>
  Effect.suspend(() => {
    let seen = 0
    return db.stream(manyRows).pipe(
      Stream.take(rowsWanted),
      Stream.runForEach(() => ++seen === 1 ? wait : restart)
    )
  })

/** Leaves something on a connection and gives it back, so that the pool resets it for the statement that waits for it. */
const dirty = ({ db, holdNow }: Scene) =>
  Effect.scoped(
    Effect.flatMap(db.connection, (connection) => Effect.zipRight(connection.execute("SET @x = 1"), holdNow))
  )

export const phases = {
  "idle": {
    before: warm,
    caller: (scene) => Effect.zipRight(scene.wait, insert(scene, 2)),
    writes: [2]
  },
  "connecting": {
    before: nothing,
    caller: (scene) => Effect.zipRight(scene.holdNow, insert(scene, 2)),
    writes: [2]
  },
  "in a statement": {
    before: warm,
    caller: (scene) => Effect.zipRight(scene.holdNow, insert(scene, 2)),
    writes: [2]
  },
  "in a stream": {
    before: nothing,
    caller: readMany,
    writes: []
  },
  "in a transaction": {
    before: warm,
    caller: (scene) =>
      scene.db.transaction(Effect.all([insert(scene, 2), scene.wait, insert(scene, 3)], { discard: true })),
    writes: [2, 3]
  },
  "in COMMIT": {
    before: warm,
    caller: (scene) => scene.db.transaction(Effect.zipRight(insert(scene, 2), scene.holdNow)),
    writes: [2]
  },
  "in a reset": {
    before: warm,
    caller: (scene) => Effect.zipRight(dirty(scene), insert(scene, 2)),
    writes: [2]
  },
  "in a validation": {
    before: warm,
    caller: (scene) => Effect.all([scene.pool.invalidateAll, scene.holdNow, insert(scene, 2)], { discard: true }),
    writes: [2]
  }
} satisfies Record<string, Phase>

export type PhaseName = keyof typeof phases
