/** The event journal of `@effect/experimental` on `@effect/sql`. */
import * as EventJournal from "@effect/experimental/EventJournal"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqlEventJournal from "@effect/sql/SqlEventJournal"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { onBoth, onSqlite } from "../support/clientPrograms.js"

const write = (event: string, effect: Effect.Effect<string, string> = Effect.succeed(event)) =>
  Effect.flatMap(
    EventJournal.EventJournal,
    (journal) => journal.write({ event, primaryKey: "it's", payload: Uint8Array.of(0, 39, 255), effect: () => effect })
  )

const refusal = <A, R>(effect: Effect.Effect<A, EventJournal.EventJournalError | string, R>) =>
  Effect.map(
    Effect.flip(effect),
    (error) => typeof error === "string" ? [error] : [error._tag, error.method, error.cause]
  )

const events = Effect.flatMap(EventJournal.EventJournal, ({ entries }) => entries)
const named = (entries: ReadonlyArray<EventJournal.Entry>) =>
  entries.map(({ event, payload, primaryKey }) => [event, primaryKey, [...payload]]).sort()

describe("an event journal on SQLite", () => {
  it.live("keeps what was written, unless its effect failed", () =>
    Effect.gen(function*() {
      const found = yield* onSqlite(
        Effect.gen(function*() {
          const written = [yield* write("first"), yield* write("second")]
          const failed = yield* refusal(write("third", Effect.fail("refused")))
          return { written, failed, entries: named(yield* events) }
        }).pipe(Effect.provide(SqlEventJournal.layer()))
      )
      expect(found).toEqual({
        written: ["first", "second"],
        failed: ["EventJournalError", "write", "refused"],
        entries: [["first", "it's", [0, 39, 255]], ["second", "it's", [0, 39, 255]]]
      })
    }))

  it.live("takes a remote's entries once and knows which of its own that has not", () =>
    Effect.gen(function*() {
      const found = yield* onSqlite(
        Effect.gen(function*() {
          const journal = yield* EventJournal.EventJournal
          yield* write("own")
          const remoteId = EventJournal.makeRemoteId()
          const entry = new EventJournal.Entry({
            id: EventJournal.makeEntryId(),
            event: "theirs",
            primaryKey: "key",
            payload: Uint8Array.of(1)
          })
          const seen: Array<string> = []
          const receive = journal.writeFromRemote({
            remoteId,
            entries: [new EventJournal.RemoteEntry({ remoteSequence: 4, entry })],
            effect: ({ entry }) => Effect.sync(() => void seen.push(entry.event))
          })
          yield* receive
          yield* receive
          return {
            seen,
            next: yield* journal.nextRemoteSequence(remoteId),
            own: yield* journal.withRemoteUncommited(remoteId, (entries) => Effect.succeed(named(entries))),
            all: named(yield* events)
          }
        }).pipe(Effect.provide(SqlEventJournal.layer()))
      )
      const [own, theirs] = [["own", "it's", [0, 39, 255]], ["theirs", "key", [1]]]
      expect(found).toEqual({ seen: ["theirs"], next: 5, own: [own], all: [own, theirs] })
    }))
})

describe("an event journal on MySQL, as with MysqlClient.layer", () => {
  it.live("cannot be written, for its statement is none of MySQL's, and is left empty", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(
        Effect.gen(function*() {
          const [tag, method, cause] = yield* refusal(write("first"))
          const sql = yield* SqlClient.SqlClient
          const left = yield* sql`SELECT COUNT(*) AS entries FROM effect_event_journal`
          return [tag, method, (cause as Error).message, left]
        }).pipe(Effect.provide(SqlEventJournal.layer()))
      )
      expect(found).toEqual(["EventJournalError", "write", "Failed to execute statement", [{ entries: 0 }]])
    }))
})
