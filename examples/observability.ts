/**
 * What a program shows of its pool: metrics as Prometheus scrapes them, spans of statements and of waits, events, and
 * statistics.
 *
 * A service would give `NodeSdk.layer` a `PrometheusExporter` with a port and a `BatchSpanProcessor`; here both are read at
 * the end and printed.
 */
import { NodeSdk } from "@effect/opentelemetry"
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus"
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import { Console, Effect, Layer, Stream } from "effect"
import { Db, DbLayer, PoolEvents, PoolMetrics, PoolStats } from "../src/index.js"

// #region telemetry
const metrics = new PrometheusExporter({ preventServerStart: true })
const spans = new InMemorySpanExporter()

const Telemetry = NodeSdk.layer(() => ({
  resource: { serviceName: "shop" },
  metricReader: metrics,
  spanProcessor: new SimpleSpanProcessor(spans)
}))

// the metrics stand beside the database whose pool they tell of
const Database = Layer.provideMerge(PoolMetrics.layer, DbLayer.sqlite({ poolSize: 2, name: "shop" }))
// #endregion

// #region watch
/** Says who has a connection whenever somebody has to wait because all of them are taken. */
const watch = Effect.gen(function*() {
  const { stream } = yield* PoolEvents.PoolEvents
  const { holders } = yield* PoolStats.PoolStats
  const exhausted = Stream.filter(stream, ({ _tag }) => _tag === "Exhausted")
  yield* Stream.runForEach(exhausted, (event) =>
    Effect.flatMap(holders, (all) => {
      const who = all.map(({ fiber, heldMillis, kind }) => `${fiber} (${kind}, for ${heldMillis} ms)`)
      return Console.log(`${PoolEvents.format(event)}: ${who.join(", ")}`)
    }))
})
// #endregion

const order = (id: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    yield* db.transaction(Effect.all([
      db.execute("INSERT INTO orders VALUES (?, ?)", [id, 10 * id]),
      // others wait meanwhile
      Effect.sleep("5 millis")
    ]))
  }).pipe(Effect.withSpan("order", { attributes: { id } }))

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* Effect.fork(watch)
  yield* db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, price INTEGER NOT NULL)")
  yield* Effect.forEach([1, 2, 3, 4, 5, 6], order, { concurrency: 6 })
  // refused, and counted as that
  yield* Effect.ignore(order(1))

  const { resourceMetrics } = yield* Effect.promise(() => metrics.collect())
  const lines = new PrometheusSerializer(undefined, false, undefined, true, true).serialize(resourceMetrics).split("\n")
  const shown = /^(db_client_connection_(limit|count|wait_time_count)|db_client_operation_duration_count)\{/
  yield* Console.log("A scrape, in part:")
  for (const line of lines.filter((line) => shown.test(line))) yield* Console.log(`  ${line}`)

  yield* Console.log("Spans:")
  const ended = spans.getFinishedSpans()
  for (const name of ["order", "sql.execute", "sql.acquire"]) {
    const [first, ...others] = ended.filter((span) => span.name === name)
    yield* Console.log(`  ${others.length + 1} of ${name}, the first with ${JSON.stringify(first?.attributes)}`)
  }

  const { acquiredAfterWait, heldWithState, idle, max } = yield* Effect.flatMap(
    PoolStats.PoolStats,
    (stats) => stats.snapshot
  )
  yield* Console.log(`Now: ${idle} of ${max} idle, ${heldWithState} in a transaction; ${acquiredAfterWait} waits`)
})

await Effect.runPromise(program.pipe(Effect.provide(Layer.merge(Database, Telemetry))))
