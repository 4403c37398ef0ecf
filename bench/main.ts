/**
 * `npm run bench`: this library beside what a user would pick instead, on a private server that ends with the run.
 *
 * `--mysql` takes MySQL instead of MariaDB, `--only NAME` (repeatable) some works, `--rounds N` how often each is measured,
 * `--json FILE` writes every sample, `--plot FILE` an SVG.
 */
import { createConnection } from "mysql2/promise"
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { startServer } from "../test/support/privateServer.js"
import { tables } from "./clients/operations.js"
import type { Target } from "./model.js"
import { plot } from "./plot.js"
import { conclude, type Outcome, summary, table } from "./report.js"
import { runWork } from "./runner.js"
import { findWork, works } from "./works/index.js"

const { values } = parseArgs({
  options: {
    mysql: { type: "boolean", default: false },
    only: { type: "string", multiple: true, default: [] },
    rounds: { type: "string", default: "9" },
    json: { type: "string" },
    plot: { type: "string" }
  }
})

const chosen = values.only.length === 0 ? works : values.only.map(findWork)
const rounds = Number(values.rounds)
const log = (text: string): void => console.log(text)

const server = await startServer({
  flavour: values.mysql ? "mysql" : "mariadb",
  settings: ["--max-connections=1000", "--innodb-buffer-pool-size=256M"]
})
try {
  const { database, host, password, port, user } = server
  const target: Target = { host, port, user, password, database }
  const admin = await createConnection({ ...target })
  for (const text of tables) await admin.query(text)
  await admin.end()
  const versions = `Node ${process.versions.node}, ${server.flavour} ${server.version}`
  log(`${versions}; medians of ${rounds} interleaved rounds, with quartiles`)
  const outcomes: Array<Outcome> = []
  for (const work of chosen) {
    const outcome = conclude(work, await runWork(work, target, rounds))
    outcomes.push(outcome)
    log(`\n${table(outcome)}`)
    // after each, lest one that fails takes what the others have measured with it
    if (values.json !== undefined) writeFileSync(values.json, JSON.stringify({ versions, outcomes }, undefined, 1))
    if (values.plot !== undefined) writeFileSync(values.plot, plot(outcomes, versions))
  }
  log(`\n${summary(outcomes)}`)
} finally {
  await server.stop()
}
