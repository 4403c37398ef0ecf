// Prints each failure of all runs, then vitest's own counts as the last line. A file that broke before its tests could
// run counts as one failure, and so does a run that tested nothing or left no results.
import { existsSync, readFileSync } from "node:fs"

const sum = { passed: 0, failed: 0, skipped: 0 }

const fail = (what, message) => {
  sum.failed += 1
  console.log(`FAILED ${what}\n${message.replace(/^/gm, "  ")}\n`)
}

for (const run of process.argv.slice(2)) {
  if (!existsSync(run)) {
    fail(run, "this run left no results")
    continue
  }
  const results = JSON.parse(readFileSync(run, "utf8"))
  for (const file of results.testResults) {
    const failures = file.assertionResults.filter((test) => test.status === "failed")
    for (const test of failures) fail(`${file.name} > ${test.fullName}`, test.failureMessages.join("\n"))
    if (file.status === "failed" && failures.length === 0) fail(file.name, file.message)
  }
  if (results.numPassedTests === 0) fail(run, "this run tested nothing")
  sum.passed += results.numPassedTests
  sum.skipped += results.numPendingTests + results.numTodoTests
}
console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ""}`)
if (sum.failed > 0) process.exitCode = 1
