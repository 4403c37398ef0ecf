import { it } from "@effect/vitest"
import { Effect, Exit, Layer, PubSub, Scope, Stream, TestClock } from "effect"
import { EventEmitter } from "node:events"
import { describe, expect } from "vitest"
import { PoolEvent, PoolEvents } from "../../src/PoolEvents.js"
import * as PoolEventsModule from "../../src/PoolEvents.js"
import * as PoolMonitor from "../../src/PoolMonitor.js"
import { type PoolSnapshot, PoolStats } from "../../src/PoolStats.js"
import * as PoolStatsModule from "../../src/PoolStats.js"
import { snapshot } from "../support/monitorViews.js"
import { settle } from "../support/poolFixture.js"
import { makeTerminal, modesIn } from "../support/terminal.js"

/** Something to write to, with a terminal behind it or without. */
const makeOutput = (size?: { readonly columns: number; readonly rows: number }) => {
  const terminal = makeTerminal(size?.columns ?? 80, size?.rows ?? 24)
  const written: Array<string> = []
  const emitter = new EventEmitter()
  const output = {
    isTTY: size !== undefined,
    columns: terminal.columns,
    rows: terminal.rows,
    write: (text: string | Uint8Array): boolean => {
      written.push(Buffer.from(text as Uint8Array).toString())
      terminal.send(text)
      return true
    },
    on: (event: "resize", listener: () => void) => emitter.on(event, listener),
    off: (event: "resize", listener: () => void) => emitter.off(event, listener)
  }
  const resize = (columns: number, rows: number): void => {
    terminal.resize(columns, rows)
    output.columns = columns
    output.rows = rows
    emitter.emit("resize")
  }
  return { output, terminal, written, resize, listeners: () => emitter.listenerCount("resize") }
}

/** A pool whose numbers a test sets. */
const makePool = (name: string) => {
  let now: Partial<PoolSnapshot> = {}
  const hub = Effect.runSync(PubSub.unbounded<PoolEvent>())
  const source: PoolMonitor.Source = {
    snapshot: Effect.map(
      Effect.clockWith((clock) => clock.currentTimeMillis),
      (takenAt) => snapshot({ pool: name, takenAt, ...now })
    ),
    holders: Effect.succeed([]),
    events: Stream.fromPubSub(hub)
  }
  return {
    source,
    set: (numbers: Partial<PoolSnapshot>) => {
      now = numbers
    },
    tell: (event: PoolEvent) => Effect.zipRight(hub.publish(event), settle)
  }
}

const stats = ({ holders, snapshot }: PoolMonitor.Source): PoolStatsModule.PoolStatsService => ({
  holders,
  snapshot,
  changes: () => Stream.empty
})

const halfASecond = TestClock.adjust(500)

describe("without a terminal", () => {
  it.scoped("a line comes at each interval in which something changed", () =>
    Effect.gen(function*() {
      const { output, written } = makeOutput()
      const pool = makePool("shop")
      yield* PoolMonitor.make([pool.source], { output })
      yield* settle
      const first =
        "[pool shop] 0 of 10 connections (0 explicit, 0 with state, 0 clean, 0 idle), 0 running, served 0/s after 0 ms\n"
      expect(written).toEqual([first])
      yield* TestClock.adjust("5 seconds")
      expect(written).toEqual([first])
      pool.set({ heldClean: 2, idle: 1, running: 1, waiting: 3, oldestWaitMillis: 1_250, created: 3, lost: 1 })
      yield* TestClock.adjust(499)
      expect(written).toEqual([first])
      yield* TestClock.adjust(1)
      expect(written.slice(1)).toEqual([
        "[pool shop] 3 of 10 connections (0 explicit, 0 with state, 2 clean, 1 idle), 1 running, 3 waiting for up to 1.2 s, "
        + "served 0/s after 1.2 s; 3 opened; 1 lost\n"
      ])
    }))

  it.scoped("what happens again at each interval is told each time, and nothing when nothing does", () =>
    Effect.gen(function*() {
      const { output, written } = makeOutput()
      const pool = makePool("shop")
      yield* PoolMonitor.make([pool.source], { output })
      yield* settle
      const news: Array<string> = []
      for (const connectFailures of [1, 2, 3, 3, 5, 7]) {
        pool.set({ connectFailures })
        const before = written.length
        yield* halfASecond
        news.push(written.slice(before).join("").replace(/^.*after 0 ms/, ""))
      }
      const [one, two] = ["; 1 connect failed\n", "; 2 connects failed\n"]
      expect(news).toEqual([one, one, one, "", two, two])
    }))

  it.scoped("nothing is sent but text, and nothing more after the end", () =>
    Effect.gen(function*() {
      const { output, written } = makeOutput()
      const scope = yield* Scope.make()
      const pool = makePool("shop")
      yield* PoolMonitor.make([pool.source], { output, interval: "1 second" }).pipe(Scope.extend(scope))
      yield* settle
      yield* Scope.close(scope, Exit.void)
      pool.set({ idle: 1 })
      yield* TestClock.adjust("1 minute")
      expect(written).toHaveLength(1)
      expect(written.join("")).not.toContain("\u001b")
    }))
})

describe("on a terminal", () => {
  const open = (size = { columns: 60, rows: 20 }) =>
    Effect.gen(function*() {
      const fake = makeOutput(size)
      const pool = makePool("shop")
      const scope = yield* Scope.make()
      yield* PoolMonitor.make([pool.source], { output: fake.output, color: false }).pipe(Scope.extend(scope))
      yield* settle
      const screen = Effect.promise(fake.terminal.screen)
      return { ...fake, pool, screen, close: Scope.close(scope, Exit.void) }
    })

  it.scoped("a frame follows what happens", () =>
    Effect.gen(function*() {
      const { close, pool, screen } = yield* open()
      expect((yield* screen).lines[0]).toBe("shop  0 of 10 connections, 0 running")
      pool.set({ heldClean: 4, running: 2 })
      yield* pool.tell(PoolEvent.Lost({ pool: "shop", at: 0, connection: "7", reason: "gone" }))
      yield* halfASecond
      const { lines } = yield* screen
      expect(lines[0]).toBe("shop  4 of 10 connections, 2 running")
      expect(lines.at(-1)).toBe("      500 ms  connection 7 lost: gone")
      yield* close
    }))

  it.scoped("what the program writes stands above it, complete lines at a time, and stays", () =>
    Effect.gen(function*() {
      const { close, output, screen } = yield* open()
      output.write("one\ntw")
      expect((yield* screen).lines.slice(0, 2)).toEqual(["one", "shop  0 of 10 connections, 0 running"])
      yield* halfASecond
      output.write(Buffer.from("o\n"))
      expect((yield* screen).lines.slice(0, 3)).toEqual(["one", "two", "shop  0 of 10 connections, 0 running"])
      output.write("half a line")
      yield* close
      const after = yield* screen
      expect(after.lines).toEqual(["one", "two", "half a line"])
      expect(after.cursor).toEqual({ line: 2, column: 11 })
    }))

  it.scoped("the end leaves the terminal as it was, in no other mode, and writing as before", () =>
    Effect.gen(function*() {
      const { close, listeners, output, screen, written } = yield* open()
      yield* halfASecond
      yield* close
      expect(yield* screen).toEqual({ lines: [], cursor: { line: 0, column: 0 }, alternate: false })
      // each drawing at once, which ends with the drawing
      expect(modesIn(written.join(""))).toEqual(["\u001b[?2026h", "\u001b[?2026l"])
      expect(listeners()).toBe(0)
      const before = written.length
      output.write("as before")
      expect(written.slice(before)).toEqual(["as before"])
    }))

  it.scoped("a narrower terminal has the frame once, though it has broken its lines", () =>
    Effect.gen(function*() {
      const { close, output, pool, resize, screen } = yield* open({ columns: 100, rows: 40 })
      output.write("above\n")
      pool.set({ heldClean: 10, waiting: 70 })
      yield* halfASecond
      resize(45, 40)
      const { lines } = yield* screen
      expect(lines[0]).toBe("above")
      expect(lines[1]).toMatch(/^shop {2}10/)
      expect(lines.filter((line) => line.includes("waiting"))).toHaveLength(1)
      resize(120, 12)
      expect((yield* screen).lines.filter((line) => line.includes("waiting"))).toHaveLength(1)
      yield* close
      expect((yield* screen).lines).toEqual(["above"])
    }))

  it.scoped("after the program was stopped and goes on, the frame stands below what the shell wrote", () =>
    Effect.gen(function*() {
      const { close, screen, terminal } = yield* open()
      const { lines: before } = yield* screen
      terminal.send("[1]+  Stopped\n$ fg\n")
      process.emit("SIGCONT")
      const { lines } = yield* screen
      expect(lines.slice(before.length).filter((line) => line !== "").slice(0, 3)).toEqual([
        "[1]+  Stopped",
        "$ fg",
        "shop  0 of 10 connections, 0 running"
      ])
      yield* close
    }))

  it.scoped("somebody else's hook in front of writing goes on working after the end", () =>
    Effect.gen(function*() {
      const { close, output, screen } = yield* open()
      const behind = output.write
      output.write = (text) => behind.call(output, `> ${text}`)
      yield* close
      output.write("later\n")
      expect((yield* screen).lines).toEqual(["> later"])
    }))
})

describe("the layers", () => {
  it.effect("show the default pool", () =>
    Effect.gen(function*() {
      const { output, written } = makeOutput()
      const { source } = makePool("main")
      const services = Layer.merge(
        Layer.succeed(PoolStats, stats(source)),
        Layer.succeed(PoolEvents, { stream: source.events })
      )
      yield* Effect.provide(settle, PoolMonitor.layer({ output }).pipe(Layer.provide(services)))
      expect(written.map((line) => line.slice(0, 11))).toEqual(["[pool main]"])
    }))

  it.effect("show several by name, in their order", () =>
    Effect.gen(function*() {
      const { output, written } = makeOutput()
      const [one, two] = [makePool("one"), makePool("two")]
      const services = Layer.mergeAll(
        Layer.succeed(PoolStatsModule.tag("replica"), stats(two.source)),
        Layer.succeed(PoolEventsModule.tag("replica"), { stream: two.source.events }),
        Layer.succeed(PoolStats, stats(one.source)),
        Layer.succeed(PoolEvents, { stream: one.source.events })
      )
      const layer: Layer.Layer<never> = PoolMonitor.layerPools(["replica", "primary"], { output }).pipe(
        Layer.provide(services)
      )
      yield* Effect.provide(settle, layer)
      expect(written.map((line) => line.slice(0, 10))).toEqual(["[pool two]", "[pool one]"])
    }))
})
