/** The goals and the figures as the page has them. */
import { limit, type Outcome, subject, table, type Verdict } from "./report.js"

const row = (work: string, { found, goal, kept }: Verdict): string =>
  `| \`${work}\` | ${subject(goal)}, ${goal.measure} | ${limit(goal)} | ${found.toFixed(2)} | ${
    kept ? "kept" : "missed"
  } |`

export const goalTable = (outcomes: ReadonlyArray<Outcome>): string =>
  [
    "| work | goal | wanted | measured | |",
    "| --- | --- | --- | --- | --- |",
    ...outcomes.flatMap(({ verdicts, work }) => verdicts.map((verdict) => row(work, verdict)))
  ].join("\n")

/** The two sections that end the page. */
export const markdown = (heading: string, outcomes: ReadonlyArray<Outcome>): string =>
  `## Goals

Of two arms, the median of the ratios round by round.

${goalTable(outcomes)}

## Figures

\`\`\`text
${[heading, ...outcomes.map(table)].join("\n\n")}
\`\`\`
`
