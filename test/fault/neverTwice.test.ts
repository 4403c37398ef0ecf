/**
 * Never twice, never lost: fibers insert rows of their own keys while a proxy cuts every connection sooner or later, before
 * a statement, in it, after it, before its answer or in that, in peace or not. The table has no unique key (but where
 * that is said), so that a row inserted twice is there twice.
 *
 * What each attempt was told is compared with what is in the table when nothing runs any more.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import type { Services } from "../../src/DbLayer.js"
import type { PoolOptions } from "../../src/PoolConfig.js"
import * as Recovery from "../../src/Recovery.js"
import { type Cut, type CuttingProxy, manners, openCuttingProxy, places } from "../support/cuttingProxy.js"
import { type DbFixture, expectNoneLeft, withFixture, withLayer } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"
import { retriesOf } from "../support/retries.js"
import { type Dice, printedDice } from "../support/seed.js"

const fibers = 50

type Fate = "acknowledged" | DbErrors.Outcome
/** What was told of rows that were to be inserted together. */
interface Told {
  readonly keys: ReadonlyArray<number>
  readonly fate: Fate
}
type Tell = (told: Told) => void
type Insert<R> = (keys: ReadonlyArray<number>, tell: Tell, dice: Dice) => Effect.Effect<void, unknown, R>

const neverBorrowed: ReadonlySet<DbErrors.DbError["_tag"]> = new Set(
  ["PoolExhausted", "PoolUnreachable", "ConnectionError"] as const
)

/** What the exit says of its work; everything that says neither is a defect of the test's subject. */
const fateOf = (exit: Exit.Exit<unknown, unknown>): Fate => {
  if (Exit.isSuccess(exit)) return "acknowledged"
  const error = DbErrors.find(Option.getOrUndefined(Cause.failureOption(exit.cause)))
  if (error?._tag === "ConnectionLost") return error.outcome
  if (error !== undefined && neverBorrowed.has(error._tag)) return "not executed"
  throw new Error(`says neither unknown nor not executed: ${Cause.pretty(exit.cause)}`)
}

const asOne =
  <R>(work: (keys: ReadonlyArray<number>, dice: Dice) => Effect.Effect<unknown, unknown, R>): Insert<R> =>
  (keys, tell, dice) => Effect.map(Effect.exit(work(keys, dice)), (exit) => tell({ keys, fate: fateOf(exit) }))

/** The statements that an insert may be: prepared once, prepared each time, several rows. */
const insertRow = (db: Db.DbService, key: number, dice: Dice) =>
  dice.below(4) === 0
    ? db.execute(`INSERT INTO items (id) VALUES (${key})`)
    : db.execute("INSERT INTO items (id) VALUES (:key)", { key })

interface Arm {
  readonly name: string
  readonly keys: number
  readonly together: number
  readonly options?: PoolOptions
  readonly unique?: boolean
  /** What surely happens often enough to be seen. */
  readonly happens: ReadonlyArray<keyof Counts>
  readonly insert: Insert<Services>
}

const withDbService = <R>(use: (db: Db.DbService) => Effect.Effect<unknown, unknown, R>) => Effect.flatMap(Db.Db, use)
const inSession: Insert<Db.Db> = (keys, tell, dice) =>
  Effect.exit(withDbService((db) =>
    db.session(Effect.zipRight(
      Effect.ignore(db.execute("SET @mine = 1")),
      Effect.forEach(keys, (key) => asOne(() => insertRow(db, key, dice))([key], tell, dice))
    ))
  )).pipe(Effect.map((exit) => {
    // the session had no connection, so that none of its statements was even tried
    if (Exit.isFailure(exit)) tell({ keys, fate: fateOf(exit) })
  }))

const arms: ReadonlyArray<Arm> = [
  {
    name: "db.execute",
    keys: 10_000,
    together: 1,
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "retried"],
    insert: asOne(([key = 0], dice) => withDbService((db) => insertRow(db, key, dice)))
  },
  {
    name: "db.execute, nothing retried",
    keys: 3_000,
    together: 1,
    options: { recovery: Schedule.stop },
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "notExecuted"],
    insert: asOne(([key = 0], dice) => withDbService((db) => insertRow(db, key, dice)))
  },
  {
    name: "sql`INSERT`",
    keys: 3_000,
    together: 1,
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "retried"],
    insert: asOne(([id = 0], dice) =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => {
        const row = sql`INSERT INTO items ${sql.insert({ id })}`
        const way = dice.below(4)
        return way === 0 ? row.unprepared : way === 1 ? sql.unsafe(`INSERT INTO items (id) VALUES (${id})`) : row
      })
    )
  },
  {
    name: "db.session with a variable",
    keys: 3_000,
    together: 5,
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "notExecuted"],
    insert: inSession
  },
  {
    name: "db.transaction of two",
    keys: 4_000,
    together: 2,
    happens: ["acknowledged", "rolledBack", "unknownPresent", "unknownAbsent"],
    insert: asOne((keys, dice) =>
      withDbService((db) => db.transaction(Effect.forEach(keys, (key) => insertRow(db, key, dice))))
    )
  },
  {
    name: "db.transaction of two, one nested, retried",
    keys: 4_000,
    together: 2,
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "retried"],
    insert: asOne(([first = 0, second = 0], dice) =>
      withDbService((db) =>
        db.transaction(
          Effect.zipRight(insertRow(db, first, dice), db.transaction(insertRow(db, second, dice))),
          { retry: Recovery.schedule }
        )
      )
    )
  },
  {
    name: "sql.withTransaction of two",
    keys: 3_000,
    together: 2,
    happens: ["acknowledged", "rolledBack", "unknownPresent", "unknownAbsent"],
    insert: asOne((keys) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql.withTransaction(Effect.forEach(keys, (id) => sql`INSERT INTO items ${sql.insert({ id })}`))
      )
    )
  },
  {
    name: "declared idempotent, with a unique key",
    keys: 3_000,
    together: 1,
    unique: true,
    happens: ["acknowledged", "retried"],
    insert: asOne(([key = 0]) =>
      withDbService((db) => Recovery.idempotent(db.execute("INSERT IGNORE INTO items (id) VALUES (?)", [key])))
    )
  },
  {
    name: "db.execute, with a unique key",
    keys: 3_000,
    together: 1,
    unique: true,
    happens: ["acknowledged", "unknownPresent", "unknownAbsent", "retried"],
    insert: asOne(([key = 0], dice) => withDbService((db) => insertRow(db, key, dice)))
  }
]

/** 50 fibers, each with keys of its own. */
const insertAll = ({ insert, keys, together }: Arm, tell: Tell, dice: Dice) =>
  Effect.forEach(
    Array.from({ length: fibers }, (_, fiber) => fiber),
    (fiber) => {
      const groups: Array<ReadonlyArray<number>> = []
      for (let key = fiber * together; key < keys; key += fibers * together) {
        groups.push(Array.from({ length: together }, (_, index) => key + index))
      }
      return Effect.forEach(groups, (group) => insert(group, tell, dice), { discard: true })
    },
    { concurrency: "unbounded", discard: true }
  )

const countAll = (told: ReadonlyArray<Told>, present: ReadonlyMap<number, number>, keys: number) => {
  const counts = {
    acknowledged: 0,
    unknownPresent: 0,
    unknownAbsent: 0,
    notExecuted: 0,
    rolledBack: 0,
    retried: 0,
    duplicates: 0,
    acknowledgedMissing: 0,
    deniedPresent: 0,
    halfDone: 0,
    untold: keys,
    toldTwice: 0
  }
  const seen = new Set<number>()
  for (const { fate, keys } of told) {
    const there = keys.filter((key) => present.has(key)).length
    if (there !== 0 && there !== keys.length) counts.halfDone++
    for (const key of keys) {
      counts.untold--
      if (seen.has(key)) counts.toldTwice++
      seen.add(key)
      const copies = present.get(key) ?? 0
      if (copies > 1) counts.duplicates++
      if (fate === "acknowledged") counts.acknowledged++
      else if (fate === "not executed") counts.notExecuted++
      else if (fate === "rolled back") counts.rolledBack++
      else if (copies > 0) counts.unknownPresent++
      else counts.unknownAbsent++
      if (fate === "acknowledged" && copies === 0) counts.acknowledgedMissing++
      if ((fate === "not executed" || fate === "rolled back") && copies > 0) counts.deniedPresent++
    }
  }
  return counts
}
type Counts = ReturnType<typeof countAll>

const present = (fixture: DbFixture) =>
  Effect.map(
    fixture.admin(`SELECT id, COUNT(*) FROM ${fixture.database}.items GROUP BY id`),
    (rows) => new Map(rows.map(([id, copies]) => [Number(id), Number(copies)]))
  )

const ways = places.flatMap((place) => manners.map((manner): Cut => `${place}, ${manner}`))
const cutsOf = ({ cuts }: CuttingProxy) => ways.map((way) => `${way} ${cuts.get(way) ?? 0}`)

const check = (arm: Arm, counts: Counts, proxy: CuttingProxy) => {
  const total = ways.reduce((sum, way) => sum + (proxy.cuts.get(way) ?? 0), 0)
  process.stdout.write(`${arm.name}: ${JSON.stringify(counts)}; ${total} cuts: ${cutsOf(proxy).join("; ")}\n`)
  const { acknowledgedMissing, deniedPresent, duplicates, halfDone, toldTwice, untold } = counts
  expect({ acknowledgedMissing, deniedPresent, duplicates, halfDone, toldTwice, untold }).toEqual({
    acknowledgedMissing: 0,
    deniedPresent: 0,
    duplicates: 0,
    halfDone: 0,
    toldTwice: 0,
    untold: 0
  })
  for (const kind of arm.happens) expect(counts[kind], kind).toBeGreaterThan(0)
  for (const way of ways) expect(proxy.cuts.get(way) ?? 0, way).toBeGreaterThan(0)
}

describe("50 fibers insert while connections are cut at random: nothing twice, nothing lost", () => {
  for (const arm of arms) {
    it.live(`${arm.name}, ${arm.keys} rows`, () =>
      withFixture((fixture) =>
        Effect.scoped(Effect.gen(function*() {
          const dice = printedDice(arm.name)
          const key = arm.unique === true ? "PRIMARY KEY" : "KEY"
          yield* fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT NOT NULL, ${key} (id)) ENGINE = InnoDB`)
          const proxy = yield* openCuttingProxy(fixture.server, dice, 1_500)
          const told: Array<Told> = []
          const retried = yield* withLayer(
            { url: fixture.url, port: proxy.port, poolSize: 10, acquireTimeout: "10 seconds", ...arm.options },
            Effect.gen(function*() {
              yield* insertAll(arm, (one) => void told.push(one), dice)
              yield* proxy.rest
              return retriesOf(yield* snapshot)
            })
          )
          yield* expectNoneLeft(fixture)
          check(arm, { ...countAll(told, yield* present(fixture), arm.keys), retried }, proxy)
        }))
      ))
  }
})
