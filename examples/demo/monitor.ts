/** A fiber that prints what the pool does while others work. */
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import type { PoolStats } from "../../src/index.js"
import { say } from "./screen.js"

export const describe = (stats: PoolStats.PoolSnapshot): string =>
  `${stats.held} of ${stats.max} connections in use, ${stats.idle} idle, ${stats.waiting} fibers waiting;`
  + ` so far ${stats.created} opened, ${stats.lost} lost, ${stats.takenBack} lent on,`
  + ` ${stats.retriedReads + stats.retriedUnexecuted} statements run again`

/** Prints the pool's statistics once a second, for as long as the scope. */
export const monitor = (stats: PoolStats.PoolStatsService): Effect.Effect<void, never, Scope.Scope> =>
  stats.snapshot.pipe(
    Effect.flatMap((snapshot) => say(`   [pool] ${describe(snapshot)}`)),
    Effect.schedule(Schedule.spaced("1 second")),
    Effect.forkScoped,
    Effect.asVoid
  )
