/** The faults of the matrix: how each begins for the server, how it hits one pool's connections, and how it ends. */
import * as Effect from "effect/Effect"
import { type Connection, createConnection } from "mysql2/promise"
import type { FaultProxy } from "./faultProxy.js"
import type { PrivateServer } from "./privateServer.js"

export interface Fault {
  /** What it means, where the name alone does not say it for every phase. */
  readonly means: string
  /** Once, for all. */
  readonly begin: Effect.Effect<void>
  /** For one pool, at once afterwards. What the proxy has kept back meets the fault now. */
  readonly hit: (proxy: FaultProxy) => Effect.Effect<void>
  /** Once, for all, and before any proxy is healed. */
  readonly end: Effect.Effect<void>
}

export const slowCloseMillis = 300

const rootConnection = ({ host, password, port, user }: PrivateServer): Promise<Connection> =>
  createConnection({ host, port, user, password })

const byProxy = (means: string, hit: Fault["hit"]): Fault => ({ means, begin: Effect.void, hit, end: Effect.void })

const byServer = (means: string, begin: Effect.Effect<void>, end: Effect.Effect<void>): Fault => ({
  means,
  begin,
  hit: (proxy) => proxy.letGo,
  end
})

/** What the server allows at least, and how many are needed to keep even an administrator out. */
const fewestConnections = 10
const fillers = fewestConnections + 2

/** After the process has ended, until what was its end of each connection has been told through the proxy. */
const tellingMillis = 20

const unknownThread = (error: { readonly errno?: number }): void => {
  if (error.errno !== 1094) throw error
}

const tooManyConnections = (server: PrivateServer, users: () => ReadonlyArray<string>): Fault => {
  const open: Array<Connection> = []
  return byServer(
    "every connection is killed, and others have taken all places: reconnecting is refused with 1040",
    Effect.promise(async () => {
      for (let n = 0; n < fillers; n++) open.push(await rootConnection(server))
      await open[0]!.query(`SET GLOBAL max_connections = ${fewestConnections}`)
      const pools = users().map((user) => `'${user}'`).join(", ")
      const [ids] = await open[0]!.query({
        sql: `SELECT id FROM information_schema.processlist WHERE user IN (${pools})`,
        rowsAsArray: true
      })
      // one may have gone by itself, as a connection that has just been refused
      for (const [id] of ids as Array<Array<number>>) await open[0]!.query(`KILL ${id}`).catch(unknownThread)
    }),
    Effect.promise(async () => {
      await open[0]!.query("SET GLOBAL max_connections = 200")
      for (const connection of open.splice(0)) await connection.end()
    })
  )
}

const setReadOnly = (server: PrivateServer, to: "ON" | "OFF"): Effect.Effect<void> =>
  Effect.promise(async () => {
    const connection = await rootConnection(server)
    await connection.query(`SET GLOBAL read_only = ${to}`)
    await connection.end()
  })

/** `users` are those of the pools. */
export const makeFaults = (server: PrivateServer, users: () => ReadonlyArray<string>) => ({
  "clean close": byProxy("every connection gets a FIN; newcomers are served at once", (proxy) => proxy.close),
  "RST": byProxy("every connection is reset; newcomers are served at once", (proxy) => proxy.reset),
  "black hole": byProxy(
    "nothing gets through in either direction, and newcomers are accepted, and that is all",
    (proxy) => proxy.blackHole
  ),
  "server SIGSTOP": byServer(
    "the server is frozen; the system still accepts connections for it",
    Effect.promise(server.freeze),
    Effect.sync(() => server.kill("SIGCONT"))
  ),
  "server SIGKILL, restart": {
    means: "the server is killed, and started again when everybody has settled",
    begin: Effect.promise(server.crash),
    hit: (proxy) => Effect.zipRight(proxy.letGo, Effect.sleep(tellingMillis)),
    end: Effect.promise(() => server.restart())
  } satisfies Fault,
  "stalled handshake": byProxy(
    "every connection is reset, and a newcomer gets the server's greeting and nothing more",
    (proxy) => proxy.stallHandshakes
  ),
  "refused port": byProxy("every connection is reset, and nobody listens any more", (proxy) => proxy.refuse),
  "too many connections": tooManyConnections(server, users),
  "slow close": byProxy(
    `every connection falls silent, gets a FIN ${slowCloseMillis} ms later, and its other half is never closed;`
      + " newcomers are served at once",
    (proxy) => proxy.closeSlowly(slowCloseMillis)
  ),
  "read-only refusal": byServer(
    "the server refuses writes, in COMMIT too; everything else goes on",
    setReadOnly(server, "ON"),
    setReadOnly(server, "OFF")
  )
})

export type FaultName = keyof ReturnType<typeof makeFaults>
