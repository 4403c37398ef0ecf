import { readdirSync, readFileSync } from "node:fs"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import ts from "typescript"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../../src/", import.meta.url))

/**
 * The rooms of DESIGN.md, bottom to top. A file may import from the floors below it. Files of one floor know nothing of
 * each other, except that a floor of several rooms names which of them build on which.
 */
const floors: ReadonlyArray<readonly [name: string, ...files: ReadonlyArray<string>]> = [
  ["errors", "DbError"],
  [
    "text",
    "internal/sqlText",
    "internal/linkedList",
    "internal/awaiting",
    "internal/pulled",
    "internal/sleeper",
    "internal/fiberTable"
  ],
  ["turns", "internal/turns", "internal/timers"],
  ["functions", "internal/builtinFunctions"],
  ["statements", "internal/sessionState"],
  ["contract", "Driver"],
  ["what is run", "internal/statement"],
  ["policies", "PoolConfig", "PoolStats", "Recovery", "internal/spans"],
  ["times and events", "internal/histogram", "PoolEvents"],
  ["what a monitor draws with", "internal/monitorText", "internal/monitorModel", "internal/monitorScreen"],
  ["what it draws", "internal/monitorView", "internal/monitorLine"],
  ["drawing", "internal/monitorRun"],
  ["monitor", "PoolMonitor"],
  ["words of the state", "internal/metricTable", "internal/poolModel", "internal/leaseModel"],
  ["parts of the state", "internal/slots", "internal/connector"],
  ["state", "internal/poolState"],
  ["whom a lease deals with", "internal/leaseHost"],
  ["lease", "internal/lease"],
  ["its statements", "internal/submission"],
  ["its cursors", "internal/leaseCursor"],
  ["work", "internal/maintenance", "internal/backOff", "internal/poolErrors", "internal/cursorStream"],
  ["telling", "internal/announcer"],
  ["counting", "internal/ledger", "internal/changes"],
  ["reading off, and ending", "internal/poolSnapshot", "internal/poolEnd"],
  // the public face and what is behind it know each other: the face's types are the contract that the inside keeps
  ["pool", "ConnectionPool", "internal/poolImpl"],
  ["attempts", "internal/attempts", "internal/origin", "internal/watched"],
  ["places", "internal/place", "internal/ownLeases"],
  ["what is done there", "internal/atPlace", "internal/sessions"],
  ["affinity", "FiberConnection", "PoolMetrics"],
  ["queries", "Queries", "internal/untraced"],
  ["database parts", "Transaction", "DbConnection"],
  ["database", "Db", "DbClient"],
  ["drivers", "MysqlDriver", "SqliteDriver"],
  ["layer", "DbLayer"],
  ["load", "internal/monitorLoad"],
  ["command", "internal/cli"],
  ["public", "index"]
]

/** What belongs to a driver alone stands above the policies and beside the pool: neither knows of the other. */
const drivers: Readonly<Record<string, RegExp>> = {
  MysqlDriver: /^internal\/mysql/,
  SqliteDriver: /^internal\/sqlite/
}

interface Import {
  readonly from: string
  /** A file of src without its ending, or a package. */
  readonly to: string
  readonly local: boolean
  readonly typeOnly: boolean
  /** By `import()`: not before it is needed. */
  readonly lazy: boolean
}

interface Source {
  readonly name: string
  readonly text: string
  readonly tree: ts.SourceFile
  readonly imports: ReadonlyArray<Import>
}

const isTypeOnly = (node: ts.ImportDeclaration | ts.ExportDeclaration): boolean => {
  if (ts.isExportDeclaration(node)) return node.isTypeOnly
  const clause = node.importClause
  if (clause === undefined) return false
  if (clause.isTypeOnly) return true
  const bindings = clause.namedBindings
  return clause.name === undefined && bindings !== undefined && ts.isNamedImports(bindings) &&
    bindings.elements.length > 0 && bindings.elements.every((element) => element.isTypeOnly)
}

const importsOf = (name: string, tree: ts.SourceFile): ReadonlyArray<Import> => {
  const found: Array<Import> = []
  const add = (specifier: string, typeOnly: boolean, lazy = false): void => {
    const local = specifier.startsWith(".")
    const to = local ? relative(root, join(root, name, "..", specifier)).replace(/\.js$/, "") : specifier
    found.push({ from: name, to, local, typeOnly, lazy })
  }
  const visit = (node: ts.Node): void => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      add((node.moduleSpecifier as ts.StringLiteral).text, isTypeOnly(node))
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add((node.argument.literal as ts.StringLiteral).text, true)
    } else if (ts.isCallExpression(node)) {
      // import("x"), require("x") and process.getBuiltinModule("x")
      const [argument] = node.arguments
      const callee = node.expression
      const loads = callee.kind === ts.SyntaxKind.ImportKeyword ||
        (ts.isIdentifier(callee) && callee.text === "require") ||
        (ts.isPropertyAccessExpression(callee) && callee.name.text === "getBuiltinModule")
      if (loads && argument !== undefined && ts.isStringLiteralLike(argument)) add(argument.text, false, true)
    }
    ts.forEachChild(node, visit)
  }
  visit(tree)
  return found
}

const sources: ReadonlyArray<Source> = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .sort()
  .map((file) => {
    const name = file.replaceAll("\\", "/").replace(/\.ts$/, "")
    const text = readFileSync(join(root, file), "utf8")
    const tree = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true)
    return { name, text, tree, imports: importsOf(name, tree) }
  })

const all = sources.flatMap(({ imports }) => imports)
const names = sources.map(({ name }) => name)

const driverOf = (file: string): string | undefined =>
  Object.entries(drivers).find(([name, own]) => name === file || own.test(file))?.[0]
const floorOf = (file: string): number => floors.findIndex(([, ...files]) => files.includes(driverOf(file) ?? file))
const show = ({ from, to, typeOnly }: Import): string => `${from} -> ${to}${typeOnly ? " (types)" : ""}`

const importersOf = (matches: (to: string) => boolean): ReadonlyArray<string> =>
  [...new Set(all.filter(({ local, to }) => !local && matches(to)).map(({ from }) => from))].sort()

/** `import { FiberRef } from "effect"` is `effect/FiberRef` just as well. */
const usesModule = (source: Source, module: string): boolean =>
  source.imports.some(({ to }) => to === `effect/${module}`) ||
  new RegExp(`import[^;]*?\\b${module}\\b[^;]*?from "effect"`).test(source.text)

describe("the rooms", () => {
  it("have a place for every file, and no place is empty", () => {
    const placed = floors.flatMap(([, ...files]) => files)
    expect(names.filter((name) => floorOf(name) < 0)).toEqual([])
    expect(placed.filter((name) => !names.includes(name))).toEqual([])
    expect(new Set(placed).size).toBe(placed.length)
  })

  it("import only files that are there", () => {
    expect(all.filter(({ local, to }) => local && !names.includes(to)).map(show)).toEqual([])
  })

  it("have arrows that point down only", () => {
    const wrong = all.filter(({ from, local, to }) => {
      if (!local) return false
      const [high, low] = [floorOf(from), floorOf(to)]
      const sameRoom = high === low && (driverOf(from) !== undefined ? driverOf(from) === driverOf(to) : true)
      return high < low || (high === low && !sameRoom)
    })
    expect(wrong.map(show)).toEqual([])
  })

  it("on one floor know nothing of each other, but for the two faces of the pool and the parts of a driver", () => {
    const between = all.filter(({ from, local, to }) =>
      local && driverOf(from) === undefined && floorOf(from) === floorOf(to)
    )
    expect([...new Set(between.map(({ from, to }) => [from, to].sort().join(" & ")))]).toEqual([
      "ConnectionPool & internal/poolImpl"
    ])
    // and the inside only the types, so that nothing has to be loaded before itself
    expect(between.filter(({ from, typeOnly }) => from === "internal/poolImpl" && !typeOnly)).toEqual([])
  })

  it("know a driver's parts only through the driver, and the drivers only in the layer", () => {
    const outside = all.filter(({ from, local, to }) =>
      local && driverOf(to) !== undefined && driverOf(from) !== driverOf(to)
    )
    expect(outside.map(({ from, to }) => `${from} -> ${to}`).sort()).toEqual([
      "DbLayer -> MysqlDriver",
      "DbLayer -> SqliteDriver",
      "index -> MysqlDriver",
      "index -> SqliteDriver"
    ])
  })

  it("let a driver know nothing of the pool: the contract, the options and the errors are all it needs", () => {
    const allowed = ["DbError", "Driver", "PoolConfig", "internal/sessionState", "internal/sqlText"]
    const wrong = all.filter(({ from, local, to }) =>
      local && driverOf(from) !== undefined && driverOf(to) === undefined && !allowed.includes(to)
    )
    expect(wrong.map(show)).toEqual([])
  })

  it("load without a circle", () => {
    const edges = new Map(sources.map(({ imports, name }) => [
      name,
      imports.filter(({ local, typeOnly }) => local && !typeOnly).map(({ to }) => to)
    ]))
    const circles: Array<string> = []
    const done = new Set<string>()
    const walk = (name: string, path: ReadonlyArray<string>): void => {
      if (path.includes(name)) {
        circles.push([...path.slice(path.indexOf(name)), name].join(" -> "))
        return
      }
      if (done.has(name)) return
      for (const next of edges.get(name) ?? []) walk(next, [...path, name])
      done.add(name)
    }
    for (const name of names) walk(name, [])
    expect(circles).toEqual([])
  })

  it("end every import of a file in .js", () => {
    const endings = sources.flatMap(({ name, text }) =>
      [...text.matchAll(/from "(\.[^"]*)"/g)].map((match) => `${name}: ${match[1]}`)
    )
    expect(endings.length).toBeGreaterThan(50)
    expect(endings.filter((specifier) => !specifier.endsWith(".js"))).toEqual([])
  })
})

describe("only one file knows", () => {
  it("mysql2", () => {
    expect(importersOf((to) => /^mysql2(\/|$)/.test(to))).toEqual(["MysqlDriver"])
  })

  it("a SQLite binding", () => {
    expect(importersOf((to) => /^node:sqlite$|sqlite(3)?$|libsql/.test(to))).toEqual(["SqliteDriver"])
    // both bindings, found by the ways in which it loads them
    const bindings = all.filter(({ from, local }) => from === "SqliteDriver" && !local).map(({ to }) => to)
    expect(bindings).toEqual(expect.arrayContaining(["node:sqlite", "@photostructure/sqlite"]))
  })

  it("what draws in a terminal: the monitor, and nothing of it is loaded before one runs", () => {
    const drawing = /^(log-update|cli-truncate|string-width|picocolors|signal-exit)$/
    expect(importersOf((to) => drawing.test(to))).toEqual([
      "internal/monitorScreen",
      "internal/monitorText",
      "internal/monitorView"
    ])
    const loaded = new Set(["index"])
    for (const name of loaded) {
      for (const { from, lazy, to, typeOnly } of all) if (from === name && !lazy && !typeOnly) loaded.add(to)
    }
    expect(loaded).toContain("PoolMonitor")
    expect([...loaded].filter((name) => drawing.test(name) || name.startsWith("internal/monitor"))).toEqual([])
  })

  it("FiberRef", () => {
    expect(sources.filter((source) => usesModule(source, "FiberRef")).map(({ name }) => name)).toEqual([
      "internal/place"
    ])
  })

  it("the observers of fibers that borrow", () => {
    const observers = sources.filter(({ name, text }) => driverOf(name) === undefined && text.includes(".addObserver("))
    // maintenance watches a fiber that it has started itself, and so may a driver
    expect(observers.map(({ name }) => name)).toEqual(["internal/maintenance", "internal/ownLeases"])
  })

  it("SqlClient, and the ecosystem's other packages; of @effect/sql's statements the queries know besides", () => {
    expect(importersOf((to) => to.startsWith("@effect/sql") && to !== "@effect/sql/Statement")).toEqual([
      "DbClient",
      "internal/untraced"
    ])
    expect(importersOf((to) => to === "@effect/sql/Statement")).toEqual(["DbClient", "Queries", "internal/untraced"])
    // the layers give the client the Reactivity it asks for
    expect(importersOf((to) => to.startsWith("@effect/") && !to.startsWith("@effect/sql"))).toEqual([
      "DbClient",
      "DbLayer"
    ])
  })
})

describe("without Effect's runtime and without I/O", () => {
  const pure = [
    "internal/poolState",
    "internal/poolModel",
    "internal/slots",
    "internal/connector",
    "internal/histogram",
    "internal/monitorModel",
    "internal/linkedList",
    "internal/sqlText",
    "internal/builtinFunctions",
    "internal/sessionState",
    "internal/mysqlErrors",
    "internal/mysqlParameters",
    "internal/mysqlRows",
    "internal/mysqlSession"
  ]

  it.each(pure)("%s", (name) => {
    const source = sources.find((each) => each.name === name)
    expect(source).toBeDefined()
    const reached = new Set<string>()
    const walk = (from: string): void => {
      for (const { local, to, typeOnly } of sources.find((each) => each.name === from)?.imports ?? []) {
        if (typeOnly || reached.has(to)) continue
        reached.add(to)
        if (local) walk(to)
      }
    }
    walk(name)
    const packages = [...reached].filter((to) => !names.includes(to))
    // the errors are classes of effect/Data, and nothing else of Effect is loaded
    expect(packages.filter((to) => to !== "effect/Data")).toEqual([])
    expect(source?.imports.filter(({ local, to }) => !local && /Effect$|Runtime|Fiber|^node:/.test(to))).toEqual([])
  })
})

describe("packages", () => {
  it("are the declared ones, and Node's own by the prefix node:", () => {
    const known = new RegExp([
      "^effect/",
      "^@effect/(sql|sql-mysql2|experimental)/",
      "^mysql2$",
      "^@photostructure/sqlite$",
      "^(log-update|cli-truncate|string-width|picocolors|signal-exit)$",
      "^node:"
    ].join("|"))
    expect(all.filter(({ local, to }) => !local && !known.test(to)).map(show)).toEqual([])
  })

  it("of Effect are imported by module, so that a bundle holds what is used", () => {
    expect(all.filter(({ to }) => to === "effect" || to === "@effect/sql").map(show)).toEqual([])
  })
})
