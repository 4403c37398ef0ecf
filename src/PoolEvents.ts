/**
 * What happens to a pool, as it happens: a stream of events. The pool logs the same ones through Effect's logger, at the
 * levels that each names.
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
 * What every event says.
 *
 * @since 0.1.0
 * @category models
 */
export interface Happening {
  /** The pool's name. */
  readonly pool: string
  /** When, in milliseconds since 1970 by Effect's `Clock`. */
  readonly at: number
}

/**
 * A connect worked. Logged as Debug.
 *
 * @since 0.1.0
 * @category models
 */
export interface Opened extends Happening {
  /** What tells it from other events. */
  readonly _tag: "Opened"
  /** What the server calls the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** How long it took, in milliseconds. */
  readonly connectMillis: number
}

/**
 * A connect did not work. Logged as Warning.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectFailed extends Happening {
  /** What tells it from other events. */
  readonly _tag: "ConnectFailed"
  /** Why. */
  readonly error: ConnectFailure
}

/**
 * The first connect that works after some that did not. Logged as Info.
 *
 * @since 0.1.0
 * @category models
 */
export interface Recovered extends Happening {
  /** What tells it from other events. */
  readonly _tag: "Recovered"
  /** How long ago the first of them failed, in milliseconds. */
  readonly downMillis: number
  /** How many failed. */
  readonly failures: number
}

/**
 * A connection is closed, for whatever reason. Logged as Debug.
 *
 * @since 0.1.0
 * @category models
 */
export interface Closed extends Happening {
  /** What tells it from other events. */
  readonly _tag: "Closed"
  /** What the server called the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** Why. */
  readonly reason: CloseReason
  /** For how long it was open, in milliseconds. */
  readonly ageMillis: number
}

/**
 * A connection broke, or did not answer any more. Logged as Warning.
 *
 * @since 0.1.0
 * @category models
 */
export interface Lost extends Happening {
  /** What tells it from other events. */
  readonly _tag: "Lost"
  /** What the server called the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** How that was noticed. */
  readonly reason: string
}

/**
 * A fiber did not use its connection and had nothing on it: somebody else gets it. Logged as Trace.
 *
 * @since 0.1.0
 * @category models
 */
export interface TakenBack extends Happening {
  /** What tells it from other events. */
  readonly _tag: "TakenBack"
  /** What the server calls the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** The fiber that had it, such as `#12`. */
  readonly fiber: string
}

/**
 * Somebody waits while every place is held; told once until nobody waits any more. Logged as Debug, since a pool under load
 * is exhausted many times a second and serves all the same.
 *
 * @since 0.1.0
 * @category models
 */
export interface Exhausted extends Happening {
  /** What tells it from other events. */
  readonly _tag: "Exhausted"
  /** How many wait. */
  readonly waiting: number
  /** Connections that are held. */
  readonly held: number
  /** The most that there may be. */
  readonly max: number
}

/**
 * A connection is held for longer than `leakDetectionThreshold`. Logged as Warning.
 *
 * @since 0.1.0
 * @category models
 */
export interface LeakSuspected extends Happening {
  /** What tells it from other events. */
  readonly _tag: "LeakSuspected"
  /** What the server calls the connection (`CONNECTION_ID()`). */
  readonly connection: string
  /** The fiber that borrowed it, such as `#12`. */
  readonly fiber: string
  /** For how long, in milliseconds. */
  readonly heldMillis: number
  /** Why the pool cannot take it back. */
  readonly holding: string
  /** By what and where it was acquired, a line for each frame of the stack. */
  readonly origin: Option.Option<string>
}

/**
 * Something that happened to a pool.
 *
 * @since 0.1.0
 * @category models
 */
export type PoolEvent =
  | Opened
  | ConnectFailed
  | Recovered
  | Closed
  | Lost
  | TakenBack
  | Exhausted
  | LeakSuspected

/**
 * Makes events, and matches them by tag.
 *
 * @since 0.1.0
 * @category constructors
 */
export const PoolEvent: Data.TaggedEnum.Constructor<PoolEvent> = Data.taggedEnum<PoolEvent>()

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
