/**
 * Whether this machine has MySQL 9 or can get it, for a run that goes on without: ends with 75 when it cannot be had,
 * after one line that says why.
 */
import { mysqlProgram, MysqlUnavailable } from "./mysqlServer.js"

try {
  mysqlProgram()
} catch (error) {
  if (!(error instanceof MysqlUnavailable)) throw error
  console.log(`no tests on MySQL: ${error.message}`)
  process.exitCode = 75
}
