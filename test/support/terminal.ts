/** A terminal: what it has been sent, and what stands on its screen. */
import xterm from "@xterm/headless"

export interface Screenshot {
  /** Every line, also those that have scrolled out, without the empty ones at the end. */
  readonly lines: ReadonlyArray<string>
  /** Counted from the first line. */
  readonly cursor: { readonly line: number; readonly column: number }
  readonly alternate: boolean
}

export interface TestTerminal {
  readonly columns: number
  readonly rows: number
  readonly send: (text: string | Uint8Array) => void
  readonly resize: (columns: number, rows: number) => void
  readonly screen: () => Promise<Screenshot>
}

export const makeTerminal = (columns: number, rows: number): TestTerminal => {
  const terminal = new xterm.Terminal({
    cols: columns,
    rows,
    scrollback: 1_000,
    convertEol: true,
    allowProposedApi: true
  })
  const screen = (): Screenshot => {
    const { active } = terminal.buffer
    const lines = Array.from({ length: active.length }, (_, at) => active.getLine(at)?.translateToString(true) ?? "")
    while (lines.at(-1) === "") lines.pop()
    return {
      lines,
      cursor: { line: active.baseY + active.cursorY, column: active.cursorX },
      alternate: active.type === "alternate"
    }
  }
  return {
    get columns() {
      return terminal.cols
    },
    get rows() {
      return terminal.rows
    },
    send: (text) => terminal.write(text),
    resize: (columns, rows) => terminal.resize(columns, rows),
    // what was sent before has been read when this calls back
    screen: () => new Promise((resolve) => terminal.write("", () => resolve(screen())))
  }
}

/** The sequences that change how a terminal works, such as hiding the cursor or another screen; colors and moves are none. */
export const modesIn = (bytes: string): ReadonlyArray<string> =>
  [...new Set(bytes.split("\u001b").slice(1).flatMap((text) => /^(\[\?[\d;]*[a-zA-Z]|[=>78c])/.exec(text)?.[0] ?? []))]
    .sort().map((sequence) => `\u001b${sequence}`)
