/**
 * Several statements in one text, allowed for this one text, and what tells that an answer is another command's.
 *
 * @internal
 */
import type { Answer } from "./mysqlAnswer.js"
import type { MysqlError } from "./mysqlErrors.js"
import { frame, type RawCommand, type RawConnection, type RawPacket, type Reader, refuseFile } from "./mysqlProtocol.js"

// COM_SET_OPTION with MYSQL_OPTION_MULTI_STATEMENTS_ON and _OFF.
const allowSeveral = frame(0x1b, Uint8Array.of(0, 0))
const forbidSeveral = frame(0x1b, Uint8Array.of(1, 0))

const stoppedBetween: MysqlError = {
  message: "Query execution was interrupted",
  code: "ER_QUERY_INTERRUPTED",
  errno: 1317,
  sqlState: "70100"
}

/**
 * A query between two options, in one round trip: the server takes several statements for this one text and for no other.
 */
class SeveralStatements implements RawCommand {
  private expecting: "allowed" | "reply" | "forbidden" = "allowed"
  private replySequence = 1
  /** The packet that was read last answered the command after the query, and was numbered so. */
  stopped = false
  readonly onResult: RawCommand["onResult"]

  constructor(readonly query: Reader) {
    this.onResult = (error) => query.onResult?.(error)
  }

  execute(packet: RawPacket | undefined, connection: RawConnection): boolean {
    if (packet === undefined) {
      connection.write(allowSeveral)
      this.query.execute(undefined, connection)
      connection.write(forbidSeveral)
      this.replySequence = connection.sequenceId
      connection.sequenceId = 1
      return false
    }
    switch (this.expecting) {
      case "allowed":
        refuseFile(packet)
        // If that was refused, so is the query, which then says why.
        this.expecting = "reply"
        connection.sequenceId = this.replySequence
        return false
      case "reply":
        // No result begins like this. MariaDB, stopped by KILL QUERY between two of them, announces one more and sends none:
        // this is the answer to what comes after the query.
        if (packet.isEOF() && this.query.next === this.query.resultsetHeader) {
          this.stopped = true
          this.query.onResult?.(stoppedBetween)
          return true
        }
        if (!this.query.execute(packet, connection)) return false
        this.expecting = "forbidden"
        connection.sequenceId = 1
        return false
      case "forbidden":
        // Never seen; a connection that goes on taking several statements must not go on.
        if (packet.isError()) connection.destroy()
        return true
    }
  }
}

/** @internal */
export const runSeveral = (connection: RawConnection, query: Answer): void =>
  connection.addCommand(new SeveralStatements(query))

/**
 * Calls after each packet that is not the one that must follow: the answer that it belongs to may be another command's, and
 * must not be believed. The packet has been read by then; what it delivers in a later tick has not arrived.
 *
 * @internal
 */
export const onDisorder = (connection: RawConnection, found: (error: MysqlError) => void): void =>
  connection.on("warn", (error) => {
    const command = connection._command
    process.nextTick(() => {
      if (!(command instanceof SeveralStatements && command.stopped)) found(error)
    })
  })
