/**
 * The lines at the end of a terminal that are drawn again and again, while what the program writes scrolls by above them.
 *
 * It changes no mode of the terminal, neither the cursor nor the screen, so that there is nothing to restore but the
 * lines themselves: they are erased when it closes, when the process exits or crashes, and on a signal that ends it. A
 * program that is killed leaves them behind as text, and a terminal that works.
 *
 * Invariant: while a frame is on the screen, the cursor is at the beginning of the line below it.
 *
 * @internal
 */
import { createLogUpdate } from "log-update"
import { onExit } from "signal-exit"
import stringWidth from "string-width"

/**
 * What a monitor writes to: `process.stdout`, or anything like it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Output {
  /** Writes the text. */
  readonly write: (text: string | Uint8Array) => unknown
  /** Whether it is a terminal. */
  readonly isTTY?: boolean | undefined
  /** How many characters a line of the terminal takes. */
  readonly columns?: number | undefined
  /** How many lines the terminal has. */
  readonly rows?: number | undefined
  /** Calls back when the terminal has another size. */
  readonly on?: (event: "resize", listener: () => void) => unknown
  /** Ends that. */
  readonly off?: (event: "resize", listener: () => void) => unknown
}

type Write = (this: unknown, ...all: Array<unknown>) => boolean

/** What a program may write to. */
interface Writable {
  write: Write
  readonly isTTY?: boolean | undefined
}

const newline = 10

/** Puts a function in front of a stream's `write`; what it answers takes it away again. */
const intercept = (stream: Writable, write: Write): () => void => {
  const own = Object.getOwnPropertyDescriptor(stream, "write")
  let open = true
  const before = stream.write
  const hook: Write = function(this: unknown, ...all) {
    return (open ? write : before).apply(this, all)
  }
  stream.write = hook
  return () => {
    open = false
    // somebody else's hook may be in front of this one by now, and goes on calling it
    if (stream.write !== hook) return
    if (own === undefined) Reflect.deleteProperty(stream, "write")
    else Object.defineProperty(stream, "write", own)
  }
}

/** @internal The lower end of a terminal. */
export class Screen {
  readonly #write: (text: string | Uint8Array) => boolean
  readonly #draw: ReturnType<typeof createLogUpdate>
  #lines: ReadonlyArray<string> = []
  /** Between Ctrl-Z and going on: nothing is drawn. */
  #suspends = false
  #ends: ReadonlyArray<() => void> = []

  /** `changed` is called when the terminal has another size, or may have lost what was drawn. */
  constructor(readonly output: Output, readonly changed: () => void) {
    const write = output.write
    this.#write = (text) => write.call(output, text) !== false
    this.#draw = createLogUpdate(this.#behind() as never, { showCursor: true })
    const streams = new Set([output, process.stdout, process.stderr] as unknown as ReadonlyArray<Writable>)
    const resized = () => this.#resized()
    const suspended = () => this.#suspended()
    const continued = () => this.#continued()
    output.on?.("resize", resized)
    process.on("SIGTSTP", suspended)
    process.on("SIGCONT", continued)
    this.#ends = [
      ...[...streams].filter(({ isTTY }) => isTTY === true).map((stream) => this.#liftAbove(stream)),
      onExit(() => this.close()),
      () => output.off?.("resize", resized),
      () => process.off("SIGTSTP", suspended),
      () => process.off("SIGCONT", continued)
    ]
  }

  get columns(): number {
    // some terminals do not say how wide they are
    return this.output.columns || 80
  }

  get rows(): number {
    return this.output.rows || 24
  }

  /** Draws these lines instead of the ones before. */
  show(lines: ReadonlyArray<string>): void {
    if (this.#suspends) return
    // log-update's patch of the difference is for frames of one height
    if (lines.length !== this.#lines.length) this.#erase()
    this.#lines = lines
    this.#draw(lines.join("\n"))
  }

  /** Erases what is drawn, and lets writes through again. Idempotent and synchronous: it runs when a process crashes. */
  close(): void {
    const ends = this.#ends
    this.#ends = []
    if (ends.length === 0) return
    this.#erase()
    for (const end of ends) end()
  }

  /** The output as log-update shall see it: behind the interception. */
  #behind(): object {
    const { output } = this
    return {
      write: this.#write,
      isTTY: true,
      get columns() {
        return output.columns || 80
      },
      get rows() {
        return output.rows || 24
      }
    }
  }

  #erase(): void {
    if (this.#lines.length === 0) return
    this.#lines = []
    this.#draw.clear()
  }

  /** What is written to the stream comes above the frame, a line at a time; answers what ends that. */
  #liftAbove(stream: Writable): () => void {
    const through = stream.write.bind(stream)
    let begun = Buffer.alloc(0)
    const end = intercept(stream, (chunk, encoding, done) => {
      const callback = typeof encoding === "function" ? encoding : done
      const bytes = typeof chunk === "string"
        ? Buffer.from(chunk, typeof encoding === "string" ? encoding as BufferEncoding : "utf8")
        : Buffer.from(chunk as Uint8Array)
      const all = Buffer.concat([begun, bytes])
      const cut = all.lastIndexOf(newline) + 1
      begun = all.subarray(cut)
      if (cut > 0) this.#above(() => through(all.subarray(0, cut)))
      if (typeof callback === "function") process.nextTick(callback)
      return true
    })
    return () => {
      end()
      if (begun.length > 0) through(begun)
    }
  }

  #above(write: () => void): void {
    const lines = this.#lines
    this.#erase()
    write()
    if (lines.length > 0) this.show(lines)
  }

  /** A narrower terminal has broken the lines in two, so that there is more to erase than was drawn. */
  #resized(): void {
    const broken = this.#lines.reduce((sum, line) => sum + Math.ceil(stringWidth(line) / this.columns || 1) - 1, 0)
    this.#erase()
    this.#write("\u001b[1A\u001b[2K".repeat(Math.min(broken, this.rows)))
    this.changed()
  }

  /** Ctrl-Z: the shell shall find its terminal clean; then what would have happened without a listener. */
  #suspended(): void {
    this.#erase()
    this.#suspends = true
    process.kill(process.pid, "SIGSTOP")
  }

  /** Stopped otherwise, what was drawn stays, and the shell has written below: it is not where it was. */
  #continued(): void {
    if (!this.#suspends) {
      this.#lines = []
      this.#draw.done()
    }
    this.#suspends = false
    this.changed()
  }
}
