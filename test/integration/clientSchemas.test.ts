/** Queries with schemas, and models with times, as on the field's own client. */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as Model from "@effect/sql/Model"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlSchema from "@effect/sql/SqlSchema"
import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { camelToSnake, snakeToCamel } from "effect/String"
import { execute, onBoth, onBothWith, outcome, places } from "../support/clientPrograms.js"

const Fruit = Schema.Struct({ id: Schema.Number, name: Schema.NonEmptyString, price: Schema.NumberFromString })
const Range = Schema.Struct({ from: Schema.NumberFromString, to: Schema.NumberFromString })

const queries = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* execute(
    "CREATE TABLE fruits (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL, price VARCHAR(20) NOT NULL)",
    "INSERT INTO fruits VALUES (1, 'apple', '1.5'), (2, 'pear', '2'), (3, 'plum', '0.25'), (4, '', 'free')"
  )
  const between = (range: { readonly from: string; readonly to: string }) =>
    sql`SELECT id, name, price FROM fruits WHERE id BETWEEN ${Number(range.from)} AND ${Number(range.to)} ORDER BY id`
  return {
    findAll: SqlSchema.findAll({ Request: Range, Result: Fruit, execute: between }),
    findOne: SqlSchema.findOne({ Request: Range, Result: Fruit, execute: between }),
    single: SqlSchema.single({ Request: Range, Result: Fruit, execute: between }),
    reprice: SqlSchema.void({
      Request: Fruit,
      execute: ({ id, ...rest }) => sql`UPDATE fruits SET ${sql.update(rest)} WHERE id = ${id}`
    })
  }
})

describe.each(places)("a query with schemas %s", (_, run) => {
  it.live("encodes its request and decodes every row", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { findAll, findOne, reprice, single } = yield* queries
        yield* reprice({ id: 2, name: "quince", price: 12.75 })
        return {
          all: yield* findAll({ from: 2, to: 3 }),
          none: yield* findAll({ from: 7, to: 9 }),
          one: yield* findOne({ from: 2, to: 3 }),
          noOne: yield* findOne({ from: 7, to: 9 }),
          single: yield* single({ from: 1, to: 3 })
        }
      }))
      const [quince, plum] = [{ id: 2, name: "quince", price: 12.75 }, { id: 3, name: "plum", price: 0.25 }]
      expect(found).toEqual({
        all: [quince, plum],
        none: [],
        one: Option.some(quince),
        noOne: Option.none(),
        single: { id: 1, name: "apple", price: 1.5 }
      })
    }))

  it.live("fails with ParseError, NoSuchElementException or SqlError, each where it belongs", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const { findAll, reprice, single } = yield* queries
        const sql = yield* SqlClient.SqlClient
        const misspelt = SqlSchema.findAll({
          Request: Schema.Void,
          Result: Fruit,
          execute: () => sql`SELECT nothing FROM fruits`
        })
        const tagOf = (error: { readonly _tag: string }) => error._tag
        return [
          yield* Effect.map(Effect.flip(findAll({ from: 3, to: 4 })), tagOf),
          yield* Effect.map(Effect.flip(reprice({ id: 2, name: "", price: 1 })), tagOf),
          yield* Effect.map(Effect.flip(single({ from: 7, to: 9 })), tagOf),
          yield* outcome(misspelt()),
          yield* sql`SELECT name FROM fruits WHERE id = 2`
        ]
      }))
      expect(found).toEqual([
        "ParseError",
        "ParseError",
        "NoSuchElementException",
        { tag: "SqlError", message: "Failed to execute statement" },
        [{ name: "pear" }]
      ])
    }))

  it.live("stores the fields of a union of models by their kind", () =>
    Effect.gen(function*() {
      class Circle extends Model.Class<Circle>("Circle")({ kind: Schema.Literal("circle"), radius: Schema.Number }) {}
      class Text extends Model.Class<Text>("Text")({
        kind: Schema.Literal("text"),
        words: Model.JsonFromString(Schema.Array(Schema.String))
      }) {}
      const Shape = Model.Union(Circle, Text)
      const found = yield* run(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* execute("CREATE TABLE shapes (kind VARCHAR(10) NOT NULL, radius INT, words TEXT)")
        const add = SqlSchema.void({
          Request: Shape.insert,
          execute: (shape) => sql`INSERT INTO shapes ${sql.insert(shape)}`
        })
        const list = SqlSchema.findAll({
          Request: Schema.String,
          Result: Shape,
          execute: (kind) => sql`SELECT * FROM shapes WHERE kind = ${kind}`
        })
        yield* add(Circle.insert.make({ kind: "circle", radius: 3 }))
        yield* add(Text.insert.make({ kind: "text", words: ["a", "b"] }))
        return [...(yield* list("circle")), ...(yield* list("text"))].map((shape) =>
          shape instanceof Circle ? shape.radius : shape.words
        )
      }))
      expect(found).toEqual([3, ["a", "b"]])
    }))
})

/** Instants that exist once in every zone, since the field's client writes and reads the local time of the process. */
class Event extends Model.Class<Event>("Event")({
  id: Model.Generated(Schema.Number),
  at: Model.DateTimeFromDate,
  created: Model.DateTimeInsertFromDate,
  updated: Model.DateTimeUpdateFromDate,
  ended: Model.FieldOption(Model.DateTimeFromDate)
}) {}

const winter = DateTime.unsafeMake("2024-01-15T12:34:56.789Z")
const summer = DateTime.unsafeMake("2025-07-15T00:30:00.001Z")

describe("times as Date on MySQL, as with MysqlClient.layer", () => {
  it.live("come back as the instants they were, through a repository", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(Effect.gen(function*() {
        yield* execute(
          `CREATE TABLE events (
            id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(3) NOT NULL, created DATETIME(3) NOT NULL,
            updated DATETIME(3) NOT NULL, ended DATETIME(3)
          )`
        )
        const table = { tableName: "events", spanPrefix: "Events", idColumn: "id" } as const
        const events = yield* Model.makeRepository(Event, table)
        const texts = ({ at, created, ended, updated }: Event) =>
          [at, created, updated, ...Option.toArray(ended)].map(DateTime.formatIso)
        const { created: _, ...first } = yield* events.insert(Event.insert.make({
          at: winter,
          created: Model.Override(summer),
          updated: Model.Override(winter),
          ended: Option.none()
        }))
        yield* events.updateVoid(
          Event.update.make({ ...first, updated: Model.Override(summer), ended: Option.some(winter) })
        )
        const sql = yield* SqlClient.SqlClient
        return [
          texts(yield* Effect.flatten(events.findById(1))),
          yield* sql`SELECT id FROM events WHERE at = ${DateTime.toDate(winter)} AND updated > ${
            DateTime.toDate(winter)
          }`
        ]
      }))
      const [before, after] = ["2024-01-15T12:34:56.789Z", "2025-07-15T00:30:00.001Z"]
      expect(found).toEqual([[before, after, after, before], [{ id: 1 }]])
    }))

  it.live("the two tags are one client", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(Effect.gen(function*() {
        const mysql = yield* MysqlClient.MysqlClient
        const rows = yield* mysql`SELECT ${"é"} AS text, ${1} + 1 AS two`
        return [mysql === (yield* SqlClient.SqlClient), rows]
      }))
      expect(found).toEqual([true, [{ text: "é", two: 2 }]])
    }))
})

class Member extends Model.Class<Member>("Member")({
  memberId: Model.Generated(Schema.Number),
  firstName: Schema.String,
  isActive: Model.BooleanFromNumber
}) {}

describe("names that differ between program and database on MySQL, as with MysqlClient.layer", () => {
  it.live("are translated both ways, also where several results come at once", () =>
    Effect.gen(function*() {
      const found = yield* onBothWith(
        ({ url }) => ({ url, transformQueryNames: camelToSnake, transformResultNames: snakeToCamel }),
        () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            yield* execute(
              "CREATE TABLE team_members (member_id INT AUTO_INCREMENT PRIMARY KEY, first_name TEXT, is_active TINYINT(1))"
            )
            const table = { tableName: "teamMembers", spanPrefix: "Members", idColumn: "memberId" } as const
            const members = yield* Model.makeRepository(Member, table)
            yield* members.insertVoid(Member.insert.make({ firstName: "Ada", isActive: true }))
            const inserted = yield* members.insert(Member.insert.make({ firstName: "Bob", isActive: false }))
            const both = sql`SELECT 1 AS first_one; SELECT 2 AS second_one, 3 AS third_one`
            return {
              inserted,
              found: Option.map(yield* members.findById(1), ({ firstName }) => firstName),
              several: yield* both.unprepared,
              plain: yield* sql.withoutTransforms()`SELECT first_name FROM team_members ORDER BY member_id`
            }
          })
      )
      expect(found).toEqual({
        inserted: new Member({ memberId: 2, firstName: "Bob", isActive: false }),
        found: Option.some("Ada"),
        several: [[{ firstOne: 1 }], [{ secondOne: 2, thirdOne: 3 }]],
        plain: [{ first_name: "Ada" }, { first_name: "Bob" }]
      })
    }))
})
