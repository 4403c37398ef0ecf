/**
 * The socket of an unencrypted connection. Node makes a buffer of 64 KiB for each read and cuts it to size, and takes each
 * through a stream's queue; that costs as much as reading a short answer does. Here a buffer is read into until it is full, and
 * what was read goes straight to who listens.
 *
 * @internal
 */
import { connect, type Socket } from "node:net"

/** @internal */
export type SocketAddress = { readonly host: string; readonly port: number } | { readonly path: string }

const bufferSize = 64 * 1024
/** With less room than this a new buffer is begun, lest a long answer is read in small pieces. */
const leastRoom = 16 * 1024
/** What is not longer is copied, since a value that a program keeps would keep the buffer that it was read into. */
const mostCopied = 4 * 1024

/**
 * Room for what is read next. No byte is written to twice: mysql2 cuts a row's binary values out of what was read.
 *
 * @internal
 */
export class ReadBuffer {
  #room = Buffer.allocUnsafeSlow(bufferSize)

  /** Where the next read may write. */
  readonly room = (): Buffer => this.#room

  /** What has been read: so many bytes, from the beginning of the room. */
  take(length: number): Buffer {
    const room = this.#room
    if (length <= mostCopied) {
      const copy = Buffer.allocUnsafe(length)
      room.copy(copy, 0, 0, length)
      return copy
    }
    this.#room = room.length - length < leastRoom ? Buffer.allocUnsafeSlow(bufferSize) : room.subarray(length)
    return room.subarray(0, length)
  }
}

/**
 * A socket that is being connected, and tells of what it reads by the event `data`.
 *
 * @internal
 */
export const openSocket = (address: SocketAddress): Socket => {
  const read = new ReadBuffer()
  const socket: Socket = connect({
    ...address,
    // as mysql2 opens its own; neither is known to a socket in the file system
    ...("path" in address ? {} : { keepAlive: true, noDelay: true }),
    onread: {
      buffer: read.room,
      callback: (length) => {
        socket.emit("data", read.take(length))
        // to go on even when nobody listens any more: the end of the connection is to be noticed
        return true
      }
    }
  })
  return socket
}
