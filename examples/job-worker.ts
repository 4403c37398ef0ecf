/**
 * A job worker: fibers that take jobs from a table, do each once, and give back what they do not finish.
 *
 * A job is claimed in a short transaction and done outside of it, so that no connection is held meanwhile: ten workers need
 * no ten connections. What is claimed is free again in a minute; who fails makes that soon, and who is interrupted, at once.
 *
 * Runs on embedded SQLite, or on the server that `DB_PRIMARY_URL` names (with SKIP LOCKED: MySQL 8, MariaDB 10.6).
 */
import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Array, Clock, Console, Data, Effect, Exit, Option, Schedule } from "effect"
import { Db, DbLayer, PoolStats, Recovery } from "../src/index.js"

class JobFailed extends Data.TaggedError("JobFailed")<{ readonly job: number }> {}

interface Job {
  readonly id: number
  readonly attempts: number
}

/** Every tenth job fails the first time. */
const doJob = ({ attempts, id }: Job) =>
  Effect.delay(id % 10 === 0 && attempts === 0 ? new JobFailed({ job: id }) : Effect.void, "5 millis")

// #region worker
/** Who is to stop waits until a claim is made or a job is given back, but not for a database that is away. */
const acquireTimeout = "1 second"

/** Takes the job that has been free for the longest. */
const claim = Effect.gen(function*() {
  const db = yield* Db.Db
  const sql = yield* SqlClient.SqlClient
  const { isolation, lock } = sql.onDialectOrElse({
    // it has one writer at a time
    sqlite: () => ({ lock: "", isolation: undefined }),
    // with the server's default it would lock the gaps between the jobs as well, and workers would deadlock
    orElse: () => ({ lock: "FOR UPDATE SKIP LOCKED", isolation: "READ COMMITTED" as const })
  })
  const now = yield* Clock.currentTimeMillis
  const take = Effect.gen(function*() {
    const job = yield* db.dictionary<Job>(
      `SELECT id, attempts FROM espdemo_jobs WHERE done = 0 AND free_at <= ? ORDER BY free_at, id LIMIT 1 ${lock}`,
      [now]
    )
    if (Option.isSome(job)) {
      const claimed = [now + 60_000, job.value.id]
      yield* db.execute("UPDATE espdemo_jobs SET attempts = attempts + 1, free_at = ? WHERE id = ?", claimed)
    }
    return job
  })
  return yield* db.transaction(take, { isolation, acquireTimeout, retry: Recovery.schedule })
})

/** What a job changes in the database is committed together with its mark: both, or neither. */
const finish = ({ id }: Job) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute("INSERT INTO espdemo_results (job) VALUES (?)", [id])
    yield* db.execute("UPDATE espdemo_jobs SET done = 1 WHERE id = ?", [id])
  }).pipe((work) => Effect.flatMap(Db.Db, (db) => db.transaction(work, { retry: Recovery.schedule })))

const giveBack = ({ id }: Job, freeAt: number) =>
  Effect.flatMap(Db.Db, (db) => {
    const free = db.execute("UPDATE espdemo_jobs SET free_at = ? WHERE id = ? AND done = 0", [freeAt, id])
    return Effect.ignoreLogged(db.transaction(free, { acquireTimeout, retry: Recovery.schedule }))
  })

/** Does a job. If it fails it is free after a while; if it is interrupted, at once. */
const work = (job: Job) =>
  Effect.zipRight(doJob(job), finish(job)).pipe(
    Effect.catchTag("JobFailed", () =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => giveBack(job, now + 50 * 2 ** job.attempts)))
  )

const next = Effect.acquireUseRelease(
  claim,
  Option.match({ onNone: () => Effect.sleep("20 millis"), onSome: work }),
  (job, exit) => Option.isSome(job) && Exit.isFailure(exit) ? giveBack(job.value, 0) : Effect.void
)

/**
 * A worker outlives a database that is away for a while, and not a mistake in a statement. Nor does it have to know what
 * became of a COMMIT that was lost: a claim that was made ends by itself, and a job that is done is not given back.
 */
const worker = next.pipe(
  Effect.retry({
    while: (error) => error.isRetryable || error._tag === "ConnectionLost",
    schedule: Recovery.fullJitter({ base: "100 millis", cap: "10 seconds" })
  }),
  // outside, so that after a success the delays begin anew
  Effect.forever
)
// #endregion

const tables = Effect.gen(function*() {
  const db = yield* Db.Db
  const drop = Effect.forEach(["espdemo_jobs", "espdemo_results"], (name) => db.execute(`DROP TABLE IF EXISTS ${name}`))
  yield* Effect.acquireRelease(drop, () => Effect.ignoreLogged(drop))
  yield* db.execute(`CREATE TABLE espdemo_jobs (id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL DEFAULT 0,
    free_at BIGINT NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0)`)
  yield* db.execute("CREATE INDEX espdemo_jobs_free ON espdemo_jobs (done, free_at, id)")
  yield* db.execute("CREATE TABLE espdemo_results (job INTEGER PRIMARY KEY)")
  const jobs = Array.range(1, 100)
  yield* db.execute(`INSERT INTO espdemo_jobs (id) VALUES ${jobs.map(() => "(?)").join(", ")}`, jobs)
})

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  const count = (sql: string) => Effect.map(db.value<number>(sql), Option.getOrElse(() => 0))
  const done = count("SELECT COUNT(*) FROM espdemo_jobs WHERE done = 1")
  // when enough is done the workers are interrupted, and when one of them fails the program does
  const workUntil = (enough: number) =>
    Effect.raceFirst(
      Effect.all(Array.makeBy(10, () => worker), { concurrency: "unbounded" }),
      Effect.repeat(done, { until: (n) => n >= enough, schedule: Schedule.spaced("10 millis") })
    )
  yield* workUntil(30)
  const first = yield* count("SELECT COUNT(*) FROM espdemo_jobs WHERE done = 0 AND attempts > 0 AND free_at = 0")
  yield* Console.log(`stopped on the way: ${first} jobs were given back`)
  yield* workUntil(100)
  yield* Console.log(`${yield* count("SELECT COUNT(*) FROM espdemo_results")} of ${yield* done} jobs have their result`)
  const { created } = yield* Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
  yield* Console.log(`ten workers used ${created} connections`)
})

const database = process.env["DB_PRIMARY_URL"] === undefined ? DbLayer.sqlite({ poolSize: 4 }) : DbLayer.primary

NodeRuntime.runMain(Effect.scoped(Effect.zipRight(tables, program)).pipe(Effect.provide(database)))
