// Outlives the process that started a test server, by a moment: when that process is gone, however it ended, its end
// of our stdin closes, and the server and its folder go too. Plain JavaScript, since Node 20 runs no TypeScript.
import { existsSync, rmSync } from "node:fs"
import { createInterface } from "node:readline"

const folder = process.argv[2]
let group = 0

createInterface({ input: process.stdin })
  .on("line", (line) => {
    group = Number(line)
  })
  .on("close", () => {
    // An orderly stop has removed the folder already; then the number may belong to somebody else by now.
    if (!existsSync(folder)) return
    try {
      if (group > 0) process.kill(-group, "SIGKILL")
    } catch {
      // It has ended by itself, and the folder is all that is left.
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  })
