/**
 * A TCP listener between pool and server, for what a real server does not do on request: a client that connects through
 * it gets no answer while it is held, as behind a server that has frozen in the handshake; answers can be kept back; and
 * connections can be cut.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"

export interface Proxy {
  readonly port: number
  /** New connections are accepted and get nothing from now on. */
  readonly hold: Effect.Effect<void>
  /** Whoever has been held goes on, newcomers too. */
  readonly release: Effect.Effect<void>
  /** What clients say still reaches the server, but nothing comes back from now on, until {@link cut}. */
  readonly mute: Effect.Effect<void>
  /** How many connections have come, since it was opened. */
  readonly accepted: () => number
  /** How many clients are connected now. */
  readonly open: () => number
  /** Breaks every connection. */
  readonly cut: Effect.Effect<void>
}

/** Forwards to the server for as long as the scope. */
export const openProxy = (server: ServerAddress): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const clients = new Set<Socket>()
      const upstreams = new Set<Socket>()
      let held: Array<() => void> | undefined
      let accepted = 0
      const forward = (client: Socket): void => {
        if (client.destroyed) return
        const upstream = connect(server.port, server.host)
        upstream.on("error", () => client.destroy())
        upstream.on("close", () => {
          upstreams.delete(upstream)
          client.destroy()
        })
        upstreams.add(upstream)
        client.on("close", () => upstream.destroy())
        client.pipe(upstream).pipe(client)
      }
      const listener = createServer((client) => {
        accepted += 1
        clients.add(client)
        client.on("error", () => client.destroy())
        client.on("close", () => clients.delete(client))
        // else nobody would see that a client which is held has gone
        client.resume()
        if (held === undefined) forward(client)
        else held.push(() => forward(client))
      })
      listener.listen(0, "127.0.0.1")
      await once(listener, "listening")
      const address = listener.address()
      if (address === null || typeof address === "string") throw new Error("the proxy got no port")
      const proxy: Proxy = {
        port: address.port,
        hold: Effect.sync(() => {
          held ??= []
        }),
        release: Effect.sync(() => {
          const waiting = held ?? []
          held = undefined
          for (const go of waiting) go()
        }),
        mute: Effect.sync(() => {
          for (const upstream of upstreams) upstream.unpipe().pause()
        }),
        accepted: () => accepted,
        open: () => clients.size,
        cut: Effect.sync(() => {
          for (const client of clients) client.destroy()
        })
      }
      return { proxy, listener, clients }
    }),
    ({ clients, listener }) =>
      Effect.async<void>((resume) => {
        listener.close(() => resume(Effect.void))
        for (const client of clients) client.destroy()
      })
  ).pipe(Effect.map(({ proxy }) => proxy))
