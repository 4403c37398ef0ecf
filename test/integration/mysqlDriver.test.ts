import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { connect as connectSocket, createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { inject } from "vitest"
import type { DbError } from "../../src/DbError.js"
import type { Connection, Cursor, Result, Row, Statement } from "../../src/Driver.js"
import { analyze } from "../../src/internal/sessionState.js"
import * as MysqlDriver from "../../src/MysqlDriver.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import { isolationLevel } from "../support/dbQuestions.js"

const server = inject("server")
const isMariadb = server.flavour === "mariadb"

const own: MysqlOptions = {
  host: server.host,
  port: server.port,
  username: server.user,
  password: Redacted.make(server.password),
  database: server.database
}

const statement = (sql: string, params: ReadonlyArray<unknown> = []): Statement => ({
  sql,
  params,
  traits: analyze(sql, "mysql")
})

const execute = (
  connection: Connection,
  sql: string,
  params?: ReadonlyArray<unknown>
): Effect.Effect<Result, DbError> => Effect.async((resume) => connection.run(statement(sql, params), resume))

const row = (connection: Connection, sql: string, params?: ReadonlyArray<unknown>): Effect.Effect<Row, DbError> =>
  Effect.map(execute(connection, sql, params), (result) => result.rows[0] ?? [])

const value = (connection: Connection, sql: string, params?: ReadonlyArray<unknown>): Effect.Effect<unknown, DbError> =>
  Effect.map(row(connection, sql, params), (columns) => columns[0])

const next = (cursor: Cursor): Effect.Effect<ReadonlyArray<Row>, DbError> =>
  Effect.async((resume) => cursor.next(resume))

/** A connection that is gone at the end, whatever the test has left of it. */
const open = (options: MysqlOptions = {}) =>
  Effect.gen(function*() {
    const driver = yield* MysqlDriver.make({ ...own, ...options })
    return yield* Effect.acquireRelease(driver.connect, (connection) =>
      Effect.gen(function*() {
        connection.destroy()
        expect(connection.isOpen()).toBe(false)
        yield* connection.close
      }))
  })

const eventually = (holds: Effect.Effect<boolean, DbError>) =>
  Effect.retry(
    Effect.filterOrFail(holds, (yes) => yes, () => "not yet" as const),
    { schedule: Schedule.spaced("5 millis"), times: 400, while: (error) => error === "not yet" }
  )

const createTable = (connection: Connection, columns: string) =>
  Effect.zipRight(
    execute(connection, "DROP TEMPORARY TABLE IF EXISTS kept"),
    execute(connection, `CREATE TEMPORARY TABLE kept (${columns})`)
  )

/** What a column of this type gives back for a literal. */
const stored = (type: string, literal: string, options?: MysqlOptions) =>
  Effect.scoped(Effect.gen(function*() {
    const connection = yield* open(options)
    yield* execute(connection, "SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
    yield* createTable(connection, `a ${type}`)
    yield* execute(connection, `INSERT INTO kept VALUES (${literal})`)
    return yield* value(connection, "SELECT a FROM kept")
  }))

/** What a column of this type gives back for a parameter. */
const roundTrip = (type: string, parameter: unknown, options?: MysqlOptions) =>
  Effect.scoped(Effect.gen(function*() {
    const connection = yield* open(options)
    yield* createTable(connection, `a ${type}`)
    yield* execute(connection, "INSERT INTO kept VALUES (?)", [parameter])
    return yield* value(connection, "SELECT a FROM kept")
  }))

interface Wire {
  readonly port: number
  /** Breaks every connection, with a FIN or a RST. */
  readonly cut: (how: "end" | "reset") => void
  /** From now on nothing gets through, and nobody is told. */
  readonly silence: () => void
  readonly size: () => number
  /** Succeeds when the client's socket is wholly gone: it resets what comes after its end. */
  readonly clientGone: Effect.Effect<void>
  readonly close: () => void
  /** Changes what the server says from now on. */
  readonly distort: (how: (bytes: Buffer) => Buffer) => void
}

/** A wire to the server that can be cut, or go silent as a black hole does. */
const wire = Effect.acquireRelease(
  Effect.async<Wire>((resume) => {
    const clients = new Set<Socket>()
    let silent = false
    let distort = (bytes: Buffer): Buffer => bytes
    const clientGone = Effect.async<void>((resume) => {
      for (const client of clients) {
        client.on("close", () => resume(Effect.void))
        const prod = (): void => {
          if (!client.destroyed && client.write("anybody?")) setTimeout(prod, 5)
        }
        if (client.readableEnded) prod()
        else client.on("end", prod)
      }
    })
    const proxy = createServer({ allowHalfOpen: true }, (client) => {
      const upstream = connectSocket(server.port, server.host)
      clients.add(client)
      client.on("data", (bytes) => silent || upstream.write(bytes))
      client.on("error", () => upstream.destroy()).on("close", () => upstream.destroy())
      upstream.on("data", (bytes) => silent || client.write(distort(bytes)))
      upstream.on("error", () => client.destroy()).on("close", () => silent || client.destroy())
    })
    const every = (action: (client: Socket) => void): void => clients.forEach(action)
    proxy.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed({
        port: (proxy.address() as AddressInfo).port,
        cut: (how) => every((client) => how === "end" ? client.destroy() : client.resetAndDestroy()),
        silence: () => {
          silent = true
        },
        distort: (how) => {
          distort = how
        },
        size: () => clients.size,
        clientGone,
        close: () => {
          every((client) => client.destroy())
          proxy.close()
        }
      })))
  }),
  (wire) => Effect.sync(() => wire.close())
)

describe("values", () => {
  const literals: ReadonlyArray<readonly [string, string, unknown]> = [
    ["BIGINT", "9007199254740991", 9007199254740991],
    ["BIGINT", "9007199254740992", 9007199254740992n],
    ["BIGINT", "9223372036854775807", 9223372036854775807n],
    ["BIGINT", "-9223372036854775808", -9223372036854775808n],
    ["BIGINT UNSIGNED", "18446744073709551615", 18446744073709551615n],
    ["BIGINT UNSIGNED", "0", 0],
    ["INT", "-2147483648", -2147483648],
    ["TINYINT(1)", "1", 1],
    ["DECIMAL(30, 10)", "12345678901234567890.0123456789", "12345678901234567890.0123456789"],
    ["DOUBLE", "0.1", 0.1],
    ["DATE", "'2024-02-29'", "2024-02-29"],
    ["DATE", "'0000-00-00'", "0000-00-00"],
    ["TIME(3)", "'-838:59:58.5'", "-838:59:58.5"],
    ["TIME", "'10:20:30'", "10:20:30"],
    ["DATETIME(6)", "'2024-02-29 10:20:30.123456'", new Date("2024-02-29T10:20:30.123Z")],
    ["DATETIME(1)", "'2024-02-29 10:20:30.5'", new Date("2024-02-29T10:20:30.500Z")],
    ["DATETIME", "'2024-02-29 00:00:00'", new Date("2024-02-29T00:00:00Z")],
    ["DATETIME", "'0001-01-01 00:00:00'", new Date("0001-01-01T00:00:00Z")],
    ["DATETIME", "'0096-02-29 00:00:00'", new Date("0096-02-29T00:00:00Z")],
    ["DATETIME", "'9999-12-31 23:59:59'", new Date("9999-12-31T23:59:59Z")],
    ["DATETIME", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"],
    ["DATETIME", "'2024-00-15 10:00:00'", "2024-00-15 10:00:00"],
    ["DATETIME", "'2023-02-30 10:00:00'", "2023-02-30 10:00:00"],
    ["TIMESTAMP(3) NULL", "'2024-02-29 10:20:30.123'", new Date("2024-02-29T10:20:30.123Z")],
    ["JSON", `'{"a": [1, null, "x"]}'`, { a: [1, null, "x"] }],
    ["JSON", "'null'", null],
    ["JSON", "NULL", null],
    ["BLOB", "x'00ff10'", Buffer.from([0, 255, 16])],
    ["VARBINARY(3)", "x'00ff10'", Buffer.from([0, 255, 16])],
    ["BIT(9)", "b'100000001'", Buffer.from([1, 1])],
    ["YEAR", "2024", 2024],
    ["ENUM('a', 'b')", "'b'", "b"],
    ["SET('a', 'b')", "'a,b'", "a,b"],
    ["TEXT CHARACTER SET utf8mb4", "'héllo 🌍'", "héllo 🌍"],
    ["INT", "NULL", null]
  ]
  for (const [type, literal, expected] of literals) {
    it.scopedLive(`reads ${type} ${literal}`, () =>
      Effect.gen(function*() {
        const read = yield* stored(type, literal)
        expect(read).toStrictEqual(expected)
      }))
  }

  const parameters: ReadonlyArray<readonly [string, string, unknown, unknown?]> = [
    ["text", "VARCHAR(20) CHARACTER SET utf8mb4", "héllo 🌍"],
    ["an integer", "INT", -5],
    ["a fraction", "DOUBLE", 0.1],
    ["an integer that servers would write as 1.7e15", "VARCHAR(20)", 1_700_000_000_000_000, "1700000000000000"],
    ["a bigint", "BIGINT", -9223372036854775808n],
    ["an unsigned bigint", "BIGINT UNSIGNED", 18446744073709551615n],
    ["true", "BOOLEAN", true, 1],
    ["null", "INT", null],
    ["a Date", "DATETIME(3)", new Date("2024-02-29T10:20:30.123Z")],
    ["a Buffer", "BLOB", Buffer.from([0, 255])],
    ["a plain Uint8Array", "BLOB", new Uint8Array([1, 0, 255, 2]).subarray(1, 3), Buffer.from([0, 255])],
    ["an object", "JSON", { a: [1, "x"] }],
    ["an object without a prototype", "JSON", Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    ["an array", "JSON", [1, { b: null }]],
    ["an empty text", "VARCHAR(5)", ""]
  ]
  for (const [name, type, parameter, expected = parameter] of parameters) {
    it.scopedLive(`sends ${name}`, () =>
      Effect.gen(function*() {
        expect(yield* roundTrip(type, parameter)).toStrictEqual(expected)
      }))
  }

  it.scopedLive("computes exactly with a bigint", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      expect(yield* value(connection, "SELECT ? + 1", [9007199254740993n])).toBe(9007199254740994n)
    }))

  it.scopedLive("reads and writes a DATETIME in the session's time zone", () =>
    Effect.gen(function*() {
      const date = new Date("2024-02-29T23:20:30Z")
      expect(yield* roundTrip("DATETIME", date, { timeZone: "+02:30" })).toStrictEqual(date)
      const connection = yield* open({ timeZone: "-03:00" })
      expect(yield* value(connection, "SELECT CAST(? AS CHAR)", [date])).toContain("2024-02-29 20:20:30")
      expect(yield* value(connection, "SELECT @@session.time_zone")).toBe("-03:00")
    }))

  it.scopedLive("leaves JSON that the server cut off as text", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* execute(connection, "SET SESSION group_concat_max_len = 20")
      const json = yield* value(
        connection,
        "SELECT JSON_ARRAYAGG(x) FROM (SELECT 'aaaaaaaaaaaa' x UNION ALL SELECT 'bbbbbbbb') y"
      )
      expect(Array.isArray(json) || typeof json === "string").toBe(true)
      expect(connection.isOpen()).toBe(true)
    }))

  it.scopedLive("takes a number for LIMIT and OFFSET", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const sql = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 LIMIT ? OFFSET ?"
      expect((yield* execute(connection, sql, [1, 1])).rows).toEqual([[2]])
    }))

  it.effect("rejects what cannot be sent, without naming it", () =>
    Effect.gen(function*() {
      const { rejectParameter } = yield* MysqlDriver.make(own)
      const circular: Record<string, unknown> = {}
      circular["self"] = circular
      const rejected = [
        undefined,
        () => 1,
        Symbol("secret"),
        NaN,
        Infinity,
        new Date(NaN),
        new Date(Date.UTC(10000, 0)),
        2n ** 64n,
        -(2n ** 63n) - 1n,
        circular,
        { a: 1n },
        new Map(),
        Redacted.make("secret")
      ]
      for (const each of rejected) expect(rejectParameter(each)).toMatch(/^(?!.*secret).{10}/)
      const sent = ["", 0, 1.5, 1n, true, null, new Date(0), new Uint8Array(1), Buffer.alloc(1), {}, [], { a: [1] }]
      for (const each of sent) expect(rejectParameter(each)).toBeUndefined()
    }).pipe(Effect.scoped))
})

describe("a statement", () => {
  it.scopedLive("says how many rows it affected, its first id and its warnings", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* createTable(connection, "id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, a INT")
      const inserted = yield* execute(connection, "INSERT INTO kept (a) VALUES (?), (?)", [1, 2])
      expect(inserted).toMatchObject({ columns: [], rows: [], affectedRows: 2, insertId: 1, warnings: 0 })
      const selected = yield* execute(connection, "SELECT a AS `x y`, a FROM kept ORDER BY id LIMIT 1")
      expect(selected).toMatchObject({ columns: ["x y", "a"], rows: [[1, 1]], affectedRows: 0, insertId: 0 })
      expect((yield* execute(connection, "SELECT 1/0")).warnings).toBe(1)
    }))

  it.scopedLive("gives an unsigned id beyond 2⁶³ as what it is", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* createTable(connection, "id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY")
      const id = 2n ** 63n + 2n ** 60n
      yield* execute(connection, "INSERT INTO kept VALUES (?)", [id - 1n])
      expect((yield* execute(connection, "INSERT INTO kept VALUES (NULL)")).insertId).toBe(id)
    }))

  it.scopedLive("with the wrong number of parameters is not executed", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const error = yield* Effect.flip(execute(connection, "SELECT ?, ?", [1]))
      expect(error).toMatchObject({ _tag: "ParameterError" })
      expect(yield* value(connection, "SELECT ?", [1])).toBe(1)
    }))

  it.scopedLive("that is really two is refused, prepared and as text", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      for (const sql of ["SELECT 1; SELECT 2", "SET @a = 1; SET @b = 2", "BEGIN; DROP TABLE x"]) {
        expect((yield* Effect.flip(execute(connection, sql)))._tag).toBe("SqlSyntaxError")
      }
      expect(connection.isOpen()).toBe(true)
    }))

  it.scopedLive("that cannot be prepared is sent as text", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* execute(connection, "PREPARE named FROM 'SELECT ? + 1'")
      yield* execute(connection, "SET @a = 41")
      expect((yield* execute(connection, "EXECUTE named USING @a")).rows).toEqual([[42]])
      for (let time = 0; time < 2; time++) {
        yield* execute(connection, "CREATE OR REPLACE VIEW seen AS SELECT 1 AS one")
        yield* execute(connection, "HELP 'select'")
      }
      yield* execute(connection, "DROP VIEW seen")
    }))

  it.scopedLive("is prepared again when the server has forgotten it", () =>
    Effect.gen(function*() {
      const connection = yield* open({ preparedStatements: 3 })
      for (let turn = 0; turn < 3; turn++) {
        for (let each = 0; each < 10; each++) expect(yield* value(connection, `SELECT ? + ${each}`, [1])).toBe(1 + each)
      }
      yield* connection.reset
      for (let each = 0; each < 10; each++) expect(yield* value(connection, `SELECT ? + ${each}`, [1])).toBe(1 + each)
    }))

  it.scopedLive("is answered with the columns that its table has now, however they have changed since the last time", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const other = yield* open()
      const changes: ReadonlyArray<readonly [change: string, columns: ReadonlyArray<string>, row: Row]> = [
        ["COMMENT = 'nothing'", ["id", "name", "n"], [1, "é", 7]],
        ["MODIFY n VARCHAR(10)", ["id", "name", "n"], [1, "é", "7"]],
        ["MODIFY n DECIMAL(5, 2)", ["id", "name", "n"], [1, "é", "7.00"]],
        ["MODIFY n BIGINT UNSIGNED", ["id", "name", "n"], [1, "é", 7]],
        ["CHANGE name nome VARCHAR(20) CHARACTER SET latin1", ["id", "nome", "n"], [1, "é", 7]],
        ["CHANGE nome nöme VARBINARY(20)", ["id", "nöme", "n"], [1, Buffer.from("é", "latin1"), 7]],
        ["DROP n", ["id", "nöme"], [1, Buffer.from("é", "latin1")]],
        ["ADD at DATETIME DEFAULT '2024-02-29 12:00:00' FIRST", ["at", "id", "nöme"], [
          new Date("2024-02-29T12:00:00Z"),
          1,
          Buffer.from("é", "latin1")
        ]],
        ["DROP nöme", ["at", "id"], [new Date("2024-02-29T12:00:00Z"), 1]]
      ]
      yield* execute(connection, "CREATE TABLE altered (id INT, name VARCHAR(10), n INT)")
      yield* execute(connection, "INSERT INTO altered VALUES (1, 'é', 7)")
      const ask = execute(connection, "SELECT * FROM altered WHERE id = ?", [1])
      yield* Effect.addFinalizer(() => Effect.ignore(execute(other, "DROP TABLE altered")))
      expect(yield* ask).toMatchObject({ columns: ["id", "name", "n"], rows: [[1, "é", 7]] })
      for (const [change, columns, row] of changes) {
        yield* execute(other, `ALTER TABLE altered ${change}`)
        for (const time of ["first", "second"]) {
          const { columns: found, rows } = yield* ask
          expect({ change, time, columns: found, rows }).toEqual({ change, time, columns, rows: [row] })
        }
      }
    }))

  it.scopedLive("that calls a procedure gives its first rows, and leaves the session in doubt", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* execute(connection, "DROP PROCEDURE IF EXISTS two_results")
      yield* execute(
        connection,
        "CREATE PROCEDURE two_results(x INT) BEGIN DO 0; SELECT x AS first UNION SELECT 2; SELECT 'second'; END"
      )
      yield* connection.reset
      expect(connection.session()).toBe("clean")
      expect(yield* execute(connection, "CALL two_results(?)", [1])).toMatchObject({
        columns: ["first"],
        rows: [[1], [2]]
      })
      expect(connection.session()).toBe("changed")
      const cursor = connection.stream(statement("CALL two_results(?)", [1]))
      expect(yield* next(cursor)).toEqual([[1], [2]])
      expect(yield* next(cursor)).toEqual([])
      yield* execute(connection, "DROP PROCEDURE two_results")
    }))

  const refusals: ReadonlyArray<readonly [string, string]> = [
    ["SELEC 1", "SqlSyntaxError"],
    ["SELECT nothing FROM nowhere", "SqlSyntaxError"],
    ["INSERT INTO kept VALUES (1, 1)", "UniqueViolation"],
    ["INSERT INTO kept VALUES (2, NULL)", "ConstraintError"],
    ["INSERT INTO kept VALUES (2, -1)", "ConstraintError"],
    ["KILL QUERY 4294967295", "StatementError"]
  ]
  it.scopedLive.each(refusals)(
    "that fails names its kind and leaves the connection usable: %s",
    ([sql, tag]) =>
      Effect.gen(function*() {
        const connection = yield* open()
        yield* createTable(connection, "a INT PRIMARY KEY, b INT NOT NULL CHECK (b > 0)")
        yield* execute(connection, "INSERT INTO kept VALUES (1, 1)")
        const error = yield* Effect.flip(execute(connection, sql))
        expect(error).toMatchObject({ _tag: tag, statement: sql })
        expect(yield* value(connection, "SELECT COUNT(*) FROM kept")).toBe(1)
      })
  )

  it.scopedLive("that is larger than the server takes ends the connection, without being lost", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const size = Number(yield* value(connection, "SELECT @@max_allowed_packet"))
      const error = yield* Effect.flip(value(connection, "SELECT LENGTH(?)", ["x".repeat(size + 1000)]))
      expect(["StatementError", "ConnectionLost"]).toContain(error._tag)
      yield* eventually(Effect.sync(() => !connection.isOpen()))
    }))

  it.scopedLive("of 20 MB goes there and back", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      if (Number(yield* value(connection, "SELECT @@max_allowed_packet")) < 21_000_000) return
      const text = "é".repeat(10_000_000)
      expect((yield* value(connection, "SELECT ?", [text])) === text).toBe(true)
    }))
})

describe("the session", () => {
  const cases: ReadonlyArray<readonly [string, string, "clean" | "changed" | "transaction"]> = [
    ["a plain SELECT", "SELECT 1", "clean"],
    ["SHOW", "SHOW TABLES", "clean"],
    ["DO", "DO 0", "clean"],
    ["a user variable", "SET @x = 1", "changed"],
    ["a user variable set by a SELECT", "SELECT 1 INTO @x", "changed"],
    ["a setting", "SET SESSION sort_buffer_size = 300000", "changed"],
    ["autocommit off", "SET autocommit = 0", "changed"],
    ["a temporary table", "CREATE TEMPORARY TABLE temporary_one (a INT)", "changed"],
    ["a named lock", "SELECT GET_LOCK('driver_test', 0)", "changed"],
    ["table locks", "LOCK TABLES information_schema.tables READ", "changed"],
    ["another database", "USE mysql", "changed"],
    ["the next transaction's level", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "changed"],
    ["a prepared statement", "PREPARE one FROM 'SELECT 1'", "changed"],
    ["an open transaction", "START TRANSACTION", "transaction"],
    ["BEGIN", "BEGIN", "transaction"],
    ["a read-only transaction", "START TRANSACTION READ ONLY", "transaction"]
  ]
  for (const [name, sql, state] of cases) {
    it.scopedLive(`is ${state} after ${name}`, () =>
      Effect.gen(function*() {
        const connection = yield* open()
        expect(connection.session()).toBe("clean")
        yield* Effect.ignore(execute(connection, sql))
        expect(connection.session()).toBe(state)
        yield* connection.reset
        expect(connection.session()).toBe("clean")
      }))
  }

  it.scopedLive("is clean after inserts, updates and deletes", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* execute(connection, "DROP TABLE IF EXISTS driver_writes")
      yield* execute(connection, "CREATE TABLE driver_writes (a INT) ENGINE = InnoDB")
      yield* connection.reset
      yield* execute(connection, "INSERT INTO driver_writes VALUES (?)", [1])
      yield* execute(connection, "UPDATE driver_writes SET a = ?", [2])
      yield* execute(connection, "DELETE FROM driver_writes")
      yield* execute(connection, "DROP TABLE driver_writes")
      expect(connection.session()).toBe("clean")
    }))

  it.scopedLive("is clean again after a transaction with savepoints and a level of its own", () =>
    Effect.gen(function*() {
      const driver = yield* MysqlDriver.make(own)
      const connection = yield* open()
      yield* execute(connection, "CREATE TABLE IF NOT EXISTS driver_transactions (a INT) ENGINE = InnoDB")
      yield* connection.reset
      const { transaction } = driver
      const begin = transaction.begin({ isolation: "SERIALIZABLE", readOnly: true }) ?? []
      expect(begin).toHaveLength(2)
      for (const sql of begin) yield* execute(connection, sql)
      expect(connection.session()).toBe("transaction")
      yield* execute(connection, transaction.savepoint("a`b"))
      yield* execute(connection, transaction.rollbackTo("a`b"))
      yield* execute(connection, transaction.releaseSavepoint("a`b"))
      expect(connection.session()).toBe("transaction")
      const write = "INSERT INTO driver_transactions VALUES (1)"
      expect(yield* Effect.flip(execute(connection, write))).toMatchObject({ _tag: "StatementError", errno: 1792 })
      yield* execute(connection, transaction.commit)
      expect(connection.session()).toBe("clean")
      yield* execute(connection, "BEGIN")
      yield* execute(connection, transaction.rollback)
      expect(connection.session()).toBe("clean")
      yield* execute(connection, "DROP TABLE driver_transactions")
      expect(transaction.begin({ isolation: "SNAPSHOT" as never })).toBeUndefined()
    }))

  it.scopedLive("stays in its transaction while rows are read", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* execute(connection, "BEGIN")
      yield* execute(connection, "SELECT 1")
      expect(connection.session()).toBe("transaction")
    }))

  if (isMariadb) {
    it.scopedLive("is changed when a function inside a view or SELECT has changed it", () =>
      Effect.gen(function*() {
        const connection = yield* open()
        yield* execute(connection, "CREATE OR REPLACE FUNCTION quiet() RETURNS INT BEGIN SET @y = 5; RETURN 1; END")
        yield* execute(connection, "CREATE OR REPLACE VIEW quiet_view AS SELECT quiet() AS a")
        yield* connection.reset
        yield* execute(connection, "SELECT a FROM quiet_view")
        expect(connection.session()).toBe("changed")
        yield* execute(connection, "DROP VIEW quiet_view")
        yield* execute(connection, "DROP FUNCTION quiet")
      }))
  }

  const settings = "SELECT @@character_set_client, @@character_set_results, @@collation_connection, @@time_zone,"
    + " @@autocommit, @@sql_mode, DATABASE(), @initial, "
    + isolationLevel()

  it.scopedLive("is after a reset what it was after the connect", () =>
    Effect.gen(function*() {
      const connection = yield* open({
        isolation: "READ COMMITTED",
        timeZone: "+05:30",
        collation: "utf8mb4_general_ci",
        initialSql: ["SET @initial = 7", "SELECT 1 UNION SELECT 2", "SET SESSION lock_wait_timeout = 77"]
      })
      const before = yield* row(connection, settings)
      expect(before.slice(0, 5)).toEqual(["utf8mb4", "utf8mb4", "utf8mb4_general_ci", "+05:30", 1])
      expect(before.slice(6)).toEqual([server.database, 7, "READ-COMMITTED"])
      yield* execute(connection, "USE mysql")
      yield* execute(connection, "SET NAMES latin1, time_zone = '+01:00', autocommit = 0, sql_mode = 'ANSI'")
      yield* execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
      yield* execute(connection, "SET @initial = 1, @other = 2")
      expect(yield* value(connection, "SELECT ?", ["é"])).toBe("é")
      yield* createTable(connection, "a INT")
      yield* connection.reset
      expect(connection.session()).toBe("clean")
      expect(yield* row(connection, settings)).toEqual(before)
      expect(yield* row(connection, "SELECT @other, @@lock_wait_timeout, ?", ["é🌍"])).toEqual([null, 77, "é🌍"])
      expect((yield* Effect.flip(execute(connection, "SELECT * FROM kept")))._tag).toBe("SqlSyntaxError")
      yield* execute(connection, "SET @tracked = 1")
      expect(connection.session()).toBe("changed")
    }))

  it.scopedLive("is rolled back and unlocked by a reset", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const other = yield* open()
      yield* execute(connection, "DROP TABLE IF EXISTS driver_locked")
      yield* execute(connection, "CREATE TABLE driver_locked (a INT) ENGINE = InnoDB")
      yield* execute(connection, "BEGIN")
      yield* execute(connection, "INSERT INTO driver_locked VALUES (1)")
      expect(yield* value(connection, "SELECT GET_LOCK('driver_reset', 0)")).toBe(1)
      yield* connection.reset
      expect(yield* value(other, "SELECT COUNT(*) FROM driver_locked")).toBe(0)
      expect(yield* value(other, "SELECT GET_LOCK('driver_reset', 0)")).toBe(1)
      yield* execute(other, "DROP TABLE driver_locked")
    }))

  it.scopedLive("cannot be reset to no default database", () =>
    Effect.gen(function*() {
      const connection = yield* open({ database: undefined })
      expect(yield* value(connection, "SELECT DATABASE()")).toBeNull()
      yield* connection.reset
      yield* execute(connection, "USE mysql")
      yield* Effect.flip(connection.reset)
    }))

  it.scopedLive("that cannot be restored fails the reset", () =>
    Effect.gen(function*() {
      const admin = yield* open()
      yield* execute(admin, "CREATE DATABASE IF NOT EXISTS driver_gone")
      const connection = yield* open({ database: "driver_gone" })
      yield* execute(admin, "DROP DATABASE driver_gone")
      expect((yield* Effect.flip(connection.reset))._tag).toBe("SqlSyntaxError")
    }))
})

describe("a cursor", () => {
  const digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL"
    + " SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
  const many = `SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n, REPEAT('x', ?) AS pad`
    + ` FROM ${digits} a, ${digits} b, ${digits} c, ${digits} e, ${digits} f`

  it.scopedLive("reads 100,000 rows with pauses, in chunks", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const cursor = connection.stream(statement(many, [100]))
      const seen = new Set<unknown>()
      let chunks = 0
      let largest = 0
      for (;;) {
        const chunk = yield* next(cursor)
        if (chunk.length === 0) break
        chunk.forEach(([n]) => seen.add(n))
        chunks += 1
        largest = Math.max(largest, chunk.length)
        if (chunks % 50 === 0) yield* Effect.sleep("5 millis")
      }
      expect(seen.size).toBe(100_000)
      expect(largest).toBeLessThanOrEqual(512)
      expect(chunks).toBeGreaterThan(190)
      expect(cursor.columns()).toEqual(["n", "pad"])
      expect(connection.session()).toBe("clean")
      expect(yield* value(connection, "SELECT 1")).toBe(1)
    }))

  it.scopedLive("reads nothing from the server while nobody asks", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const { stream } = (connection as unknown as { readonly raw: { readonly stream: Socket } }).raw
      const cursor = connection.stream(statement(many, [1000]))
      expect((yield* next(cursor)).length).toBeGreaterThan(0)
      yield* Effect.sleep("50 millis")
      const read = stream.bytesRead
      expect(read).toBeLessThan(1_000_000)
      yield* Effect.sleep("200 millis")
      expect(stream.bytesRead).toBe(read)
      yield* connection.cancel
      expect(yield* value(connection, "SELECT 1")).toBe(1)
    }))

  it.scopedLive("converts values, ends empty without rows, and fails like a statement", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const cursor = connection.stream(statement("SELECT 9007199254740993, CAST('2024-01-01' AS DATETIME)"))
      expect(yield* next(cursor)).toEqual([[9007199254740993n, new Date("2024-01-01T00:00:00Z")]])
      expect(yield* next(cursor)).toEqual([])
      expect(yield* next(connection.stream(statement("SELECT 1 FROM dual WHERE 1 = 0")))).toEqual([])
      expect(yield* next(connection.stream(statement("SET @a = 1")))).toEqual([])
      expect(connection.session()).toBe("changed")
      const failed = yield* Effect.flip(next(connection.stream(statement("SELECT nothing"))))
      expect(failed._tag).toBe("SqlSyntaxError")
      const mismatch = yield* Effect.flip(next(connection.stream(statement("SELECT ?"))))
      expect(mismatch._tag).toBe("ParameterError")
      const late = connection.stream(statement("SELECT 1 UNION ALL SELECT (SELECT 1 UNION SELECT 2)"))
      yield* Effect.flip(Effect.forever(next(late)))
      expect(yield* value(connection, "SELECT 1")).toBe(1)
    }))
})

describe("cancel", () => {
  it.scopedLive("stops a sleeping statement and leaves the connection usable", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      // MySQL's SLEEP answers 1 when it was stopped, and 0 when it was not
      const told = (exit: Exit.Exit<Result, DbError>): unknown =>
        Exit.isFailure(exit) ? Cause.squash(exit.cause) : `SLEEP answered ${String(exit.value.rows[0]?.[0])}`
      for (let turn = 0; turn < 20; turn++) {
        const sleeping = yield* Effect.fork(Effect.exit(execute(connection, "SELECT SLEEP(10), ?", [turn])))
        yield* Effect.yieldNow()
        if (turn % 2 === 0) yield* Effect.sleep("20 millis")
        yield* connection.cancel
        const answer = told(yield* Fiber.join(sleeping))
        if (answer !== "SLEEP answered 1") expect(answer).toMatchObject({ _tag: "StatementCancelled" })
        expect(yield* value(connection, "SELECT SLEEP(0.001)")).toBe(0)
      }
    }), 30_000)

  it.scopedLive("stops a statement that waits for a lock", () =>
    Effect.gen(function*() {
      const holder = yield* open()
      const connection = yield* open()
      yield* execute(holder, "DROP TABLE IF EXISTS driver_waits")
      yield* execute(holder, "CREATE TABLE driver_waits (a INT PRIMARY KEY) ENGINE = InnoDB")
      yield* execute(holder, "INSERT INTO driver_waits VALUES (1)")
      yield* execute(holder, "BEGIN")
      yield* execute(holder, "UPDATE driver_waits SET a = 2")
      const waiting = yield* Effect.fork(execute(connection, "UPDATE driver_waits SET a = 3"))
      yield* Effect.sleep("50 millis")
      yield* connection.cancel
      expect((yield* Effect.flip(Fiber.join(waiting)))._tag).toBe("StatementCancelled")
      yield* execute(holder, "ROLLBACK")
      yield* execute(holder, "DROP TABLE driver_waits")
    }))

  it.scopedLive("does nothing when nothing runs, and not even ask when it is over by then", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      yield* connection.cancel
      for (let turn = 0; turn < 50; turn++) {
        const quick = yield* Effect.fork(Effect.exit(value(connection, "SELECT ?", [turn])))
        yield* Effect.yieldNow()
        yield* connection.cancel
        yield* Fiber.join(quick)
        expect(yield* value(connection, "SELECT SLEEP(0)")).toBe(0)
      }
    }))

  it.scopedLive("stops an abandoned cursor", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const cursor = connection.stream(
        statement(
          "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT a.n FROM s a, s b, s c"
        )
      )
      expect((yield* next(cursor)).length).toBeGreaterThan(0)
      // 729 million rows would take longer than the test may
      yield* connection.cancel
      expect(yield* value(connection, "SELECT 1")).toBe(1)
    }))

  // A user of its own, so that what other tests do on this server is not counted, let alone killed.
  const lonelyUser = (name: string) =>
    Effect.gen(function*() {
      const admin = yield* open()
      yield* Effect.acquireRelease(
        execute(admin, `CREATE USER ${name} IDENTIFIED BY 'lonely'`),
        () => Effect.orDie(execute(admin, `DROP USER ${name}`))
      )
      yield* execute(admin, `GRANT ALL ON ${server.database}.* TO ${name}`)
      const options: MysqlOptions = { ...own, username: name, password: Redacted.make("lonely") }
      const ids = Effect.map(
        execute(admin, "SELECT id FROM information_schema.processlist WHERE user = ? ORDER BY id", [name]),
        (result) => result.rows.map(([id]) => String(id))
      )
      return { admin, options, ids }
    })

  it.scopedLive("uses one side connection for all, which ends with the driver", () =>
    Effect.gen(function*() {
      const { ids, options } = yield* lonelyUser("driver_sided")
      yield* Effect.scoped(Effect.gen(function*() {
        const driver = yield* MysqlDriver.make(options)
        const connections = yield* Effect.all(
          Array.from({ length: 5 }, () =>
            Effect.acquireRelease(driver.connect, (connection) => Effect.sync(() => connection.destroy())))
        )
        const sleeping = yield* Effect.forEach(connections, (connection) =>
          Effect.fork(Effect.exit(execute(connection, "SELECT SLEEP(10)"))))
        yield* Effect.sleep("30 millis")
        yield* Effect.forEach(connections, (connection) =>
          connection.cancel, { concurrency: "unbounded" })
        yield* Effect.forEach(sleeping, Fiber.join)
        expect(yield* ids).toHaveLength(6)
      }))
      yield* eventually(Effect.map(ids, ({ length }) =>
        length === 0))
    }))

  it.scopedLive("opens another side connection when the first was killed", () =>
    Effect.gen(function*() {
      const { admin, ids, options } = yield* lonelyUser("driver_killed")
      const connection = yield* open(options)
      for (let turn = 0; turn < 2; turn++) {
        const sleeping = yield* Effect.fork(Effect.exit(execute(connection, "SELECT SLEEP(10)")))
        yield* Effect.sleep("30 millis")
        yield* connection.cancel
        yield* Fiber.join(sleeping)
        const others = (yield* ids).filter((id) => id !== connection.id)
        expect(others).toHaveLength(1)
        yield* execute(admin, `KILL ${others.join()}`)
      }
    }))

  it.scopedLive("fails at once when it is switched off", () =>
    Effect.gen(function*() {
      const connection = yield* open({ cancelQueries: false })
      const sleeping = yield* Effect.fork(execute(connection, "SELECT SLEEP(10)"))
      yield* Effect.sleep("20 millis")
      yield* Effect.flip(connection.cancel)
      connection.destroy()
      expect(yield* Effect.flip(Fiber.join(sleeping))).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
    }))
})

describe("a connection that breaks", () => {
  it.scopedLive("while a statement runs ends it with an unknown outcome", () =>
    Effect.gen(function*() {
      const connection = yield* open()
      const admin = yield* open()
      const sleeping = yield* Effect.fork(execute(connection, "SELECT SLEEP(10)"))
      yield* Effect.sleep("50 millis")
      yield* execute(admin, `KILL ${connection.id}`)
      expect(yield* Effect.flip(Fiber.join(sleeping))).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
      expect(connection.isOpen()).toBe(false)
      expect(yield* Effect.flip(execute(connection, "SELECT 1"))).toMatchObject({ outcome: "not executed" })
      expect(yield* Effect.flip(connection.ping)).toMatchObject({ _tag: "ConnectionLost" })
      expect(yield* Effect.flip(connection.reset)).toMatchObject({ _tag: "ConnectionLost" })
      expect(yield* Effect.flip(next(connection.stream(statement("SELECT 1"))))).toMatchObject({
        _tag: "ConnectionLost"
      })
      yield* connection.cancel
    }))

  it.scopedLive("while idle is reported once, and not when it was closed or destroyed", () =>
    Effect.gen(function*() {
      const admin = yield* open()
      const lost: Array<string> = []
      const listen = (name: string, options?: MysqlOptions) =>
        Effect.tap(open(options), (connection) =>
          Effect.sync(() => connection.onLost((e) => lost.push(`${name} ${e._tag}`))))
      const killed = yield* listen("killed")
      const destroyed = yield* listen("destroyed")
      const closed = yield* listen("closed")
      const timedOut = yield* listen("timed out", { initialSql: ["SET SESSION wait_timeout = 1"] })
      yield* execute(admin, `KILL ${killed.id}`)
      destroyed.destroy()
      destroyed.destroy()
      yield* closed.close
      yield* closed.close
      yield* eventually(Effect.sync(() =>
        !killed.isOpen() && !timedOut.isOpen()
      ))
      yield* Effect.sleep("50 millis")
      expect(lost.sort()).toEqual(["killed ConnectionLost", "timed out ConnectionLost"])
      const late: Array<string> = []
      const unheard = yield* open()
      yield* execute(admin, `KILL ${unheard.id}`)
      yield* eventually(Effect.sync(() => !unheard.isOpen()))
      yield* Effect.sleep("10 millis")
      for (const connection of [killed, unheard]) {
        connection.onLost((error) => late.push(`${connection.id} ${error._tag}`))
      }
      yield* Effect.sleep("5 millis")
      expect(late).toEqual([`${unheard.id} ConnectionLost`])
    }))

  it.scopedLive("in the middle of rows fails the cursor", () =>
    Effect.gen(function*() {
      const proxied = yield* wire
      const connection = yield* open({ port: proxied.port })
      const cursor = connection.stream(
        statement(
          "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT a.n FROM s a, s b"
        )
      )
      yield* next(cursor)
      proxied.cut("reset")
      const error = yield* Effect.flip(Effect.forever(next(cursor)))
      expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
      expect(yield* Effect.flip(next(cursor))).toBe(error)
    }))

  it.scopedLive("before a statement is prepared has not executed it", () =>
    Effect.gen(function*() {
      const proxied = yield* wire
      const connection = yield* open({ port: proxied.port })
      yield* execute(connection, "SELECT ?", [1])
      proxied.silence()
      const known = yield* Effect.fork(execute(connection, "SELECT ? + 1", [1]))
      yield* Effect.sleep("20 millis")
      proxied.cut("end")
      expect(yield* Effect.flip(Fiber.join(known))).toMatchObject({ _tag: "ConnectionLost", outcome: "not executed" })
    }))

  const started: ReadonlyArray<readonly [string, (connection: Connection) => Effect.Effect<unknown, DbError>]> = [
    ["a statement being prepared", (connection) => execute(connection, "SELECT ? + 2", [1])],
    ["a prepared statement", (connection) => execute(connection, "SELECT ?", [1])],
    ["a text", (connection) => execute(connection, "SET @a = 1")],
    ["a cursor", (connection) => Effect.suspend(() => next(connection.stream(statement("SELECT ?", [1]))))],
    ["a ping", (connection) => connection.ping],
    ["a reset", (connection) => connection.reset]
  ]
  for (const [name, start] of started) {
    for (const way of ["destroy", "silence then destroy", "cut"] as const) {
      it.scopedLive(`never leaves ${name} unanswered: ${way}`, () =>
        Effect.gen(function*() {
          const proxied = yield* wire
          const connection = yield* open({ port: proxied.port })
          yield* execute(connection, "SELECT ?", [1])
          if (way !== "destroy") proxied.silence()
          const running = yield* Effect.fork(start(connection))
          yield* Effect.yieldNow()
          if (way !== "destroy") yield* Effect.sleep("10 millis")
          if (way === "cut") proxied.cut("end")
          else connection.destroy()
          const exit = yield* Effect.timeout(Fiber.await(running), "2 seconds")
          expect(Exit.isFailure(exit)).toBe(true)
          expect(connection.isOpen()).toBe(false)
        }))
    }
  }

  it.scopedLive("takes its socket with it when the other side has gone silent", () =>
    Effect.gen(function*() {
      const proxied = yield* wire
      const connection = yield* open({ port: proxied.port })
      proxied.silence()
      connection.destroy()
      yield* Effect.timeout(proxied.clientGone, "2 seconds")
    }))

  it.scopedLive("is destroyed when its good-bye is interrupted", () =>
    Effect.gen(function*() {
      const proxied = yield* wire
      const connection = yield* open({ port: proxied.port })
      proxied.silence()
      yield* Effect.flip(Effect.timeout(connection.close, "50 millis"))
      expect(connection.isOpen()).toBe(false)
    }))
})

describe("an answer that cannot be right", () => {
  const renumber = (bytes: Buffer, at: number): Buffer => {
    const changed = Buffer.from(bytes)
    changed.writeUInt8(99, at + 3)
    return changed
  }
  const distortions: Readonly<Record<string, readonly [sql: string, how: (bytes: Buffer) => Buffer]>> = {
    "whose OK has the wrong number": ["DO ?", (bytes) => renumber(bytes, 0)],
    "whose last packet has the wrong number": ["SELECT ?", (bytes) => renumber(bytes, bytes.length - 9)],
    "after which one more comes": ["DO ?", (bytes) => {
      const surplus = Buffer.from(bytes)
      surplus.writeUInt8(bytes.readUInt8(3) + 1, 3)
      return Buffer.concat([bytes, surplus])
    }]
  }
  for (const [which, [sql, how]] of Object.entries(distortions)) {
    it.scopedLive(`${which} is not believed`, () =>
      Effect.gen(function*() {
        const through = yield* wire
        const connection = yield* open({ port: through.port })
        // prepared already, so that only the answer is distorted
        yield* execute(connection, sql, [1])
        through.distort(how)
        const error = yield* Effect.flip(execute(connection, sql, [2]))
        expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
        expect(connection.isOpen()).toBe(false)
      }))
  }
})

describe("connect", () => {
  const failure = (options: MysqlOptions) =>
    Effect.scoped(Effect.flatMap(MysqlDriver.make({ ...own, ...options }), (driver) => Effect.flip(driver.connect)))

  it.live("says that the password is wrong, and nothing of it", () =>
    Effect.gen(function*() {
      const error = yield* failure({ password: Redacted.make("s3cr3t") })
      expect(error).toMatchObject({ _tag: "AuthenticationError", errno: 1045, isRetryable: false })
      expect(JSON.stringify(error) + String(error.stack)).not.toContain("s3cr3t")
    }))

  it.live("says that the database is unknown", () =>
    Effect.gen(function*() {
      const error = yield* failure({ database: "no_such_database" })
      expect(error).toMatchObject({ _tag: "ConnectionError", errno: 1049, isRetryable: false })
    }))

  it.live("may be tried again when nobody listens, or the name does not resolve", () =>
    Effect.gen(function*() {
      expect(yield* failure({ port: 1 })).toMatchObject({
        _tag: "ConnectionError",
        code: "ECONNREFUSED",
        isRetryable: true
      })
      expect(yield* failure({ host: "localhost", port: 1 })).toMatchObject({
        isRetryable: true,
        reason: /ECONNREFUSED/
      })
      expect(yield* failure({ host: "no-such-host.invalid" })).toMatchObject({ isRetryable: true })
    }))

  it.live("names the statement that the session's setup failed at", () =>
    Effect.gen(function*() {
      const error = yield* failure({ initialSql: ["SET @a = 1", "SELECT nothing"] })
      expect(error).toMatchObject({ _tag: "ConnectionError", errno: 1054, isRetryable: false })
      expect(error.message).toContain("SELECT nothing")
      expect(yield* failure({ collation: "utf8mb4_no_such_ci" })).toMatchObject({ errno: 1273, isRetryable: false })
    }))

  it.scopedLive("encrypts, or says why it does not", () =>
    Effect.gen(function*() {
      if (isMariadb) {
        const error = yield* failure({ tls: { verify: false } })
        return expect(error).toMatchObject({ code: "HANDSHAKE_NO_SSL_SUPPORT", isRetryable: false })
      }
      const connection = yield* open({ tls: { verify: false } })
      expect((yield* row(connection, "SHOW STATUS LIKE 'Ssl_cipher'"))[1]).toMatch(/TLS/)
      const error = yield* failure({ tls: true, host: "localhost" })
      expect(error).toMatchObject({ code: "HANDSHAKE_SSL_ERROR", isRetryable: false })
    }))

  it.live("asks for the credentials each time, once more when they were refused", () =>
    Effect.scoped(Effect.gen(function*() {
      const passwords = ["wrong", server.password, server.password]
      let asked = 0
      const driver = yield* MysqlDriver.make({
        ...own,
        credentials: Effect.sync(() => ({ username: server.user, password: Redacted.make(passwords[asked++] ?? "") }))
      })
      for (let turn = 0; turn < 2; turn++) {
        const connection = yield* driver.connect
        connection.destroy()
      }
      expect(asked).toBe(3)
      const broken = yield* failure({ credentials: Effect.fail("s3cr3t") })
      expect(broken).toMatchObject({ _tag: "ConnectionError", isRetryable: true })
      expect(broken.message).not.toContain("s3cr3t")
    })))

  it.scopedLive("closes what is half open when it is interrupted", () =>
    Effect.gen(function*() {
      const proxied = yield* wire
      proxied.silence()
      const driver = yield* MysqlDriver.make({ ...own, port: proxied.port })
      const connecting = yield* Effect.fork(driver.connect)
      yield* eventually(Effect.sync(() => proxied.size() === 1))
      yield* Fiber.interrupt(connecting)
      yield* Effect.timeout(proxied.clientGone, "2 seconds")
    }))

  it.live("takes everything from a URL, where options win", () =>
    Effect.scoped(Effect.gen(function*() {
      const url = `mysql://${server.user}:${encodeURIComponent(server.password)}@${server.host}:${server.port}/mysql`
      const driver = yield* MysqlDriver.make({ url: Redacted.make(url), database: server.database })
      expect(driver).toMatchObject({
        dialect: "mysql",
        target: `${server.host}:${server.port}`,
        namespace: server.database
      })
      const connection = yield* driver.connect
      expect(yield* row(connection, "SELECT DATABASE(), CONNECTION_ID()")).toEqual([
        server.database,
        Number(connection.id)
      ])
      yield* connection.ping
      yield* connection.close
      expect(connection.isOpen()).toBe(false)
    })))

  it.live("lists everything that is wrong with the options, and none of it aloud", () =>
    Effect.scoped(Effect.gen(function*() {
      const invalid = (options: MysqlOptions) =>
        Effect.map(Effect.flip(MysqlDriver.make(options)), (error) => error.issues)
      expect(
        yield* invalid({
          url: Redacted.make("http://u:s3cr3t@h/a/b?c=d"),
          host: " ",
          port: 70000,
          socketPath: "",
          isolation: "CHAOS" as never,
          timeZone: "Europe/Berlin",
          collation: "latin1_swedish_ci",
          preparedStatements: 0,
          initialSql: [" "]
        })
      ).toHaveLength(11)
      for (
        const text of [
          "s3cr3t",
          "mysql://u:s3cr#3t@h/db",
          "mysql://u:s3/cr3t@h",
          "mysql://u:%zzs3cr3t@h/db",
          "mysql:///db"
        ]
      ) {
        const issues = yield* invalid({ url: Redacted.make(text) })
        expect(issues.length).toBeGreaterThan(0)
        expect(issues.join(" ")).not.toMatch(/s3cr|3t@|zz/)
      }
      expect(yield* invalid({ host: "10.0.0.1", tls: true })).toHaveLength(1)
      for (const timeZone of ["Z", "+2:00", "+15:00", "02:00"]) expect(yield* invalid({ timeZone })).toHaveLength(1)
    })))
})
