/** Statements, parameters and connections that cannot be: a clear, typed error each, and nothing is lost. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { inject } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import type { Params } from "../../src/Queries.js"
import {
  defect,
  type Dialect,
  dialects,
  expectSecretless,
  failure,
  harmless,
  logged,
  on,
  surfaces,
  withDialect,
  withSqlite
} from "../support/bothDatabases.js"

const text: Record<Dialect, string> = { mysql: "VARCHAR(20)", sqlite: "TEXT" }

/** `people (id, name unique, age not null and positive)` with Ada, and `pets` that belong to people. */
const tables = (dialect: Dialect) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute(
      `CREATE TABLE people (id INT PRIMARY KEY, name ${text[dialect]} UNIQUE, age INT NOT NULL CHECK (age > 0))`
    )
    yield* db.execute("CREATE TABLE pets (owner INT NOT NULL, FOREIGN KEY (owner) REFERENCES people (id))")
    yield* db.execute("INSERT INTO people VALUES (1, 'Ada', 36)")
    yield* db.execute("INSERT INTO pets VALUES (1)")
  })

const everything = Effect.gen(function*() {
  const db = yield* Db.Db
  return [yield* db.values("SELECT * FROM people"), yield* db.values("SELECT * FROM pets")]
})

interface Case {
  readonly name: string
  readonly sql: string
  readonly params?: Params
  readonly tag: DbError["_tag"]
  /** What the server says, where it was asked. */
  readonly mysql?: { readonly errno: number; readonly sqlState: string }
  readonly sqlite?: { readonly errno: number }
}

const circular: Record<string, unknown> = {}
circular["self"] = circular
class Point {
  readonly x = 1
}
const secret = "s3cret-value"

const refusals: ReadonlyArray<Case> = [
  {
    name: "a syntax error",
    sql: "SELEC id FROM people",
    tag: "SqlSyntaxError",
    mysql: { errno: 1064, sqlState: "42000" },
    sqlite: { errno: 1 }
  },
  {
    name: "an unknown table",
    sql: "SELECT * FROM nowhere",
    tag: "SqlSyntaxError",
    mysql: { errno: 1146, sqlState: "42S02" },
    sqlite: { errno: 1 }
  },
  {
    name: "an unknown column",
    sql: "SELECT nothing FROM people WHERE id = ?",
    params: [1],
    tag: "SqlSyntaxError",
    mysql: { errno: 1054, sqlState: "42S22" },
    sqlite: { errno: 1 }
  },
  {
    name: "a unique key that is taken",
    sql: "INSERT INTO people VALUES (?, ?, 1)",
    params: [2, "Ada"],
    tag: "UniqueViolation",
    mysql: { errno: 1062, sqlState: "23000" },
    sqlite: { errno: 2067 }
  },
  {
    name: "a primary key that is taken",
    sql: "INSERT INTO people VALUES (:id, :name, 1)",
    params: { id: 1, name: secret },
    tag: "UniqueViolation",
    mysql: { errno: 1062, sqlState: "23000" },
    sqlite: { errno: 1555 }
  },
  {
    name: "a foreign key that leads nowhere",
    sql: "INSERT INTO pets VALUES (?)",
    params: [7],
    tag: "ConstraintError",
    mysql: { errno: 1452, sqlState: "23000" },
    sqlite: { errno: 787 }
  },
  {
    name: "the deletion of what others refer to",
    sql: "DELETE FROM people",
    tag: "ConstraintError",
    mysql: { errno: 1451, sqlState: "23000" },
    sqlite: { errno: 787 }
  },
  {
    name: "a check that fails",
    sql: "UPDATE people SET age = ?",
    params: [-1],
    tag: "ConstraintError",
    ...(inject("server").flavour === "mariadb"
      ? { mysql: { errno: 4025, sqlState: "23000" } }
      : { mysql: { errno: 3819, sqlState: "HY000" } }),
    sqlite: { errno: 275 }
  },
  {
    name: "NULL where none may be",
    sql: "UPDATE people SET age = ?",
    params: [null],
    tag: "ConstraintError",
    mysql: { errno: 1048, sqlState: "23000" },
    sqlite: { errno: 1299 }
  },
  { name: "too few parameters", sql: "SELECT ?, ?", params: [1], tag: "ParameterError" },
  { name: "too many parameters", sql: "SELECT ?", params: [1, 2], tag: "ParameterError" },
  { name: "no parameters at all", sql: "SELECT ?", tag: "ParameterError" },
  { name: "a missing named parameter", sql: "SELECT :a, :b", params: { a: 1 }, tag: "ParameterError" },
  { name: "an array for named parameters", sql: "SELECT :a", params: [1], tag: "ParameterError" },
  { name: "undefined", sql: "SELECT ?, ?", params: [secret, undefined], tag: "ParameterError" },
  { name: "undefined by name", sql: "SELECT :a, :b", params: { a: secret, b: undefined }, tag: "ParameterError" },
  { name: "a function", sql: "SELECT ?", params: [() => secret], tag: "ParameterError" },
  { name: "a symbol", sql: "SELECT ?", params: [Symbol(secret)], tag: "ParameterError" },
  { name: "NaN", sql: "SELECT ?", params: [NaN], tag: "ParameterError" },
  { name: "infinity", sql: "SELECT ?", params: [-Infinity], tag: "ParameterError" },
  { name: "an invalid date", sql: "SELECT ?", params: [new Date(NaN)], tag: "ParameterError" },
  { name: "an object that holds itself", sql: "SELECT ?", params: [circular], tag: "ParameterError" },
  { name: "an instance of a class", sql: "SELECT ?", params: [new Point()], tag: "ParameterError" },
  { name: "a map", sql: "SELECT ?", params: [new Map([["a", secret]])], tag: "ParameterError" },
  { name: "a promise", sql: "SELECT ?", params: [Promise.resolve(secret)], tag: "ParameterError" },
  { name: "an Option", sql: "SELECT ?", params: [Option.some(secret)], tag: "ParameterError" },
  { name: "a bigint of more than 64 bits", sql: "SELECT ?", params: [2n ** 64n], tag: "ParameterError" },
  { name: "an object with a bigint", sql: "SELECT ?", params: [{ a: 1n }], tag: "ParameterError" },
  { name: "an empty statement", sql: "", tag: "InvalidStatement" },
  { name: "a comment alone", sql: "-- DELETE FROM pets", tag: "InvalidStatement" },
  { name: "a semicolon alone", sql: " ; ", tag: "InvalidStatement" },
  { name: "a second statement", sql: "SELECT 1; DELETE FROM pets", tag: "InvalidStatement" },
  {
    name: "a second statement after one that is sent as text",
    sql: "COMMIT; DELETE FROM pets",
    tag: "InvalidStatement"
  },
  {
    name: "a second statement with parameters",
    sql: "SELECT ?; DELETE FROM pets WHERE owner = ?",
    params: [1, 1],
    tag: "InvalidStatement"
  }
]

describe("a statement that cannot be", () => {
  for (const dialect of dialects) {
    for (const { name, params, sql, tag, ...said } of refusals) {
      it.live(`fails with ${tag} and loses nothing, wherever it is run: ${name} (${dialect})`, () =>
        withDialect(
          dialect,
          { poolSize: 3 },
          Effect.gen(function*() {
            yield* tables(dialect)
            const before = yield* everything
            for (const surface of surfaces) {
              const error = yield* harmless(on(surface, (queries) => queries.execute(sql, params)))
              expect(error).toMatchObject({ _tag: tag, isRetryable: false, ...said[dialect] })
              // with its names replaced by marks, where it had some
              expect("statement" in error ? error.statement : undefined).toContain(sql.split(":")[0])
              expect(error.message).not.toMatch(/\n|undefined(?! cannot)/)
              expectSecretless(error, secret)
            }
            expect(yield* everything).toEqual(before)
          })
        ))
    }

    it.live(`fails in the same way as a stream, before its first row (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.gen(function*() {
          yield* tables(dialect)
          for (const { params, sql, tag } of refusals) {
            for (const surface of surfaces) {
              let rows = 0
              const drain = on(
                surface,
                (queries) => Stream.runForEach(queries.stream(sql, params), () => Effect.sync(() => rows++))
              )
              expect(yield* harmless(drain)).toMatchObject({ _tag: tag })
              expect(rows).toBe(0)
            }
          }
        })
      ))

    it.live(`fails, and the same in the other shapes too (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const shapes: ReadonlyArray<(sql: string) => Effect.Effect<unknown, DbError>> = [
            db.values,
            db.list,
            db.value,
            db.dictionary,
            db.dictionaries,
            db.execute
          ]
          for (const shape of shapes) {
            expect(yield* harmless(shape("SELEC 1"))).toMatchObject({ _tag: "SqlSyntaxError" })
            expect(yield* harmless(shape("SELECT ?"))).toMatchObject({ _tag: "ParameterError" })
          }
        })
      ))

    it.live(`in the midst of a transaction leaves it to go on, when it is caught (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 2 },
        Effect.gen(function*() {
          yield* tables(dialect)
          const db = yield* Db.Db
          yield* db.transaction(Effect.gen(function*() {
            yield* db.execute("INSERT INTO people VALUES (2, 'Bob', 40)")
            for (const { params, sql } of refusals) yield* failure(db.execute(sql, params))
            yield* db.execute("INSERT INTO people VALUES (3, 'Cid', 50)")
          }))
          expect(yield* db.list("SELECT name FROM people ORDER BY id")).toEqual(["Ada", "Bob", "Cid"])
        })
      ))

    it.live(`in the midst of a transaction rolls it back, when it is not (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.gen(function*() {
          yield* tables(dialect)
          const db = yield* Db.Db
          const work = Effect.zipRight(
            db.execute("INSERT INTO people VALUES (2, 'Bob', 40)"),
            db.execute("INSERT INTO people VALUES (3, 'Ada', 50)")
          )
          expect(yield* harmless(db.transaction(work))).toMatchObject({ _tag: "UniqueViolation" })
          expect(yield* db.list("SELECT name FROM people ORDER BY id")).toEqual(["Ada"])
        })
      ))

    it.live(`says which parameter it was and why, not what it was (${dialect})`, () =>
      withDialect(
        dialect,
        {},
        Effect.gen(function*() {
          const db = yield* Db.Db
          const positional = yield* failure(db.value("SELECT ?, ?", [1, undefined]))
          expect(positional.message).toMatch(/^The statement was not sent: parameter 2: .*undefined.*$/)
          const named = yield* failure(db.value("SELECT :first, :second", { first: 1, second: Symbol("x") }))
          expect(named.message).toMatch(/^The statement was not sent: parameter :second: .*symbol.*$/)
        })
      ))
  }
})

describe("a parameter that is changed while its statement waits for its turn", () => {
  type Way = (db: Db.DbService, sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<unknown, DbError>
  const ways: Readonly<Record<string, Way>> = {
    "a statement": (db, sql, params) => db.value(sql, params),
    "a stream": (db, sql, params) => Stream.runDrain(db.stream(sql, params))
  }
  /** A value, and what is done to it. */
  const changes: Readonly<Record<string, () => readonly [value: unknown, change: () => void]>> = {
    "an object that holds itself": () => {
      const value: Record<string, unknown> = {}
      return [value, () => (value["self"] = value)]
    },
    "bytes that are given away": () => {
      const value = new Uint8Array(3)
      return [value, () => structuredClone(value, { transfer: [value.buffer] })]
    }
  }
  const cases = Object.keys(ways).flatMap((way) => Object.keys(changes).map((change) => [way, change] as const))
  it.live.each(cases)(
    "is refused when it cannot be written any more, and nothing else is lost: %s, %s",
    ([way, change]) =>
      withDialect(
        "mysql",
        {},
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* db.session(Effect.gen(function*() {
            yield* db.execute("SET @a = 1")
            // prepared already, or not
            for (const sql of ["SELECT ?", "SELECT ?", "SELECT ? AS another"]) {
              const [value, apply] = changes[change]!()
              const first = yield* Effect.fork(db.value("SELECT SLEEP(0.05)"))
              const second = yield* Effect.fork(Effect.flip(ways[way]!(db, sql, [value])))
              yield* Effect.yieldNow()
              apply()
              yield* Fiber.join(first)
              expect(yield* Fiber.join(second)).toMatchObject({ _tag: "ParameterError" })
            }
            expect(yield* db.value("SELECT @a")).toEqual(Option.some(1))
          }))
        })
      )
  )
})

describe("a second statement", () => {
  // The texts that the library and the server might read differently: the server refuses what got through.
  const smuggled: ReadonlyArray<readonly [name: string, sql: string, mode?: string]> = [
    ["in a comment that the server runs", "SELECT 1 /*! ; DELETE FROM pets */"],
    ["in a comment that MariaDB runs", "SELECT 1 /*M! ; DELETE FROM pets */"],
    ["in a comment of a version", "COMMIT /*!50000 ; DELETE FROM pets */"],
    ["behind a quote that the mode ends earlier", "SET @a = 'x\\'; DELETE FROM pets; -- '", "NO_BACKSLASH_ESCAPES"],
    ["behind a quote, in a statement that is prepared", "SELECT 'x\\'; DELETE FROM pets; -- '", "NO_BACKSLASH_ESCAPES"],
    ["behind a name in quotes", "SET @a = \"x\\\"; DELETE FROM pets; -- \"", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES"],
    ["behind a NUL", "SET @a = 1 -- \0; DELETE FROM pets"],
    ["behind a newline that ends a comment", "SET @a = 1 # x\n; DELETE FROM pets"],
    ["after a compound statement", "BEGIN NOT ATOMIC SELECT 1; END; DELETE FROM pets"]
  ]
  it.live.each(smuggled)(
    "is never run, though smuggled in %s",
    ([, sql, mode = ""]) =>
      withDialect(
        "mysql",
        { poolSize: 2 },
        Effect.gen(function*() {
          yield* tables("mysql")
          const db = yield* Db.Db
          yield* Effect.scoped(Effect.gen(function*() {
            const connection = yield* db.connection
            yield* connection.execute(`SET SESSION sql_mode = '${mode}'`)
            // whether it is refused here or by the server, or the rest of it is a comment
            const outcome = yield* Effect.either(connection.execute(sql))
            if (Either.isLeft(outcome)) expect(["InvalidStatement", "SqlSyntaxError"]).toContain(outcome.left._tag)
            expect(yield* connection.value("SELECT COUNT(*) FROM pets")).toEqual(Option.some(1))
          }))
        })
      )
  )

  it.live("is not run by SQLite either, whatever quotes it stands behind", () =>
    withDialect(
      "sqlite",
      { poolSize: 2 },
      Effect.gen(function*() {
        yield* tables("sqlite")
        const db = yield* Db.Db
        const texts = [
          "SELECT 'x\\'; DELETE FROM pets; -- '",
          "SELECT [x']; DELETE FROM pets; -- ']",
          "SELECT 1 /*! ; DELETE FROM pets */",
          "SELECT 1 --\n; DELETE FROM pets",
          "SELECT 1\0; DELETE FROM pets"
        ]
        for (const sql of texts) {
          yield* Effect.either(db.execute(sql))
          expect(yield* db.value("SELECT COUNT(*) FROM pets")).toEqual(Option.some(1))
        }
      })
    ))
})

describe("a row that does not decode", () => {
  for (const dialect of dialects) {
    it.live(`is a DecodeError that names the statement and what did not fit (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.gen(function*() {
          yield* tables(dialect)
          const Person = Schema.Struct({ id: Schema.Number, name: Schema.Number })
          const sql = "SELECT id, name FROM people"
          for (const surface of surfaces) {
            const all = [
              on(surface, (queries) => queries.decode(Person).dictionaries(sql)),
              on(surface, (queries) => queries.decode(Person).dictionary(sql)),
              on(surface, (queries) => Stream.runCollect(queries.decode(Person).stream(sql)))
            ]
            for (const query of all) {
              const error = yield* harmless<unknown, DbError, Db.Db>(query, { endsStream: true })
              expect(error).toMatchObject({ _tag: "DecodeError", statement: sql, isRetryable: false })
              expect(error.message).toContain("name")
              expect(error.message).toContain("Expected number")
            }
          }
        })
      ))
  }
})

describe("a connection that was given back", () => {
  const after = "after its release"
  for (const dialect of dialects) {
    it.live(`is a defect to use, which says what released it (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 2 },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const ways: ReadonlyArray<
            readonly [string, (connection: Db.DbService["connection"]) => Db.DbService["connection"]]
          > = [
            ["connection.release", Effect.tap(({ release }) => release)],
            ["connection.invalidate", Effect.tap(({ invalidate }) => invalidate)],
            ["the end of its scope in #", (connection) => Effect.flatMap(Effect.scope, () => Effect.scoped(connection))]
          ]
          for (const [by, end] of ways) {
            yield* Effect.scoped(Effect.gen(function*() {
              const connection = yield* end(db.connection)
              const uses = [
                connection.value("SELECT 1"),
                connection.execute("CREATE TABLE never (id INT)"),
                Stream.runDrain(connection.stream("SELECT 1"))
              ]
              for (const use of uses) {
                const message = yield* defect<unknown, DbError, never>(use)
                expect(message).toContain(after)
                expect(message).toContain(`released by ${by}`)
              }
              // what is wrong with the statement itself is told first
              expect(yield* failure(connection.value("SELECT ?"))).toMatchObject({ _tag: "ParameterError" })
            }))
            expect(yield* db.value("SELECT 1")).toEqual(Option.some(1))
          }
          expect(yield* (yield* ConnectionPool.ConnectionPool).snapshot).toMatchObject({ held: 1, waiting: 0 })
          expect(yield* failure(db.list("SELECT * FROM never"))).toMatchObject({ _tag: "SqlSyntaxError" })
        })
      ))

    it.live(`may be given back twice, and after that is nobody's twice (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 2 },
        Effect.gen(function*() {
          const db = yield* Db.Db
          yield* Effect.scoped(Effect.gen(function*() {
            const first = yield* db.connection
            yield* first.release
            yield* first.release
            const second = yield* db.connection
            const third = yield* db.connection
            // a late good-bye of the first is none of theirs
            yield* first.release
            yield* first.invalidate
            expect(second.id).not.toBe(third.id)
            expect(yield* second.value("SELECT 2")).toEqual(Option.some(2))
            expect(yield* third.value("SELECT 3")).toEqual(Option.some(3))
          }))
        })
      ))
  }
})

describe("a closed pool", () => {
  for (const dialect of dialects) {
    it.live(`answers everything with PoolClosed (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 2, name: "shop" },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const pool = yield* ConnectionPool.ConnectionPool
          expect(yield* db.value("SELECT 1")).toEqual(Option.some(1))
          yield* db.releaseFiberConnection
          expect(yield* pool.closeAll).toEqual({ cut: [] })
          const uses: ReadonlyArray<Effect.Effect<unknown, DbError>> = [
            db.value("SELECT 1"),
            db.execute("SELECT 1"),
            Stream.runDrain(db.stream("SELECT 1")),
            Effect.scoped(db.connection),
            db.session(Effect.void),
            db.transaction(Effect.void),
            db.reconnect,
            Effect.flatMap(Effect.fork(db.value("SELECT 1")), Fiber.join)
          ]
          for (const use of uses) {
            const error = yield* failure(use)
            expect(error).toMatchObject({ _tag: "PoolClosed", isRetryable: false, message: "Pool shop is closed" })
          }
          expect(yield* pool.closeAll).toEqual({ cut: [] })
        })
      ))

    it.live(`has told who was using it, and whom it had to cut (${dialect})`, () =>
      withDialect(
        dialect,
        { poolSize: 2, drainTimeout: 0 },
        Effect.gen(function*() {
          const db = yield* Db.Db
          const pool = yield* ConnectionPool.ConnectionPool
          const has = yield* Deferred.make<void>()
          const over = yield* Deferred.make<void>()
          const holder = yield* Effect.fork(Effect.scoped(Effect.gen(function*() {
            const connection = yield* db.connection
            yield* Deferred.succeed(has, undefined)
            yield* Deferred.await(over)
            return yield* failure(connection.value("SELECT 1"))
          })))
          yield* Deferred.await(has)
          const [{ cut }, logs] = yield* logged(pool.closeAll)
          expect(logs.map((line) => line.slice(0, 4))).toEqual(["WARN"])
          expect(logs[0]).toContain(`cut 1 connections in use: ${cut[0]}`)
          expect(cut).toHaveLength(1)
          expect(cut[0]).toMatch(/^#\d+: an explicit connection$/)
          yield* Deferred.succeed(over, undefined)
          const error = yield* Fiber.join(holder)
          expect(["PoolClosed", "ConnectionLost"]).toContain(error._tag)
          expect(error.message).toContain("is closed")
        })
      ))
  }
})

// ---------------------------------------------------------------------------------------------------------------------

describe("locks of others", () => {
  const account = Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance INT)")
    yield* db.execute("INSERT INTO accounts VALUES (1, 100), (2, 100)")
  })

  it.live("that are not granted in time are a LockTimeoutError (mysql)", () =>
    withDialect(
      "mysql",
      { poolSize: 3 },
      Effect.gen(function*() {
        yield* account
        const db = yield* Db.Db
        const now = "SELECT * FROM accounts WHERE id = 1 FOR UPDATE NOWAIT"
        yield* Effect.scoped(Effect.gen(function*() {
          const other = yield* db.connection
          yield* other.execute("START TRANSACTION")
          yield* other.execute("UPDATE accounts SET balance = 0 WHERE id = 1")
          const error = yield* harmless(db.execute(now))
          expect(error).toMatchObject({ _tag: "LockTimeoutError", isRetryable: true, statement: now })
          const patient = yield* db.connection
          yield* patient.execute("SET innodb_lock_wait_timeout = 1")
          expect(yield* failure(patient.execute("UPDATE accounts SET balance = 1 WHERE id = 1"))).toMatchObject({
            _tag: "LockTimeoutError",
            errno: 1205,
            sqlState: "HY000"
          })
          expect(yield* patient.value("SELECT 1")).toEqual(Option.some(1))
          yield* other.execute("ROLLBACK")
        }))
        expect(yield* db.list("SELECT balance FROM accounts")).toEqual([100, 100])
      })
    ))

  it.live("that are not granted in time are a LockTimeoutError (sqlite)", () =>
    withSqlite(
      { poolSize: 3, busyTimeout: "50 millis" },
      Effect.gen(function*() {
        yield* account
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          const other = yield* db.connection
          yield* other.execute("BEGIN IMMEDIATE")
          expect(yield* failure(db.execute("UPDATE accounts SET balance = 1"))).toMatchObject({
            _tag: "LockTimeoutError",
            isRetryable: true,
            errno: 5
          })
          expect(yield* failure(db.transaction(Effect.void))).toMatchObject({ _tag: "LockTimeoutError" })
          yield* other.execute("ROLLBACK")
        }))
        expect(yield* db.execute("UPDATE accounts SET balance = 1")).toMatchObject({ affectedRows: 2 })
      })
    ))

  it.live("in the other order are a DeadlockError for one, and nothing is lost for the other", () =>
    withDialect(
      "mysql",
      { poolSize: 3 },
      Effect.gen(function*() {
        yield* account
        const db = yield* Db.Db
        const firsts = yield* Effect.forEach([0, 1], () => Deferred.make<void>())
        const transfer = (from: number, to: number, mine: number) =>
          db.transaction(Effect.gen(function*() {
            yield* db.execute("UPDATE accounts SET balance = balance - 10 WHERE id = ?", [from])
            yield* Deferred.succeed(firsts[mine]!, undefined)
            yield* Deferred.await(firsts[1 - mine]!)
            yield* db.execute("UPDATE accounts SET balance = balance + 10 WHERE id = ?", [to])
          }))
        const ends = yield* Effect.all([Effect.either(transfer(1, 2, 0)), Effect.either(transfer(2, 1, 1))], {
          concurrency: 2
        })
        const failures = ends.filter(Either.isLeft).map(({ left }) => left)
        expect(failures).toHaveLength(1)
        expect(failures[0]).toMatchObject({
          _tag: "DeadlockError",
          isRetryable: true,
          errno: 1213,
          sqlState: "40001",
          statement: "UPDATE accounts SET balance = balance + 10 WHERE id = ?"
        })
        expect(yield* db.list<number>("SELECT balance FROM accounts ORDER BY balance")).toEqual([90, 110])
        const { closed, lost } = yield* (yield* ConnectionPool.ConnectionPool).snapshot
        expect({ closed, lost }).toEqual({ closed: 0, lost: 0 })
      })
    ))
})

describe("what the user may not do, or not for so long", () => {
  it.live("is an AuthorizationError", () =>
    withDialect(
      "mysql",
      { poolSize: 3 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = "SELECT * FROM mysql.user"
        for (const surface of surfaces) {
          expect(yield* harmless(on(surface, (queries) => queries.values(sql)))).toMatchObject({
            _tag: "AuthorizationError",
            errno: 1142,
            sqlState: "42000",
            statement: sql
          })
        }
        expect(yield* harmless(db.execute("USE mysql"))).toMatchObject({ _tag: "AuthorizationError" })
      })
    ))

  it.live("is a StatementTimeoutError, or the server's own word for it", () =>
    withDialect(
      "mysql",
      { poolSize: 3 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        if (inject("server").flavour === "mariadb") {
          const sql = "SET STATEMENT max_statement_time = 0.05 FOR SELECT SLEEP(30)"
          expect(yield* harmless(db.value(sql))).toMatchObject({ _tag: "StatementTimeoutError", errno: 1969 })
        } else {
          const sql = "SELECT /*+ MAX_EXECUTION_TIME(50) */ COUNT(*) FROM information_schema.COLUMNS a,"
            + " information_schema.COLUMNS b, information_schema.COLUMNS c"
          expect(yield* harmless(db.value(sql))).toMatchObject({ _tag: "StatementTimeoutError", errno: 3024 })
        }
      })
    ))

  it.live("as with values that do not fit their column, is a StatementError that does not quote them", () =>
    withDialect(
      "mysql",
      { poolSize: 3 },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* db.execute("CREATE TABLE narrow (name VARCHAR(3), small TINYINT, born DATE)")
        const cases: ReadonlyArray<readonly [sql: string, value: unknown, errno: number]> = [
          ["INSERT INTO narrow (name) VALUES (?)", secret, 1406],
          ["INSERT INTO narrow (small) VALUES (?)", 300, 1264],
          ["INSERT INTO narrow (small) VALUES (?)", secret, 1366],
          ["INSERT INTO narrow (born) VALUES (?)", secret, 1292]
        ]
        for (const [sql, value, errno] of cases) {
          const error = yield* harmless(db.execute(sql, [value]))
          expect(error).toMatchObject({ _tag: "StatementError", errno, statement: sql })
          expectSecretless(error, secret)
        }
        expect(yield* db.values("SELECT * FROM narrow")).toEqual([])
      })
    ))
})
