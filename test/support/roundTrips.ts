/** A TCP listener between pool and server that counts round trips: how often a client has spoken after the server. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"

export interface RoundTrips {
  readonly port: number
  /** Over all connections, since it was opened. Several commands in one go are one round trip. */
  readonly count: () => number
}

/** Forwards to the server for as long as the scope. */
export const openRoundTrips = (server: ServerAddress): Effect.Effect<RoundTrips, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const clients = new Set<Socket>()
      let count = 0
      const listener = createServer((client) => {
        const upstream = connect(server.port, server.host)
        let spoken = false
        clients.add(client)
        client.on("data", () => {
          if (!spoken) count++
          spoken = true
        })
        upstream.on("data", () => {
          spoken = false
        })
        client.on("error", () => client.destroy()).on("close", () => {
          clients.delete(client)
          upstream.destroy()
        })
        upstream.on("error", () => client.destroy()).on("close", () => client.destroy())
        client.pipe(upstream).pipe(client)
      })
      listener.listen(0, "127.0.0.1")
      await once(listener, "listening")
      const address = listener.address()
      if (address === null || typeof address === "string") throw new Error("the listener got no port")
      return { port: address.port, count: () => count, clients, listener }
    }),
    ({ clients, listener }) =>
      Effect.async<void>((resume) => {
        listener.close(() => resume(Effect.void))
        for (const client of clients) client.destroy()
      })
  )
