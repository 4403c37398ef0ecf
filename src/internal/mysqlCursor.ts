/**
 * The rows of a running statement, a chunk at a time. The socket is read only while somebody waits for a chunk; what
 * mysql2 has read by then stays with it.
 *
 * A chunk is delivered when mysql2 is done with what it has read, never from inside: from there a consumer that asks
 * for the next chunk would make mysql2 read packets while it reads a packet.
 *
 * @internal
 */
import * as Exit from "effect/Exit"
import type { DbError } from "../DbError.js"
import type { Cursor, Row } from "../Driver.js"

type Chunk = Exit.Exit<ReadonlyArray<Row>, DbError>

/** What reads the socket. */
interface Flow {
  readonly pause: () => void
  readonly resume: () => void
}

const rowsPerChunk = 512

/** @internal */
export class RowCursor implements Cursor {
  private names: ReadonlyArray<string> = []
  private rows: Array<Row> = []
  private waiting: ((chunk: Chunk) => void) | undefined
  private end: Chunk | undefined
  private paused = false
  private draining = false
  private scheduled = false

  constructor(readonly flow: Flow) {}

  columns = (): ReadonlyArray<string> => this.names

  next = (done: (chunk: Chunk) => void): void => {
    this.waiting = done
    this.resume()
    if (this.rows.length > 0 || this.end !== undefined) this.schedule()
  }

  begin(columns: ReadonlyArray<string>): void {
    this.names = columns
  }

  push(row: Row): void {
    if (this.draining || this.end !== undefined) return
    this.rows.push(row)
    if (this.waiting === undefined || this.rows.length >= rowsPerChunk) this.pause()
    if (this.waiting !== undefined) this.schedule()
  }

  finish(exit: Exit.Exit<void, DbError>): void {
    if (this.end !== undefined) return
    this.end = Exit.as(exit, [])
    // whoever took the last rows may never ask for the end, and the next statement needs the socket
    this.resume()
    this.schedule()
  }

  /** Reads the rest as fast as it comes, and throws it away. */
  drain(): void {
    this.draining = true
    this.rows = []
    this.resume()
  }

  private schedule(): void {
    if (this.scheduled) return
    this.scheduled = true
    queueMicrotask(() => this.deliver())
  }

  private deliver(): void {
    this.scheduled = false
    const waiting = this.waiting
    const chunk = this.takeChunk()
    if (waiting === undefined || chunk === undefined) return
    this.waiting = undefined
    waiting(chunk)
    if (this.waiting === undefined) this.pause()
  }

  private takeChunk(): Chunk | undefined {
    if (this.waiting === undefined || this.rows.length === 0) return this.end
    const rows = this.rows
    this.rows = []
    return Exit.succeed(rows)
  }

  private pause(): void {
    if (this.paused || this.draining || this.end !== undefined) return
    this.paused = true
    this.flow.pause()
  }

  private resume(): void {
    if (!this.paused) return
    this.paused = false
    this.flow.resume()
  }
}
