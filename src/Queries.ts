/**
 * The queries: a text, parameters and what is wanted of the rows, over anything that runs statements.
 *
 * A statement is a text with `?` and an array, a text with `:names` and a record, or a statement or fragment of
 * `@effect/sql`. It is checked before it is sent: one statement, as many parameters as it asks for, each of which can
 * be sent.
 *
 * @module
 * @since 0.1.0
 */
import * as SqlStatement from "@effect/sql/Statement"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Fiber from "effect/Fiber"
import type * as FiberStatus from "effect/FiberStatus"
import * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { type DbError, DecodeError, InvalidStatement, ParameterError } from "./DbError.js"
import type { Driver, Result, Row, Statement } from "./Driver.js"
import type { RowStream } from "./FiberConnection.js"
import { type Calls, forgotten } from "./internal/origin.js"
import { analyze, type StatementTraits } from "./internal/sessionState.js"
import { bindNamed } from "./internal/sqlText.js"
import { noParameters, OneStatement } from "./internal/statement.js"

/**
 * A statement: SQL text, or a statement or fragment of `@effect/sql`, which brings its own parameters.
 *
 * @since 0.1.0
 * @category models
 */
export type Sql = string | SqlStatement.Fragment

/**
 * Parameters: an array for `?`, a record for `:name`. A value is a string, a finite number, a bigint, a boolean,
 * `null`, a `Date`, a `Uint8Array`, or a plain object or array, which is sent as JSON. `undefined` is an error.
 *
 * @since 0.1.0
 * @category models
 */
export type Params = ReadonlyArray<unknown> | Readonly<Record<string, unknown>>

/**
 * What a statement without rows did.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExecuteResult {
  /** Rows inserted, deleted or matched by an update. */
  readonly affectedRows: number
  /** The generated id of the first inserted row; 0 when there is none. A bigint beyond 2⁵³. */
  readonly insertId: number | bigint
  /** How many warnings the server has for the statement. */
  readonly warnings: number
}

/**
 * The queries. All fail with `DbError`; interrupting one stops its statement on the server and returns at once.
 *
 * The type parameters of the rows are taken at their word; {@link Queries.decode} checks them.
 *
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Db } from "effect-sql-pool"
 *
 * const Reading = Schema.Struct({ id: Schema.Number, celsius: Schema.Number })
 *
 * const program = Effect.gen(function*() {
 *   const db = yield* Db.Db
 *   const days = yield* db.list<string>("SELECT DISTINCT day FROM readings WHERE celsius > ?", [30])
 *   const [first, second] = yield* db.values<[number, string]>("SELECT id, day FROM readings WHERE id < :id", { id: 3 })
 *   const { insertId } = yield* db.execute("INSERT INTO readings (day, celsius) VALUES (?, ?)", ["2024-02-29", 21])
 *   // decoded as they come: one connection, constant memory
 *   const hottest = yield* db.decode(Reading).stream("SELECT id, celsius FROM readings").pipe(
 *     Stream.runFold(-273, (hottest, { celsius }) => Math.max(hottest, celsius))
 *   )
 *   return { days, first, second, insertId, hottest }
 * })
 * ```
 *
 * @since 0.1.0
 * @category models
 */
export interface Queries {
  /** Every row, as an array of column values. */
  readonly values: <A extends Row = Row>(sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<A>, DbError>
  /** The first column of every row. */
  readonly list: <A = unknown>(sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<A>, DbError>
  /** The first column of the first row; none without rows, `Some(null)` for a NULL. */
  readonly value: <A = unknown>(sql: Sql, params?: Params) => Effect.Effect<Option.Option<A>, DbError>
  /** The first row as a record by column name; of columns with one name the last wins. */
  readonly dictionary: <A extends object = Record<string, unknown>>(
    sql: Sql,
    params?: Params
  ) => Effect.Effect<Option.Option<A>, DbError>
  /** Every row as a record by column name; of columns with one name the last wins. */
  readonly dictionaries: <A extends object = Record<string, unknown>>(
    sql: Sql,
    params?: Params
  ) => Effect.Effect<ReadonlyArray<A>, DbError>
  /** Runs a statement for its effect, and says what it did. */
  readonly execute: (sql: Sql, params?: Params) => Effect.Effect<ExecuteResult, DbError>
  /**
   * Every row as a record, as the server sends them: one connection for as long as the stream, constant memory, and
   * nothing read while nobody asks. Ending it early stops the statement on the server.
   */
  readonly stream: <A extends object = Record<string, unknown>>(sql: Sql, params?: Params) => Stream.Stream<A, DbError>
  /** The same queries with every result decoded: a column value for `list` and `value`, an array for `values`, else a record. */
  readonly decode: <A, I, R>(schema: Schema.Schema<A, I, R>) => DecodedQueries<A, R>
}

/**
 * The queries with their results decoded by a schema. A result that does not fit fails with `DecodeError`.
 *
 * @since 0.1.0
 * @category models
 */
export interface DecodedQueries<A, R> {
  /** Every row, each decoded from the array of its column values. */
  readonly values: (sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<A>, DbError, R>
  /** The first column of every row, decoded. */
  readonly list: (sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<A>, DbError, R>
  /** The first column of the first row, decoded. */
  readonly value: (sql: Sql, params?: Params) => Effect.Effect<Option.Option<A>, DbError, R>
  /** The first row, decoded from a record. */
  readonly dictionary: (sql: Sql, params?: Params) => Effect.Effect<Option.Option<A>, DbError, R>
  /** Every row, each decoded from a record. */
  readonly dictionaries: (sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<A>, DbError, R>
  /** Every row as it comes, each decoded from a record. */
  readonly stream: (sql: Sql, params?: Params) => Stream.Stream<A, DbError, R>
}

/**
 * What runs statements: a fiber's connection, a session's, an explicit one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Executor {
  /** The database, which says what a parameter may be and how SQL is read. */
  readonly driver: Driver
  /**
   * Runs a statement, and gives what `shape` makes of its result. Called by the fiber that is going to run the effect right
   * away, with what `Effect.withFiberRuntime` tells it.
   */
  readonly run: <A>(
    statement: Statement,
    fiber: Fiber.RuntimeFiber<unknown, unknown>,
    status: FiberStatus.Running,
    shape: (result: Result) => A
  ) => Effect.Effect<A, DbError>
  /** The rows of a statement as they come. */
  readonly stream: (statement: Statement) => RowStream
  /** @internal Has the queries remember by which call of the program they were made. */
  readonly calls?: Calls | undefined
}

const mysqlCompiler = SqlStatement.makeCompiler({
  dialect: "mysql",
  placeholder: () => "?",
  onIdentifier: SqlStatement.defaultEscape("`"),
  onCustom: () => ["", []],
  onRecordUpdate: () => ["", []]
})

const sqliteCompiler = SqlStatement.makeCompilerSqlite()

const hasClient = (fragment: SqlStatement.Fragment): fragment is SqlStatement.Statement<unknown> =>
  "compile" in fragment

const compileFragment = (
  driver: Driver,
  fragment: SqlStatement.Fragment
): readonly [string, ReadonlyArray<unknown>] => {
  // a statement knows its client's compiler, and with it that client's transformation of names
  if (hasClient(fragment)) return fragment.compile()
  // a fragment remembers what it was compiled to, whichever the dialect: a copy does not
  const copy = SqlStatement.join("", false)([fragment])
  return (driver.dialect === "mysql" ? mysqlCompiler : sqliteCompiler).compile(copy, false)
}

/**
 * Turns what the user wrote into one statement that can be sent; nothing is sent yet. `InvalidStatement` when the text is
 * empty or holds several, `ParameterError` when the parameters do not fit it or one of them cannot be sent.
 *
 * @since 0.1.0
 * @category constructors
 */
export const prepare = (driver: Driver, sql: Sql, params?: Params): Either.Either<Statement, DbError> =>
  sendable(prepareOrRefuse(driver, sql, params))

/** @internal Whether this is a statement that can be sent, or why there is none. */
export const isStatement = (prepared: Statement | DbError): prepared is Statement => "traits" in prepared

/** @internal The same as an `Either`, which costs more than the check of a statement. */
export const sendable = (prepared: Statement | DbError): Either.Either<Statement, DbError> =>
  isStatement(prepared) ? Either.right(prepared) : Either.left(prepared)

/** What {@link prepare} does, for every statement that a program runs. */
const prepareOrRefuse = (driver: Driver, sql: Sql, params?: Params): Statement | DbError => {
  if (typeof sql !== "string") {
    const [text, own] = compileFragment(driver, sql)
    return params === undefined
      ? check(driver, text, own)
      : new ParameterError({ statement: text, reason: "a statement of @effect/sql brings its own parameters" })
  }
  if (params === undefined || Array.isArray(params)) {
    return check(driver, sql, (params as ReadonlyArray<unknown>) ?? noParameters)
  }
  return bind(driver, sql, params as Readonly<Record<string, unknown>>)
}

const bind = (driver: Driver, sql: string, params: Readonly<Record<string, unknown>>): Statement | DbError => {
  const bound = bindNamed(sql, driver.dialect)
  const missing = Array.from(new Set(bound.names)).filter((name) => !Object.hasOwn(params, name))
  if (missing.length > 0) return new ParameterError({ statement: sql, reason: `no value for :${missing.join(", :")}` })
  return check(driver, bound.sql, bound.names.map((name) => params[name]), bound.names)
}

const check = (
  driver: Driver,
  sql: string,
  params: ReadonlyArray<unknown>,
  names?: ReadonlyArray<string>
): Statement | DbError => {
  const traits = analyze(sql, driver.dialect)
  return refuse(driver, sql, params, traits, { names }) ?? new OneStatement(sql, params, traits)
}

/** @internal What is wrong with a text and its parameters, if anything is. */
export const refuse = (
  driver: Driver,
  statement: string,
  params: ReadonlyArray<unknown>,
  traits: StatementTraits,
  { names, several = false }: {
    /** What the parameters are called, where they have names. */
    readonly names?: ReadonlyArray<string> | undefined
    /** Whether the text may hold several statements. */
    readonly several?: boolean | undefined
  }
): DbError | undefined => {
  if (traits.empty) return new InvalidStatement({ statement, reason: "it is empty" })
  if (traits.statements > 1 && !several) {
    return new InvalidStatement({ statement, reason: `it holds ${traits.statements} statements, and a call runs one` })
  }
  if (traits.named) {
    return new ParameterError({ statement, reason: "it has named parameters; pass a record of their values" })
  }
  if (traits.placeholders !== params.length) {
    const reason = `it has ${traits.placeholders} parameters, and ${params.length} values were given`
    return new ParameterError({ statement, reason })
  }
  for (let index = 0; index < params.length; index++) {
    const reason = driver.rejectParameter(params[index])
    if (reason !== undefined) {
      const which = names === undefined ? `parameter ${index + 1}` : `parameter :${names[index]}`
      return new ParameterError({ statement, reason: `${which}: ${reason}` })
    }
  }
  return undefined
}

const property = { configurable: true, enumerable: true, writable: true }

/** @internal One row by column name; of columns with one name the last wins. */
export const toRecord = (columns: ReadonlyArray<string>, row: Row): Record<string, unknown> => {
  const record: Record<string, unknown> = {}
  for (let index = 0; index < columns.length; index++) {
    const name = columns[index] as string
    // an assignment to this name would replace the record's prototype
    if (name === "__proto__") Object.defineProperty(record, name, { ...property, value: row[index] })
    else record[name] = row[index]
  }
  return record
}

/** The shapes in which results are wanted. */
const shapes = {
  values: (result: Result): ReadonlyArray<unknown> => result.rows,
  list: (result: Result): ReadonlyArray<unknown> => result.rows.map((row) => row[0]),
  dictionaries: (result: Result): ReadonlyArray<unknown> => result.rows.map((row) => toRecord(result.columns, row)),
  value: (result: Result): Option.Option<unknown> =>
    result.rows[0] === undefined ? Option.none() : Option.some(result.rows[0][0]),
  dictionary: (result: Result): Option.Option<unknown> =>
    result.rows[0] === undefined ? Option.none() : Option.some(toRecord(result.columns, result.rows[0])),
  execute: ({ affectedRows, insertId, warnings }: Result): ExecuteResult => ({ affectedRows, insertId, warnings })
}

/** What a statement's text is called in an error that has no statement yet. */
const textOf = (driver: Driver, sql: Sql): string => typeof sql === "string" ? sql : compileFragment(driver, sql)[0]

/**
 * The queries over an executor. A program has them already: on `Db`, and on an explicit connection.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (executor: Executor): Queries => {
  const { calls = forgotten, driver } = executor
  const query = <A>(shape: (result: Result) => A) => (sql: Sql, params?: Params): Effect.Effect<A, DbError> =>
    calls.effect(
      undefined,
      Effect.withFiberRuntime((fiber, status) => {
        const statement = prepareOrRefuse(driver, sql, params)
        return isStatement(statement) ? executor.run(statement, fiber, status, shape) : Effect.fail(statement)
      })
    )
  const stream = (sql: Sql, params?: Params): Stream.Stream<object, DbError> =>
    calls.stream(Stream.unwrap(Effect.map(
      Effect.suspend(() => prepare(driver, sql, params)),
      (statement) =>
        Stream.mapChunks(executor.stream(statement), Chunk.map(({ columns, row }) => toRecord(columns, row)))
    )))
  // what the type parameters say of the rows is the caller's word
  const queries: Queries = {
    values: query(shapes.values) as Queries["values"],
    list: query(shapes.list) as Queries["list"],
    value: query(shapes.value) as Queries["value"],
    dictionary: query(shapes.dictionary) as Queries["dictionary"],
    dictionaries: query(shapes.dictionaries) as Queries["dictionaries"],
    execute: query(shapes.execute),
    stream: stream as Queries["stream"],
    decode: (schema) => decoded(driver, queries, schema)
  }
  return queries
}

const inOneLine = (error: ParseResult.ParseError): string =>
  ParseResult.ArrayFormatter.formatErrorSync(error)
    .map(({ message, path }) => `${path.length === 0 ? "" : `at ${path.map(String).join(".")}: `}${message}`)
    .join("; ")
    .replaceAll(/\s+/g, " ")

const decoded = <A, I, R>(driver: Driver, queries: Queries, schema: Schema.Schema<A, I, R>): DecodedQueries<A, R> => {
  const fail = (sql: Sql) => (error: ParseResult.ParseError): DecodeError =>
    new DecodeError({ statement: textOf(driver, sql), reason: inOneLine(error) })
  const one = Schema.decodeUnknown(schema)
  const many = Schema.decodeUnknown(Schema.Array(schema))
  const all =
    (run: (sql: Sql, params?: Params) => Effect.Effect<ReadonlyArray<unknown>, DbError>) =>
    (sql: Sql, params?: Params): Effect.Effect<ReadonlyArray<A>, DbError, R> =>
      Effect.flatMap(run(sql, params), (rows) => Effect.mapError(many(rows), fail(sql)))
  const first =
    (run: (sql: Sql, params?: Params) => Effect.Effect<Option.Option<unknown>, DbError>) =>
    (sql: Sql, params?: Params): Effect.Effect<Option.Option<A>, DbError, R> =>
      Effect.flatMap(
        run(sql, params),
        Option.match({
          onNone: () => Effect.succeedNone,
          onSome: (row) => Effect.asSome(Effect.mapError(one(row), fail(sql)))
        })
      )
  return {
    values: all(queries.values),
    list: all(queries.list),
    value: first(queries.value),
    dictionary: first(queries.dictionary),
    dictionaries: all(queries.dictionaries),
    stream: (sql, params) =>
      Stream.mapEffect(queries.stream(sql, params), (row) => Effect.mapError(one(row), fail(sql)))
  }
}
