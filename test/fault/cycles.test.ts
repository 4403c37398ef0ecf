/** A pool that is opened and closed a thousand times under traffic, while it is resized: everybody settles, nothing stays. */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import { type DbFixture, eventually, expectAllClosed, expectNoneLeft, withFixture } from "../support/dbFixture.js"
import { numbers } from "../support/dbQuestions.js"

const cycles = Number(process.env["CYCLES"] ?? 1_000)
const seed = Number(process.env["CYCLES_SEED"] ?? 4_006)
const fibersEach = 8

const tally = { done: 0, interrupted: 0, failed: new Map<string, number>(), resizes: 0, connections: 0, handles: 0 }

const works = (db: Db.DbService): ReadonlyArray<Effect.Effect<unknown, unknown>> => [
  db.value("SELECT 1"),
  db.execute("INSERT INTO visits (a) VALUES (1)"),
  db.transaction(Effect.zipRight(db.execute("INSERT INTO visits (a) VALUES (2)"), db.value("SELECT 2"))),
  Effect.zipRight(db.execute("SET @a = 1"), db.value("SELECT @a")),
  Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.execute("SET @b = 1"))),
  db.session(Effect.timeoutOption(db.value("SELECT SLEEP(0.02)"), 5)),
  Stream.runDrain(Stream.take(db.stream(`SELECT seq FROM ${numbers(5000)}`), 10)),
  db.value("SELECT SLEEP(0.01)"),
  Effect.ignore(db.value("SELECT nonsense"))
]

/** What a fiber may be told by a pool that closes under it. */
const expected = new Set(["PoolClosed", "ConnectionLost", "StatementCancelled", "SessionEnded", "AffinityLost"])

const traffic = (db: Db.DbService): Effect.Effect<void, unknown> => {
  const all = works(db)
  return Effect.forever(
    Effect.flatMap(Random.nextIntBetween(0, all.length), (n) => Effect.asVoid(all[n] ?? Effect.void))
  )
}

const note = (exit: Exit.Exit<void, unknown>): void => {
  if (Exit.isSuccess(exit)) return void tally.done++
  expect([...Cause.defects(exit.cause)]).toEqual([])
  if (Cause.isInterruptedOnly(exit.cause)) return void tally.interrupted++
  for (const error of Cause.failures(exit.cause)) {
    const tag = DbError.find(error)?._tag ?? String(error)
    expect(expected).toContain(tag)
    tally.failed.set(tag, (tally.failed.get(tag) ?? 0) + 1)
  }
}

/** What keeps the event loop alive. */
const handles = (): ReadonlyArray<string> =>
  process.getActiveResourcesInfo().filter((name) => /TCP|Timeout|Immediate/.test(name))

/** One life of a pool: traffic, resizes, some fibers interrupted, and closed while the others go on. */
const cycle = (fixture: DbFixture): Effect.Effect<void> =>
  Effect.gen(function*() {
    const poolSize = yield* Random.nextIntBetween(1, 5)
    const scope = yield* Scope.make()
    const layer = DbLayer.mysql({
      url: fixture.url,
      poolSize,
      minimumIdle: yield* Random.nextIntBetween(0, poolSize + 1),
      drainTimeout: yield* Random.nextIntBetween(0, 30)
    })
    const services = yield* Effect.orDie(Layer.buildWithScope(layer, scope))
    const pool = Context.get(services, ConnectionPool.ConnectionPool)
    const fibers = yield* Effect.forEach(
      Array.from({ length: fibersEach }),
      () => Effect.forkDaemon(traffic(Context.get(services, Db.Db)))
    )
    // some are closed before they have a connection, most at work
    if ((yield* Random.next) < 0.8) {
      yield* eventually("it has a connection", Effect.map(pool.snapshot, ({ created }) => created > 0))
    }
    const resizes = yield* Random.nextIntBetween(0, 4)
    for (let resize = 0; resize < resizes; resize++) {
      yield* Effect.sleep(yield* Random.nextIntBetween(0, 8))
      yield* Effect.orDie(pool.resize(yield* Random.nextIntBetween(1, 7)))
      tally.resizes++
      const victim = fibers[yield* Random.nextIntBetween(0, fibersEach * 2)]
      if (victim !== undefined) yield* Fiber.interruptFork(victim)
    }
    yield* Effect.sleep(yield* Random.nextIntBetween(0, 8))
    tally.handles = Math.max(tally.handles, handles().length)
    yield* Scope.close(scope, Exit.void)
    // nobody waits for a pool that is closed
    for (const fiber of fibers) {
      const exit = yield* Effect.timeoutOption(Fiber.await(fiber), "5 seconds")
      if (Option.isNone(exit)) return yield* Effect.dieMessage("a fiber did not settle after its pool was closed")
      note(exit.value)
    }
    const snapshot = yield* pool.snapshot
    expectAllClosed(snapshot)
    tally.connections += snapshot.created
  })

describe("a pool that is opened and closed under traffic", () => {
  it.live(
    `${cycles} times, with random resizes, leaves nobody waiting and nothing open`,
    () =>
      withFixture((fixture) =>
        Effect.gen(function*() {
          yield* fixture.admin(`CREATE TABLE ${fixture.database}.visits (a INT) ENGINE = InnoDB`)
          yield* Effect.sleep(50)
          const before = handles().length
          // several at a time, since most of a cycle is waiting
          yield* Effect.forEach(Array.from({ length: cycles }), () => cycle(fixture), { concurrency: 6, discard: true })
          yield* expectNoneLeft(fixture)
          yield* eventually("the process holds no more than before", Effect.sync(() => handles().length <= before))
          const failed = [...tally.failed].map(([tag, count]) => `${count} ${tag}`).join(", ")
          process.stdout.write(
            `${cycles} pools (seed ${seed}): ${tally.connections} connections, ${tally.resizes} resizes, ${tally.interrupted} `
              + `fibers interrupted, told: ${failed}; handles ${before} before, at most ${tally.handles}, ${handles().length} after\n`
          )
          expect(tally.handles).toBeGreaterThan(before)
          expect(tally.done).toBe(0)
          expect(tally.connections).toBeGreaterThan(cycles)
        })
      ).pipe(Effect.withRandom(Random.make(seed)), Logger.withMinimumLogLevel(LogLevel.None)),
    120_000
  )
})
