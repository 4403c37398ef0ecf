/** The queries, on the real server and on embedded SQLite, on the fiber's connection and on an explicit one. */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as SqlStatement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { inject } from "vitest"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import * as PoolStats from "../../src/PoolStats.js"
import type { Queries } from "../../src/Queries.js"
import { type Dialect, dialects, failure, on, type Surface, withDialect } from "../support/bothDatabases.js"

const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

const some = <A>(value: A) => Option.some(value)

/** Words that the two databases have for the same. */
const words = {
  mysql: {
    key: "BIGINT PRIMARY KEY AUTO_INCREMENT",
    // the server's default may be an alphabet with fewer letters
    text: "VARCHAR(100) CHARACTER SET utf8mb4",
    real: "DOUBLE",
    moment: "DATETIME(3)",
    client: () =>
      SqlStatement.make(Effect.suspend(() => Effect.dieMessage("unused")), MysqlClient.makeCompiler(), [], undefined)
  },
  sqlite: {
    key: "INTEGER PRIMARY KEY AUTOINCREMENT",
    text: "TEXT",
    real: "REAL",
    moment: "TEXT",
    client: () =>
      SqlStatement.make(
        Effect.suspend(() => Effect.dieMessage("unused")),
        SqlStatement.makeCompilerSqlite(),
        [],
        undefined
      )
  }
} as const

/** Three people; the second has no name. */
const people = (dialect: Dialect) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const { key, text } = words[dialect]
    yield* db.execute(`CREATE TABLE people (id ${key}, name ${text}, age INT)`)
    yield* db.execute("INSERT INTO people (name, age) VALUES ('Ada', 36), (NULL, 40), ('Bob', NULL)")
  })

const rows = [{ id: 1, name: "Ada", age: 36 }, { id: 2, name: null, age: 40 }, { id: 3, name: "Bob", age: null }]

const sequence = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :to) SELECT i FROM n"

for (const dialect of dialects) {
  /** On the fiber's own connection, and on an explicit one. */
  const both = (
    name: string,
    test: (queries: Queries, surface: Surface) => Effect.Effect<void, DbError, Db.Db | PoolStats.PoolStats>
  ) => {
    it.live.each(["Db", "a connection"] as const)(`${name} (%s)`, (surface) =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.zipRight(people(dialect), on(surface, (queries) => test(queries, surface)))
      ))
  }

  describe(`${dialect}: what is wanted of the rows`, () => {
    both("values, list, value, dictionary and dictionaries", (queries) =>
      Effect.gen(function*() {
        const sql = "SELECT id, name, age FROM people ORDER BY id"
        expect(yield* queries.values(sql)).toEqual(rows.map(({ age, id, name }) => [id, name, age]))
        expect(yield* queries.list(sql)).toEqual([1, 2, 3])
        expect(yield* queries.value(sql)).toEqual(some(1))
        expect(yield* queries.dictionary(sql)).toEqual(some(rows[0]))
        expect(yield* queries.dictionaries(sql)).toEqual(rows)
      }))

    both("nothing at all, and NULL, are not the same", (queries) =>
      Effect.gen(function*() {
        expect(yield* queries.value("SELECT name FROM people WHERE id = 2")).toEqual(some(null))
        expect(yield* queries.list("SELECT name FROM people WHERE id = 2")).toEqual([null])
        const none = "SELECT id, name FROM people WHERE id = 99"
        expect(yield* queries.values(none)).toEqual([])
        expect(yield* queries.list(none)).toEqual([])
        expect(yield* queries.value(none)).toEqual(Option.none())
        expect(yield* queries.dictionary(none)).toEqual(Option.none())
        expect(yield* queries.dictionaries(none)).toEqual([])
        expect(yield* collect(queries.stream(none))).toEqual([])
      }))

    both(
      "of columns with one name the last wins in a record, and values have them all",
      (queries) =>
        Effect.gen(function*() {
          const sql = "SELECT a.id, b.id FROM people a JOIN people b ON b.id = a.id + 1 ORDER BY a.id"
          expect(yield* queries.values(sql)).toEqual([[1, 2], [2, 3]])
          expect(yield* queries.dictionaries(sql)).toEqual([{ id: 2 }, { id: 3 }])
        })
    )

    both("execute says how many rows, and which id", (queries) =>
      Effect.gen(function*() {
        expect(yield* queries.execute("INSERT INTO people (name) VALUES (?)", ["Cid"])).toEqual({
          affectedRows: 1,
          insertId: 4,
          warnings: 0
        })
        expect(yield* queries.execute("UPDATE people SET age = 50 WHERE id > ?", [2])).toMatchObject({
          affectedRows: 2,
          insertId: 0
        })
        expect(yield* queries.execute("DELETE FROM people WHERE id = 99")).toMatchObject({ affectedRows: 0 })
        expect(yield* queries.execute("DELETE FROM people")).toMatchObject({ affectedRows: 4, insertId: 0 })
      }))

    both(
      "a query may also be a statement without rows, and execute one with rows",
      (queries) =>
        Effect.gen(function*() {
          expect(yield* queries.values("UPDATE people SET age = 1")).toEqual([])
          expect(yield* queries.value("DELETE FROM people WHERE id = 1")).toEqual(Option.none())
          expect(yield* queries.execute("SELECT * FROM people")).toMatchObject({ affectedRows: 0, insertId: 0 })
        })
    )
  })

  describe(`${dialect}: a stream`, () => {
    both("gives every row in order, more than one chunk of them", (queries) =>
      Effect.gen(function*() {
        const found = yield* collect(queries.stream<{ i: number }>(sequence, { to: 900 }))
        expect(found).toEqual(Array.from({ length: 900 }, (_, at) => ({ i: at + 1 })))
      }))

    both("may be ended early, and the connection goes on", (queries) =>
      Effect.gen(function*() {
        const first = queries.stream(sequence, { to: 900 }).pipe(Stream.take(3), collect)
        expect(yield* first).toEqual([{ i: 1 }, { i: 2 }, { i: 3 }])
        expect(yield* queries.value("SELECT COUNT(*) FROM people")).toEqual(some(3))
        expect(yield* first).toHaveLength(3)
      }))

    both("runs anew each time", (queries) =>
      Effect.gen(function*() {
        const names = queries.stream<{ name: string | null }>("SELECT name FROM people ORDER BY id")
        expect(yield* collect(names)).toHaveLength(3)
        yield* queries.execute("DELETE FROM people WHERE id = 1")
        expect(yield* collect(names)).toEqual([{ name: null }, { name: "Bob" }])
      }))

    it.live("lets its reader run statements of its own, except on the connection that it holds", () =>
      withDialect(
        dialect,
        { poolSize: 3 },
        Effect.gen(function*() {
          yield* people(dialect)
          const db = yield* Db.Db
          const age = (id: number) => db.value("SELECT age FROM people WHERE id = ?", [id])
          const found = db.stream<{ id: number }>("SELECT id FROM people ORDER BY id").pipe(
            Stream.mapEffect(({ id }) => age(id)),
            collect
          )
          expect(yield* found).toEqual([some(36), some(40), some(null)])
          for (const surface of ["a connection", "a session", "a transaction"] as const) {
            const error = yield* failure(on(surface, (queries) =>
              Stream.runForEach(
                queries.stream(sequence, { to: 1_000 }),
                () => queries.value("SELECT 1")
              )))
            expect(error).toMatchObject({ _tag: "ConnectionBusy", statement: "SELECT 1" })
          }
          expect(yield* db.value("SELECT 1")).toEqual(some(1))
        })
      ))
  })

  describe(`${dialect}: parameters`, () => {
    both("positional, and repeated by name", (queries) =>
      Effect.gen(function*() {
        expect(yield* queries.list("SELECT id FROM people WHERE id > ? AND id < ?", [1, 3])).toEqual([2])
        expect(
          yield* queries.list("SELECT id FROM people WHERE id = :id OR age = :age OR id = :id ORDER BY id", {
            id: 3,
            age: 36,
            other: undefined
          })
        ).toEqual([1, 3])
        expect(yield* collect(queries.stream("SELECT name FROM people WHERE id = :id", { id: 1 }))).toEqual([
          { name: "Ada" }
        ])
      }))

    both("a number for LIMIT and OFFSET", (queries) =>
      Effect.gen(function*() {
        const sql = "SELECT id FROM people ORDER BY id LIMIT ? OFFSET ?"
        expect(yield* queries.list(sql, [1, 1])).toEqual([2])
        expect(yield* queries.list(sql, [2n, 0])).toEqual([1, 2])
        expect(yield* queries.list("SELECT id FROM people ORDER BY id LIMIT :n", { n: 0 })).toEqual([])
      }))

    both("text that looks like SQL is text", (queries) =>
      Effect.gen(function*() {
        for (const name of ["'; DELETE FROM people; --", "\\", "\"`'", "?", ":id", "%_", "😀é", "x".repeat(100), ""]) {
          yield* queries.execute("UPDATE people SET name = :name WHERE id = 1", { name })
          expect(yield* queries.value("SELECT name FROM people WHERE name = ?", [name])).toEqual(some(name))
        }
        expect(yield* queries.value("SELECT COUNT(*) FROM people")).toEqual(some(3))
      }))

    both("the same statement many times, with values of other types", (queries) =>
      Effect.gen(function*() {
        for (const value of [1, "two", null, 3n, true, 4.5, new Uint8Array([5])]) {
          expect(yield* queries.value("SELECT COUNT(?)", [value])).toEqual(some(value === null ? 0 : 1))
        }
      }))
  })

  describe(`${dialect}: statements of @effect/sql`, () => {
    both("insert, in, update and fragments", (queries) =>
      Effect.gen(function*() {
        const sql = words[dialect].client()
        const inserted = yield* queries.execute(
          sql`INSERT INTO ${sql("people")} ${sql.insert([{ name: "Cid", age: 1 }, { name: "Dee", age: null }])}`
        )
        expect(inserted.affectedRows).toBe(2)
        expect(yield* queries.list(sql`SELECT name FROM people WHERE ${sql.in("id", [4, 5])} ORDER BY id`)).toEqual([
          "Cid",
          "Dee"
        ])
        yield* queries.execute(sql`UPDATE people SET ${sql.update({ name: "Eve" })} WHERE id = ${4}`)
        expect(
          yield* queries.dictionary(
            sql`SELECT name, age FROM people WHERE ${sql.and([sql`id = ${4}`, sql`name IS NOT NULL`])}`
          )
        ).toEqual(some({ name: "Eve", age: 1 }))
        const fragment = SqlStatement.join(" ", false)(["SELECT COUNT(*) FROM people WHERE", sql.in("id", [1, 2, 9])])
        expect(yield* queries.value(fragment)).toEqual(some(2))
        expect(yield* collect(queries.stream(sql`SELECT id FROM people WHERE id < ${3} ORDER BY id`))).toEqual([
          { id: 1 },
          { id: 2 }
        ])
        expect(yield* queries.list(sql`SELECT id FROM people WHERE ${sql.in("id", [])}`)).toEqual([])
      }))
  })

  describe(`${dialect}: decoded by a schema`, () => {
    class Person extends Schema.Class<Person>("Person")({
      id: Schema.Number.pipe(Schema.brand("PersonId")),
      name: Schema.OptionFromNullOr(Schema.String),
      age: Schema.NullOr(Schema.Int)
    }) {}

    both("each form", (queries) =>
      Effect.gen(function*() {
        const sql = "SELECT id, name, age FROM people ORDER BY id"
        const all = yield* queries.decode(Person).dictionaries(sql)
        expect(all.map(({ name }) => name)).toEqual([some("Ada"), Option.none(), some("Bob")])
        expect(all[0]).toBeInstanceOf(Person)
        expect(yield* queries.decode(Person).dictionary(sql)).toEqual(some(all[0]))
        expect(yield* collect(queries.decode(Person).stream(sql))).toEqual(all)
        const Name = Schema.NullOr(Schema.Trim)
        expect(yield* queries.decode(Name).list("SELECT name FROM people ORDER BY id")).toEqual(["Ada", null, "Bob"])
        expect(yield* queries.decode(Name).value("SELECT name FROM people WHERE id = :id", { id: 2 })).toEqual(
          some(null)
        )
        expect(yield* queries.decode(Name).value("SELECT name FROM people WHERE id = ?", [9])).toEqual(Option.none())
        const Pair = Schema.Tuple(Schema.Number, Schema.NullOr(Schema.Number))
        expect(yield* queries.decode(Pair).values("SELECT id, age FROM people WHERE id = 3")).toEqual([[3, null]])
      }))
  })

  describe(`${dialect}: values`, () => {
    both(
      "integers beyond 2⁵³ are bigints both ways, and the smaller ones numbers",
      (queries) =>
        Effect.gen(function*() {
          yield* queries.execute("CREATE TABLE wide (n BIGINT)")
          const sent = [9_007_199_254_740_993n, -9_007_199_254_740_993n, 2n ** 63n - 1n, -(2n ** 63n), 42n, 0n, -1n]
          for (const n of sent) {
            yield* queries.execute("INSERT INTO wide VALUES (?)", [n])
            const expected = Number.isSafeInteger(Number(n)) ? Number(n) : n
            expect(yield* queries.value("SELECT n FROM wide WHERE n = ?", [n])).toStrictEqual(some(expected))
            expect(yield* collect(queries.stream("SELECT n FROM wide WHERE n = ?", [n]))).toStrictEqual([{
              n: expected
            }])
          }
          // MySQL takes the types of parameters from the statement, in which these could be anything: DOUBLE
          const sum = inject("server").flavour === "mysql" ? "CAST(? AS SIGNED) + CAST(? AS SIGNED)" : "? + ?"
          expect(yield* queries.value(`SELECT ${sum}`, [2n ** 60n, 1n])).toStrictEqual(some(2n ** 60n + 1n))
          expect(yield* queries.value("SELECT 9007199254740991")).toStrictEqual(some(Number.MAX_SAFE_INTEGER))
          yield* queries.execute("DROP TABLE wide")
        })
    )

    both("an id beyond 2⁵³ is a bigint", (queries) =>
      Effect.gen(function*() {
        yield* queries.execute("INSERT INTO people (id, name) VALUES (?, 'Zoe')", [2n ** 53n])
        const { insertId } = yield* queries.execute("INSERT INTO people (name) VALUES ('Yan')")
        expect(insertId).toBe(2n ** 53n + 1n)
        expect(yield* queries.value("SELECT name FROM people WHERE id = ?", [insertId])).toEqual(some("Yan"))
      }))

    both("numbers, NULL, truth and text", (queries) =>
      Effect.gen(function*() {
        const { real, text } = words[dialect]
        yield* queries.execute(`CREATE TABLE bag (i INT, r ${real}, b BOOLEAN, t ${text})`)
        const insert = "INSERT INTO bag VALUES (:i, :r, :b, :t)"
        yield* queries.execute(insert, { i: -7, r: 0.1, b: true, t: "é😀 'x'" })
        yield* queries.execute(insert, { i: 0, r: -1e300, b: false, t: "" })
        yield* queries.execute(insert, { i: null, r: null, b: null, t: null })
        expect(yield* queries.values("SELECT i, r, b, t FROM bag")).toStrictEqual([
          [-7, 0.1, 1, "é😀 'x'"],
          [0, -1e300, 0, ""],
          [null, null, null, null]
        ])
        yield* queries.execute("DROP TABLE bag")
      }))

    both("BLOBs are Uint8Arrays, with every byte", (queries) =>
      Effect.gen(function*() {
        yield* queries.execute("CREATE TABLE files (content BLOB)")
        const bytes = Uint8Array.from({ length: 1_024 }, (_, at) => at % 256)
        for (const content of [bytes, bytes.subarray(3, 7), new Uint8Array(0), Buffer.from([0, 39, 92, 10])]) {
          yield* queries.execute("DELETE FROM files")
          yield* queries.execute("INSERT INTO files VALUES (?)", [content])
          const found = Option.getOrThrow(yield* queries.value("SELECT content FROM files"))
          expect(found).toBeInstanceOf(Uint8Array)
          expect(Array.from(found as Uint8Array)).toEqual(Array.from(content))
          const [streamed] = yield* collect(queries.stream<{ content: Uint8Array }>("SELECT content FROM files"))
          expect(Array.from(streamed!.content)).toEqual(Array.from(content))
        }
        yield* queries.execute("DROP TABLE files")
      }))

    both("a Date comes back as the same moment, by itself or by a schema", (queries) =>
      Effect.gen(function*() {
        yield* queries.execute(`CREATE TABLE events (at ${words[dialect].moment})`)
        const moment = new Date(Date.UTC(2024, 1, 29, 12, 34, 56, 789))
        yield* queries.execute("INSERT INTO events VALUES (?)", [moment])
        const Moment = Schema.Union(Schema.ValidDateFromSelf, Schema.Date)
        expect(yield* queries.decode(Moment).value("SELECT at FROM events")).toEqual(some(moment))
        expect(yield* queries.value("SELECT COUNT(*) FROM events WHERE at = ?", [moment])).toEqual(some(1))
        if (dialect === "mysql") expect(yield* queries.value("SELECT at FROM events")).toEqual(some(moment))
        yield* queries.execute("DROP TABLE events")
      }))

    both("an object is sent as JSON", (queries) =>
      Effect.gen(function*() {
        yield* queries.execute("CREATE TABLE documents (body JSON)")
        const body = { a: [1, null, { b: "é\"'" }], c: true }
        yield* queries.execute("INSERT INTO documents VALUES (?)", [body])
        yield* queries.execute("INSERT INTO documents VALUES (:body)", { body: [1, 2] })
        expect(
          yield* queries.list("SELECT JSON_EXTRACT(body, '$.c') FROM documents WHERE JSON_EXTRACT(body, '$.a[0]') = 1")
        )
          .toHaveLength(1)
        const Body = Schema.Union(Schema.parseJson(Schema.Unknown), Schema.Unknown)
        expect(yield* queries.decode(Body).list("SELECT body FROM documents")).toEqual([body, [1, 2]])
        yield* queries.execute("DROP TABLE documents")
      }))

    both("an object is told by its prototype, whatever its keys", (queries) =>
      Effect.gen(function*() {
        const Body = Schema.parseJson(Schema.Unknown)
        const odd = JSON.parse(`{"constructor": 1, "toString": null, "__proto__": {"a": 1}}`)
        const bare = Object.assign(Object.create(null), { constructor: "x" })
        for (const body of [odd, bare]) {
          const text = "SELECT CONCAT('', ?) AS body"
          expect(yield* queries.decode(Body).value(text, [body])).toEqual(some(JSON.parse(JSON.stringify(body))))
          expect(yield* Stream.runCollect(queries.stream(text, [body]))).toHaveLength(1)
        }
      }))
  })
}

describe("mysql alone", () => {
  const run = (name: string, test: (queries: Queries) => Effect.Effect<void, DbError, Db.Db | PoolStats.PoolStats>) => {
    it.live.each(["Db", "a connection"] as const)(
      `${name} (%s)`,
      (surface) => withDialect("mysql", { poolSize: 3 }, Effect.zipRight(people("mysql"), on(surface, test)))
    )
  }

  run("DECIMAL is text, with every digit", (queries) =>
    Effect.gen(function*() {
      const amount = "12345678901234567890.0123456789"
      expect(yield* queries.value("SELECT CAST(? AS DECIMAL(30, 10))", [amount])).toEqual(some(amount))
      yield* queries.execute("CREATE TABLE money (amount DECIMAL(30, 10))")
      yield* queries.execute("INSERT INTO money VALUES (:amount)", { amount })
      expect(yield* queries.list("SELECT SUM(amount) FROM money WHERE amount = ?", [amount])).toEqual([amount])
      yield* queries.execute("DROP TABLE money")
    }))

  run("unsigned BIGINT, both ways", (queries) =>
    Effect.gen(function*() {
      yield* queries.execute("CREATE TABLE huge (n BIGINT UNSIGNED)")
      yield* queries.execute("INSERT INTO huge VALUES (?)", [2n ** 64n - 1n])
      expect(yield* queries.value("SELECT n FROM huge WHERE n = ?", [2n ** 64n - 1n])).toEqual(some(2n ** 64n - 1n))
      yield* queries.execute("DROP TABLE huge")
    }))

  run("DATE and TIME are text, TIMESTAMP a Date, JSON what it holds", (queries) =>
    Effect.gen(function*() {
      expect(yield* queries.values("SELECT DATE '2024-02-29', TIME '10:20:30', TIMESTAMP '2024-02-29 10:20:30'"))
        .toEqual(
          [["2024-02-29", "10:20:30", new Date("2024-02-29T10:20:30Z")]]
        )
      yield* queries.execute("CREATE TABLE documents (body JSON)")
      yield* queries.execute("INSERT INTO documents VALUES (?)", [{ a: [1, "x"] }])
      expect(yield* queries.value("SELECT body FROM documents")).toEqual(some({ a: [1, "x"] }))
      yield* queries.execute("DROP TABLE documents")
    }))

  run("SHOW, DESCRIBE and EXPLAIN give rows", (queries) =>
    Effect.gen(function*() {
      expect(yield* queries.list("SHOW TABLES")).toEqual(["people"])
      expect(Option.getOrThrow(yield* queries.dictionary("SHOW VARIABLES LIKE 'autocommit'"))).toMatchObject({
        Value: "ON"
      })
      expect(yield* queries.list("DESCRIBE people")).toEqual(["id", "name", "age"])
      // MySQL's default is a tree in one column, which MariaDB has not
      const format = inject("server").flavour === "mysql" ? "FORMAT = TRADITIONAL " : ""
      const plan = yield* queries.dictionaries(`EXPLAIN ${format}SELECT * FROM people WHERE id = ?`, [1])
      expect(plan).toHaveLength(1)
      expect(plan[0]).toMatchObject({ table: "people" })
      expect(yield* collect(queries.stream("SHOW COLUMNS FROM people LIKE 'n%'"))).toMatchObject([{ Field: "name" }])
    }))

  run("CALL gives the first rows of a procedure, by every form", (queries) =>
    Effect.gen(function*() {
      yield* queries.execute(
        "CREATE PROCEDURE older (least INT) BEGIN"
          + " UPDATE people SET age = age + 1 WHERE id = 1;"
          + " SELECT id, name FROM people WHERE age > least ORDER BY id; SELECT 'second'; END"
      )
      expect(yield* queries.values("CALL older(?)", [30])).toEqual([[1, "Ada"], [2, null]])
      expect(yield* queries.list("CALL older(:least)", { least: 39 })).toEqual([2])
      expect(yield* queries.value("CALL older(99)")).toEqual(Option.none())
      expect(yield* queries.dictionary("CALL older(?)", [39])).toEqual(some({ id: 1, name: "Ada" }))
      expect(yield* collect(queries.stream("CALL older(?)", [40]))).toEqual([{ id: 1, name: "Ada" }])
      yield* queries.execute("CREATE PROCEDURE touch (IN who INT) UPDATE people SET age = 0 WHERE id = who")
      expect(yield* queries.execute("CALL touch(?)", [2])).toMatchObject({ affectedRows: 1 })
      expect(yield* queries.value("SELECT age FROM people WHERE id = 2")).toEqual(some(0))
    }))

  run("what the server cannot prepare goes as text, each time", (queries) =>
    Effect.gen(function*() {
      for (let time = 0; time < 3; time++) {
        yield* queries.execute("CREATE OR REPLACE VIEW named AS SELECT id FROM people WHERE name IS NOT NULL")
        yield* queries.execute("CREATE TRIGGER twice BEFORE INSERT ON people FOR EACH ROW SET NEW.age = NEW.age * 2")
        yield* queries.execute("INSERT INTO people (name, age) VALUES ('Cid', ?)", [10 + time])
        expect(yield* queries.list("SELECT age FROM people WHERE name = 'Cid'")).toEqual([20 + 2 * time])
        yield* queries.execute("DROP TRIGGER twice")
        yield* queries.execute("DELETE FROM people WHERE name = 'Cid'")
        expect(yield* queries.list("HELP 'select'")).toBeInstanceOf(Array)
        expect(yield* queries.list("SELECT id FROM named ORDER BY id")).toEqual([1, 3])
      }
    }))

  run("warnings are counted", (queries) =>
    Effect.gen(function*() {
      expect(yield* queries.execute("INSERT IGNORE INTO people (id, name) VALUES (1, 'x'), (9, 'y')")).toMatchObject({
        affectedRows: 1,
        warnings: 1
      })
      expect(yield* queries.execute("DROP TABLE IF EXISTS nowhere")).toMatchObject({ warnings: 1 })
    }))

  run("RETURNING gives rows, where the server has it", (queries) =>
    Effect.gen(function*() {
      const insert = queries.dictionaries("INSERT INTO people (name, age) VALUES (?, 1), (?, 2) RETURNING id, name", [
        "Cid",
        "Dee"
      ])
      if (inject("server").flavour === "mariadb") {
        expect(yield* insert).toEqual([{ id: 4, name: "Cid" }, { id: 5, name: "Dee" }])
      } else expect(yield* failure(insert)).toMatchObject({ _tag: "SqlSyntaxError" })
    }))

  it.live("on an explicit connection what a statement leaves is there for the next", () =>
    withDialect(
      "mysql",
      { poolSize: 2 },
      Effect.gen(function*() {
        yield* people("mysql")
        const db = yield* Db.Db
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* db.connection
          expect(yield* connection.value("SELECT CONCAT(CONNECTION_ID())")).toEqual(some(connection.id))
          yield* connection.execute("CREATE TEMPORARY TABLE picked (id INT)")
          yield* connection.execute("INSERT INTO picked VALUES (1), (2)")
          yield* connection.execute("SET @x = ?", [5])
          expect(yield* connection.values("SELECT COUNT(*), @x FROM picked")).toEqual([[2, 5]])
          yield* connection.execute("INSERT INTO people (name) VALUES ('Cid')")
          expect(yield* connection.value("SELECT LAST_INSERT_ID()")).toEqual(some(4))
          expect(yield* failure(db.list("SELECT * FROM picked"))).toMatchObject({ _tag: "SqlSyntaxError" })
        }))
      })
    ))
})

describe("sqlite alone", () => {
  const run = (name: string, test: (queries: Queries) => Effect.Effect<void, DbError, Db.Db | PoolStats.PoolStats>) => {
    it.live.each(["Db", "a connection"] as const)(
      `${name} (%s)`,
      (surface) => withDialect("sqlite", { poolSize: 3 }, Effect.zipRight(people("sqlite"), on(surface, test)))
    )
  }

  run("PRAGMA and EXPLAIN give rows", (queries) =>
    Effect.gen(function*() {
      expect(yield* queries.value("PRAGMA journal_mode")).toEqual(some("wal"))
      expect((yield* queries.dictionaries("PRAGMA table_info(people)")).map(({ name }) => name)).toEqual([
        "id",
        "name",
        "age"
      ])
      expect(yield* queries.values("EXPLAIN QUERY PLAN SELECT * FROM people WHERE id = ?", [1])).toHaveLength(1)
    }))

  run("RETURNING and upserts", (queries) =>
    Effect.gen(function*() {
      const insert = "INSERT INTO people (id, name) VALUES (?, ?)"
        + " ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id, name"
      expect(yield* queries.dictionary(insert, [1, "Ann"])).toEqual(some({ id: 1, name: "Ann" }))
      expect(yield* queries.dictionary(insert, [7, "Gus"])).toEqual(some({ id: 7, name: "Gus" }))
      expect(yield* queries.value("SELECT COUNT(*) FROM people")).toEqual(some(4))
    }))

  it.live("every fiber of a database in a file sees what the others have committed", () =>
    withDialect(
      "sqlite",
      { poolSize: 5 },
      Effect.gen(function*() {
        yield* people("sqlite")
        const db = yield* Db.Db
        yield* Effect.forEach(
          Array.from({ length: 50 }, (_, at) => at),
          (at) => db.execute("INSERT INTO people (name, age) VALUES (?, ?)", [`p${at}`, at]),
          { concurrency: 20, discard: true }
        )
        expect(yield* db.value("SELECT COUNT(*) FROM people")).toEqual(some(53))
        const { created } = yield* (yield* PoolStats.PoolStats).snapshot
        expect(created).toBeLessThanOrEqual(5)
      })
    ))
})
