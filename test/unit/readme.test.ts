import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"

const read = (path: string): string => readFileSync(fileURLToPath(new URL(`../../${path}`, import.meta.url)), "utf8")

/** The code blocks of the README, each with what the comment above it says where the code is from. */
const blocks = [...read("README.md").matchAll(/(?:<!-- (\S+?)(?:#(\S+))? -->\n)?```ts\n([\s\S]*?)```/g)].map(
  ([, file, region, code = ""]) => ({ file, region, code })
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

describe("the README", () => {
  it("has code blocks", () => {
    expect(blocks.length).toBeGreaterThan(5)
  })

  it.each(blocks)("shows $file $region as it is", ({ code, file, region }) => {
    expect(file, `a block without its source:\n${code}`).toMatch(/^examples\/[\w-]+\.ts$/)
    expect(code).toBe(sourceOf(file!, region))
  })

  it("shows every region that the examples mark", () => {
    const marked = readdirSync(fileURLToPath(new URL("../../examples", import.meta.url)))
      .filter((name) => name.endsWith(".ts"))
      .flatMap((name) =>
        [...read(`examples/${name}`).matchAll(/\/\/ #region (\S+)/g)].map(([, region]) => `examples/${name}#${region}`)
      )
    expect(blocks.filter(({ region }) => region !== undefined).map(({ file, region }) => `${file}#${region}`).sort())
      .toEqual(marked.sort())
  })
})
