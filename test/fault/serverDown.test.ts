/** A server that is down, or gives fewer connections than the pool would take: who tries, how often, and who is told what. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import { ConnectionPool } from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import {
  type DbFixture,
  eventually,
  type ServerAddress,
  withFixture,
  withLayer,
  withServer
} from "../support/dbFixture.js"
import { connectionId, latch, snapshot, valueOf } from "../support/dbQuestions.js"
import { measureNoise } from "../support/noise.js"

/** A host that is down and sees who tries. */
interface Door {
  readonly port: number
  /** When each attempt came. */
  readonly attempts: ReadonlyArray<number>
  /** How many were open at the same moment, at most. */
  readonly most: () => number
  /** The server is back. */
  readonly open: () => void
}

const slams = (socket: Socket): void => void socket.resetAndDestroy()
const ignores = (): void => {}

const openDoor = (
  server: ServerAddress,
  whileDown: (socket: Socket) => void
): Effect.Effect<Door, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const attempts: Array<number> = []
        const sockets = new Set<Socket>()
        const door = { most: 0, down: true }
        const listener = createServer((socket) => {
          attempts.push(performance.now())
          sockets.add(socket)
          door.most = Math.max(door.most, sockets.size)
          socket.on("error", () => socket.destroy()).on("close", () => sockets.delete(socket)).resume()
          if (door.down) return whileDown(socket)
          const upstream = connect(server.port, server.host)
          upstream.on("error", () => socket.destroy())
          socket.on("close", () => upstream.destroy())
          socket.pipe(upstream).pipe(socket)
        })
        listener.listen(0, "127.0.0.1")
        await once(listener, "listening")
        return { attempts, door, listener, sockets }
      }),
      ({ listener, sockets }) =>
        Effect.sync(() => {
          listener.close()
          for (const socket of sockets) socket.destroy()
        })
    ),
    ({ attempts, door, listener }) => ({
      port: (listener.address() as { readonly port: number }).port,
      attempts,
      most: () => door.most,
      open: () => {
        door.down = false
      }
    })
  )

const base = 50
const cap = 1_000

describe("a host that is down", () => {
  const ways = {
    "refuses": { whileDown: slams, connectTimeout: 2_000, cause: { code: "ECONNRESET" } },
    "says nothing": { whileDown: ignores, connectTimeout: 100, cause: { reason: "no answer within 100 ms" } }
  }
  for (const [how, { cause, connectTimeout, whileDown }] of Object.entries(ways)) {
    it.scopedLive(`and ${how} is tried by one at a time, ever more seldom, however many wait; all are told why`, () =>
      withFixture((fixture) =>
        Effect.gen(function*() {
          const door = yield* openDoor(fixture.server, whileDown)
          const noise = yield* measureNoise
          yield* withLayer(
            { url: fixture.url, port: door.port, poolSize: 10, acquireTimeout: 2_500, connectTimeout },
            Effect.gen(function*() {
              const began = performance.now()
              const errors = yield* Effect.forEach(
                Array.from({ length: 50 }),
                () => Effect.flip(connectionId),
                { concurrency: "unbounded" }
              )
              const took = performance.now() - began
              for (const error of errors) expect(error).toMatchObject({ _tag: "PoolUnreachable", cause })
              const attempts = door.attempts.filter((at) => at < began + took)
              const gaps = attempts.slice(1).map((at, index) => at - attempts[index]!)
              // each delay is anything up to its bound; with a connect that is not answered its own time comes before
              const spent = how === "refuses" ? 0 : connectTimeout
              expect(gaps.filter((gap, n) => gap > spent + Math.min(cap, base * 2 ** n) + 50 + 2 * noise.worst()))
                .toEqual([])
              expect(door.most()).toBe(1)
              expect(attempts.length).toBeGreaterThan(2)
              // were there no back-off, or one for each who waits, there would be hundreds
              expect(attempts.length).toBeLessThan(40)
              process.stdout.write(
                `a host that ${how}, 50 fibers: ${attempts.length} attempts in ${Math.round(took)} ms, `
                  + `gaps ${gaps.map(Math.round).join(", ")} ms, timers up to ${noise.worst().toFixed(1)} ms late\n`
              )
            })
          )
        })
      ))
  }

  it.scopedLive("serves everybody who waits within one step of the back-off, when it is back", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const door = yield* openDoor(fixture.server, slams)
        const noise = yield* measureNoise
        yield* withLayer(
          { url: fixture.url, port: door.port, poolSize: 10, acquireTimeout: "20 seconds" },
          Effect.gen(function*() {
            const waiting = yield* Effect.forEach(Array.from({ length: 50 }), () => Effect.fork(connectionId))
            yield* Effect.sleep(1_500)
            const attempts = door.attempts.length
            door.open()
            const back = performance.now()
            yield* eventually("it is tried again", Effect.sync(() => door.attempts.length > attempts))
            const found = performance.now() - back
            yield* Fiber.joinAll(waiting)
            const served = performance.now() - back
            expect(found).toBeLessThanOrEqual(cap + 50 + noise.worst())
            expect(yield* snapshot).toMatchObject({ waiting: 0, timedOut: 0 })
            process.stdout.write(
              `a host that is back: found after ${Math.round(found)} ms, 50 fibers served after ${
                Math.round(served)
              } ms\n`
            )
          })
        )
      })
    ))
})

const rounds = (fibers: number) =>
  Effect.forEach(
    Array.from({ length: fibers }, (_, n) => n),
    (n) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        for (let round = 0; round < 5; round++) {
          expect(Number(yield* valueOf(db, `SELECT ${n} + SLEEP(0.01)`))).toBe(n)
        }
      }),
    { concurrency: "unbounded", discard: true }
  )

/** That the pool lives with what it gets, and takes more when it is given more. */
const settlesAt = (given: number, giveMore: Effect.Effect<unknown>, fibers: number) =>
  Effect.gen(function*() {
    const began = performance.now()
    yield* rounds(fibers)
    const first = yield* snapshot
    expect(first).toMatchObject({ idle: given, held: 0, waiting: 0, created: given, lost: 0, timedOut: 0 })
    expect(first.connectFailures).toBeGreaterThan(0)
    // one prober: its attempts are bounded by the time that it had, not by who waits
    expect(first.connectFailures).toBeLessThan(10 + (performance.now() - began) / 50)
    yield* giveMore
    const pool = yield* ConnectionPool
    const together = yield* latch(10)
    yield* Effect.forEach(
      Array.from({ length: 10 }),
      () => Effect.scoped(Effect.zipRight(Effect.flatMap(Db.Db, (db) => db.connection), together)),
      { concurrency: "unbounded", discard: true }
    )
    expect(yield* pool.snapshot).toMatchObject({ idle: 10, created: 10, lost: 0 })
    process.stdout.write(
      `a server that gives ${given} connections: ${fibers} fibers served, ${first.connectFailures} connects refused\n`
    )
  })

const refusedWith = (errno: number) =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const together = yield* latch(4)
    const held = yield* Effect.fork(Effect.forEach(
      [1, 2, 3],
      () => Effect.scoped(Effect.all([db.connection, together, Effect.sleep(600)], { discard: true })),
      { concurrency: "unbounded", discard: true }
    ))
    yield* together
    const error = yield* Effect.flip(Effect.scoped(Effect.asVoid(db.connection)))
    expect(error).toMatchObject({
      _tag: "PoolExhausted",
      isRetryable: true,
      lastConnectFailure: { _tag: "ConnectionError", errno, isRetryable: true }
    })
    yield* Fiber.join(held)
  })

describe("a server that gives fewer connections than the pool would take", () => {
  const limit = ({ admin, user }: DbFixture, to: number) =>
    admin(`ALTER USER ${user}@'%' WITH MAX_USER_CONNECTIONS ${to}`)

  it.live("by max_user_connections: everybody is served by what there is", () =>
    withFixture((fixture) =>
      Effect.zipRight(
        limit(fixture, 3),
        withLayer(
          { url: fixture.url, poolSize: 10, acquireTimeout: "20 seconds" },
          settlesAt(3, limit(fixture, 0), 30)
        )
      )
    ))

  it.live("by max_user_connections: who waits in vain is told that all are in use, and why there are no more", () =>
    withFixture((fixture) =>
      Effect.zipRight(
        limit(fixture, 3),
        withLayer({ url: fixture.url, poolSize: 10, acquireTimeout: 300 }, refusedWith(1226))
      )
    ))

  it.live("by max_user_connections: a statement that is interrupted costs its connection, for there is none to stop it with", () =>
    withFixture((fixture) =>
      Effect.zipRight(
        limit(fixture, 1),
        withLayer(
          { url: fixture.url, poolSize: 10, acquireTimeout: "10 seconds", cancelTimeout: 500 },
          Effect.gen(function*() {
            const db = yield* Db.Db
            const running = yield* Effect.fork(db.value("SELECT SLEEP(1) AS interruptedOne"))
            yield* fixture.running("AS interruptedOne")
            yield* Fiber.interrupt(running)
            expect(yield* valueOf(db, "SELECT 1")).toBe(1)
            expect(yield* snapshot).toMatchObject({ created: 2, cancelled: 1 })
          })
        )
      )
    ))

  it.live(
    "by max_connections: the same",
    () =>
      withServer({ settings: ["--max-connections=10"] }, (server) =>
        withFixture((fixture) =>
          Effect.gen(function*() {
            // what others have: administrators are let in beyond the limit
            yield* fixture.admin("SET GLOBAL max_connections = 10")
            yield* withLayer(
              { url: fixture.url, poolSize: 7, acquireTimeout: "10 seconds" },
              Effect.gen(function*() {
                const others = yield* ConnectionPool
                const db = yield* Db.Db
                const together = yield* latch(7)
                yield* Effect.forEach(
                  Array.from({ length: 7 }),
                  () => Effect.scoped(Effect.zipRight(db.connection, together)),
                  { concurrency: "unbounded", discard: true }
                )
                expect((yield* others.snapshot).idle).toBe(7)
                const more = fixture.admin("SET GLOBAL max_connections = 200")
                yield* withLayer({ url: fixture.url, poolSize: 10, acquireTimeout: 400 }, refusedWith(1040))
                yield* withLayer(
                  { url: fixture.url, poolSize: 10, acquireTimeout: "20 seconds" },
                  settlesAt(3, more, 30)
                )
              })
            )
          }), server)),
    60_000
  )
})
