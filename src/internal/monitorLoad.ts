/**
 * Work for a pool that is to be watched: it makes fibers wait, lends connections on, holds them in transactions, sessions
 * and by name, forgets one now and then, and on a server kills its own. It reads nothing and writes nothing that is
 * anybody's; a temporary table and a user variable are all it leaves on its connections.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { Pool } from "../ConnectionPool.js"
import * as Db from "../Db.js"
import type { DbError } from "../DbError.js"

/** @internal When the load tells of a leak: its pool has to be made with this threshold. */
export const leakAfterMillis = 4_000

/** @internal What the load says of a failure, for it goes on. */
type Say = (text: string) => Effect.Effect<void>

const pause = (from: number, to: number): Effect.Effect<void> =>
  Effect.flatMap(Random.nextIntBetween(from, to), (millis) => Effect.sleep(millis))

const makeKinds = (pool: Pool) => {
  const db = Db.make(pool)
  const server = pool.driver.dialect === "mysql"
  // SQLite answers at once, and a server may think
  const ask = (seconds: number) => db.value(server ? `SELECT SLEEP(${seconds})` : "SELECT 1")
  const leave = server
    ? "SET @effect_sql_pool_monitor = 1"
    : "CREATE TEMPORARY TABLE IF NOT EXISTS monitored (id INTEGER)"

  /** A statement, then something else: its connection is idle and clean, and serves others meanwhile. */
  const reader = Effect.zipRight(ask(0.01), pause(20, 200))
  const transaction = (from: number, to: number) => {
    const work = Effect.zipRight(ask(0.005), Effect.zipRight(pause(from, to), ask(0.005)))
    // SQLite lets one transaction write at a time, and one that only reads leaves its connection with its fiber
    return server ? db.transaction(work, { readOnly: true }) : db.session(work)
  }
  const worker = Effect.zipRight(transaction(20, 300), pause(50, 400))
  const session = Effect.zipRight(
    db.session(Effect.zipRight(db.execute(leave), pause(300, 1_500))),
    Effect.zipRight(db.releaseFiberConnection, pause(500, 1_500))
  )
  const explicit = Effect.zipRight(
    Effect.scoped(Effect.flatMap(db.connection, (own) => Effect.zipRight(own.value("SELECT 1"), pause(500, 2_500)))),
    pause(200, 1_000)
  )
  const forgetful = Effect.zipRight(
    pause(2_000, 6_000),
    Effect.scoped(Effect.zipRight(db.connection, Effect.sleep(leakAfterMillis + 3_000)))
  )
  /** Many at once, now and then. */
  const wave = (fibers: number) =>
    Effect.zipRight(
      pause(4_000, 8_000),
      Effect.all(Array.from({ length: fibers }, () => transaction(50, 250)), {
        concurrency: "unbounded",
        discard: true
      })
    )
  /** Only connections of this very pool. */
  const killer = Effect.gen(function*() {
    yield* pause(5_000, 9_000)
    const victim = (yield* pool.holders).find(({ kind }) => kind === "fiber")
    // the statement has no parameter here, so a number stands in the text
    if (victim !== undefined) yield* db.execute(`KILL ${Number(victim.connection)}`)
  })
  return { reader, worker, session, explicit, forgetful, wave, killer, server }
}

/** @internal So many fibers that read, and others beside them, for ever; what fails is said, and goes on. */
export const load = (pool: Pool, fibers: number, say: Say): Effect.Effect<never> => {
  const { explicit, forgetful, killer, reader, server, session, wave, worker } = makeKinds(pool)
  const forever = (work: Effect.Effect<unknown, DbError>): Effect.Effect<never> =>
    Effect.forever(Effect.catchAll(work, (error) => Effect.zipRight(say(error.message), pause(500, 1_000))))
  const several = (times: number, work: Effect.Effect<unknown, DbError>) =>
    Array.from({ length: Math.max(1, Math.round(times)) }, () => forever(work))
  return Effect.zipRight(
    Effect.all([
      ...several(fibers, reader),
      ...several(fibers / 3, worker),
      forever(session),
      forever(explicit),
      forever(forgetful),
      forever(wave(fibers)),
      ...(server ? [forever(killer)] : [])
    ], { concurrency: "unbounded", discard: true }),
    Effect.never
  )
}
