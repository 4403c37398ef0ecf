/** From samples to medians, spreads, ratios and the lines of a table. */
import { median, quantile } from "simple-statistics"
import type { Goal, Measure, Sample, Work } from "./model.js"
import type { Samples } from "./runner.js"

/** The median of a measure's rounds, with the quartiles as its spread. */
export interface Figure {
  readonly median: number
  readonly low: number
  readonly high: number
}

export interface Verdict {
  readonly goal: Goal
  /** The median of what the goal limits: of the measure, or of the ratios round by round. */
  readonly found: number
  readonly kept: boolean
}

export interface Outcome {
  readonly work: string
  readonly title: string
  readonly measures: ReadonlyArray<Measure>
  readonly arms: Readonly<Record<string, Readonly<Record<string, Figure>>>>
  readonly verdicts: ReadonlyArray<Verdict>
  readonly samples: Samples
}

const valuesOf = (samples: ReadonlyArray<Sample>, key: string): Array<number> =>
  samples.flatMap((sample) => sample[key] ?? [])

const figure = (values: Array<number>): Figure => ({
  median: median(values),
  low: quantile(values, 0.25),
  high: quantile(values, 0.75)
})

/** Of two arms the ratio in each round, since what disturbs one round disturbs both. */
const judge = (goal: Goal, samples: Samples): Verdict => {
  const own = valuesOf(samples[goal.arm] ?? [], goal.measure)
  const other = goal.to === undefined ? undefined : valuesOf(samples[goal.to] ?? [], goal.measure)
  const found = median(other === undefined ? own : own.map((value, round) => value / other[round]!))
  const kept = found <= (goal.atMost ?? Infinity) && found >= (goal.atLeast ?? -Infinity)
  return { goal, found, kept }
}

export const conclude = (work: Work, samples: Samples): Outcome => ({
  work: work.name,
  title: work.title,
  measures: work.measures,
  arms: Object.fromEntries(
    Object.entries(samples).map(([arm, rounds]) => [
      arm,
      Object.fromEntries(work.measures.map(({ key }) => [key, figure(valuesOf(rounds, key))]))
    ])
  ),
  verdicts: work.goals.map((goal) => judge(goal, samples)),
  samples
})

const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

const cell = ({ high, low, median }: Figure, digits: number): string =>
  `${number(median, digits)} (${number(low, digits)}–${number(high, digits)})`

/** A table of columns that are as wide as their widest cell, the first one on the left. */
const align = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) =>
    row.map((text, column) => column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)).join("  ")
  )
}

export const table = ({ arms, measures, title }: Outcome): string => {
  const header = ["", ...measures.map((measure) => `${measure.title} [${measure.unit}]`)]
  const rows = Object.entries(arms).map(([arm, figures]) => [
    arm,
    ...measures.map(({ digits, key }) => cell(figures[key]!, digits))
  ])
  return [title, ...align([header, ...rows]).map((line) => `  ${line}`)].join("\n")
}

export const limit = ({ atLeast, atMost }: Goal): string => atMost === undefined ? `≥ ${atLeast}` : `≤ ${atMost}`

export const subject = ({ arm, to }: Goal): string => to === undefined ? arm : `${arm} / ${to}`

const describeVerdict = ({ found, goal, kept }: Verdict): string =>
  `${subject(goal)} ${goal.measure} ${found.toFixed(2)} (${limit(goal)}${kept ? "" : ", missed"})`

/** The one line of ratios at the end. */
export const summary = (outcomes: ReadonlyArray<Outcome>): string =>
  outcomes.map(({ verdicts, work }) => `${work}: ${verdicts.map(describeVerdict).join(", ")}`).join("; ")
