/**
 * A TCP listener between pool and server that cuts every connection once it has carried so many bytes one way, at a place
 * and in a manner that its dice choose: what a network does to a program, as often as a test can bear.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"
import type { Dice } from "./seed.js"

/** How much gets through of the bytes that were under way. */
export const places = [
  "before the request",
  "in the request",
  "after the request",
  "before the answer",
  "in the answer"
] as const
export const manners = ["clean close", "RST"] as const
export type Place = (typeof places)[number]
export type Manner = (typeof manners)[number]
export type Cut = `${Place}, ${Manner}`

export interface CuttingProxy {
  readonly port: number
  /** How many connections were cut so. */
  readonly cuts: ReadonlyMap<Cut, number>
  /** How many connections have come. */
  readonly accepted: () => number
  /** Nothing is cut from now on. */
  readonly rest: Effect.Effect<void>
}

interface Plan {
  readonly place: Place
  readonly manner: Manner
  readonly bytes: number
}

/** Says the last bytes, if there are any, and ends. */
const endWith = (socket: Socket, last: Uint8Array, manner: Manner): void => {
  if (socket.destroyed) return
  if (manner === "clean close") socket.end(last)
  else if (last.length === 0) socket.resetAndDestroy()
  else socket.write(last, () => socket.resetAndDestroy())
}

/** How much of the bytes under way still gets through. */
const lastOf = (bytes: Uint8Array, { place }: Plan, left: number): Uint8Array => {
  if (place.startsWith("before")) return bytes.subarray(0, 0)
  if (place.startsWith("after")) return bytes
  return bytes.subarray(0, Math.min(Math.max(left, 1), bytes.length - 1))
}

class Pair {
  over = false

  constructor(readonly client: Socket, readonly upstream: Socket, readonly plan: Plan, readonly count: () => boolean) {
    client.on("error", () => this.end())
    upstream.on("error", () => this.end())
    client.on("close", () => this.end())
    upstream.on("close", () => this.end())
    this.carry(client, upstream, plan.place.endsWith("request"))
    this.carry(upstream, client, plan.place.endsWith("answer"))
  }

  private end(): void {
    this.over = true
    // what is closing in peace is let do so
    if (!this.client.writableEnded) this.client.destroy()
    if (!this.upstream.writableEnded) this.upstream.destroy()
  }

  private carry(from: Socket, to: Socket, watched: boolean): void {
    let carried = 0
    from.on("data", (bytes: Uint8Array) => {
      if (this.over) return
      const left = this.plan.bytes - carried
      carried += bytes.length
      if (!watched || left >= bytes.length || !this.count()) {
        to.write(bytes)
        return
      }
      this.over = true
      endWith(to, lastOf(bytes, this.plan, left), this.plan.manner)
      endWith(from, bytes.subarray(0, 0), this.plan.manner)
    })
  }
}

/**
 * Forwards to the server for as long as the scope. Most connections carry up to `mostBytes` one way when they have logged in; the ways to cut take
 * turns, so that each of them comes.
 */
export const openCuttingProxy = (
  server: ServerAddress,
  dice: Dice,
  mostBytes: number
): Effect.Effect<CuttingProxy, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const clients = new Set<Socket>()
        const cuts = new Map<Cut, number>()
        let accepted = 0
        let resting = false
        const listener = createServer({ noDelay: true }, (client) => {
          const turn = accepted++
          const plan: Plan = {
            place: places[turn % places.length]!,
            manner: manners[Math.floor(turn / places.length) % manners.length]!,
            // one in ten while it logs in, which takes less than a kilobyte either way
            bytes: dice.below(10) === 0 ? dice.below(1_000) : 1_000 + dice.below(mostBytes)
          }
          clients.add(client)
          client.on("close", () => clients.delete(client))
          new Pair(client, connect({ port: server.port, host: server.host, noDelay: true }), plan, () => {
            const cut: Cut = `${plan.place}, ${plan.manner}`
            if (!resting) cuts.set(cut, (cuts.get(cut) ?? 0) + 1)
            return !resting
          })
        })
        listener.listen(0, "127.0.0.1")
        await once(listener, "listening")
        const address = listener.address()
        if (address === null || typeof address === "string") throw new Error("the proxy got no port")
        const rest = Effect.sync(() => {
          resting = true
        })
        return { listener, clients, port: address.port, cuts, accepted: () => accepted, rest }
      }),
      ({ clients, listener }) =>
        Effect.async<void>((resume) => {
          listener.close(() => resume(Effect.void))
          for (const client of clients) client.destroy()
        })
    ),
    ({ accepted, cuts, port, rest }) => ({ port, cuts, accepted, rest })
  )
