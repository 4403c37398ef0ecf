/**
 * The one thing mysql2 cannot do: several commands in one round trip. mysql2 sends a command only when the one before has
 * been answered; servers read them one after the other all the same, so a {@link Pipeline} writes them at once and counts
 * the answers.
 *
 * @internal
 */
import type { MysqlError } from "./mysqlErrors.js"
import { frame, type RawCommand, type RawConnection, type RawPacket, refuseFile } from "./mysqlProtocol.js"

const moreResults = 8

/** @internal */
export interface Pipeline {
  readonly bytes: Buffer
  /** What each command is called when it is refused; a statement is called by its text. */
  readonly names: ReadonlyArray<string>
}

/**
 * The bytes of a COM_RESET_CONNECTION, if asked for, and of statements after it. They hold no attributes, so
 * CLIENT_QUERY_ATTRIBUTES must be off.
 *
 * @internal
 */
export const pipeline = (statements: ReadonlyArray<string>, options: { readonly reset: boolean }): Pipeline => ({
  bytes: Buffer.concat([
    ...(options.reset ? [frame(0x1f, "")] : []),
    ...statements.map((sql) => frame(0x03, sql))
  ]),
  names: options.reset ? ["COM_RESET_CONNECTION", ...statements] : statements
})

/** @internal */
export interface PipelineReply {
  /** The first command that was refused; those after it were run all the same. */
  readonly refused?: { readonly name: string; readonly error: MysqlError } | undefined
  /** Of each command that gave rows, the first column of the first, as text. */
  readonly values: ReadonlyMap<string, string>
  /** The status flags after the last command. */
  readonly status: number
}

class PipelineCommand implements RawCommand {
  private expecting: "answer" | "columns" | "rows" = "answer"
  private answered = 0
  private status = 0
  private refused: PipelineReply["refused"]
  private readonly values = new Map<string, string>()

  constructor(
    readonly commands: Pipeline,
    readonly done: (reply: PipelineReply) => void,
    readonly onResult: (error: MysqlError) => void
  ) {}

  execute(packet: RawPacket | undefined, connection: RawConnection): boolean {
    if (packet === undefined) {
      connection.write(this.commands.bytes)
      // Each answer counts its packets from 1, as to a command that was sent alone.
      connection.sequenceId = 1
      return false
    }
    if (!this.endsAnswer(packet)) return false
    this.expecting = "answer"
    this.answered += 1
    connection.sequenceId = 1
    if (this.answered < this.commands.names.length) return false
    this.done({ refused: this.refused, values: this.values, status: this.status })
    return true
  }

  private endsAnswer(packet: RawPacket): boolean {
    const name = this.commands.names[this.answered] ?? ""
    if (packet.isError()) {
      this.refused ??= { name, error: packet.asError("utf8") }
      return true
    }
    switch (this.expecting) {
      case "answer":
        refuseFile(packet)
        if (packet.buffer[packet.offset] === 0) return this.endsResult(okStatus(packet))
        this.expecting = "columns"
        return false
      case "columns":
        if (packet.isEOF()) this.expecting = "rows"
        return false
      case "rows":
        if (packet.isEOF()) return this.endsResult(packet.eofStatusFlags())
        if (!this.values.has(name)) this.values.set(name, firstColumn(packet))
        return false
    }
  }

  private endsResult(status: number): boolean {
    this.status = status
    this.expecting = "answer"
    return (status & moreResults) === 0
  }
}

const okStatus = (packet: RawPacket): number => {
  packet.readInt8()
  packet.readLengthCodedNumber()
  packet.readLengthCodedNumber()
  return packet.readInt16()
}

const firstColumn = (packet: RawPacket): string => {
  const length = packet.readLengthCodedNumber() ?? 0
  return packet.buffer.toString("utf8", packet.offset, packet.offset + length)
}

/**
 * Sends all commands at once; calls one of the two, once, unless the connection is destroyed first.
 *
 * @internal
 */
export const runPipeline = (
  connection: RawConnection,
  commands: Pipeline,
  done: (reply: PipelineReply) => void,
  lost: (error: MysqlError) => void
): void => connection.addCommand(new PipelineCommand(commands, done, lost))

const statusQuestion: Pipeline = { bytes: frame(0x0e, ""), names: ["COM_PING"] }

/**
 * Asks for the status flags, which a refusal does not carry, and leaves the warnings of the last statement alone.
 *
 * @internal
 */
export const askStatus = (
  connection: RawConnection,
  done: (status: number) => void,
  lost: (error: MysqlError) => void
): void =>
  runPipeline(
    connection,
    statusQuestion,
    ({ refused, status }) => refused === undefined ? done(status) : lost(refused.error),
    lost
  )
