import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as SqlStatement from "@effect/sql/Statement"
import { describe, expect, it } from "@effect/vitest"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { DbError } from "../../src/DbError.js"
import { StatementError } from "../../src/DbError.js"
import type { Driver, Result, Statement } from "../../src/Driver.js"
import type { Params, Sql } from "../../src/Queries.js"
import * as Queries from "../../src/Queries.js"

type Dialect = Driver["dialect"]
const dialects: ReadonlyArray<Dialect> = ["mysql", "sqlite"]

const unused = Effect.dieMessage("nothing connects here")

/** All that the queries know of a driver: its dialect, and which values it cannot send. */
const driverOf = (dialect: Dialect): Driver => ({
  dialect,
  target: "stub",
  transaction: {
    begin: () => undefined,
    commit: "",
    rollback: "",
    savepoint: () => "",
    releaseSavepoint: () => "",
    rollbackTo: () => ""
  },
  rejectParameter: (value) =>
    value === undefined || typeof value === "symbol" ? `a value of type ${typeof value} cannot be sent` : undefined,
  connect: unused
})

const noRows: Result = { columns: [], rows: [], affectedRows: 0, insertId: 0, warnings: 0 }

/** An executor that answers every statement with the same and writes down what it was sent. */
const stub = (answer: Partial<Result> | DbError = {}, dialect: Dialect = "mysql") => {
  const sent: Array<Statement> = []
  const result = (statement: Statement): Effect.Effect<Result, DbError> =>
    Effect.suspend(() => {
      sent.push(statement)
      return "_tag" in answer ? Effect.fail(answer) : Effect.succeed({ ...noRows, ...answer })
    })
  const queries = Queries.make({
    driver: driverOf(dialect),
    run: (statement, _fiber, _status, shape) => Effect.map(result(statement), shape),
    stream: (statement) =>
      Stream.unwrap(Effect.map(
        result(statement),
        ({ columns, rows }) => Stream.fromIterable(rows.map((row) => ({ columns, row })))
      ))
  })
  return { queries, sent, texts: () => sent.map(({ params, sql }) => [sql, params]) }
}

const people = {
  columns: ["id", "name"],
  rows: [[1, "Ada"], [2, null], [3, "Bob"]]
}

const collect = <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  Effect.map(Stream.runCollect(stream), Chunk.toReadonlyArray)

describe("what is wanted of the rows", () => {
  it.effect("values: every row as an array of column values", () =>
    Effect.gen(function*() {
      const { queries, texts } = stub(people)
      expect(yield* queries.values("SELECT id, name FROM people")).toEqual(people.rows)
      expect(texts()).toEqual([["SELECT id, name FROM people", []]])
    }))

  it.effect("list: the first column of every row", () =>
    Effect.gen(function*() {
      expect(yield* stub(people).queries.list("SELECT 1")).toEqual([1, 2, 3])
      expect(yield* stub({ columns: ["a"], rows: [[null], [0]] }).queries.list("SELECT 1")).toEqual([null, 0])
    }))

  it.effect("value: the first column of the first row; NULL is some null, no row is none", () =>
    Effect.gen(function*() {
      expect(yield* stub(people).queries.value("SELECT 1")).toEqual(Option.some(1))
      expect(yield* stub({ columns: ["a"], rows: [[null]] }).queries.value("SELECT 1")).toEqual(Option.some(null))
      expect(yield* stub({ columns: ["a"], rows: [] }).queries.value("SELECT 1")).toEqual(Option.none())
      expect(yield* stub().queries.value("DELETE FROM people")).toEqual(Option.none())
    }))

  it.effect("dictionary: the first row by column name, or none", () =>
    Effect.gen(function*() {
      expect(yield* stub(people).queries.dictionary("SELECT 1")).toEqual(Option.some({ id: 1, name: "Ada" }))
      expect(yield* stub({ columns: ["a"], rows: [] }).queries.dictionary("SELECT 1")).toEqual(Option.none())
    }))

  it.effect("dictionaries: every row by column name", () =>
    Effect.gen(function*() {
      expect(yield* stub(people).queries.dictionaries("SELECT 1")).toEqual([
        { id: 1, name: "Ada" },
        { id: 2, name: null },
        { id: 3, name: "Bob" }
      ])
    }))

  it.effect("execute: what the statement did", () =>
    Effect.gen(function*() {
      const { queries } = stub({ affectedRows: 2, insertId: 2n ** 63n, warnings: 1 })
      expect(yield* queries.execute("INSERT INTO people VALUES (1), (2)")).toEqual({
        affectedRows: 2,
        insertId: 2n ** 63n,
        warnings: 1
      })
    }))

  it.effect("stream: every row by column name, as it comes", () =>
    Effect.gen(function*() {
      const { queries, texts } = stub(people)
      expect(yield* collect(queries.stream("SELECT ?", [7]))).toEqual([
        { id: 1, name: "Ada" },
        { id: 2, name: null },
        { id: 3, name: "Bob" }
      ])
      expect(texts()).toEqual([["SELECT ?", [7]]])
    }))

  it.effect("the last of columns with one name wins", () =>
    Effect.gen(function*() {
      const { queries } = stub({ columns: ["id", "name", "id"], rows: [[1, "Ada", 9]] })
      expect(yield* queries.dictionary("SELECT 1")).toEqual(Option.some({ id: 9, name: "Ada" }))
      expect(yield* queries.dictionaries("SELECT 1")).toEqual([{ id: 9, name: "Ada" }])
      expect(yield* collect(queries.stream("SELECT 1"))).toEqual([{ id: 9, name: "Ada" }])
      expect(yield* queries.values("SELECT 1")).toEqual([[1, "Ada", 9]])
    }))

  it.effect("a column may have any name, also one that objects have already", () =>
    Effect.gen(function*() {
      const columns = ["", "__proto__", "constructor", "COUNT(*)", "a b"]
      const { queries } = stub({ columns, rows: [[1, { admin: true }, 3, 4, 5]] })
      const row = Option.getOrThrow(yield* queries.dictionary("SELECT 1"))
      expect(Object.keys(row)).toEqual(columns)
      expect("admin" in row).toBe(false)
    }))

  it.effect("a failure of the executor is the query's, whatever was wanted", () =>
    Effect.gen(function*() {
      const failure = new StatementError({ statement: "SELECT 1", reason: "because" })
      const { queries } = stub(failure)
      const all = [
        queries.values("SELECT 1"),
        queries.list("SELECT 1"),
        queries.value("SELECT 1"),
        queries.dictionary("SELECT 1"),
        queries.dictionaries("SELECT 1"),
        queries.execute("SELECT 1"),
        collect(queries.stream("SELECT 1")),
        queries.decode(Schema.Any).list("SELECT 1")
      ]
      for (const query of all) expect(yield* Effect.flip<unknown, DbError, never>(query)).toBe(failure)
    }))

  it.effect("nothing is prepared or sent before the query is run, and again each time", () =>
    Effect.gen(function*() {
      const { queries, sent } = stub(people)
      const query = queries.list("SELECT id FROM people")
      const stream = queries.stream("SELECT id FROM people")
      const broken = queries.list("")
      expect(sent).toHaveLength(0)
      yield* query
      yield* query
      yield* collect(stream)
      yield* collect(stream)
      expect(sent).toHaveLength(4)
      yield* Effect.flip(broken)
      expect(sent).toHaveLength(4)
    }))
})

// ---------------------------------------------------------------------------------------------------------------------

const accepted = (sql: Sql, params?: Params, dialect?: Dialect) =>
  Effect.gen(function*() {
    const { queries, texts } = stub({}, dialect)
    yield* queries.execute(sql, params)
    return texts()[0]
  })

/** Refused in the same way by every form, and never sent. */
const refused = (sql: Sql, params?: Params, dialect?: Dialect) =>
  Effect.gen(function*() {
    const { queries, sent } = stub(people, dialect)
    const all: ReadonlyArray<Effect.Effect<unknown, DbError>> = [
      queries.values(sql, params),
      queries.list(sql, params),
      queries.value(sql, params),
      queries.dictionary(sql, params),
      queries.dictionaries(sql, params),
      queries.execute(sql, params),
      Stream.runDrain(queries.stream(sql, params)),
      queries.decode(Schema.Any).value(sql, params),
      Stream.runDrain(queries.decode(Schema.Any).stream(sql, params))
    ]
    const errors = yield* Effect.forEach(all, (query) => Effect.flip(query))
    expect(sent).toHaveLength(0)
    for (const error of errors) expect(error).toEqual(errors[0])
    return errors[0]
  })

describe("positional parameters", () => {
  it.effect("are sent as they are, in order", () =>
    Effect.gen(function*() {
      const date = new Date(0)
      const params = [1, "a", null, true, 2n ** 60n, date, new Uint8Array([1]), { a: 1 }, [1, 2]]
      const text = `SELECT ${params.map(() => "?").join()}`
      expect(yield* accepted(text, params)).toEqual([text, params])
    }))

  it.effect("are not counted inside quotes and comments", () =>
    Effect.gen(function*() {
      const text = "SELECT '?', \"?\", `?`, ? /* ? */ -- ?"
      expect(yield* accepted(text, [1])).toEqual([text, [1]])
      expect(yield* accepted("SELECT '?'")).toEqual(["SELECT '?'", []])
    }))

  it.effect.each([
    ["SELECT ?", undefined, 1, 0],
    ["SELECT ?", [], 1, 0],
    ["SELECT ?, ?", [1], 2, 1],
    ["SELECT ?, ?", [1, 2, 3], 2, 3],
    ["SELECT 1", [1], 0, 1]
  ])("%s with %j: as many as the text asks for", ([sql, params, asked, given]) =>
    Effect.gen(function*() {
      expect(yield* refused(sql as string, params as Params | undefined)).toMatchObject({
        _tag: "ParameterError",
        statement: sql,
        isRetryable: false,
        message: `The statement was not sent: it has ${asked} parameters, and ${given} values were given`
      })
    }))

  it.effect("may be none at all, as an empty array", () =>
    Effect.gen(function*() {
      expect(yield* accepted("SELECT 1", [])).toEqual(["SELECT 1", []])
    }))

  it.effect("name the one that cannot be sent, never its value", () =>
    Effect.gen(function*() {
      const error = yield* refused("SELECT ?, ?, ?", ["s3cret", undefined, "s3cret"])
      expect(error).toMatchObject({ _tag: "ParameterError", statement: "SELECT ?, ?, ?" })
      expect(error?.message).toContain("parameter 2")
      expect(error?.message).toContain("a value of type undefined cannot be sent")
      expect(JSON.stringify(error)).not.toContain("s3cret")
      expect((yield* refused("SELECT ?", [Symbol("s3cret")]))?.message).not.toContain("s3cret")
    }))

  it.effect("a sparse array's holes are undefined", () =>
    Effect.gen(function*() {
      const sparse: Array<unknown> = [1]
      sparse.length = 2
      expect(yield* refused("SELECT ?, ?", sparse)).toMatchObject({ _tag: "ParameterError" })
    }))

  it("are checked by a driver that may be of a class, whose methods know it", () => {
    const driver: Driver = {
      ...driverOf("mysql"),
      rejectParameter(value) {
        return this === driver ? undefined : `${String(value)} is asked of nobody`
      }
    }
    expect(Either.isRight(Queries.prepare(driver, "SELECT ?", [1]))).toBe(true)
  })
})

describe("named parameters", () => {
  for (const dialect of dialects) {
    it.effect(`become positional ones, repeated as often as they are used (${dialect})`, () =>
      Effect.gen(function*() {
        expect(yield* accepted("SELECT * FROM t WHERE a = :a AND (b = :b OR c = :a)", { a: 1, b: "x" }, dialect))
          .toEqual(["SELECT * FROM t WHERE a = ? AND (b = ? OR c = ?)", [1, "x", 1]])
      }))

    it.effect(`are not seen in quotes and comments, nor in :: and times (${dialect})`, () =>
      Effect.gen(function*() {
        const text = "SELECT ':a', '12:30', \":a\", :a /* :a */"
        expect(yield* accepted(text, { a: 1 }, dialect)).toEqual(["SELECT ':a', '12:30', \":a\", ? /* :a */", [1]])
      }))
  }

  it.effect("leaves values aside that nobody asks for", () =>
    Effect.gen(function*() {
      expect(yield* accepted("SELECT :a", { a: 1, b: undefined, c: Symbol("c") })).toEqual(["SELECT ?", [1]])
      expect(yield* accepted("SELECT 1", { a: 1 })).toEqual(["SELECT 1", []])
      expect(yield* accepted("SELECT 1", {})).toEqual(["SELECT 1", []])
    }))

  it.effect("says which are missing, each once", () =>
    Effect.gen(function*() {
      expect(yield* refused("SELECT :a, :b, :c, :a", { b: 1 })).toMatchObject({
        _tag: "ParameterError",
        statement: "SELECT :a, :b, :c, :a",
        message: "The statement was not sent: no value for :a, :c"
      })
    }))

  it.effect("does not take for a value what every object inherits", () =>
    Effect.gen(function*() {
      expect(yield* refused("SELECT :toString, :constructor", {})).toMatchObject({
        message: "The statement was not sent: no value for :toString, :constructor"
      })
      expect(yield* accepted("SELECT :toString", { toString: 1 })).toEqual(["SELECT ?", [1]])
    }))

  it.effect("takes a record without a prototype", () =>
    Effect.gen(function*() {
      const params: Record<string, unknown> = Object.assign(Object.create(null), { a: 1 })
      expect(yield* accepted("SELECT :a", params)).toEqual(["SELECT ?", [1]])
    }))

  it.effect("tells upper from lower case", () =>
    Effect.gen(function*() {
      expect(yield* refused("SELECT :Id", { id: 1 })).toMatchObject({
        message: "The statement was not sent: no value for :Id"
      })
    }))

  it.effect("names the one that cannot be sent by its name", () =>
    Effect.gen(function*() {
      const error = yield* refused("SELECT :first, :second", { first: 1, second: undefined })
      expect(error).toMatchObject({ _tag: "ParameterError" })
      expect(error?.message).toContain("parameter :second")
    }))

  it.effect("asks for a record when it gets an array or nothing", () =>
    Effect.gen(function*() {
      for (const params of [undefined, [], [1]]) {
        expect(yield* refused("SELECT :a", params)).toMatchObject({
          _tag: "ParameterError",
          message: "The statement was not sent: it has named parameters; pass a record of their values"
        })
      }
    }))

  it.effect("does not mix with ?", () =>
    Effect.gen(function*() {
      expect(yield* refused("SELECT :a, ?", { a: 1 })).toMatchObject({ _tag: "ParameterError" })
      expect(yield* refused("SELECT :a, ?", [1])).toMatchObject({ _tag: "ParameterError" })
      expect(yield* refused("SELECT ?", { a: 1 })).toMatchObject({ _tag: "ParameterError" })
    }))
})

describe("the text", () => {
  it.effect.each(["", " \n\t", "-- nothing", "/* nothing */", ";", " ; ; "])(
    "%j is empty",
    (sql) =>
      Effect.gen(function*() {
        for (const dialect of dialects) {
          expect(yield* refused(sql, undefined, dialect)).toMatchObject({
            _tag: "InvalidStatement",
            statement: sql,
            isRetryable: false,
            message: "The statement was not sent: it is empty"
          })
        }
      })
  )

  it.effect.each([
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE people",
    "SELECT 'a'';'; DROP TABLE people -- '",
    "SELECT 1;/* */DELETE FROM people;",
    "SELECT 1\n;\nSELECT 2"
  ])("%j is two statements, and a call runs one", (sql) =>
    Effect.gen(function*() {
      for (const dialect of dialects) {
        expect(yield* refused(sql, undefined, dialect)).toMatchObject({
          _tag: "InvalidStatement",
          statement: sql,
          message: "The statement was not sent: it holds 2 statements, and a call runs one"
        })
      }
    }))

  it.effect("one statement may end in semicolons and comments, and hold them in quotes", () =>
    Effect.gen(function*() {
      for (const sql of ["SELECT 1;", "SELECT 1 ; ; -- done", "SELECT ';', ';'", "SELECT 1 /* ; SELECT 2 */"]) {
        for (const dialect of dialects) expect(yield* accepted(sql, undefined, dialect)).toEqual([sql, []])
      }
    }))

  it.effect("a stored program with semicolons in its body is one statement", () =>
    Effect.gen(function*() {
      const sql = "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END"
      expect(yield* accepted(sql)).toEqual([sql, []])
    }))

  it.effect("is sent with what is known of it", () =>
    Effect.gen(function*() {
      const { queries, sent } = stub(people)
      yield* queries.list("SELECT id FROM people WHERE id > :id", { id: 1 })
      yield* queries.execute("SET @x = 1")
      expect(sent.map(({ traits }) => traits)).toMatchObject([
        { verb: "SELECT", plainRead: true, placeholders: 1, named: false, changesSession: false },
        { verb: "SET", plainRead: false, changesSession: true }
      ])
    }))
})

// ---------------------------------------------------------------------------------------------------------------------

/** A client's statements. Its acquirer is never asked: the statement runs where it is handed to. */
const clientOf = (dialect: Dialect, transform?: (name: string) => string) =>
  SqlStatement.make(
    // its identity is what @effect/sql caches a client by, so that each has one of its own
    Effect.suspend(() => unused),
    dialect === "mysql" ? MysqlClient.makeCompiler(transform) : SqlStatement.makeCompilerSqlite(transform),
    [],
    undefined
  )

const quote: Record<Dialect, string> = { mysql: "`", sqlite: "\"" }

describe("statements and fragments of @effect/sql", () => {
  for (const dialect of dialects) {
    const q = (name: string) => `${quote[dialect]}${name}${quote[dialect]}`

    it.effect(`bring their parameters, in the dialect of the database (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        expect(
          yield* accepted(sql`SELECT * FROM ${sql("people")} WHERE id = ${7} AND name <> ${"x"}`, undefined, dialect)
        )
          .toEqual([`SELECT * FROM ${q("people")} WHERE id = ? AND name <> ?`, [7, "x"]])
      }))

    it.effect(`sql.in, and its empty list (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        expect(yield* accepted(sql`SELECT 1 FROM t WHERE ${sql.in("id", [1, 2, 3])}`, undefined, dialect)).toEqual([
          `SELECT 1 FROM t WHERE ${q("id")} IN (?,?,?)`,
          [1, 2, 3]
        ])
        expect(yield* accepted(sql`SELECT 1 FROM t WHERE id IN ${sql.in([1, 2])}`, undefined, dialect)).toEqual([
          "SELECT 1 FROM t WHERE id IN (?,?)",
          [1, 2]
        ])
        expect(yield* accepted(sql`SELECT 1 FROM t WHERE ${sql.in("id", [])}`, undefined, dialect)).toEqual([
          "SELECT 1 FROM t WHERE 1=0",
          []
        ])
      }))

    it.effect(`sql.insert of one and of several (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        expect(yield* accepted(sql`INSERT INTO t ${sql.insert({ a: 1, b: null })}`, undefined, dialect)).toEqual([
          `INSERT INTO t (${q("a")},${q("b")}) VALUES (?,?)`,
          [1, null]
        ])
        expect(
          yield* accepted(sql`INSERT INTO t ${sql.insert([{ a: 1 }, { a: 2 }]).returning("*")}`, undefined, dialect)
        ).toEqual([`INSERT INTO t (${q("a")}) VALUES (?),(?) RETURNING *`, [1, 2]])
      }))

    it.effect(`sql.update, sql.and, sql.or and sql.csv (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        const where = sql.and([sql`id = ${1}`, sql.or(["a IS NULL", sql`b > ${2}`])])
        expect(
          yield* accepted(
            sql`UPDATE t SET ${sql.update({ id: 1, a: "x", b: 3 }, ["id"])} WHERE ${where} ${
              sql.csv("ORDER BY", ["a", "b"])
            }`,
            undefined,
            dialect
          )
        ).toEqual([
          `UPDATE t SET ${q("a")} = ?, ${q("b")} = ? WHERE (id = ? AND (a IS NULL OR b > ?)) ORDER BY a, b`,
          ["x", 3, 1, 2]
        ])
      }))

    it.effect(`sql.unsafe and sql.literal (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        expect(yield* accepted(sql.unsafe("SELECT ?", [1]), undefined, dialect)).toEqual(["SELECT ?", [1]])
        expect(yield* accepted(sql.literal("SELECT 1"), undefined, dialect)).toEqual(["SELECT 1", []])
      }))

    it.effect(`a fragment without a client is written in the database's dialect (${dialect})`, () =>
      Effect.gen(function*() {
        const fragment = SqlStatement.join(" ", false)([
          "SELECT * FROM t WHERE",
          clientOf(dialect).in("id", [1, 2])
        ])
        expect(yield* accepted(fragment, undefined, dialect)).toEqual([
          `SELECT * FROM t WHERE ${q("id")} IN (?,?)`,
          [1, 2]
        ])
        expect(yield* accepted(SqlStatement.unsafeFragment("SELECT ?", [5]), undefined, dialect)).toEqual([
          "SELECT ?",
          [5]
        ])
      }))

    it.effect(`keep their client's transformation of names (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect, (name) => name.toUpperCase())
        expect(yield* accepted(sql`SELECT ${sql("name")}`, undefined, dialect)).toEqual([`SELECT ${q("NAME")}`, []])
      }))

    it.effect(`quotes in names are escaped (${dialect})`, () =>
      Effect.gen(function*() {
        const sql = clientOf(dialect)
        const name = `a${quote[dialect]}; DROP TABLE t`
        const doubled = `a${quote[dialect]}${quote[dialect]}; DROP TABLE t`
        expect(yield* accepted(sql`SELECT ${sql(name)}`, undefined, dialect)).toEqual([`SELECT ${q(doubled)}`, []])
      }))
  }

  it.effect("one fragment may be used on databases of both dialects", () =>
    Effect.gen(function*() {
      const fragment = SqlStatement.join(" ", false)(["SELECT 1 FROM t WHERE", clientOf("mysql").in("id", [1])])
      expect(yield* accepted(fragment, undefined, "mysql")).toEqual(["SELECT 1 FROM t WHERE `id` IN (?)", [1]])
      expect(yield* accepted(fragment, undefined, "sqlite")).toEqual(["SELECT 1 FROM t WHERE \"id\" IN (?)", [1]])
    }))

  it.effect("are checked like any other statement", () =>
    Effect.gen(function*() {
      const sql = clientOf("mysql")
      expect(yield* refused(sql`SELECT ${undefined}`)).toMatchObject({ _tag: "ParameterError", statement: "SELECT ?" })
      expect(yield* refused(sql`SELECT 1; SELECT 2`)).toMatchObject({ _tag: "InvalidStatement" })
      expect(yield* refused(sql``)).toMatchObject({ _tag: "InvalidStatement", statement: "" })
      expect(yield* refused(sql.unsafe("SELECT ?", []))).toMatchObject({ _tag: "ParameterError" })
      expect(yield* refused(sql.literal("SELECT :a"))).toMatchObject({ _tag: "ParameterError" })
    }))

  it.effect("take no parameters beside their own", () =>
    Effect.gen(function*() {
      const sql = clientOf("mysql")
      for (const params of [[1], [], { a: 1 }]) {
        expect(yield* refused(sql`SELECT ${1}`, params)).toMatchObject({
          _tag: "ParameterError",
          statement: "SELECT ?",
          message: "The statement was not sent: a statement of @effect/sql brings its own parameters"
        })
      }
    }))
})

// ---------------------------------------------------------------------------------------------------------------------

const Person = Schema.Struct({ id: Schema.Number, name: Schema.NullOr(Schema.String) })
const Pair = Schema.Tuple(Schema.Number, Schema.NullOr(Schema.String))

describe("decode", () => {
  it.effect("decodes what each form gives: rows as records or arrays, columns by themselves", () =>
    Effect.gen(function*() {
      const { queries } = stub(people)
      const rows = people.rows.map(([id, name]) => ({ id, name }))
      expect(yield* queries.decode(Person).dictionary("SELECT 1")).toEqual(Option.some(rows[0]))
      expect(yield* queries.decode(Person).dictionaries("SELECT 1")).toEqual(rows)
      expect(yield* collect(queries.decode(Person).stream("SELECT 1"))).toEqual(rows)
      expect(yield* queries.decode(Pair).values("SELECT 1")).toEqual(people.rows)
      expect(yield* queries.decode(Schema.Number).list("SELECT 1")).toEqual([1, 2, 3])
      expect(yield* queries.decode(Schema.Number).value("SELECT 1")).toEqual(Option.some(1))
    }))

  it.effect("transforms, as with dates, branded ids and defaults", () =>
    Effect.gen(function*() {
      const Id = Schema.NumberFromString.pipe(Schema.int(), Schema.brand("Id"))
      const Event = Schema.Struct({
        id: Id,
        at: Schema.DateFromString,
        name: Schema.optionalWith(Schema.String, { default: () => "?", nullable: true })
      })
      const { queries } = stub({ columns: ["id", "at", "name"], rows: [["7", "2024-02-29T00:00:00Z", null]] })
      expect(yield* queries.decode(Event).dictionary("SELECT 1")).toEqual(
        Option.some({ id: 7, at: new Date(Date.UTC(2024, 1, 29)), name: "?" })
      )
    }))

  it.effect("decodes into a class", () =>
    Effect.gen(function*() {
      class User extends Schema.Class<User>("User")({ id: Schema.Number, name: Schema.NullOr(Schema.String) }) {}
      const found = yield* stub(people).queries.decode(User).dictionaries("SELECT 1")
      expect(found[0]).toBeInstanceOf(User)
    }))

  it.effect("keeps the difference between no row and NULL", () =>
    Effect.gen(function*() {
      const none = stub({ columns: ["a"], rows: [] }).queries
      expect(yield* none.decode(Schema.Number).value("SELECT 1")).toEqual(Option.none())
      expect(yield* none.decode(Person).dictionary("SELECT 1")).toEqual(Option.none())
      expect(yield* none.decode(Person).dictionaries("SELECT 1")).toEqual([])
      const some = stub({ columns: ["a"], rows: [[null]] }).queries
      expect(yield* some.decode(Schema.Null).value("SELECT 1")).toEqual(Option.some(null))
    }))

  it.effect("takes parameters as the plain forms do", () =>
    Effect.gen(function*() {
      const { queries, texts } = stub(people)
      yield* queries.decode(Schema.Number).list("SELECT :a", { a: 1 })
      yield* queries.decode(Schema.Number).list("SELECT ?", [2])
      yield* queries.decode(Schema.Number).list(clientOf("mysql")`SELECT ${3}`)
      expect(texts()).toEqual([["SELECT ?", [1]], ["SELECT ?", [2]], ["SELECT ?", [3]]])
    }))

  it.effect("names the statement and what did not fit, in each form", () =>
    Effect.gen(function*() {
      const { queries } = stub({ columns: ["id", "name"], rows: [[1, "Ada"], ["two", "Bob"]] })
      const sql = "SELECT id, name FROM people WHERE id > ?"
      const Strict = Schema.Struct({ id: Schema.Number, name: Schema.Literal("Bob") })
      const failing: ReadonlyArray<readonly [Effect.Effect<unknown, DbError>, ReadonlyArray<string>]> = [
        [queries.decode(Person).dictionaries(sql, [0]), ["1", "id", "number"]],
        [queries.decode(Strict).dictionary(sql, [0]), ["name", "\"Bob\""]],
        [queries.decode(Pair).values(sql, [0]), ["1", "0", "number"]],
        [queries.decode(Schema.Number).list(sql, [0]), ["1", "number"]],
        [queries.decode(Schema.String).value(sql, [0]), ["string"]],
        [collect(queries.decode(Person).stream(sql, [0])), ["id", "number"]]
      ]
      for (const [query, parts] of failing) {
        const error = yield* Effect.flip(query)
        expect(error).toMatchObject({ _tag: "DecodeError", statement: sql, isRetryable: false })
        expect(error.message).toMatch(/^The rows of the statement do not fit the schema: /)
        for (const part of parts) expect(error.message).toContain(part)
      }
    }))

  it.effect("names the text of a statement or fragment of @effect/sql", () =>
    Effect.gen(function*() {
      const { queries } = stub(people)
      const sql = clientOf("mysql")
      const statement = sql`SELECT id FROM people WHERE ${sql.in("id", [1])}`
      expect(yield* Effect.flip(queries.decode(Schema.String).list(statement))).toMatchObject({
        _tag: "DecodeError",
        statement: "SELECT id FROM people WHERE `id` IN (?)"
      })
      expect(yield* Effect.flip(queries.decode(Schema.String).list(sql.literal("SELECT id")))).toMatchObject({
        statement: "SELECT id"
      })
    }))

  it.effect("gives the rows of a stream that fit before the first that does not", () =>
    Effect.gen(function*() {
      const { queries } = stub({ columns: ["id"], rows: [[1], [2], ["three"], [4]] })
      const seen: Array<number> = []
      const error = yield* queries.decode(Schema.Struct({ id: Schema.Number })).stream("SELECT 1").pipe(
        Stream.runForEach(({ id }) => Effect.sync(() => seen.push(id))),
        Effect.flip
      )
      expect(error._tag).toBe("DecodeError")
      expect(seen).toEqual([1, 2])
    }))

  it.effect("says what did not fit in one plain line", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(
        stub({ columns: ["id", "name"], rows: [["x", 1]] }).queries
          .decode(Person).dictionaries("SELECT 1")
      )
      expect(error.message).not.toMatch(/[\n│└├]/)
    }))

  it.effect("runs the effects of a schema that has some", () =>
    Effect.gen(function*() {
      const Checked = Schema.Number.pipe(
        Schema.filterEffect((id) => Effect.succeed(id < 3 ? true : `there is no ${id}`))
      )
      const { queries } = stub(people)
      expect(yield* queries.decode(Checked).value("SELECT 1")).toEqual(Option.some(1))
      const error = yield* Effect.flip(queries.decode(Checked).list("SELECT 1"))
      expect(error.message).toContain("there is no 3")
    }))
})
