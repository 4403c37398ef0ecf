/**
 * The fake database with two statements more, of which nobody doubts that they commit nothing: `UPDATE deadlock` is refused,
 * and the server undoes the whole transaction with it; under `UPDATE lost` the connection breaks. And with eyes for
 * transactions: a breach of the contract is written down when something is written or ended outside of one, when one is
 * begun inside another, or when a savepoint is named that is not there.
 */
import { Effect, Exit, Scope } from "effect"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import { DeadlockError } from "../../src/DbError.js"
import type { Connection, Driver } from "../../src/Driver.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import type { PoolConfig } from "../../src/PoolConfig.js"
import * as FakeDriver from "./fakeDriver.js"
import { config, type Fixture, joinAfter, settle } from "./poolFixture.js"

export const deadlock = new DeadlockError({ statement: "UPDATE deadlock", reason: "found when trying to get lock" })

/** What the fake database does for them. */
const meanings: ReadonlyMap<string, string> = new Map([["UPDATE deadlock", "ROLLBACK"], ["UPDATE lost", "LOSE"]])

/** What may be sent only in a transaction. */
const inside = /^(INSERT|UPDATE|COMMIT|SAVEPOINT|RELEASE|ROLLBACK TO)/

const watched = (fake: FakeDriver.FakeDriver, connection: Connection): Connection => {
  let savepoints: Array<string> = []
  const violation = (what: string): void => void fake.violations.push(`${connection.id}: ${what}`)
  const watch = (sql: string): void => {
    const open = connection.session() === "transaction"
    if (inside.test(sql) && !open) violation(`${sql} outside of a transaction`)
    if (sql === "BEGIN" && open) violation("BEGIN in a transaction")
    if (!open || sql === "COMMIT" || sql === "ROLLBACK") savepoints = []
    const [, verb, name = ""] = /^(SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK TO SAVEPOINT) (.*)/.exec(sql) ?? []
    if (verb === "SAVEPOINT") savepoints.push(name)
    else if (verb !== undefined) {
      if (!savepoints.includes(name)) violation(`${sql}, which is not there`)
      const kept = savepoints.indexOf(name) + (verb === "RELEASE SAVEPOINT" ? 0 : 1)
      savepoints = savepoints.slice(0, kept)
    }
  }
  return {
    id: connection.id,
    isOpen: connection.isOpen,
    session: connection.session,
    onLost: connection.onLost,
    stream: connection.stream,
    ping: connection.ping,
    reset: connection.reset,
    cancel: connection.cancel,
    close: connection.close,
    destroy: connection.destroy,
    run: (statement, done) => {
      watch(statement.sql)
      const meaning = meanings.get(statement.sql)
      if (meaning === undefined) return connection.run(statement, done)
      connection.run(
        { ...statement, sql: meaning },
        (exit) => done(meaning === "ROLLBACK" && Exit.isSuccess(exit) ? Exit.fail(deadlock) : exit)
      )
      fake.sent.splice(-1, 1, { connection: connection.id, sql: statement.sql })
    }
  }
}

/** The driver that a pool gets in place of the fake. */
export const aborting = (fake: FakeDriver.FakeDriver): Driver => ({
  dialect: fake.dialect,
  target: fake.target,
  transaction: fake.transaction,
  rejectParameter: fake.rejectParameter,
  connect: Effect.map(fake.connect, (connection) => watched(fake, connection))
})

/** As `withPool` of the fixtures, on this database. */
export const withAborting = <A, E, R>(
  options: Partial<PoolConfig> & { readonly script?: Partial<FakeDriver.Scripts> },
  use: (fixture: Fixture) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const { script, ...rest } = options
    const fake = yield* FakeDriver.make(script)
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(ConnectionPool.make(aborting(fake), config(rest)), scope)
    const fibers = FiberConnection.make(pool)
    const run = (sql: string) => Effect.map(fibers.run(FakeDriver.statement(sql)), (result) => result.rows[0]?.[0])
    const close = Scope.close(scope, Exit.void)
    const exit = yield* Effect.exit(use({ fake, pool, fibers, run, close }))
    yield* joinAfter(yield* Effect.fork(close), 60_000)
    yield* settle
    if (Exit.isSuccess(exit)) fake.expectAllClosed()
    return yield* exit
  })
