/**
 * MySQL 9: the one that is installed, or on a Debian that has none, Debian's own package from sid with all its
 * libraries, unpacked into a folder of the repository's cache and never installed, so that the system stays what it was.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import type { ServerProgram } from "./serverProgram.js"
import { asRoot, findMysql, isDebianRoot } from "./serverProgram.js"

/** This machine has no MySQL 9 and cannot get one; the message is one line that says why. */
export class MysqlUnavailable extends Error {
  constructor(why: string) {
    super(`MySQL 9 is not available: ${why}`)
  }
}

const cache = fileURLToPath(new URL("../../.cache/", import.meta.url))

/** The mirror this machine is configured to use, whichever it is, in either of apt's formats. */
const configuredMirror = (): string => {
  const folder = "/etc/apt/sources.list.d"
  const files = [
    "/etc/apt/sources.list",
    ...(existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [])
  ]
  const uris = files
    .filter((file) => existsSync(file))
    .flatMap((file) => [...readFileSync(file, "utf8").matchAll(/^(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(\S+)/gm)])
    .map((match) => match[1]!)
  const mirror = uris.find((uri) => /\/debian\/?$/.test(uri))
  if (mirror === undefined) throw new MysqlUnavailable("apt is configured with no Debian mirror")
  return mirror
}

/** Runs a command to its end, and says in one line what it complained of. */
const run = (command: string, options: ReadonlyArray<string>): string => {
  try {
    return execFileSync(command, options, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], timeout: 300_000 })
  } catch (error) {
    const { message, stderr } = error as Error & { readonly stderr?: string }
    const lines = (stderr ?? "").split("\n").filter((line) => line.trim() !== "")
    const complaint = lines.find((line) => line.startsWith("E: ")) ?? lines.at(-1) ?? message.split("\n")[0]
    throw new MysqlUnavailable(`${basename(command)} failed: ${complaint}`)
  }
}

const unpack = (folder: string): void => {
  const apt = join(folder, "apt")
  for (const part of ["lists/partial", "cache/archives/partial"]) mkdirSync(join(apt, part), { recursive: true })
  writeFileSync(join(apt, "status"), "")
  writeFileSync(join(apt, "sources.list"), `deb ${configuredMirror()} sid main\n`)
  const options = [
    `Dir::Etc::SourceList=${apt}/sources.list`,
    "Dir::Etc::SourceParts=/dev/null",
    "Dir::Etc::Preferences=/dev/null",
    "Dir::Etc::PreferencesParts=/dev/null",
    `Dir::State::Lists=${apt}/lists`,
    `Dir::State::status=${apt}/status`,
    `Dir::Cache=${apt}/cache`,
    "APT::Sandbox::User=root",
    // a mirror that is out of reach is said at once, and an index that could not be had is an error
    "APT::Update::Error-Mode=any",
    "Acquire::Retries=1",
    "Acquire::http::Timeout=20",
    "Acquire::https::Timeout=20"
  ].flatMap((option) => ["-o", option])
  run("apt-get", [...options, "update"])
  run("apt-get", [...options, "install", "-y", "--no-install-recommends", "--download-only", "mysql-server-core"])
  const archives = join(apt, "cache/archives")
  for (const archive of readdirSync(archives).filter((name) => name.endsWith(".deb"))) {
    run("dpkg", ["-x", join(archives, archive), join(folder, "root")])
  }
  rmSync(apt, { recursive: true })
}

const findFile = (root: string, name: RegExp): string => {
  const path = readdirSync(root, { recursive: true, encoding: "utf8" }).find((entry) => name.test(basename(entry)))
  if (path === undefined) throw new MysqlUnavailable(`the unpacked packages hold no ${name}`)
  return join(root, path)
}

/** MySQL 9 from the cache, fetched first if need be. */
const unpackedMysql = (): ServerProgram => {
  const folder = join(cache, "mysql")
  if (!existsSync(folder)) {
    if (!isDebianRoot()) {
      throw new MysqlUnavailable("install its server (mysqld), or run on Debian as root")
    }
    process.stderr.write("no MySQL here: unpacking Debian sid's mysql-server-core for the tests\n")
    const partial = `${folder}.${process.pid}`
    try {
      unpack(partial)
      // In one step, so that an interrupted download is never taken for the real thing.
      renameSync(join(partial, "root"), folder)
    } finally {
      rmSync(partial, { recursive: true, force: true })
    }
  }
  const loader = findFile(folder, /^ld-linux.*\.so\.\d+$/)
  const libraries = [
    ...new Set(
      readdirSync(join(folder, "usr/lib"), { recursive: true, encoding: "utf8" })
        .filter((entry) => /\.so(\.|$)/.test(entry))
        .map((entry) => join(folder, "usr/lib", entry, ".."))
    )
  ]
  const server = findFile(folder, /^mysqld$/)
  const messages = `--lc-messages-dir=${join(folder, "usr/share/mysql")}`
  const command = [loader, "--library-path", libraries.join(":"), server] as const
  run(loader, [...command.slice(1), "--no-defaults", "--version"])
  return {
    flavour: "mysql",
    command: [...command],
    options: [
      messages,
      "--mysqlx=OFF",
      "--secure-file-priv=NULL",
      "--innodb-redo-log-capacity=32M",
      "--disable-log-bin"
    ],
    initialize: (datadir) => [
      ...command,
      "--no-defaults",
      "--initialize-insecure",
      `--datadir=${datadir}`,
      messages,
      ...asRoot
    ]
  }
}

/** MySQL 9, installed or unpacked; fails with {@link MysqlUnavailable} when it cannot be had. */
export const mysqlProgram = (): ServerProgram => findMysql() ?? unpackedMysql()
