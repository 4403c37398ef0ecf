/** The runner storage of `@effect/cluster` on `@effect/sql`, as on the field's own client. */
import * as Runner from "@effect/cluster/Runner"
import * as RunnerAddress from "@effect/cluster/RunnerAddress"
import * as RunnerStorage from "@effect/cluster/RunnerStorage"
import * as ShardId from "@effect/cluster/ShardId"
import * as ShardingConfig from "@effect/cluster/ShardingConfig"
import * as SqlRunnerStorage from "@effect/cluster/SqlRunnerStorage"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { onBoth, onDialect, places } from "../support/clientPrograms.js"
import { eventually } from "../support/dbFixture.js"

const addresses = [RunnerAddress.make("runner-one", 1), RunnerAddress.make("runner-two", 2)] as const
const [one, two] = addresses
const runner = (address: RunnerAddress.RunnerAddress, weight = 1) =>
  Runner.make({ address, groups: ["default"], weight })

const shards = (...ids: ReadonlyArray<number>) => ids.map((id) => ShardId.make("default", id))
const idsOf = (found: ReadonlyArray<ShardId.ShardId>) => found.map(({ id }) => id).sort((a, b) => a - b)

type Storage = RunnerStorage.RunnerStorage["Type"]

/**
 * One process of the cluster, until its scope is closed. Its locks are named for the schema, since those of MySQL are of
 * the whole server.
 */
const joining = (disableAdvisory: boolean) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const [schema] = yield* (yield* onDialect(sql`SELECT DATABASE() AS name`, sql`SELECT 'own' AS name`))
    const layer = SqlRunnerStorage.layerWith({ prefix: String(schema!["name"]) }).pipe(
      Layer.provide(ShardingConfig.layer({ shardsPerGroup: 6, shardLockDisableAdvisory: disableAdvisory }))
    )
    return Context.get(yield* Layer.build(Layer.fresh(layer)), RunnerStorage.RunnerStorage)
  })

const take = (storage: Storage, address: RunnerAddress.RunnerAddress, ...ids: ReadonlyArray<number>) =>
  Effect.map(storage.acquire(address, shards(...ids)), idsOf)
const refresh = (storage: Storage, address: RunnerAddress.RunnerAddress, ...ids: ReadonlyArray<number>) =>
  Effect.map(storage.refresh(address, shards(...ids)), idsOf)

const kinds = places.flatMap(([where, run, dialect]) =>
  (dialect === "mysql" ? [false, true] : [true]).map((disableAdvisory) =>
    [`${disableAdvisory ? "a table of locks" : "the server's locks"} ${where}`, run, disableAdvisory] as const
  )
)

describe.each(kinds)("the runner storage of a cluster with %s", (_, run, disableAdvisory) => {
  it.live("registers runners, tells how they are, and forgets them", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const storage = yield* joining(disableAdvisory)
          const list = Effect.map(
            storage.getRunners,
            (all) => all.map(([{ address, weight }, healthy]) => [address.host, weight, healthy]).sort()
          )
          const ids = [
            yield* storage.register(runner(one), true),
            yield* storage.register(runner(two), true),
            yield* storage.register(runner(one, 3), true)
          ]
          const lists = [yield* list]
          yield* storage.setRunnerHealth(two, false)
          lists.push(yield* list)
          yield* storage.unregister(one)
          lists.push(yield* list)
          return { ids, lists }
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual({
        ids: [1, 2, 1],
        lists: [
          [["runner-one", 3, true], ["runner-two", 1, true]],
          [["runner-one", 3, true], ["runner-two", 1, false]],
          [["runner-two", 1, false]]
        ]
      })
    }))

  it.live("gives a shard to one runner, until that lets go of it", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const [first, second] = [yield* joining(disableAdvisory), yield* joining(disableAdvisory)]
          yield* first.register(runner(one), true)
          yield* second.register(runner(two), true)
          const steps = [
            yield* take(first, one, 1, 2, 3),
            yield* take(second, two, 2, 3, 4),
            yield* take(first, one, 1, 4),
            yield* refresh(first, one, 1, 2, 3),
            yield* refresh(second, two, 4)
          ]
          yield* first.release(one, ShardId.make("default", 2))
          steps.push(yield* take(second, two, 1, 2))
          yield* first.releaseAll(one)
          steps.push(yield* take(second, two, 1, 3), yield* take(first, one, 1, 2, 3, 4, 5))
          return steps
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual([[1, 2, 3], [4], [1], [1, 2, 3], [4], [2], [1, 3], [5]])
    }))

  it.live("gives the shards to those who ask at once, each to one", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const storages = [yield* joining(disableAdvisory), yield* joining(disableAdvisory)]
          const taken = yield* Effect.forEach(
            storages,
            (storage, at) => take(storage, addresses[at]!, 1, 2, 3, 4, 5, 6),
            { concurrency: "unbounded" }
          )
          return taken.flat().sort((a, b) => a - b)
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual([1, 2, 3, 4, 5, 6])
    }))
})

const holder = (storage: Storage, shard: number) =>
  Effect.gen(function*() {
    yield* take(storage, one, shard)
    const sql = yield* SqlClient.SqlClient
    const [row] = yield* sql<{ id: number | null }>`
      SELECT IS_USED_LOCK(CONCAT(DATABASE(), '.default:', CAST(${shard} AS CHAR))) AS id
    `
    return row!.id
  })

describe("the reserved connection of the server's locks on MySQL, as with MysqlClient.layer", () => {
  it.live("is given back with the storage, without them", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const first = yield* Scope.extend(joining(false), scope)
          const second = yield* joining(false)
          const before = [yield* take(first, one, 1, 2), yield* take(second, two, 1, 2)]
          yield* Scope.close(scope, Exit.void)
          return [before, yield* take(second, two, 1, 2)]
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual([[[1, 2], []], [1, 2]])
    }))

  it.live("is none that others get while it is held", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const storage = yield* joining(false)
          const lock = yield* holder(storage, 1)
          const sql = yield* SqlClient.SqlClient
          // as many at once as the pool has beside it
          const others: Array<number> = []
          const all = yield* Deferred.make<void>()
          const other = Effect.gen(function*() {
            const [row] = yield* sql<{ id: number }>`SELECT CONNECTION_ID() AS id`
            others.push(row!.id)
            yield* others.length === 9 ? Deferred.succeed(all, undefined) : Deferred.await(all)
          })
          yield* Effect.all(Array.from({ length: 9 }, () => sql.withTransaction(other)), { concurrency: "unbounded" })
          return [typeof lock, new Set(others).size, others.includes(lock!), yield* take(storage, one, 1)]
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual(["number", 9, false, [1]])
    }))

  it.live("is replaced after it was lost", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const storage = yield* joining(false)
          const sql = yield* SqlClient.SqlClient
          const lost = yield* holder(storage, 1)
          yield* sql.unsafe(`KILL ${lost}`)
          const failed = yield* Effect.exit(take(storage, one, 1))
          yield* eventually(
            "the shards are to be had again",
            Effect.map(Effect.exit(take(storage, one, 1, 2)), Exit.isSuccess)
          )
          const now = yield* holder(storage, 1)
          return [failed._tag, now !== lost, yield* take(storage, one, 1, 2, 3)]
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual(["Failure", true, [1, 2, 3]])
    }))
})
