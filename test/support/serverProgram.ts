/**
 * Which database server this machine has, and how it is called. Installs MariaDB where that needs no question (Debian,
 * as root); everywhere else it says what is missing. Knows nothing about running servers.
 */
import { execFileSync } from "node:child_process"
import { accessSync, constants, existsSync } from "node:fs"
import { delimiter, join } from "node:path"

export type Flavour = "mariadb" | "mysql"

/** The one that this run is about: `npm run test:mysql` sets DB_TEST_FLAVOUR, every other run is about MariaDB. */
export const flavourOfRun = (): Flavour => {
  const name = process.env["DB_TEST_FLAVOUR"] ?? "mariadb"
  if (name === "mariadb" || name === "mysql") return name
  throw new Error(`DB_TEST_FLAVOUR is mariadb or mysql, not "${name}"`)
}

export interface ServerProgram {
  readonly flavour: Flavour
  /** The program and what has to precede it, as for a server that runs on libraries of its own. */
  readonly command: readonly [string, ...Array<string>]
  /** Options this program needs beside the ones every server gets. */
  readonly options: ReadonlyArray<string>
  /** The command that fills an empty data folder. */
  readonly initialize: (datadir: string) => readonly [string, ...Array<string>]
}

/** Servers refuse to run as root unless told so by name. */
export const asRoot: ReadonlyArray<string> = process.getuid?.() === 0 ? ["--user=root"] : []

// Debian keeps servers in sbin, which is not on every user's path.
const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"]

const isExecutable = (file: string): boolean => {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const findProgram = (name: string): string | undefined =>
  folders.map((folder) => join(folder, name)).find((file) => isExecutable(file))

/** On Debian `mysqld` is a link to MariaDB: only its version tells. */
const findServer = (version: RegExp, names: ReadonlyArray<string>): string | undefined =>
  names.map(findProgram).find((file): file is string =>
    file !== undefined && version.test(execFileSync(file, ["--no-defaults", "--version"], { encoding: "utf8" }))
  )

const findMariadb = (): ServerProgram | undefined => {
  const server = findServer(/MariaDB/, ["mariadbd", "mysqld"])
  const initialize = findProgram("mariadb-install-db") ?? findProgram("mysql_install_db")
  if (server === undefined || initialize === undefined) return undefined
  return {
    flavour: "mariadb",
    command: [server],
    options: ["--innodb-log-file-size=32M"],
    initialize: (datadir) => [
      initialize,
      "--no-defaults",
      `--datadir=${datadir}`,
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
      ...asRoot
    ]
  }
}

/** MySQL 9, if it is installed. */
export const findMysql = (): ServerProgram | undefined => {
  const server = findServer(/^(?!.*MariaDB).*Ver 9\./, ["mysqld"])
  if (server === undefined) return undefined
  return {
    flavour: "mysql",
    command: [server],
    options: ["--mysqlx=OFF", "--secure-file-priv=NULL", "--innodb-redo-log-capacity=32M", "--disable-log-bin"],
    initialize: (datadir) => [server, "--no-defaults", "--initialize-insecure", `--datadir=${datadir}`, ...asRoot]
  }
}

export const isDebianRoot = (): boolean => asRoot.length > 0 && existsSync("/etc/debian_version")

const installMariadb = (): void => {
  process.stderr.write("no MariaDB here: installing Debian's mariadb-server-core for the tests\n")
  const options = { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" }, stdio: "pipe" } as const
  execFileSync("apt-get", ["update"], options)
  execFileSync("apt-get", ["install", "-y", "--no-install-recommends", "mariadb-server-core"], options)
}

/** MariaDB, installed first if this machine allows it without asking. */
export const mariadbProgram = (): ServerProgram => {
  const found = findMariadb()
  if (found !== undefined) return found
  if (isDebianRoot()) {
    installMariadb()
    const installed = findMariadb()
    if (installed !== undefined) return installed
  }
  throw new Error(
    "No database server for the tests. Install MariaDB (Debian, Ubuntu: apt-get install mariadb-server-core; " +
      "macOS: brew install mariadb), or name a server in DB_TEST_URL (mysql://user:password@host:port/database)."
  )
}
