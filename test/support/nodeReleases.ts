/** Node's releases as npm's package `node` brings them, kept in `.cache/nodes`: the newest of each line when it was first asked for. */
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const run = promisify(execFile)
const cache = fileURLToPath(new URL("../../.cache/nodes", import.meta.url))

/** The lines that `engines` of package.json promises. */
export const nodeReleases: ReadonlyArray<string> = ["20", "22", "24", "26"]

/** The folder that holds the program `node` of a line; fetched from the npm registry unless it is there already. */
export const nodeFolder = async (line: string): Promise<string> => {
  const home = join(cache, line)
  const folder = join(home, "node_modules", "node", "bin")
  if (!existsSync(join(folder, "node"))) {
    mkdirSync(home, { recursive: true })
    // its install script puts the program for this machine in its place
    writeFileSync(join(home, "package.json"), JSON.stringify({ private: true, allowScripts: { node: true } }))
    await run("npm", ["install", "--no-audit", "--no-fund", `node@${line}`], { cwd: home })
  }
  return folder
}
