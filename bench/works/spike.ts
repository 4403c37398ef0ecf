/**
 * A spike: connecting takes 150 ms more than it does, a query 2 ms, 5 connections are open, 50 requests come at once, 50
 * connections are allowed. A pool that waits for what it has answers sooner than one that opens what it will not need.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as EffectPool from "effect/Pool"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import type { Connection } from "mysql2"
import { createPool } from "mysql2/promise"
import { once } from "node:events"
import { type AddressInfo, connect as dial, createServer, type Socket } from "node:net"
import { Pool as Tarn } from "tarn"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolStats from "../../src/PoolStats.js"
import { connect, execute } from "../clients/mysql2.js"
import { type Arm, repeatedly, type Target, type Work } from "../model.js"

const requests = 50
const minimum = 5
const maximum = 50
const delay = 150
const query = "DO SLEEP(0.002)"

interface Users {
  /** Opens the minimum, where that is not done by as many requests. */
  readonly fill?: () => Promise<unknown>
  readonly request: () => Promise<unknown>
  readonly close: () => Promise<unknown>
}

interface SlowDoor {
  readonly target: Target
  readonly accepted: () => number
  readonly close: () => Promise<void>
}

/** A way to the server on which each connection is let through only after the delay. */
const slowDoor = async (target: Target): Promise<SlowDoor> => {
  let accepted = 0
  const sockets = new Set<Socket>()
  const door = createServer((client) => {
    accepted++
    sockets.add(client)
    client.on("error", () => client.destroy())
    setTimeout(() => {
      const server = dial(target.port, target.host)
      server.on("error", () => client.destroy())
      client.on("close", () => server.destroy())
      client.pipe(server).pipe(client)
    }, delay)
  }).listen(0, "127.0.0.1")
  await once(door, "listening")
  return {
    target: { ...target, port: (door.address() as AddressInfo).port },
    accepted: () => accepted,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      door.close()
      await once(door, "close")
    }
  }
}

const pools: Readonly<Record<string, (target: Target) => Promise<Users>>> = {
  "mysql2 pool": (target) => {
    const pool = createPool({ ...target, connectionLimit: maximum, maxIdle: maximum })
    return Promise.resolve({ request: () => pool.execute(query), close: () => pool.end() })
  },
  tarn: (target) => {
    const pool = new Tarn<Connection>({
      create: () => connect(target),
      destroy: (connection) => connection.destroy(),
      min: minimum,
      max: maximum
    })
    const request = async (): Promise<void> => {
      const connection = await pool.acquire().promise
      await execute(connection, query)
      pool.release(connection)
    }
    return Promise.resolve({ request, close: () => pool.destroy() })
  },
  "effect/Pool": async (target) => {
    const scope = await Effect.runPromise(Scope.make())
    const acquire = Effect.acquireRelease(
      Effect.promise(() => connect(target)),
      (connection) => Effect.sync(() => connection.destroy())
    )
    const making = EffectPool.makeWithTTL({ acquire, min: minimum, max: maximum, timeToLive: "1 minute" })
    const pool = await Effect.runPromise(Scope.extend(making, scope))
    const use = Effect.flatMap(pool.get, (connection) => Effect.promise(() => execute(connection, query)))
    return {
      request: () => Effect.runPromise(Effect.scoped(use)),
      close: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  },
  "effect-sql-pool": async ({ database, host, password, port, user }) => {
    const options = { host, port, database, username: user, poolSize: maximum, minimumIdle: minimum }
    const runtime = ManagedRuntime.make(DbLayer.mysql({ ...options, password: Redacted.make(password) }))
    const db = await runtime.runPromise(Db.Db)
    const stats = await runtime.runPromise(PoolStats.PoolStats)
    const filled = Effect.repeat(Effect.delay(stats.snapshot, 10), { until: ({ idle }) => idle === minimum })
    return {
      fill: () => Effect.runPromise(filled),
      request: () => Effect.runPromise(db.execute(query)),
      close: () => runtime.dispose()
    }
  }
}

const timed = async (request: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await request()
  return performance.now() - start
}

const arm = (open: (target: Target) => Promise<Users>) => (target: Target): Promise<Arm> =>
  Promise.resolve({
    warmUp: async () => {
      const users = await open(target)
      await repeatedly(() => Promise.all(Array.from({ length: requests }, users.request)))
      await users.close()
    },
    round: async () => {
      const door = await slowDoor(target)
      const users = await open(door.target)
      try {
        const open = users.fill ?? (() => Promise.all(Array.from({ length: minimum }, users.request)))
        await open()
        const times = await Promise.all(Array.from({ length: requests }, () => timed(users.request)))
        // what was begun for the requests arrives
        await new Promise((resolve) => setTimeout(resolve, 2 * delay))
        return { slowest: Math.max(...times), connections: door.accepted() }
      } finally {
        await users.close()
        await door.close()
      }
    },
    close: () => Promise.resolve()
  })

export const spike: ReadonlyArray<Work> = [{
  name: "spike",
  title: "spike: 50 requests at once, 5 connections open, 150 ms to open another",
  measures: [
    { key: "slowest", title: "slowest request", unit: "ms", digits: 1 },
    { key: "connections", title: "connections", unit: "opened", digits: 0 }
  ],
  goals: [
    { arm: "effect-sql-pool", measure: "connections", atMost: 6 },
    { arm: "effect-sql-pool", measure: "slowest", atMost: 40 }
  ],
  arms: Object.fromEntries(Object.entries(pools).map(([name, open]) => [name, arm(open)]))
}]
