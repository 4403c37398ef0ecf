/**
 * Transactions that are interrupted, at any of their statements: afterwards all of their work is there or none, whoever
 * goes on around them goes on, and nobody waits but for what becomes of a COMMIT.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import type { Services } from "../../src/DbLayer.js"
import { closed, interrupt, type Scene, scene } from "../support/cancellation.js"
import { eventually } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"
import type { Rule } from "../support/interceptor.js"

type Work = Effect.Effect<unknown, unknown, Services>

const createItems = ({ fixture }: Scene) =>
  fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT, part INT) ENGINE = InnoDB`)
const insert = (id: number, part: number) =>
  Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?, ?)", [id, part]))
const parts = Effect.flatMap(
  Db.Db,
  (db) => Effect.map(db.list("SELECT part FROM items ORDER BY part"), (all) => all.map(Number))
)
const whole = (id: number): Work =>
  Effect.flatMap(Db.Db, (db) => db.transaction(Effect.zipRight(insert(id, 1), db.transaction(insert(id, 2)))))
const wholeOfClient = (id: number): Work =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    sql.withTransaction(Effect.zipRight(
      sql`INSERT INTO items VALUES (${id}, 1)`,
      sql.withTransaction(sql`INSERT INTO items VALUES (${id}, 2)`)
    )))

/** What is sent without being prepared begins with the number of its command. */
const textOf = (name: string): string => name === "SAVEPOINT" ? "\u0003SAVEPOINT" : name

/** Starts the transaction and interrupts it as soon as the rule has been applied. */
const interruptedAt = (stage: Scene, rule: Rule, transaction: Work) =>
  Effect.gen(function*() {
    const { loop, proxy } = stage
    const before = proxy.applied()
    proxy.rule({ ...rule, times: 1 })
    const running = yield* Effect.fork(transaction)
    yield* eventually(`${rule.text} was said`, Effect.sync(() => proxy.applied() === before + 1))
    const millis = yield* interrupt(running, loop)
    expect(Exit.isInterrupted(yield* Fiber.await(running))).toBe(true)
    proxy.rule(undefined)
    return millis
  })

describe("a transaction that is interrupted", () => {
  for (const name of ["START TRANSACTION", "INSERT INTO items", "SAVEPOINT", "RELEASE SAVEPOINT"]) {
    const text = textOf(name)
    // a nested one leaves the transaction around it as it found it, for which it waits as long as a cancel may take
    const [waits, most] = name.endsWith("SAVEPOINT") ? ["the undoing of the nested one", 400] : ["nothing", 100]
    for (const late of ["delay", "delayAnswer"] as const) {
      it.live(`in ${name}, whose ${late === "delay" ? "way" : "answer"} is slow, leaves nothing and waits for ${waits}`, () =>
        scene({ poolSize: 1 }, (stage) =>
          Effect.gen(function*() {
            yield* createItems(stage)
            expect(yield* interruptedAt(stage, { text, [late]: 250 }, whole(1))).toBeLessThan(most)
            expect(yield* parts).toEqual([])
            expect(yield* stage.db.value("SELECT SLEEP(0.1)")).toEqual(Option.some(0))
            yield* whole(2)
            expect(yield* parts).toEqual([1, 2])
            expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
          })))
    }
  }

  for (const late of ["delay", "delayAnswer"] as const) {
    it.live(`in COMMIT, whose ${late === "delay" ? "way" : "answer"} is slow, waits for it, and all of it is there`, () =>
      scene({ poolSize: 1 }, (stage) =>
        Effect.gen(function*() {
          yield* createItems(stage)
          const millis = yield* interruptedAt(stage, { text: "COMMIT", [late]: 200 }, whole(1))
          expect(millis).toBeLessThan(300)
          expect(yield* parts).toEqual([1, 2])
          expect(yield* snapshot).toMatchObject({ created: 1, cancelled: 0, lost: 0 })
        })))
  }

  it.live("in a COMMIT that is never answered returns when cancelTimeout is over, and none of it is there", () =>
    scene({ poolSize: 1, cancelTimeout: 300 }, (stage) =>
      Effect.gen(function*() {
        yield* createItems(stage)
        const millis = yield* interruptedAt(stage, { text: "COMMIT", instead: "swallow" }, whole(1))
        process.stdout.write(`returned after ${millis.toFixed(0)} ms of a cancelTimeout of 300\n`)
        expect(millis).toBeLessThan(350)
        yield* closed(1)
        expect(yield* parts).toEqual([])
        expect(yield* snapshot).toMatchObject({ created: 2 })
      })))

  it.live("in a COMMIT whose answer is lost returns when cancelTimeout is over, and all of it is there", () =>
    scene({ poolSize: 1, cancelTimeout: 300 }, (stage) =>
      Effect.gen(function*() {
        yield* createItems(stage)
        expect(yield* interruptedAt(stage, { text: "COMMIT", delayAnswer: 20_000 }, whole(1))).toBeLessThan(350)
        yield* closed(1)
        expect(yield* parts).toEqual([1, 2])
        expect(yield* snapshot).toMatchObject({ created: 2 })
      })))

  it.live("in the ROLLBACK after its failure waits no longer than cancelTimeout, and nothing is there", () =>
    scene({ poolSize: 1, cancelTimeout: 300 }, (stage) =>
      Effect.gen(function*() {
        yield* createItems(stage)
        const failing = stage.db.transaction(Effect.zipRight(insert(1, 1), Effect.fail("no")))
        stage.proxy.rule({ text: "ROLLBACK", instead: "swallow", times: 1 })
        const running = yield* Effect.fork(failing)
        yield* eventually("ROLLBACK was said", Effect.sync(() => stage.proxy.applied() === 1))
        expect(yield* interrupt(running, stage.loop)).toBeLessThan(350)
        expect(yield* parts).toEqual([])
        expect(yield* snapshot).toMatchObject({ created: 2, closed: 1 })
      })))

  for (const [of, transaction] of [["db.transaction", whole], ["sql.withTransaction", wholeOfClient]] as const) {
    it.live(`at any moment is done as a whole or not at all: ${of}`, () =>
      scene({ poolSize: 2 }, (stage) =>
        Effect.gen(function*() {
          yield* createItems(stage)
          yield* whole(0)
          yield* stage.db.releaseFiberConnection
          // every request takes a few milliseconds on its way, so that each is under way at one of the moments
          stage.proxy.rule({ text: "", delay: 4 })
          let slowest = 0
          let interruptions = 0
          const rounds = 60
          for (let round = 1; round <= rounds; round++) {
            const running = yield* Effect.fork(transaction(round))
            yield* Effect.sleep(round % 50)
            slowest = Math.max(slowest, yield* interrupt(running, stage.loop))
            if (Exit.isInterrupted(yield* Fiber.await(running))) interruptions++
          }
          stage.proxy.rule(undefined)
          const left = yield* stage.db.list("SELECT COUNT(*) FROM items GROUP BY id")
          process.stdout.write(
            `${of}: ${interruptions} of ${rounds} interrupted, ${left.length - 1} committed, slowest ${
              slowest.toFixed(1)
            } ms\n`
          )
          expect(left.filter((count) => Number(count) !== 2)).toEqual([])
          expect(interruptions).toBeGreaterThan(0)
          expect(left.length - 1).toBeGreaterThanOrEqual(rounds - interruptions)
          expect(slowest).toBeLessThan(100)
          expect(yield* snapshot).toMatchObject({ lost: 0 })
        })))
  }
})

describe("a nested transaction that is interrupted", () => {
  for (const slow of ["INSERT INTO items", "SAVEPOINT", "RELEASE SAVEPOINT"]) {
    it.live(`in ${slow} is undone alone: the one around it goes on and commits`, () =>
      scene({ poolSize: 1 }, (stage) =>
        Effect.gen(function*() {
          const { db, loop, proxy } = stage
          yield* createItems(stage)
          yield* db.transaction(Effect.gen(function*() {
            yield* insert(1, 1)
            proxy.rule({ text: textOf(slow), delayAnswer: 200, times: 1 })
            const inner = yield* Effect.fork(db.transaction(
              db.execute("INSERT INTO items VALUES (1, 2) /* INSERT INTO items */")
            ))
            yield* eventually(`${slow} was said`, Effect.sync(() => proxy.applied() === 1))
            // it rolls back to its savepoint, for which it waits until the statement was stopped
            yield* interrupt(inner, loop)
            expect(Exit.isInterrupted(yield* Fiber.await(inner))).toBe(true)
            yield* insert(1, 3)
          }))
          const left = yield* parts
          expect(slow === "RELEASE SAVEPOINT" ? [[1, 3], [1, 2, 3]] : [[1, 3]]).toContainEqual(left)
          expect(yield* snapshot).toMatchObject({ created: 1, lost: 0 })
        })))
  }

  it.live("in a sleep is stopped on the server, undone, and its sibling's work stays", () =>
    scene({ poolSize: 1 }, (stage) =>
      Effect.gen(function*() {
        const { db, fixture, loop } = stage
        yield* createItems(stage)
        yield* db.transaction(Effect.gen(function*() {
          yield* db.transaction(insert(1, 1))
          const inner = yield* Effect.fork(db.transaction(
            Effect.zipRight(insert(1, 2), db.value("SELECT SLEEP(30) AS victim"))
          ))
          yield* fixture.running("AS victim")
          yield* interrupt(inner, loop)
          yield* fixture.notRunning("AS victim")
          yield* db.transaction(insert(1, 3))
        }))
        expect(yield* parts).toEqual([1, 3])
      })))
})
