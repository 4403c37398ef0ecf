/**
 * Which lease is this fiber's own, from the statement that borrows it to the end of the fiber.
 *
 * It is found by the fiber itself, in a table of the pool's, as `threading.local` finds what is a thread's. A `FiberRef` would
 * have to be kept from all that it is made for: it would have to start anew in each fork, be lost at each join, and be
 * disbelieved where finalizers, memoized layers and `setFiberRefs` bring it; and to set it costs each fiber a copy of all its
 * FiberRefs. An observer gives the connection back when the fiber ends, however it ends.
 *
 * @internal
 */
import type * as Fiber from "effect/Fiber"
import type { Pool } from "../ConnectionPool.js"
import { AffinityLost, ConnectionLost, type DbError } from "../DbError.js"
import { holdsNothing, type Statement } from "../Driver.js"
import { FiberTable } from "./fiberTable.js"
import type { Lease } from "./lease.js"
import { originOf } from "./origin.js"

/** The fibers' own leases; of one that has none now and is observed, `undefined`. */
type Leases = FiberTable<Lease | undefined>

/** What is done when the fiber ends. It knows the table alone, lest a fiber that goes on keeps every pool that it has used. */
const ending = (leases: Leases, fiber: Fiber.RuntimeFiber<unknown, unknown>) => (): void => {
  const lease = leases.get(fiber)
  leases.delete(fiber)
  lease?.release("the end of its fiber")
}

/** @internal The own leases of one pool's fibers. */
export class OwnLeases {
  /** Found by the fiber that asks, and by nothing that it hands on: no other can come by it. */
  readonly #leases: Leases = new FiberTable()

  constructor(readonly pool: Pool) {}

  of(fiber: Fiber.RuntimeFiber<unknown, unknown>): Lease | undefined {
    return this.#leases.get(fiber)
  }

  /** The fiber's lease, fit for the statement and claimed for it, or why there is none. */
  fitFor(fiber: Fiber.RuntimeFiber<unknown, unknown>, statement: Statement): Lease | DbError {
    const lease = this.#leases.get(fiber)
    if (lease !== undefined && this.#fit(lease, statement)) {
      // nobody takes it back between here and the start of the statement
      lease.claim()
      this.pool.unsafeCounters.affinityHits++
      return lease
    }
    const unfit = untold(lease, statement.sql) ??
      (statement.traits.readsPrevious ? new AffinityLost({ statement: statement.sql }) : undefined)
    // whose lease is over cannot simply take another connection
    if (unfit !== undefined) {
      this.forget(fiber)
      return unfit
    }
    return this.borrow(fiber, statement.sql)
  }

  /** Borrows a connection that is the fiber's from now on. */
  borrow(fiber: Fiber.RuntimeFiber<unknown, unknown>, what: string): Lease {
    const lease = this.pool.unsafeBorrow("fiber", fiber.id(), { origin: originOf(this.pool, fiber, what) })
    this.keep(fiber, lease)
    return lease
  }

  /** From now on this is the fiber's lease; one that it may have had besides goes back. */
  keep(fiber: Fiber.RuntimeFiber<unknown, unknown>, lease: Lease): void {
    const before = this.#leases.get(fiber)
    const isKnown = before !== undefined || this.#leases.has(fiber)
    if (before !== lease) before?.release("another lease of its fiber")
    this.#leases.set(fiber, lease)
    // runs before whoever joins the fiber goes on; nothing would catch what it throws, and `release` throws nothing
    if (!isKnown) fiber.addObserver(ending(this.#leases, fiber))
  }

  /** The fiber has none from now on. */
  forget(fiber: Fiber.RuntimeFiber<unknown, unknown>): void {
    if (this.#leases.get(fiber) !== undefined) this.#leases.set(fiber, undefined)
  }

  /** Whether the fiber has something on its connection that another would not have, or has lost it and was not told. */
  isBound(fiber: Fiber.RuntimeFiber<unknown, unknown>): boolean {
    const lease = this.#leases.get(fiber)
    const session = lease?.connection?.session()
    return (session !== undefined && !holdsNothing(session)) || isUntold(lease)
  }

  /** Whether the statement may go to the lease as it is; gives back what has to be checked or stopped first. */
  #fit(lease: Lease, statement: Statement): boolean {
    if (!lease.usable) return false
    // what carries state is used as it is: no other connection would do
    if (statement.traits.readsPrevious || !isFree(lease)) return true
    // a lease that stops an interrupted statement would make this one wait
    // a strict fiber parts with nothing, not even for a validation
    if (lease.rest === "keep" || (lease.state._tag === "Ready" && !this.pool.unsafeSuspect(lease))) return true
    // the pool validates what has been unused for long before it lends it again, to this fiber as to any other
    lease.release("validation")
    return false
  }
}

/** @internal Not by its class, of which there is another one where two copies of this package are loaded. */
export const isLease = (lease: Lease | DbError): lease is Lease => "state" in lease

/** @internal Whether the lease has a connection and nothing on it that its borrower would miss. */
export const isFree = (lease: Lease | undefined): boolean =>
  lease?.connection !== undefined && holdsNothing(lease.connection.session())

/** Whether what the lease's session held is lost, and its fiber has not been told. */
const isUntold = (lease: Lease | undefined): boolean =>
  lease?.state._tag === "Ended" && lease.state.end._tag === "Lost" && lease.state.end.held !== "clean" && !lease.told

/** @internal The loss of what a session held, of which its fiber has not been told yet; it is told once. */
export const untold = (lease: Lease | undefined, statement?: string): ConnectionLost | undefined => {
  const end = lease?.state._tag === "Ended" ? lease.state.end : undefined
  if (lease === undefined || end?._tag !== "Lost" || !isUntold(lease)) return undefined
  lease.told = true
  const reason = `what the fiber's session held is gone with it: ${end.error.message}`
  return new ConnectionLost({ outcome: "rolled back", reason, statement })
}
