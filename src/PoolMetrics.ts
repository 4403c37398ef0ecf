/**
 * A pool's statistics as Effect metrics, under the names, types, units and attributes of OpenTelemetry's "Semantic
 * conventions for database client metrics" (https://opentelemetry.io/docs/specs/semconv/db/database-metrics/). Whatever
 * exports Effect's metrics exports them: `@effect/opentelemetry`, its Prometheus exporter, Effect's developer tools.
 *
 * They are read from the pool when somebody asks for them, so that they cost nothing in between. Only
 * `db.client.operation.duration` is counted with each statement, and only while these metrics are there.
 *
 * | Name | Type | Unit | Attributes |
 * | --- | --- | --- | --- |
 * | `db.client.connection.count` | UpDownCounter | `{connection}` | `db.client.connection.state`: `idle`, or `used`, which is held or under the pool's own work |
 * | `db.client.connection.limit`, `.idle.max`, `.idle.min` | UpDownCounter | `{connection}` | |
 * | `db.client.connection.max`, the former name of `.limit` | UpDownCounter | `{connection}` | |
 * | `db.client.connection.pending_requests` | UpDownCounter | `{request}` | |
 * | `db.client.connection.timeouts` | Counter | `{timeout}` | |
 * | `db.client.connection.create_time`, `.wait_time`, `.use_time` | Histogram | `s` | |
 * | `db.client.operation.duration` | Histogram | `s` | `db.system.name`, `db.namespace`, `server.address`, `server.port`, of a failure `error.type` and `db.response.status_code` |
 *
 * All have `db.client.connection.pool.name`, the pool's name, by default `server.address:server.port/db.namespace`. Pools of
 * one name are added up. Beyond the conventions, and with the same attribute:
 *
 * | Name | Type | Unit | Attributes |
 * | --- | --- | --- | --- |
 * | `effect_sql_pool.connections` | UpDownCounter | `{connection}` | `effect_sql_pool.state`: `idle`, `held_clean`, `held_with_state`, `held_explicitly`, `opening`, `busy` |
 * | `effect_sql_pool.connections.running`, `.lendable` | UpDownCounter | `{connection}` | |
 * | `effect_sql_pool.oldest_wait` | Gauge | `s` | |
 * | `effect_sql_pool.acquisitions` | Counter | `{request}` | `effect_sql_pool.outcome`: `at_once`, `after_wait`, `timed_out`, `abandoned`, `refused`, `unreachable`, `turned_away` |
 * | `effect_sql_pool.connections.created`, `.lost` | Counter | `{connection}` | |
 * | `effect_sql_pool.connections.closed` | Counter | `{connection}` | `effect_sql_pool.reason`: those of `PoolStats.CloseReason`, with `_` for a space |
 * | `effect_sql_pool.connect_failures` | Counter | `{failure}` | |
 * | `effect_sql_pool.affinity_hits`, `.kills`, `.unknown_outcomes` | Counter | `{statement}` | |
 * | `effect_sql_pool.taken_back`, `.validations`, `.leaks_suspected` | Counter | `{connection}` | |
 * | `effect_sql_pool.resets` | Counter | `{connection}` | `effect_sql_pool.outcome`: `done`, `spared` |
 * | `effect_sql_pool.retries` | Counter | `{retry}` | `effect_sql_pool.kind`: `unexecuted`, `read`, `transaction` |
 *
 * A metric of Effect has its unit as an attribute named `unit`, from which exporters read it. Attributes are text, ports too.
 *
 * @module
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { globalValue } from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import type * as MetricHook from "effect/MetricHook"
import * as MetricKey from "effect/MetricKey"
import type * as MetricKeyType from "effect/MetricKeyType"
import * as MetricLabel from "effect/MetricLabel"
import * as Scope from "effect/Scope"
import * as ConnectionPool from "./ConnectionPool.js"
import type { DbError } from "./DbError.js"
import { duration, type NumberMetric, numbers, times } from "./internal/metricTable.js"
import * as pulled from "./internal/pulled.js"
import { type Attributes, failureAttributes } from "./internal/spans.js"

type Labels = ReadonlyArray<MetricLabel.MetricLabel>
type Scoped = Effect.Effect<void, never, Scope.Scope>

/** In seconds, as the conventions have it for the duration of operations. */
const boundaries = MetricBoundaries.fromIterable([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10])

const labelsOf = (attributes: Attributes): Labels =>
  Object.entries(attributes).map(([key, value]) => MetricLabel.make(key, String(value)))

const tagged = <Type extends MetricKeyType.MetricKeyType<any, any>>(
  key: MetricKey.MetricKey<Type>,
  unit: string,
  labels: Labels
): MetricKey.MetricKey<Type> => MetricKey.taggedWithLabels(key, [MetricLabel.make("unit", unit), ...labels])

const addNumber = (metric: NumberMetric, labels: Labels, source: pulled.Source<number>): Scoped => {
  const { description, name, type, unit } = metric
  return type === "gauge"
    ? pulled.gauge(tagged(MetricKey.gauge(name, { description }), unit, labels), source)
    : pulled.counter(
      tagged(MetricKey.counter(name, { description, incremental: type === "counter" }), unit, labels),
      source
    )
}

const addNumbers = (pool: ConnectionPool.Pool, metric: NumberMetric, labels: Labels): Scoped => {
  const read = () => metric.read(Effect.runSync(pool.snapshot))
  const now = read()
  const { by } = metric
  if (typeof now === "number" || by === undefined) {
    return addNumber(metric, labels, { owner: pool, read: () => Number(read()) })
  }
  return Effect.forEach(Object.keys(now), (part) =>
    addNumber(metric, [...labels, MetricLabel.make(by, part)], {
      owner: pool,
      read: () => {
        const parts = read()
        return typeof parts === "number" ? parts : parts[part] ?? 0
      }
    }), { discard: true })
}

const addTimes = (pool: ConnectionPool.Pool, labels: Labels): Scoped =>
  Effect.forEach(times, ({ description, name, read, unit }) =>
    pulled.histogram(
      tagged(MetricKey.histogram(name, boundaries, description), unit, labels),
      { owner: pool, read: () => pulled.distribution(boundaries.values, read(Effect.runSync(pool.snapshot))) }
    ), { discard: true })

/** What went wrong, if anything did. `_OTHER` is the conventions' own word. */
const outcome = (exit: Exit.Exit<unknown, unknown>): Attributes => {
  if (Exit.isSuccess(exit)) return {}
  const failure = Cause.failureOption(exit.cause)
  if (failure._tag === "Some") return failureAttributes(failure.value as DbError)
  return { "error.type": Cause.isInterrupted(exit.cause) ? "Interrupted" : "_OTHER" }
}

const listenTo = (pool: ConnectionPool.Pool, labels: Labels): Scoped => {
  const key = tagged(MetricKey.histogram(duration.name, boundaries, duration.description), duration.unit, [
    ...labels,
    ...labelsOf(pool.attributes)
  ])
  const succeeded = Metric.globalMetricRegistry.get(key)
  const others = new Map<string, MetricHook.MetricHook.Histogram>()
  const hookOf = (attributes: Attributes): MetricHook.MetricHook.Histogram => {
    const id = Object.values(attributes).join()
    const known = others.get(id) ?? Metric.globalMetricRegistry.get(
      MetricKey.taggedWithLabels(key, labelsOf(attributes))
    )
    others.set(id, known)
    return known
  }
  const listener: ConnectionPool.Pool["listener"] = (seconds, exit) => {
    const hook = Exit.isSuccess(exit) ? succeeded : hookOf(outcome(exit))
    hook.update(seconds)
  }
  return Effect.acquireRelease(
    Effect.sync(() => {
      pool.listener = listener
    }),
    () =>
      Effect.sync(() => {
        // whoever asked for the pool's metrics meanwhile has one of their own there
        if (pool.listener === listener) pool.listener = undefined
      })
  )
}

const addAll = (pool: ConnectionPool.Pool): Scoped =>
  Effect.flatMap(Effect.metricLabels, (around) => {
    const labels = [...around, MetricLabel.make("db.client.connection.pool.name", pool.config.name)]
    return Effect.all([
      Effect.forEach(numbers, (metric) => addNumbers(pool, metric, labels), { discard: true }),
      addTimes(pool, labels),
      listenTo(pool, labels)
    ], { discard: true })
  })

/** The pools whose metrics are there, and how often that was asked for: to count a pool twice would be wrong. */
const metered = globalValue(
  Symbol.for("effect-sql-pool/PoolMetrics/metered"),
  () => new WeakMap<ConnectionPool.Pool, { users: number; readonly scope: Scope.CloseableScope }>()
)

/**
 * Has Effect's metrics tell of the pool, for as long as the scope. Asked for twice they are there once. When the scope
 * ends, what counts up stays at what it was and everything else becomes 0. Metric labels around it (`Effect.tagMetrics`)
 * are attributes of them all. Never fails.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (pool: ConnectionPool.Pool): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.suspend(() => {
      const known = metered.get(pool)
      if (known !== undefined) {
        known.users++
        return Effect.succeed(known)
      }
      return Effect.tap(
        Effect.map(Scope.make(), (scope) => ({ users: 1, scope })),
        (use) => {
          metered.set(pool, use)
          return Scope.extend(addAll(pool), use.scope)
        }
      )
    }),
    (use, exit) => {
      if (--use.users > 0) return Effect.void
      metered.delete(pool)
      return Scope.close(use.scope, exit)
    }
  ))

/**
 * The metrics of the program's default pool, beside the layer that provides it:
 * `Layer.provideMerge(PoolMetrics.layer, DbLayer.mysql(options))`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<never, never, ConnectionPool.ConnectionPool> = Layer.scopedDiscard(
  Effect.flatMap(ConnectionPool.ConnectionPool, make)
)

/**
 * The metrics of the pool of a named database: `PoolMetrics.layerFor("replica")` beside `DbLayer.config("replica")`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerFor = <Name extends string>(
  name: Name
): Layer.Layer<never, never, ConnectionPool.Named<Name>> =>
  Layer.scopedDiscard(Effect.flatMap(ConnectionPool.tag(name), make))
