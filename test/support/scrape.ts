/** What a program that exports Effect's metrics through `@effect/opentelemetry` shows, of one pool. */
import * as Metrics from "@effect/opentelemetry/Metrics"
import * as Resource from "@effect/opentelemetry/Resource"
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus"
import { DataPointType, type MetricData } from "@opentelemetry/sdk-metrics"
import { Effect, Layer } from "effect"

export interface Exported {
  /** As the conventions call it. */
  readonly type: "Counter" | "UpDownCounter" | "Gauge" | "Histogram"
  readonly unit: string
  readonly points: ReadonlyArray<{
    readonly attributes: Readonly<Record<string, unknown>>
    readonly value: unknown
  }>
}

export interface Scrape {
  /** The pool's metrics by name. */
  readonly metrics: Readonly<Record<string, Exported>>
  /** The value of the only point that has these attributes besides the pool's name and the unit. */
  readonly value: (name: string, attributes?: Readonly<Record<string, string>>) => unknown
  /** All that Prometheus is told, other pools included. */
  readonly text: string
}

const typeOf = (data: MetricData): Exported["type"] => {
  switch (data.dataPointType) {
    case DataPointType.SUM:
      return data.isMonotonic ? "Counter" : "UpDownCounter"
    case DataPointType.GAUGE:
      return "Gauge"
    default:
      return "Histogram"
  }
}

const poolName = "db.client.connection.pool.name"

const ofPool = (data: ReadonlyArray<MetricData>, pool: string): Scrape["metrics"] => {
  const found: Record<string, Exported> = {}
  for (const each of data) {
    const all: ReadonlyArray<Exported["points"][number]> = each.dataPoints
    const points = all.filter(({ attributes }) => attributes[poolName] === pool)
    if (points.length === 0) continue
    found[each.descriptor.name] = { type: typeOf(each), unit: each.descriptor.unit, points }
  }
  return found
}

const fits = (attributes: Readonly<Record<string, unknown>>, asked: Readonly<Record<string, string>>): boolean => {
  const { [poolName]: _, unit: __, ...rest } = attributes
  return Object.keys(rest).length === Object.keys(asked).length &&
    Object.entries(asked).every(([key, value]) => rest[key] === value)
}

/** Scrapes the pool of that name; an effect, to be run as often as one likes. */
export const scrape = (pool: string): Effect.Effect<Scrape> =>
  Effect.gen(function*() {
    const exporter = new PrometheusExporter({ preventServerStart: true })
    const collected = Effect.promise(() => exporter.collect())
    const reading = Metrics.layer(() => exporter).pipe(Layer.provide(Resource.layer({ serviceName: "test" })))
    const { errors, resourceMetrics } = yield* Effect.provide(collected, reading)
    if (errors.length > 0) return yield* Effect.die(errors)
    const metrics = ofPool(resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics), pool)
    return {
      metrics,
      value: (name, asked = {}) => {
        const points = (metrics[name]?.points ?? []).filter(({ attributes }) => fits(attributes, asked))
        return points.length === 1 ? points[0]?.value : points
      },
      text: new PrometheusSerializer().serialize(resourceMetrics)
    }
  })
