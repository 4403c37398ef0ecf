/**
 * A database of one's own for a test, behind a `DbLayer` of its own: an own schema and an own user on a server, so that
 * files run side by side and the server's processlist says which connections are this test's. Ends by proving that what
 * was opened is closed, once: no connection of the user is left, and the pool has closed as many as it has created.
 *
 * What a test wants to know of the server it asks through plain mysql2 connections, which come and go with each question.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { createConnection } from "mysql2/promise"
import { randomBytes } from "node:crypto"
import { expect, inject } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import type { InvalidConfig } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import type { MysqlOptions, PoolOptions, SqliteOptions } from "../../src/PoolConfig.js"
import type { PoolSnapshot } from "../../src/PoolStats.js"
import { type PrivateServer, type ServerOptions, startServer } from "./privateServer.js"

/** Where a server is and who rules it. */
export interface ServerAddress {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
}

/** One of the fixture's connections, as the server sees it. */
export interface Process {
  readonly id: number
  readonly command: string
  readonly info: string | null
}

export interface DbFixture {
  readonly server: ServerAddress
  readonly database: string
  readonly user: string
  /** Logs in as the fixture's user; for further pools of the same test. */
  readonly url: Redacted.Redacted
  /** Asks as root, on a connection that is none of the pool's. */
  readonly admin: (sql: string) => Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>>
  /** The connections of the fixture's user. */
  readonly processes: Effect.Effect<ReadonlyArray<Process>>
  /** Ends a connection from outside and waits until the server has forgotten it. */
  readonly kill: (id: string | number) => Effect.Effect<void>
  /** Waits until one of the fixture's connections runs a statement with this text, and answers its id. */
  readonly running: (text: string) => Effect.Effect<number>
  /** Waits until none of them does. */
  readonly notRunning: (text: string) => Effect.Effect<void>
}

export type DbFixtureOptions = MysqlOptions & PoolOptions & {
  /** Default: the server that all tests share. */
  readonly server?: ServerAddress | undefined
}

const query = (server: ServerAddress, sql: string): Effect.Effect<ReadonlyArray<ReadonlyArray<unknown>>> =>
  Effect.promise(async () => {
    const { host, password, port, user } = server
    const connection = await createConnection({ host, port, user, password, connectTimeout: 10_000 })
    try {
      const [rows] = await connection.query({ sql, rowsAsArray: true })
      return Array.isArray(rows) ? (rows as Array<Array<unknown>>) : []
    } finally {
      connection.destroy()
    }
  })

/** Looks again every few milliseconds until it is so, and dies when it is not so in time. */
export const eventually = <E, R>(
  what: string,
  look: Effect.Effect<boolean, E, R>,
  bound = 10_000
): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    const deadline = performance.now() + bound
    const again: Effect.Effect<void, E, R> = Effect.flatMap(look, (yes) => {
      if (yes) return Effect.void
      if (performance.now() > deadline) return Effect.dieMessage(`not within ${bound} ms: ${what}`)
      return Effect.zipRight(Effect.sleep(5), again)
    })
    return again
  })

const makeFixture = (server: ServerAddress): DbFixture => {
  const name = `t_${randomBytes(6).toString("hex")}`
  const password = randomBytes(12).toString("hex")
  const admin = (sql: string) => query(server, sql)
  // not from information_schema: that is a table in the server's temporary folder, which a second server that starts
  // on the same one sweeps
  const processes = Effect.map(
    admin("SHOW FULL PROCESSLIST"),
    (rows) =>
      rows.flatMap(([id, user, , , command, , , info]): ReadonlyArray<Process> => {
        if (user !== name) return []
        // a statement that is only being prepared is listed as well, by both servers
        const runs = info !== null && command !== "Prepare"
        return [{ id: Number(id), command: String(command), info: runs ? String(info) : null }]
      })
  )
  const withText = (text: string) =>
    Effect.map(processes, (all) => all.filter(({ info }) => info !== null && info.includes(text)))
  return {
    server,
    database: name,
    user: name,
    url: Redacted.make(`mysql://${name}:${password}@${server.host}:${server.port}/${name}`),
    admin,
    processes,
    kill: (id) =>
      Effect.zipRight(
        admin(`KILL ${id}`),
        eventually(
          `connection ${id} is gone`,
          Effect.map(processes, (all) => all.every((one) => one.id !== Number(id)))
        )
      ),
    running: (text) =>
      Effect.suspend(() => {
        let found: number | undefined
        const look = Effect.map(withText(text), ([first]) => (found = first?.id) !== undefined)
        return Effect.map(eventually(`the server runs ${text}`, look), () => found as number)
      }),
    notRunning: (text) =>
      eventually(`the server does not run ${text}`, Effect.map(withText(text), (all) => all.length === 0))
  }
}

const create = (fixture: DbFixture): Effect.Effect<void> => {
  const { password } = new URL(Redacted.value(fixture.url))
  return Effect.gen(function*() {
    yield* fixture.admin(`CREATE DATABASE ${fixture.database}`)
    yield* fixture.admin(`CREATE USER ${fixture.user}@'%' IDENTIFIED BY '${password}'`)
    yield* fixture.admin(`GRANT ALL ON ${fixture.database}.* TO ${fixture.user}@'%'`)
    // there MySQL says whether a transaction is open
    yield* fixture.admin(`GRANT SELECT ON performance_schema.* TO ${fixture.user}@'%'`)
  })
}

const drop = (fixture: DbFixture): Effect.Effect<void> =>
  Effect.zipRight(
    fixture.admin(`DROP USER ${fixture.user}@'%'`),
    fixture.admin(`DROP DATABASE ${fixture.database}`)
  )

/** That the pool says so, at once. */
export const expectAllClosed = (snapshot: PoolSnapshot): void => {
  const { busy, closed, created, held, idle, lendable, opening, phase, waiting } = snapshot
  expect({ phase, closed, idle, held, lendable, opening, busy, waiting }).toEqual({
    phase: "Closed",
    closed: created,
    idle: 0,
    held: 0,
    lendable: 0,
    opening: 0,
    busy: 0,
    waiting: 0
  })
}

/** That the server says so; it takes a moment to see a socket close. */
export const expectNoneLeft = (fixture: DbFixture): Effect.Effect<void> =>
  eventually(
    `no connection of ${fixture.user} is left on the server`,
    Effect.map(fixture.processes, (all) => all.length === 0)
  )

/** An own schema and user for the effect, and the proof at its end that no connection of that user is left. */
export const withFixture = <A, E, R>(
  use: (fixture: DbFixture) => Effect.Effect<A, E, R>,
  server: ServerAddress = inject("server")
): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.suspend(() => {
      const fixture = makeFixture(server)
      return Effect.as(create(fixture), fixture)
    }),
    (fixture) => Effect.zipLeft(use(fixture), expectNoneLeft(fixture)),
    drop
  )

/** Runs the effect on a layer of its own and proves, when that is released, that its pool has closed everything. */
const closing = <A, E, R>(
  layer: Layer.Layer<DbLayer.Services, InvalidConfig>,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const services = yield* Effect.orDie(Layer.buildWithScope(layer, scope))
      const exit = yield* Effect.exit(restore(Effect.provide(test, services)))
      yield* Scope.close(scope, exit)
      const snapshot = yield* Context.get(services, ConnectionPool.ConnectionPool).snapshot
      // what went wrong first is what has to be told
      if (Exit.isSuccess(exit)) expectAllClosed(snapshot)
      return yield* exit
    })
  )

/** Runs a test on a pool of its own; for a second one beside {@link withDb}'s, or one on another address. */
export const withLayer = <A, E, R>(
  options: MysqlOptions & PoolOptions,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> => closing(DbLayer.mysql(options), test)

/** The same on SQLite, by default on a private temporary file. */
export const withSqlite = <A, E, R>(
  options: SqliteOptions & PoolOptions,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> => closing(DbLayer.sqlite(options), test)

/** Runs a test on a pool, a schema and a user of its own; see the top of this file for what it proves at the end. */
export const withDb = <A, E, R>(
  { server, ...options }: DbFixtureOptions,
  test: (fixture: DbFixture) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, DbLayer.Services>> =>
  withFixture((fixture) => withLayer({ ...options, url: options.url ?? fixture.url }, test(fixture)), server)

/** A server of the test's own, for what nobody may do to a shared one. */
export const withServer = <A, E, R>(
  options: ServerOptions,
  use: (server: PrivateServer) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.promise(() => startServer(options)),
    use,
    (server) => Effect.promise(() => server.stop())
  )
