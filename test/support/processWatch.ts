/** Looks at the server's process list again and again, on a connection that is no pool's. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createConnection } from "mysql2/promise"
import type { DbFixture } from "./dbFixture.js"

export interface Look {
  /** When it was asked for, by `performance.now()`: what it shows is no older. */
  readonly at: number
  readonly processes: ReadonlyArray<{ readonly id: number; readonly info: string }>
}

/** Shows `see` every connection of the fixture's user, every so many milliseconds, for as long as the scope. */
export const watchProcesses = (
  { server, user }: DbFixture,
  every: number,
  see: (look: Look) => void
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { host, password, port, user: root } = server
    const connection = yield* Effect.acquireRelease(
      Effect.promise(() => createConnection({ host, port, user: root, password, rowsAsArray: true })),
      (connection) => Effect.sync(() => connection.destroy())
    )
    const look = Effect.promise(async () => {
      const at = performance.now()
      const [rows] = await connection.query("SHOW FULL PROCESSLIST")
      const processes = (rows as ReadonlyArray<ReadonlyArray<unknown>>).flatMap(([id, name, , , , , , info]) =>
        name === user ? [{ id: Number(id), info: String(info ?? "") }] : []
      )
      see({ at, processes })
    })
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(look, Effect.sleep(every))))
  })
