/**
 * A server that only repeats what a real one has said: its turns, each after as many packets of the client as the real
 * one had heard by then. A test can put anything else in the place of a turn.
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Socket } from "node:net"
import { listen, type Wire } from "./wiretap.js"

export interface Turn {
  /** How many packets the client has sent by then. */
  readonly heard: number
  readonly bytes: Buffer
}

export type Script = ReadonlyArray<Turn>

/** Counts the packets in a stream of bytes that may be cut anywhere. */
class PacketCounter {
  count = 0
  private rest = Buffer.alloc(0)

  add(bytes: Buffer): void {
    this.rest = Buffer.concat([this.rest, bytes])
    for (;;) {
      const end = this.rest.length < 4 ? Infinity : 4 + this.rest.readUIntLE(0, 3)
      if (this.rest.length < end) return
      this.rest = this.rest.subarray(end)
      this.count += 1
    }
  }
}

export const scriptOf = (wire: Wire): Script => {
  const counter = new PacketCounter()
  const turns: Array<{ heard: number; bytes: Buffer }> = []
  for (const { by, bytes } of wire) {
    if (by === "client") {
      counter.add(bytes)
      continue
    }
    const last = turns.at(-1)
    if (last?.heard === counter.count) last.bytes = Buffer.concat([last.bytes, bytes])
    else turns.push({ heard: counter.count, bytes: Buffer.from(bytes) })
  }
  return turns
}

/** What is said instead of one turn, and what comes after it. */
export interface Lie {
  readonly turn: number
  /** In pieces, each in a write of its own; a generator may go on as long as somebody listens. */
  readonly pieces: () => Iterable<Buffer>
  readonly then: "go on" | "fall silent" | "close" | "reset"
}

export interface Liar {
  /** Whether the client has come as far as the lie. */
  told: boolean
  /** How many bytes of it the client's side has taken. */
  bytes: number
}

/**
 * Who goes on after a lie hangs up when nothing is said for so many milliseconds, or most cases would be waiting for their
 * deadlines.
 */
const patience = 40

const tell = async (socket: Socket, lie: Lie, liar: Liar): Promise<void> => {
  liar.told = true
  for (const piece of lie.pieces()) {
    if (socket.destroyed) return
    liar.bytes += piece.length
    const taken = socket.write(piece)
    await new Promise<void>((resolve) => {
      if (taken) return void setImmediate(resolve)
      const go = (): void => {
        socket.off("drain", go)
        socket.off("close", go)
        resolve()
      }
      socket.on("drain", go)
      socket.on("close", go)
    })
  }
  if (lie.then === "go on") socket.setTimeout(patience, () => socket.destroy())
  if (lie.then === "close") socket.end()
  if (lie.then === "reset") socket.resetAndDestroy()
}

/** Every connection gets the script and the lie in it. */
export const replay = (script: Script, liar: Liar, lie?: Lie): Effect.Effect<number, never, Scope.Scope> =>
  listen((socket) => {
    socket.setNoDelay(true)
    const counter = new PacketCounter()
    let next = 0
    let busy = false
    const speak = async (): Promise<void> => {
      if (busy) return
      busy = true
      for (let turn = script[next]; turn !== undefined && turn.heard <= counter.count; turn = script[next]) {
        if (next !== lie?.turn) socket.write(turn.bytes)
        else {
          await tell(socket, lie, liar)
          if (lie.then !== "go on") return
        }
        next += 1
      }
      busy = false
    }
    socket.on("data", (bytes) => {
      counter.add(bytes)
      void speak()
    })
    void speak()
  })
