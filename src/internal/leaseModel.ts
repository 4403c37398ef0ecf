/**
 * The words of a lease: what it is borrowed for, the states it goes through, and what may be said of its statements.
 *
 * @internal
 */
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import {
  type AcquireError,
  ConnectionBusy,
  ConnectionLost,
  type DbError,
  type Outcome,
  SessionEnded,
  StatementCancelled,
  StatementTimeoutError,
  TransactionAborted
} from "../DbError.js"
import type { Result, SessionState, Statement } from "../Driver.js"
import type { Section, Whole } from "./turns.js"

/** @internal For what a connection is borrowed. */
export type LeaseKind = "fiber" | "connection" | "session" | "stream"

/** @internal What happens to a clean connection between two statements: kept, kept until somebody waits, returned. */
export type Rest = "keep" | "lend" | "return"

/** @internal Where a lease was acquired: by what, and the lines of its stack and of the spans around it. */
export interface Origin {
  readonly what: string
  readonly trace: () => ReadonlyArray<string>
}

/** @internal Why a lease is over. */
export type End =
  /** Given back; `by` says what did it, for the error of whoever uses it afterwards. */
  | { readonly _tag: "Released"; readonly by: string; readonly fiber?: FiberId.FiberId | undefined }
  /** Clean and idle, and somebody else needed it. */
  | { readonly _tag: "TakenBack" }
  /** The connection broke; what its session `held` is gone with it. */
  | { readonly _tag: "Lost"; readonly error: DbError; readonly held: SessionState }
  /** It was never granted. */
  | { readonly _tag: "Refused"; readonly error: AcquireError }

/** @internal */
export type LeaseState =
  | { readonly _tag: "Waiting" }
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Running" }
  | { readonly _tag: "Streaming" }
  | { readonly _tag: "Stopping" }
  /** Over for its borrower, but the server is still stopping what ran. */
  | { readonly _tag: "Leaving"; readonly end: End }
  | { readonly _tag: "Ended"; readonly end: End }

/** @internal Of which section a statement is, and whose turn it is after it. */
export interface Turn {
  readonly section: Section | undefined
  /** The section that has the connection from the start of the statement on; if it fails it never had it. */
  readonly enters?: Section | undefined
  /** Whether the section around this one has the connection again after the statement, if it succeeds. */
  readonly leaves?: boolean | undefined
  /** Whether it opens a transaction, which may be opened on another connection instead when this one breaks. */
  readonly opens?: boolean | undefined
  /** How it ends its section, for which it is sent although that has been declared over. */
  readonly final?: "commit" | "rollback" | undefined
  /** Whether interruption waits for its answer as long as a cancel may take, instead of stopping it. */
  readonly patient?: boolean | undefined
  /** The statement that comes after this one, with none between: what it reads is what this one has asked for. */
  readonly holdsFor?: Statement | undefined
  /** For how long it may run, in milliseconds; default as the pool says. */
  readonly limit?: number | undefined
}

/** @internal Of a class, see `statement`. */
export class OneTurn implements Turn {
  enters: Section | undefined
  leaves: boolean | undefined
  opens: boolean | undefined
  final: "commit" | "rollback" | undefined
  patient: boolean | undefined

  constructor(readonly section: Section | undefined, readonly limit?: number | undefined) {}
}

/** @internal */
export const outside: Turn = new OneTurn(undefined)

const writing = new Set(["INSERT", "REPLACE", "UPDATE", "DELETE"])
const mostInsertIds = 16
const none: ReadonlyArray<never> = []

/** @internal What a lease's statements have left on its connection for a later one to read. */
export class History {
  /** How many statements there were. */
  statements = 0
  /** Whether one of them wrote. */
  wrote = false
  #insertIds: Array<number | bigint> | undefined

  /** The last ids that inserts gave back. */
  get insertIds(): ReadonlyArray<number | bigint> {
    return this.#insertIds ?? none
  }

  add({ traits }: Statement, exit: Exit.Exit<Result, DbError>): void {
    this.statements++
    if (writing.has(traits.verb)) this.wrote = true
    if (Exit.isFailure(exit)) return
    const { all, insertId } = exit.value
    if (all === undefined) this.#generated(insertId)
    else for (const each of all) this.#generated(each.insertId)
  }

  #generated(id: number | bigint): void {
    if (id === 0) return
    const ids = this.#insertIds ??= []
    if (ids.push(id) > mostInsertIds) ids.shift()
  }
}

/**
 * What is known of a transaction whose connection broke: it went with the connection, unless something inside has
 * committed.
 */
const outcomeInside = ({ section }: Turn): Outcome => section?.whole.committed === true ? "unknown" : "rolled back"

/**
 * @internal What is said of a statement whose connection broke while a transaction was open: that went with it, unless
 * this statement was one that may have committed.
 */
export const toldOutcome = <A>(
  { sql, traits }: Statement,
  turn: Turn,
  exit: Exit.Exit<A, DbError>
): Exit.Exit<A, DbError> => {
  if (Exit.isSuccess(exit) || exit.cause._tag !== "Fail" || exit.cause.error._tag !== "ConnectionLost") return exit
  const { code, errno, outcome, reason, sqlState } = exit.cause.error
  const commits = turn.final === "commit" && turn.section?.parent === undefined
  if (outcome === "unknown" && (commits || traits.mayCommit !== "never")) return exit
  const told = outcomeInside(turn)
  return Exit.fail(new ConnectionLost({ outcome: told, reason, statement: sql, code, errno, sqlState }))
}

/**
 * @internal What the answer to a statement in a transaction means for the whole of it: whether the server has undone it, as
 * for a deadlock, or a statement that commits by itself has ended it.
 */
export const noteFate = (
  whole: Whole,
  { traits }: Statement,
  exit: Exit.Exit<unknown, DbError>,
  isOpen: boolean,
  session: SessionState
): void => {
  const failure = Exit.isFailure(exit) && exit.cause._tag === "Fail" ? exit.cause.error : undefined
  if (traits.mayCommit === "unseen" || (!isOpen && traits.mayCommit !== "never")) whole.committed = true
  else if (isOpen && session !== "transaction") {
    if (failure !== undefined && traits.mayCommit === "never") whole.aborted ??= failure
    else whole.committed = true
  }
}

/**
 * @internal What is said of a statement that was to be stopped while somebody still waits for its answer. A write was faster
 * after all; but what MySQL reads when it is stopped in a SLEEP or a BENCHMARK is a wrong value.
 */
export const stoppedRead = <A>({ sql, traits }: Statement, exit: Exit.Exit<A, DbError>): Exit.Exit<A, DbError> =>
  Exit.isSuccess(exit) && traits.plainRead
    ? Exit.fail(new StatementCancelled({ statement: sql, reason: "its connection was taken from it" }))
    : exit

/** @internal What is said of a statement that was stopped because it ran for too long. */
export const outOfTime = <A>(
  { sql }: Statement,
  limit: number,
  exit: Exit.Exit<A, DbError>
): Exit.Exit<A, DbError> => {
  if (Exit.isSuccess(exit) || exit.cause._tag !== "Fail") return exit
  const { error } = exit.cause
  const ran = `it ran for longer than ${limit} ms`
  if (error._tag === "StatementCancelled") {
    return Exit.fail(new StatementTimeoutError({ statement: sql, reason: `${ran} and was stopped` }))
  }
  if (error._tag !== "ConnectionLost") return exit
  const { outcome } = error
  return Exit.fail(new ConnectionLost({ outcome, reason: `${ran} and could not be stopped`, statement: sql }))
}

/** @internal Why a statement cannot run in its section (any more), if it cannot. */
export const sectionRefusal = ({ final, section }: Turn, { sql }: Statement): DbError | undefined => {
  if (section === undefined || final === "rollback") return undefined
  const cause = section.whole.aborted
  if (cause !== undefined) return new TransactionAborted({ statement: sql, cause })
  return section.ended && final === undefined ? new SessionEnded({ statement: sql }) : undefined
}

/** A fiber's name is made only here: it costs as much as a statement. */
const releaser = ({ by, fiber }: End & { readonly _tag: "Released" }): string =>
  fiber === undefined ? by : `${by} in ${FiberId.threadName(fiber)}`

/** @internal Why a statement cannot run on this lease (any more). */
export const refusal = (
  kind: LeaseKind,
  state: LeaseState,
  statement: Statement,
  turn: Turn = outside
): Exit.Exit<never, DbError> => {
  if (state._tag === "Streaming" && kind !== "stream") {
    return Exit.fail(new ConnectionBusy({ statement: statement.sql }))
  }
  if (state._tag === "Streaming" || state._tag === "Stopping" || state._tag === "Ready") {
    return Exit.fail(new SessionEnded({ statement: statement.sql }))
  }
  if (state._tag !== "Ended" && state._tag !== "Leaving") {
    return Exit.die(new Error("the lease was used before it was granted"))
  }
  switch (state.end._tag) {
    case "Lost":
      return Exit.fail(
        new ConnectionLost({
          outcome: state.end.held === "transaction" || turn.section?.whole.committed === true
            ? outcomeInside(turn)
            : "not executed",
          reason: `it broke before this statement: ${state.end.error.message}`,
          statement: statement.sql
        })
      )
    case "Refused":
      return Exit.fail(state.end.error)
    case "TakenBack":
      return Exit.fail(new SessionEnded({ statement: statement.sql }))
    case "Released":
      return kind === "connection"
        ? Exit.die(
          new Error(`A connection was used after its release (released by ${releaser(state.end)}): ${statement.sql}`)
        )
        : Exit.fail(new SessionEnded({ statement: statement.sql }))
  }
}
