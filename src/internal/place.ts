/**
 * Where statements run that share a connection, and which fibers are there. The only file that imports `FiberRef`.
 *
 * What a fiber forked inside of a session or a transaction shares with its parents is a place, found in the context, a
 * `FiberRef` that forks inherit. Which connection is a fiber's own is nothing that it inherits, see `ownLeases`.
 *
 * @internal
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { globalValue } from "effect/GlobalValue"
import type { Isolation } from "../Driver.js"
import type { Lease } from "./lease.js"
import type { Section, Whole } from "./turns.js"

/** @internal What a transaction and everything nested in it have in common. */
export interface TransactionWhole extends Whole {
  /** The number of its next savepoint. */
  nextSavepoint: number
  /** What the outermost was opened with. */
  readonly isolation: Isolation | undefined
  readonly readOnly: boolean
}

/** @internal A transaction that an effect runs in, or one nested in it: it has its connection for itself until it ends. */
export interface TransactionScope extends Section {
  readonly whole: TransactionWhole
  /** How many are around it. */
  readonly depth: number
}

/** @internal Where statements run that share a connection: on whose, and in which transaction. */
export class Place {
  constructor(readonly lease: Lease, readonly transaction: TransactionScope | undefined) {}
}

/**
 * @internal What `Effect.provide` would do in many more steps. The fiber has to be taken back, however it ends there, where it
 * cannot be interrupted.
 */
export class Way {
  constructor(readonly there: Effect.Effect<void>, readonly back: Effect.Effect<void>) {}
}

/** @internal How a place is told to code that knows nothing of places. */
export interface Announcement {
  /** Of the service that tells the place. */
  readonly key: string
  readonly service: (place: Place) => unknown
  readonly find: (context: Context.Context<never>) => Place | undefined
}

/** Numbers the pools of the program, for the keys of their places in the context; two copies of this module may be loaded. */
const instances = globalValue(Symbol.for("effect-sql-pool/FiberConnection/instances"), () => ({ count: 0 }))

/** @internal The places of one pool. */
export class Places {
  // of this pool alone: another pool's session or transaction is none of its business
  readonly #tag = Context.GenericTag<Place>(`effect-sql-pool/Place/${instances.count++}`)
  #announcement: Announcement | undefined

  /** The place that the fiber's context names. */
  of({ currentContext }: Fiber.RuntimeFiber<unknown, unknown>): Place | undefined {
    return this.#announcement?.find(currentContext) ??
      (currentContext.unsafeMap.get(this.#tag.key) as Place | undefined)
  }

  /** The way from where the fiber is to the place; what it forks there is there too. */
  unsafeWay({ currentContext }: Fiber.RuntimeFiber<unknown, unknown>, place: Place): Way {
    const services = new Map(currentContext.unsafeMap).set(this.#tag.key, place)
    const told = this.#announcement?.service(place)
    if (this.#announcement !== undefined && told !== undefined) services.set(this.#announcement.key, told)
    return new Way(
      FiberRef.set(FiberRef.currentContext, Context.unsafeMake(services)),
      FiberRef.set(FiberRef.currentContext, currentContext)
    )
  }

  /**
   * Has {@link unsafeWay} add to the context what others look for there, and {@link of} look for it too, since others hand on
   * only what they know. The first to say so is heard.
   */
  announce(announcement: Announcement): void {
    this.#announcement ??= announcement
  }
}
