/**
 * Web requests: an HTTP server of `@effect/platform` on which every request has one connection.
 *
 * `npx tsx examples/web.ts` answers a few requests of its own and ends; `PORT=3000 npx tsx examples/web.ts` stays until
 * it is stopped. On embedded SQLite, or on the server that `DB_PRIMARY_URL` names, where it needs no table.
 */
import { FetchHttpClient, HttpClient, HttpRouter, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Array, Config, Console, Effect, Fiber, Layer, Option, Schedule } from "effect"
import { createServer } from "node:http"
import { Db, DbLayer, PoolStats } from "../src/index.js"

/** Which connection a statement runs on. */
const connectionId = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.value("SELECT 1")
  return Option.match(yield* db.currentConnection, { onNone: () => "none", onSome: ({ id }) => id })
})

// #region router
const comeAgain = HttpServerResponse.text("Try again later", { status: 503 })

const router = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/square/:number",
    Effect.gen(function*() {
      const db = yield* Db.Db
      const { number } = yield* HttpRouter.params
      // what else a request does
      yield* Effect.sleep("5 millis")
      const square = yield* db.value<number>("SELECT :n * :n", { n: Number(number) })
      return yield* HttpServerResponse.json(Option.getOrNull(square))
    })
  ),
  // what a request forks, as `timeout` and parallel `all` do, is on the connection of the request
  HttpRouter.get(
    "/connections",
    Effect.all([connectionId, Effect.timeout(connectionId, "1 second"), connectionId], { concurrency: 3 }).pipe(
      Effect.flatMap(HttpServerResponse.json)
    )
  ),
  // stands for a report that takes long; whoever asked for it may go away
  HttpRouter.get(
    "/report",
    Effect.zipRight(connectionId, Effect.as(Effect.sleep("1 minute"), HttpServerResponse.empty()))
  ),
  // one connection from the first line of the handler to the last, and back in the pool however it ends
  HttpRouter.use((request) => Effect.flatMap(Db.Db, (db) => db.session(request))),
  // more load than the pool can take is an answer, too
  HttpRouter.catchTags({ PoolExhausted: () => comeAgain, PoolUnreachable: () => comeAgain })
)
// #endregion

/** Requests to the server itself. */
const requests = Effect.gen(function*() {
  const client = yield* HttpClient.HttpClient
  const get = (path: string) => Effect.scoped(Effect.flatMap(client.get(path), (response) => response.text))
  const snapshot = Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)
  const held = (count: number) =>
    Effect.repeat(snapshot, { until: ({ held }) => held === count, schedule: Schedule.spaced("10 millis") })

  const squares = yield* Effect.forEach(Array.range(1, 100), (n) => get(`/square/${n}`), { concurrency: "unbounded" })
  yield* Console.log(`100 requests at once: the last one's answer is ${squares.at(-1)}`)
  const { created, max } = yield* snapshot
  yield* Console.log(`they were served by ${created} connections of at most ${max}`)
  yield* Console.log(`three statements side by side in one request: connections ${yield* get("/connections")}`)

  const report = yield* Effect.fork(get("/report"))
  yield* held(1)
  yield* Console.log("a client waits for its report: 1 connection is held")
  yield* Fiber.interruptFork(report)
  yield* held(0)
  yield* Console.log("it has gone away: 0 connections are held")
})

const server = (port: number) =>
  HttpServer.serve(router).pipe(
    HttpServer.withLogAddress,
    Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port }))
  )

const program = Effect.flatMap(
  Config.option(Config.integer("PORT")),
  Option.match({
    onSome: (port) => Layer.launch(server(port)),
    onNone: () => {
      const itself = Layer.provide(HttpServer.layerTestClient, Layer.merge(server(0), FetchHttpClient.layer))
      return Effect.provide(requests, itself)
    }
  })
)

const database = process.env["DB_PRIMARY_URL"] === undefined ? DbLayer.sqlite() : DbLayer.primary

// Ctrl-C and SIGTERM interrupt the program: no new requests, and those under way have `drainTimeout` to end
NodeRuntime.runMain(Effect.provide(program, database))
