/** The matrix as text: what is expected of a cell, how far a caller was from its deadline, and the tables that say so. */
import { bounds, type Column, type Settled } from "./matrix.js"
import type { FaultName } from "./matrixFaults.js"
import { type PhaseName, phases } from "./matrixPhases.js"

/** What a caller may have to wait for, one after the other; each is bounded by a timer of its own. */
export type Waits = ReadonlyArray<keyof typeof bounds>

/** How a caller is to fare, and what bounds it. */
export type Expected = readonly [how: string, ...waits: Waits]

/** Besides the noise: what a caller may be late. */
const allowance = 50

export const phaseNames = Object.keys(phases) as ReadonlyArray<PhaseName>

const deadlineOf = ([, ...names]: Expected): number => names.reduce((sum, name) => sum + bounds[name], 0)

/** Milliseconds after the deadline; before it they are negative. */
const overBy = ({ millis }: Settled, expected: Expected): number => Math.round(millis - deadlineOf(expected))

/** That the caller came too late, in words; each of its timers may have rung as late as the latest that was seen. */
export const lateness = (who: string, settled: Settled, expected: Expected, noise: number): ReadonlyArray<string> => {
  const over = overBy(settled, expected)
  const allowed = allowance + Math.ceil(noise) * (expected.length - 1)
  return over <= allowed ? [] : [`${who} settled ${over} ms after its deadline, ${allowed} allowed`]
}

export interface Measured {
  readonly column: Column
  readonly caller: (phase: PhaseName) => Expected
  readonly newcomer: (phase: PhaseName) => Expected
}

const width = 19

/** Three lines: the error, what it says besides, and how far from the deadline. */
const cellLines = (settled: Settled, expected: Expected): ReadonlyArray<string> => {
  const [name = "", ...rest] = settled.how.split(" ")
  const over = overBy(settled, expected)
  return [name, rest.join(" "), `${over > 0 ? "+" : ""}${over} ms`]
}

const line = (first: string, cells: ReadonlyArray<string>): string =>
  [first.padEnd(24), ...cells.map((text) => text.slice(0, width - 1).padEnd(width))].join(" ").trimEnd()

const table = (
  title: string,
  columns: ReadonlyMap<FaultName, Measured>,
  cellOf: (measured: Measured, phase: PhaseName) => readonly [Settled, Expected]
): ReadonlyArray<string> => [
  "",
  title,
  line("", phaseNames),
  ...Array.from(columns).flatMap(([fault, measured]) => {
    const cells = phaseNames.map((phase) => cellLines(...cellOf(measured, phase)))
    return [0, 1, 2].map((row) => line(row === 0 ? fault : "", cells.map((cell) => cell[row] ?? "")))
  })
]

export const matrixText = (
  columns: ReadonlyMap<FaultName, Measured>,
  meanings: ReadonlyMap<FaultName, string>
): string =>
  [
    ...table(
      "The caller that the fault meets (milliseconds after its deadline)",
      columns,
      ({ caller, column }, phase) => [
        column.cells.get(phase)!.caller,
        caller(phase)
      ]
    ),
    ...table("A newcomer while the fault lasts", columns, ({ column, newcomer }, phase) => [
      column.cells.get(phase)!.newcomer,
      newcomer(phase)
    ]),
    "",
    ...Array.from(columns, ([fault, { column }]) => {
      const slowest = Math.max(...Array.from(column.cells.values(), ({ next }) => next.millis))
      return line(fault, []).padEnd(25) + `timers up to ${column.noise.toFixed(1)} ms late; `
        + `the next statement took at most ${Math.round(slowest)} ms; ${meanings.get(fault)}`
    }),
    `Bounds: ${Object.entries(bounds).map(([name, millis]) => `${name} ${millis} ms`).join(", ")}; allowed besides: `
    + `${allowance} ms, and for each of the waits as much as a timer was late at most.`,
    ""
  ].join("\n")
