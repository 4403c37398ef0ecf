/** The README and the pages beside it say what the code does: their programs, links, options and errors are compared with it. */
import { Duration, Effect, Option } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import ts from "typescript"
import { describe, expect, it } from "vitest"
import { levels } from "../../src/internal/announcer.js"
import { duration, numbers, times } from "../../src/internal/metricTable.js"
import { resolve } from "../../src/internal/mysqlOptions.js"
import { settingsOf } from "../../src/internal/sqliteOptions.js"
import * as PoolConfig from "../../src/PoolConfig.js"
import * as PoolStats from "../../src/PoolStats.js"

const root = fileURLToPath(new URL("../../", import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), "utf8")
const filesOf = (folder: string, ending: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder)).filter((name) => name.endsWith(ending)).map((name) => `${folder}/${name}`)

const pages = ["README.md", ...filesOf("docs", ".md")]

/** The code blocks of the pages, each with what the comment above it says where the code is from. */
const blocks = pages.flatMap((page) =>
  [...read(page).matchAll(/(?:<!-- (\S+?)(?:#(\S+))? -->\n)?```ts\n([\s\S]*?)```/g)].map(
    ([, file, region, code = ""]) => ({ page, file, region, code })
  )
)

/** Takes away what all lines are indented by. */
const outdented = (text: string): string => {
  const lines = text.split("\n")
  const indent = Math.min(...lines.filter((line) => line !== "").map((line) => line.search(/\S/)))
  return lines.map((line) => line.slice(indent)).join("\n")
}

const regionOf = (text: string, name: string): string | undefined => {
  const found = new RegExp(`^ *// #region ${name}\\n([\\s\\S]*?)^ *// #endregion$`, "m").exec(text)?.[1]
  return found === undefined ? undefined : outdented(found)
}

/** What a user writes has the package's name where an example, which runs on the sources, has their place. */
const sourceOf = (file: string, region: string | undefined): string | undefined => {
  const text = read(file).replaceAll("\"../src/index.js\"", "\"effect-sql-pool\"")
  return region === undefined ? text : regionOf(text, region)
}

describe("the code on the pages", () => {
  it("is on the README and beside it", () => {
    expect(blocks.filter(({ page }) => page === "README.md").length).toBeGreaterThan(3)
    expect(blocks.filter(({ page }) => page !== "README.md").length).toBeGreaterThan(5)
  })

  it.each(blocks)("of $page is $file $region as it is", ({ code, file, region }) => {
    expect(file, `a block without its source:\n${code}`).toMatch(/^examples\/[\w-]+\.ts$/)
    expect(code).toBe(sourceOf(file!, region))
  })

  it("has every region that the examples mark", () => {
    const marked = filesOf("examples", ".ts").flatMap((file) =>
      [...read(file).matchAll(/\/\/ #region (\S+)/g)].map(([, region]) => `${file}#${region}`)
    )
    const shown = blocks.filter(({ region }) => region !== undefined).map(({ file, region }) => `${file}#${region}`)
    expect([...new Set(shown)].sort()).toEqual(marked.sort())
  })
})

describe("the README", () => {
  it("is read in three minutes: at most 950 words besides code and tables", () => {
    const prose = read("README.md").replace(/```[\s\S]*?```/g, "").replace(/^\|.*$/gm, "").replace(/<!--.*?-->/g, "")
    expect(prose.split(/\s+/).filter((word) => /\w/.test(word)).length).toBeLessThanOrEqual(950)
  })

  it("names every example", () => {
    const text = read("README.md")
    for (const file of filesOf("examples", ".ts")) expect(text).toContain(`](${file})`)
  })
})

describe("the links", () => {
  /** What a heading is called in a link, as the common Markdown renderers do it. */
  const anchorsOf = (page: string): ReadonlyArray<string> =>
    [...read(page).replace(/```[\s\S]*?```/g, "").matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
      heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-")
    )

  const links = pages.flatMap((page) =>
    [...read(page).replace(/```[\s\S]*?```/g, "").matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => ({ page, link }))
  ).filter(({ link }) => !/^https?:/.test(link))

  it.each(links)("of $page lead to $link", ({ link, page }) => {
    const [path = "", anchor] = link.split("#")
    const target = path === "" ? page : join(dirname(page), path)
    expect(existsSync(join(root, target)), target).toBe(true)
    if (anchor !== undefined) expect(anchorsOf(target)).toContain(anchor)
  })
})

/** The rows of the tables under the heading, as cells. */
const rowsUnder = (page: string, heading: string): ReadonlyArray<ReadonlyArray<string>> => {
  const text = read(page).split(/^#+ /m).find((part) => part.startsWith(`${heading}\n`)) ?? ""
  return text.split("\n").filter((line) => line.startsWith("| ")).slice(2)
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
}

const unquoted = (cell = ""): string => cell.replaceAll("`", "")

const nameOf = (member: ts.TypeElement): string => (member.name as ts.Identifier).text

const treeOf = (file: string): ts.SourceFile => ts.createSourceFile(file, read(file), ts.ScriptTarget.Latest)

/** The names of what the options, or the fields, of that interface are. */
const optionsOf = (file: string, name: string): Array<string> => {
  const found = treeOf(file).statements.find((node) => ts.isInterfaceDeclaration(node) && node.name.text === name)
  return (found as ts.InterfaceDeclaration).members.map(nameOf)
}

/** What a default is called on the page, as the value that the code gives: a number of milliseconds for a duration. */
const valueOf = (cell: string): unknown => {
  const duration = /^\d+ (milliseconds?|seconds?|minutes?)$/.test(cell)
    ? Duration.decodeUnknown(cell.replace("milliseconds", "millis"))
    : Option.none()
  if (Option.isSome(duration)) return Duration.toMillis(duration.value)
  if (cell === "no limit" || cell === "never") return Infinity
  if (cell === "none") return undefined
  if (/^\d+$/.test(cell)) return Number(cell)
  if (cell === "true" || cell === "false") return cell === "true"
  return cell.replace(/^"(.*)"$/, "$1")
}

describe.each([
  ["Of every pool", "src/PoolConfig.ts", "PoolOptions"],
  ["Of `DbLayer.mysql`", "src/PoolConfig.ts", "MysqlOptions"],
  ["Of `DbLayer.sqlite`", "src/PoolConfig.ts", "SqliteOptions"],
  ["Of the `SqlClient`", "src/DbClient.ts", "ClientOptions"]
])("the options: %s", (heading, file, name) => {
  it("are all there, and no others", () => {
    const told = rowsUnder("docs/options.md", heading).map(([option]) => unquoted(option))
    expect(told.sort()).toEqual(optionsOf(file, name).sort())
  })
})

describe("the defaults", () => {
  const toldOf = (heading: string): Readonly<Record<string, unknown>> =>
    Object.fromEntries(
      rowsUnder("docs/options.md", heading).map(([name, value]) => [unquoted(name), valueOf(unquoted(value))])
    )

  it("of every pool are those of the code", () => {
    const { name: _, ...found } = Effect.runSync(PoolConfig.make({}, { name: "" }))
    const { name: __, ...told } = toldOf("Of every pool")
    // the schedules are values, which have no name at run time
    expect(told).toEqual({ ...found, recovery: "Recovery.schedule", connectSchedule: "Recovery.connectSchedule" })
    expect({ recovery: found.recovery, connectSchedule: found.connectSchedule })
      .toEqual({ recovery: undefined, connectSchedule: undefined })
  })

  it("of MySQL are those of the code", () => {
    const found = Effect.runSync(resolve({}))
    const told = toldOf("Of `DbLayer.mysql`")
    for (const name of ["host", "port", "socketPath", "database", "tls", "timeZone", "preparedStatements"] as const) {
      expect([name, told[name]]).toEqual([name, found[name]])
    }
    expect(told["cancelQueries"]).toBe(found.cancelQueries)
    expect(told["severalStatements"]).toBe(found.severalStatements)
    expect(found.setup.join()).toContain(`COLLATE '${told["collation"]}'`)
    expect(found.setup.join()).not.toContain("ISOLATION")
    expect(told["isolation"]).toBe("the server's")
    expect([told["initialSql"], found.initialSql]).toEqual([undefined, []])
  })

  it("of SQLite are those of the code", () => {
    const found = Option.getOrThrow(Option.getRight(settingsOf({})))
    const told = toldOf("Of `DbLayer.sqlite`")
    expect({ busyTimeout: told["busyTimeout"], readOnly: told["readOnly"] })
      .toEqual({ busyTimeout: found.busyTimeout, readOnly: found.readOnly })
    expect(found.place).toEqual({ kind: "temporary" })
  })

  it("of a transaction are all told", () => {
    const told = [...read("docs/transactions.md").matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name)
    expect(told.sort()).toEqual(optionsOf("src/Transaction.ts", "TransactionOptions").sort())
  })

  it("of the environment are read from variables that are all told", () => {
    const known = [...read("src/PoolConfig.ts").matchAll(/\$\{prefix\}(_[A-Z_]+)/g)].map(([, name]) => name!)
    const told = rowsUnder("docs/options.md", "From the environment").flatMap(([names = ""]) =>
      [...names.matchAll(/`DB_PRIMARY(_[A-Z_]+)`/g)].map(([, name]) => name!)
    )
    expect(told.sort()).toEqual([...new Set(known)].sort())
  })
})

describe("the errors", () => {
  const rows = rowsUnder("docs/errors.md", "Errors")
  /** Every tagged class, with what it says of a later try. */
  const classes = read("src/DbError.ts").split("\nexport class ").slice(1).map((text) => ({
    tag: /TaggedError\("(\w+)"\)/.exec(text)?.[1],
    later: /readonly isRetryable = (true|false)\n/.exec(text)?.[1]
  }))

  it("are all there, and no others", () => {
    expect(classes.length).toBeGreaterThan(20)
    expect(rows.map(([tag]) => unquoted(tag)).sort()).toEqual(classes.map(({ tag }) => tag).sort())
  })

  it.each(classes)("$tag has what to do, and whether to try it later", ({ later, tag }) => {
    const row = rows.find(([name]) => unquoted(name) === tag) ?? []
    expect(row.map((cell) => cell.length > 0)).toEqual([true, true, true, true])
    const told = { yes: "true", no: "false" }[row[1] ?? ""]
    expect(told).toBe(later)
  })
})

/** Of a pool that has done nothing: what the metrics read. */
const nothing = {
  ...PoolStats.makeCounters(),
  closedBy: PoolStats.makeClosedBy()
} as PoolStats.PoolSnapshot

describe("what can be watched", () => {
  const page = "docs/observability.md"
  const toldUnder = (...headings: ReadonlyArray<string>): ReadonlyArray<string> =>
    headings.flatMap((heading) => rowsUnder(page, heading).map(([name]) => unquoted(name)))

  it.each([
    {
      what: "of a snapshot",
      headings: ["Of now", "Counted", "Times"],
      fields: [
        ...optionsOf("src/PoolStats.ts", "PoolSnapshot"),
        ...optionsOf("src/PoolStats.ts", "PoolCounters"),
        ...optionsOf("src/DbError.ts", "PoolCounts")
      ]
    },
    { what: "of a histogram", headings: ["A histogram"], fields: optionsOf("src/PoolStats.ts", "Histogram") },
    { what: "of a holder", headings: ["Holders"], fields: optionsOf("src/PoolStats.ts", "Holder") }
  ])("every field $what is told, with its unit", ({ fields, headings }) => {
    expect([...toldUnder(...headings)].sort()).toEqual(fields.sort())
    const rows = headings.flatMap((heading) => rowsUnder(page, heading))
    expect(rows.filter(([, unit, meaning]) => unit === "" || meaning === "")).toEqual([])
  })

  it("names first the counters that are the ways in which a borrow ends", () => {
    const acquisitions = numbers.find(({ name }) => name === "effect_sql_pool.acquisitions")!
    // each of them reads one counter
    const counted = Object.entries(PoolStats.makeCounters()).filter(([name]) =>
      Object.values(acquisitions.read({ ...nothing, [name]: 1 })).includes(1)
    )
    expect(toldUnder("Counted").slice(0, counted.length)).toEqual(counted.map(([name]) => name))
    expect(counted.length).toBe(7)
  })

  it("says what each part of PoolStats is", () => {
    for (const name of optionsOf("src/PoolStats.ts", "PoolStatsService")) {
      expect(read(page)).toMatch(new RegExp("^`" + name + "[`(]", "m"))
    }
  })

  it("has every reason to close a connection", () => {
    expect([...toldUnder("Why a connection is closed")].sort()).toEqual(Object.keys(PoolStats.makeClosedBy()).sort())
  })

  it("has every event with its level and its fields", () => {
    const { type } = treeOf("src/PoolEvents.ts").statements.find(
      (node): node is ts.TypeAliasDeclaration => ts.isTypeAliasDeclaration(node) && node.name.text === "PoolEvent"
    )!
    const tags = (type as ts.UnionTypeNode).types.map((each) =>
      ((each as ts.TypeReferenceNode).typeName as ts.Identifier).text
    )
    const events = tags.map((tag) => ({
      tag,
      fields: optionsOf("src/PoolEvents.ts", tag).filter((name) => name !== "_tag")
    }))
    const told = rowsUnder(page, "Events").map(([tag, level, , fields = ""]) => ({
      tag: unquoted(tag),
      level,
      fields: unquoted(fields).split(", ")
    }))
    expect(told).toEqual(events.map(({ fields, tag }) => ({ tag, level: levels[tag as keyof typeof levels], fields })))
  })

  const types = { counter: "Counter", upDown: "UpDownCounter", gauge: "Gauge" }
  const metrics = [
    ...numbers.map(({ by, name, read, type, unit }) => ({
      name,
      type: types[type],
      unit,
      attributes: by === undefined ? [] : [by, ...Object.keys(read(nothing))]
    })),
    ...times.map(({ name, unit }) => ({ name, type: "Histogram", unit, attributes: [] }))
  ]

  it("has every metric with its type, its unit and its attributes", () => {
    const told = ["Of the conventions", "Beyond the conventions"].flatMap((heading) => rowsUnder(page, heading)).map(
      ([name, type, unit, attributes = ""]) => ({
        name: unquoted(name),
        type,
        unit: unquoted(unit),
        attributes: [...attributes.matchAll(/`([^`]+)`/g)].map(([, each]) => each!)
      })
    )
    const byName = (one: { readonly name: string }, other: { readonly name: string }) => one.name < other.name ? -1 : 1
    // whose attributes are those of the database and of the error
    expect(told.filter(({ name }) => name === duration.name)).toMatchObject([{
      type: "Histogram",
      unit: duration.unit
    }])
    expect(told.filter(({ name }) => name !== duration.name).sort(byName)).toEqual(metrics.sort(byName))
  })

  it("has every option of the monitor", () => {
    const options = rowsUnder(page, "The monitor").map(([name]) => unquoted(name))
    expect(options).toEqual(expect.arrayContaining(optionsOf("src/PoolMonitor.ts", "MonitorOptions")))
  })
})
