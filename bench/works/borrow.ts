/** Borrow and return alone: ten slots, nothing behind them, each held until the next microtask. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as EffectPool from "effect/Pool"
import * as Scope from "effect/Scope"
import { createPool } from "generic-pool"
import { Pool as Tarn } from "tarn"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as PoolConfig from "../../src/PoolConfig.js"
import { type Arm, cpu, steadily, throughput, type Work } from "../model.js"
import { nothingDriver } from "./nothingDriver.js"

const slots = 10

const microtask = (): Promise<void> => new Promise((resolve) => queueMicrotask(resolve))
const held = Effect.async<void>((resume) => queueMicrotask(() => resume(Effect.void)))

const promises = (fibers: number, cycle: () => Promise<unknown>): Omit<Arm, "close"> =>
  steadily((operations) => {
    let left = operations
    const loop = async (): Promise<void> => {
      while (left-- > 0) await cycle()
    }
    return Promise.all(Array.from({ length: fibers }, loop))
  })

const effects = (fibers: number, cycle: Effect.Effect<unknown, unknown>): Omit<Arm, "close"> =>
  steadily((operations) => {
    let left = operations
    const loop = Effect.whileLoop({ while: () => left-- > 0, body: () => cycle, step: () => undefined })
    return Effect.runPromise(
      Effect.forEach(Array.from({ length: fibers }), () => loop, { concurrency: "unbounded", discard: true })
    )
  })

const effectPool = async (fibers: number): Promise<Arm> => {
  const scope = await Effect.runPromise(Scope.make())
  const making = EffectPool.make({ acquire: Effect.succeed({}), size: slots })
  const pool = await Effect.runPromise(Scope.extend(making, scope))
  const cycle = Effect.scoped(Effect.zipRight(pool.get, held))
  return { ...effects(fibers, cycle), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const tarn = (fibers: number): Promise<Arm> => {
  const pool = new Tarn<object>({ create: () => ({}), destroy: () => undefined, min: 0, max: slots })
  const cycle = async (): Promise<void> => {
    const resource = await pool.acquire().promise
    await microtask()
    pool.release(resource)
  }
  return Promise.resolve({ ...promises(fibers, cycle), close: () => pool.destroy() })
}

const genericPool = (fibers: number): Promise<Arm> => {
  const factory = { create: () => Promise.resolve({}), destroy: () => Promise.resolve() }
  const pool = createPool(factory, { min: 0, max: slots })
  const cycle = async (): Promise<void> => {
    const resource = await pool.acquire()
    await microtask()
    await pool.release(resource)
  }
  return Promise.resolve({
    ...promises(fibers, cycle),
    close: async () => {
      await pool.drain()
      await pool.clear()
    }
  })
}

/** A statement borrows and returns with `affinity: "statement"`; `db.connection` does with its scope. */
const own = async (fibers: number, how: "statement" | "connection"): Promise<Arm> => {
  const scope = await Effect.runPromise(Scope.make())
  const making = Effect.gen(function*() {
    const config = yield* PoolConfig.make({ poolSize: slots, affinity: "statement", acquireTimeout: "10 minutes" }, {
      name: "nothing"
    })
    return Db.make(yield* ConnectionPool.make(nothingDriver(), config))
  })
  const db = await Effect.runPromise(Scope.extend(making, scope))
  const cycle = how === "statement" ? db.execute("DO 1") : Effect.scoped(Effect.zipRight(db.connection, held))
  return { ...effects(fibers, cycle), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

const work = (fibers: number): Work => ({
  name: `borrow-${fibers}`,
  title: `borrow and return, ${fibers === 1 ? "1 fiber" : `${fibers.toLocaleString("en")} fibers`} on ${slots} slots`,
  measures: [cpu, throughput],
  goals: [
    { arm: "effect-sql-pool, a statement", measure: "cpu", atMost: 3 },
    { arm: "effect-sql-pool, a statement", to: "tarn", measure: "cpu", atMost: 1 },
    { arm: "effect/Pool", to: "effect-sql-pool, a statement", measure: "cpu", atLeast: 8 }
  ],
  arms: {
    "no pool, a promise": () => Promise.resolve({ ...promises(fibers, microtask), close: () => Promise.resolve() }),
    "no pool, an effect": () => Promise.resolve({ ...effects(fibers, held), close: () => Promise.resolve() }),
    "effect/Pool": () => effectPool(fibers),
    tarn: () => tarn(fibers),
    "generic-pool": () => genericPool(fibers),
    "effect-sql-pool, a statement": () => own(fibers, "statement"),
    "effect-sql-pool, a scope": () => own(fibers, "connection")
  }
})

export const borrow: ReadonlyArray<Work> = [1, 10, 100, 10_000].map(work)
