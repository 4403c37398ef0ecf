/** `npm run bench`: this library beside what a user would pick instead, on a private server that ends with the run. */
import { createConnection } from "mysql2/promise"
import { writeFileSync } from "node:fs"
import { startServer } from "../test/support/privateServer.js"
import { tables } from "./clients/operations.js"
import { goalTable, markdown } from "./markdown.js"
import type { Target } from "./model.js"
import { type Options, parse, usage } from "./options.js"
import { plot } from "./plot.js"
import { conclude, type Outcome, summary, table } from "./report.js"
import { runWork } from "./runner.js"

const log = (text: string): void => console.log(text)

const write = (file: string | undefined, content: () => string): void => {
  if (file !== undefined) writeFileSync(file, content())
}

const bench = async ({ rounds, ...options }: Options): Promise<void> => {
  const server = await startServer({
    flavour: options.mysql ? "mysql" : "mariadb",
    settings: ["--max-connections=1000", "--innodb-buffer-pool-size=256M"]
  })
  try {
    const { database, host, password, port, user } = server
    const target: Target = { host, port, user, password, database }
    const admin = await createConnection({ ...target })
    for (const text of tables) await admin.query(text)
    await admin.end()
    const versions = `Node ${process.versions.node}, ${server.flavour} ${server.version}`
    const heading = `${versions}; medians of ${rounds} interleaved rounds, with quartiles`
    log(heading)
    const outcomes: Array<Outcome> = []
    for (const work of options.works) {
      const outcome = conclude(work, await runWork(work, target, rounds))
      outcomes.push(outcome)
      log(`\n${table(outcome)}`)
      // after each, lest one that fails takes what the others have measured with it
      write(options.json, () => JSON.stringify({ versions, outcomes }, undefined, 1))
      write(options.plot, () => plot(outcomes, versions))
      write(options.markdown, () => markdown(heading, outcomes))
    }
    log(`\n${goalTable(outcomes)}\n\n${summary(outcomes)}`)
  } finally {
    await server.stop()
  }
}

/** One line for what the command line has wrong; what goes wrong later keeps its trace. */
const readOptions = (): Options | undefined => {
  try {
    return parse(process.argv.slice(2))
  } catch (error) {
    console.error(error instanceof Error ? error.message.split("\n")[0] : error)
    process.exitCode = 2
    return undefined
  }
}

const options = readOptions()
if (options?.help === true) log(usage)
else if (options !== undefined) await bench(options)
