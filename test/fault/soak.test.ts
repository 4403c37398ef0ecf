/**
 * Two minutes of mixed traffic, in which everything goes wrong that can: heap and handles stay flat, which is a line through
 * samples taken after a forced collection of garbage while the traffic rests. Before that it runs until what is compiled,
 * cached and prepared has come to its end, which is a matter of how much has been done rather than of time.
 *
 * The bounds: a leak of one small object (100 bytes) for each statement would show as 100 bytes times the statements a
 * second, so that the heap may grow by a tenth of that (10 bytes a statement) beyond the uncertainty of the line. A handle is
 * never to stay: a line of less than one in the whole run.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import { type DbFixture, eventually, withDb } from "../support/dbFixture.js"
import { numbers, snapshot } from "../support/dbQuestions.js"
import { fit, type Line, type Sample, sample } from "../support/flatness.js"

const seconds = Number(process.env["SOAK_SECONDS"] ?? 120)
/** Leaks on purpose, to see that it is noticed. */
const leaks = process.env["SOAK_LEAK"]
const seed = 20_261_122
const warmUpWorks = 40_000
const longestWarmUp = 240
const fibersEach = 12
const bytesPerStatement = 10

const leaked: Array<unknown> = []
const counts = { works: 0, failures: 0, kills: 0 }

const works = (db: Db.DbService, fixture: DbFixture): ReadonlyArray<Effect.Effect<unknown, DbError>> => [
  db.value("SELECT 1"),
  db.dictionaries(`SELECT seq, REPEAT('x', 50) AS filler FROM ${numbers(50)}`),
  db.execute("INSERT INTO visits (a) VALUES (?)", [1]),
  db.execute("DELETE FROM visits LIMIT 5"),
  db.transaction(Effect.zipRight(db.execute("INSERT INTO visits (a) VALUES (2)"), db.value("SELECT 2"))),
  db.transaction(Effect.zipRight(db.execute("INSERT INTO visits (a) VALUES (3)"), db.value("SELECT nonsense"))),
  Effect.zipRight(db.execute("SET @a = 1"), db.value("SELECT @a")),
  db.session(Effect.timeoutOption(db.value("SELECT SLEEP(0.5)"), 5)),
  Stream.runDrain(db.stream(`SELECT seq FROM ${numbers(2000)}`)),
  Stream.runDrain(Stream.take(db.stream(`SELECT seq FROM ${numbers(50_000)}`), 10)),
  Effect.timeoutOption(db.value("SELECT SLEEP(0.2)"), 10),
  db.value("SELECT nonsense"),
  db.value("SELECT ?", []),
  // a killed connection, while it runs a statement
  Effect.scoped(Effect.gen(function*() {
    if ((yield* Random.next) > 0.05) return
    const connection = yield* db.connection
    counts.kills++
    yield* Effect.fork(Effect.zipRight(Effect.sleep(5), fixture.admin(`KILL ${connection.id}`)))
    yield* connection.value("SELECT SLEEP(1)")
  })),
  // and one that dies at rest
  Effect.gen(function*() {
    if ((yield* Random.next) > 0.05) return
    const processes = yield* fixture.processes
    const idle = processes.find(({ command }) => command === "Sleep")
    counts.kills++
    if (idle !== undefined) yield* Effect.ignoreLogged(fixture.admin(`KILL ${idle.id}`).pipe(Effect.sandbox))
  })
]

/** Short-lived fibers, as those of requests are; some are interrupted. */
const traffic = (all: ReadonlyArray<Effect.Effect<unknown, DbError>>, until: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    while (performance.now() < until) {
      const work = all[yield* Random.nextIntBetween(0, all.length)] ?? Effect.void
      const fiber = yield* Effect.fork(work)
      if ((yield* Random.next) < 0.1) {
        yield* Effect.sleep(yield* Random.nextIntBetween(0, 3))
        yield* Fiber.interrupt(fiber)
      }
      const exit = yield* Fiber.await(fiber)
      counts.works++
      if (exit._tag === "Failure") counts.failures++
      if (leaks === "heap") leaked.push({ text: "a small object that nobody lets go", at: counts.works })
    }
  })

/** Traffic for a while, and then a look while it rests. */
const round = (all: ReadonlyArray<Effect.Effect<unknown, DbError>>, began: number) =>
  Effect.gen(function*() {
    const until = performance.now() + 2_000
    yield* Effect.all(Array.from({ length: fibersEach }, () => traffic(all, until)), {
      concurrency: "unbounded",
      discard: true
    })
    if (leaks === "handles") leaked.push(setInterval(() => undefined, 60_000))
    yield* eventually("it rests", Effect.map(snapshot, ({ busy, opening, waiting }) => busy + opening + waiting === 0))
    return yield* Effect.promise(() => sample(began))
  })

const line = (samples: ReadonlyArray<Sample>, of: "heap" | "handles"): Line =>
  fit(samples.map((one) => [one.seconds, one[of]] as const))

describe("a soak", () => {
  it.live(
    `of ${seconds} seconds leaves heap and handles flat`,
    () =>
      withDb({ poolSize: 6, maxLifetime: "20 seconds", validateAfter: 50 }, (fixture) =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* fixture.admin(`CREATE TABLE ${fixture.database}.visits (a INT) ENGINE = InnoDB`)
          const all = works(db, fixture)
          const start = performance.now()
          while (counts.works < warmUpWorks && performance.now() - start < longestWarmUp * 1000) {
            yield* round(all, start)
          }
          const warm = (performance.now() - start) / 1000
          const warmWorks = counts.works
          const began = performance.now()
          const settled: Array<Sample> = []
          while (performance.now() - began < seconds * 1000) settled.push(yield* round(all, began))
          process.stdout.write(`heap in kB: ${settled.map(({ heap }) => (heap / 1e3).toFixed(0)).join(" ")}\n`)
          const heap = line(settled, "heap")
          const handles = line(settled, "handles")
          const perSecond = (counts.works - warmWorks) / ((performance.now() - began) / 1000)
          const bound = perSecond * bytesPerStatement
          const after = yield* snapshot
          process.stdout.write(
            `soak of ${seconds} s after ${warm.toFixed(0)} s (seed ${seed}): ${counts.works} works (${
              perSecond.toFixed(0)
            }/s), ${counts.failures} failed, `
              + `${counts.kills} kills; ${after.created} connections, ${after.cancelled} cancelled, ${after.resets} resets, `
              + `${after.lost} lost; ${settled.length} samples: heap ${(heap.mean / 1e6).toFixed(1)} MB, slope `
              + `${heap.slope.toFixed(0)} ± ${heap.uncertainty.toFixed(0)} B/s (bound ${
                bound.toFixed(0)
              } B/s); handles `
              + `${handles.mean.toFixed(1)}, slope ${handles.slope.toFixed(4)} ± ${
                handles.uncertainty.toFixed(4)
              } a second\n`
          )
          expect(settled.length).toBeGreaterThan(seconds / 6)
          expect(heap.slope - heap.uncertainty).toBeLessThan(bound)
          // a line that is this uncertain would hide a leak
          expect(heap.uncertainty).toBeLessThan(bound * 3)
          expect((handles.slope - handles.uncertainty) * seconds).toBeLessThan(1)
        })).pipe(Effect.withRandom(Random.make(seed)), Logger.withMinimumLogLevel(LogLevel.None)),
    600_000
  )
})
