/**
 * A live view of pools in the terminal, beside the program that uses them.
 *
 * It is drawn at the lower end of the terminal; what the program writes meanwhile, its log above all, comes above it,
 * complete lines at a time. It changes neither the cursor nor the screen, and its lines are erased when its scope ends,
 * when the process exits or crashes, and on SIGINT, SIGTERM or SIGHUP. What draws is loaded when a monitor starts, not
 * before.
 *
 * @module
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Source } from "./internal/monitorRun.js"
import type { Output } from "./internal/monitorScreen.js"
import * as PoolEvents from "./PoolEvents.js"
import * as PoolStats from "./PoolStats.js"

export type { Source } from "./internal/monitorRun.js"
export type { Output } from "./internal/monitorScreen.js"

/**
 * How a monitor shows what it sees.
 *
 * @since 0.1.0
 * @category models
 */
export interface MonitorOptions {
  /** How often it looks and draws. Default: 500 milliseconds. */
  readonly interval?: Duration.DurationInput | undefined
  /**
   * Where it draws. Default: `process.stdout`. Where that is no terminal, or one that can do nothing (`TERM=dumb`), it
   * writes a line for each pool at each interval in which something changed.
   */
  readonly output?: Output | undefined
  /** Whether it uses colors. Default: on a terminal, unless the environment has `NO_COLOR`. */
  readonly color?: boolean | undefined
  /** How many lines it takes, and never more than the terminal has. Default: up to three quarters of them. */
  readonly height?: number | undefined
}

/**
 * Shows the pools for as long as the scope, in fibers of its own; never fails. One monitor at a time per terminal.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  sources: ReadonlyArray<Source>,
  options: MonitorOptions = {}
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.flatMap(Effect.promise(() => import("./internal/monitorRun.js")), ({ run }) => {
    const output: Output = options.output ?? process.stdout
    const live = output.isTTY === true && process.env["TERM"] !== "dumb"
    return run(sources, {
      interval: options.interval ?? 500,
      output,
      live,
      color: options.color ?? (live && (process.env["NO_COLOR"] ?? "") === ""),
      height: options.height
    })
  })

const sourceOf = (stats: PoolStats.PoolStatsService, events: PoolEvents.PoolEventsService): Source => ({
  snapshot: stats.snapshot,
  holders: stats.holders,
  events: events.stream
})

/**
 * Shows the program's default pool for as long as the layer:
 * `Effect.provide(PoolMonitor.layer().pipe(Layer.provideMerge(DbLayer.primary)))`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: MonitorOptions
): Layer.Layer<never, never, PoolStats.PoolStats | PoolEvents.PoolEvents> =>
  Layer.scopedDiscard(
    Effect.flatMap(
      Effect.zipWith(PoolStats.PoolStats, PoolEvents.PoolEvents, sourceOf),
      (source) => make([source], options)
    )
  )

/**
 * What the monitor of a pool called `Name` needs; `"primary"` is the default pool.
 *
 * @since 0.1.0
 * @category models
 */
export type Services<Name extends string> = Name extends "primary" ? PoolStats.PoolStats | PoolEvents.PoolEvents
  : PoolStats.Named<Name> | PoolEvents.Named<Name>

const sourceNamed = (
  name: string
): Effect.Effect<Source, never, Services<"primary"> | Services<string>> =>
  name === "primary"
    ? Effect.zipWith(PoolStats.PoolStats, PoolEvents.PoolEvents, sourceOf)
    : Effect.zipWith(PoolStats.tag(name), PoolEvents.tag(name), sourceOf)

/**
 * Shows several pools in one view for as long as the layer, in this order: `PoolMonitor.layerPools(["primary", "replica"])`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerPools = <const Names extends ReadonlyArray<string>>(
  names: Names,
  options?: MonitorOptions
): Layer.Layer<never, never, Services<Names[number]>> => {
  const sources = Effect.forEach(names as ReadonlyArray<string>, sourceNamed)
  const shown = Layer.scopedDiscard(Effect.flatMap(sources, (sources) => make(sources, options)))
  // one tag for each name, which an array of names does not tell the types
  return shown as unknown as Layer.Layer<never, never, Services<Names[number]>>
}
