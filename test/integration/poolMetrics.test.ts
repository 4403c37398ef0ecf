/** The metrics of a pool on a server, through the layers: which database they name, and whose statements they count. */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolMetrics from "../../src/PoolMetrics.js"
import * as PoolStats from "../../src/PoolStats.js"
import { withDb } from "../support/dbFixture.js"
import { scrape } from "../support/scrape.js"

const duration = "db.client.operation.duration"

describe("the metrics of a pool on a server", () => {
  it.live("name the database, and count the statements of db and of the client alike", () =>
    withDb({ poolSize: 3 }, ({ database, server: { host, port } }) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient.SqlClient
        const { pool } = yield* Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
        expect(pool).toBe(`${host}:${port}/${database}`)
        yield* db.value("SELECT 1")
        yield* sql`SELECT 1`
        yield* sql.withTransaction(sql`SELECT 1`)
        yield* Stream.runDrain(sql`SELECT 1`.stream)
        yield* Effect.either(sql`SELECT * FROM nowhere`)
        yield* Effect.either(Stream.runDrain(db.stream("SELECT * FROM nowhere")))
        const { metrics, value } = yield* scrape(pool)
        const where = {
          "db.system.name": "mysql",
          "db.namespace": database,
          "server.address": host,
          "server.port": String(port)
        }
        expect(value(duration, where)).toMatchObject({ count: 4 })
        const failed = { "error.type": "SqlSyntaxError", "db.response.status_code": "1146" }
        expect(value(duration, { ...where, ...failed })).toMatchObject({ count: 2 })
        expect(metrics[duration]?.points).toHaveLength(2)
        // below a millisecond too: the clock's own steps would show as 0
        const { sum } = value(duration, where) as { readonly sum: number }
        expect(sum).toBeGreaterThan(0)
        expect(value("db.client.connection.create_time")).toMatchObject({
          count: value("effect_sql_pool.connections.created")
        })
        expect(value("db.client.connection.limit")).toBe(3)
      }).pipe(Effect.provide(PoolMetrics.layer))))

  it.live("of a named database are those of its pool, until its layer ends", () =>
    withDb({}, ({ url }) =>
      Effect.gen(function*() {
        const environment = ConfigProvider.fromMap(
          new Map([["DB_REPLICA_URL", Redacted.value(url)]])
        )
        const layer = Layer.provideMerge(PoolMetrics.layerFor("replica"), DbLayer.config("replica")).pipe(
          Layer.provide(Layer.setConfigProvider(environment))
        )
        const name = yield* Effect.gen(function*() {
          const db = yield* Db.tag("replica")
          yield* db.value("SELECT 1")
          const { max, pool } = yield* Effect.flatMap(PoolStats.tag("replica"), (stats) => stats.snapshot)
          expect((yield* scrape(pool)).value("db.client.connection.limit")).toBe(max)
          return pool
        }).pipe(Effect.provide(layer))
        const after = yield* scrape(name)
        expect(after.value("db.client.connection.limit")).toBe(0)
        expect(after.value("effect_sql_pool.connections.created")).toBe(1)
      })))
})
