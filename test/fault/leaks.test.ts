/** A connection that its borrower seems to have forgotten, on the real server: told once, with who and where. */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Logger from "effect/Logger"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import { eventually, withDb } from "../support/dbFixture.js"
import { numbers, snapshot } from "../support/dbQuestions.js"

const threshold = 60

type Holding = Effect.Effect<unknown, unknown, Db.Db | SqlClient.SqlClient>
const withService = (use: (db: Db.DbService) => Effect.Effect<unknown, unknown>): Holding =>
  Effect.gen(function*() {
    return yield* use(yield* Db.Db)
  })

const forgotten = (db: Db.DbService) =>
  Effect.scoped(Effect.gen(function* forgetful() {
    const connection = yield* db.connection
    yield* connection.value("SELECT 1")
    return yield* Effect.never
  }))

/** What was asked for is told with the lines of the program that did. */
const holders: Readonly<Record<string, readonly [holding: Holding, by: RegExp]>> = {
  "an explicit connection": [withService(forgotten), /Acquired by db\.connection\n.*leaks\.test\.ts:\d+/],
  "a session": [withService((db) => db.session(Effect.never)), /Acquired by db\.session\n.*leaks\.test\.ts:\d+/],
  "a transaction": [
    withService((db) => db.transaction(Effect.never)),
    /Acquired by db\.transaction\n.*leaks\.test\.ts:\d+/
  ],
  "a stream": [
    withService((db) =>
      Stream.runForEach(db.stream(`SELECT seq, REPEAT('x', 8000) FROM ${numbers(20_000)}`), () => Effect.never)
    ),
    /Acquired by SELECT seq.*\n.*leaks\.test\.ts:\d+/
  ],
  "a fiber whose session holds state": [
    withService((db) => Effect.zipRight(db.execute("SET @x = 1"), Effect.never)),
    /Acquired by SET @x.*\n.*leaks\.test\.ts:\d+/
  ],
  "a transaction of the client": [
    Effect.gen(function*() {
      return yield* (yield* SqlClient.SqlClient).withTransaction(Effect.never)
    }),
    /Acquired by sql\.withTransaction\n.*leaks\.test\.ts:\d+/
  ],
  "a reserved connection of the client": [
    Effect.scoped(Effect.gen(function*() {
      yield* (yield* SqlClient.SqlClient).reserve
      return yield* Effect.never
    })),
    /Acquired by sql\.reserve\n.*leaks\.test\.ts:\d+/
  ]
}

/** Lets a fiber hold, and gives what was logged until it was reported, and for a while longer. */
const reportsOn = (holding: Holding, told: boolean) =>
  Effect.suspend(() => {
    const log: Array<string> = []
    const logger = Logger.make(({ message }) => void log.push(String(message)))
    return withDb({ poolSize: 2, leakDetectionThreshold: threshold }, () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(holding)
        if (told) yield* eventually("it is told", Effect.map(snapshot, ({ leaksSuspected }) => leaksSuspected > 0))
        yield* Effect.sleep(threshold * 4)
        const { leaksSuspected } = yield* snapshot
        yield* Fiber.interrupt(fiber)
        return {
          reports: log.filter((line) => line.includes("A leak is suspected")),
          leaksSuspected,
          fiber: fiber.id()
        }
      })).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
  })

describe("a connection that is held for longer than leakDetectionThreshold is told of once, with fiber and origin:", () => {
  for (const [what, [holding, by]] of Object.entries(holders)) {
    it.live(what, () =>
      Effect.gen(function*() {
        const { fiber, leaksSuspected, reports } = yield* reportsOn(holding, true)
        expect(reports).toHaveLength(1)
        expect(leaksSuspected).toBe(1)
        expect(reports[0]).toMatch(by)
        // a stream's is a fiber of its own
        if (what !== "a stream") expect(reports[0]).toContain(`fiber ${FiberId.threadName(fiber)}`)
      }))
  }
})

describe("no leak is told of", () => {
  const asked: Readonly<Record<string, Holding>> = {
    "what was asked for as long-lived": withService((db) => Db.longLived(forgotten(db))),
    "a fiber that keeps its connection clean": withService((db) => Effect.zipRight(db.value("SELECT 1"), Effect.never)),
    "short transactions, one after the other": withService((db) => Effect.forever(db.transaction(db.value("SELECT 1"))))
  }
  for (const [what, holding] of Object.entries(asked)) {
    it.live(`of ${what}`, () =>
      Effect.gen(function*() {
        expect(yield* reportsOn(holding, false)).toMatchObject({ reports: [], leaksSuspected: 0 })
      }))
  }
})
