/** Workers that take jobs from a table: each job is done exactly once, whatever is cut in between. */
import { Array as Arr, Effect, Option, Random } from "effect"
import { type DbError, Recovery } from "../../src/index.js"
import { count, currentConnection, type Demo, expect, mayRunAgain, type Outcome, type Part } from "./demo.js"
import { progress, say } from "./screen.js"

const jobs = 400
const workers = 8

/** What a job is about. */
const doJob: Effect.Effect<void> = Effect.flatMap(Random.nextIntBetween(2, 12), (millis) => Effect.sleep(millis))

/** Writes down that the worker did the job, and that the job is done. */
const finish = (demo: Demo, job: number, worker: number): Effect.Effect<void, DbError.DbError> =>
  Effect.zipRight(
    demo.db.execute("INSERT INTO espdemo_job_runs VALUES (?, ?)", [job, worker]),
    demo.db.execute("UPDATE espdemo_jobs SET state = 'done' WHERE id = ?", [job])
  )

/**
 * Takes a job, does it and marks it done in one transaction; the lock is the claim, and others skip it. When the
 * connection is lost, the lock and the work are gone with it, and the job is anybody's again.
 */
const nextLocked = (demo: Demo, worker: number): Effect.Effect<boolean, DbError.DbError> =>
  demo.db.transaction(
    Effect.gen(function*() {
      const job = yield* demo.db.value<number>(
        "SELECT id FROM espdemo_jobs WHERE state = 'waiting' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
      )
      if (Option.isNone(job)) return false
      yield* currentConnection(demo)
      yield* doJob
      yield* finish(demo, job.value, worker)
      return true
    }),
    // with the server's default it would lock the gaps between the jobs as well, and workers would deadlock
    { isolation: "READ COMMITTED" }
  ).pipe(
    // committed or rolled back: the table knows, and the next round reads it
    Effect.catchIf(mayRunAgain(demo), () => Effect.succeed(true))
  )

/**
 * Without SKIP LOCKED: claims a job by an UPDATE that only one worker's can match, does it, and marks it done. Both
 * steps find out by themselves whether they were done already, and so may be run again when their answer was lost.
 */
const nextClaimed = (demo: Demo, worker: number): Effect.Effect<boolean, DbError.DbError> =>
  Effect.gen(function*() {
    const job = yield* demo.db.value<number>(
      "SELECT id FROM espdemo_jobs WHERE state = 'waiting' AND claim IS NULL ORDER BY id LIMIT 1"
    )
    if (Option.isNone(job)) return false
    const claim = `worker ${worker}`
    const { affectedRows } = yield* Recovery.idempotent(demo.db.execute(
      "UPDATE espdemo_jobs SET claim = :claim WHERE id = :job AND (claim IS NULL OR claim = :claim)",
      { claim, job: job.value }
    ))
    // another worker was faster
    if (affectedRows === 0) return true
    yield* currentConnection(demo)
    yield* doJob
    yield* demo.db.transaction(Effect.gen(function*() {
      const state = yield* demo.db.value("SELECT state FROM espdemo_jobs WHERE id = ?", [job.value])
      if (Option.contains(state, "waiting")) yield* finish(demo, job.value, worker)
    })).pipe(Effect.retry({ while: mayRunAgain(demo), schedule: Recovery.schedule }))
    return true
  })

/** Whether the server has SKIP LOCKED (MySQL 8, MariaDB 10.6): it understands it, or it does not. */
const hasSkipLocked = (demo: Demo): Effect.Effect<boolean, DbError.DbError> =>
  demo.server
    ? demo.db.execute("SELECT id FROM espdemo_jobs WHERE id = 0 FOR UPDATE SKIP LOCKED").pipe(
      Effect.as(true),
      Effect.catchTag("SqlSyntaxError", () => Effect.succeed(false))
    )
    : Effect.succeed(false)

export const jobWorkers = (demo: Demo): Part =>
  Effect.gen(function*() {
    const { db } = demo
    yield* db.execute("CREATE INDEX espdemo_jobs_state ON espdemo_jobs (state, id)")
    yield* db.execute(
      `INSERT INTO espdemo_jobs (id, state) VALUES ${Arr.makeBy(jobs, () => "(?, 'waiting')").join(", ")}`,
      Arr.range(1, jobs)
    )
    const skipLocked = yield* hasSkipLocked(demo)
    const next = skipLocked ? nextLocked : nextClaimed
    let rounds = 0
    const worker = (number: number): Effect.Effect<void, DbError.DbError> =>
      Effect.repeat(
        Effect.tap(next(demo, number), () => progress(`jobs: ${++rounds} rounds`)),
        { while: (more) => more }
      ).pipe(Effect.asVoid)
    yield* Effect.forEach(Arr.range(1, workers), worker, { concurrency: "unbounded", discard: true })

    const done = yield* db.value<number>("SELECT COUNT(*) FROM espdemo_jobs WHERE state = 'done'")
    const runs = yield* db.values<[number, number]>("SELECT job, COUNT(*) FROM espdemo_job_runs GROUP BY job")
    const shares = yield* db.list<number>("SELECT COUNT(*) FROM espdemo_job_runs GROUP BY worker ORDER BY worker")
    yield* expect("the number of jobs that are done", Option.getOrElse(done, () => 0), jobs)
    yield* expect("the number of jobs that were run", runs.length, jobs)
    yield* expect("the number of jobs that were run twice", runs.filter(([, times]) => times !== 1).length, 0)
    const how = skipLocked ? "FOR UPDATE SKIP LOCKED" : "a claim by UPDATE"
    yield* say(`   ${jobs} jobs by ${how}: each done exactly once; per worker ${shares.join(", ")}`)
    return { what: `${count(jobs)} jobs by ${workers} workers, ${how}`, rows: 3 * jobs } as Outcome
  })
