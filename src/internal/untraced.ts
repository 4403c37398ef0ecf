/**
 * Statements of `@effect/sql` that open their span only when somebody looks.
 *
 * @internal
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { isTraced } from "./spans.js"

type Use<A, E> = (connection: Connection, sql: string, params: ReadonlyArray<unknown>) => Effect.Effect<A, E>

/** What `@effect/sql` makes of a template, with the one method that runs it, whichever way. */
interface Traced extends Statement.Statement<unknown> {
  readonly acquirer: Connection.Acquirer
  readonly compiler: Statement.Compiler
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>
  readonly transformRows: unknown
  withConnection<A, E>(operation: string, use: Use<A, E>, withoutTransform?: boolean): Effect.Effect<A, E | SqlError>
}

type TracedClass = new(
  segments: Traced["segments"],
  acquirer: Connection.Acquirer,
  compiler: Statement.Compiler,
  spanAttributes: Traced["spanAttributes"],
  transformRows: unknown
) => Traced

/** Whether somebody sees the statement's span: a tracer besides Effect's own, or what transforms statements. */
const isSeen = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean =>
  isTraced(fiber) || fiber.getFiberRef(Statement.currentTransformer)._tag === "Some"

/** @internal The constructor, whose statements do without a span that nobody sees; then they run on this connection. */
export const untraced = (constructor: Statement.Constructor, connection: Connection): Statement.Constructor => {
  const TracedStatement = constructor.unsafe("").constructor as unknown as TracedClass

  class UntracedStatement extends TracedStatement {
    override withConnection<A, E>(
      operation: string,
      use: Use<A, E>,
      withoutTransform = false
    ): Effect.Effect<A, E | SqlError> {
      return Effect.withFiberRuntime<A, E | SqlError>((fiber) => {
        if (isSeen(fiber)) return super.withConnection(operation, use, withoutTransform)
        const [sql, params] = this.compile(withoutTransform)
        return use(connection, sql, params)
      })
    }
  }

  const wrap = <A>(made: A): A =>
    made instanceof TracedStatement
      ? new UntracedStatement(
        made.segments,
        made.acquirer,
        made.compiler,
        made.spanAttributes,
        made.transformRows
      ) as unknown as A
      : made
  const own = (...args: Parameters<typeof constructor>) => wrap(constructor(...args))
  const unsafe: Statement.Constructor["unsafe"] = (sql, params) => wrap(constructor.unsafe(sql, params))
  return Object.assign(own, constructor, { unsafe }) as Statement.Constructor
}
