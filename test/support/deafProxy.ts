/** A TCP listener between pool and server that on request swallows what clients say, and tells when they have said it. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"

export interface DeafProxy {
  readonly port: number
  /** Nothing that clients say reaches the server from now on. Completes, when run in turn, as soon as they have said it. */
  readonly swallow: (text: string) => Effect.Effect<Effect.Effect<void>>
  /** Breaks every connection. Newcomers are heard again. */
  readonly cut: Effect.Effect<void>
}

/** Forwards to the server for as long as the scope. */
export const openDeafProxy = (server: ServerAddress): Effect.Effect<DeafProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const pairs = new Map<Socket, Socket>()
      const listener = createServer((client) => {
        const upstream = connect(server.port, server.host)
        pairs.set(client, upstream)
        client.on("error", () => client.destroy())
        upstream.on("error", () => client.destroy())
        upstream.on("close", () => client.destroy())
        client.on("close", () => {
          pairs.delete(client)
          upstream.destroy()
        })
        client.pipe(upstream).pipe(client)
      })
      listener.listen(0, "127.0.0.1")
      await once(listener, "listening")
      const address = listener.address()
      if (address === null || typeof address === "string") throw new Error("the proxy got no port")
      return { listener, pairs, port: address.port }
    }),
    ({ listener, pairs }) =>
      Effect.async<void>((resume) => {
        listener.close(() => resume(Effect.void))
        for (const client of pairs.keys()) client.destroy()
      })
  ).pipe(Effect.map(({ pairs, port }) => ({
    port,
    swallow: (text) =>
      Effect.map(Deferred.make<void>(), (said) => {
        for (const [client, upstream] of pairs) {
          client.unpipe(upstream)
          client.on("data", (bytes) => {
            if (bytes.includes(text)) Deferred.unsafeDone(said, Effect.void)
          })
          client.resume()
        }
        return Deferred.await(said)
      }),
    cut: Effect.sync(() => {
      for (const client of pairs.keys()) client.destroy()
    })
  })))
