/**
 * A database server of one's own: on 127.0.0.1 only, in a temporary folder, with a password nobody has seen. It ends with
 * the process that started it, however that ends (see `serverKeeper.mjs`). Used by tests, the demo and the benchmarks;
 * knows no test framework.
 */
import { createConnection } from "mysql2/promise"
import { execFileSync, spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import type { Socket } from "node:net"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { mysqlProgram } from "./mysqlServer.js"
import type { Flavour, ServerProgram } from "./serverProgram.js"
import { asRoot, flavourOfRun, mariadbProgram } from "./serverProgram.js"

export interface ServerOptions {
  /** By default the one that the run is about: MariaDB, unless DB_TEST_FLAVOUR says mysql. */
  readonly flavour?: Flavour | undefined
  /** Further options of the server, such as `--max-connections=20` (MariaDB takes no less than 10); they win over
   * the ones given here. */
  readonly settings?: ReadonlyArray<string> | undefined
}

export interface PrivateServer {
  readonly url: string
  readonly host: "127.0.0.1"
  readonly port: number
  readonly user: "root"
  readonly password: string
  readonly database: "test"
  readonly flavour: Flavour
  readonly version: string
  /** Another one after `restart`. */
  readonly pid: number
  /** Sends a signal and returns at once: SIGSTOP freezes the server, SIGCONT thaws it, SIGKILL is a crash. */
  readonly kill: (signal: NodeJS.Signals) => void
  /** Kills the server and returns when the system has cleared it away; `restart` starts it again. */
  readonly crash: () => Promise<void>
  /** Freezes the server and returns when none of its threads runs any more; SIGCONT thaws it. */
  readonly freeze: () => Promise<void>
  /** Starts it again on the same data and port, after an orderly shutdown if it still runs. */
  readonly restart: () => Promise<void>
  /** Ends it and removes its folder. A second call does nothing. */
  readonly stop: () => Promise<void>
}

const host = "127.0.0.1"
const user = "root"
const database = "test"
const startTimeout = 60_000
const shutdownTimeout = 20_000

const freePort = async (): Promise<number> => {
  const probe = createServer().listen(0, host)
  await once(probe, "listening")
  const address = probe.address()
  probe.close()
  await once(probe, "close")
  if (address === null || typeof address === "string") throw new Error("no free port on the loopback interface")
  return address.port
}

interface Keeper {
  /** Names the process group that must not outlive this process. */
  readonly watch: (group: number) => void
  readonly dismiss: () => void
}

const startKeeper = (folder: string): Keeper => {
  const file = fileURLToPath(new URL("serverKeeper.mjs", import.meta.url))
  const keeper = spawn(process.execPath, [file, folder], {
    // A group of its own, or Ctrl-C in the terminal would end the keeper before its work.
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
    env: {}
  })
  keeper.unref()
  const stdin = keeper.stdin as Socket
  stdin.unref()
  // A keeper that was killed can be told nothing more; this process still cleans up at its own orderly end.
  stdin.on("error", () => {})
  return { watch: (group) => stdin.write(`${group}\n`), dismiss: () => stdin.end() }
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const ended = async (child: ChildProcess): Promise<void> => {
  // Unreferenced while it serves; whoever waits for its end needs the event loop to stay.
  child.ref()
  if (!hasEnded(child)) await once(child, "exit")
}

const killGroup = (child: ChildProcess, signal: NodeJS.Signals): void => {
  if (child.pid === undefined || hasEnded(child)) return
  try {
    process.kill(-child.pid, signal)
  } catch {
    // It ended in the meantime, before the event loop could tell us.
  }
}

/** What each thread of the process is doing; on a system that tells only of the whole, what that does. */
const threadStates = (pid: number): ReadonlyArray<string> => {
  const folder = `/proc/${pid}/task`
  if (!existsSync(folder)) return [execFileSync("ps", ["-o", "state=", "-p", String(pid)], { encoding: "utf8" }).trim()]
  return readdirSync(folder).map((id) => {
    try {
      // the name of a program, in parentheses, may hold anything
      return readFileSync(join(folder, id, "stat"), "utf8").split(") ").at(-1)!
    } catch {
      return "a thread that has ended since: look again"
    }
  })
}

/** The signal is delivered in its own time: on a busy machine the server goes on serving for a moment. */
const frozen = async (child: ChildProcess): Promise<void> => {
  killGroup(child, "SIGSTOP")
  const deadline = Date.now() + startTimeout
  while (child.pid !== undefined && !threadStates(child.pid).every((state) => state.startsWith("T"))) {
    if (Date.now() > deadline) throw new Error(`the server went on running for ${startTimeout} ms after SIGSTOP`)
    await sleep(1)
  }
}

class ServerFolder {
  readonly datadir: string
  readonly log: string
  readonly initFile: string

  constructor(
    readonly path: string,
    readonly program: ServerProgram,
    readonly port: number,
    readonly password: string,
    readonly settings: ReadonlyArray<string>,
    readonly keeper: Keeper
  ) {
    this.datadir = join(path, "data")
    this.log = join(path, "server.log")
    this.initFile = join(path, "init.sql")
  }

  spawn(command: ReadonlyArray<string>): ChildProcess {
    const log = openSync(this.log, "a")
    const [program, ...options] = command
    // a server that starts sweeps the folder of temporary files, and with it what another one is writing there
    const env = { ...process.env, TMPDIR: this.path }
    const child = spawn(program!, options, { detached: true, stdio: ["ignore", log, log], env })
    closeSync(log)
    child.unref()
    if (child.pid !== undefined) this.keeper.watch(child.pid)
    return child
  }

  async initialize(): Promise<void> {
    const child = this.spawn(this.program.initialize(this.datadir))
    child.ref()
    await once(child, "exit")
    if (child.exitCode !== 0) throw await this.failure("could not fill its data folder")
    // The server does not look up names, so that root@localhost is not who connects over TCP.
    await writeFile(
      this.initFile,
      [
        `ALTER USER root@localhost IDENTIFIED BY '${this.password}';`,
        `CREATE USER IF NOT EXISTS root@'${host}';`,
        `ALTER USER root@'${host}' IDENTIFIED BY '${this.password}';`,
        `GRANT ALL ON *.* TO root@'${host}' WITH GRANT OPTION;`,
        `CREATE DATABASE ${database};`,
        ""
      ].join("\n"),
      { mode: 0o600 }
    )
  }

  start(options: ReadonlyArray<string>): ChildProcess {
    return this.spawn([
      ...this.program.command,
      "--no-defaults",
      `--datadir=${this.datadir}`,
      `--socket=${join(this.path, "s.sock")}`,
      `--pid-file=${join(this.path, "server.pid")}`,
      `--port=${this.port}`,
      `--bind-address=${host}`,
      "--skip-name-resolve",
      "--local-infile=OFF",
      "--max-connections=200",
      "--innodb-buffer-pool-size=64M",
      // What is written reaches the operating system and so outlives a killed server, but waits for no disk: one that stands
      // still for a moment would be a server that cannot stop a statement.
      "--innodb-flush-log-at-trx-commit=2",
      "--innodb-flush-method=nosync",
      ...this.program.options,
      ...asRoot,
      ...options,
      ...this.settings
    ])
  }

  /** Waits until it serves, and answers its version. */
  async ready(child: ChildProcess): Promise<string> {
    const deadline = Date.now() + startTimeout
    let last: unknown
    while (Date.now() < deadline) {
      if (hasEnded(child)) throw await this.failure("ended instead of starting")
      try {
        return await this.version()
      } catch (error) {
        last = error
        await sleep(50)
      }
    }
    killGroup(child, "SIGKILL")
    throw await this.failure(`did not answer within ${startTimeout} ms`, last)
  }

  async version(): Promise<string> {
    const { password, port } = this
    const connection = await createConnection({ host, port, user, password, database, connectTimeout: 2000 })
    try {
      const [rows] = await connection.query({ sql: "SELECT VERSION()", rowsAsArray: true })
      return String((rows as ReadonlyArray<ReadonlyArray<unknown>>)[0]?.[0])
    } finally {
      connection.destroy()
    }
  }

  async failure(what: string, cause?: unknown): Promise<Error> {
    const log = await readFile(this.log, "utf8").catch(() => "")
    return new Error(`the private ${this.program.flavour} server ${what}:\n${log.split("\n").slice(-20).join("\n")}`, {
      cause
    })
  }

  removeNow(): void {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 })
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
    this.keeper.dismiss()
  }
}

const shutdown = async (child: ChildProcess): Promise<void> => {
  // A frozen server does not see the request to end.
  killGroup(child, "SIGCONT")
  killGroup(child, "SIGTERM")
  const timer = setTimeout(() => killGroup(child, "SIGKILL"), shutdownTimeout)
  await ended(child)
  clearTimeout(timer)
}

/** Starts a server and waits until it answers. Rejects, leaving nothing behind, if there is none to be had. */
export const startServer = async (options: ServerOptions = {}): Promise<PrivateServer> => {
  const program = (options.flavour ?? flavourOfRun()) === "mysql" ? mysqlProgram() : mariadbProgram()
  const path = await mkdtemp(join(tmpdir(), "effect-sql-pool-"))
  const password = randomBytes(18).toString("hex")
  const folder = new ServerFolder(
    path,
    program,
    await freePort(),
    password,
    options.settings ?? [],
    startKeeper(path)
  )

  let child: ChildProcess | undefined
  const onExit = (): void => {
    if (child !== undefined) killGroup(child, "SIGKILL")
    folder.removeNow()
  }
  process.once("exit", onExit)

  const stop = async (): Promise<void> => {
    if (child !== undefined) {
      killGroup(child, "SIGKILL")
      await ended(child)
    }
    await folder.remove()
    process.off("exit", onExit)
  }

  try {
    await folder.initialize()
    child = folder.start([`--init-file=${folder.initFile}`])
    const version = await folder.ready(child)
    await rm(folder.initFile)
    let running = child
    return {
      url: `mysql://${user}:${password}@${host}:${folder.port}/${database}`,
      host,
      port: folder.port,
      user,
      password,
      database,
      flavour: program.flavour,
      version,
      get pid() {
        return running.pid!
      },
      kill: (signal) => killGroup(running, signal),
      crash: async () => {
        killGroup(running, "SIGKILL")
        await ended(running)
      },
      freeze: () => frozen(running),
      restart: async () => {
        await shutdown(running)
        child = running = folder.start([])
        await folder.ready(running)
      },
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}
