/** Statements on a real server through ten connections, by what a user would pick. */
import * as effect from "../clients/effect.js"
import * as knex from "../clients/knex.js"
import * as mariadb from "../clients/mariadb.js"
import * as mysql2 from "../clients/mysql2.js"
import type { Load, OpenClient } from "../clients/operations.js"
import { cpu, dividedBy, type Goal, type Measure, steadily, throughput, type Work } from "../model.js"

/** What a program would pick. */
export const pools: Readonly<Record<string, OpenClient>> = {
  "mysql2 pool": mysql2.pool,
  "mariadb pool": mariadb.pool,
  knex: knex.pool,
  "@effect/sql-mysql2": effect.sqlMysql2,
  "effect/Pool": effect.effectPool,
  Db: effect.ownDb,
  SqlClient: effect.ownSqlClient
}

const clients = { "mysql2, held": mysql2.raw, "mysql2 in Effect, held": effect.held, ...pools }

const ahead: ReadonlyArray<Goal> = [
  { arm: "Db", to: "mysql2, held", measure: "cpu", atMost: 1.15 },
  { arm: "Db", to: "mysql2 pool", measure: "cpu", atMost: 1 },
  { arm: "Db", to: "knex", measure: "cpu", atMost: 1 },
  { arm: "Db", to: "effect/Pool", measure: "cpu", atMost: 1 },
  { arm: "Db", to: "@effect/sql-mysql2", measure: "throughput", atLeast: 2.5 },
  { arm: "SqlClient", to: "@effect/sql-mysql2", measure: "throughput", atLeast: 1.5 }
]

/** Each process settles at a pace of its own, which differs by a third: the collector's, and that of what the kernel wakes. */
const processes = 3

const work = (
  name: string,
  title: string,
  load: Omit<Load, "operations">,
  goals: ReadonlyArray<Goal> = ahead,
  arms: Readonly<Record<string, OpenClient>> = clients
): Work => ({
  name,
  title,
  measures: [cpu, throughput],
  processes,
  goals,
  arms: Object.fromEntries(
    Object.entries(arms).map(([arm, open]) => [arm, async (target) => {
      const client = await open(target)
      return { ...steadily((operations) => client.run({ ...load, operations })), close: client.close }
    }])
  )
})

const select = (fibers: number, each: boolean): Work =>
  work(
    `select-${fibers}-${each ? "each" : "long"}`,
    `point select, ${fibers === 1 ? "1 fiber" : `${fibers} fibers`}${each ? ", a fiber for each query" : ""}`,
    { kind: "select", fibers, each }
  )

const peak: Measure = { key: "peak", title: "heap above start", unit: "MB", digits: 1 }

/** The most heap, over what was there at the start, that is seen while it runs. */
const heapAbove = async (run: () => Promise<unknown>): Promise<number> => {
  globalThis.gc?.()
  const start = process.memoryUsage().heapUsed
  let most = 0
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().heapUsed - start)
  }, 5)
  await run()
  clearInterval(watch)
  return most / 1e6
}

const rowsPerStream = 100_000
const relearning = 3

const stream: Work = {
  name: "stream",
  title: "a stream of 100,000 rows (per row)",
  measures: [{ ...cpu, digits: 2 }, throughput, peak],
  processes,
  goals: [{ arm: "Db", to: "mysql2, held", measure: "cpu", atMost: 1.05 }],
  arms: Object.fromEntries(
    Object.entries(clients).map(([arm, open]) => [arm, async (target) => {
      const client = await open(target)
      const run = (operations: number) => client.run({ kind: "stream", operations, fibers: 1, each: false })
      const { round, warmUp } = steadily(run)
      return {
        warmUp,
        round: async () => {
          const sample = dividedBy(rowsPerStream, await round())
          // in a stream of its own, and what the collection has made V8 forget is learnt again before the next round
          const peak = await heapAbove(() => run(1))
          await run(relearning)
          return { ...sample, peak }
        },
        close: client.close
      }
    }])
  )
}

export const statements: ReadonlyArray<Work> = [
  ...[1, 10, 100].flatMap((fibers) => [select(fibers, false), select(fibers, true)]),
  work("insert", "insert one row, 10 fibers", { kind: "insert", fibers: 10, each: false }),
  work("transaction", "a transaction of three statements, 10 fibers", {
    kind: "transaction",
    fibers: 10,
    each: false
  }),
  {
    ...work("rows", "1,000 rows in one query", { kind: "rows", fibers: 10, each: false }, [
      { arm: "Db", to: "mysql2, held", measure: "cpu", atMost: 1.05 }
    ], { ...clients, "Db, dictionaries": effect.ownDictionaries })
  },
  stream
]
