/** Runs a program on a terminal of its own, by `script` of util-linux, which opens a pseudo-terminal. */
import { execFileSync, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { makeTerminal, type Screenshot } from "./terminal.js"

/** Throws where no terminal can be had. */
const needScript = (): void => {
  let version = ""
  try {
    version = execFileSync("script", ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
  } catch {
    // not there, or another one, which has no --version
  }
  if (!version.includes("util-linux")) {
    throw new Error("There is no `script` of util-linux, which opens a pseudo-terminal: on Debian, install bsdutils")
  }
}

export interface TerminalRun {
  readonly bytes: string
  readonly code: number | null
  /** What stood on the screen when `until` was seen, and in the end. */
  readonly during: Screenshot
  readonly after: Screenshot
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** The process on the terminal is the only child of `script`. */
const childOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0])

/**
 * Runs it in a terminal of that size, answers when it has ended. When all of `until` is on the
 * screen it gets the signal or what is typed, or is left alone.
 */
export const onTerminal = (
  command: ReadonlyArray<string>,
  options: {
    readonly columns: number
    readonly rows: number
    readonly until: ReadonlyArray<string>
    readonly signal?: NodeJS.Signals | undefined
    /** Typed on the terminal, such as Ctrl-C. */
    readonly types?: string | undefined
  }
): Promise<TerminalRun> =>
  new Promise((resolve, reject) => {
    needScript()
    const { columns, rows } = options
    const terminal = makeTerminal(columns, rows)
    const { NO_COLOR: _, ...env } = process.env
    const line = `stty cols ${columns} rows ${rows}; exec ${command.map(quoted).join(" ")}`
    const child = spawn("script", ["-qefc", line, "/dev/null"], {
      env: { ...env, TERM: "xterm-256color", SHELL: "/bin/sh" }
    })
    let bytes = ""
    let during: Screenshot | undefined
    const look = async (): Promise<void> => {
      const screen = await terminal.screen()
      if (during !== undefined || !options.until.every((text) => screen.lines.join("\n").includes(text))) return
      during = screen
      if (options.types !== undefined) child.stdin.write(options.types)
      if (options.signal !== undefined && child.pid !== undefined) process.kill(childOf(child.pid), options.signal)
    }
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", (text: string) => {
      bytes += text
      terminal.send(text)
      look().catch(reject)
    })
    child.on("error", reject)
    child.on("close", (code) => {
      terminal.screen().then((after) =>
        during === undefined
          ? reject(new Error(`never on the screen: ${options.until.join(" and ")}\n${after.lines.join("\n")}`))
          : resolve({ bytes, code, during, after }), reject)
    })
  })
