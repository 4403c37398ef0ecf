/**
 * Every fault in every phase. The tables below say how the caller fares that the fault meets, how one fares that comes while
 * it lasts, and which of the pool's own bounds each has to keep; what each fault means is in `matrixFaults.ts`. Afterwards
 * the next statement succeeds, what was written is what the caller was told, and nothing is left behind.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll } from "vitest"
import { runColumn } from "../support/matrix.js"
import { type FaultName, makeFaults } from "../support/matrixFaults.js"
import type { PhaseName } from "../support/matrixPhases.js"
import { type Expected, lateness, matrixText, type Measured, phaseNames } from "../support/matrixTable.js"
import { watchUnhandled } from "../support/noise.js"
import { type PrivateServer, startServer } from "../support/privateServer.js"

const served: Expected = ["ok", "acquire", "statement"]
/** Since the last rows that it got. */
const streamed: Expected = ["ok", "statement"]
/** The socket says so, or the statement's time runs out and it cannot be stopped. */
const unknown: Expected = ["ConnectionLost unknown", "statement", "cancel"]
const rolledBack: Expected = ["ConnectionLost rolled back", "statement", "cancel"]
const unreachable = (why: string): Expected => [`PoolUnreachable ${why}`, "acquire"]
/** After as many attempts as the recovery schedule gives. */
const readOnly: Expected = ["ReadOnlyError", "acquire", "statement", "recovery"]
/** A transaction is not run again by itself. */
const readOnlyOnce: Expected = ["ReadOnlyError", "statement", "cancel"]

/** A connection that breaks: what is in flight is told, and everything else has another one at once. */
const broken: Record<PhaseName, Expected> = {
  "idle": served,
  "connecting": served,
  "in a statement": unknown,
  "in a stream": unknown,
  "in a transaction": rolledBack,
  "in COMMIT": unknown,
  "in a reset": served,
  "in a validation": served
}

/** The same, and there is no other one to be had. */
const brokenAndGone = (why: string): Record<PhaseName, Expected> => ({
  ...broken,
  "idle": unreachable(why),
  "connecting": unreachable(why),
  "in a reset": unreachable(why),
  "in a validation": unreachable(why)
})

/** Nobody says that the connection is gone: what is sent on it runs into its own bounds. */
const silent: Record<PhaseName, Expected> = { ...brokenAndGone("no answer"), "idle": unknown }

const callers: Record<FaultName, Record<PhaseName, Expected>> = {
  "clean close": broken,
  "RST": broken,
  "black hole": silent,
  "server SIGSTOP": silent,
  "server SIGKILL, restart": brokenAndGone("ECONNRESET"),
  "stalled handshake": brokenAndGone("no answer"),
  "refused port": brokenAndGone("ECONNREFUSED"),
  "too many connections": brokenAndGone("1040"),
  // silent at first, so that the idle one is still believed in
  "slow close": { ...broken, "idle": unknown },
  "read-only refusal": {
    "idle": readOnly,
    "connecting": readOnly,
    "in a statement": readOnly,
    "in a stream": streamed,
    "in a transaction": readOnlyOnce,
    "in COMMIT": readOnlyOnce,
    "in a reset": readOnly,
    "in a validation": readOnly
  }
}

const everywhere = (expected: Expected): Record<PhaseName, Expected> =>
  Object.fromEntries(phaseNames.map((phase) => [phase, expected])) as Record<PhaseName, Expected>

const newcomers: Record<FaultName, Record<PhaseName, Expected>> = {
  "clean close": everywhere(served),
  "RST": everywhere(served),
  "black hole": everywhere(unreachable("no answer")),
  "server SIGSTOP": everywhere(unreachable("no answer")),
  "server SIGKILL, restart": everywhere(unreachable("ECONNRESET")),
  "stalled handshake": everywhere(unreachable("no answer")),
  "refused port": everywhere(unreachable("ECONNREFUSED")),
  "too many connections": everywhere(unreachable("1040")),
  "slow close": everywhere(served),
  // it only reads
  "read-only refusal": everywhere(served)
}

const next: Expected = ["ok", "acquire"]

const hows = (of: (phase: PhaseName) => string) => Object.fromEntries(phaseNames.map((phase) => [phase, of(phase)]))

describe("a fault, wherever it finds a caller, leaves nobody waiting beyond its deadline:", () => {
  const measured = new Map<FaultName, Measured>()
  const meanings = new Map<FaultName, string>()
  let server: PrivateServer
  beforeAll(async () => {
    server = await startServer()
    for (const [name, { means }] of Object.entries(makeFaults(server, () => []))) meanings.set(name as FaultName, means)
  })
  afterAll(async () => {
    process.stdout.write(matrixText(measured, meanings))
    await server.stop()
  })

  for (const fault of Object.keys(callers) as ReadonlyArray<FaultName>) {
    it.scopedLive(fault, () =>
      Effect.gen(function*() {
        const unhandled = yield* watchUnhandled
        const column = yield* runColumn(server, fault)
        const { cells, noise } = column
        const cell = (phase: PhaseName) => cells.get(phase)!
        measured.set(fault, {
          column,
          caller: (phase) => callers[fault][phase],
          newcomer: (phase) => newcomers[fault][phase]
        })
        expect(hows((phase) => cell(phase).caller.how)).toEqual(hows((phase) => callers[fault][phase][0]))
        expect(hows((phase) => cell(phase).newcomer.how)).toEqual(hows((phase) => newcomers[fault][phase][0]))
        expect(hows((phase) => cell(phase).next.how)).toEqual(hows(() => next[0]))
        expect(phaseNames.flatMap((phase) => [
          ...lateness(`the caller ${phase}`, cell(phase).caller, callers[fault][phase], noise),
          ...lateness(`the newcomer ${phase}`, cell(phase).newcomer, newcomers[fault][phase], noise),
          ...lateness(`the next statement ${phase}`, cell(phase).next, next, noise)
        ])).toEqual([])
        expect(phaseNames.flatMap((phase) => cell(phase).leftovers.map((what) => `${phase}: ${what}`))).toEqual([])
        expect(unhandled()).toEqual([])
      }))
  }
})
