/** A TCP listener between pool and server that writes down what each says, and can put other bytes in a server's mouth. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"

export interface Said {
  readonly by: "client" | "server"
  readonly bytes: Buffer
}

/** What was said on one connection, in order. */
export type Wire = ReadonlyArray<Said>

export interface Wiretap {
  readonly port: number
  /** One for each connection, in the order in which they came. */
  readonly wires: ReadonlyArray<Wire>
}

/** All that one side has said. */
export const saidBy = (by: Said["by"], wire: Wire): Buffer =>
  Buffer.concat(wire.flatMap((said) => said.by === by ? [said.bytes] : []))

/** Listens on 127.0.0.1 for as long as the scope; all connections are broken at its end. */
export const listen = (serve: (client: Socket) => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const clients = new Set<Socket>()
      const listener = createServer((client) => {
        clients.add(client)
        // a client may go without a good-bye: then there is nobody to be told of it
        client.on("error", () => client.destroy())
        client.on("close", () => clients.delete(client))
        serve(client)
      })
      listener.listen({ port: 0, host: "127.0.0.1", backlog: 4096 })
      await once(listener, "listening")
      const address = listener.address()
      if (address === null || typeof address === "string") throw new Error("the listener got no port")
      return { listener, clients, port: address.port }
    }),
    ({ clients, listener }) =>
      Effect.async<void>((resume) => {
        listener.close(() => resume(Effect.void))
        for (const client of clients) client.destroy()
      })
  ).pipe(Effect.map(({ port }) => port))

/** Forwards to the server for as long as the scope. `greeting` may change the server's greeting. */
export const openWiretap = (
  server: Pick<ServerAddress, "host" | "port">,
  greeting: (bytes: Buffer) => Buffer = (bytes) => bytes
): Effect.Effect<Wiretap, never, Scope.Scope> =>
  Effect.suspend(() => {
    const wires: Array<Array<Said>> = []
    return Effect.map(
      listen((client) => {
        const wire: Array<Said> = []
        wires.push(wire)
        const upstream = connect(server.port, server.host)
        upstream.on("error", () => client.destroy())
        upstream.on("close", () => client.destroy())
        client.on("close", () => upstream.destroy())
        client.on("data", (bytes) => {
          wire.push({ by: "client", bytes })
          upstream.write(bytes)
        })
        let greeted = false
        upstream.on("data", (bytes) => {
          const told = greeted ? bytes : greeting(bytes)
          greeted = true
          wire.push({ by: "server", bytes: told })
          client.write(told)
        })
      }),
      (port) => ({ port, wires })
    )
  })
