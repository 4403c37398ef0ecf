/** The statements that every client of a benchmark runs, and the loops that run them. */
import * as Effect from "effect/Effect"
import type { Target } from "../model.js"

export const connections = 10

export const texts = {
  select: "SELECT name FROM bench_items WHERE id = ?",
  insert: "INSERT INTO bench_rows (name) VALUES (?)",
  lock: "SELECT n FROM bench_accounts WHERE id = ? FOR UPDATE",
  update: "UPDATE bench_accounts SET n = n + 1 WHERE id = ?",
  log: "INSERT INTO bench_log (account) VALUES (?)",
  rows: "SELECT id, name, n, made FROM bench_items LIMIT 1000",
  stream: "SELECT id, name, n FROM bench_many"
} as const

/** The tables of the benchmarks, from nothing. */
export const tables: ReadonlyArray<string> = [
  "CREATE TABLE bench_items (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, n INT NOT NULL, made DATETIME NOT NULL)",
  "INSERT INTO bench_items WITH RECURSIVE seq (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM seq WHERE id < 1000)"
  + " SELECT id, CONCAT('item ', id), id * 7, '2026-01-02 03:04:05' FROM seq",
  "CREATE TABLE bench_many (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, n INT NOT NULL)",
  "INSERT INTO bench_many SELECT a.id * 1000 + b.id, a.name, b.n FROM bench_items a JOIN bench_items b WHERE a.id <= 100",
  "CREATE TABLE bench_rows (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL)",
  "CREATE TABLE bench_log (id INT AUTO_INCREMENT PRIMARY KEY, account INT NOT NULL)",
  "CREATE TABLE bench_accounts (id INT PRIMARY KEY, n INT NOT NULL)",
  "INSERT INTO bench_accounts SELECT id, 0 FROM bench_items"
]

/** What `n` stands for: the id of one of a thousand items. */
export const idOf = (n: number): number => n % 1000 + 1

export type Kind = "select" | "insert" | "transaction" | "rows" | "stream"

/** `each`: every operation is in a fiber of its own; else every fiber does many. */
export interface Load {
  readonly kind: Kind
  readonly operations: number
  readonly fibers: number
  readonly each: boolean
}

export interface Client {
  readonly run: (load: Load) => Promise<void>
  /** One point select, as a program would do it that has got a request. */
  readonly request: (n: number) => Promise<unknown>
  readonly close: () => Promise<void>
}

export type OpenClient = (target: Target) => Promise<Client>

/** `lane` is which of the loops it is, from 0. A stream answers the number of its rows. */
export type PromiseOperations = Readonly<Record<Kind, (n: number, lane: number) => Promise<unknown>>>

const expectRows = (rows: unknown): void => {
  if (rows !== 100_000) throw new Error(`the stream had ${String(rows)} rows`)
}

export const promiseClient = (operations: PromiseOperations, close: () => Promise<unknown>): Client => ({
  request: (n) => operations.select(n, n),
  run: async ({ fibers, kind, operations: total }) => {
    const operation = operations[kind]
    let next = 0
    const loop = async (lane: number): Promise<void> => {
      while (next < total) {
        const found = await operation(next++, lane)
        if (kind === "stream") expectRows(found)
      }
    }
    await Promise.all(Array.from({ length: fibers }, (_, lane) => loop(lane)))
  },
  close: async () => {
    await close()
  }
})

/** `lane` is which of the loops it is, from 0; of no meaning when every operation is in a fiber of its own. */
export type EffectOperations = Readonly<Record<Kind, (n: number, lane: number) => Effect.Effect<unknown, unknown>>>

export const effectClient = (operations: EffectOperations, close: () => Promise<unknown>): Client => ({
  request: (n) => Effect.runPromise(operations.select(n, n)),
  run: ({ each, fibers, kind, operations: total }) => {
    const operation = operations[kind]
    let next = 0
    const loop = (lane: number): Effect.Effect<void, unknown> => {
      const one = Effect.suspend(() => operation(next++, lane))
      const inFiber = each ? Effect.flatten(Effect.fork(one)) : one
      const checked = kind === "stream" ? Effect.map(inFiber, expectRows) : inFiber
      return Effect.whileLoop({ while: () => next < total, body: () => checked, step: () => undefined })
    }
    const lanes = Array.from({ length: fibers }, (_, lane) => lane)
    return Effect.runPromise(Effect.forEach(lanes, loop, { concurrency: "unbounded", discard: true }))
  },
  close: async () => {
    await close()
  }
})
