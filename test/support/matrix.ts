/**
 * One column of the matrix: the same fault for a pool in each phase, all at the same moment, each pool behind a proxy of
 * its own and with a user of its own. Measures and records; what is expected is the test's to say.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { ConnectionPool } from "../../src/ConnectionPool.js"
import { Db } from "../../src/Db.js"
import type { ConnectFailure, DbError } from "../../src/DbError.js"
import type { PoolSnapshot } from "../../src/PoolStats.js"
import { fullJitter } from "../../src/Recovery.js"
import { type DbFixture, withFixture, withLayer } from "./dbFixture.js"
import { type FaultProxy, openFaultProxy } from "./faultProxy.js"
import { type FaultName, makeFaults } from "./matrixFaults.js"
import { insert, type Phase, type PhaseName, phases, type Scene } from "./matrixPhases.js"
import { measureNoise } from "./noise.js"
import type { PrivateServer } from "./privateServer.js"

/** The bounds of the waits that a caller may have to go through, in milliseconds. */
export const bounds = {
  acquire: 1_500,
  connect: 800,
  validation: 400,
  cancel: 400,
  statement: 1_800,
  // the delays of the schedule below, at most
  recovery: 20 + 40
}

const options = {
  poolSize: 2,
  acquireTimeout: bounds.acquire,
  connectTimeout: bounds.connect,
  validationTimeout: bounds.validation,
  cancelTimeout: bounds.cancel,
  statementTimeout: bounds.statement,
  // only a suspicion leads to a validation here
  validateAfter: "1 minute",
  drainTimeout: 500,
  connectSchedule: fullJitter({ base: 20, cap: 200 }),
  recovery: Schedule.intersect(fullJitter({ base: 20, cap: 40 }), Schedule.recurs(2))
} as const

/** How a caller fared. */
export interface Settled {
  /** `ok`, or the error's class with its outcome or the cause it names. */
  readonly how: string
  readonly millis: number
}

export interface Cell {
  readonly caller: Settled
  /** Somebody who asks for a connection while the fault lasts. */
  readonly newcomer: Settled
  /** The next statement after the fault's end. */
  readonly next: Settled
  /** What is wrong afterwards, in words. */
  readonly leftovers: ReadonlyArray<string>
}

export interface Column {
  readonly cells: ReadonlyMap<PhaseName, Cell>
  /** By how much a timer was late at most, while the callers were measured. */
  readonly noise: number
}

const causeOf = (failure: ConnectFailure | undefined): string => {
  if (failure === undefined) return "not answered yet"
  const code = "code" in failure ? failure.code : undefined
  return String(failure.errno ?? code ?? failure.reason.replace(/ within .*/, ""))
}

const describe = (error: DbError): string => {
  switch (error._tag) {
    case "ConnectionLost":
      return `${error._tag} ${error.outcome}`
    case "PoolUnreachable":
      return `${error._tag} ${causeOf(error.cause)}`
    case "PoolExhausted":
      return `${error._tag} ${causeOf(error.lastConnectFailure)}`
    default:
      return error._tag
  }
}

/** Runs the effect and tells how it ended, and how long after `since`. */
const settled = <A>(effect: Effect.Effect<A, DbError>, since: () => number): Effect.Effect<Settled> =>
  Effect.map(Effect.exit(effect), (exit) => {
    const millis = performance.now() - since()
    if (Exit.isSuccess(exit)) return { how: "ok", millis }
    const { cause } = exit
    return { how: cause._tag === "Fail" ? describe(cause.error) : `no error but ${Cause.pretty(cause)}`, millis }
  })

const settledNow = <A>(effect: Effect.Effect<A, DbError>): Effect.Effect<Settled> =>
  Effect.suspend(() => {
    const now = performance.now()
    return settled(effect, () => now)
  })

/** All wait for each other; the last to come does what is to be done once before anybody goes on. */
const makeBarrier = (size: number, once: Effect.Effect<void>): Effect.Effect<Effect.Effect<void>> =>
  Effect.map(Deferred.make<void>(), (open) => {
    let come = 0
    return Effect.suspend(() => ++come === size ? Effect.asVoid(Effect.intoDeferred(once, open)) : Deferred.await(open))
  })

interface Barriers {
  /** Everything that takes time has been prepared. */
  readonly prepared: Effect.Effect<void>
  /** Every caller is where the fault is to find it; the fault has begun. */
  readonly begun: Effect.Effect<void>
  /** Everybody has settled; the fault is over. */
  readonly over: Effect.Effect<void>
}

/** Long enough for a loss to be noticed where it can be. */
const noticed = Effect.sleep(30)

const makeScene = (proxy: FaultProxy) =>
  Effect.gen(function*() {
    const reached = yield* Deferred.make<Effect.Effect<void>>()
    const go = yield* Deferred.make<void>()
    const watch = { since: 0 }
    const start = Effect.sync(() => {
      watch.since = performance.now()
    })
    const scene: Scene = {
      db: yield* Db,
      pool: yield* ConnectionPool,
      holdNow: Effect.flatMap(proxy.hold, (said) => Effect.zipRight(start, Deferred.succeed(reached, said))),
      wait: Effect.all([Deferred.succeed(reached, Effect.void), Deferred.await(go), start], { discard: true }),
      restart: start
    }
    return {
      scene,
      since: () => watch.since,
      reached: Effect.flatten(Deferred.await(reached)),
      go: Deferred.succeed(go, undefined)
    }
  })

const runCell = (
  phase: Phase,
  fixture: DbFixture,
  proxy: FaultProxy,
  hit: (proxy: FaultProxy) => Effect.Effect<void>,
  { begun, over, prepared }: Barriers
) =>
  Effect.gen(function*() {
    const { go, reached, scene, since } = yield* makeScene(proxy)
    yield* fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT PRIMARY KEY) ENGINE = InnoDB`)
    yield* Effect.orDie(phase.before(scene))
    yield* prepared
    const calling = yield* Effect.fork(settled(phase.caller(scene), since))
    yield* reached
    yield* begun
    yield* hit(proxy)
    yield* noticed
    yield* go
    const newcomer = yield* Effect.flatMap(Effect.fork(settledNow(scene.db.value("SELECT 1"))), Fiber.join)
    const caller = yield* Fiber.join(calling)
    yield* over
    yield* proxy.heal
    const next = yield* Effect.flatMap(Effect.fork(settledNow(insert(scene, 90))), Fiber.join)
    const leftovers = yield* lookForLeftovers(scene, fixture, proxy)
    const wrong = yield* checkRows(phase, fixture, caller)
    return { caller, newcomer, next, leftovers: [...leftovers, ...wrong] }
  })

/** What should not be there once all has settled down; it may take the server a moment to see a socket close. */
const lookForLeftovers = (
  scene: Scene,
  fixture: DbFixture,
  proxy: FaultProxy
): Effect.Effect<ReadonlyArray<string>> => {
  const deadline = performance.now() + 3_000
  const look: Effect.Effect<ReadonlyArray<string>> = Effect.gen(function*() {
    const counts = yield* scene.pool.snapshot
    const onServer = (yield* fixture.processes).length
    const found = leftoversOf(counts, onServer, proxy.sockets())
    if (found.length === 0 || performance.now() > deadline) return found
    return yield* Effect.zipRight(Effect.sleep(20), look)
  })
  return look
}

const leftoversOf = (
  { busy, closed, created, held, idle, opening, waiting }: PoolSnapshot,
  onServer: number,
  { clients, upstreams }: { readonly clients: number; readonly upstreams: number }
): ReadonlyArray<string> => {
  const unsettled = { held, waiting, opening, busy }
  // the one on which statements are stopped is none of the pool's
  const most = idle + 1
  return [
    ...Object.entries(unsettled).filter(([, count]) => count !== 0).map(([name, count]) => `${count} ${name}`),
    ...(created - closed === idle ? [] : [`${created} created, ${closed} closed, ${idle} idle`]),
    ...(onServer <= most ? [] : [`${onServer} connections on the server, ${idle} in the pool`]),
    ...(clients === onServer && upstreams === onServer
      ? []
      : [`${clients} and ${upstreams} sockets at the proxy, ${onServer} connections on the server`])
  ]
}

/** Whether what the caller was told is true of what it wrote. */
const checkRows = (phase: Phase, fixture: DbFixture, { how }: Settled): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(fixture.admin(`SELECT id FROM ${fixture.database}.items`), (rows) => {
    const ids = new Set(rows.map(([id]) => Number(id)))
    const written = phase.writes.filter((id) => ids.has(id)).length
    const right = how === "ok"
      ? written === phase.writes.length
      : how.endsWith("unknown")
      ? written === 0 || written === phase.writes.length
      : written === 0
    return right ? [] : [`${written} of ${phase.writes.length} rows were written by a caller that was told ${how}`]
  })

const withFixtures = <A>(
  server: PrivateServer,
  count: number,
  use: (fixtures: ReadonlyArray<DbFixture>) => Effect.Effect<A>
): Effect.Effect<A> =>
  count === 0
    ? use([])
    : withFixture(
      (fixture) => withFixtures(server, count - 1, (others) => use([fixture, ...others])),
      server
    )

const entries = Object.entries(phases) as ReadonlyArray<[PhaseName, Phase]>

/** Runs the fault for all phases at once. */
export const runColumn = (server: PrivateServer, name: FaultName): Effect.Effect<Column> =>
  withFixtures(server, entries.length, (fixtures) =>
    Effect.scoped(Effect.gen(function*() {
      const fault = makeFaults(server, () => fixtures.map(({ user }) => user))[name]
      const noise = yield* measureNoise
      // a server that stays frozen could not even be cleaned up
      const end = yield* Effect.cached(fault.end)
      yield* Effect.addFinalizer(() => end)
      let worst = 0
      const barriers: Barriers = {
        prepared: yield* makeBarrier(entries.length, Effect.sync(noise.restart)),
        begun: yield* makeBarrier(entries.length, fault.begin),
        over: yield* makeBarrier(
          entries.length,
          Effect.suspend(() => {
            worst = noise.worst()
            return end
          })
        )
      }
      const cells = yield* Effect.forEach(entries, ([phase, what], index) =>
        Effect.map(
          cellOn(server, fixtures[index]!, (proxy) => runCell(what, fixtures[index]!, proxy, fault.hit, barriers)),
          (cell) => [phase, cell] as const
        ), { concurrency: "unbounded" })
      return { cells: new Map(cells), noise: worst }
    })))

/** A pool behind a proxy of its own. */
const cellOn = <A>(
  server: PrivateServer,
  { url }: DbFixture,
  run: (proxy: FaultProxy) => Effect.Effect<A, never, Db | ConnectionPool>
): Effect.Effect<A> =>
  Effect.scoped(
    Effect.flatMap(openFaultProxy(server), (proxy) => withLayer({ ...options, url, port: proxy.port }, run(proxy)))
  )
