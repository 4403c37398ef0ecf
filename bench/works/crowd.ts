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
import { type Arm, cpu, repeatedly, type Sample, type Target, throughput, type Work } from "../model.js"

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

/** Collected twice, since the first time leaves what was held weakly. */
const collected = Effect.sync(() => {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
})

const takeAll = ({ connection }: Crowd) =>
  Effect.all(Array.from({ length: connections }, () => connection), { concurrency: "unbounded", discard: true })

/** As many come as there are fibers, and wait, since every connection is taken. */
const come = ({ statement }: Crowd, fibers: number) =>
  Effect.gen(function*() {
    const waiting: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
    for (let n = 0; n < fibers; n++) waiting.push(yield* Effect.fork(statement))
    yield* settled
    return waiting
  })

/** The heap of one waiting fiber, in kB. */
const heapOf = (crowd: Crowd, fibers: number): Effect.Effect<number, unknown> =>
  Effect.gen(function*() {
    const { heap, waiting } = yield* Effect.scoped(Effect.gen(function*() {
      yield* takeAll(crowd)
      const before = yield* collected
      const waiting = yield* come(crowd, fibers)
      return { heap: (yield* collected) - before, waiting }
    }))
    for (const fiber of waiting) yield* Fiber.join(fiber)
    return heap / fibers / 1000
  })

/** The CPU and the time from when the connections are given back until all have had one. */
const pass = (crowd: Crowd, fibers: number): Effect.Effect<{ micros: number; millis: number }, unknown> =>
  Effect.gen(function*() {
    const { start, used, waiting } = yield* Effect.scoped(Effect.gen(function*() {
      yield* takeAll(crowd)
      const waiting = yield* come(crowd, fibers)
      return { waiting, used: process.cpuUsage(), start: performance.now() }
    }))
    for (const fiber of waiting) yield* Fiber.join(fiber)
    const { system, user } = process.cpuUsage(used)
    return { micros: user + system, millis: performance.now() - start }
  })

/** What a small crowd takes is not to be told from noise, so it comes again until there were as many statements. */
const fewestStatements = 2000

const round = (crowd: Crowd, fibers: number): Effect.Effect<Sample, unknown> =>
  Effect.gen(function*() {
    const times = Math.ceil(fewestStatements / fibers)
    let micros = 0
    let millis = 0
    for (let time = 0; time < times; time++) {
      const passed = yield* pass(crowd, fibers)
      micros += passed.micros
      millis += passed.millis
    }
    return { cpu: micros / (times * fibers), throughput: times * fibers / millis * 1000 }
  })

/** Statements of which most wait for a connection. */
const manyStatements = ({ statement }: Crowd): Promise<unknown> => {
  const statements = Array.from({ length: 10 * connections }, () => statement)
  return Effect.runPromise(Effect.all(statements, { concurrency: "unbounded", discard: true }))
}

/**
 * The heap is taken once, before the warm-up that the rounds need: with the garbage collected goes much of what V8 knows of
 * the code, and the next statements cost twice as much.
 */
const arm = (
  fibers: number,
  open: (target: Target) => Promise<{ readonly crowd: Crowd; readonly close: () => Promise<void> }>
) =>
async (target: Target): Promise<Arm> => {
  const { close, crowd } = await open(target)
  let heap = 0
  return {
    warmUp: async () => {
      await repeatedly(() => manyStatements(crowd))
      heap = await Effect.runPromise(heapOf(crowd, fibers))
      await repeatedly(() => manyStatements(crowd))
    },
    round: async () => ({ ...await Effect.runPromise(round(crowd, fibers)), heap }),
    close
  }
}

const work = (fibers: number): Work => ({
  name: `crowd-${fibers}`,
  title: `${fibers.toLocaleString("en")} fibers at once on ${connections} connections, a point select each`,
  measures: [cpu, throughput, { key: "heap", title: "heap of a waiting fiber", unit: "kB", digits: 2 }],
  // the heap is taken once in a process, and that of many is the same in all
  processes: fibers <= 1000 ? 3 : 1,
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
