/**
 * What runs on a connection, one at a time, and what it needs of it.
 *
 * @internal
 */
import type * as Either from "effect/Either"
import type * as Exit from "effect/Exit"
import type { DbError, ParameterError } from "../DbError.js"
import type { Statement } from "../Driver.js"
import type { MysqlError, Phase } from "./mysqlErrors.js"
import type { DateReader, RawConnection, RawQuery } from "./mysqlProtocol.js"
import type { SessionTracker } from "./mysqlSession.js"
import type { StatementTraits } from "./sessionState.js"

/**
 * What runs on a connection. A class, for V8 allocates literals as old once it has seen some survive, and an old one keeps
 * alive all that it points to, until the next full collection.
 *
 * @internal
 */
export abstract class Operation<A> {
  /** Who waits for its end; most often nobody. */
  waiting: Array<() => void> | undefined
  phase: Phase = "unsent"
  cancelled = false

  constructor(
    /** What errors call it. */
    readonly text: string,
    /** Nothing for what is no statement of a borrower. */
    readonly traits: StatementTraits | undefined,
    readonly params: ReadonlyArray<unknown>
  ) {}

  /** It is answered. */
  abstract settle(exit: Exit.Exit<A, DbError>): void

  /** Reads and drops the rows that nobody wants any more. */
  drain(): void {}
}

/**
 * A command of the connection's own.
 *
 * @internal
 */
export class Command extends Operation<void> {
  constructor(name: string, readonly settle: (exit: Exit.Exit<void, DbError>) => void) {
    super(name, undefined, [])
  }
}

/**
 * What a statement needs of its connection. An operation that has ended is finished and failed in vain.
 *
 * @internal
 */
export interface Host {
  readonly raw: RawConnection
  readonly tracker: SessionTracker
  readonly offsetMillis: number
  readonly readDate: DateReader
  readonly unpreparable: UnpreparableTexts
  readonly encode: (params: ReadonlyArray<unknown>) => ReadonlyArray<unknown>
  /** The connection's text with its values written in, or why they cannot be. */
  readonly write: (statement: Statement) => Either.Either<string, ParameterError>
  readonly severalStatements: boolean
  /** The command of those texts that are told of nothing before the end. */
  readonly textQuery: RawQuery
  /** A command that has not been sent. */
  readonly makeQuery: (sql: string) => RawQuery
  readonly isRunning: (operation: Operation<never>) => boolean
  readonly finish: <A>(operation: Operation<A>, exit: Exit.Exit<A, DbError>) => void
  readonly fail: (operation: Operation<never>, error: MysqlError, inOrder?: boolean) => void
}

const mostUnpreparable = 500

/**
 * Texts that the server has refused to prepare, so that each costs one refusal; the oldest are forgotten.
 *
 * @internal
 */
export class UnpreparableTexts {
  private readonly texts = new Set<string>()

  has(sql: string): boolean {
    return this.texts.has(sql)
  }

  add(sql: string): void {
    const oldest = this.texts.values().next()
    if (this.texts.size >= mostUnpreparable && oldest.done !== true) this.texts.delete(oldest.value)
    this.texts.add(sql)
  }
}
