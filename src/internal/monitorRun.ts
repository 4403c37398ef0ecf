/**
 * A monitor at work: it looks at its pools at an interval, and shows what it saw.
 *
 * Loaded only when a monitor runs, and with it the packages that draw.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { PoolEvent } from "../PoolEvents.js"
import type { Holder, PoolSnapshot } from "../PoolStats.js"
import { happened, numbers } from "./monitorLine.js"
import { type Entry, follow, note, noTrend, type View, type Watched } from "./monitorModel.js"
import { type Output, Screen } from "./monitorScreen.js"
import { frame } from "./monitorView.js"

/**
 * Where a monitor has from what it shows of a pool.
 *
 * @since 0.1.0
 * @category models
 */
export interface Source {
  /** The pool as it is now. */
  readonly snapshot: Effect.Effect<PoolSnapshot>
  /** Who holds its connections now. */
  readonly holders: Effect.Effect<ReadonlyArray<Holder>>
  /** What happens to it. */
  readonly events: Stream.Stream<PoolEvent>
}

/** @internal */
export interface Settings {
  readonly interval: Duration.DurationInput
  readonly output: Output
  readonly color: boolean
  readonly height: number | undefined
  /** Drawn again and again, or line after line. */
  readonly live: boolean
}

/** A look at one pool, which remembers the one before. */
const watch = (source: Source): Effect.Effect<Watched> => {
  let last: Watched | undefined
  return Effect.zipWith(source.snapshot, source.holders, (snapshot, holders) => {
    const trend = last === undefined ? noTrend : follow(last.trend, last.snapshot, snapshot)
    return last = { snapshot, holders, trend }
  })
}

/** Draws frames over one another, and again when the terminal has changed. */
const live = (
  look: Effect.Effect<View>,
  { color, height, output }: Settings
): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> => {
  let latest: View | undefined
  let tallest = 0
  const draw = (screen: Screen): void => {
    if (latest === undefined) return
    const { columns, rows } = screen
    // what the program writes has a quarter at least, unless the terminal is very low
    const wanted = height ?? Math.max(10, Math.floor(rows * 3 / 4))
    const lines = frame(latest, { columns, rows: Math.max(1, Math.min(wanted, rows - 1)) }, color)
    tallest = Math.max(tallest, lines.length)
    // never lower than before, so that nothing jumps
    screen.show([...lines, ...Array.from({ length: tallest - lines.length }, () => "")])
  }
  const changed = (screen: Screen): void => {
    tallest = 0
    draw(screen)
  }
  return Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const screen: Screen = new Screen(output, () => changed(screen))
        return screen
      }),
      (screen) => Effect.sync(() => screen.close())
    ),
    (screen) =>
      Effect.map(look, (view) => {
        latest = view
        draw(screen)
      })
  )
}

/** Writes a line for each pool of which the numbers have changed, or to which something has happened, since its last line. */
const plain = (look: Effect.Effect<View>, { output }: Settings): Effect.Effect<void> => {
  let written: ReadonlyArray<{ readonly snapshot: PoolSnapshot; readonly text: string }> = []
  return Effect.map(look, ({ pools }) => {
    written = pools.map((pool, at) => {
      const last = written[at]
      const text = numbers(pool)
      const news = happened(last?.snapshot, pool.snapshot)
      // compared apart: what happens again and again is told again and again, though in the same words
      if (last !== undefined && text === last.text && news === "") return last
      output.write(`${text}${news}\n`)
      return { snapshot: pool.snapshot, text }
    })
  })
}

/** @internal Shows the pools for as long as the scope, in fibers of its own. */
export const run = (
  sources: ReadonlyArray<Source>,
  settings: Settings
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    let events: ReadonlyArray<Entry> = []
    const watches = sources.map(watch)
    const look = Effect.zipWith(
      Clock.currentTimeMillis,
      Effect.all(watches),
      (now, pools): View => ({ now, pools, events })
    )
    // first, so that it is the last to end
    const show = settings.live ? yield* live(look, settings) : plain(look, settings)
    for (const source of sources) {
      yield* Effect.forkScoped(Stream.runForEach(source.events, (event) =>
        Effect.sync(() => {
          events = note(events, event)
        })))
    }
    yield* Effect.forkScoped(Effect.repeat(show, Schedule.spaced(settings.interval)))
  })
