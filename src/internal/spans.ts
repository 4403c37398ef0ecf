/**
 * Spans that are opened only when somebody sees them, and what they say of the database: the attributes of OpenTelemetry's
 * "Semantic conventions for database client spans".
 *
 * Effect's own tracer keeps a span for as long as its effect and then forgets it, at a price above that of a statement.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Tracer from "effect/Tracer"
import type { DbError } from "../DbError.js"
import type { Driver } from "../Driver.js"

/** @internal By the names of OpenTelemetry. */
export type Attributes = Readonly<Record<string, string | number>>

const native = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** @internal Whether there is a tracer besides Effect's own. */
export const isTraced = (fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean => fiber.currentTracer !== native

/** @internal Which database it is. */
export const databaseAttributes = ({ address, dialect, namespace }: Driver): Attributes => ({
  "db.system.name": dialect,
  ...(address === undefined ? {} : { "server.address": address.host, "server.port": address.port }),
  ...(namespace === undefined ? {} : { "db.namespace": namespace })
})

/** @internal Why an operation failed: `error.type` is the error's tag, the status code is what the server numbers it with. */
export const failureAttributes = (error: DbError): Attributes => ({
  "error.type": error._tag,
  ...("errno" in error && error.errno !== undefined ? { "db.response.status_code": String(error.errno) } : {})
})

/** @internal Has the span say why its operation failed. */
export const failed = (span: Tracer.Span) => (error: DbError): Effect.Effect<void> =>
  Effect.sync(() => {
    for (const [key, value] of Object.entries(failureAttributes(error))) span.attribute(key, value)
  })

/** @internal Runs the effect in a span that ends as it does, and that is above the effect's own. */
export const spanned = <A, E extends DbError>(
  name: string,
  options: Tracer.SpanOptions,
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.useSpan(
    name,
    options,
    (span) => Effect.tapError(Effect.provideService(effect, Tracer.ParentSpan, span), failed(span))
  )
