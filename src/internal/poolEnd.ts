/**
 * How a pool ends: it lends no more, what runs may end in time, and what is left is stopped on the server and cut.
 *
 * @internal
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { PoolClosed } from "../DbError.js"
import type { Connection } from "../Driver.js"
import type { PoolConfig } from "../PoolConfig.js"
import type { Announcer } from "./announcer.js"
import type { Lease } from "./lease.js"
import type { LeaseHost } from "./leaseHost.js"
import { describe } from "./poolErrors.js"
import type { Action } from "./poolModel.js"
import type { PoolState } from "./poolState.js"

/** @internal What the end asks of its pool. */
export interface Ending {
  readonly config: PoolConfig
  readonly announcer: Announcer
  readonly now: () => number
  readonly stop: LeaseHost<Lease>["stop"]
}

/** @internal */
export class PoolEnd {
  /** Connections that are being stopped because the pool has ended, and then cut. */
  stopping = 0

  constructor(
    readonly pool: Ending,
    readonly state: PoolState<Connection, Lease>,
    /** Does what the state says. */
    readonly act: (actions: ReadonlyArray<Action<Connection, Lease>>) => void,
    readonly empty: Deferred.Deferred<void>
  ) {}

  readonly drain: Effect.Effect<void> = Effect.suspend(() => {
    this.act(this.state.drain(this.pool.now()))
    // the pool's end runs in an uninterruptible region, where a timeout waits for what it has timed out
    return Effect.asVoid(
      Effect.timeoutOption(Effect.interruptible(Deferred.await(this.empty)), this.pool.config.drainTimeout)
    )
  })

  /** Drains, then cuts, and tells what was cut: by whom it was held, and for what. */
  readonly closeAll: Effect.Effect<ReadonlyArray<string>> = Effect.flatMap(this.drain, () =>
    Effect.suspend(() => {
      const { name } = this.pool.config
      const cut = Array.from(this.state.slots.held, (slot) =>
        slot.state._tag === "Held"
          ? `${FiberId.threadName(slot.state.lease.holder)}: ${describe(slot.state.lease)}`
          : "")
      const stopped = this.#close()
      const told = cut.length === 0
        ? Effect.void
        : Effect.logWarning(`Pool ${name} cut ${cut.length} connections in use: ${cut.join("; ")}`)
      return Effect.as(Effect.zipRight(stopped, told), cut)
    }))

  /** After each event of a pool that does not lend any more: there may be nothing left. */
  reportEmpty(): void {
    const { phase, slots, waiters } = this.state
    if (phase === "Open" || slots.total > 0 || waiters.size > 0) return
    Deferred.unsafeDone(this.empty, Exit.void)
    if (phase === "Closed" && this.stopping === 0) this.pool.announcer.end()
  }

  /**
   * Ends everything. What runs is stopped on the server first, as far as it lets itself be stopped in time: cutting its
   * connection alone would leave it running there.
   */
  #close(): Effect.Effect<void> {
    const closed = new PoolClosed({ pool: this.pool.config.name })
    const running = new Set(
      Array.from(
        this.state.slots.held,
        ({ state }) => state._tag === "Held" ? state.lease.cut(closed) : undefined
      ).filter((connection) => connection !== undefined)
    )
    const stops = (action: Action<Connection, Lease>): boolean =>
      action._tag === "Destroy" && running.has(action.member.connection)
    const actions = this.state.close(this.pool.now())
    this.stopping += running.size
    this.act(actions.filter((action) => !stops(action)))
    const stop = (connection: Connection) =>
      Effect.async<void>((resume) => this.pool.stop(connection, () => resume(Effect.void)))
    return Effect.ensuring(
      Effect.forEach(running, stop, { concurrency: "unbounded", discard: true }),
      Effect.sync(() => {
        this.stopping -= running.size
        this.act(actions.filter(stops))
      })
    )
  }
}
