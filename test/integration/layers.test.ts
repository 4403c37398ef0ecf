/** The layers: from options, from the environment, from a pool that exists; and what is left when they are released. */
import { describe, expect, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolStats from "../../src/PoolStats.js"
import { failure, logged } from "../support/bothDatabases.js"
import { type DbFixture, eventually, expectAllClosed, expectNoneLeft, withFixture } from "../support/dbFixture.js"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sql-pool-test-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The files below the folder that this process has open. */
const openFiles = (path: string): ReadonlyArray<string> =>
  readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      // it was the one that read the folder
      return []
    }
  }).filter((file) => file.startsWith(path))

setFlagsFromString("--expose-gc")
const collectGarbage = runInNewContext("gc") as () => void

/** That nothing keeps a file open: @photostructure/sqlite closes it when its statements are garbage, and not before. */
const closedFiles = (path: string) =>
  eventually(
    `no file below ${path} is open`,
    Effect.sync(() => {
      collectGarbage()
      return openFiles(path).length === 0
    })
  )

const environment = (variables: Readonly<Record<string, string>>) =>
  Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))

const text = (fixture: DbFixture): string => Redacted.value(fixture.url)

const database = Effect.flatMap(Db.Db, (db) => db.value("SELECT DATABASE()"))
const one = Effect.flatMap(Db.Db, (db) => db.value("SELECT 1"))

describe("mysql", () => {
  it.live("provides the database, its pool and its statistics, which are of one piece", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        expect(yield* database).toEqual(Option.some(fixture.database))
        const pool = yield* ConnectionPool.ConnectionPool
        const stats = yield* PoolStats.PoolStats
        expect(stats.snapshot).toBe(pool.snapshot)
        expect(yield* stats.snapshot).toMatchObject({
          pool: `${fixture.server.host}:${fixture.server.port}/${fixture.database}`,
          max: 3,
          created: 1
        })
      }).pipe(Effect.provide(DbLayer.mysql({ url: fixture.url, poolSize: 3 })))
    ))

  it.live("connects when somebody asks, or before with minimumIdle", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        yield* Effect.gen(function*() {
          expect(yield* fixture.processes).toEqual([])
          yield* one
          expect(yield* fixture.processes).toHaveLength(1)
        }).pipe(Effect.provide(DbLayer.mysql({ url: fixture.url })))
        yield* expectNoneLeft(fixture)
        yield* eventually("two are there", Effect.map(fixture.processes, (all) => all.length === 2)).pipe(
          Effect.provide(DbLayer.mysql({ url: fixture.url, minimumIdle: 2 }))
        )
      })
    ))

  it.live("can be built while the server cannot be had", () =>
    Effect.gen(function*() {
      const layer = DbLayer.mysql({ host: "no-such-host.invalid", minimumIdle: 2, acquireTimeout: "100 millis" })
      expect(yield* Effect.provide(failure(one), layer)).toMatchObject({ _tag: "PoolUnreachable" })
    }))

  it.live("closes every connection when it is released: idle, its fiber's own, and those of fibers that ended", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const services = yield* Layer.buildWithScope(DbLayer.mysql({ url: fixture.url, poolSize: 5 }), scope)
        const pool = Context.get(services, ConnectionPool.ConnectionPool)
        yield* Effect.gen(function*() {
          const db = yield* Db.Db
          const together = yield* Deferred.make<void>()
          let come = 0
          yield* Effect.forEach(
            Array.from({ length: 4 }),
            () =>
              Effect.zipRight(
                db.value("SELECT 1"),
                Effect.suspend(() => ++come === 4 ? Deferred.succeed(together, undefined) : Deferred.await(together))
              ),
            { concurrency: "unbounded" }
          )
          yield* db.value("SELECT 1")
          expect(yield* fixture.processes).toHaveLength((yield* pool.snapshot).created)
        }).pipe(Effect.provide(services))
        expect((yield* pool.snapshot).created).toBeGreaterThanOrEqual(4)
        yield* Scope.close(scope, Exit.void)
        expectAllClosed(yield* pool.snapshot)
        yield* expectNoneLeft(fixture)
        expect(yield* failure(Effect.provide(one, services))).toMatchObject({ _tag: "PoolClosed" })
      })
    ))

  const dirty: ReadonlyArray<readonly [string, (db: Db.DbService) => Effect.Effect<unknown, DbError>]> = [
    ["a user variable", (db) => db.execute("SET @x = 1")],
    ["a temporary table", (db) => db.execute("CREATE TEMPORARY TABLE picked (id INT)")],
    ["a lock", (db) => db.value("SELECT GET_LOCK(CONCAT('lock of ', CURRENT_USER()), 0)")],
    ["a lock on a table", (db) => db.execute("LOCK TABLES kept WRITE")],
    [
      "an open transaction",
      (db) => Effect.zipRight(db.execute("START TRANSACTION"), db.execute("INSERT INTO kept VALUES (1)"))
    ]
  ]
  it.live.each(dirty)(
    "does not wait for the main fiber, which still holds %s",
    ([, makeDirty]) =>
      withFixture((fixture) =>
        Effect.gen(function*() {
          yield* fixture.admin(`CREATE TABLE ${fixture.database}.kept (id INT)`)
          const [[duration], lines] = yield* logged(Effect.timed(
            Effect.gen(function*() {
              const db = yield* Db.Db
              yield* makeDirty(db)
              expect(yield* (yield* ConnectionPool.ConnectionPool).snapshot).toMatchObject({ held: 1, idle: 0 })
            }).pipe(Effect.provide(DbLayer.mysql({ url: fixture.url, poolSize: 2, drainTimeout: "20 seconds" })))
          ))
          expect(Duration.toMillis(duration)).toBeLessThan(5_000)
          // nothing had to be cut
          expect(lines.filter((line) => !/^(DEBUG|TRACE)/.test(line))).toEqual([])
          yield* expectNoneLeft(fixture)
          expect(yield* fixture.admin(`SELECT COUNT(*) FROM ${fixture.database}.kept`)).toEqual([[0]])
          expect(yield* fixture.admin(`SELECT IS_FREE_LOCK('lock of ${fixture.user}@%')`)).toEqual([[1]])
        })
      )
  )

  it.live("waits for work that other fibers do, and cuts it when the drain timeout is over", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const work = (sql: string) =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            const fiber = yield* Effect.forkDaemon(Effect.exit(db.value(sql)))
            yield* fixture.running("SLEEP")
            return fiber
          })
        const run = (sql: string, drainTimeout: number) =>
          Effect.provide(work(sql), DbLayer.mysql({ url: fixture.url, drainTimeout }))
        const done = yield* run("SELECT SLEEP(0.4)", 20_000)
        expect(yield* done).toEqual(Exit.succeed(Option.some(0)))
        const [cut, lines] = yield* logged(run("SELECT SLEEP(20)", 50))
        const exit = yield* cut
        expect(Exit.isFailure(exit)).toBe(true)
        expect(lines.filter((line) => line.startsWith("WARN"))).toHaveLength(1)
        expect(lines.join()).toContain("cut 1 connections in use")
        // the server notices when it looks at its socket again
        for (const { id } of yield* fixture.processes) yield* Effect.exit(fixture.kill(id))
      })
    ))
})

describe("sqlite", () => {
  it.scopedLive("keeps its file, and nothing open, when it is released", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const filename = join(path, "shop.sqlite")
      const write = Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("CREATE TABLE kept (id INT)")
        yield* db.execute("INSERT INTO kept VALUES (1)")
        yield* Effect.forEach([1, 2, 3], () => db.value("SELECT 1"), { concurrency: 3 })
        expect(openFiles(path).length).toBeGreaterThan(0)
        expect((yield* (yield* PoolStats.PoolStats).snapshot).pool).toBe(filename)
        // on a connection that the main fiber still holds at the end
        yield* db.execute("CREATE TEMPORARY TABLE picked (id INT)")
      })
      yield* Effect.provide(write, DbLayer.sqlite({ filename, drainTimeout: "1 hour" }))
      yield* closedFiles(path)
      expect(readdirSync(path)).toEqual(["shop.sqlite"])
      const read = Effect.flatMap(Db.Db, (db) => db.list("SELECT id FROM kept"))
      expect(yield* Effect.provide(read, DbLayer.sqlite({ url: `sqlite:${filename}` }))).toEqual([1])
      yield* closedFiles(path)
    }))

  it.live("removes a private temporary file when it is released", () =>
    Effect.gen(function*() {
      const filename = yield* Effect.provide(
        Effect.gen(function*() {
          yield* Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE kept (id INT)"))
          const { pool } = yield* (yield* PoolStats.PoolStats).snapshot
          expect(existsSync(pool)).toBe(true)
          return pool
        }),
        DbLayer.sqlite()
      )
      expect(existsSync(filename)).toBe(false)
      yield* closedFiles(join(filename, ".."))
    }))

  it.live("two in memory know nothing of each other, and each has one connection", () =>
    Effect.gen(function*() {
      const build = Layer.build(DbLayer.sqlite({ filename: ":memory:" }))
      const [first, second] = [yield* build, yield* build]
      const create = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE kept (id INT)"))
      yield* Effect.provide(create, first)
      yield* Effect.provide(create, second)
      const list = Effect.flatMap(Db.Db, (db) => Effect.fork(db.list("SELECT id FROM kept")))
      expect(yield* Effect.flatten(Effect.provide(list, first))).toEqual([])
      expect(yield* Context.get(first, PoolStats.PoolStats).snapshot).toMatchObject({ max: 1, created: 1 })
    }).pipe(Effect.scoped))
})

describe("from the environment", () => {
  it.live("config(\"primary\") is the default database, from a URL", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        expect(yield* database).toEqual(Option.some(fixture.database))
        expect(yield* (yield* PoolStats.PoolStats).snapshot).toMatchObject({ max: 4 })
      }).pipe(
        Effect.provide(DbLayer.config("primary")),
        Effect.provide(environment({ DB_PRIMARY_URL: text(fixture), DB_PRIMARY_POOL_SIZE: "4" }))
      )
    ))

  it.live("config(\"primary\") is the default database, from host, port, user, password and name", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        expect(yield* database).toEqual(Option.some(fixture.database))
        const db = yield* Db.Db
        // MySQL and MariaDB call it differently
        expect(yield* db.dictionary("SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')"))
          .toMatchObject({ value: { Value: "SERIALIZABLE" } })
      }).pipe(
        Effect.provide(DbLayer.config("primary")),
        Effect.provide(environment({
          DB_PRIMARY_HOST: fixture.server.host,
          DB_PRIMARY_PORT: String(fixture.server.port),
          DB_PRIMARY_USER: fixture.user,
          DB_PRIMARY_PASSWORD: new URL(text(fixture)).password,
          DB_PRIMARY_NAME: fixture.database,
          DB_PRIMARY_ISOLATION: "SERIALIZABLE",
          DB_PRIMARY_ACQUIRE_TIMEOUT: "3 seconds"
        }))
      )
    ))

  it.live("replica and reports live side by side with the primary, each with a tag of its own", () =>
    withFixture((primary) =>
      withFixture((replica) =>
        Effect.gen(function*() {
          const [main, second, reports] = [yield* Db.Db, yield* Db.tag("replica"), yield* Db.tag("reports")]
          expect(yield* main.value("SELECT DATABASE()")).toEqual(Option.some(primary.database))
          expect(yield* second.value("SELECT DATABASE()")).toEqual(Option.some(replica.database))
          expect(yield* reports.value("SELECT sqlite_version() IS NOT NULL")).toEqual(Option.some(1))

          // a connection of each for one fiber, and transactions that do not mix
          yield* main.execute("CREATE TABLE kept (id INT)")
          yield* second.execute("CREATE TABLE kept (id INT)")
          yield* failure(main.transaction(Effect.gen(function*() {
            yield* main.execute("INSERT INTO kept VALUES (1)")
            yield* second.execute("INSERT INTO kept VALUES (2)")
            return yield* Effect.fail("back")
          })))
          expect(yield* main.list("SELECT id FROM kept")).toEqual([])
          expect(yield* second.list("SELECT id FROM kept")).toEqual([2])

          const pools = [
            yield* ConnectionPool.ConnectionPool,
            yield* ConnectionPool.tag("replica"),
            yield* ConnectionPool.tag("reports")
          ]
          expect(pools.map(({ config }) => config.poolSize)).toEqual([10, 2, 3])
          expect(new Set(pools).size).toBe(3)
          for (
            const [at, stats] of [
              yield* PoolStats.PoolStats,
              yield* PoolStats.tag("replica"),
              yield* PoolStats.tag("reports")
            ].entries()
          ) {
            expect(stats.snapshot).toBe(pools[at]!.snapshot)
          }
        }).pipe(
          Effect.provide(
            Layer.mergeAll(DbLayer.config("primary"), DbLayer.config("replica"), DbLayer.config("reports"))
          ),
          Effect.provide(environment({
            DB_PRIMARY_URL: text(primary),
            DB_REPLICA_URL: text(replica),
            DB_REPLICA_POOL_SIZE: "2",
            DB_REPORTS_URL: "sqlite:",
            DB_REPORTS_POOL_SIZE: "3"
          }))
        )
      )
    ))

  it.live("a replica alone gives no default database, and the two tags of one name are one", () =>
    Effect.gen(function*() {
      const services = yield* Layer.build(DbLayer.config("replica"))
      expect(Option.isNone(Context.getOption(services, Db.Db))).toBe(true)
      expect(Context.get(services, Db.tag("replica"))).toBe(Context.get(services, Db.tag("replica")))
      expect(Option.isNone(Context.getOption(services, Db.tag("reports")))).toBe(true)
    }).pipe(Effect.scoped, Effect.provide(environment({ DB_REPLICA_URL: "sqlite:" }))))

  it.live("primary is one pool wherever it is provided in one program", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        class Users extends Context.Tag("Users")<Users, ConnectionPool.Pool>() {}
        class Orders extends Context.Tag("Orders")<Orders, ConnectionPool.Pool>() {}
        const users = Layer.effect(Users, ConnectionPool.ConnectionPool).pipe(Layer.provide(DbLayer.primary))
        const orders = Layer.effect(Orders, ConnectionPool.ConnectionPool).pipe(
          Layer.provide(DbLayer.config("primary"))
        )
        expect(DbLayer.config("primary")).toBe(DbLayer.primary)
        const program = Effect.gen(function*() {
          const own = yield* ConnectionPool.ConnectionPool
          expect(yield* Users).toBe(own)
          expect(yield* Orders).toBe(own)
          yield* one
          expect(yield* fixture.processes).toHaveLength(1)
          return own
        }).pipe(
          Effect.provide(Layer.mergeAll(users, orders, DbLayer.primary)),
          Effect.provide(environment({ DB_PRIMARY_URL: text(fixture) }))
        )
        const first = yield* program
        // the next run of the program has one of its own
        expect(yield* program).not.toBe(first)
        expectAllClosed(yield* first.snapshot)
      })
    ))

  const refused: ReadonlyArray<readonly [string, Readonly<Record<string, string>>, RegExp]> = [
    ["nothing at all", {}, /"primary" is not configured: DB_PRIMARY_URL or DB_PRIMARY_HOST is missing/],
    [
      "an unknown scheme",
      { DB_PRIMARY_URL: "oracle://app:s3cret@x/y" },
      /the scheme "oracle:"; mysql: and sqlite: are/
    ],
    ["no scheme", { DB_PRIMARY_URL: "app:s3cret@x/y" }, /DB_PRIMARY_URL has/],
    ["a malformed URL", { DB_PRIMARY_URL: "mysql://app:s3cret/@x:y/z" }, /URL is malformed/],
    ["a malformed port", { DB_PRIMARY_HOST: "x", DB_PRIMARY_PORT: "s3cret" }, /DB_PRIMARY_PORT has a value/],
    ["a pool size of 0", { DB_PRIMARY_HOST: "x", DB_PRIMARY_POOL_SIZE: "0" }, /poolSize must be .* not 0/],
    ["a fractional pool size", { DB_PRIMARY_URL: "sqlite:", DB_PRIMARY_POOL_SIZE: "1.5" }, /not 1\.5/],
    [
      "minimumIdle above the maximum",
      { DB_PRIMARY_URL: "sqlite:", DB_PRIMARY_POOL_SIZE: "2", DB_PRIMARY_MINIMUM_IDLE: "3" },
      /minimumIdle must be at most poolSize \(2\), not 3/
    ]
  ]
  it.live.each(refused)("refuses %s", ([, variables, says]) =>
    Effect.gen(function*() {
      const error = yield* failure(Effect.scoped(Layer.build(DbLayer.config("primary"))))
      expect(error._tag).toBe("InvalidConfig")
      expect(error.message).toMatch(says)
      expect(error.message).not.toContain("s3cret")
    }).pipe(Effect.provide(environment(variables))))

  it.live("refuses a name that cannot be a variable's", () =>
    Effect.gen(function*() {
      const error = yield* failure(Effect.scoped(Layer.build(DbLayer.config("my db"))))
      expect(error.message).toContain("\"my db\" cannot be the name of a database")
    }))
})

describe("fromPool", () => {
  it.live("gives databases on a pool that exists, which share its connections and leave it open", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const pool = yield* DbLayer.mysqlPool({ url: fixture.url, poolSize: 2, name: "shared" })
        const id = Effect.flatMap(Db.Db, (db) => db.value("SELECT CONNECTION_ID()"))
        const layer = DbLayer.fromPool(pool)
        const [first, second] = [yield* Effect.provide(id, layer), yield* Effect.provide(id, DbLayer.fromPool(pool))]
        // the fiber is the same, so is its connection, whichever database asks
        expect(second).toEqual(first)
        expect(yield* Effect.provide(ConnectionPool.ConnectionPool, layer)).toBe(pool)
        // a session of the one is joined by the other
        const other = Db.make(pool)
        yield* Effect.provide(
          Effect.flatMap(Db.Db, (db) =>
            db.session(Effect.gen(function*() {
              yield* db.execute("SET @x = 7")
              expect(yield* Effect.timeout(other.value("SELECT @x"), "5 seconds")).toEqual(Option.some(7))
            }))),
          layer
        )
        expect(yield* pool.snapshot).toMatchObject({ phase: "Open", created: 1, pool: "shared" })
        return pool
      }).pipe(Effect.scoped, Effect.flatMap((pool) => Effect.map(pool.snapshot, expectAllClosed)))
    ))

  it.live("on SQLite as well", () =>
    Effect.gen(function*() {
      const pool = yield* DbLayer.sqlitePool({ filename: ":memory:" })
      yield* Effect.provide(one, DbLayer.fromPool(pool))
      expect(yield* Effect.provide(one, DbLayer.fromPool(pool))).toEqual(Option.some(1))
      expect(yield* pool.snapshot).toMatchObject({ phase: "Open", created: 1 })
    }).pipe(Effect.scoped))
})

describe("a program", () => {
  it.live("that fails or dies, or whose other layers cannot be built, leaves nothing open", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const layer = DbLayer.mysql({ url: fixture.url, minimumIdle: 1, drainTimeout: "20 seconds" })
        const ends: ReadonlyArray<Effect.Effect<never, unknown>> = [
          Effect.fail("failed"),
          Effect.die("died"),
          Effect.interrupt
        ]
        for (const end of ends) {
          yield* Effect.exit(Effect.provide(Effect.zipRight(one, end), layer))
          yield* expectNoneLeft(fixture)
        }
        const other = Layer.effectDiscard(Effect.zipRight(one, Effect.fail("cannot be built"))).pipe(
          Layer.provideMerge(layer)
        )
        expect(yield* failure(Effect.provide(one, other))).toBe("cannot be built")
        yield* expectNoneLeft(fixture)
      })
    ))

  it.live("with a ManagedRuntime borrows for each run, and closes all when it is disposed", () =>
    withFixture((fixture) =>
      Effect.promise(async () => {
        const runtime = ManagedRuntime.make(DbLayer.mysql({ url: fixture.url, poolSize: 2 }))
        const pool = await runtime.runPromise(ConnectionPool.ConnectionPool)
        try {
          const found = await Promise.all(Array.from({ length: 20 }, () => runtime.runPromise(one)))
          expect(found).toEqual(Array.from({ length: 20 }, () => Option.some(1)))
          expect(await Effect.runPromise(pool.snapshot)).toMatchObject({ held: 0, waiting: 0 })
        } finally {
          await runtime.dispose()
        }
        expectAllClosed(await Effect.runPromise(pool.snapshot))
      })
    ))
})
