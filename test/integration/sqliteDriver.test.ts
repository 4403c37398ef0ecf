import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import type { DbError } from "../../src/DbError.js"
import type { Connection, Cursor, Driver, Result, Row, Statement } from "../../src/Driver.js"
import { analyze } from "../../src/internal/sessionState.js"
import type { SqliteOptions } from "../../src/PoolConfig.js"
import * as SqliteDriver from "../../src/SqliteDriver.js"

const statement = (sql: string, ...params: ReadonlyArray<unknown>): Statement => ({
  sql,
  params,
  traits: analyze(sql, "sqlite")
})

/** Proves that the contract's "exactly once" holds for every statement of these tests. */
const once = <A>(start: (done: (exit: Exit.Exit<A, DbError>) => void) => void): Effect.Effect<A, DbError> =>
  Effect.async<A, DbError>((resume) => {
    let calls = 0
    start((exit) => {
      expect(++calls).toBe(1)
      resume(exit)
    })
  })

const run = (connection: Connection, sql: string, ...params: ReadonlyArray<unknown>): Effect.Effect<Result, DbError> =>
  once((done) => connection.run(statement(sql, ...params), done))

const rows = (connection: Connection, sql: string, ...params: ReadonlyArray<unknown>) =>
  Effect.map(run(connection, sql, ...params), (result) => result.rows)

const next = (cursor: Cursor): Effect.Effect<ReadonlyArray<Row>, DbError> => once(cursor.next)

const failure = <A>(effect: Effect.Effect<A, DbError>) => Effect.flip(effect)

/** Every connection of a test is closed at its end, before the driver's scope is. */
const open = (driver: Driver): Effect.Effect<Connection, DbError, Scope.Scope> =>
  Effect.acquireRelease(driver.connect, (connection) => connection.close)

const database = (options: SqliteOptions = {}) => SqliteDriver.make({ busyTimeout: "2 seconds", ...options })

/** Two connections to one new file with a table `items (id, name unique, size > 0)`. */
const pair = (options: SqliteOptions = {}) =>
  Effect.gen(function*() {
    const driver = yield* database(options)
    const one = yield* open(driver)
    const two = yield* open(driver)
    yield* run(one, "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, size INT NOT NULL CHECK (size > 0))")
    return { driver, one, two }
  })

const directory = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "sqlite-driver-test-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)

const count = "SELECT COUNT(*) FROM items"
const insert = "INSERT INTO items (name, size) VALUES (?, 1)"

describe("values", () => {
  it.scopedLive("come back as they went in", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database())
      const moment = new Date(Date.UTC(2024, 1, 29, 12, 30, 15, 250))
      const sent = [
        "é€😀",
        "",
        42,
        -1.5,
        2n ** 62n,
        -(2n ** 63n),
        7n,
        true,
        false,
        null,
        new Uint8Array([0, 255]),
        moment,
        {
          a: [1, "b"]
        },
        [1, 2]
      ]
      yield* run(connection, "CREATE TABLE bag (n INT, value)")
      for (const [n, value] of sent.entries()) yield* run(connection, "INSERT INTO bag VALUES (?, ?)", n, value)
      expect(yield* rows(connection, "SELECT value, typeof(value) FROM bag ORDER BY n")).toEqual([
        ["é€😀", "text"],
        ["", "text"],
        [42, "integer"],
        [-1.5, "real"],
        [2n ** 62n, "integer"],
        [-(2n ** 63n), "integer"],
        [7, "integer"],
        [1, "integer"],
        [0, "integer"],
        [null, "null"],
        [new Uint8Array([0, 255]), "blob"],
        ["2024-02-29T12:30:15.250Z", "text"],
        ["{\"a\":[1,\"b\"]}", "text"],
        ["[1,2]", "text"]
      ])
    }))

  it.scopedLive("beyond ±2⁵³ are bigint, below they are number", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database())
      const edge = "SELECT 9007199254740991, 9007199254740992, -9007199254740991, -9007199254740992, 1e300"
      expect(yield* rows(connection, edge)).toEqual([
        [9007199254740991, 9007199254740992n, -9007199254740991, -9007199254740992n, 1e300]
      ])
    }))

  it.scopedLive("that SQLite cannot hold are refused with a reason that does not name them", () =>
    Effect.gen(function*() {
      const driver = yield* database()
      const connection = yield* open(driver)
      const circle: Record<string, unknown> = {}
      circle["self"] = circle
      const refused = [
        undefined,
        Number.NaN,
        Infinity,
        2n ** 63n,
        -(2n ** 63n) - 1n,
        Symbol("secret"),
        () => "secret",
        new Date(Number.NaN),
        new Map([["secret", 1]]),
        new Float64Array(1),
        circle,
        { secret: 1n },
        "secret\0secret"
      ]
      for (const value of refused) {
        const reason = driver.rejectParameter(value)
        expect(reason).toBeTypeOf("string")
        expect(reason).not.toContain("secret")
        const error = yield* failure(run(connection, "SELECT ?, ?", 1, value))
        expect(error).toMatchObject({ _tag: "ParameterError", reason: `parameter 2: ${reason}` })
      }
      for (const value of [null, "a", 1, 1n, true, new Date(0), {}, [], new Uint8Array(), Buffer.from("a")]) {
        expect(driver.rejectParameter(value)).toBeUndefined()
      }
    }))

  it.scopedLive("keep the names of their columns, twice the same name and after another connection's ALTER TABLE", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      expect((yield* run(one, "SELECT 1 AS a, 2 AS a")).columns).toEqual(["a", "a"])
      yield* run(one, insert, "x")
      expect(yield* run(one, "SELECT * FROM items")).toMatchObject({
        columns: ["id", "name", "size"],
        rows: [[1, "x", 1]],
        affectedRows: 0
      })
      yield* run(two, "ALTER TABLE items ADD COLUMN note DEFAULT 'n'")
      expect(yield* run(one, "SELECT * FROM items")).toMatchObject({
        columns: ["id", "name", "size", "note"],
        rows: [[1, "x", 1, "n"]]
      })
      yield* run(two, "ALTER TABLE items RENAME COLUMN note TO remark")
      expect((yield* run(one, "SELECT * FROM items")).columns).toEqual(["id", "name", "size", "remark"])
      const returning = "INSERT INTO items (name, size) VALUES (?, 1) RETURNING *"
      yield* run(one, returning, "y")
      yield* run(two, "ALTER TABLE items ADD COLUMN last DEFAULT 'l'")
      expect(yield* run(one, returning, "z")).toMatchObject({
        columns: ["id", "name", "size", "remark", "last"],
        rows: [[3, "z", 1, "n", "l"]]
      })
    }))
})

describe("results", () => {
  it.scopedLive("count what this statement changed and nothing of an earlier one", () =>
    Effect.gen(function*() {
      const { one } = yield* pair()
      const two = { affectedRows: 2, insertId: 2 }
      expect(yield* run(one, "INSERT INTO items (name, size) VALUES ('a', 1), ('b', 1)")).toMatchObject(two)
      const nothing = { affectedRows: 0, insertId: 0, columns: [], rows: [], warnings: 0 }
      expect(yield* run(one, "CREATE TABLE other (a)")).toEqual(nothing)
      expect(yield* run(one, "BEGIN")).toEqual(nothing)
      expect(yield* run(one, "COMMIT")).toEqual(nothing)
      expect(yield* run(one, "INSERT OR IGNORE INTO items (name, size) VALUES ('a', 1)")).toEqual(nothing)
      expect(yield* run(one, "UPDATE items SET size = 2")).toEqual({ ...nothing, affectedRows: 2 })
      const upsert =
        "INSERT INTO items (name, size) VALUES ('a', 9) ON CONFLICT (name) DO UPDATE SET size = excluded.size"
      expect(yield* run(one, upsert)).toEqual({ ...nothing, affectedRows: 1 })
      const common = "WITH more (n) AS (SELECT 'c') INSERT INTO items (name, size) SELECT n, 1 FROM more"
      expect(yield* run(one, common)).toMatchObject({ affectedRows: 1, insertId: 3 })
      expect(yield* run(one, "DELETE FROM items WHERE id > 1")).toEqual({ ...nothing, affectedRows: 2 })
      yield* run(one, "INSERT INTO items VALUES (9007199254740993, 'big', 1)").pipe(
        Effect.map((result) => expect(result.insertId).toBe(9007199254740993n))
      )
    }))

  it.scopedLive("of INSERT ... RETURNING are its rows, and all of them are written", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      const returning = "INSERT INTO items (name, size) VALUES ('a', 1), ('b', 1) RETURNING id"
      expect(yield* run(one, returning)).toMatchObject({ columns: ["id"], rows: [[1], [2]], affectedRows: 0 })
      expect(yield* rows(two, count)).toEqual([[2]])
    }))
})

describe("refusals", () => {
  it.scopedLive("have a class and SQLite's extended code, and leave the connection usable", () =>
    Effect.gen(function*() {
      const { one } = yield* pair()
      yield* run(one, "CREATE TABLE parts (item INT REFERENCES items (id))")
      yield* run(one, insert, "a")
      const cases: ReadonlyArray<readonly [string, string, number]> = [
        ["INSERT INTO items (name, size) VALUES ('a', 1)", "UniqueViolation", 2067],
        ["INSERT INTO items (id, size) VALUES (1, 1)", "UniqueViolation", 1555],
        ["INSERT INTO items (name, size) VALUES ('a', 1) RETURNING id", "UniqueViolation", 2067],
        ["INSERT INTO items (size) VALUES (NULL)", "ConstraintError", 1299],
        ["INSERT INTO items (size) VALUES (0)", "ConstraintError", 275],
        ["INSERT INTO items (size) VALUES (0) RETURNING id", "ConstraintError", 275],
        ["INSERT INTO parts VALUES (77)", "ConstraintError", 787],
        ["SELEC 1", "SqlSyntaxError", 1],
        ["SELECT * FROM nowhere", "SqlSyntaxError", 1],
        ["SELECT unknown_column FROM items", "SqlSyntaxError", 1]
      ]
      for (const [sql, _tag, errno] of cases) {
        expect(yield* failure(run(one, sql))).toMatchObject({ _tag, errno, statement: sql })
        expect(one.isOpen()).toBe(true)
      }
      expect(yield* rows(one, count)).toEqual([[1]])
    }))

  it.scopedLive("of a second statement and of an empty one come before anything is run", () =>
    Effect.gen(function*() {
      const { one } = yield* pair()
      const two = "INSERT INTO items (size) VALUES (1); DROP TABLE items"
      expect(yield* failure(run(one, two))).toMatchObject({ _tag: "InvalidStatement", statement: two })
      expect(yield* failure(next(one.stream(statement(two))))).toMatchObject({ _tag: "InvalidStatement" })
      expect(yield* failure(run(one, " -- nothing"))).toMatchObject({ _tag: "InvalidStatement" })
      expect(yield* rows(one, "SELECT COUNT(*) FROM items;")).toEqual([[0]])
    }))

  it.scopedLive("of a write to a database opened for reading are AuthorizationError, which nobody tries again", () =>
    Effect.gen(function*() {
      const filename = Path.join(yield* directory, "a.db")
      const writer = yield* open(yield* database({ filename }))
      yield* run(writer, "CREATE TABLE items (id INTEGER PRIMARY KEY)")
      const driver = yield* database({ filename, readOnly: true })
      const reader = yield* open(driver)
      expect(yield* rows(reader, count)).toEqual([[0]])
      const error = yield* failure(run(reader, "INSERT INTO items VALUES (1)"))
      expect(error).toMatchObject({ _tag: "AuthorizationError", errno: 8, isRetryable: false })
      expect(driver.transaction.begin({})).toEqual(["BEGIN DEFERRED"])
    }))
})

describe("locks", () => {
  it.scopedLive("make the second writer wait until the first commits, and the event loop runs on meanwhile", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(one, "BEGIN IMMEDIATE")
      yield* run(one, insert, "first")
      let answered = false
      const waiter = yield* Effect.fork(
        Effect.tap(run(two, insert, "second"), () => Effect.sync(() => answered = true))
      )
      let ticks = 0
      const ticker = yield* Effect.fork(Effect.forever(Effect.andThen(Effect.sleep("5 millis"), () => ticks++)))
      yield* Effect.sleep("200 millis")
      expect(answered).toBe(false)
      expect(ticks).toBeGreaterThan(10)
      expect(yield* rows(one, count)).toEqual([[1]])
      yield* run(one, "COMMIT")
      expect(yield* Fiber.join(waiter)).toMatchObject({ affectedRows: 1, insertId: 2 })
      yield* Fiber.interrupt(ticker)
      expect(yield* rows(one, count)).toEqual([[2]])
    }))

  it.scopedLive("are not waited for longer than busyTimeout", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair({ busyTimeout: "120 millis" })
      yield* run(one, "BEGIN IMMEDIATE")
      for (const sql of ["BEGIN IMMEDIATE", insert, `${insert} RETURNING id`]) {
        const params = sql.startsWith("BEGIN") ? [] : ["late"]
        const [waited, error] = yield* Effect.timed(failure(run(two, sql, ...params)))
        expect(error).toMatchObject({ _tag: "LockTimeoutError", errno: 5, isRetryable: true })
        expect(Duration.toMillis(waited)).toBeGreaterThanOrEqual(118)
        expect(Duration.toMillis(waited)).toBeLessThan(4000)
      }
      expect(two.session()).toBe("clean")
      expect(yield* rows(two, count)).toEqual([[0]])
    }))

  it.scoped("are waited for on Effect's clock", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair({ busyTimeout: "1 second" })
      yield* run(one, "BEGIN IMMEDIATE")
      const waiter = yield* Effect.fork(failure(run(two, insert, "late")))
      yield* TestClock.adjust("900 millis")
      expect(waiter.unsafePoll()).toBeNull()
      yield* TestClock.adjust("200 millis")
      expect(yield* Fiber.join(waiter)).toMatchObject({ _tag: "LockTimeoutError" })
    }))

  it.scopedLive("let many writers through one after another", () =>
    Effect.gen(function*() {
      const { driver, one } = yield* pair()
      const writer = (n: number) =>
        Effect.gen(function*() {
          const connection = yield* open(driver)
          for (let i = 0; i < 10; i++) {
            yield* run(connection, "BEGIN IMMEDIATE")
            yield* run(connection, insert, `${n} ${i}`)
            yield* Effect.yieldNow()
            yield* run(connection, "COMMIT")
          }
        })
      yield* Effect.forEach(Array.from({ length: 20 }, (_, n) => n), writer, { concurrency: "unbounded" })
      expect(yield* rows(one, count)).toEqual([[200]])
    }))

  it.scopedLive("do not make readers wait: they see the last commit", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(one, "BEGIN IMMEDIATE")
      yield* run(one, insert, "unseen")
      expect(yield* rows(two, count)).toEqual([[0]])
    }))

  it.scopedLive("of a snapshot that is too old fail at once with SerializationError", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(two, "BEGIN")
      yield* run(two, count)
      yield* run(one, insert, "newer")
      const [waited, error] = yield* Effect.timed(failure(run(two, insert, "stale")))
      expect(error).toMatchObject({ _tag: "SerializationError", errno: 517, isRetryable: true })
      expect(Duration.toMillis(waited)).toBeLessThan(4000)
      expect(two.session()).toBe("transaction")
      yield* run(two, "ROLLBACK")
      yield* run(two, insert, "stale")
    }))

  it.scopedLive("are not waited for any more after cancel, and what was cancelled is not done later", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(one, "BEGIN IMMEDIATE")
      const waiter = yield* Effect.fork(Effect.exit(run(two, insert, "cancelled")))
      yield* Effect.sleep("30 millis")
      yield* two.cancel
      const exit = yield* Fiber.join(waiter)
      expect(Option.getOrThrow(Exit.causeOption(exit)).pipe(Cause.failureOption, Option.getOrThrow)).toMatchObject({
        _tag: "StatementCancelled",
        statement: insert
      })
      yield* run(one, "COMMIT")
      yield* Effect.sleep("100 millis")
      expect(yield* rows(two, count)).toEqual([[0]])
      expect(yield* run(two, insert, "next")).toMatchObject({ affectedRows: 1 })
    }))

  it.scopedLive("of a destroyed connection are given back, and its waiting statement ends as lost", () =>
    Effect.gen(function*() {
      const { driver, one, two } = yield* pair()
      yield* run(one, "BEGIN IMMEDIATE")
      const waiter = yield* Effect.fork(failure(run(two, insert, "lost")))
      yield* Effect.sleep("30 millis")
      two.destroy()
      two.destroy()
      expect(yield* Fiber.join(waiter)).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
      expect(two.isOpen()).toBe(false)
      expect(yield* failure(run(two, count))).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
      expect(yield* failure(two.ping)).toMatchObject({ _tag: "ConnectionLost" })
      yield* run(one, insert, "uncommitted")
      one.destroy()
      const three = yield* open(driver)
      expect(yield* run(three, insert, "free")).toMatchObject({ affectedRows: 1, insertId: 1 })
    }))

  it.scopedLive("held while a connection is opened make it wait too", () =>
    Effect.gen(function*() {
      const { driver, one } = yield* pair({
        initialSql: ["CREATE TABLE IF NOT EXISTS settings (a)", "DELETE FROM settings"]
      })
      yield* run(one, "BEGIN IMMEDIATE")
      const opening = yield* Effect.fork(open(driver))
      yield* Effect.sleep("50 millis")
      yield* run(one, "COMMIT")
      expect((yield* Fiber.join(opening)).isOpen()).toBe(true)
    }))
})

describe("reset", () => {
  it.scopedLive("rolls back and leaves no temporary table, setting or attached database", () =>
    Effect.gen(function*() {
      const other = Path.join(yield* directory, "other.db")
      for (const options of [{}, { filename: ":memory:" }]) {
        const connection = yield* open(yield* database(options))
        yield* run(connection, "CREATE TABLE kept (a)")
        expect(connection.session()).toBe("clean")
        yield* run(connection, "CREATE TEMPORARY TABLE picked (a)")
        expect(connection.session()).toBe("changed")
        yield* run(connection, "PRAGMA foreign_keys = OFF")
        yield* run(connection, "PRAGMA cache_size = 77")
        yield* run(connection, "ATTACH ? AS other", other)
        yield* run(connection, "BEGIN")
        yield* run(connection, "INSERT INTO kept VALUES (1)")
        expect(connection.session()).toBe("transaction")
        yield* connection.reset
        expect(connection.session()).toBe("clean")
        expect(yield* failure(run(connection, "SELECT * FROM picked"))).toMatchObject({ _tag: "SqlSyntaxError" })
        expect(yield* rows(connection, "PRAGMA foreign_keys")).toEqual([[1]])
        expect(yield* rows(connection, "PRAGMA cache_size")).not.toEqual([[77]])
        expect(yield* rows(connection, "SELECT name FROM pragma_database_list WHERE name = 'other'")).toEqual([])
        expect(yield* rows(connection, "SELECT COUNT(*) FROM kept")).toEqual([[0]])
      }
    }))

  it.scopedLive("of a transaction alone keeps the handle, and transactions themselves leave a clean session", () =>
    Effect.gen(function*() {
      const { driver, one } = yield* pair()
      const { transaction } = driver
      for (const sql of transaction.begin({ isolation: "SERIALIZABLE" }) ?? []) yield* run(one, sql)
      yield* run(one, transaction.savepoint("a"))
      yield* run(one, insert, "x")
      yield* run(one, transaction.rollbackTo("a"))
      yield* run(one, transaction.releaseSavepoint("a"))
      yield* run(one, transaction.commit)
      expect(one.session()).toBe("clean")
      expect(yield* rows(one, count)).toEqual([[0]])
      yield* run(one, "SAVEPOINT outer_one")
      expect(one.session()).toBe("transaction")
      yield* one.reset
      expect(one.session()).toBe("clean")
      expect(transaction.begin({ isolation: "READ COMMITTED" })).toBeUndefined()
      expect(transaction.begin({ readOnly: true })).toEqual([
        expect.stringMatching(/^PRAGMA query_only = 1\b/),
        "BEGIN DEFERRED"
      ])
      expect(transaction.after?.({ readOnly: true })).toEqual([expect.stringMatching(/^PRAGMA query_only = 0\b/)])
    }))

  it.scopedLive("leave nothing when they may only read, once the connection may write again", () =>
    Effect.gen(function*() {
      const driver = yield* database({ filename: ":memory:" })
      const one = yield* open(driver)
      const [readOnly = "", begin = ""] = driver.transaction.begin({ readOnly: true }) ?? []
      yield* run(one, readOnly)
      expect(one.session()).toBe("changed")
      yield* run(one, begin)
      yield* run(one, driver.transaction.commit)
      expect(one.session()).toBe("changed")
      yield* run(one, driver.transaction.after?.({ readOnly: true })[0] ?? "")
      expect(one.session()).toBe("clean")
      yield* run(one, readOnly)
      yield* one.reset
      expect(one.session()).toBe("clean")
      yield* run(one, "CREATE TABLE written (id INTEGER)")
    }))

  it.scopedLive("leave what forbade writes before them: the initial SQL, or the session's own statement", () =>
    Effect.gen(function*() {
      const readOnly = (driver: Driver, one: Connection) =>
        Effect.forEach([
          ...driver.transaction.begin({ readOnly: true }) ?? [],
          driver.transaction.commit,
          ...driver.transaction.after?.({ readOnly: true }) ?? []
        ], (sql) => run(one, sql))
      const asked = yield* database({ filename: ":memory:", initialSql: ["PRAGMA query_only = 1"] })
      const one = yield* open(asked)
      yield* readOnly(asked, one)
      expect(one.session()).toBe("clean")
      expect(yield* rows(one, "PRAGMA query_only")).toEqual([[1]])
      const other = yield* database({ filename: ":memory:" })
      const two = yield* open(other)
      yield* run(two, "PRAGMA query_only = 1")
      yield* readOnly(other, two)
      expect(yield* rows(two, "PRAGMA query_only")).toEqual([[1]])
      yield* run(two, "PRAGMA query_only = 0")
      expect(two.session()).toBe("changed")
    }))

  it.scopedLive("drops temporary objects without opening the file again, where there is nothing else", () =>
    Effect.gen(function*() {
      const place = Path.join(yield* directory, "place")
      Fs.mkdirSync(place)
      const connection = yield* open(yield* database({ filename: Path.join(place, "a.db") }))
      yield* run(connection, "CREATE TABLE kept (a)")
      yield* run(connection, "CREATE TABLE log (a)")
      yield* run(connection, "CREATE TEMP TABLE kept (a, b)")
      yield* run(connection, "INSERT INTO temp.kept VALUES (1, 2)")
      expect(yield* rows(connection, "SELECT * FROM kept")).toEqual([[1, 2]])
      yield* run(connection, "CREATE TEMP TABLE \"a \"\"b\"\" ; é\" (n INTEGER PRIMARY KEY, name UNIQUE)")
      yield* run(connection, "CREATE INDEX temp.by_b ON kept (b)")
      yield* run(connection, "CREATE TEMP VIEW seen AS SELECT * FROM kept")
      yield* run(connection, "CREATE TEMP TRIGGER unseen INSTEAD OF DELETE ON seen BEGIN SELECT 1; END")
      yield* run(connection, "CREATE TEMP TRIGGER logs AFTER INSERT ON main.kept BEGIN INSERT INTO log VALUES (1); END")
      expect(connection.session()).toBe("changed")
      // Opening the file would fail, since its directory is elsewhere meanwhile.
      Fs.renameSync(place, `${place}.moved`)
      yield* connection.reset
      Fs.renameSync(`${place}.moved`, place)
      expect(connection.session()).toBe("clean")
      expect(yield* rows(connection, "SELECT name FROM sqlite_temp_schema")).toEqual([])
      yield* run(connection, "INSERT INTO kept VALUES (3)")
      expect(yield* run(connection, "SELECT * FROM kept")).toMatchObject({ columns: ["a"], rows: [[3]] })
      expect(yield* rows(connection, "SELECT * FROM log")).toEqual([])
    }))

  it.scopedLive("opens the file again for temporary objects that cannot be dropped, or that the initial SQL makes", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database())
      const names = "SELECT name FROM sqlite_temp_schema"
      yield* run(connection, "CREATE TEMP TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)")
      yield* connection.reset
      expect(yield* rows(connection, names)).toEqual([])
      yield* run(connection, "CREATE TEMP TABLE parents (id INTEGER PRIMARY KEY)")
      yield* run(connection, "CREATE TEMP TABLE children (parent REFERENCES parents (id))")
      yield* run(connection, "INSERT INTO temp.parents VALUES (1)")
      yield* run(connection, "INSERT INTO temp.children VALUES (1)")
      yield* connection.reset
      expect(yield* rows(connection, names)).toEqual([])
      const prepared = yield* open(yield* database({ initialSql: ["CREATE TEMP TABLE always (a)"] }))
      expect(prepared.session()).toBe("clean")
      yield* run(prepared, "CREATE TEMP TABLE sometimes (a)")
      yield* run(prepared, "DROP TABLE temp.always")
      yield* prepared.reset
      expect(yield* rows(prepared, names)).toEqual([["always"]])
    }))

  it.scopedLive("runs the initial SQL again", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database({ initialSql: ["PRAGMA cache_size = 123"] }))
      yield* run(connection, "PRAGMA cache_size = 77")
      yield* connection.reset
      expect(yield* rows(connection, "PRAGMA cache_size")).toEqual([[123]])
    }))
})

describe("streams", () => {
  const numbers =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i, 'n' || i FROM n"

  it.scopedLive("give 100,000 rows in chunks", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database())
      const cursor = connection.stream(statement(numbers))
      expect(cursor.columns()).toEqual([])
      let total = 0
      let sum = 0
      let chunks = 0
      for (;;) {
        const chunk = yield* next(cursor)
        if (chunk.length === 0) break
        expect(chunk.length).toBeLessThan(1000)
        chunks++
        total += chunk.length
        for (const row of chunk) sum += Number(row[0])
      }
      expect({ total, sum }).toEqual({ total: 100000, sum: 5000050000 })
      expect(chunks).toBeGreaterThan(100)
      expect(cursor.columns()).toHaveLength(2)
      expect(yield* rows(connection, "SELECT 1")).toEqual([[1]])
    }))

  it.scopedLive("that end early leave no lock and no snapshot", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(one, `INSERT INTO items (name, size) SELECT i, 1 FROM (${numbers})`)
      const checkpoint = rows(two, "PRAGMA wal_checkpoint(TRUNCATE)")
      const cursor = one.stream(statement("SELECT id FROM items"))
      expect((yield* next(cursor)).length).toBeGreaterThan(0)
      yield* run(two, insert, "while it is read")
      expect((yield* checkpoint)[0]?.[0]).toBe(1)
      yield* one.cancel
      expect((yield* checkpoint)[0]?.[0]).toBe(0)
      expect(yield* failure(next(cursor))).toMatchObject({ _tag: "StatementCancelled" })
      expect(yield* rows(one, count)).toEqual([[100001]])
    }))

  it.scopedLive("that are read to the end, or fail, leave no snapshot either", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      yield* run(one, insert, "a")
      const cursor = one.stream(statement("SELECT id FROM items"))
      expect(yield* next(cursor)).toEqual([[1]])
      expect((yield* rows(two, "PRAGMA wal_checkpoint(TRUNCATE)"))[0]?.[0]).toBe(0)
      expect(yield* next(cursor)).toEqual([])
      const broken = one.stream(
        statement("SELECT abs(CASE WHEN i > 300 THEN -9223372036854775808 ELSE i END) FROM (" + numbers + ")")
      )
      expect((yield* next(broken)).length).toBeGreaterThan(0)
      expect(yield* failure(next(broken))).toMatchObject({ reason: expect.stringContaining("integer overflow") })
      expect(yield* rows(one, count)).toEqual([[1]])
    }))

  it.scopedLive("of what writes wait for a lock at their first chunk, and can be cancelled there", () =>
    Effect.gen(function*() {
      const { one, two } = yield* pair()
      const writing = statement("INSERT INTO items (size) VALUES (1), (2) RETURNING size")
      yield* run(one, "BEGIN IMMEDIATE")
      const stopped = yield* Effect.fork(failure(next(two.stream(writing))))
      yield* Effect.sleep("30 millis")
      yield* two.cancel
      expect(yield* Fiber.join(stopped)).toMatchObject({ _tag: "StatementCancelled" })
      const cursor = two.stream(writing)
      const waiter = yield* Effect.fork(next(cursor))
      yield* Effect.sleep("30 millis")
      yield* run(one, "COMMIT")
      expect(yield* Fiber.join(waiter)).toEqual([[1], [2]])
      expect(cursor.columns()).toEqual(["size"])
      expect(yield* next(cursor)).toEqual([])
    }))

  it.scopedLive("of a destroyed connection end as lost", () =>
    Effect.gen(function*() {
      const connection = yield* open(yield* database())
      const cursor = connection.stream(statement(numbers))
      yield* next(cursor)
      connection.destroy()
      expect(yield* failure(next(cursor))).toMatchObject({ _tag: "ConnectionLost" })
    }))
})

describe("places", () => {
  it.live("without a name are a private file that is gone at the end, also with a connection left open", () =>
    Effect.gen(function*() {
      const target = yield* Effect.scoped(Effect.gen(function*() {
        const driver = yield* database({ filename: "" })
        const left = yield* driver.connect
        yield* run(left, "CREATE TABLE a (b)")
        expect(Fs.existsSync(driver.target)).toBe(true)
        expect(Path.dirname(Path.dirname(driver.target))).toBe(Os.tmpdir())
        expect(yield* rows(left, "PRAGMA journal_mode")).toEqual([["wal"]])
        expect(yield* rows(left, "PRAGMA busy_timeout")).toEqual([[0]])
        expect(yield* rows(left, "PRAGMA synchronous")).toEqual([[1]])
        return driver.target
      }))
      expect(Fs.existsSync(Path.dirname(target))).toBe(false)
    }))

  it.scopedLive("in memory allow one connection, whose data outlives it", () =>
    Effect.gen(function*() {
      const driver = yield* database({ filename: ":memory:" })
      expect(driver).toMatchObject({ maxConnections: 1, target: ":memory:" })
      const one = yield* driver.connect
      yield* run(one, "CREATE TABLE a (b)")
      yield* run(one, "INSERT INTO a VALUES (1)")
      yield* one.close
      expect(yield* rows(yield* open(driver), "SELECT b FROM a")).toEqual([[1]])
      expect(yield* failure(run(yield* open(yield* database({ url: "sqlite::memory:" })), "SELECT b FROM a")))
        .toMatchObject({
          _tag: "SqlSyntaxError"
        })
    }))

  it.scopedLive("are named by path or URL", () =>
    Effect.gen(function*() {
      const path = Path.join(yield* directory, "a b.db")
      const targets = [
        { filename: path },
        { url: `sqlite:${path}` },
        { url: Redacted.make(`sqlite://${path.replace(" ", "%20")}`) },
        { url: "sqlite::memory:", filename: path }
      ]
      for (const options of targets) expect((yield* database(options)).target).toBe(path)
      expect((yield* database({ url: "sqlite:some/file.db" })).target).toBe(Path.resolve("some/file.db"))
      expect((yield* database({ url: "sqlite:" })).target).toContain(Os.tmpdir())
    }))

  it.scopedLive("that cannot be are refused before anything is opened", () =>
    Effect.gen(function*() {
      const refused: ReadonlyArray<SqliteOptions> = [
        { url: "mysql://localhost/a" },
        { url: "sqlite://host/a" },
        { url: "sqlite:a%" },
        { url: "sqlite:a?mode=ro" },
        { filename: "file:a" },
        { filename: ":memory:", readOnly: true },
        { busyTimeout: "soon" as "1 second" }
      ]
      for (const options of refused) {
        const error = yield* Effect.flip(database(options))
        expect(error._tag).toBe("InvalidConfig")
        expect(error.issues).toHaveLength(1)
      }
    }))

  it.scopedLive("that cannot be opened say why, and are not tried again", () =>
    Effect.gen(function*() {
      const path = yield* directory
      const junk = Path.join(path, "junk.db")
      Fs.writeFileSync(junk, "this is no database ".repeat(100))
      const cases: ReadonlyArray<readonly [SqliteOptions, RegExp]> = [
        [{ filename: Path.join(path, "missing", "a.db") }, /ENOENT/],
        [{ filename: Path.join(path, "missing.db"), readOnly: true }, /ENOENT/],
        [{ filename: path }, /directory/],
        [{ filename: junk }, /not a database/],
        [{ initialSql: ["SELEC 1"] }, /syntax error/]
      ]
      for (const [options, reason] of cases) {
        const error = yield* failure((yield* database(options)).connect)
        expect(error).toMatchObject({
          _tag: "ConnectionError",
          isRetryable: false,
          reason: expect.stringMatching(reason)
        })
      }
    }))
})
