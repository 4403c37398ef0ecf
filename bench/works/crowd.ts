/** Many fibers at once on ten connections: what each costs, and what each that waits keeps in memory. */
import { MysqlClient } from "@effect/sql-mysql2"
import { SqlClient } from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as ManagedRuntime from "effect/ManagedRuntime"
import type * as Scope from "effect/Scope"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import { options } from "../clients/effect.js"
import { connections, texts } from "../clients/operations.js"
import { type Arm, cpu, type Sample, type Target, throughput, type Work } from "../model.js"

/** A statement, and the taking of one connection for as long as the scope. */
interface Crowd {
  readonly statement: Effect.Effect<unknown, unknown>
  readonly connection: Effect.Effect<unknown, unknown, Scope.Scope>
}

const own = (target: Target) =>
  ManagedRuntime.make(DbLayer.mysql({ ...options(target), poolSize: connections, acquireTimeout: "10 minutes" }))

const ofSql = (sql: SqlClient): Crowd => ({
  statement: sql`SELECT name FROM bench_items WHERE id = ${7}`,
  connection: sql.reserve
})

const ofDb = (db: Db.DbService): Crowd => ({ statement: db.values(texts.select, [7]), connection: db.connection })

const settled = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))

const collected = Effect.sync(() => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
})

/** All come while every connection is taken; then the connections are given back, and all get one in turn. */
const round = ({ connection, statement }: Crowd, fibers: number): Effect.Effect<Sample, unknown> =>
  Effect.gen(function*() {
    const before = yield* collected
    let heap = 0
    const waiting = yield* Effect.scoped(Effect.gen(function*() {
      yield* Effect.all(Array.from({ length: connections }, () => connection), { concurrency: "unbounded" })
      const waiting: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
      for (let n = 0; n < fibers; n++) waiting.push(yield* Effect.fork(statement))
      yield* settled
      heap = ((yield* collected) - before) / fibers
      return waiting
    }))
    const used = process.cpuUsage()
    const start = performance.now()
    for (const fiber of waiting) yield* Fiber.join(fiber)
    const { system, user } = process.cpuUsage(used)
    return {
      cpu: (user + system) / fibers,
      throughput: fibers / (performance.now() - start) * 1000,
      heap: heap / 1000
    }
  })

const arm = (
  fibers: number,
  open: (target: Target) => Promise<{ readonly crowd: Crowd; readonly close: () => Promise<void> }>
) =>
async (target: Target): Promise<Arm> => {
  const { close, crowd } = await open(target)
  return { round: () => Effect.runPromise(round(crowd, fibers)), close }
}

const work = (fibers: number): Work => ({
  name: `crowd-${fibers}`,
  title: `${fibers.toLocaleString("en")} fibers at once on ${connections} connections, a point select each`,
  measures: [cpu, throughput, { key: "heap", title: "heap of a waiting fiber", unit: "kB", digits: 2 }],
  goals: [{ arm: "Db", to: "@effect/sql-mysql2", measure: "heap", atMost: 1 }],
  arms: {
    "@effect/sql-mysql2": arm(fibers, async (target) => {
      const runtime = ManagedRuntime.make(MysqlClient.layer({ ...options(target), maxConnections: connections }))
      return { crowd: ofSql(await runtime.runPromise(SqlClient)), close: () => runtime.dispose() }
    }),
    Db: arm(fibers, async (target) => {
      const runtime = own(target)
      return { crowd: ofDb(await runtime.runPromise(Db.Db)), close: () => runtime.dispose() }
    }),
    SqlClient: arm(fibers, async (target) => {
      const runtime = own(target)
      return { crowd: ofSql(await runtime.runPromise(SqlClient)), close: () => runtime.dispose() }
    })
  }
})

export const crowd: ReadonlyArray<Work> = [100, 1000, 10_000, 100_000].map(work)
