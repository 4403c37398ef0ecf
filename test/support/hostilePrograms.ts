/** What may be under way when a hostile server lies: on one connection without a pool, and with all that a pool does. */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Db from "../../src/Db.js"
import { ConnectionError, type DbError } from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import type { Connection, Driver, Row, Statement } from "../../src/Driver.js"
import { analyze } from "../../src/internal/sessionState.js"
import * as MysqlDriver from "../../src/MysqlDriver.js"
import type { PoolOptions } from "../../src/PoolConfig.js"
import { withLayer } from "./dbFixture.js"

export interface Scenario {
  readonly run: (url: Redacted.Redacted) => Effect.Effect<unknown, unknown>
  /** After how many milliseconds it is over, on a machine that has time for it. */
  readonly bound: number
}

/** In milliseconds. */
const limits = {
  acquireTimeout: 1_500,
  connectTimeout: 1_500,
  validationTimeout: 500,
  cancelTimeout: 500,
  statementTimeout: 1_000,
  drainTimeout: 100
}

const everyType = "SELECT ? a, 9007199254740993 b, CAST(1.5 AS DECIMAL(9,2)) c, 1e9 d, 'text' e, NULL f,"
  + " CAST('2024-02-29 12:00:00.5' AS DATETIME(3)) g, DATE'2024-02-29' h, x'00ff' i, JSON_ARRAY(1, 2) j, TIME'12:00:00' k"
const insert = "INSERT INTO items (name) VALUES (?)"
const select = "SELECT id, name FROM items"

// --- a connection ----------------------------------------------------------------------------------------------------

type Steps = (connection: Connection, driver: Driver) => Effect.Effect<unknown, DbError>

const statement = (driver: Driver, sql: string, params: ReadonlyArray<unknown>, unprepared = false): Statement => ({
  sql,
  params,
  traits: analyze(sql, driver.dialect),
  unprepared,
  compatible: unprepared
})

/** A second answer is a defect. */
const answeredOnce = <A>(
  start: (done: (exit: Effect.Effect<A, DbError>) => void) => void
): Effect.Effect<A, DbError> =>
  Effect.async((resume) => {
    let answered = false
    start((exit) => {
      if (answered) throw new Error("it was answered twice")
      answered = true
      resume(exit)
    })
  })

const run = (sql: string, params: ReadonlyArray<unknown> = [], unprepared = false): Steps => (connection, driver) =>
  answeredOnce((done) => connection.run(statement(driver, sql, params, unprepared), done))

const stream = (sql: string): Steps => (connection, driver) =>
  Effect.suspend(() => {
    const cursor = connection.stream(statement(driver, sql, []))
    const next: Effect.Effect<void, DbError> = Effect.flatMap(
      answeredOnce<ReadonlyArray<Row>>((done) => cursor.next(done)),
      (rows) => rows.length === 0 ? Effect.void : next
    )
    return next
  })

const tooLate = new ConnectionError({ target: "the test", reason: "cut by its deadline", isRetryable: true })

/** Without a pool nobody bounds a connect or a statement: here the time is over for both together. */
const onConnection = (steps: Steps): Scenario => ({
  bound: 2 * limits.connectTimeout,
  run: (url) =>
    Effect.scoped(Effect.gen(function*() {
      const driver = yield* MysqlDriver.make({ url })
      const connection = yield* Effect.timeoutFail(driver.connect, {
        duration: limits.connectTimeout,
        onTimeout: () => tooLate
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => connection.destroy()))
      // what is lost has to say so itself
      const timer = setTimeout(() => connection.destroy(), limits.connectTimeout)
      yield* Effect.addFinalizer(() => Effect.sync(() => clearTimeout(timer)))
      return yield* steps(connection, driver)
    }))
})

const inTurn = (...all: ReadonlyArray<Steps>): Steps => (connection, driver) =>
  Effect.forEach(all, (steps) => steps(connection, driver), { discard: true })
const ping: Steps = ({ ping }) => ping
const reset: Steps = ({ reset }) => reset
const refused = (steps: Steps): Steps => (connection, driver) =>
  Effect.catchTag(steps(connection, driver), "UniqueViolation", () => Effect.void)

export const connectionScenarios: Readonly<Record<string, Scenario>> = {
  "a SELECT": onConnection(run(everyType, ["given"])),
  "an INSERT": onConnection(run(insert, ["another"])),
  "a refusal": onConnection(refused(run(insert, ["first"]))),
  "a text": onConnection(run(everyType, ["given"], true)),
  "several statements": onConnection(run(`${everyType}; SELECT 1`, ["given"], true)),
  "a stream": onConnection(stream(select)),
  "a ping": onConnection(inTurn(ping, ping)),
  "a reset": onConnection(inTurn(run("SET @a = 1"), reset, run("SELECT @a")))
}

// --- a pool ----------------------------------------------------------------------------------------------------------

type Program = Effect.Effect<unknown, unknown, DbLayer.Services>

/** `statements` is how many the program may wait for, each with a connection first and a retry. */
const onPool = (statements: number, program: Program, options: PoolOptions = {}): Scenario => ({
  bound: statements * 2 * (limits.acquireTimeout + limits.statementTimeout + limits.cancelTimeout) +
    limits.drainTimeout,
  run: (url) =>
    withLayer({
      url,
      poolSize: 1,
      // so that what is said does not depend on how long things take
      validateAfter: "1 hour",
      recovery: Schedule.recurs(1),
      connectSchedule: Schedule.spaced(limits.acquireTimeout),
      ...limits,
      ...options
    }, program)
})

const db = Db.Db
const back = Effect.flatMap(
  db,
  ({ releaseFiberConnection }) => Effect.zipRight(releaseFiberConnection, Effect.sleep(5))
)

export const poolScenarios: Readonly<Record<string, Scenario>> = {
  "a helper": onPool(1, Effect.flatMap(db, ({ values }) => values(everyType, ["given"]))),
  "a client's text": onPool(
    1,
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(`${everyType}; SELECT 1`, ["given"]).unprepared)
  ),
  "a pool's stream": onPool(1, Effect.flatMap(db, ({ stream }) => Stream.runDrain(stream(select)))),
  "a validation": onPool(
    3,
    Effect.flatMap(
      db,
      ({ value }) => value("SELECT 1").pipe(Effect.zipRight(back), Effect.zipRight(value("SELECT 2")))
    ),
    { validateAfter: 0 }
  ),
  "a pool's reset": onPool(
    3,
    Effect.flatMap(
      db,
      ({ execute, value }) => execute("SET @a = 1").pipe(Effect.zipRight(back), Effect.zipRight(value("SELECT @a")))
    )
  ),
  "a transaction": onPool(
    4,
    Effect.flatMap(db, ({ transaction, value }) => transaction(value("SELECT COUNT(*) FROM items")))
  )
}
