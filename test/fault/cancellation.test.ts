/**
 * A thousand statements interrupted at random moments, of every kind and everywhere that a statement can run, on a pool of
 * five: nobody waits for an interruption, the server stops them all, and no statement after them notices.
 *
 * Each statement carries a marker of its own. Those that follow an interrupted one, half of them on the same connection,
 * are slow enough to be hit by a KILL that comes late, and say whether they were, or whether what they got is another's.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import type { Services } from "../../src/DbLayer.js"
import type { Queries } from "../../src/Queries.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { numbers, snapshot } from "../support/dbQuestions.js"
import { type EventLoop, watchEventLoop } from "../support/eventLoop.js"
import { type Look, watchProcesses } from "../support/processWatch.js"
import { type Dice, printedDice } from "../support/seed.js"

const total = 1_000
const workers = 20
const poolSize = 5
const rowsOfWrite = 20_000

type Victim = (db: Queries, marker: string, dice: Dice) => Effect.Effect<unknown, unknown, Services>

const client = <A, E>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, E>) =>
  Effect.flatMap(SqlClient.SqlClient, use)

const victims: Record<string, Victim> = {
  "a long sleep": (db, marker) => db.value(`SELECT SLEEP(30), '${marker}'`),
  "a sleep that may end first": (db, marker, dice) => db.value(`SELECT SLEEP(0.0${dice.below(30)}), '${marker}'`),
  "a fast select": (db, marker) => db.value("SELECT ?", [marker]),
  "fast selects": (db, marker) => Effect.forever(db.value(`SELECT '${marker}'`)),
  "a fast write": (db, marker) => db.execute("INSERT INTO written VALUES (?, 1)", [marker]),
  "a large write": (db, marker) =>
    db.execute(`INSERT INTO written SELECT '${marker}', seq FROM ${numbers(rowsOfWrite)}`),
  "a stream of many rows": (db, marker) =>
    Stream.runDrain(db.stream(`SELECT seq, '${marker}', REPEAT('x', 200) FROM ${numbers(500_000)}`)),
  "a stream that is read slowly": (db, marker) =>
    Stream.runForEach(
      Stream.rechunk(db.stream(`SELECT seq, '${marker}', REPEAT('x', 200) FROM ${numbers(500_000)}`), 1),
      () => Effect.sleep(1)
    ),
  "a text of several": (_, marker) => client((sql) => sql.unsafe(`SELECT 1; SELECT SLEEP(30), '${marker}'`).unprepared),
  "sql`SELECT`": (_, marker) => client((sql) => sql`SELECT SLEEP(30), ${marker}`)
}

/** What comes after a victim, on the same connection or another, fails when it was hit or got another's result. */
const laters: Record<string, (db: Queries, marker: string) => Effect.Effect<unknown, unknown>> = {
  "a slow select": (db, marker) =>
    Effect.map(
      db.value("SELECT CONCAT(?, SLEEP(0.002))", [marker]),
      (value) => expect(value).toEqual(Option.some(`${marker}0`))
    ),
  "a select": (db, marker) =>
    Effect.map(db.value("SELECT ?", [marker]), (value) => expect(value).toEqual(Option.some(marker))),
  "a write": (db, marker) =>
    Effect.map(db.execute("INSERT INTO later VALUES (?)", [marker]), (done) => expect(done.affectedRows).toBe(1)),
  "a stream": (db, marker) =>
    Effect.map(
      Stream.runCollect(db.stream<{ marker: string }>(`SELECT '${marker}' AS marker FROM ${numbers(700)}`)),
      (rows) => expect(Array.from(rows, (row) => row.marker)).toEqual(Array.from({ length: 700 }, () => marker))
    )
}

/** Where both run: the later one on the same connection, or on whichever there is. */
type Use = (db: Queries) => Effect.Effect<void, unknown, Services>
const places: Record<string, (use: Use) => Effect.Effect<void, unknown, Services>> = {
  "fibers of their own": (use) => Effect.flatMap(Db.Db, use),
  "a session": (use) =>
    Effect.flatMap(Db.Db, (db) => db.session(Effect.zipRight(db.execute("SET @mine = 'mine'"), use(db)))),
  "a transaction": (use) => Effect.flatMap(Db.Db, (db) => db.transaction(use(db))),
  "a nested transaction": (use) => Effect.flatMap(Db.Db, (db) => db.transaction(db.transaction(use(db)))),
  "a connection": (use) => Effect.scoped(Effect.flatMap(Effect.flatMap(Db.Db, (db) => db.connection), use))
}

/** An interrupted victim that is a whole of its own. */
const wholes: Record<string, Victim> = {
  "a session": (_, marker) =>
    Effect.flatMap(
      Db.Db,
      (db) => db.session(Effect.zipRight(db.execute("SET @mine = 1"), db.value(`SELECT SLEEP(30), '${marker}'`)))
    ),
  "a transaction": (_, marker) =>
    Effect.flatMap(
      Db.Db,
      (db) =>
        db.transaction(Effect.forEach([1, 2], (part) => db.execute("INSERT INTO halves VALUES (?, ?)", [marker, part])))
    ),
  "a transaction with a nested one": (_, marker) =>
    Effect.flatMap(Db.Db, (db) => {
      const insert = (part: number) => db.execute("INSERT INTO halves VALUES (?, ?)", [marker, part])
      return db.transaction(Effect.zipRight(insert(1), db.transaction(insert(2))))
    }),
  "a slow transaction": (_, marker) =>
    Effect.flatMap(Db.Db, (db) =>
      db.transaction(Effect.zipRight(
        db.execute("INSERT INTO halves VALUES (?, 1)", [marker]),
        db.value(`SELECT SLEEP(30), '${marker}'`)
      ))),
  "a stream in a transaction": (_, marker) =>
    Effect.flatMap(
      Db.Db,
      (db) =>
        db.transaction(Stream.runDrain(db.stream(`SELECT seq, '${marker}', REPEAT('x', 200) FROM ${numbers(500_000)}`)))
    ),
  "sql.withTransaction": (_, marker) =>
    client((sql) =>
      sql.withTransaction(
        Effect.zipRight(sql`INSERT INTO halves VALUES (${marker}, 1)`, sql`INSERT INTO halves VALUES (${marker}, 2)`)
      )
    )
}

/** What has been seen of all of them. */
interface Seen {
  /** The longest wait as the clock saw it. */
  raw: number
  /** Each without the time in which the event loop did nothing at all. */
  readonly waits: Array<number>
  readonly interruptedAt: Map<string, number>
  readonly kinds: Map<string, number>
  readonly ends: Map<string, number>
  readonly errors: Array<string>
  /** Those that the server ran more than a second after their interruption. */
  readonly overdue: Set<string>
  oldest: number
  mostConnections: number
}

const nothingSeen = (): Seen => ({
  raw: 0,
  waits: [],
  interruptedAt: new Map(),
  kinds: new Map(),
  ends: new Map(),
  errors: [],
  overdue: new Set(),
  oldest: 0,
  mostConnections: 0
})

/** What the server runs now, and since when it should not. */
const inspect = ({ at, processes }: Look, seen: Seen, loop: EventLoop): void => {
  seen.mostConnections = Math.max(seen.mostConnections, processes.length)
  for (const { info } of processes) {
    const marker = /victim \d+;/.exec(info)?.[0]
    const since = marker === undefined ? undefined : seen.interruptedAt.get(marker)
    if (marker === undefined || since === undefined) continue
    const age = at - since - loop.blocked(since, at)
    seen.oldest = Math.max(seen.oldest, age)
    if (age > 1_000) seen.overdue.add(`${marker} ${age} ms after its interruption: ${info}`)
  }
}

const count = (counts: Map<string, number>, what: string): void => {
  counts.set(what, (counts.get(what) ?? 0) + 1)
}

/** Up to some milliseconds, or no more than a few turns of the scheduler. */
const moment = (dice: Dice): Effect.Effect<void> => {
  const millis = dice.below(40)
  return millis < 4 ? Effect.repeatN(Effect.yieldNow(), dice.below(30)) : Effect.sleep(millis)
}

/** Starts the victim, interrupts it, and measures how long that took. */
const interrupted = (
  victim: Effect.Effect<unknown, unknown, Services>,
  marker: string,
  seen: Seen,
  dice: Dice,
  loop: EventLoop
) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(victim)
    yield* moment(dice)
    const from = performance.now()
    seen.interruptedAt.set(marker, from)
    const exit = yield* Fiber.interrupt(fiber)
    const to = performance.now()
    seen.raw = Math.max(seen.raw, to - from)
    seen.waits.push(to - from - loop.blocked(from, to))
    const end = Exit.isSuccess(exit) ? "done" : Cause.isInterrupted(exit.cause) ? "interrupted" : "failed"
    count(seen.ends, end)
    if (end === "failed") seen.errors.push(`${marker}: ${exit}`)
  })

const one = (index: number, seen: Seen, dice: Dice, loop: EventLoop) => {
  const marker = `victim ${index};`
  const later = dice.pick(Object.entries(laters))
  const isWhole = dice.below(3) === 0
  const [what, victim] = dice.pick(Object.entries(isWhole ? wholes : victims))
  const [where, place] = isWhole ?
    ["fibers of their own", places["fibers of their own"]!] as const
    : dice.pick(Object.entries(places))
  count(seen.kinds, isWhole ? what : `${what} in ${where}`)
  return place((db) =>
    Effect.zipRight(
      interrupted(victim(db, marker, dice), marker, seen, dice, loop),
      Effect.asVoid(later[1](db, `later ${index};`))
    )
  ).pipe(
    Effect.catchAllCause((cause) =>
      Effect.sync(() => {
        seen.errors.push(`${later[0]} after ${what} in ${where}: ${Cause.pretty(cause)}`)
      })
    )
  )
}

const percentile = (sorted: ReadonlyArray<number>, share: number): string =>
  (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN).toFixed(1)

const report = (seen: Seen, loop: EventLoop, pool: object): void => {
  const waits = [...seen.waits].sort((a, b) => a - b)
  const [half, most] = [percentile(waits, 0.5), percentile(waits, 1)]
  process.stdout.write(
    [
      `interruptions took p50 ${half} ms, p99 ${
        percentile(waits, 0.99)
      } ms, most ${most} ms without the loop's own delays`,
      `most ${seen.raw.toFixed(1)} ms with them, the longest of which was ${loop.worst().toFixed(1)} ms`,
      `ends ${JSON.stringify(Object.fromEntries(seen.ends))} of ${seen.kinds.size} kinds`,
      `seen on the server up to ${seen.oldest.toFixed(0)} ms after an interruption`,
      `${JSON.stringify(pool)}, at most ${seen.mostConnections} connections\n`
    ].join("; ")
  )
}

const createTables = Effect.flatMap(Db.Db, (db) =>
  Effect.zipRight(
    Effect.forEach(
      ["written (marker VARCHAR(40), seq INT)", "halves (marker VARCHAR(40), part INT)", "later (marker VARCHAR(40))"],
      (table) => db.execute(`CREATE TABLE ${table} ENGINE = InnoDB`)
    ),
    db.releaseFiberConnection
  ))

/** Each in a fiber of its own, which takes its session's state with it. */
const interruptAll = (seen: Seen, dice: Dice, loop: EventLoop) => {
  let next = 0
  const worker = Effect.whileLoop({
    while: () => next < total,
    body: () => Effect.flatMap(Effect.fork(one(next++, seen, dice, loop)), Fiber.join),
    step: () => {}
  })
  return Effect.forEach(Array.from({ length: workers }), () => worker, { concurrency: workers, discard: true })
}

/** What a write or a transaction has left is all of its work or nothing. */
const expectNothingHalf = Effect.gen(function*() {
  const db = yield* Db.Db
  const written = yield* db.list("SELECT COUNT(*) FROM written GROUP BY marker")
  expect(written.filter((rows) => Number(rows) !== 1 && Number(rows) !== rowsOfWrite)).toEqual([])
  expect(yield* db.list("SELECT COUNT(*) FROM halves GROUP BY marker HAVING COUNT(*) <> 2")).toEqual([])
})

describe("1,000 statements interrupted at random moments on a pool of 5", () => {
  it.live("keep nobody waiting, are stopped on the server, and no later one is hit or mistaken", () =>
    withDb({ poolSize, acquireTimeout: "30 seconds" }, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const dice = printedDice("cancellation")
        yield* createTables
        const loop = yield* watchEventLoop
        const seen = nothingSeen()
        yield* watchProcesses(fixture, 20, (look) => inspect(look, seen, loop))
        yield* interruptAll(seen, dice, loop)
        yield* Effect.sleep(1_000)
        const running = (yield* fixture.processes).filter(({ info }) => info?.includes("victim") === true)
        const { cancelled, created, lost, resets } = yield* snapshot
        report(seen, loop, { cancelled, created, lost, resets })
        expect(seen.errors).toEqual([])
        expect(seen.waits.length).toBe(total)
        expect(Math.max(...seen.waits)).toBeLessThan(100)
        expect([...seen.overdue]).toEqual([])
        expect(running).toEqual([])
        expect(cancelled).toBeGreaterThan(total / 10)
        // the pool and one side connection; none had to be given up
        expect(seen.mostConnections).toBeLessThanOrEqual(poolSize + 1)
        expect({ created, lost }).toEqual({ created: poolSize, lost: 0 })
        yield* eventually("all idle", Effect.map(snapshot, ({ busy, held, waiting }) => busy + held + waiting === 0))
        yield* expectNothingHalf
      }))))
})
