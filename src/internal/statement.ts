/**
 * What is made for each statement is of a class. Of what a literal makes, V8 allocates all among the old once most of it has
 * outlived a collection of the young: that costs more, and keeps what it points to until the next full collection.
 *
 * @internal
 */
import type { Driver, Statement } from "../Driver.js"
import { analyze, type StatementTraits } from "./sessionState.js"

/** @internal */
export const noParameters: ReadonlyArray<never> = Object.freeze([])

/** @internal The statement of one call. */
export class OneStatement implements Statement {
  constructor(
    readonly sql: string,
    readonly params: ReadonlyArray<unknown>,
    readonly traits: StatementTraits,
    readonly unprepared?: boolean | undefined,
    readonly compatible?: boolean | undefined
  ) {}
}

/** @internal A text without parameters. */
export const textOnly = (sql: string, { dialect }: Driver): Statement =>
  new OneStatement(sql, noParameters, analyze(sql, dialect))
