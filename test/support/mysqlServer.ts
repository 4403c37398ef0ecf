/**
 * A MySQL 9 server on a Debian that has none: Debian's own package from sid with all its libraries, unpacked into a
 * folder of the repository's cache and never installed, so that the system stays what it was.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import type { ServerProgram } from "./serverProgram.js"
import { asRoot, isDebianRoot } from "./serverProgram.js"

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
  if (mirror === undefined) throw new Error("MySQL 9 is not available: apt is configured with no Debian mirror")
  return mirror
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
    "APT::Sandbox::User=root"
  ].flatMap((option) => ["-o", option])
  execFileSync("apt-get", [...options, "update"], { stdio: "pipe" })
  execFileSync(
    "apt-get",
    [...options, "install", "-y", "--no-install-recommends", "--download-only", "mysql-server-core"],
    { stdio: "pipe" }
  )
  const archives = join(apt, "cache/archives")
  for (const archive of readdirSync(archives).filter((name) => name.endsWith(".deb"))) {
    execFileSync("dpkg", ["-x", join(archives, archive), join(folder, "root")], { stdio: "pipe" })
  }
  rmSync(apt, { recursive: true })
}

const findFile = (root: string, name: string): string => {
  const path = readdirSync(root, { recursive: true, encoding: "utf8" }).find((entry) => basename(entry) === name)
  if (path === undefined) throw new Error(`MySQL 9 is not available: the unpacked packages hold no ${name}`)
  return join(root, path)
}

/** MySQL 9 from the cache, fetched first if need be; an error that says why if it cannot be had. */
export const unpackedMysql = (): ServerProgram => {
  const folder = join(cache, "mysql")
  if (!existsSync(folder)) {
    if (!isDebianRoot()) {
      throw new Error("MySQL 9 is not available: install its server (mysqld), or run on Debian as root")
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
  const loader = findFile(folder, "ld-linux-x86-64.so.2")
  const libraries = [
    ...new Set(
      readdirSync(join(folder, "usr/lib"), { recursive: true, encoding: "utf8" })
        .filter((entry) => /\.so(\.|$)/.test(entry))
        .map((entry) => join(folder, "usr/lib", entry, ".."))
    )
  ]
  const server = findFile(folder, "mysqld")
  const messages = `--lc-messages-dir=${join(folder, "usr/share/mysql")}`
  const command = [loader, "--library-path", libraries.join(":"), server] as const
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
