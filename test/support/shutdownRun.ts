/** Starts `shutdownProgram.ts`, a program with a pool in a process of its own, hears what it says, and ends it. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { PoolOptions } from "../../src/PoolConfig.js"
import { eventually } from "./dbFixture.js"

export interface ShutdownOptions {
  readonly scenario:
    | "ends"
    | "idle"
    | "works"
    | "main works"
    | "transaction"
    | "main transaction"
    | "commit"
    | "stream"
    | "queue"
  /** What it runs, where the scenario leaves that open. */
  readonly sql: string
  readonly pool: PoolOptions
  /** Whether runMain may call process.exit, as it does after a signal. Default: no, so that what is left would show. */
  readonly exits?: boolean
}

/** Something that happened to the program. */
export interface Said {
  readonly event: string
  readonly [fact: string]: unknown
}

/** How the process ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface ShutdownRun {
  /** Waits until it has said that, and answers the facts. */
  readonly heard: (event: string) => Effect.Effect<Said>
  /** What it has said of that so far. */
  readonly said: (event: string) => Said | undefined
  /** What it has logged so far. */
  readonly log: () => string
  readonly goOn: Effect.Effect<void>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

const parse = (line: string): Said | undefined => {
  if (!line.startsWith("{\"event\":")) return undefined
  return JSON.parse(line) as Said
}

/** Starts it for as long as the scope, and waits until it runs; the database is where the URL says. */
export const startShutdown = (
  url: Redacted.Redacted,
  options: ShutdownOptions
): Effect.Effect<ShutdownRun, never, Scope.Scope> =>
  Effect.tap(startProcess(url, options), (run) => run.heard("started"))

const startProcess = (
  url: Redacted.Redacted,
  options: ShutdownOptions
): Effect.Effect<ShutdownRun, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(
          process.execPath,
          ["--import", "tsx", fileURLToPath(new URL("shutdownProgram.ts", import.meta.url)), JSON.stringify(options)],
          { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, SHUTDOWN_URL: Redacted.value(url) } }
        )
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    ),
    (child): ShutdownRun => {
      const all: Array<Said> = []
      const lines: Array<string> = []
      let end: Ended | undefined
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => {
          const said = parse(line)
          if (said === undefined) lines.push(line)
          else all.push(said)
        })
      }
      // gone when it ends; then there is nobody to tell
      child.stdin.on("error", () => {})
      // only now everything that it has said has been read
      child.once("close", (code, signal) => {
        end = { code, signal }
      })
      const said = (event: string) => all.find((one) => one.event === event)
      const log = () => lines.join("\n")
      return {
        heard: (event) =>
          Effect.map(
            eventually(
              `the program says ${event}`,
              Effect.suspend(() =>
                end === undefined || said(event) !== undefined
                  ? Effect.succeed(said(event) !== undefined)
                  : Effect.dieMessage(`it ended and did not say ${event}: ${JSON.stringify(all)}\n${log()}`)
              ),
              30_000
            ),
            () => said(event) as Said
          ),
        said,
        log,
        goOn: Effect.sync(() => {
          child.stdin.write("\n")
        }),
        signal: (signal) =>
          Effect.sync(() => {
            child.kill(signal)
          }),
        ended: Effect.map(
          eventually("the program ends", Effect.sync(() => end !== undefined), 30_000),
          () => end as Ended
        )
      }
    }
  )
