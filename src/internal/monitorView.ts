/**
 * What a monitor shows, as lines of text: a frame for a terminal of a given size, and one line where there is none.
 *
 * Pure: the same view and size give the same lines. A frame has no more lines than the size has rows, and no line is wider
 * than its columns.
 *
 * @internal
 */
import * as Option from "effect/Option"
import pico from "picocolors"
import stringWidth from "string-width"
import type { PoolEvent } from "../PoolEvents.js"
import type { Holder, PoolSnapshot } from "../PoolStats.js"
import { type Entry, openOf, type Trend, type View, type Watched } from "./monitorModel.js"
import {
  clean,
  count,
  cut,
  duration,
  firstThatFits,
  fit,
  fitRight,
  number,
  oneLine,
  shares,
  sparkline
} from "./monitorText.js"

/** @internal */
export interface Size {
  readonly columns: number
  readonly rows: number
}

type Colors = ReturnType<typeof pico.createColors>
type Paint = (text: string) => string

/** The states of a pool's connections, in the order of the bar. */
interface State {
  readonly glyph: string
  readonly name: string
  readonly of: (snapshot: PoolSnapshot) => number
  readonly paint: (colors: Colors) => Paint
  /** Named in the legend even when there is none. */
  readonly always: boolean
}

const states: ReadonlyArray<State> = [
  { glyph: "█", name: "explicit", of: (pool) => pool.heldExplicitly, paint: ({ magenta }) => magenta, always: true },
  { glyph: "▓", name: "with state", of: (pool) => pool.heldWithState, paint: ({ yellow }) => yellow, always: true },
  { glyph: "▒", name: "clean", of: (pool) => pool.heldClean, paint: ({ cyan }) => cyan, always: true },
  { glyph: "░", name: "idle", of: (pool) => pool.idle, paint: ({ green }) => green, always: true },
  { glyph: "+", name: "opening", of: (pool) => pool.opening, paint: ({ blue }) => blue, always: false },
  { glyph: "~", name: "checked or closed", of: (pool) => pool.busy, paint: ({ blue }) => blue, always: false },
  {
    glyph: "·",
    name: "not open",
    of: (pool) => Math.max(0, pool.max - openOf(pool)),
    paint: ({ dim }) => dim,
    always: false
  }
]

const bar = (pool: PoolSnapshot, columns: number, colors: Colors): string => {
  const widths = shares(states.map(({ of }) => of(pool)), columns)
  return states.map(({ glyph, paint }, at) => paint(colors)(glyph.repeat(widths[at]!))).join("")
}

const legend = (pool: PoolSnapshot, columns: number, colors: Colors): string => {
  const named = states.filter(({ always, of }) => always || of(pool) > 0)
  const long = named.map(({ glyph, name, of, paint }) => `${paint(colors)(glyph)} ${number(of(pool))} ${name}`)
  const short = named.map(({ glyph, of, paint }) => `${paint(colors)(glyph)} ${number(of(pool))}`)
  return firstThatFits([long.join("  "), short.join("  "), short.join(" ")], columns)
}

/** The name at the left, as far as there is room, and the rest after it. */
const title = (pool: PoolSnapshot, columns: number, colors: Colors): string => {
  const phase = pool.phase === "Open" ? "" : `${pool.phase.toLowerCase()}, `
  const rest = firstThatFits([
    `  ${phase}${openOf(pool)} of ${pool.max} connections, ${pool.running} running`,
    `  ${phase}${openOf(pool)}/${pool.max}, ${pool.running} running`
  ], Math.max(24, columns - 24))
  const name = cut(clean(pool.pool), Math.max(8, columns - rest.length))
  return colors.bold(name) + (phase === "" ? rest : colors.yellow(rest))
}

const label = (text: string, colors: Colors): string => colors.dim(text.padEnd(9))

const queue = (pool: PoolSnapshot, columns: number, colors: Colors): string => {
  if (pool.waiting === 0) return `${label("waiting", colors)}nobody`
  const text = `${number(pool.waiting)}, the oldest for ${duration(pool.oldestWaitMillis)}`
  const room = Math.max(0, columns - 9 - text.length - 1)
  const marks = "●".repeat(Math.min(pool.waiting, room))
  return `${label("waiting", colors)}${colors.red(marks)}${marks === "" ? "" : " "}${text}`
}

/** A label, a sparkline, and in words what it is now and was at most. */
const course = (
  name: string,
  values: ReadonlyArray<number>,
  unit: (value: number) => string,
  columns: number,
  colors: Colors
): string => {
  const wide = columns >= 60
  const room = Math.min(60, columns - 9 - (wide ? 30 : 12))
  const now = unit(values.at(-1) ?? 0)
  const most = unit(Math.max(0, ...values.slice(-Math.max(1, room))))
  return `${label(name, colors)}${colors.cyan(sparkline(values, room))} ${wide ? `${now}, at most ${most}` : now}`
}

const courses = ({ rates, waits }: Trend, columns: number, colors: Colors): ReadonlyArray<string> => [
  course("wait", waits, duration, columns, colors),
  course("served", rates, (value) => `${number(value)}/s`, columns, colors)
]

const inFull = ({ snapshot, trend }: Watched, columns: number, colors: Colors): ReadonlyArray<string> => [
  title(snapshot, columns, colors),
  bar(snapshot, columns, colors),
  legend(snapshot, columns, colors),
  queue(snapshot, columns, colors),
  ...courses(trend, columns, colors)
]

/** A bar of a third of the line, and the numbers that matter most. */
const inOneLine = ({ snapshot, trend }: Watched, columns: number, colors: Colors): string => {
  const third = Math.floor(columns / 3)
  const uses = number(trend.rates.at(-1) ?? 0)
  const rest = firstThatFits([
    `${snapshot.held} held, ${snapshot.waiting} waiting, ${uses}/s`,
    `${snapshot.waiting} waiting`
  ], columns - 2 * third - 2)
  const widths = shares(states.map(({ of }) => of(snapshot)), third)
  const used = widths.reduce((sum, width) => sum + width, 0)
  const name = colors.bold(fit(clean(snapshot.pool), third))
  return `${name} ${bar(snapshot, third, colors)}${" ".repeat(third - used)} ${rest}`
}

/** By what and where something was acquired; frames without a place say nothing. */
const originText = (origin: string): string =>
  oneLine(origin.split("\n").filter((frame) => !frame.endsWith("(<anonymous>)")).join("\n"))

/** The beginning of a line in a list: how long ago, and of several pools which. */
const head = (millis: number, pool: string): string => `${fitRight(duration(millis), 12)}  ${pool}`

const holderLine = (holder: Holder, pool: string, colors: Colors): string => {
  const what = [
    `connection ${holder.connection}`,
    ...(holder.kind === "fiber" ? [] : [holder.kind === "connection" ? "explicit" : holder.kind]),
    ...(holder.session === "clean" ? [] : [holder.session]),
    ...(holder.running ? ["running"] : [])
  ].join(", ")
  const origin = Option.match(holder.origin, { onNone: () => "", onSome: (text) => `  ${originText(text)}` })
  const fiber = colors.cyan(fit(clean(holder.fiber), 8))
  return `${head(holder.heldMillis, pool)}${fiber} ${clean(what)}${colors.dim(origin)}`
}

/** What an event is, in a few words. */
const saying = (event: PoolEvent): string => {
  switch (event._tag) {
    case "Opened":
      return `connection ${event.connection} opened in ${duration(event.connectMillis)}`
    case "ConnectFailed":
      return `connect failed: ${event.error.message}`
    case "Closed":
      return `connection ${event.connection} closed (${event.reason}) at the age of ${duration(event.ageMillis)}`
    case "Lost":
      return `connection ${event.connection} lost: ${event.reason.replace(/^The connection was lost: /, "")}`
    case "Recovered":
      return `recovered after ${duration(event.downMillis)} and ${count(event.failures, "failed connect")}`
    case "TakenBack":
      return `connection ${event.connection} taken back from ${event.fiber}`
    case "Exhausted":
      return `exhausted: all ${event.max} connections in use, ${event.waiting} waiting`
    case "LeakSuspected":
      return `leak suspected: ${event.fiber} has held connection ${event.connection} for ${duration(event.heldMillis)}`
        + Option.match(event.origin, { onNone: () => "", onSome: (origin) => `, ${originText(origin)}` })
  }
}

const paintOf = (event: PoolEvent, colors: Colors): Paint => {
  switch (event._tag) {
    case "ConnectFailed":
    case "Lost":
      return colors.red
    case "Exhausted":
    case "LeakSuspected":
      return colors.yellow
    case "Recovered":
      return colors.green
    default:
      return (text) => text
  }
}

const eventLine = ({ event, times }: Entry, now: number, pool: string, columns: number, colors: Colors): string => {
  const begin = head(now - event.at, pool)
  const often = times === 1 ? "" : ` (×${number(times)})`
  const what = cut(clean(saying(event)), Math.max(12, columns - stringWidth(begin) - often.length))
  return begin + paintOf(event, colors)(what + often)
}

/** A heading and below it as many of the lines as there is room for; what is left out is counted. */
const section = (
  heading: string,
  lines: ReadonlyArray<string>,
  rows: number,
  colors: Colors
): ReadonlyArray<string> => {
  if (rows <= 0) return []
  const room = rows - 1
  const shown = lines.length <= room
    ? lines
    : room <= 1
    ? lines.slice(0, room)
    : [...lines.slice(0, room - 1), colors.dim(`${" ".repeat(14)}and ${number(lines.length - room + 1)} more`)]
  return [colors.bold(heading), ...shown]
}

const poolLines = (view: View, { columns, rows }: Size, colors: Colors): ReadonlyArray<string> => {
  const { pools } = view
  // what the holders and the events have at least
  const rest = 4
  if (pools.length * 7 - 1 + rest <= rows) {
    return pools.flatMap((pool, at) => [...(at === 0 ? [] : [""]), ...inFull(pool, columns, colors)])
  }
  if (pools.length * 6 + rest <= rows) return pools.flatMap((pool) => inFull(pool, columns, colors))
  const lines = pools.map((pool) => inOneLine(pool, columns, colors))
  return lines.length <= rows
    ? lines
    : [...lines.slice(0, rows - 1), colors.dim(`and ${number(lines.length - rows + 1)} more pools`)]
}

/** The holders of all pools, the oldest first, and the latest events: each may have half, and what the other leaves. */
const lists = (view: View, columns: number, rows: number, colors: Colors): ReadonlyArray<string> => {
  if (rows < 2) return []
  const names = view.pools.map(({ snapshot }) => clean(snapshot.pool))
  const widest = Math.min(20, Math.floor(columns / 4), Math.max(0, ...names.map((name) => stringWidth(name))))
  const nameOf = (pool: string): string => names.length === 1 ? "" : `${fit(clean(pool), widest)}  `
  const holders = view.pools
    .flatMap(({ holders, snapshot }) => holders.map((holder) => ({ holder, pool: nameOf(snapshot.pool) })))
    .sort((one, other) => other.holder.heldMillis - one.holder.heldMillis)
    .map(({ holder, pool }) => holderLine(holder, pool, colors))
  const events = view.events.map((entry) => eventLine(entry, view.now, nameOf(entry.event.pool), columns, colors))
  const blank = rows >= 8 ? [""] : []
  const left = rows - 2 * blank.length
  const forEvents = Math.min(events.length + 1, Math.max(Math.floor(left / 2), left - holders.length - 1))
  return [
    ...blank,
    ...section(`Holders (${number(holders.length)})`, holders, left - forEvents, colors),
    ...blank,
    ...section("Events", events, forEvents, colors)
  ]
}

/** @internal A frame of at most `rows` lines of at most `columns` columns. */
export const frame = (view: View, { columns, rows }: Size, color: boolean): ReadonlyArray<string> => {
  const colors = pico.createColors(color)
  const above = poolLines(view, { columns, rows }, colors)
  return [...above, ...lists(view, columns, rows - above.length, colors)].map((line) => cut(line, columns))
}
