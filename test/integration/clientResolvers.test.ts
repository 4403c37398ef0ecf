/** Batched requests of `@effect/sql`: resolvers, data loaders, and both within transactions. */
import * as RequestResolverX from "@effect/experimental/RequestResolver"
import * as Model from "@effect/sql/Model"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlResolver from "@effect/sql/SqlResolver"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { execute, onDialect, places, summary } from "../support/clientPrograms.js"

const Person = Schema.Struct({ id: Schema.Number, name: Schema.String })
const Order = Schema.Struct({ id: Schema.Number, person: Schema.Number, item: Schema.String })

/** The resolvers of a small shop, and how large every batch was. */
const shop = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* execute(
    "CREATE TABLE people (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)",
    "CREATE TABLE orders (id INT PRIMARY KEY, person INT NOT NULL, item VARCHAR(20) NOT NULL)",
    "INSERT INTO people VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Cy')",
    "INSERT INTO orders VALUES (1, 1, 'pen'), (2, 1, 'ink'), (3, 3, 'map')"
  )
  const batches: Array<readonly [string, number]> = []
  const counted = <A, E>(what: string, requests: ReadonlyArray<unknown>, effect: Effect.Effect<A, E>) =>
    Effect.suspend(() => {
      batches.push([what, requests.length])
      return effect
    })
  const byId = yield* SqlResolver.findById("byId", {
    Id: Schema.Number,
    Result: Person,
    ResultId: ({ id }) => id,
    execute: (ids) => counted("byId", ids, sql`SELECT * FROM people WHERE ${sql.in("id", ids)}`)
  })
  const ordersOf = yield* SqlResolver.grouped("ordersOf", {
    Request: Schema.Number,
    RequestGroupKey: (person) => person,
    Result: Order,
    ResultGroupKey: ({ person }) => person,
    execute: (ids) => counted("ordersOf", ids, sql`SELECT * FROM orders WHERE ${sql.in("person", ids)} ORDER BY id`)
  })
  const upper = yield* SqlResolver.ordered("upper", {
    Request: Schema.NumberFromString,
    Result: Schema.Struct({ upper: Schema.String }),
    // one row for each request that has a person
    execute: (ids) =>
      counted("upper", ids, sql`SELECT UPPER(name) AS upper FROM people WHERE ${sql.in("id", ids)} ORDER BY id`)
  })
  const insert = yield* SqlResolver.void("insert", {
    Request: Person,
    execute: (people) => counted("insert", people, sql`INSERT INTO people ${sql.insert(people)}`)
  })
  return { sql, batches, byId, ordersOf, upper, insert }
})

const all = <I, A, E, R>(inputs: ReadonlyArray<I>, execute: (input: I) => Effect.Effect<A, E, R>) =>
  Effect.forEach(inputs, execute, { batching: true })

const [ada, bob, cy] = [{ id: 1, name: "Ada" }, { id: 2, name: "Bob" }, { id: 3, name: "Cy" }]

describe.each(places)("resolvers %s", (_, run) => {
  it.live("ask once for a batch", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { batches, byId, insert, ordersOf, upper } = yield* shop
        const answers = {
          byId: yield* all([3, 9, 1], byId.execute),
          ordersOf: yield* all([1, 2, 3], ordersOf.execute),
          upper: yield* all([1, 2, 3], upper.execute),
          insert: yield* all([{ id: 4, name: "Di" }, { id: 5, name: "O'Ed" }], insert.execute),
          inserted: yield* all([4, 5], byId.execute)
        }
        return { ...answers, batches }
      }))
      expect(found).toEqual({
        byId: [Option.some(cy), Option.none(), Option.some(ada)],
        ordersOf: [
          [{ id: 1, person: 1, item: "pen" }, { id: 2, person: 1, item: "ink" }],
          [],
          [{ id: 3, person: 3, item: "map" }]
        ],
        upper: [{ upper: "ADA" }, { upper: "BOB" }, { upper: "CY" }],
        insert: [undefined, undefined],
        inserted: [Option.some({ id: 4, name: "Di" }), Option.some({ id: 5, name: "O'Ed" })],
        batches: [["byId", 3], ["ordersOf", 3], ["upper", 3], ["insert", 2], ["byId", 2]]
      })
    }))

  it.live("of several kinds, in one batch, keep their answers apart", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { batches, byId, ordersOf } = yield* shop
        const answers = yield* Effect.all(
          [all([1, 2], byId.execute), all([3, 1], ordersOf.execute), byId.execute(3)],
          { batching: true, concurrency: "unbounded" }
        )
        return [answers, [...batches].sort()] as const
      }))
      expect(found).toEqual([
        [
          [Option.some(ada), Option.some(bob)],
          [[{ id: 3, person: 3, item: "map" }], [
            { id: 1, person: 1, item: "pen" },
            { id: 2, person: 1, item: "ink" }
          ]],
          Option.some(cy)
        ],
        [["byId", 3], ["ordersOf", 2]]
      ])
    }))

  it.live("fail every request of a batch that failed", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { insert, sql, upper } = yield* shop
        const short = yield* all([1, 9], (id) => Effect.exit(upper.execute(id)))
        const twice = yield* all([{ id: 7, name: "Flo" }, ada], (row) => Effect.exit(insert.execute(row)))
        return [short.map(summary), twice.map(summary), yield* sql`SELECT COUNT(*) AS people FROM people`]
      }))
      const failed = { tag: "SqlError", message: "Failed to execute statement" }
      const mismatch = expect.objectContaining({ tag: "ResultLengthMismatch" })
      // one statement: either all of its rows or none
      expect(found).toEqual([[mismatch, mismatch], [failed, failed], [{ people: 3 }]])
    }))

  it.live("see what only their transaction can see, until it is rolled back", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { batches, byId, insert, ordersOf, sql, upper } = yield* shop
        const inside = yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
          yield* all([{ id: 4, name: "Di" }, { id: 5, name: "Ed" }], insert.execute)
          yield* sql`INSERT INTO orders VALUES (4, 5, 'cup')`
          yield* sql`UPDATE people SET name = 'Adele' WHERE id = 1`
          return yield* Effect.fail([
            yield* all([1, 5], byId.execute),
            yield* all([4, 5], ordersOf.execute),
            yield* all([1, 4], upper.execute)
          ])
        })))
        const after = [yield* all([1, 5], byId.execute), yield* all([4, 5], ordersOf.execute)]
        return { inside, after, batches }
      }))
      expect(found).toEqual({
        inside: [
          [Option.some({ id: 1, name: "Adele" }), Option.some({ id: 5, name: "Ed" })],
          [[], [{ id: 4, person: 5, item: "cup" }]],
          [{ upper: "ADELE" }, { upper: "DI" }]
        ],
        after: [[Option.some(ada), Option.none()], [[], []]],
        batches: [["insert", 2], ["byId", 2], ["ordersOf", 2], ["upper", 2], ["byId", 2], ["ordersOf", 2]]
      })
    }))

  it.live("run in the nested transaction that they are asked in", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { byId, insert, sql } = yield* shop
        const found = yield* sql.withTransaction(Effect.gen(function*() {
          yield* all([{ id: 4, name: "Di" }], insert.execute)
          const nested = yield* Effect.either(sql.withTransaction(Effect.gen(function*() {
            yield* all([{ id: 5, name: "Ed" }], insert.execute)
            return yield* Effect.fail(yield* all([4, 5], byId.execute))
          })))
          return [nested, yield* all([4, 5], byId.execute)] as const
        }))
        return [...found, yield* sql`SELECT id FROM people ORDER BY id`]
      }))
      const di = Option.some({ id: 4, name: "Di" })
      expect(found).toEqual([
        Either.left([di, Option.some({ id: 5, name: "Ed" })]),
        [di, Option.none()],
        [{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4 }]
      ])
    }))

  it.live("through a data loader gather what several fibers ask, outside of a transaction made later", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const { batches, byId, sql } = yield* shop
          const outside = byId.makeExecute(yield* RequestResolverX.dataLoader(byId, { window: "20 millis" }))
          const gathered = yield* Effect.forEach([1, 2, 9], outside, { concurrency: "unbounded" })
          const gatheredIn = [...batches]
          const inside = yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
            yield* sql`UPDATE people SET name = 'Adele' WHERE id = 1`
            const own = byId.makeExecute(yield* RequestResolverX.dataLoader(byId, { window: "5 millis" }))
            return yield* Effect.fail(yield* Effect.forEach([1, 2], own, { concurrency: "unbounded" }))
          })))
          return { gathered, gatheredIn, inside, after: yield* outside(1) }
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual({
        gathered: [Option.some(ada), Option.some(bob), Option.none()],
        gatheredIn: [["byId", 3]],
        inside: [Option.some({ id: 1, name: "Adele" }), Option.some(bob)],
        after: Option.some(ada)
      })
    }))

  it.live("of a loader from before the transaction do not see into it", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const { byId, sql } = yield* shop
          const before = byId.makeExecute(yield* RequestResolverX.dataLoader(byId, { window: "5 millis" }))
          return yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
            yield* sql`UPDATE people SET name = 'Adele' WHERE id = 1`
            return yield* Effect.fail([yield* before(1), yield* byId.execute(1)])
          })))
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual([Option.some(ada), Option.some({ id: 1, name: "Adele" })])
    }))
})

class Fruit extends Model.Class<Fruit>("Fruit")({
  id: Model.Generated(Schema.Number),
  name: Schema.String,
  ripe: Model.BooleanFromNumber
}) {}

describe.each(places)("the data loaders of a model %s", (_, run) => {
  it.live("insert, find and delete what is asked at once", () =>
    Effect.gen(function*() {
      const found = yield* run(
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const id = yield* onDialect("INT AUTO_INCREMENT PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
          yield* execute(`CREATE TABLE fruits (id ${id}, name VARCHAR(20) NOT NULL, ripe SMALLINT NOT NULL)`)
          const fruits = yield* Model.makeDataLoaders(Fruit, {
            tableName: "fruits",
            spanPrefix: "Fruits",
            idColumn: "id",
            window: "5 millis",
            maxBatchSize: 20
          })
          const names = Array.from({ length: 12 }, (_, at) => `fruit ${at}`)
          const concurrently = { concurrency: "unbounded" } as const
          const inserted = yield* Effect.forEach(
            names,
            (name, at) => fruits.insert(Fruit.insert.make({ name, ripe: at % 2 === 0 })),
            concurrently
          )
          yield* Effect.forEach(
            names,
            (name) => fruits.insertVoid(Fruit.insert.make({ name: `another ${name}`, ripe: true })),
            concurrently
          )
          // which of them the database gives which id is its own affair
          const again = yield* Effect.forEach(inserted, ({ id }) => fruits.findById(id), concurrently)
          yield* Effect.forEach(inserted.slice(0, 10), ({ id }) => fruits.delete(id), concurrently)
          const left = yield* sql`SELECT name, ripe FROM fruits WHERE name NOT LIKE 'another%' ORDER BY name`
          return {
            names: inserted.map(({ name, ripe }) => [name, ripe]),
            ids: inserted.map(({ id }) => id).sort((a, b) => a - b),
            again: again.every((one, at) => Option.isSome(one) && one.value.name === names[at]),
            left,
            others: yield* sql`SELECT COUNT(*) AS others FROM fruits WHERE name LIKE 'another%'`
          }
        }).pipe(Effect.scoped)
      )
      expect(found).toEqual({
        names: Array.from({ length: 12 }, (_, at) => [`fruit ${at}`, at % 2 === 0]),
        ids: Array.from({ length: 12 }, (_, at) => at + 1),
        again: true,
        left: [{ name: "fruit 10", ripe: 1 }, { name: "fruit 11", ripe: 0 }],
        others: [{ others: 12 }]
      })
    }))
})
