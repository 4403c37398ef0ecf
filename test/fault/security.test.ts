/**
 * No password and no parameter's value in anything that is told: errors, logs, spans, statistics, and what a process
 * prints. The values are in every statement; everything goes wrong that can.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { inspect } from "node:util"
import * as Db from "../../src/Db.js"
import * as DbError from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import { expectSecretless, failure, logged } from "../support/bothDatabases.js"
import { type DbFixture, withDb, withFixture, withLayer } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"
import { createLocks, opponent } from "../support/deadlocks.js"
import { tracerTo } from "../support/recording.js"

// with what servers and writers treat in their own way
// and in no random number that is written in hex
const canary = "canary-7q3z'41\\b\"x"
const pieces = ["canary", "7q3z"]
const number = 918_273_645

const expectUntold = (value: unknown): void => {
  for (const piece of [...pieces, String(number)]) expectSecretless(value, piece)
}

interface Span {
  readonly name: string
  readonly attributes: Array<readonly [string, unknown]>
  readonly events: Array<readonly [string, unknown]>
  failure?: Cause.Cause<unknown>
}

/** Keeps all that is told of a span. */
const tracerInto = (spans: Array<Span>): Tracer.Tracer =>
  tracerTo((name) => {
    const told: Span = { name, attributes: [], events: [] }
    spans.push(told)
    return {
      attribute: (key, value) => told.attributes.push([key, value]),
      event: (name, attributes) => told.events.push([name, attributes]),
      end: (exit) => {
        // what a statement gives is what was asked for
        if (Exit.isFailure(exit)) told.failure = exit.cause
      }
    }
  })

/** Everything that is told of the effect: its exit, what it logs, its spans, and the statistics at its end. */
const told = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const spans: Array<Span> = []
    const tracer = tracerInto(spans)
    const [exit, log] = yield* logged(
      Effect.exit(Effect.withSpan(effect, "a test", { captureStackTrace: true })).pipe(
        Effect.tap((ended) => Exit.isFailure(ended) ? Effect.logError("it failed", ended.cause) : Effect.void),
        Effect.withTracer(tracer)
      )
    )
    return { exit, log, spans, statistics: yield* snapshot }
  })

type Setting = { readonly fixture: DbFixture; readonly db: Db.DbService; readonly sql: SqlClient.SqlClient }
type Provocation = (setting: Setting) => Effect.Effect<unknown, unknown, DbLayer.Services>

const killed = (how: "KILL" | "KILL QUERY"): Provocation => ({ db, fixture }) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(db.execute("UPDATE items SET name = ? WHERE SLEEP(60) = 0 AND id = 1", [canary]))
    const id = yield* fixture.running("SLEEP(60)")
    yield* fixture.admin(`${how} ${id}`)
    return yield* Fiber.join(fiber)
  })

/** A transaction that meets a deadlock, and may go on all the same. */
const deadlocked = (goesOn: boolean): Provocation => ({ db }) =>
  Effect.scoped(Effect.gen(function*() {
    yield* createLocks
    const { meet } = yield* opponent
    return yield* db.transaction(Effect.gen(function*() {
      const met = meet((sql) => db.value(sql.replace("SELECT n", "SELECT n, ?"), [canary]))
      yield* goesOn ? Effect.flip(met) : met
      return yield* db.execute("UPDATE items SET name = ? WHERE id = 2", [canary])
    }))
  }))

const locked: Provocation = ({ db }) =>
  db.transaction(
    Effect.gen(function*() {
      yield* db.execute("UPDATE items SET size = 1 WHERE id = 1")
      const other = yield* db.connection
      return yield* other.value("SELECT ? FROM items WHERE id = 1 FOR UPDATE NOWAIT", [canary])
    }).pipe(Effect.scoped)
  )

const provocations: ReadonlyArray<readonly [name: string, tag: DbError.DbError["_tag"], Provocation]> = [
  ["a key that is there", "UniqueViolation", ({ db }) => db.execute("INSERT INTO items (name) VALUES (?)", [canary])],
  ["the same of a client", "UniqueViolation", ({ sql }) => sql`INSERT INTO items (name) VALUES (${canary})`],
  [
    "the same in a text",
    "UniqueViolation",
    ({ sql }) => sql.unsafe("INSERT INTO items (name) VALUES (?)", [canary]).unprepared
  ],
  ["no value", "ConstraintError", ({ db }) => db.execute("INSERT INTO items (name, size) VALUES (?, NULL)", [canary])],
  ["no number", "StatementError", ({ db }) => db.execute("UPDATE items SET size = ? WHERE id = 1", [canary])],
  ["too big a number", "StatementError", ({ db }) => db.execute("UPDATE items SET tiny = ?", [number])],
  ["no moment", "StatementError", ({ db }) => db.execute("UPDATE items SET born = ?", [canary])],
  ["too long a text", "StatementError", ({ db }) => db.execute("UPDATE items SET name = ?", [canary.repeat(9)])],
  ["no path", "StatementError", ({ db }) => db.value("SELECT EXTRACTVALUE('<a/>', ?)", [`~${canary}`])],
  ["no thread", "StatementError", ({ db }) => db.execute("KILL QUERY ?", [number])],
  ["no mode", "StatementError", ({ db }) => db.execute("SET sql_mode = ?", [canary])],
  ["no zone", "StatementError", ({ db }) => db.execute("SET time_zone = ?", [canary])],
  ["no character set", "SqlSyntaxError", ({ db }) => db.execute("SET character_set_results = ?", [canary])],
  ["a text in the wrong place", "SqlSyntaxError", ({ sql }) => sql.unsafe("SELECT FROM ?", [canary]).unprepared],
  [
    "the same of several",
    "SqlSyntaxError",
    ({ sql }) => sql.unsafe("SELECT ?; SELECT FROM ?", [canary, canary]).unprepared
  ],
  ["a number in the wrong place", "SqlSyntaxError", ({ sql }) => sql.unsafe("SELECT 1 ?", [number]).unprepared],
  [
    "an object in the wrong place",
    "SqlSyntaxError",
    ({ sql }) => sql.unsafe("SELECT FROM ?", [{ name: canary }]).unprepared
  ],
  [
    "bytes in the wrong place",
    "SqlSyntaxError",
    ({ sql }) => sql.unsafe("SELECT FROM ?", [Buffer.from(canary)]).unprepared
  ],
  ["no right", "AuthorizationError", ({ db }) => db.value("SELECT ? FROM mysql.user", [canary])],
  ["two statements", "InvalidStatement", ({ db }) => db.value("SELECT ?; SELECT ?", [canary, canary])],
  ["undefined", "ParameterError", ({ db }) => db.value("SELECT ?, ?", [canary, undefined])],
  ["too many", "ParameterError", ({ db }) => db.value("SELECT ?", [canary, canary])],
  ["a name that is not there", "ParameterError", ({ db }) => db.value("SELECT :a", { b: canary })],
  [
    "rows that do not fit",
    "DecodeError",
    ({ db }) =>
      db.decode(Schema.Struct({ id: Schema.String })).dictionary("SELECT id FROM items WHERE name = ?", [canary])
  ],
  [
    "too slow",
    "StatementTimeoutError",
    ({ db }) =>
      Db.withStatementTimeout(db.execute("UPDATE items SET name = ? WHERE SLEEP(60) = 0", [canary]), "50 millis")
  ],
  ["stopped", "StatementCancelled", killed("KILL QUERY")],
  ["lost", "ConnectionLost", killed("KILL")],
  ["a write where there is none", "ReadOnlyError", ({ db }) =>
    Effect.gen(function*() {
      const connection = yield* db.connection
      yield* connection.execute("SET TRANSACTION READ ONLY")
      yield* connection.execute("START TRANSACTION")
      return yield* connection.execute("UPDATE items SET name = ?", [canary])
    }).pipe(Effect.scoped)],
  ["a deadlock", "DeadlockError", deadlocked(false)],
  ["after a deadlock", "TransactionAborted", deadlocked(true)],
  ["a lock", "LockTimeoutError", locked],
  [
    "a stream is open",
    "ConnectionBusy",
    ({ db }) =>
      db.transaction(Stream.runForEach(db.stream("SELECT id FROM items"), () => db.value("SELECT ?", [canary])))
  ],
  ["what is not there any more", "AffinityLost", ({ db }) =>
    Effect.zipRight(
      db.value("SELECT 1"),
      Effect.zipRight(db.releaseFiberConnection, db.value("SELECT LAST_INSERT_ID(), ?", [canary]))
    )],
  ["nobody gives one back", "PoolExhausted", ({ db }) =>
    Effect.scoped(Effect.gen(function*() {
      yield* Effect.all([db.connection, db.connection, db.connection])
      return yield* db.value("SELECT ?", [canary])
    }))]
]

const prepare = (fixture: DbFixture) =>
  Effect.gen(function*() {
    const table = `${fixture.database}.items`
    yield* fixture.admin(
      `CREATE TABLE ${table} (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40) UNIQUE, size INT NOT NULL DEFAULT 0,
         tiny TINYINT, born DATETIME)`
    )
    const hex = Buffer.from(canary).toString("hex")
    yield* fixture.admin(`INSERT INTO ${table} (name) VALUES (x'${hex}'), ('b'), ('c'), ('d'), ('e')`)
  })

describe("the value of a parameter", () => {
  it.live.each(provocations)(
    "is in nothing that is told of %s (%s)",
    ([, tag, provoke]) =>
      withDb({ poolSize: 3, acquireTimeout: "1 second" }, (fixture) =>
        Effect.gen(function*() {
          yield* prepare(fixture)
          const setting = { fixture, db: yield* Db.Db, sql: yield* SqlClient.SqlClient }
          const all = yield* told(provoke(setting))
          const found = Exit.isFailure(all.exit)
            ? Option.map(Chunk.head(Cause.failures(all.exit.cause)), DbError.find)
            : Option.none()
          expect(Option.getOrUndefined(found)?._tag, inspect(all.exit, { depth: 6 })).toBe(tag)
          expect(all.log.length).toBeGreaterThan(0)
          expect(all.spans.length).toBeGreaterThan(0)
          expectUntold(all)
          expectUntold(found)
          // nor mysql2's own words and properties
          const shown = inspect(all, { depth: Infinity, showHidden: true })
          expect(shown).not.toContain("sqlMessage")
        }))
  )

  it.live("is in no report of a leak, and not in the spans of what succeeds", () =>
    Effect.gen(function*() {
      const test = withDb({ poolSize: 3, leakDetectionThreshold: "50 millis" }, () =>
        told(Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const db = yield* Db.Db
          yield* sql`SELECT ${canary} AS secret, ${number} AS other`
          yield* db.transaction(db.value("SELECT SLEEP(0.3), ?", [canary]))
          yield* Effect.scoped(Effect.zipRight(db.connection, Effect.sleep("300 millis")))
        })))
      const [all, log] = yield* logged(test)
      expect(Exit.isSuccess(all.exit)).toBe(true)
      expect(log.filter((line) => line.includes("A leak is suspected")).length).toBeGreaterThanOrEqual(2)
      expect(inspect(all.spans, { depth: 9 })).toContain("SELECT ? AS secret, ? AS other")
      expectUntold([all, log])
    }))

  it("is found by these tests where it is", () => {
    expect(() => expectUntold({ deep: [new Map([["a", new Error("x", { cause: { [Symbol("s")]: canary } })]])] }))
      .toThrow()
    expect(() => expectUntold(Object.defineProperty({}, "hidden", { value: number, enumerable: false }))).toThrow()
  })
})

describe("the password", () => {
  const password = "canary-7f3a-password"
  const login = (fixture: DbFixture, change: (url: URL) => void) => {
    const url = new URL(Redacted.value(fixture.url))
    url.password = password
    change(url)
    return { url: Redacted.make(url.href), acquireTimeout: "300 millis" } as const
  }
  it.live.each<readonly [what: string, change: (url: URL) => void, tags: ReadonlyArray<string>]>([
    ["a wrong one", () => undefined, ["AuthenticationError"]],
    ["nobody of that name", (url) => (url.username = "nobody"), ["AuthenticationError"]],
    ["a server that is not there", (url) => (url.port = "1"), ["ConnectionError", "PoolUnreachable"]],
    ["a host that is not there", (url) => (url.hostname = "no-such.invalid"), ["ConnectionError", "PoolUnreachable"]]
  ])("is in nothing that is told of %s", ([, change, tags]) =>
    withFixture((fixture) =>
      withLayer(
        login(fixture, change),
        Effect.gen(function*() {
          const all = yield* told(Effect.flatMap(Db.Db, (db) => db.value("SELECT 1")))
          expect(tags).toContain(Exit.isFailure(all.exit) && (yield* failure(all.exit))._tag)
          expectUntold(all)
        })
      )
    ))

  it.live("is in nothing that is told of a database that is not there", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        yield* fixture.admin(`ALTER USER ${fixture.user}@'%' IDENTIFIED BY '${password}'`)
        yield* fixture.admin(`GRANT ALL ON \`${fixture.database}none\`.* TO ${fixture.user}@'%'`)
        yield* withLayer(
          login(fixture, (url) => (url.pathname = `/${fixture.database}none`)),
          Effect.gen(function*() {
            const all = yield* told(Effect.flatMap(Db.Db, (db) => db.value("SELECT 1")))
            expect(yield* failure(all.exit)).toMatchObject({ errno: 1049 })
            expectUntold(all)
          })
        )
      })
    ))
})

describe("a process", () => {
  it.live("prints neither, whatever goes wrong in it and however it ends", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        yield* prepare(fixture)
        const password = "canary-7f3a-password"
        yield* fixture.admin(`ALTER USER ${fixture.user}@'%' IDENTIFIED BY '${password}'`)
        const url = new URL(Redacted.value(fixture.url))
        url.password = password
        const program = fileURLToPath(new URL("../support/secretsProgram.ts", import.meta.url))
        const env = { ...process.env, SECRET_VALUE: canary, SECRET_URL: url.href }
        const [status, printed] = yield* Effect.async<readonly [number, string]>((resume) => {
          execFile(process.execPath, ["--import", "tsx", program], { env, timeout: 30_000 }, (error, stdout, stderr) =>
            resume(Effect.succeed([Number(error?.code ?? 0), stdout + stderr])))
        })
        expect(status, printed).toBe(1)
        for (const said of ["UniqueViolation", "SqlSyntaxError", "AuthenticationError", "A leak is suspected"]) {
          expect(printed).toContain(said)
        }
        for (const piece of pieces) {
          expect(printed).not.toContain(piece)
        }
      })
    ))
})
