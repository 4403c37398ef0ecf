/**
 * A server that means harm, or has lost its mind: what a real one has said is repeated with lies in it. Whatever it says,
 * the caller gets a result or a typed error within its bounds, and the process goes on with nothing left behind.
 */
import { afterEach, beforeEach, describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import { clearParserCache } from "mysql2"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import * as DbError from "../../src/DbError.js"
import * as MysqlDriver from "../../src/MysqlDriver.js"
import { type DbFixture, eventually, withFixture } from "../support/dbFixture.js"
import { watchEventLoop } from "../support/eventLoop.js"
import { collected } from "../support/flatness.js"
import { connectionScenarios, poolScenarios, type Scenario } from "../support/hostilePrograms.js"
import { caseOf, packet, packetsIn } from "../support/mutations.js"
import { type Liar, type Lie, replay, type Script, scriptOf } from "../support/replay.js"
import { openWiretap, saidBy } from "../support/wiretap.js"

const seed = 20_260_801
const scenarios = { ...connectionScenarios, ...poolScenarios }
/** The scheduler's, on a machine that does other things besides; the bounds themselves are the scenarios'. */
const noise = 3_000

/**
 * Bytes in and outside of the heap that are still held, less what mysql2 keeps on purpose: a function that reads rows for
 * each of the last 15,000 kinds of columns that it has met.
 */
const kept = Effect.promise(async () => {
  clearParserCache()
  await collected()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
})

type Scripts = ReadonlyArray<readonly [scenario: string, script: Script]>

/** So that the server asks for another way to log in, and that is recorded too. MySQL greets with this one by itself. */
const otherPlugin = (greeting: Buffer): Buffer =>
  Buffer.from(greeting.toString("latin1").replace("mysql_native_password", "caching_sha2_password"), "latin1")

/** What a real server says in each of the scenarios. */
const record = (fixture: DbFixture): Effect.Effect<Scripts> =>
  Effect.orDie(Effect.forEach(Object.entries(scenarios), ([name, { run }]) =>
    Effect.scoped(Effect.gen(function*() {
      const tap = yield* openWiretap(fixture.server, otherPlugin)
      const url = new URL(Redacted.value(fixture.url))
      url.port = String(tap.port)
      yield* run(Redacted.make(url.href))
      expect(tap.wires, name).toHaveLength(1)
      return [name, scriptOf(tap.wires[0] ?? [])] as const
    }))))

const withScripts = <A, E, R>(test: (scripts: Scripts) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    withFixture((fixture) =>
      Effect.gen(function*() {
        const table = `${fixture.database}.items`
        yield* fixture.admin(`CREATE TABLE ${table} (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(9) UNIQUE)`)
        yield* fixture.admin(`INSERT INTO ${table} (name) VALUES ('first'), ('second'), ('third')`)
        return yield* record(fixture)
      })
    ),
    test
  )

// --- cases -----------------------------------------------------------------------------------------------------------

interface Outcome {
  readonly told: boolean
  readonly what: string
  readonly millis: number
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "a result"
  const { cause } = exit
  const typed = cause._tag === "Fail" ? DbError.find(cause.error) : undefined
  return typed?._tag ?? `NOT TYPED: ${inspect(cause, { depth: 5 })}`
}

const against = (scenario: Scenario, script: Script, lie?: Lie): Effect.Effect<Outcome> =>
  Effect.scoped(Effect.gen(function*() {
    const liar: Liar = { told: false, bytes: 0 }
    const port = yield* replay(script, liar, lie)
    const start = performance.now()
    const exit = yield* Effect.exit(scenario.run(Redacted.make(`mysql://app:secret@127.0.0.1:${port}/shop`)))
    return { told: liar.told, what: outcomeOf(exit), millis: performance.now() - start }
  })).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, Logger.none)))

interface Report {
  reached: number
  slowest: number
  readonly bad: Array<string>
  readonly told: Map<string, Map<string, number>>
}

const enter = (report: Report, mutation: string, { millis, told, what }: Outcome): void => {
  report.reached += told ? 1 : 0
  report.slowest = Math.max(report.slowest, millis)
  const row = report.told.get(mutation) ?? new Map<string, number>()
  report.told.set(mutation, row.set(what, (row.get(what) ?? 0) + 1))
}

const runCases = (all: Scripts, names: Readonly<Record<string, Scenario>>, cases: number, atOnce: number) =>
  Effect.gen(function*() {
    const scripts = all.filter(([name]) => name in names)
    const report: Report = { reached: 0, slowest: 0, bad: [], told: new Map() }
    const start = performance.now()
    yield* Effect.forEach(Array.from({ length: cases }, (_, number) => number), (number) =>
      Effect.gen(function*() {
        const { lie, mutation, scenario, script, turn } = caseOf(seed, number, scripts)
        const outcome = yield* against(scenarios[scenario] as Scenario, script, lie)
        enter(report, mutation, outcome)
        const { millis, what } = outcome
        if (what.startsWith("NOT") || millis > (scenarios[scenario]?.bound ?? 0) + noise) {
          report.bad.push(`case ${number}: ${mutation} in turn ${turn} of ${scenario}: ${what} after ${millis} ms`)
        }
      }), { concurrency: atOnce, discard: true })
    console.log(
      `${cases} cases, seed ${seed}, in ${
        ((performance.now() - start) / 1_000).toFixed(1)
      } s: ${report.reached} came as `
        + `far as the lie; the slowest ${report.slowest.toFixed(0)} ms; `
        + `${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB resident`
    )
    for (const [mutation, row] of report.told) {
      console.log(`  ${mutation}: ${[...row].map(([what, count]) => `${what} ${count}`).join(", ")}`)
    }
    expect(report.bad).toEqual([])
    // few may end before, as where a deadline passes on a machine that is busy
    expect(report.reached).toBeGreaterThan(cases * 0.9)
  })

const sockets = (): number => process.getActiveResourcesInfo().filter((name) => /^(TCP|TLS|Pipe)/.test(name)).length

const consoleError = console.error
const unhandled: Array<unknown> = []
const note = (error: unknown): void => void unhandled.push(error)

beforeEach(() => {
  process.on("unhandledRejection", note)
  process.on("uncaughtException", note)
  // mysql2 writes a line for each packet that is out of order; a mock would remember them all
  console.error = () => undefined
})

afterEach(() => {
  console.error = consoleError
  process.off("unhandledRejection", note)
  process.off("uncaughtException", note)
  expect(unhandled.splice(0)).toEqual([])
})

describe("what a real server says, repeated", () => {
  it.live("word for word, is what it was", () =>
    withScripts((scripts) =>
      Effect.forEach(scripts, ([name, script]) =>
        Effect.map(
          against(scenarios[name] as Scenario, script),
          ({ what }) => expect([name, what]).toEqual([name, "a result"])
        ))
    ))

  it.live(
    "with lies in it, gives a result or a typed error in time, and leaves nothing behind",
    () =>
      withScripts((scripts) =>
        Effect.gen(function*() {
          const before = sockets()
          const memory = yield* kept
          yield* runCases(scripts, connectionScenarios, 9_000, 32)
          yield* runCases(scripts, poolScenarios, 1_000, 32)
          yield* eventually("no socket is left", Effect.sync(() => sockets() <= before))
          // of the lies nothing is kept: what stays is what ran for the first time
          const more = ((yield* kept) - memory) / 2 ** 20
          process.stdout.write(`kept after 10,000 lies: ${more.toFixed(1)} MiB\n`)
          expect(more).toBeLessThan(50)
        })
      ),
    180_000
  )
})

// --- lies of one kind ------------------------------------------------------------------------------------------------

/** As much as the client takes. */
const forEver = (piece: Buffer): Lie["pieces"] =>
  function*() {
    for (;;) yield piece
  }

/** Where it answers the setup of the session, of which it hears several statements at once. */
const setupOf = (script: Script): number =>
  script.findIndex(({ heard }, turn) => heard - (script[turn - 1]?.heard ?? 0) > 1)

const phases: Readonly<Record<string, (script: Script) => number>> = {
  "its greeting": () => 0,
  "the answer to the login": () => 1,
  "the session's setup": setupOf
}

describe("a server that never comes to an end in", () => {
  it.live.each(Object.entries(phases))(
    "%s is cut off",
    ([what, turnOf]) =>
      withScripts((scripts) =>
        Effect.scoped(Effect.gen(function*() {
          const [, script] = scripts[0] as Scripts[number]
          const turn = turnOf(script)
          expect(turn).toBeGreaterThanOrEqual(0)
          // a packet in parts, of which each is as long as one can be
          const header = Buffer.from([0xff, 0xff, 0xff, turn === 0 ? 0 : 2])
          const part = Buffer.concat([header, Buffer.alloc(0xffffff)])
          const liar: Liar = { told: false, bytes: 0 }
          const port = yield* replay(script, liar, { turn, pieces: forEver(part), then: "fall silent" })
          const driver = yield* MysqlDriver.make({ url: Redacted.make(`mysql://app:secret@127.0.0.1:${port}/shop`) })
          const error = yield* Effect.flip(driver.connect)
          expect(error).toMatchObject({ _tag: "ConnectionError", reason: expect.stringContaining("says too much") })
          console.log(`${what}: cut off after ${(liar.bytes / 2 ** 20).toFixed(0)} MiB`)
          // one part, and what was on its way
          expect(liar.bytes).toBeLessThan(4 * part.length)
        }))
      )
  )
})

/** The request instead of the answer; of several answers in one turn, instead of the second too. */
const requests = (bytes: Buffer, file: string, name: string): ReadonlyArray<ReadonlyArray<Buffer>> => {
  const [first = Buffer.alloc(4)] = packetsIn(bytes)
  const request = packet(1, Buffer.concat([Buffer.of(0xfb), Buffer.from(file)]))
  // the answer to a prepare cannot ask for anything
  if (first[4] === 0 && first.length === 16) return []
  return name === "several statements" ? [[request], [first, request]] : [[request]]
}

const expectRefused = (name: string, script: Script, lie: Lie, expected: string) =>
  Effect.scoped(Effect.gen(function*() {
    const liar: Liar = { told: false, bytes: 0 }
    const real = yield* replay(script, liar, lie)
    const tap = yield* openWiretap({ host: "127.0.0.1", port: real })
    const url = Redacted.make(`mysql://app:secret@127.0.0.1:${tap.port}/shop`)
    const loop = yield* watchEventLoop
    const start = performance.now()
    const exit = yield* Effect.exit((connectionScenarios[name] as Scenario).run(url))
    const end = performance.now()
    expect(liar.told).toBe(true)
    expect([name, lie.turn, outcomeOf(exit)]).toEqual([name, lie.turn, expected])
    expect(inspect(exit, { depth: Infinity })).toContain("asked for a file")
    // at once, and not because its time was over
    expect(end - start - loop.blocked(start, end)).toBeLessThan(1_000)
    const [wire = []] = tap.wires
    expect(saidBy("client", wire).includes("the file's content")).toBe(false)
    expect(wire.at(-1)?.by, "who spoke last").toBe("server")
  }))

const fileCases = ["a SELECT", "several statements", "a stream", "a reset"]

describe("a server that asks for a file of the client", () => {
  it.live("in answer to anything gets none, and the connection is closed", () =>
    withScripts((scripts) =>
      Effect.scoped(Effect.gen(function*() {
        const folder = yield* Effect.acquireRelease(
          Effect.promise(() => mkdtemp(join(tmpdir(), "effect-sql-pool-file-"))),
          (path) => Effect.promise(() => rm(path, { recursive: true }))
        )
        const file = join(folder, "canary.txt")
        yield* Effect.promise(() => writeFile(file, "the file's content"))
        for (const [name, script] of scripts.filter(([name]) => fileCases.includes(name))) {
          const setup = setupOf(script)
          expect(setup).toBeGreaterThan(1)
          // from the setup of the session on; before it nobody has asked for anything
          for (let turn = setup; turn < script.length; turn++) {
            for (const pieces of requests(script[turn]?.bytes ?? Buffer.alloc(0), file, name)) {
              const expected = turn === setup ? "ConnectionError" : "ConnectionLost"
              yield* expectRefused(name, script, { turn, pieces: () => pieces, then: "fall silent" }, expected)
            }
          }
        }
      }))
    ))
})
