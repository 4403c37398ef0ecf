// Prints vitest's own count as the last line. A file that broke before its tests could run counts as one failure.
import { readFileSync } from "node:fs"

const results = JSON.parse(readFileSync(process.argv[2], "utf8"))
const broken =
  results.testResults.filter((file) =>
    file.status === "failed" && file.assertionResults.every((test) => test.status !== "failed")
  ).length
const failed = results.numFailedTests + broken
console.log(`${results.numPassedTests} passed, ${failed} failed`)
if (failed > 0 || results.numPassedTests === 0) process.exitCode = 1
