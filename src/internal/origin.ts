/**
 * Where a connection was acquired, for the report of one that seems forgotten: the stack of the call that asked for it by
 * name, and the spans around its fiber.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { Pool } from "../ConnectionPool.js"
import { LongLived } from "../PoolConfig.js"
import type { Origin } from "./leaseModel.js"

/** A call of this library by the program. */
interface Call {
  /** The function that was called; that of a statement is told by its text. */
  readonly what: string | undefined
  readonly at: Error
}

/** The call by which the effect that is running was made, while that is to be known. */
class CurrentCall extends Context.Reference<CurrentCall>()<"effect-sql-pool/CurrentCall", Call | undefined>(
  "effect-sql-pool/CurrentCall",
  { defaultValue: () => undefined }
) {}

/** @internal Has what the program makes with a call of this library remember that call. */
export interface Calls {
  readonly effect: <A, E, R>(what: string | undefined, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly stream: <A, E, R>(stream: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
}

/** @internal What has to be called by what the program calls, for its lines to be among the frames of the stack. */
export const remembered: Calls = {
  effect: (what, effect) => Effect.provideService(effect, CurrentCall, { what, at: new Error() }),
  stream: (stream) => Stream.provideService(stream, CurrentCall, { what: undefined, at: new Error() })
}

/** @internal For a pool that looks for no leaks. */
export const forgotten: Calls = { effect: (_, effect) => effect, stream: (stream) => stream }

/** @internal What a pool with this `leakDetectionThreshold` needs to know. */
export const callsFor = (leakDetectionThreshold: number): Calls =>
  leakDetectionThreshold === Infinity ? forgotten : remembered

const own = new URL("..", import.meta.url).href
const ownPath = decodeURIComponent(new URL(own).pathname)
const uninteresting = [own, ownPath, "/node_modules/effect/", "node:internal"]

/** The frames that are the program's. */
const frames = (stack: string): ReadonlyArray<string> =>
  stack.split("\n").slice(1).map((line) => line.trim()).filter((line) =>
    line.startsWith("at ") && !uninteresting.some((place) => line.includes(place))
  )

const spansOf = (fiber: Fiber.RuntimeFiber<unknown, unknown>): ReadonlyArray<string> => {
  const names: Array<string> = []
  let span = Context.getOption(fiber.currentContext, Tracer.ParentSpan)
  while (Option.isSome(span)) {
    if (span.value._tag === "ExternalSpan") break
    names.push(`in the span ${span.value.name}`)
    span = span.value.parent
  }
  return names
}

/**
 * @internal Where the fiber is about to acquire a connection, if one that it forgets is to be found; `what` for when no
 * call is remembered.
 */
export const originOf = (pool: Pool, fiber: Fiber.RuntimeFiber<unknown, unknown>, what: string): Origin | undefined => {
  if (pool.config.leakDetectionThreshold === Infinity || Context.get(fiber.currentContext, LongLived)) return undefined
  const call = Context.get(fiber.currentContext, CurrentCall)
  const spans = spansOf(fiber)
  return {
    what: call?.what ?? what,
    trace: () => [...frames(call?.at.stack ?? ""), ...spans]
  }
}
