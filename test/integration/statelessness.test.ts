/**
 * LAST_INSERT_ID(), FOUND_ROWS() and ROW_COUNT() read what an earlier statement left on the connection: right, or a
 * typed error, and never what another borrower left.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import type { DbService } from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import type { Queries } from "../../src/Queries.js"
import { withDb } from "../support/dbFixture.js"
import { numbers, snapshot, valueOf } from "../support/dbQuestions.js"

const table = (db: DbService) =>
  db.execute("CREATE TABLE items (id INT AUTO_INCREMENT PRIMARY KEY, owner INT) ENGINE = InnoDB AUTO_INCREMENT = 1000")

const number = (queries: Queries, sql: string) => Effect.map(valueOf(queries, sql), Number)

/** Inserts, does what is asked in between, and compares. */
const insertAndAsk = (queries: Queries, owner: number, between: Effect.Effect<unknown, DbError> = Effect.void) =>
  Effect.gen(function*() {
    const { insertId } = yield* queries.execute("INSERT INTO items (owner) VALUES (?)", [owner])
    yield* between
    return { insertId: Number(insertId), asked: yield* Effect.either(number(queries, "SELECT LAST_INSERT_ID()")) }
  })

type Asked = Effect.Effect.Success<ReturnType<typeof insertAndAsk>>

const judge = (what: string, all: ReadonlyArray<Asked>) => {
  let right = 0
  let typed = 0
  const wrong: Array<string> = []
  for (const { asked, insertId } of all) {
    if (Either.isRight(asked)) {
      if (asked.right === insertId) right++
      else wrong.push(`${asked.right} instead of ${insertId}`)
    } else if (asked.left._tag === "AffinityLost") typed++
    else wrong.push(asked.left.message)
  }
  process.stdout.write(`LAST_INSERT_ID() ${what}: ${right} right, ${typed} AffinityLost, ${wrong.length} wrong\n`)
  expect(wrong).toEqual([])
  return { right, typed }
}

const crowd = <A, E, R>(one: (n: number) => Effect.Effect<A, E, R>) =>
  Effect.forEach(Array.from({ length: 300 }, (_, n) => n), one, { concurrency: "unbounded" })

describe("LAST_INSERT_ID() after an insert", () => {
  it.live("is right when nobody contends, also with other reads in between", () =>
    withDb({ poolSize: 2 }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        const alone = yield* Effect.forEach([1, 2, 3], (n) => insertAndAsk(db, n, db.value("SELECT 1")))
        expect(judge("of one fiber", alone)).toEqual({ right: 3, typed: 0 })
      })))

  it.live("is right under contention, or AffinityLost", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        const all = yield* crowd((n) => insertAndAsk(db, n, Effect.yieldNow()))
        judge("under contention", all)
        expect((yield* snapshot).takenBack).toBeGreaterThan(0)
      })))

  it.live("is right under contention, or AffinityLost, with another read in between", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        judge("after another read", yield* crowd((n) => insertAndAsk(db, n, db.value("SELECT 1"))))
      })))

  it.live("is right under contention, or AffinityLost, with statement affinity", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds", affinity: "statement" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        judge("with statement affinity", yield* crowd((n) => insertAndAsk(db, n, db.value("SELECT 1"))))
      })))

  it.live("is always right in a session and in a transaction, where it was inserted", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        const read = db.value("SELECT 1")
        const inSession = yield* crowd((n) =>
          db.session(insertAndAsk(db, n, Effect.timeout(read, "20 seconds").pipe(Effect.orDie)))
        )
        expect(judge("in db.session", inSession)).toEqual({ right: 300, typed: 0 })
        const inTransaction = yield* crowd((n) => db.transaction(insertAndAsk(db, n, read)))
        expect(judge("in db.transaction", inTransaction)).toEqual({ right: 300, typed: 0 })
        const explicit = yield* crowd((n) =>
          Effect.scoped(Effect.flatMap(db.connection, (one) => insertAndAsk(one, n, one.value("SELECT 1"))))
        )
        expect(judge("on db.connection", explicit)).toEqual({ right: 300, typed: 0 })
      })))

  it.live("written into a child row is the parent's, or AffinityLost", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        yield* db.execute("CREATE TABLE children (parent INT, owner INT) ENGINE = InnoDB")
        const written = yield* crowd((n) =>
          Effect.gen(function*() {
            yield* db.execute("INSERT INTO items (owner) VALUES (?)", [n])
            yield* Effect.yieldNow()
            const child = yield* Effect.either(
              db.execute("INSERT INTO children VALUES (LAST_INSERT_ID(), ?)", [n])
            )
            if (Either.isLeft(child)) expect(child.left._tag).toBe("AffinityLost")
            return Either.isRight(child)
          })
        )
        const right = yield* number(
          db,
          "SELECT COUNT(*) FROM children JOIN items ON children.parent = items.id AND children.owner = items.owner"
        )
        expect(right).toBe(written.filter((yes) => yes).length)
      })))
})

describe("what another borrower inserted is never seen", () => {
  /** A fiber that inserts on the pool's one connection and ends. */
  const another = Effect.flatMap(
    Db.Db,
    (db) => Effect.flatMap(Effect.fork(db.execute("INSERT INTO items (owner) VALUES (99)")), Fiber.join)
  )

  const askers: Record<string, (db: DbService) => Effect.Effect<number, DbError>> = {
    "by a fiber's first statement": (db) => number(db, "SELECT LAST_INSERT_ID()"),
    "by a fiber that has only read": (db) =>
      Effect.zipRight(db.value("SELECT 1"), number(db, "SELECT LAST_INSERT_ID()")),
    "as @@last_insert_id": (db) => Effect.zipRight(db.value("SELECT 1"), number(db, "SELECT @@last_insert_id")),
    "by a transaction that has only begun": (db) => db.transaction(number(db, "SELECT LAST_INSERT_ID()")),
    "by a session that has only read": (db) =>
      db.session(Effect.zipRight(db.value("SELECT 1"), number(db, "SELECT LAST_INSERT_ID()"))),
    "by an explicit connection": (db) =>
      Effect.scoped(Effect.flatMap(db.connection, (one) => number(one, "SELECT LAST_INSERT_ID()"))),
    "by an explicit connection that has only read": (db) =>
      Effect.scoped(
        Effect.flatMap(db.connection, (one) =>
          Effect.zipRight(one.value("SELECT 1"), number(one, "SELECT LAST_INSERT_ID()")))
      ),
    "by a transaction opened by hand": (db) =>
      Effect.ensuring(
        Effect.zipRight(db.execute("START TRANSACTION"), number(db, "SELECT LAST_INSERT_ID()")),
        db.releaseFiberConnection
      )
  }
  for (const [how, ask] of Object.entries(askers)) {
    it.live(how, () =>
      withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* table(db)
          yield* db.releaseFiberConnection
          yield* another
          const asked = yield* Effect.either(ask(db))
          // 0 is what a new connection says
          if (Either.isRight(asked)) expect(asked.right).toBe(0)
          else expect(asked.left._tag).toBe("AffinityLost")
        })))
  }

  it.live("by a fiber that has inserted itself, lost its connection and read since", () =>
    withDb({ poolSize: 1, acquireTimeout: "2 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        const mine = yield* insertAndAsk(
          db,
          1,
          Effect.zipRight(Effect.provideService(another, Db.Db, db), db.value("SELECT 1"))
        )
        judge("after a loss and a read", [mine])
      })))
})

describe("FOUND_ROWS() and ROW_COUNT()", () => {
  it.live("are the previous statement's under contention, or AffinityLost", () =>
    withDb({ poolSize: 3, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        yield* db.execute(`INSERT INTO items (owner) SELECT seq FROM ${numbers(100)}`)
        const counted = { right: 0, typed: 0 }
        const ask = (sql: string, expected: number) =>
          Effect.map(Effect.either(number(db, sql)), (asked) => {
            if (Either.isRight(asked)) {
              expect(`${sql} ${asked.right}`).toBe(`${sql} ${expected}`)
              counted.right++
            } else {
              expect(asked.left._tag).toBe("AffinityLost")
              counted.typed++
            }
          })
        yield* crowd((n) =>
          Effect.gen(function*() {
            const limit = 1 + n % 5
            yield* db.values(`SELECT SQL_CALC_FOUND_ROWS id FROM items WHERE owner <= ${50 + limit} LIMIT 2`)
            yield* Effect.yieldNow()
            yield* ask("SELECT FOUND_ROWS()", 50 + limit)
            yield* db.execute(`UPDATE items SET owner = owner + 1000 WHERE owner > 5000 + ${limit}`)
            yield* Effect.yieldNow()
            yield* ask("SELECT ROW_COUNT()", 0)
          })
        )
        process.stdout.write(
          `FOUND_ROWS(), ROW_COUNT(): ${counted.right} right, ${counted.typed} AffinityLost, 0 wrong\n`
        )
      })))

  const none: Record<string, string> = {
    "FOUND_ROWS()": "SELECT FOUND_ROWS()",
    "ROW_COUNT()": "SELECT ROW_COUNT()",
    "SHOW WARNINGS": "SHOW WARNINGS"
  }
  for (const [name, sql] of Object.entries(none)) {
    it.live(`${name} as a fiber's first statement is AffinityLost`, () =>
      withDb({ poolSize: 1 }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* Effect.flatMap(Effect.fork(db.values("SELECT 1 UNION SELECT 2")), Fiber.join)
          const error = yield* Effect.flip(db.values(sql))
          expect(error._tag).toBe("AffinityLost")
          expect(error.message).toContain("db.connection")
        })))
  }

  it.live("are right in a session, whatever the contention", () =>
    withDb({ poolSize: 2, acquireTimeout: "20 seconds" }, () =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* table(db)
        yield* db.execute(`INSERT INTO items (owner) SELECT seq FROM ${numbers(100)}`)
        yield* crowd((n) =>
          db.session(Effect.gen(function*() {
            yield* db.values(`SELECT SQL_CALC_FOUND_ROWS id FROM items WHERE owner <= ${1 + n % 50} LIMIT 1`)
            expect(Option.getOrThrow(yield* db.value("SELECT FOUND_ROWS()"))).toBe(1 + n % 50)
            yield* db.execute(`UPDATE items SET owner = owner WHERE owner <= ${1 + n % 50}`)
            // matched rows, as the protocol counts them here
            expect(Option.getOrThrow(yield* db.value("SELECT ROW_COUNT()"))).toBe(1 + n % 50)
          }))
        )
      })))
})
