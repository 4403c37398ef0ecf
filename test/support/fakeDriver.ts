/**
 * A database that is a small language, driven by Effect's Clock alone.
 *
 * Each phase of a connection's life follows a script: it succeeds, fails, takes its time, or never answers. The driver
 * writes down what it opened, what was given back and what was sent, and notes every breach of the contract in
 * `src/Driver.ts`: two things at once on one connection, something sent while a cancel is unanswered, something sent
 * after the end, a connection given back twice or never.
 *
 * Statements: `SELECT id`, `SELECT LAST_INSERT_ID()`, `SELECT ROW_COUNT()`, `SLEEP n` (milliseconds), `INSERT`,
 * `DIRTY`, `BEGIN`, `COMMIT`, `ROLLBACK`, `FAIL`, `READ ONLY`, `LOSE` (outcome unknown), `LOSE UNSENT` (not executed),
 * `ROWS n`, `ROWS n THEN LOSE` and `ROWS n THEN HANG` (for streams, three rows a chunk). Anything else succeeds and does nothing.
 */
import { expect } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, type Fiber, FiberId, Option, Runtime } from "effect"
import {
  type ConnectFailure,
  ConnectionError,
  ConnectionLost,
  type DbError,
  type Outcome,
  ReadOnlyError,
  StatementCancelled,
  StatementError
} from "../../src/DbError.js"
import type {
  Connection,
  Cursor,
  Driver,
  Result,
  Row,
  SessionState,
  Statement,
  TransactionSyntax
} from "../../src/Driver.js"
import { analyze } from "../../src/internal/sessionState.js"

// --- scripts ---------------------------------------------------------------------------------------------------------

export type Behaviour<E> =
  | { readonly _tag: "Succeeds" }
  | { readonly _tag: "Fails"; readonly error: E }
  | { readonly _tag: "Takes"; readonly millis: number; readonly then: Behaviour<E> }
  | { readonly _tag: "Never" }

export const succeeds: Behaviour<never> = { _tag: "Succeeds" }
export const never: Behaviour<never> = { _tag: "Never" }
export const fails = <E>(error: E): Behaviour<E> => ({ _tag: "Fails", error })
export const takes = <E = never>(millis: number, then: Behaviour<E> = succeeds): Behaviour<E> => ({
  _tag: "Takes",
  millis,
  then
})

/** One behaviour for ever, a queue of them (when it is empty: succeeds), or one for each attempt, counted from 1. */
export type Script<E> =
  | Behaviour<E>
  | Array<Behaviour<E>>
  | ((attempt: number, connection: string) => Behaviour<E>)

export interface Scripts {
  connect: Script<ConnectFailure>
  run: Script<DbError>
  ping: Script<DbError>
  reset: Script<DbError>
  cancel: Script<DbError>
  close: Script<never>
}

type Phase = keyof Scripts

const perform = <E>(behaviour: Behaviour<E>): Effect.Effect<void, E> => {
  switch (behaviour._tag) {
    case "Succeeds":
      return Effect.void
    case "Fails":
      return Effect.fail(behaviour.error)
    case "Takes":
      return Effect.zipRight(Effect.sleep(behaviour.millis), Effect.suspend(() => perform(behaviour.then)))
    case "Never":
      return Effect.never
  }
}

// --- words -----------------------------------------------------------------------------------------------------------

const fakeReads = /^(SLEEP|ROWS)\b/

/** A statement of the fake language, with the traits that its words deserve. */
export const statement = (sql: string, params: ReadonlyArray<unknown> = []): Statement => {
  const traits = analyze(sql, "mysql")
  const reads = { ...traits, plainRead: true, changesSession: false, mayCommit: "never" } as const
  return { sql, params, traits: fakeReads.test(sql) ? reads : traits }
}

export const lost = (outcome: Outcome, sql?: string): ConnectionLost =>
  new ConnectionLost({ outcome, reason: "the fake server hung up", statement: sql })

export const refused = (): ConnectionError =>
  new ConnectionError({ target: "fake:1", reason: "refused", isRetryable: true })

const transaction: TransactionSyntax = {
  begin: () => ["BEGIN"],
  commit: "COMMIT",
  rollback: "ROLLBACK",
  savepoint: (name) => `SAVEPOINT ${name}`,
  releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
  rollbackTo: (name) => `ROLLBACK TO SAVEPOINT ${name}`
}

const result = (fields: Partial<Result>): Result => ({
  columns: [],
  rows: [],
  affectedRows: 0,
  insertId: 0,
  warnings: 0,
  ...fields
})

const value = (name: string, column: unknown): Result => result({ columns: [name], rows: [[column]] })

// --- the driver ------------------------------------------------------------------------------------------------------

export interface RoundTrips {
  run: number
  ping: number
  reset: number
  cancel: number
  close: number
}

export class FakeDriver implements Driver {
  readonly dialect = "mysql"
  readonly target = "fake:1"
  readonly transaction = transaction
  readonly maxConnections: number | undefined = undefined
  /** The ids of the connections in the order in which they were opened. */
  readonly opened: Array<string> = []
  /** The ids of the connections in the order in which the pool had closed or destroyed them. */
  readonly closed: Array<string> = []
  /** What was sent, in order. */
  readonly sent: Array<{ readonly connection: string; readonly sql: string }> = []
  /** When each connect was started, in milliseconds. */
  readonly connects: Array<number> = []
  /** How many connects are in flight, and the most that ever were. */
  connecting = 0
  mostConnecting = 0
  /** How often a cancel was asked for when nothing was running any more. */
  idleCancels = 0
  readonly violations: Array<string> = []
  readonly script: Scripts
  readonly connections = new Map<string, FakeConnection>()
  readonly #attempts: Record<Phase, number> = { connect: 0, run: 0, ping: 0, reset: 0, cancel: 0, close: 0 }

  constructor(
    readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>,
    script: Partial<Scripts>
  ) {
    this.script = {
      connect: succeeds,
      run: succeeds,
      ping: succeeds,
      reset: succeeds,
      cancel: succeeds,
      close: succeeds,
      ...script
    }
  }

  readonly rejectParameter = (): undefined => undefined

  readonly connect: Effect.Effect<Connection, ConnectFailure> = Effect.flatMap(
    Effect.clock,
    (clock) =>
      Effect.async<Connection, ConnectFailure>((resume) => {
        this.connects.push(clock.unsafeCurrentTimeMillis())
        this.connecting++
        this.mostConnecting = Math.max(this.mostConnecting, this.connecting)
        let ended = false
        let connection: FakeConnection | undefined
        const end = (): void => {
          if (!ended) this.connecting--
          ended = true
        }
        const attempt = this.fork(Effect.matchCause(Effect.suspend(() => perform(this.next("connect", ""))), {
          onFailure: (cause) => {
            if (ended) return
            end()
            resume(Effect.failCause(cause))
          },
          onSuccess: () => {
            if (ended) return
            end()
            connection = new FakeConnection(this, String(this.opened.length + 1))
            this.opened.push(connection.id)
            this.connections.set(connection.id, connection)
            resume(Effect.succeed(connection))
          }
        }))
        return Effect.sync(() => {
          end()
          attempt.unsafeInterruptAsFork(attempt.id())
          connection?.destroy()
        })
      })
  )

  next<P extends Phase>(phase: P, connection: string): Scripts[P] extends Script<infer E> ? Behaviour<E> : never
  next(phase: Phase, connection: string): Behaviour<unknown> {
    const script: Script<unknown> = this.script[phase]
    const attempt = ++this.#attempts[phase]
    if (typeof script === "function") return script(attempt, connection)
    return Array.isArray(script) ? script.shift() ?? succeeds : script
  }

  connection(id: string): FakeConnection {
    const connection = this.connections.get(id)
    if (connection === undefined) throw new Error(`no connection ${id} was opened`)
    return connection
  }

  /** The ids of the connections that the pool has not closed yet. */
  get open(): ReadonlyArray<string> {
    return this.opened.filter((id) => !this.closed.includes(id))
  }

  /** What was sent on one connection, in order. */
  sentOn(id: string): ReadonlyArray<string> {
    return this.sent.filter(({ connection }) => connection === id).map(({ sql }) => sql)
  }

  expectNoViolations(): void {
    expect(this.violations).toEqual([])
  }

  /** Every fixture's last word: what was opened is closed, once each, and the contract was kept. */
  expectAllClosed(): void {
    this.expectNoViolations()
    expect(this.connecting).toBe(0)
    expect([...this.closed].sort()).toEqual([...this.opened].sort())
  }
}

/** A fake database whose fibers run with the Clock and the scheduler of the effect that makes it. */
export const make = (script: Partial<Scripts> = {}): Effect.Effect<FakeDriver> =>
  Effect.map(Effect.runtime<never>(), (runtime) => {
    const fork = Runtime.runFork(runtime)
    return new FakeDriver((effect) => fork(Effect.interruptible(effect), { immediate: false }), script)
  })

// --- a connection ----------------------------------------------------------------------------------------------------

/** What is going on; `end` tells whoever waits for it. */
interface Activity {
  readonly name: string
  readonly end: (failure: DbError) => void
}

export class FakeConnection implements Connection {
  readonly roundTrips: RoundTrips = { run: 0, ping: 0, reset: 0, cancel: 0, close: 0 }
  #transaction = false
  #changed = false
  #open = true
  #released = false
  #activity: Activity | undefined
  #cancelling = false
  #insertId = 0
  #listener: ((error: DbError) => void) | undefined
  readonly #broken = Deferred.unsafeMake<never, ConnectionLost>(FiberId.none)

  constructor(readonly driver: FakeDriver, readonly id: string) {}

  readonly isOpen = (): boolean => this.#open
  readonly session = (): SessionState => this.#transaction ? "transaction" : this.#changed ? "changed" : "clean"

  readonly onLost = (listener: (error: DbError) => void): void => {
    if (this.#listener !== undefined) this.driver.violations.push(`${this.id}: two listeners`)
    this.#listener = listener
  }

  /** The server ends the connection. */
  readonly break = (outcome: Outcome = "unknown"): void => {
    if (!this.#open) return
    this.#open = false
    const error = lost(outcome)
    const running = this.#activity !== undefined
    this.#endActivity(error)
    Deferred.unsafeDone(this.#broken, Exit.fail(error))
    if (!running) this.#listener?.(error)
  }

  readonly destroy = (): void => {
    if (!this.#released) {
      this.#released = true
      this.driver.closed.push(this.id)
    }
    if (!this.#open) return
    this.#open = false
    this.#endActivity(lost("unknown"))
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.#begin("close")
    this.roundTrips.close++
    return Effect.onExit(perform(this.driver.next("close", this.id)), () => Effect.sync(this.destroy))
  })

  readonly run = (statement: Statement, done: (result: Exit.Exit<Result, DbError>) => void): void => {
    this.#begin(statement.sql)
    if (!this.#open) return done(Exit.fail(lost("not executed", statement.sql)))
    this.#send(statement)
    const work = Effect.zipRight(
      Effect.suspend(() => perform(this.driver.next("run", this.id))),
      Effect.suspend(() => this.#execute(statement.sql))
    )
    const answer = (exit: Exit.Exit<Result, DbError>): void => {
      if (this.#activity !== activity) return
      this.#activity = undefined
      fiber.unsafeInterruptAsFork(fiber.id())
      done(this.#noteLoss(exit))
    }
    const activity: Activity = { name: statement.sql, end: (failure) => answer(Exit.fail(failure)) }
    this.#activity = activity
    // it starts later, never at once
    const fiber = this.driver.fork(Effect.map(Effect.exit(work), answer))
  }

  readonly stream = (statement: Statement): Cursor => {
    this.#begin(statement.sql)
    this.#send(statement)
    const rows = this.#rowsOf(statement.sql)
    let position = 0
    let pending: ((exit: Exit.Exit<ReadonlyArray<Row>, DbError>) => void) | undefined
    let fiber: Fiber.RuntimeFiber<void> | undefined
    const answer = (exit: Exit.Exit<ReadonlyArray<Row>, DbError>): void => {
      if (this.#activity !== activity) return
      if (Exit.isFailure(exit) || exit.value.length === 0) this.#activity = undefined
      const done = pending
      pending = undefined
      fiber?.unsafeInterruptAsFork(fiber.id())
      done?.(this.#noteLoss(exit))
    }
    const activity: Activity = {
      name: statement.sql,
      end: (failure) => answer(Exit.fail(failure))
    }
    this.#activity = activity
    return {
      columns: () => position === 0 ? [] : ["n"],
      next: (done) => {
        if (pending !== undefined) this.driver.violations.push(`${this.id}: asked for a chunk while one is on its way`)
        if (this.#activity !== activity) {
          this.driver.violations.push(`${this.id}: asked for a chunk after the end`)
          return done(Exit.fail(lost("unknown")))
        }
        pending = done
        const first = position === 0
        const chunk = Effect.zipRight(
          Effect.suspend(() => first ? perform(this.driver.next("run", this.id)) : Effect.void),
          Effect.suspend(() => {
            const from = position
            position += 3
            const some = rows.slice(from, position)
            return some.length > 0 ? Effect.succeed(some) : this.#afterRows(statement.sql)
          })
        )
        fiber = this.driver.fork(Effect.map(Effect.exit(chunk), answer))
      }
    }
  }

  readonly ping: Effect.Effect<void, DbError> = Effect.suspend(() => this.#operation("ping"))

  readonly reset: Effect.Effect<void, DbError> = Effect.suspend(() =>
    Effect.map(this.#operation("reset"), () => {
      this.#transaction = false
      this.#changed = false
      this.#insertId = 0
    })
  )

  readonly cancel: Effect.Effect<void, DbError> = Effect.suspend(() => {
    if (this.#cancelling) this.driver.violations.push(`${this.id}: cancelled twice at once`)
    if (this.#activity === undefined) this.driver.idleCancels++
    this.roundTrips.cancel++
    this.#cancelling = true
    return Effect.flatMap(perform(this.driver.next("cancel", this.id)), () =>
      Effect.suspend(() => {
        if (!this.#open) return Effect.fail(lost("unknown"))
        const cancelled = this.#activity
        this.#endActivity(
          new StatementCancelled({ statement: cancelled?.name ?? "", reason: "interrupted", errno: 1317 })
        )
        this.#cancelling = false
        return Effect.void
      }))
  })

  // --- inside --------------------------------------------------------------------------------------------------------

  /** Nothing may begin while something else goes on, nor after the end. */
  #begin(what: string): void {
    if (this.#activity !== undefined) {
      this.driver.violations.push(`${this.id}: ${what} began while ${this.#activity.name} was going on`)
    }
    if (this.#cancelling) this.driver.violations.push(`${this.id}: ${what} began while a cancel was unanswered`)
    if (this.#released && what !== "close") this.driver.violations.push(`${this.id}: ${what} began after the end`)
  }

  #send(statement: Statement): void {
    this.roundTrips.run++
    this.driver.sent.push({ connection: this.id, sql: statement.sql })
  }

  #endActivity(failure: DbError): void {
    this.#activity?.end(failure)
    this.#activity = undefined
  }

  #noteLoss<A>(exit: Exit.Exit<A, DbError>): Exit.Exit<A, DbError> {
    if (Exit.isFailure(exit)) {
      const failure = Cause.failureOption(exit.cause)
      if (Option.isSome(failure) && failure.value._tag === "ConnectionLost") this.#open = false
    }
    return exit
  }

  #operation(name: "ping" | "reset"): Effect.Effect<void, DbError> {
    this.#begin(name)
    this.roundTrips[name]++
    const activity: Activity = { name, end: () => undefined }
    this.#activity = activity
    return Effect.onExit(
      Effect.raceFirst(perform(this.driver.next(name, this.id)), Deferred.await(this.#broken)),
      (exit) =>
        Effect.sync(() => {
          if (this.#activity === activity) this.#activity = undefined
          this.#noteLoss(exit)
        })
    )
  }

  #execute(sql: string): Effect.Effect<Result, DbError> {
    const sleep = /^SLEEP (\d+)/.exec(sql)
    if (sleep !== null) return Effect.as(Effect.sleep(Number(sleep[1])), value("slept", Number(sleep[1])))
    switch (sql) {
      case "SELECT id":
        return Effect.succeed(value("id", this.id))
      case "SELECT LAST_INSERT_ID()":
        return Effect.succeed(value("id", this.#insertId))
      case "SELECT ROW_COUNT()":
        return Effect.succeed(value("count", 0))
      case "INSERT":
        this.#insertId = Number(this.id) * 1000 + this.roundTrips.run
        return Effect.succeed(result({ affectedRows: 1, insertId: this.#insertId }))
      case "DIRTY":
        this.#changed = true
        return Effect.succeed(result({}))
      case "BEGIN":
        this.#transaction = true
        return Effect.succeed(result({}))
      case "COMMIT":
      case "ROLLBACK":
        this.#transaction = false
        return Effect.succeed(result({}))
      case "FAIL":
        return Effect.fail(new StatementError({ statement: sql, reason: "it had to" }))
      case "READ ONLY":
        return Effect.fail(new ReadOnlyError({ statement: sql, reason: "--read-only", errno: 1290 }))
      case "LOSE":
        return Effect.fail(lost("unknown", sql))
      case "LOSE UNSENT":
        return Effect.fail(lost("not executed", sql))
      default:
        return Effect.succeed(result({}))
    }
  }

  #rowsOf(sql: string): ReadonlyArray<Row> {
    const rows = /^ROWS (\d+)/.exec(sql)
    if (rows !== null) return Array.from({ length: Number(rows[1]) }, (_, n) => [n])
    return sql === "SELECT id" ? [[this.id]] : []
  }

  #afterRows(sql: string): Effect.Effect<ReadonlyArray<Row>, DbError> {
    if (sql.endsWith("HANG")) return Effect.never
    return sql.endsWith("LOSE") ? Effect.fail(lost("unknown", sql)) : Effect.succeed([])
  }
}
