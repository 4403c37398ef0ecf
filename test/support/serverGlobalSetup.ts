/**
 * The one server all projects of a test run share: the one named by DB_TEST_URL, or else a private one, of the flavour
 * that the run is about. Says in one line which it is. Tests find it with `inject("server")`; a test that wants to stop
 * or freeze a server starts its own, which is of the same flavour.
 */
import { createConnection } from "mysql2/promise"
import type { TestProject } from "vitest/node"
import { startServer } from "./privateServer.js"
import { type Flavour, flavourOfRun } from "./serverProgram.js"

export interface TestServer {
  readonly url: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly flavour: Flavour
  readonly version: string
}

declare module "vitest" {
  export interface ProvidedContext {
    readonly server: TestServer
  }
}

interface SharedServer {
  readonly server: TestServer
  readonly stop: () => Promise<void>
}

const namedServer = async (url: string): Promise<SharedServer> => {
  const { hostname, password, pathname, port, username } = new URL(url)
  const connection = await createConnection({ uri: url, connectTimeout: 10_000 })
  const [rows] = await connection.query({ sql: "SELECT VERSION()", rowsAsArray: true })
  await connection.end()
  const version = String((rows as ReadonlyArray<ReadonlyArray<unknown>>)[0]?.[0])
  const server: TestServer = {
    url,
    host: hostname,
    port: port === "" ? 3306 : Number(port),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: decodeURIComponent(pathname.slice(1)),
    flavour: version.includes("MariaDB") ? "mariadb" : "mysql",
    version
  }
  announce(server, "named by DB_TEST_URL")
  // tests that start a server of their own would start one of the other kind
  if (server.flavour !== flavourOfRun()) {
    throw new Error(`DB_TEST_URL names a ${server.flavour} server: see README.md for how to run the tests on it`)
  }
  return { server, stop: () => Promise.resolve() }
}

const privateServer = async (): Promise<SharedServer> => {
  const { database, flavour, host, password, port, stop, url, user, version } = await startServer()
  const server: TestServer = { url, host, port, user, password, database, flavour, version }
  announce(server, "private, ends with this run")
  return { server, stop }
}

const announce = (server: TestServer, origin: string): void => {
  process.stderr.write(
    `test server: ${server.flavour} ${server.version} on ${server.host}:${server.port} (${origin})\n`
  )
}

// Vitest loads this file once for each project, all in one process: what they share must hang on the process.
const key = Symbol.for("effect-sql-pool/test/serverGlobalSetup")
const shared = globalThis as { [key]?: { users: number; readonly starting: Promise<SharedServer> } }

export default async (project: TestProject): Promise<() => Promise<void>> => {
  const url = process.env["DB_TEST_URL"]
  const entry = shared[key] ??= {
    users: 0,
    starting: url === undefined || url === "" ? privateServer() : namedServer(url)
  }
  entry.users += 1
  const { server, stop } = await entry.starting
  project.provide("server", server)
  return async () => {
    entry.users -= 1
    if (entry.users === 0) {
      delete shared[key]
      await stop()
    }
  }
}
