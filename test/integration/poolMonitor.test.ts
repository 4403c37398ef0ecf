/** A monitor beside a program, in a process of its own, on a pseudo-terminal and without. */
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { onTerminal } from "../support/onTerminal.js"
import { modesIn } from "../support/terminal.js"

const path = (file: string): string => fileURLToPath(new URL(`../../${file}`, import.meta.url))
const tsx = [process.execPath, "--disable-warning=ExperimentalWarning", "--import", "tsx"] as const
const program = (...args: ReadonlyArray<string>) => [...tsx, path("test/support/monitorProgram.ts"), ...args]
const command = (...args: ReadonlyArray<string>) => [...tsx, path("src/internal/cli.ts"), ...args]

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

const run = ([file, ...args]: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  new Promise((resolve) => {
    const { DB_PRIMARY_HOST: _, DB_PRIMARY_URL: __, ...inherited } = process.env
    execFile(
      file!,
      args,
      { env: { ...inherited, ...env } },
      (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err })
    )
  })

describe("on a terminal", () => {
  const size = { columns: 90, rows: 24 }
  const seen = "watched  1 of 3 connections"

  it.each([
    { how: "ends", ending: "ends", code: 0 },
    { how: "is interrupted by Ctrl-C", ending: "waits", types: "\u0003", code: 130 },
    { how: "gets SIGTERM", ending: "waits", signal: "SIGTERM" as const, code: 143 },
    { how: "crashes", ending: "crashes", code: 1, says: "a crash on purpose" },
    { how: "calls process.exit", ending: "exits", code: 3 }
  ])("the screen is as it was when the program $how", async ({ code, ending, says, ...options }) => {
    // what is done to it is done when it waits
    const said = ending === "waits" ? "the program goes on" : "the program works"
    const ran = await onTerminal(program(ending), { ...size, ...options, until: [said, seen] })
    expect(ran.during.lines[0]).toBe("the program works")
    expect(ran.code).toBe(code)
    const { lines } = ran.after
    expect(lines.slice(0, 2)).toEqual(["the program works", "the program goes on"])
    expect(lines.filter((line) => /watched|explicit|Holders|waiting/.test(line))).toEqual([])
    if (says === undefined) expect(lines.slice(2).filter((line) => line !== "^C")).toEqual([])
    else expect(lines.join("\n")).toContain(says)
    expect(ran.after).toMatchObject({ alternate: false, cursor: { line: lines.length, column: 0 } })
    // nothing was switched that would have to be switched back: the cursor was never hidden
    expect(modesIn(ran.bytes)).toEqual(["\u001b[?2026h", "\u001b[?2026l"])
  })

  it.each(["SIGTERM", "SIGHUP", "SIGINT"] as const)(
    "the screen is as it was when a program that hears no signals gets %s",
    async (signal) => {
      const ran = await onTerminal(program("waits", "bare"), { ...size, until: ["the program goes on", seen], signal })
      expect(ran.after.lines).toEqual(["the program works", "the program goes on"])
      expect(ran.code).toBeGreaterThan(128)
    }
  )

  it("a program that is killed leaves the last frame, and a terminal that works", async () => {
    const ran = await onTerminal(program("waits"), { ...size, until: ["the program goes on", seen], signal: "SIGKILL" })
    expect(ran.after.lines.join("\n")).toContain(seen)
    expect(ran.after.alternate).toBe(false)
    expect(modesIn(ran.bytes)).toEqual(["\u001b[?2026h", "\u001b[?2026l"])
  })

  it("the command shows the load until Ctrl-C, and takes everything away but its first line", async () => {
    const ran = await onTerminal(command("monitor"), {
      columns: 100,
      rows: 30,
      until: ["taken back from", "embedded SQLite  10 of 10 connections"],
      types: "\u0003"
    })
    const screen = ran.during.lines.join("\n")
    expect(screen).toMatch(/served +[▁▂▃▄▅▆▇█]+ /)
    expect(ran.code).toBe(130)
    expect(ran.after.lines.filter((line) => line !== "^C")).toEqual([
      "A pool of 10 connections to embedded SQLite under load; Ctrl-C ends it."
    ])
  })
})

describe("without a terminal", () => {
  it("there are plain lines between those of the program", async () => {
    const { code, err, out } = await run(program("ends"))
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expect(out).not.toContain("\u001b")
    const lines = out.trimEnd().split("\n")
    expect(lines).toContain("the program works")
    expect(lines.at(-1)).toBe("the program goes on")
    expect(out).toMatch(/\[pool watched\] 1 of 3 connections \(1 explicit, 0 with state, 0 clean, 0 idle\)/)
  })

  it("the command ends by itself when it is told to, and shows connections opened, held and taken back", async () => {
    const { code, out } = await run(command("monitor", "--seconds", "3", "--fibers", "40", "--pool-size", "5"))
    expect(code).toBe(0)
    expect(out).not.toContain("\u001b")
    expect(out).toContain("A pool of 5 connections to embedded SQLite under load")
    expect(out).toMatch(/5 of 5 connections \(\d explicit/)
    expect(out).toMatch(/; \d+ taken back/)
    expect(out).toContain("; 5 opened")
  })

  it("the command has as many connections as the environment says, on the embedded database too", async () => {
    const { code, out } = await run(command("monitor", "--seconds", "0.1"), { DB_PRIMARY_POOL_SIZE: "3" })
    expect(code).toBe(0)
    expect(out).toContain("A pool of 3 connections to embedded SQLite under load")
    const told = await run(command("monitor", "--seconds", "0.1", "--pool-size", "2"), { DB_PRIMARY_POOL_SIZE: "3" })
    expect(told.out).toContain("A pool of 2 connections to embedded SQLite under load")
  })

  it("the command says what is wrong in a line", async () => {
    const wrong = await run(command("monitor", "--seconds", "soon"))
    expect(wrong).toMatchObject({ code: 2, out: "" })
    expect(wrong.err).toMatch(/^effect-sql-pool: --seconds must be a number above 0\n\nUsage: /)
    const other = await run(command("dance"))
    expect(other.err).toMatch(/^effect-sql-pool: the command is "monitor", not "dance"\n/)
    const nowhere = await run(command("monitor"), { DB_PRIMARY_URL: "nonsense" })
    expect(nowhere).toMatchObject({ code: 1, out: "" })
    expect(nowhere.err).toBe("DB_PRIMARY_URL has no scheme; mysql: and sqlite: are known\n")
  })
})
