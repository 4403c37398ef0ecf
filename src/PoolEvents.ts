/**
 * What happens to a pool, as it happens: a stream of events. The pool logs the same ones through Effect's logger, at the
 * levels that {@link PoolEvent} names.
 *
 * @module
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { ConnectFailure } from "./DbError.js"
import type { CloseReason } from "./PoolStats.js"

/**
 * Something that happened to the pool called `pool`, `at` so many milliseconds since 1970 by Effect's `Clock`. Times are in
 * milliseconds; `connection` is what the server calls it (`CONNECTION_ID()`), `fiber` such as `#12`.
 *
 * - `Opened` (logged as Debug): a connect worked, after `connectMillis`.
 * - `ConnectFailed` (Warning): a connect did not.
 * - `Recovered` (Info): the first connect that works after `failures` that did not, the first of which was `downMillis` ago.
 * - `Closed` (Debug): a connection of that age is closed, for whatever reason.
 * - `Lost` (Warning): a connection broke, or did not answer any more.
 * - `TakenBack` (Trace): a fiber did not use its connection and had nothing on it; somebody else gets it.
 * - `Exhausted` (Warning): somebody waits while every place is held; told once until nobody waits any more.
 * - `LeakSuspected` (Warning): a connection is held for longer than `leakDetectionThreshold`; `holding` says why it is,
 *   `origin` by what and where it was acquired, a line for each frame.
 *
 * @since 0.1.0
 * @category models
 */
export type PoolEvent = Data.TaggedEnum<{
  Opened: {
    readonly pool: string
    readonly at: number
    readonly connection: string
    readonly connectMillis: number
  }
  ConnectFailed: {
    readonly pool: string
    readonly at: number
    readonly error: ConnectFailure
  }
  Recovered: {
    readonly pool: string
    readonly at: number
    readonly downMillis: number
    readonly failures: number
  }
  Closed: {
    readonly pool: string
    readonly at: number
    readonly connection: string
    readonly reason: CloseReason
    readonly ageMillis: number
  }
  Lost: {
    readonly pool: string
    readonly at: number
    readonly connection: string
    readonly reason: string
  }
  TakenBack: {
    readonly pool: string
    readonly at: number
    readonly connection: string
    readonly fiber: string
  }
  Exhausted: {
    readonly pool: string
    readonly at: number
    readonly waiting: number
    readonly held: number
    readonly max: number
  }
  LeakSuspected: {
    readonly pool: string
    readonly at: number
    readonly connection: string
    readonly fiber: string
    readonly heldMillis: number
    readonly holding: string
    readonly origin: Option.Option<string>
  }
}>

/**
 * Makes events, and matches them by tag.
 *
 * @since 0.1.0
 * @category constructors
 */
export const PoolEvent = Data.taggedEnum<PoolEvent>()

/**
 * What happened in plain English, as the pool logs it; of a suspected leak, the stack follows on lines of its own.
 *
 * @since 0.1.0
 * @category formatting
 */
export const format: (event: PoolEvent) => string = PoolEvent.$match({
  Opened: ({ connectMillis, connection, pool }) =>
    `Pool ${pool} opened connection ${connection} in ${connectMillis} ms`,
  ConnectFailed: ({ error, pool }) => `Pool ${pool}: ${error.message}`,
  Recovered: ({ downMillis, failures, pool }) =>
    `Pool ${pool} connects again, after ${failures} failed ${
      failures === 1 ? "connect" : "connects"
    } in ${downMillis} ms`,
  Closed: ({ ageMillis, connection, pool, reason }) =>
    `Pool ${pool} closed connection ${connection} after ${ageMillis} ms: ${reason}`,
  Lost: ({ connection, pool, reason }) => `Pool ${pool} lost connection ${connection}: ${reason}`,
  TakenBack: ({ connection, fiber, pool }) => `Pool ${pool} took connection ${connection} back from fiber ${fiber}`,
  Exhausted: ({ held, max, pool, waiting }) =>
    `Pool ${pool} is exhausted: ${held} of ${max} connections are held, and ${waiting} ${
      waiting === 1 ? "fiber waits" : "fibers wait"
    }`,
  LeakSuspected: ({ connection, fiber, heldMillis, holding, origin, pool }) =>
    `A leak is suspected: fiber ${fiber} has held connection ${connection} of ${pool} for ${heldMillis} ms (${holding}).${
      Option.match(origin, { onNone: () => "", onSome: (text) => ` Acquired by ${text}` })
    }`
})

/**
 * The events of a pool.
 *
 * @since 0.1.0
 * @category services
 */
export interface PoolEventsService {
  /**
   * Every event from when the stream runs on; it ends after the pool has. A reader that is a thousand events late misses
   * the oldest of them; the pool waits for nobody. Never fails.
   */
  readonly stream: Stream.Stream<PoolEvent>
}

/**
 * The events of the program's default pool.
 *
 * @since 0.1.0
 * @category services
 */
export class PoolEvents extends Context.Tag("effect-sql-pool/PoolEvents")<PoolEvents, PoolEventsService>() {}

/**
 * Identifies the events of the database called `Name`.
 *
 * @since 0.1.0
 * @category services
 */
export interface Named<Name extends string> {
  readonly _: "effect-sql-pool/PoolEvents"
  readonly name: Name
}

/**
 * The tag of a named database's events.
 *
 * @since 0.1.0
 * @category services
 */
export const tag = <Name extends string>(name: Name): Context.Tag<Named<Name>, PoolEventsService> =>
  Context.GenericTag<Named<Name>, PoolEventsService>(`effect-sql-pool/PoolEvents/${name}`)
