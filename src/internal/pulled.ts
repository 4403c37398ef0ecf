/**
 * Metrics that are read where they are counted, at the moment when somebody asks: a scrape pays for them, and nobody else.
 *
 * Effect's registry makes a hook for each key, which keeps a number and is asked for it by `get`. Here `get` asks the
 * sources of the key instead, and adds up what they say: two pools of one name are one in the metrics. What counts up
 * keeps what a source has counted when it ends, since a counter that falls was restarted; everything else forgets it.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import { globalValue } from "effect/GlobalValue"
import * as Metric from "effect/Metric"
import type * as MetricHook from "effect/MetricHook"
import type * as MetricKey from "effect/MetricKey"
import type * as MetricKeyType from "effect/MetricKeyType"
import * as MetricState from "effect/MetricState"
import type * as Scope from "effect/Scope"

/** How many were at most each of the bounds and above the one before, the last being beyond all bounds. */
interface Distribution {
  readonly counts: ReadonlyArray<number>
  readonly count: number
  readonly sum: number
  readonly min: number
  readonly max: number
}

interface Hooked<A> {
  readonly sources: Set<() => A>
  /** What the sources that have ended leave behind. */
  rest: A
  /** Of that, whose it is: one that comes back still counts it. */
  readonly left: WeakMap<object, A>
}

const hooked = globalValue(
  Symbol.for("effect-sql-pool/pulled/hooked"),
  () => new WeakMap<MetricHook.MetricHook.Untyped, Hooked<unknown>>()
)

/** What values of a kind of metric are. */
interface Kind<A, Out> {
  readonly zero: A
  readonly plus: (one: A, other: A) => A
  /** Undoes `plus`. Only for what {@link lasts}. */
  readonly minus: (one: A, other: A) => A
  readonly state: (value: A) => Out
  /** Whether a value stays when its source has ended. */
  readonly lasts: boolean
}

/** @internal Who counts, once for each key, and what is counted. */
export interface Source<A> {
  readonly owner: object
  readonly read: () => A
}

const addTo = <Type extends MetricKeyType.MetricKeyType<any, any>, A>(
  key: MetricKey.MetricKey<Type>,
  { lasts, minus, plus, state, zero }: Kind<A, MetricKeyType.MetricKeyType.OutType<Type>>,
  { owner, read }: Source<A>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const hook = Metric.globalMetricRegistry.get(key)
      const known = hooked.get(hook) as Hooked<A> | undefined
      const own = known ?? { sources: new Set<() => A>(), rest: zero, left: new WeakMap<object, A>() }
      if (known === undefined) {
        hooked.set(hook, own)
        hook.get = () => {
          let sum = own.rest
          for (const source of own.sources) sum = plus(sum, source())
          return state(sum)
        }
      }
      const left = own.left.get(owner)
      if (left !== undefined) own.rest = minus(own.rest, left)
      own.left.delete(owner)
      own.sources.add(read)
      return own
    }),
    (own) =>
      Effect.sync(() => {
        own.sources.delete(read)
        if (!lasts) return
        const left = read()
        own.left.set(owner, left)
        own.rest = plus(own.rest, left)
      })
  ).pipe(Effect.asVoid)

const sum = (one: number, other: number): number => one + other
const difference = (one: number, other: number): number => one - other

/** @internal What only grows (`incremental`), or goes up and down. */
export const counter = (
  key: MetricKey.MetricKey.Counter<number>,
  source: Source<number>
): Effect.Effect<void, never, Scope.Scope> =>
  addTo(
    key,
    { zero: 0, plus: sum, minus: difference, state: MetricState.counter, lasts: key.keyType.incremental },
    source
  )

/** @internal A value that cannot be added to another's: the greatest is told. */
export const gauge = (
  key: MetricKey.MetricKey.Gauge<number>,
  source: Source<number>
): Effect.Effect<void, never, Scope.Scope> =>
  addTo(key, { zero: 0, plus: Math.max, minus: difference, state: MetricState.gauge, lasts: false }, source)

const plusDistribution = (one: Distribution, other: Distribution): Distribution => {
  if (one.count === 0) return other
  if (other.count === 0) return one
  return {
    counts: one.counts.map((count, at) => count + (other.counts[at] ?? 0)),
    count: one.count + other.count,
    sum: one.sum + other.sum,
    min: Math.min(one.min, other.min),
    max: Math.max(one.max, other.max)
  }
}

/** The least and the greatest cannot be taken out again; whoever comes back brings them along. */
const minusDistribution = (one: Distribution, other: Distribution): Distribution => ({
  ...one,
  counts: one.counts.map((count, at) => count - (other.counts[at] ?? 0)),
  count: one.count - other.count,
  sum: one.sum - other.sum
})

/** Effect has each bucket count those below it too. */
const histogramState = (bounds: ReadonlyArray<number>) => ({ counts, ...rest }: Distribution) => {
  let cumulated = 0
  const buckets = bounds.map((bound, at) => [bound, cumulated += counts[at] ?? 0] as const)
  return MetricState.histogram({ ...rest, buckets })
}

/** @internal A histogram counted by the key's bounds. */
export const histogram = (
  key: MetricKey.MetricKey.Histogram,
  source: Source<Distribution>
): Effect.Effect<void, never, Scope.Scope> => {
  const bounds = key.keyType.boundaries.values
  const zero: Distribution = { counts: bounds.map(() => 0), count: 0, sum: 0, min: 0, max: 0 }
  const kind = { zero, plus: plusDistribution, minus: minusDistribution, state: histogramState(bounds), lasts: true }
  return addTo(key, kind, source)
}

/**
 * @internal The distribution by these bounds, in seconds, of times counted in buckets of milliseconds: exact where each
 * bound is one of theirs. Of the shortest it is known only that it is beyond the bucket below its own.
 */
export const distribution = (
  bounds: ReadonlyArray<number>,
  times: {
    readonly count: number
    readonly sumMillis: number
    readonly maxMillis: number
    readonly buckets: ReadonlyArray<readonly [upToMillis: number, count: number]>
  }
): Distribution => {
  const counts = bounds.map(() => 0)
  for (const [upToMillis, count] of times.buckets) {
    const at = bounds.findIndex((bound) => upToMillis <= bound * 1_000)
    counts[at] = (counts[at] ?? 0) + count
  }
  const first = times.buckets.findIndex(([, count]) => count > 0)
  return {
    counts,
    count: times.count,
    sum: times.sumMillis / 1_000,
    min: (times.buckets[first - 1]?.[0] ?? 0) / 1_000,
    max: times.maxMillis / 1_000
  }
}
