/**
 * Runs the unit tests and the heart of the integration tests on each Node release that is supported, and prints a table.
 * `npm run test:nodes`, or `npm run test:nodes -- 22 24` for some of them.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { nodeFolder, nodeReleases } from "./support/nodeReleases.js"

const repository = fileURLToPath(new URL("..", import.meta.url))
const results = join(repository, ".cache/nodes/results")

/** On embedded SQLite and on the private server: every driver, the fibers, transactions, both clients, the examples. */
const files = [
  "test/unit/",
  ...[
    "client",
    "examples",
    "fibers",
    "layers",
    "mysqlDriver",
    "queries",
    "recovery",
    "sqliteDb",
    "sqliteDriver",
    "transactions"
  ].map((name) => `test/integration/${name}.test.ts`)
]

interface Report {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
}

interface Row {
  readonly line: string
  readonly version: string
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly seconds: number
  readonly good: boolean
}

/** What the program says, or what it says while its output goes on to ours. */
const start = (program: string, args: ReadonlyArray<string>, folder: string, quiet: boolean) =>
  new Promise<{ readonly code: number | null; readonly out: string }>((resolve, reject) => {
    // what the tests start as `node` has to be this one too
    const env = { ...process.env, PATH: `${folder}${delimiter}${process.env["PATH"] ?? ""}` }
    const child = spawn(program, args, {
      cwd: repository,
      env,
      stdio: ["ignore", quiet ? "pipe" : "inherit", "inherit"]
    })
    let out = ""
    child.stdout?.on("data", (chunk) => out += String(chunk))
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, out }))
  })

const runOn = async (line: string): Promise<Row> => {
  const folder = await nodeFolder(line)
  const node = join(folder, "node")
  const version = (await start(node, ["--version"], folder, true)).out.trim()
  process.stdout.write(`\nNode ${line}: ${version}\n`)
  const file = join(results, `${line}.json`)
  rmSync(file, { force: true })
  const began = performance.now()
  const { code } = await start(
    node,
    [
      join(repository, "node_modules/vitest/vitest.mjs"),
      "run",
      "--project=unit",
      "--project=integration",
      "--reporter=dot",
      "--reporter=json",
      `--outputFile.json=${file}`,
      ...files
    ],
    folder,
    false
  )
  // a run that broke off has left no report
  const report = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) as Report : undefined
  return {
    line,
    version,
    passed: report?.numPassedTests ?? 0,
    failed: report?.numFailedTests ?? 0,
    skipped: (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0),
    seconds: Math.round((performance.now() - began) / 1000),
    good: code === 0 && report !== undefined && report.numPassedTests > 0
  }
}

const wanted = process.argv.slice(2)
const unknown = wanted.filter((line) => !nodeReleases.includes(line))
if (unknown.length > 0) {
  process.stderr.write(`Not among the supported releases ${nodeReleases.join(", ")}: ${unknown.join(", ")}\n`)
  process.exit(1)
}
mkdirSync(results, { recursive: true })
const rows: Array<Row> = []
for (const line of wanted.length > 0 ? wanted : nodeReleases) rows.push(await runOn(line))
process.stdout.write("\n")
console.table(
  Object.fromEntries(rows.map(({ good, line, ...row }) => [line, { ...row, result: good ? "good" : "BAD" }]))
)
process.exit(rows.every(({ good }) => good) ? 0 : 1)
