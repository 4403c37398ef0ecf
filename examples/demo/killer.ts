/** On a server, cuts connections of the demo's own pool in the middle of their work. */
import { Effect, Random } from "effect"
import type { DbConnection, DbError } from "../../src/index.js"
import type { Demo } from "./demo.js"
import { say } from "./screen.js"

/** So many connections, one every so many milliseconds. */
export interface Kills {
  readonly every: number
  readonly times: number
}

/** What MySQL says of a connection that is closed already. */
const unknownConnection = 1094

export interface Killer {
  /** How many connections were killed. */
  readonly killed: () => number
  /** Runs the effect and meanwhile kills connections of the pool. */
  readonly during: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    kills: Kills
  ) => Effect.Effect<A, E, R>
}

/** `connection` is one that no part uses, or none where there is nothing to kill. */
export const make = (demo: Demo, connection: DbConnection.DbConnection | undefined): Killer => {
  let killed = 0
  const killOne = (killer: DbConnection.DbConnection): Effect.Effect<void, DbError.DbError> =>
    Effect.gen(function*() {
      // one of those that were used last, so that it is probably at work
      const candidates = [...demo.connections].slice(-3)
      const chosen = candidates[yield* Random.nextIntBetween(0, Math.max(1, candidates.length))]
      if (chosen === undefined) return
      demo.connections.delete(chosen)
      const id = Number(chosen)
      // MySQL takes no parameter here, so a number stands in the text
      yield* killer.execute(`KILL ${id}`)
      killed++
      yield* say(`   [kill] connection ${id} is killed on the server`)
    }).pipe(
      Effect.catchIf((error) => error._tag === "StatementError" && error.errno === unknownConnection, () => Effect.void)
    )
  const killing = (killer: DbConnection.DbConnection, { every, times }: Kills): Effect.Effect<void> =>
    killOne(killer).pipe(
      Effect.delay(every),
      Effect.repeatN(times - 1),
      // after a restart of the server these ids can be others' connections; it ends with the connection that it had
      Effect.catchAll((error) => say(`   [kill] no more: ${error.message}`))
    )
  return {
    killed: () => killed,
    during: (effect, kills) =>
      connection === undefined || kills.times === 0
        ? effect
        : Effect.scoped(Effect.zipRight(
          Effect.forkScoped(killing(connection, kills)),
          effect
        ))
  }
}
