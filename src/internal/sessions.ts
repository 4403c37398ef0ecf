/**
 * Connections that are held for longer than a statement: by a session, for an effect and everything that it forks, and for
 * a scope.
 *
 * A session takes the connection of the fiber that opens it, with what that holds, and leaves it to the fiber that closes it.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Pool } from "../ConnectionPool.js"
import type { AcquireError, ConnectionLost } from "../DbError.js"
import type { Restore } from "./awaiting.js"
import type { Lease } from "./lease.js"
import { originOf } from "./origin.js"
import { isFree, type OwnLeases, untold } from "./ownLeases.js"
import { Place, type Places } from "./place.js"

type Running = Fiber.RuntimeFiber<unknown, unknown>

/** @internal */
export interface SessionOptions {
  /** How long to wait for a connection, in milliseconds. Default: the pool's. */
  readonly acquireTimeout?: number | undefined
}

/** @internal The sessions of one pool. */
export class Sessions {
  constructor(
    readonly pool: Pool,
    readonly places: Places,
    readonly own: OwnLeases
  ) {}

  /** One connection for the effect and everything it forks, one statement at a time; a session inside joins it. */
  readonly session = <A, E, R>(
    use: (place: Place) => Effect.Effect<A, E, R>,
    options?: SessionOptions
  ): Effect.Effect<A, E | AcquireError | ConnectionLost, R> =>
    this.inSession((fiber, place, restore) => {
      if (restore === undefined) return use(place)
      const { back, there } = this.places.unsafeWay(fiber, place)
      const inside = restore(Effect.suspend(() => use(place)))
      return Effect.zipRight(
        there,
        Effect.matchCauseEffect(inside, {
          onSuccess: (value) => Effect.as(back, value),
          onFailure: (cause) => Effect.zipRight(back, Effect.failCause(cause))
        })
      )
    }, options)

  /**
   * Opens a session, unless the fiber is in one, and closes it after `use`. That goes to the place by itself; in a session of
   * its own it is uninterruptible but for what it restores, and must not throw.
   */
  readonly inSession = <A, E, R>(
    use: (fiber: Running, place: Place, restore: Restore | undefined) => Effect.Effect<A, E, R>,
    options?: SessionOptions
  ): Effect.Effect<A, E | AcquireError | ConnectionLost, R> =>
    Effect.withFiberRuntime<A, E | AcquireError | ConnectionLost, R>((fiber) => {
      const outer = this.places.of(fiber)
      if (outer !== undefined) return use(fiber, outer, undefined)
      const loss = untold(this.own.of(fiber))
      if (loss !== undefined) return Effect.fail(loss)
      return Effect.uninterruptibleMask((restore) => {
        const session = this.#open(fiber, options?.acquireTimeout)
        const place = new Place(session, undefined)
        const inside = session.state._tag === "Ready"
          ? use(fiber, place, restore)
          : Effect.zipRight(restore(session.granted()), Effect.suspend(() => use(fiber, place, restore)))
        // what `Effect.ensuring` does, where the fiber cannot be interrupted
        return Effect.matchCauseEffect(inside, {
          onSuccess: (value) => this.#closed(session, Effect.succeed(value)),
          onFailure: (cause) => this.#closed(session, Effect.failCause(cause))
        })
      })
    })

  /** Closes the session. Batched requests end it in another fiber than began it, which has ended then. */
  #closed<A, E>(session: Lease, exit: Effect.Effect<A, E>): Effect.Effect<A, E> {
    return Effect.withFiberRuntime((fiber) => {
      this.#close(fiber, session)
      return exit
    })
  }

  #open(fiber: Running, acquireTimeout: number | undefined): Lease {
    const own = this.own.of(fiber)
    const clean = isFree(own)
    const origin = originOf(this.pool, fiber, "db.session")
    // what the fiber's session holds goes on in this one; what is clean has to be fit for use now
    if (own !== undefined && (!clean || (own.state._tag === "Ready" && !this.pool.unsafeSuspect(own)))) {
      const session = this.pool.unsafeLease("session", fiber.id(), origin)
      if (own.handOver(session)) return session
    }
    own?.release("a session")
    return this.pool.unsafeBorrow("session", fiber.id(), { acquireTimeout, origin })
  }

  /** The connection stays with the fiber; whoever outlives the session has lost it. */
  #close(fiber: Running, session: Lease): void {
    const own = this.pool.unsafeLease("fiber", fiber.id(), originOf(this.pool, fiber, "db.session"))
    const clean = isFree(session)
    // what is clean and still being stopped would make the fiber wait
    if (!(clean && session.state._tag === "Stopping") && session.handOver(own)) return this.own.keep(fiber, own)
    session.release("the end of its session")
    // if what it held was lost and no statement has noticed, the fiber's next one is told
    this.own.keep(fiber, session)
  }
}

/** @internal Borrows a connection of its own for as long as the scope. */
export const borrowIn = (
  pool: Pool,
  scope: Scope.Scope,
  kind: "connection" | "stream",
  what: string
): Effect.Effect<Lease, AcquireError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiberRuntime<Lease, AcquireError>((fiber) => {
      const lease = pool.unsafeBorrow(kind, fiber.id(), { origin: originOf(pool, fiber, what) })
      const release = Effect.sync(() => lease.release("the end of its scope", fiber.id()))
      // the finalizer first: from here on the scope gives back whatever the lease gets
      return Effect.zipRight(
        Scope.addFinalizer(scope, release),
        Effect.as(restore(Effect.suspend(() => lease.state._tag === "Ready" ? Effect.void : lease.granted())), lease)
      )
    })
  )
