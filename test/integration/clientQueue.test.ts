/**
 * The persisted queue of `@effect/experimental` on `@effect/sql`, as on the field's own client. Not on SQLite: there it
 * takes by an UPDATE with LIMIT, which SQLite knows only when it was built from generated sources of its own.
 */
import * as PersistedQueue from "@effect/experimental/PersistedQueue"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlPersistedQueue from "@effect/sql/SqlPersistedQueue"
import { describe, expect, it } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { onBoth, outcome } from "../support/clientPrograms.js"

const Job = Schema.Struct({ name: Schema.String, due: Schema.Date })
const due = new Date("2025-07-01T01:02:03.004Z")

/** One process that works on the queue: another is another worker to the database. */
const worker = PersistedQueue.layer.pipe(
  Layer.provide(SqlPersistedQueue.layerStore({ pollInterval: "5 millis", tableName: "jobs" }))
)

const queue = (name = "mails") => PersistedQueue.make({ name, schema: Job })

const state = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql`SELECT element, attempts, completed, acquired_by, acquired_at, last_failure FROM jobs ORDER BY sequence`.values
)

class Refused extends Data.TaggedError("Refused")<{ readonly message: string }> {}

const job = (name: string) => ({ name, due })
const text = (name: string) => `{"name":"${name}","due":"2025-07-01T01:02:03.004Z"}`

describe("a persisted queue on MySQL, as with MysqlClient.layer", () => {
  it.live("hands out what was offered, in its order, and knows it as done", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const mails = yield* queue()
          const [first] = [yield* mails.offer(job("first"), { id: "one" }), yield* mails.offer(job("it's"))]
          const taken = [
            yield* mails.take((value, metadata) => Effect.succeed([value, metadata])),
            yield* mails.take(({ name }, { attempts }) => Effect.succeed([name, attempts]))
          ]
          return { first, taken, state: yield* state }
        }).pipe(Effect.provide(worker))
      )
      expect(found).toEqual({
        first: "one",
        taken: [[job("first"), { id: "one", attempts: 0 }], ["it's", 0]],
        state: [[text("first"), 1, 1, null, null, null], [text("it's"), 1, 1, null, null, null]]
      })
    }))

  it.live("takes an id only once, even when it is done", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const mails = yield* queue()
          const ids = yield* Effect.forEach(
            ["a", "b", "a", "b"],
            (id, at) => mails.offer(job(`${id} ${at}`), { id }),
            { concurrency: 1 }
          )
          const taken = yield* Effect.replicateEffect(mails.take(({ name }) => Effect.succeed(name)), 2)
          yield* mails.offer(job("again"), { id: "a" })
          yield* mails.offer(job("last"), { id: "c" })
          return [ids, taken, yield* mails.take(({ name }) => Effect.succeed(name)), (yield* state).length]
        }).pipe(Effect.provide(worker))
      )
      expect(found).toEqual([["a", "b", "a", "b"], ["a 0", "b 1"], "last", 3])
    }))

  it.live("tries again what failed or died, and no more than it may", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const mails = yield* queue()
          yield* mails.offer(job("hard"), { id: "hard" })
          const seen: Array<number> = []
          const take = (end: Effect.Effect<string, Refused>) =>
            outcome(mails.take((_, { attempts }) => {
              seen.push(attempts)
              return end
            }, { maxAttempts: 3 }))
          const ends = [
            yield* take(Effect.fail(new Refused({ message: "it failed" }))),
            yield* take(Effect.die(new TypeError("it died")))
          ]
          const between = yield* state
          ends.push(yield* take(Effect.fail(new Refused({ message: "it's over" }))))
          // nothing is left but what comes now
          yield* mails.offer(job("easy"))
          const easy = yield* mails.take(({ name }) => Effect.succeed(name), { maxAttempts: 3 })
          const words = (rows: ReadonlyArray<ReadonlyArray<unknown>>) =>
            rows.map((row) => [...row.slice(1, 5), String(row[5]).split("\n")[0]])
          return { ends, seen, easy, between: words(between), after: words(yield* state) }
        }).pipe(Effect.provide(worker))
      )
      expect(found).toEqual({
        ends: [
          { tag: "Refused", message: "it failed" },
          { tag: "TypeError", message: "it died" },
          { tag: "Refused", message: "it's over" }
        ],
        seen: [0, 1, 2],
        easy: "easy",
        between: [[2, 0, null, null, "TypeError: it died"]],
        after: [[3, 0, null, null, "Refused: it's over"], [1, 1, null, null, "null"]]
      })
    }))

  it.live("gives back what was being worked on when its worker is interrupted", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const mails = yield* queue()
          yield* mails.offer(job("slow"))
          const taken = yield* Deferred.make<void>()
          const fiber = yield* Effect.fork(
            mails.take(() => Effect.zipRight(Deferred.succeed(taken, undefined), Effect.never))
          )
          yield* Deferred.await(taken)
          const during = (yield* state).map(([, attempts, completed, by]) => [attempts, completed, by !== null])
          yield* Fiber.interrupt(fiber)
          const after = yield* state
          return { during, after, again: yield* mails.take((_, { attempts }) => Effect.succeed(attempts)) }
        }).pipe(Effect.provide(worker))
      )
      expect(found).toEqual({
        during: [[0, 0, true]],
        after: [[text("slow"), 0, 0, null, null, null]],
        again: 0
      })
    }))

  it.live("keeps queues of different names apart", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const [mails, reports] = [yield* queue("mails"), yield* queue("reports")]
          yield* mails.offer(job("mail"))
          yield* reports.offer(job("report"))
          const name = (value: typeof Job.Type) => Effect.succeed(value.name)
          return [yield* reports.take(name), yield* mails.take(name)]
        }).pipe(Effect.provide(worker))
      )
      expect(found).toEqual(["report", "mail"])
    }))

  it.live("gives each of many elements to one of several workers", () =>
    Effect.gen(function*() {
      const names = Array.from({ length: 40 }, (_, at) => `job ${String(at).padStart(2, "0")}`)
      const found = yield* onBoth(Effect.gen(function*() {
        const done: Array<string> = []
        const failedOnce = new Set<string>()
        const all = yield* Deferred.make<void>()
        const handle = ({ name }: typeof Job.Type) =>
          Effect.suspend(() => {
            if (name.endsWith("5") && !failedOnce.has(name)) {
              failedOnce.add(name)
              return Effect.fail(new Refused({ message: "once" }))
            }
            done.push(name)
            return done.length === names.length ? Deferred.succeed(all, undefined) : Effect.void
          })
        const working = Effect.gen(function*() {
          const mails = yield* queue()
          yield* Effect.forever(Effect.ignore(mails.take(handle)))
        })
        const offering = Effect.gen(function*() {
          const mails = yield* queue()
          yield* Effect.forEach(names, (name) => mails.offer(job(name), { id: name }), { concurrency: 5 })
        }).pipe(Effect.provide(worker))
        yield* offering
        const one = Effect.provide(Effect.all([working, working], { concurrency: 2 }), Layer.fresh(worker))
        yield* Effect.raceFirst(Deferred.await(all), Effect.all([one, one], { concurrency: 2 }))
        const sql = yield* SqlClient.SqlClient
        const counts = yield* sql`SELECT attempts, COUNT(*) AS jobs FROM jobs GROUP BY attempts ORDER BY attempts`
        return { done: done.sort(), failed: [...failedOnce].sort(), counts }
      }))
      expect(found).toEqual({
        done: names,
        failed: ["job 05", "job 15", "job 25", "job 35"],
        counts: [{ attempts: 1, jobs: 36 }, { attempts: 2, jobs: 4 }]
      })
    }))
})
