/** Borrow and return alone: ten slots, nothing behind them, each held until the next microtask. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as EffectPool from "effect/Pool"
import * as Scope from "effect/Scope"
import { createPool } from "generic-pool"
import { setMaxListeners } from "node:events"
import { Pool as Tarn } from "tarn"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as PoolConfig from "../../src/PoolConfig.js"
import { type Arm, cpu, dividedBy, perOperation, repeatedly, type Sample, throughput, type Work } from "../model.js"
import { nothingDriver } from "./nothingDriver.js"

const slots = 10

const microtask = (): Promise<void> => new Promise((resolve) => queueMicrotask(resolve))
const held = Effect.async<void>((resume) => queueMicrotask(() => resume(Effect.void)))

/** As many in a round of every arm, and as many for each fiber: ten for each of the most. */
const operations = 100_000
/** Where each that waits makes every operation slower, as in `effect/Pool`, a round ends before it has done them all. */
const longestMillis = 2_000

/** The share of one fiber. */
interface Share {
  readonly more: () => boolean
  readonly done: () => void
}

/** One of the fibers: it is at the gate when the call returns, and then does its share. */
type Start = (gate: Promise<void>, share: Share, ended: AbortSignal) => Promise<unknown>

/** A promise that is kept from outside. */
const latch = () => {
  let open = (): void => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open: () => open(), opened }
}

/**
 * All fibers wait at a gate, and what they do is measured from its opening to the last operation: to create them is not to
 * borrow. Each has a share, lest a pool that lets the same few borrow again and again never serves those who wait.
 */
const gated = (fibers: number, start: Start): Omit<Arm, "close"> => {
  const round = async (): Promise<Sample> => {
    const ended = new AbortController()
    setMaxListeners(fibers, ended.signal)
    const gate = latch()
    const end = latch()
    let total = 0
    let latest = Infinity
    const share = (): Share => {
      let left = operations / fibers
      return {
        more: () => left-- > 0,
        done: () => {
          total++
          if (total === operations || (total % 16 === 0 && performance.now() > latest)) end.open()
        }
      }
    }
    const running = Array.from({ length: fibers }, () => start(gate.opened, share(), ended.signal))
    const sample = await perOperation(1, () => {
      latest = performance.now() + longestMillis
      gate.open()
      return Promise.race([end.opened, Promise.all(running)])
    })
    const measured = total
    ended.abort()
    await Promise.allSettled(running)
    return dividedBy(measured, sample)
  }
  return { warmUp: () => repeatedly(round), round }
}

const promises = (fibers: number, cycle: () => Promise<unknown>): Omit<Arm, "close"> =>
  gated(fibers, async (gate, { done, more }) => {
    await gate
    while (more()) {
      await cycle()
      done()
    }
  })

const effects = (fibers: number, cycle: Effect.Effect<unknown, unknown>): Omit<Arm, "close"> =>
  gated(fibers, (gate, { done, more }, ended) => {
    const loop = Effect.whileLoop({ while: more, body: () => cycle, step: done })
    return Effect.runPromise(Effect.zipRight(Effect.promise(() => gate), loop), { signal: ended })
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

/** What is borrowed and returned is used by `run`. */
const own = async (run: (pool: ConnectionPool.Pool) => Omit<Arm, "close">): Promise<Arm> => {
  const scope = await Effect.runPromise(Scope.make())
  const making = Effect.gen(function*() {
    const config = yield* PoolConfig.make({ poolSize: slots, affinity: "statement", acquireTimeout: "10 minutes" }, {
      name: "nothing"
    })
    return yield* ConnectionPool.make(nothingDriver(), config)
  })
  const pool = await Effect.runPromise(Scope.extend(making, scope))
  return { ...run(pool), close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** The pool by itself, used as tarn and generic-pool are: what a program's statement stands on. */
const lease = (fibers: number): Promise<Arm> =>
  own((pool) =>
    promises(fibers, async () => {
      const lease = pool.unsafeBorrow("connection", FiberId.none)
      if (lease.state._tag === "Waiting") await new Promise<void>((resolve) => lease.onGrant(() => resolve()))
      if (!lease.usable) throw new Error("the pool has refused a connection")
      await microtask()
      lease.release("the bench")
    })
  )

/** A whole statement of `Db`, which borrows and returns with `affinity: "statement"`. */
const statement = (fibers: number): Promise<Arm> => own((pool) => effects(fibers, Db.make(pool).execute("DO 1")))

const scoped = (fibers: number): Promise<Arm> =>
  own((pool) => effects(fibers, Effect.scoped(Effect.zipRight(Db.make(pool).connection, held))))

const work = (fibers: number): Work => ({
  name: `borrow-${fibers}`,
  title: `borrow and return, ${fibers === 1 ? "1 fiber" : `${fibers.toLocaleString("en")} fibers`} on ${slots} slots`,
  measures: [{ ...cpu, digits: 2 }, throughput],
  goals: ["effect-sql-pool, a lease", "effect-sql-pool, a statement"].flatMap((arm) => [
    { arm, measure: "cpu", atMost: 3 },
    { arm, to: "tarn", measure: "cpu", atMost: 1 },
    { arm: "effect/Pool", to: arm, measure: "cpu", atLeast: 8 }
  ]),
  arms: {
    "no pool, a promise": () => Promise.resolve({ ...promises(fibers, microtask), close: () => Promise.resolve() }),
    "no pool, an effect": () => Promise.resolve({ ...effects(fibers, held), close: () => Promise.resolve() }),
    "effect/Pool": () => effectPool(fibers),
    tarn: () => tarn(fibers),
    "generic-pool": () => genericPool(fibers),
    "effect-sql-pool, a lease": () => lease(fibers),
    "effect-sql-pool, a statement": () => statement(fibers),
    "effect-sql-pool, a scope": () => scoped(fibers)
  }
})

export const borrow: ReadonlyArray<Work> = [1, 10, 100, 10_000].map(work)
