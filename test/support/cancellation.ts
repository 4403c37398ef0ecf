/** What the tests of interrupted statements have in common: a pool behind an interceptor, and the time an interruption takes. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Db from "../../src/Db.js"
import type { Services } from "../../src/DbLayer.js"
import type { MysqlOptions, PoolOptions } from "../../src/PoolConfig.js"
import { type DbFixture, eventually, withFixture, withLayer } from "./dbFixture.js"
import { snapshot } from "./dbQuestions.js"
import { type EventLoop, watchEventLoop } from "./eventLoop.js"
import { type Interceptor, openInterceptor } from "./interceptor.js"

export interface Scene {
  readonly fixture: DbFixture
  readonly proxy: Interceptor
  readonly loop: EventLoop
  readonly db: Db.DbService
}

/** On a pool behind an interceptor. */
export const scene = (
  options: MysqlOptions & PoolOptions,
  test: (scene: Scene) => Effect.Effect<void, unknown, Services>
) =>
  withFixture((fixture) =>
    Effect.scoped(Effect.gen(function*() {
      const proxy = yield* openInterceptor(fixture.server)
      const loop = yield* watchEventLoop
      yield* withLayer(
        { url: fixture.url, port: proxy.port, acquireTimeout: "10 seconds", ...options },
        Effect.flatMap(Db.Db, (db) => test({ fixture, proxy, loop, db }))
      )
    }))
  )

/** How many requests to stop a statement have reached the server. */
export const kills = ({ passed }: Interceptor): number =>
  passed.filter(({ text, what }) => what === "request" && text.includes("KILL QUERY")).length

/** Interrupts the fiber and answers how many milliseconds that took, without the event loop's own delays. */
export const interrupt = (fiber: Fiber.RuntimeFiber<unknown, unknown>, loop: EventLoop) =>
  Effect.suspend(() => {
    const from = performance.now()
    return Effect.map(Fiber.interrupt(fiber), () => {
      const to = performance.now()
      return to - from - loop.blocked(from, to)
    })
  })

/**
 * Waits until a statement with this text, which is prepared first, has been sent to be executed, on so many connections: sooner
 * known than by asking the server.
 */
export const executing = ({ passed }: Interceptor, text: string, times = 1): Effect.Effect<void> => {
  const isExecuted = (connection: number): boolean => {
    const requests = passed.filter((one) => one.connection === connection && one.what === "request")
    return requests.findIndex((one) => one.text.includes(text)) < requests.length - 1
  }
  return eventually(
    `${text} is executed`,
    Effect.sync(() => {
      const said = passed.filter((one) => one.what === "request" && one.text.includes(text))
      return [...new Set(said.map(({ connection }) => connection))].filter(isExecuted).length >= times
    })
  )
}

export const closed = (count: number) =>
  eventually(`${count} connections are closed`, Effect.map(snapshot, (now) => now.closed === count))

export const idle = (count: number) =>
  eventually(`${count} connections are idle`, Effect.map(snapshot, (now) => now.idle === count))
