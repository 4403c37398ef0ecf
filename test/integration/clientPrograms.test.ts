/** Models, repositories, data loaders and schemas of `@effect/sql`, as on the field's own client. */
import * as Model from "@effect/sql/Model"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { execute, onDialect, outcome, places } from "../support/clientPrograms.js"

const PersonId = Schema.Number.pipe(Schema.brand("PersonId"))
const TicketId = Schema.Uint8ArrayFromSelf.pipe(Schema.brand("TicketId"))

class Person extends Model.Class<Person>("Person")({
  id: Model.Generated(PersonId),
  name: Schema.NonEmptyTrimmedString,
  nickname: Model.FieldOption(Schema.String),
  active: Model.BooleanFromNumber,
  settings: Model.JsonFromString(Schema.Struct({ theme: Schema.String, tags: Schema.Array(Schema.String) })),
  secret: Model.Sensitive(Schema.Redacted(Schema.String)),
  born: Model.Date,
  createdText: Model.DateTimeInsert,
  createdNumber: Model.DateTimeInsertFromNumber,
  updatedText: Model.DateTimeUpdate,
  updatedNumber: Model.DateTimeUpdateFromNumber
}) {}

class Ticket extends Model.Class<Ticket>("Ticket")({
  id: Model.UuidV4Insert(TicketId),
  title: Schema.String
}) {}

const createPeople = Effect.gen(function*() {
  const id = yield* onDialect("BIGINT AUTO_INCREMENT PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
  const charset = yield* onDialect("CHARACTER SET utf8mb4", "")
  yield* execute(
    `CREATE TABLE people (
      id ${id}, name VARCHAR(100) NOT NULL, nickname VARCHAR(100), active SMALLINT NOT NULL, settings TEXT NOT NULL,
      secret VARCHAR(100) NOT NULL, born VARCHAR(10) NOT NULL, createdText VARCHAR(30) NOT NULL,
      createdNumber BIGINT NOT NULL, updatedText VARCHAR(30) NOT NULL, updatedNumber BIGINT NOT NULL
    ) ${charset}`
  )
})

const peopleTable = { tableName: "people", spanPrefix: "People", idColumn: "id" } as const
const people = Effect.zipRight(createPeople, Model.makeRepository(Person, peopleTable))

const moment = DateTime.unsafeMake("2024-02-29T12:34:56.789Z")
const later = DateTime.unsafeMake("2025-07-01T01:02:03.004Z")

const person = (name: string, more: Partial<typeof Person.insert.Type> = {}) =>
  Person.insert.make({
    name,
    nickname: Option.none(),
    active: true,
    settings: { theme: "dark", tags: ["a", "it's \"b\"?", "\\ü😀"] },
    secret: Redacted.make("s3cret"),
    born: DateTime.removeTime(moment),
    createdText: Model.Override(moment),
    createdNumber: Model.Override(moment),
    updatedText: Model.Override(moment),
    updatedNumber: Model.Override(moment),
    ...more
  })

/** What a person is, without classes. */
const plain = (
  { active, born, createdNumber, createdText, id, name, nickname, secret, settings, ...rest }: Person
) => ({
  id,
  name,
  nickname: Option.getOrNull(nickname),
  active,
  settings,
  secret: Redacted.value(secret),
  born: DateTime.formatIso(born),
  created: [DateTime.formatIso(createdText), DateTime.formatIso(createdNumber)],
  updated: [DateTime.formatIso(rest.updatedText), DateTime.formatIso(rest.updatedNumber)]
})

const ada = {
  id: 1,
  name: "Ada",
  nickname: null,
  active: true,
  settings: { theme: "dark", tags: ["a", "it's \"b\"?", "\\ü😀"] },
  secret: "s3cret",
  born: "2024-02-29T00:00:00.000Z",
  created: ["2024-02-29T12:34:56.789Z", "2024-02-29T12:34:56.789Z"],
  updated: ["2024-02-29T12:34:56.789Z", "2024-02-29T12:34:56.789Z"]
}

describe.each(places)("a repository %s", (_, run) => {
  it.live("inserts with the ids that the database gives", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const repository = yield* people
        const first = yield* repository.insert(person("Ada"))
        const second = yield* repository.insert(
          person("Bob", { nickname: Option.some("Bobby"), active: false, settings: { theme: "", tags: [] } })
        )
        return [first instanceof Person, plain(first), plain(second)]
      }))
      expect(found).toEqual([
        true,
        ada,
        { ...ada, id: 2, name: "Bob", nickname: "Bobby", active: false, settings: { theme: "", tags: [] } }
      ])
    }))

  it.live("updates what may be updated and gives the row as it is", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const repository = yield* people
        const { createdNumber: _n, createdText: _t, ...first } = yield* repository.insert(person("Ada"))
        yield* repository.insertVoid(person("Bob"))
        const updated = yield* repository.update(Person.update.make({
          ...first,
          name: "Ada L.",
          nickname: Option.some("Countess"),
          updatedText: Model.Override(later),
          updatedNumber: Model.Override(later)
        }))
        yield* repository.updateVoid(Person.update.make({
          ...first,
          active: false,
          updatedText: Model.Override(moment),
          updatedNumber: Model.Override(later)
        }))
        const all = yield* Effect.forEach([1, 2], (id) => repository.findById(PersonId.make(id)))
        return [plain(updated), ...all.map(Option.map(plain))]
      }))
      const [iso, before] = ["2025-07-01T01:02:03.004Z", "2024-02-29T12:34:56.789Z"]
      expect(found).toEqual([
        { ...ada, name: "Ada L.", nickname: "Countess", updated: [iso, iso] },
        Option.some({ ...ada, active: false, updated: [before, iso] }),
        Option.some({ ...ada, id: 2, name: "Bob" })
      ])
    }))

  it.live("finds, deletes, and finds no more", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const repository = yield* people
        yield* repository.insertVoid(person("Ada"))
        yield* repository.insertVoid(person("Bob"))
        const look = Effect.forEach([1, 2, 3], (id) =>
          Effect.map(repository.findById(PersonId.make(id)), Option.map(({ name }) => name)))
        const before = yield* look
        yield* repository.delete(PersonId.make(1))
        yield* repository.delete(PersonId.make(3))
        return [before, yield* look]
      }))
      expect(found).toEqual([
        [Option.some("Ada"), Option.some("Bob"), Option.none()],
        [Option.none(), Option.some("Bob"), Option.none()]
      ])
    }))

  it.live("takes the time of an insert and of an update from the clock, unless told", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const repository = yield* people
        const start = yield* DateTime.now
        const { createdNumber, createdText, ...rest } = yield* repository.insert(
          Person.insert.make({
            ...person("Ada"),
            createdText: undefined,
            createdNumber: undefined,
            updatedText: undefined,
            updatedNumber: undefined
          })
        )
        const between = yield* DateTime.now
        const updated = yield* repository.update(
          Person.update.make({ ...rest, updatedText: undefined, updatedNumber: undefined })
        )
        const end = yield* DateTime.now
        return [
          [createdText, createdNumber, rest.updatedText, rest.updatedNumber].map(
            DateTime.between({ minimum: start, maximum: between })
          ),
          [updated.updatedText, updated.updatedNumber].map(DateTime.between({ minimum: between, maximum: end })),
          DateTime.Equivalence(updated.createdText, createdText)
        ]
      }))
      expect(found).toEqual([[true, true, true, true], [true, true], true])
    }))

  it.live("rolls back with the transaction it runs in", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const repository = yield* people
        const bob = Effect.map(repository.findById(PersonId.make(2)), Option.map(({ name }) => name))
        yield* repository.insertVoid(person("Ada"))
        const inside = yield* Effect.flip(sql.withTransaction(Effect.gen(function*() {
          yield* repository.insert(person("Bob"))
          return yield* Effect.fail(yield* bob)
        })))
        return [inside, yield* bob]
      }))
      expect(found).toEqual([Option.some("Bob"), Option.none()])
    }))

  it.live("dies of a duplicate and of a row that is not as the model says", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const repository = yield* people
        yield* execute("CREATE UNIQUE INDEX people_name ON people (name)")
        yield* repository.insertVoid(person("Ada"))
        const duplicate = yield* outcome(repository.insertVoid(person("Ada")))
        const inserted = yield* outcome(repository.insert(person("Ada")))
        yield* execute("UPDATE people SET active = 2")
        const malformed = yield* outcome(Effect.asVoid(repository.findById(PersonId.make(1))))
        return [duplicate, inserted, { ...malformed, message: undefined }]
      }))
      const failed = { tag: "SqlError", message: "Failed to execute statement" }
      expect(found).toEqual([failed, failed, { tag: "ParseError", message: undefined }])
    }))

  it.live("keeps binary ids", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        yield* execute("CREATE TABLE tickets (id BINARY(16) PRIMARY KEY, title TEXT NOT NULL)")
        const repository = yield* Model.makeRepository(Ticket, {
          tableName: "tickets",
          spanPrefix: "Tickets",
          idColumn: "id"
        })
        const id = TicketId.make(Buffer.from("000102fffe27005c80ff00ff00ff00ff", "hex"))
        yield* repository.insertVoid(Ticket.insert.make({ id: Model.Override(id), title: "told" }))
        yield* repository.insertVoid(Ticket.insert.make({ title: "made" }))
        const updated = yield* repository.update(Ticket.update.make({ id, title: "told again" }))
        const sql = yield* SqlClient.SqlClient
        const made = yield* sql<{ id: Uint8Array }>`SELECT id FROM tickets WHERE title = 'made'`
        const again = yield* repository.findById(TicketId.make(made[0]!.id))
        return {
          updated: [Buffer.from(updated.id).toString("hex"), updated.title],
          found: Option.map(yield* repository.findById(id), ({ title }) => title),
          made: [made[0]!.id.length, made[0]!.id[6]! >> 4, Option.map(again, ({ title }) => title)]
        }
      }))
      expect(found).toEqual({
        updated: ["000102fffe27005c80ff00ff00ff00ff", "told again"],
        found: Option.some("told again"),
        made: [16, 4, Option.some("made")]
      })
    }))
})
