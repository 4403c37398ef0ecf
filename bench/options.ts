/** What the command line says. */
import { parseArgs } from "node:util"
import type { Work } from "./model.js"
import { findWork, works } from "./works/index.js"

export const usage = `npm run bench -- [options]

  --mysql          MySQL instead of MariaDB
  --only NAME      this work only; may be given again for others
  --rounds N       how often each work is measured (7)
  --json FILE      writes every sample
  --plot FILE      writes an SVG
  --markdown FILE  writes the goals and the figures as docs/benchmarks.md has them
  --help           this text

works: ${works.map(({ name }) => name).join(", ")}`

export interface Options {
  readonly help: boolean
  readonly mysql: boolean
  readonly works: ReadonlyArray<Work>
  readonly rounds: number
  readonly json: string | undefined
  readonly plot: string | undefined
  readonly markdown: string | undefined
}

/** Throws an error of one line for what it does not know. */
export const parse = (args: ReadonlyArray<string>): Options => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: "boolean", default: false },
      mysql: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      rounds: { type: "string", default: "7" },
      json: { type: "string" },
      plot: { type: "string" },
      markdown: { type: "string" }
    }
  })
  const rounds = Number(values.rounds)
  if (!Number.isInteger(rounds) || rounds < 1) throw new Error(`--rounds is a number from 1 on, not ${values.rounds}`)
  return {
    help: values.help,
    mysql: values.mysql,
    works: values.only.length === 0 ? works : values.only.map(findWork),
    rounds,
    json: values.json,
    plot: values.plot,
    markdown: values.markdown
  }
}
