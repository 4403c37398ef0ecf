/**
 * The package as a user has it: packed, installed by npm into an empty project under its strict peer rules, compiled against
 * and run. Needs the npm registry.
 */
import { execFile } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { nodeFolder } from "../support/nodeReleases.js"

const repository = fileURLToPath(new URL("../../", import.meta.url))
const folder = mkdtempSync(join(tmpdir(), "effect-sql-pool-package-"))
const consumer = join(folder, "consumer")
const compilers = join(folder, "compilers")
const installed = join(consumer, "node_modules/effect-sql-pool")

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

const run = (program: string, args: ReadonlyArray<string>, cwd: string): Promise<Ran> =>
  new Promise((resolve) => {
    execFile(program, args, { cwd, maxBuffer: 1 << 26 }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }))
  })

const npm = async (cwd: string, ...args: ReadonlyArray<string>): Promise<string> => {
  const { code, err, out } = await run("npm", [...args, "--no-audit", "--no-fund"], cwd)
  if (code !== 0) throw new Error(`npm ${args.join(" ")} failed:\n${out}${err}`)
  return out
}

const sources = readdirSync(join(repository, "src"), { recursive: true, encoding: "utf8" })
  .map((file) => file.replaceAll("\\", "/"))
  .filter((file) => file.endsWith(".ts"))
const modules = sources.filter((file) => !file.includes("/") && file !== "index.ts").map((file) => file.slice(0, -3))

/** Every module by its own path and from the index, and what the docs promise of the main ones. */
const program = `import { SqlClient } from "@effect/sql"
import { Effect, Redacted } from "effect"
import * as Pool from "effect-sql-pool"
${modules.map((name) => `import * as ${name} from "effect-sql-pool/${name}"`).join("\n")}

export const same: ReadonlyArray<boolean> = [${modules.map((name) => `Pool.${name} === ${name}`).join(", ")}]

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL)")
  yield* db.transaction(db.execute("INSERT INTO users VALUES (?, ?), (?, ?)", [1, "Ada", 2, "Grace"]))
  const names: ReadonlyArray<string> = yield* db.list<string>("SELECT name FROM users WHERE id = :id", { id: 1 })
  const sql = yield* SqlClient.SqlClient
  const rows: ReadonlyArray<{ readonly name: string }> = yield* sql<{ readonly name: string }>\`
    SELECT name FROM users WHERE id = \${2}
  \`
  const { max } = yield* Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
  return { names, rows, max }
}).pipe(
  Effect.catchTag("UniqueViolation", (error) => Effect.die(error.errno)),
  Effect.provide(DbLayer.sqlite({ poolSize: 3 }))
)

// built without a server: it connects when somebody asks
const shop = Effect.flatMap(ConnectionPool.ConnectionPool, ({ config }) => Effect.succeed(config.name)).pipe(
  Effect.provide(DbLayer.mysql({ url: Redacted.make("mysql://app:secret@localhost/shop"), acquireTimeout: "3 seconds" }))
)

// What the package's types have to refuse. These are the assertions: the compiler fails on one that is not needed.
// @ts-expect-error: an option of the wrong type
DbLayer.sqlite({ poolSize: "3" })
// @ts-expect-error: nobody handles the error
export const unhandled: Effect.Effect<unknown> = Effect.flatMap(Db.Db, (db) => db.list("")).pipe(
  Effect.provide(DbLayer.sqlite())
)
// @ts-expect-error: what is internal is not in the types
export type Internal = ConnectionPool.Pool["unsafeBorrow"]

console.log(JSON.stringify(await Effect.runPromise(Effect.all({ sqlite: program, shop }))))
if (!same.every((one) => one)) throw new Error("a module is loaded twice")
`

beforeAll(async () => {
  // a clean checkout, so that neither an old dist nor a build that goes on meanwhile is packed
  const checkout = join(folder, "checkout")
  mkdirSync(checkout)
  const { files } = JSON.parse(readFileSync(join(repository, "package.json"), "utf8")) as { files: Array<string> }
  const copied = new Set([...readdirSync(repository).filter((name) => /\.(json|md)$|^LICENSE$/.test(name)), ...files])
  copied.delete("dist")
  for (const name of copied) {
    if (existsSync(join(repository, name))) cpSync(join(repository, name), join(checkout, name), { recursive: true })
  }
  symlinkSync(join(repository, "node_modules"), join(checkout, "node_modules"), "dir")
  await npm(checkout, "run", "build")
  await npm(checkout, "pack", "--ignore-scripts", "--pack-destination", folder)
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"))

  mkdirSync(join(consumer, "src"), { recursive: true })
  writeFileSync(join(consumer, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
  writeFileSync(join(consumer, "src/main.ts"), program)
  mkdirSync(compilers)
  writeFileSync(join(compilers, "package.json"), JSON.stringify({ private: true }))
  await Promise.all([
    npm(consumer, "install", "--strict-peer-deps", join(folder, tarball!), "effect@3", "@effect/sql"),
    npm(compilers, "install", "oldest@npm:typescript@5.4", "newest@npm:typescript@latest"),
    nodeFolder("20"),
    nodeFolder("22")
  ])
}, 180_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe("the tarball", () => {
  it("holds what is needed, and nothing else", () => {
    const files = readdirSync(installed, { recursive: true, encoding: "utf8", withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) =>
        join(entry.parentPath ?? entry.path, entry.name).slice(installed.length + 1).replaceAll("\\", "/")
      )
    const built = sources.flatMap((file) => {
      const name = `dist/${file.slice(0, -3)}`
      return [`src/${file}`, `${name}.js`, `${name}.js.map`, `${name}.d.ts`, `${name}.d.ts.map`]
    })
    const others = [
      "CHANGELOG.md",
      "LICENSE",
      "README.md",
      "bin/effect-sql-pool.js",
      "dashboards/grafana.json",
      "package.json"
    ]
    expect(files.sort()).toEqual([...others, ...built].sort())
  })

  it("has the source of every map", () => {
    const maps = readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" })
      .filter((file) => file.endsWith(".map"))
    const missing = maps.flatMap((file) => {
      const path = join(installed, "dist", file)
      const map = JSON.parse(readFileSync(path, "utf8")) as { sourceRoot?: string; sources: ReadonlyArray<string> }
      return map.sources
        .filter((source) => !existsSync(join(dirname(path), map.sourceRoot ?? "", source)))
        .map((source) => `${file}: ${source}`)
    })
    expect(maps.length).toBe(2 * sources.length)
    expect(missing).toEqual([])
  })
})

interface Compile {
  readonly resolution: "NodeNext" | "Bundler"
  /** Not the declarations that are loaded, only what uses them. */
  readonly skipLibCheck?: boolean
  readonly emit?: boolean
}

const compile = (compiler: string, { emit = false, resolution, skipLibCheck = false }: Compile): Promise<Ran> => {
  writeFileSync(
    join(consumer, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        target: "ES2022",
        lib: ["ES2022"],
        module: resolution === "NodeNext" ? "NodeNext" : "ESNext",
        moduleResolution: resolution,
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck,
        types: ["node"],
        rootDir: "src",
        outDir: "out",
        noEmit: !emit
      },
      include: ["src"]
    })
  )
  return run(process.execPath, [join(compiler, "bin/tsc"), "-p", ".", "--pretty", "false"], consumer)
}

const errorsIn = (out: string): ReadonlyArray<string> =>
  out.split("\n").filter((line) => /^\S.*\(\d+,\d+\): error TS\d+: /.test(line))

const repositorys = join(repository, "node_modules/typescript")
const newest = join(compilers, "node_modules/newest")
const oldest = join(compilers, "node_modules/oldest")

// every declaration that is loaded is checked once by each compiler; then only whether all is found
describe("compiles with TypeScript", () => {
  it("of this repository, declarations included", async () => {
    const { code, out } = await compile(repositorys, { resolution: "NodeNext", emit: true })
    expect({ code, out }).toEqual({ code: 0, out: "" })
  })

  it("of this repository, for a bundler", async () => {
    const { code, out } = await compile(repositorys, { resolution: "Bundler", skipLibCheck: true })
    expect({ code, out }).toEqual({ code: 0, out: "" })
  })

  it.each(["NodeNext", "Bundler"] as const)("the newest, declarations included: %s", async (resolution) => {
    const { code, out } = await compile(newest, { resolution })
    expect({ code, out }).toEqual({ code: 0, out: "" })
  })

  // those of Effect and of @types/node use types that 5.4 does not know, such as Uint8Array<ArrayBuffer>
  it("5.4, declarations of this package included", async () => {
    const { code, out } = await compile(oldest, { resolution: "NodeNext" })
    const errors = errorsIn(out)
    expect(code === 0, out).toBe(errors.length === 0)
    expect(errors.filter((line) => !/^node_modules\/(effect|@effect|@types)\//.test(line))).toEqual([])
  })

  it.each(["NodeNext", "Bundler"] as const)("5.4, with skipLibCheck: %s", async (resolution) => {
    const { code, out } = await compile(oldest, { resolution, skipLibCheck: true })
    expect({ code, out }).toEqual({ code: 0, out: "" })
  })
})

describe("installed by npm under strict peer rules", () => {
  it("has all of its peers, each once, and of Effect 3", async () => {
    const { code, err } = await run("npm", ["ls", "--all"], consumer)
    expect({ code, err: err.split("\n").filter((line) => line.includes("npm error")) }).toEqual({ code: 0, err: [] })
    const found = await run("npm", ["query", "#effect"], consumer)
    const copies = JSON.parse(found.out) as ReadonlyArray<{ readonly version: string }>
    expect(copies.map(({ version }) => version)).toEqual([expect.stringMatching(/^3\./)])
  })

  it("runs on embedded SQLite", async () => {
    const { code, err, out } = await runProgram("22")
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(JSON.parse(out)).toEqual(answer)
  })

  it("has the command", async () => {
    const { code, err, out } = await run(
      join(consumer, "node_modules/.bin/effect-sql-pool"),
      ["monitor", "--seconds", "1"],
      consumer
    )
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).toContain("[pool embedded SQLite] ")
  })

  it("runs on Node 20 by the optional binding", async () => {
    const { code, err, out } = await runProgram("20")
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(JSON.parse(out)).toEqual(answer)
  })
})

describe("installed without what is optional", () => {
  beforeAll(async () => {
    rmSync(join(consumer, "node_modules"), { recursive: true })
    await npm(consumer, "install", "--strict-peer-deps", "--omit=optional")
    expect(existsSync(join(consumer, "node_modules/@photostructure"))).toBe(false)
  }, 180_000)

  it("runs where Node has SQLite", async () => {
    const { code, err, out } = await runProgram("22")
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(JSON.parse(out)).toEqual(answer)
  })

  it("says on Node 20 what to install", async () => {
    const { code, err } = await runProgram("20")
    expect(code).not.toBe(0)
    expect(err).toContain("SQLite needs Node 22.16 or newer, or the package @photostructure/sqlite")
    expect(err).toContain("npm install @photostructure/sqlite@1")
  })
})

const answer = { sqlite: { names: ["Ada"], rows: [{ name: "Grace" }], max: 3 }, shop: "localhost:3306/shop" }

/** Runs what the repository's compiler made of the program, on a Node release of this line. */
const runProgram = async (line: string): Promise<Ran> =>
  run(join(await nodeFolder(line), "node"), ["--disable-warning=ExperimentalWarning", "out/main.js"], consumer)
