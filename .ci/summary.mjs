// Prints vitest's own counts of all runs as the last line. A file that broke before its tests could run counts as one
// failure, and so does a run that tested nothing or left no results.
import { existsSync, readFileSync } from "node:fs"

const sum = { passed: 0, failed: 0, skipped: 0 }
for (const file of process.argv.slice(2)) {
  if (!existsSync(file)) {
    sum.failed += 1
    continue
  }
  const results = JSON.parse(readFileSync(file, "utf8"))
  const broken = results.testResults.filter((file) =>
    file.status === "failed" && file.assertionResults.every((test) =>
      test.status !== "failed"
    )
  ).length
  sum.passed += results.numPassedTests
  sum.failed += results.numFailedTests + broken + (results.numPassedTests === 0 ? 1 : 0)
  sum.skipped += results.numPendingTests + results.numTodoTests
}
console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ""}`)
if (sum.failed > 0) process.exitCode = 1
