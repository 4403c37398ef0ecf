/** What the docstrings have to say, and proof that the checks of it can fail. The reference itself is built by `npm run docs`. */
import { execFile } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { stripVTControlCharacters } from "node:util"
import ts from "typescript"
import { describe, expect, it } from "vitest"

const repository = fileURLToPath(new URL("../../", import.meta.url))

interface Source {
  readonly name: string
  readonly text: string
  readonly tree: ts.SourceFile
}

const sourceOf = (name: string, text: string): Source => ({
  name,
  text,
  tree: ts.createSourceFile(`${name}.ts`, text, ts.ScriptTarget.ES2022, true)
})

const sources: ReadonlyArray<Source> = readdirSync(join(repository, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && file !== "index.ts")
  .sort()
  .map((file) =>
    sourceOf(file.replaceAll("\\", "/").replace(/\.ts$/, ""), readFileSync(join(repository, "src", file), "utf8"))
  )

const publicModules = sources.filter(({ name }) => !name.startsWith("internal/"))

// --- what is missing -------------------------------------------------------------------------------------------------

const commentBefore = (text: string, node: ts.Node): string =>
  (ts.getLeadingCommentRanges(text, node.getFullStart()) ?? [])
    .map(({ end, pos }) => text.slice(pos, end))
    .filter((comment) => comment.startsWith("/**"))
    .at(-1) ?? ""

const isExported = (node: ts.Statement): boolean =>
  ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)

const nameOf = (node: ts.Statement): string => {
  if (ts.isVariableStatement(node)) return node.declarationList.declarations.map(({ name }) => name.getText()).join()
  return (node as ts.DeclarationStatement).name?.getText() ?? node.getText().slice(0, 40)
}

interface Export {
  readonly where: string
  readonly comment: string
}

const exportsOf = ({ name, text, tree }: Source): ReadonlyArray<Export> => {
  const seen = new Set<string>()
  return tree.statements.filter(isExported).flatMap((node): ReadonlyArray<Export> => {
    const where = `${name}.${nameOf(node)}`
    // the overloads of a function are documented by the first
    if (ts.isFunctionDeclaration(node) && seen.has(where)) return []
    seen.add(where)
    return [{ where, comment: commentBefore(text, node) }]
  }).filter(({ comment }) => !comment.includes("@internal"))
}

const headerOf = ({ text }: Source): string => /^\/\*\*\n \* \S[^]*?\*\//.exec(text)?.[0] ?? ""

const sentence = /^\/\*\*\s*(\* )?[^@\s*]/
const since = /@since \d+\.\d+\.\d+/
const category = /@category [a-z]/

/** What a public module's docstrings lack, one line for each. */
const lacking = (source: Source): ReadonlyArray<string> => {
  const header = headerOf(source)
  const lacks = (where: string, comment: string, what: string, pattern: RegExp): ReadonlyArray<string> =>
    pattern.test(comment) ? [] : [`${where}: ${what}`]
  return [
    ...lacks(source.name, header, "an opening comment", sentence),
    ...lacks(source.name, header, "@module", /@module/),
    ...lacks(source.name, header, "@since", since),
    ...exportsOf(source).flatMap(({ comment, where }) => [
      ...lacks(where, comment, "a sentence", sentence),
      ...lacks(where, comment, "@since", since),
      ...lacks(where, comment, "@category", category)
    ])
  ]
}

describe("documentation", () => {
  it("opens every internal file: what it owns, and that it is internal", () => {
    const internal = sources.filter(({ name }) => name.startsWith("internal/"))
    const wrong = internal.filter((source) => !sentence.test(headerOf(source)) || !/@internal/.test(headerOf(source)))
    expect(internal.length).toBeGreaterThan(20)
    expect(wrong.map(({ name }) => name)).toEqual([])
  })

  it("is there for every public module and each of its exports: a sentence, since when, and of which category", () => {
    expect(publicModules.flatMap(exportsOf).length).toBeGreaterThan(60)
    expect(publicModules.flatMap(lacking)).toEqual([])
  })

  it("is missed where there is none", () => {
    const source = sourceOf(
      "Fixture",
      `/**
 * A module.
 *
 * @module
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"

/**
 * Fine.
 *
 * @since 0.1.0
 * @category models
 */
export interface Fine {}

export const bare = 1

/**
 * @since 0.1.0
 * @category models
 */
export type Wordless = string

/** Of no category and no time. */
export class Timeless {}

/** @internal */
export const inside = Effect.void
`
    )
    expect(lacking(source)).toEqual([
      "Fixture.bare: a sentence",
      "Fixture.bare: @since",
      "Fixture.bare: @category",
      "Fixture.Wordless: a sentence",
      "Fixture.Timeless: @since",
      "Fixture.Timeless: @category"
    ])
    expect(lacking(sourceOf("Headless", "export {}\n"))).toEqual([
      "Headless: an opening comment",
      "Headless: @module",
      "Headless: @since"
    ])
  })
})

describe("the index", () => {
  const index = sourceOf("index", readFileSync(join(repository, "src/index.ts"), "utf8"))

  it("exports every public module, and nothing else", () => {
    const exported = index.tree.statements.map((node) => node.getText()).sort()
    expect(exported).toEqual(publicModules.map(({ name }) => `export * as ${name} from "./${name}.js"`).sort())
  })
})

// --- the reference ---------------------------------------------------------------------------------------------------

interface Ran {
  readonly code: number
  readonly out: string
}

const run = (program: string, args: ReadonlyArray<string>): Promise<Ran> =>
  new Promise((resolve) => {
    execFile(process.execPath, [join(repository, program), ...args], (error, out, err) =>
      resolve({
        code: error === null ? 0 : Number(error.code),
        out: stripVTControlCharacters(out + err)
      }))
  })

describe("the reference", () => {
  it("does not build with an export or a field without docs, a type that is not exported, or a dead link", async () => {
    const folder = mkdtempSync(join(tmpdir(), "effect-sql-pool-docs-"))
    try {
      writeFileSync(
        join(folder, "Fixture.ts"),
        `/**
 * A module.
 *
 * @module
 */

interface Hidden {
  readonly a: string
}

/** Shown, see {@link Nowhere}. */
export interface Shown {
  /** Said. */
  readonly said: string
  readonly unsaid: Hidden
}

export const bare = (a: string): string => a
`
      )
      writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "fixture", version: "0.0.0" }))
      writeFileSync(
        join(folder, "tsconfig.json"),
        JSON.stringify({ compilerOptions: { module: "NodeNext", types: [] }, include: ["*.ts"] })
      )
      writeFileSync(
        join(folder, "typedoc.json"),
        JSON.stringify({
          extends: [join(repository, "typedoc.json")],
          entryPoints: ["Fixture.ts"],
          tsconfig: "tsconfig.json",
          readme: "none",
          intentionallyNotDocumented: [],
          out: "docs"
        })
      )
      const { code, out } = await run("node_modules/typedoc/bin/typedoc", ["--options", join(folder, "typedoc.json")])
      expect(code).not.toBe(0)
      const warnings = out.split("\n").filter((line) => line.startsWith("[warning]") && !line.includes("Found"))
      expect(warnings.map((line) => line.replace(/^\[warning\] /, "").replace(/ \(\w+\), defined in \S+,/, "")).sort())
        .toEqual([
          "Failed to resolve link to \"Nowhere\" in comment for Shown",
          expect.stringMatching(/^Hidden, .*is referenced by Shown.unsaid but not included in the documentation$/),
          "Shown.unsaid does not have any documentation",
          "bare does not have any documentation"
        ])
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    // it starts a compiler in a process of its own
  }, 60_000)
})

// --- the examples ----------------------------------------------------------------------------------------------------

interface Example {
  readonly name: string
  readonly code: string
}

const examplesOf = ({ name, text }: Source): ReadonlyArray<Example> =>
  [...text.matchAll(/^ *\* ```ts\n([^]*?)^ *\* ```$/gm)].map(([, code = ""], index) => ({
    name: `${name}${index + 1}.ts`,
    code: code.replaceAll(/^ *\* ?/gm, "")
  }))

/** What a strict compiler says of programs that use the package by its name. */
const diagnose = (examples: ReadonlyArray<Example>): ReadonlyArray<string> => {
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.NodeNext,
    moduleDetection: ts.ModuleDetectionKind.Force,
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    noEmit: true,
    types: ["node"],
    paths: { "effect-sql-pool": [join(repository, "src/index.ts")] }
  }
  const texts = new Map(examples.map(({ code, name }) => [join(repository, "examples", name), code]))
  const host = ts.createCompilerHost(options)
  const { fileExists, getSourceFile, readFile } = host
  host.fileExists = (file) => texts.has(file) || fileExists(file)
  host.readFile = (file) => texts.get(file) ?? readFile(file)
  host.getSourceFile = (file, ...rest) => {
    const text = texts.get(file)
    return text === undefined ? getSourceFile(file, ...rest) : ts.createSourceFile(file, text, rest[0], true)
  }
  const program = ts.createProgram([...texts.keys()], options, host)
  return [...texts.keys()].flatMap((file) => {
    const tree = program.getSourceFile(file)
    return [...program.getSyntacticDiagnostics(tree), ...program.getSemanticDiagnostics(tree)].map(
      ({ messageText }) => `${file.replace(repository, "")}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`
    )
  })
}

describe("the examples in the docs", () => {
  const examples = publicModules.flatMap(examplesOf)

  it("are there, each under its tag", () => {
    expect(examples.length).toBeGreaterThan(5)
    for (const { name, text } of publicModules) {
      expect([...text.matchAll(/```ts$/gm)].length, name).toBe([...text.matchAll(/@example\n \* ```ts$/gm)].length)
    }
  })

  it("compile, and one that is wrong does not", () => {
    const wrong = {
      name: "wrong.ts",
      code: "import { DbLayer } from \"effect-sql-pool\"\nDbLayer.sqlite({ poolSize: \"4\" })\n"
    }
    expect(diagnose([...examples, wrong])).toEqual([
      "examples/wrong.ts: Type 'string' is not assignable to type 'number'."
    ])
  }, 60_000)
})
