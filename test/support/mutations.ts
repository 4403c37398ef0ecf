/** What a hostile server makes of what a real one said: seeded, so that a case can be had again by its number. */
import type { Lie, Script } from "./replay.js"

/** Mulberry32: small, seeded, good enough to choose by. */
export class Dice {
  constructor(private state: number) {}

  /** From nothing to below `limit`. */
  below(limit: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 2 ** 32 * limit)
  }

  one<A>(choices: ReadonlyArray<A>): A {
    return choices[this.below(choices.length)] as A
  }

  bytes(size: number): Buffer {
    return Buffer.from(Uint8Array.from({ length: size }, () => this.below(256)))
  }
}

export const packet = (sequence: number, body: Uint8Array): Buffer => {
  const header = Buffer.alloc(4)
  header.writeUIntLE(body.length, 0, 3)
  header[3] = sequence & 0xff
  return Buffer.concat([header, body])
}

/** Whole packets, header included. */
export const packetsIn = (bytes: Buffer): Array<Buffer> => {
  const packets: Array<Buffer> = []
  for (let at = 0; at + 4 <= bytes.length;) {
    const end = at + 4 + bytes.readUIntLE(at, 3)
    packets.push(Buffer.from(bytes.subarray(at, end)))
    at = end
  }
  return packets
}

type Mutation = (packets: Array<Buffer>, dice: Dice, scripts: ReadonlyArray<Script>) => Iterable<Buffer>

/** As many of them as the client takes; it is given 128 KiB. */
const endless = (start: ReadonlyArray<Buffer>, more: (at: number) => Buffer): Iterable<Buffer> => ({
  [Symbol.iterator]: () => goOn(start, more)
})

function* goOn(start: ReadonlyArray<Buffer>, more: (at: number) => Buffer): Generator<Buffer> {
  yield Buffer.concat(start)
  let at = 0
  for (let sent = 0; sent < 2 ** 17;) {
    const parts: Array<Buffer> = []
    for (let size = 0; size < 2 ** 15; at++) {
      const part = more(at)
      parts.push(part)
      size += part.length
    }
    const piece = Buffer.concat(parts)
    sent += piece.length
    yield piece
  }
}

/** Numbers that say how long something is that follows. */
const lengths: ReadonlyArray<Buffer> = [
  Buffer.from("feffffffffffffffff", "hex"),
  Buffer.from("feffffffffffff1f00", "hex"),
  Buffer.from("fdffffff", "hex"),
  Buffer.from("fcffff", "hex"),
  Buffer.from("fe", "hex"),
  Buffer.from("fb", "hex"),
  Buffer.from("00", "hex")
]

const types = [0x00, 0x01, 0x02, 0x03, 0x0a, 0xfb, 0xfc, 0xfd, 0xfe, 0xff]
const lastSequence = (packets: ReadonlyArray<Buffer>): number => packets.at(-1)?.[3] ?? 0

const flip = (bytes: Buffer, dice: Dice, from: number): void => {
  if (bytes.length <= from) return
  const at = from + dice.below(bytes.length - from)
  bytes[at] = (bytes[at] ?? 0) ^ (1 << dice.below(8))
}

export const mutations: Readonly<Record<string, Mutation>> = {
  "flipped bits": (packets, dice) => {
    const bytes = Buffer.concat(packets)
    for (let times = 1 + dice.below(16); times > 0; times--) flip(bytes, dice, 0)
    return [bytes]
  },
  "flipped bits in a body": (packets, dice) => {
    for (let times = 1 + dice.below(8); times > 0; times--) flip(dice.one(packets), dice, 4)
    return packets
  },
  "cut short": (packets, dice) => {
    const bytes = Buffer.concat(packets)
    return [bytes.subarray(0, dice.below(bytes.length))]
  },
  "a body cut short": (packets, dice) => {
    const at = dice.below(packets.length)
    const chosen = packets[at] as Buffer
    packets[at] = packet(chosen[3] ?? 0, chosen.subarray(4, 4 + dice.below(chosen.length - 3)))
    return packets
  },
  "a lie about a packet's length": (packets, dice) => {
    const chosen = dice.one(packets)
    const length = chosen.length - 4
    const told = dice.one([0, 1, length - 1, length + 1, length * 2, dice.below(2 ** 24), 0xfffffe, 0xffffff])
    chosen.writeUIntLE(Math.max(0, told), 0, 3)
    return packets
  },
  "a lie about a length inside": (packets, dice) => {
    const chosen = dice.one(packets)
    const length = dice.one(lengths)
    if (chosen.length > 4) length.copy(chosen, 4 + dice.below(chosen.length - 4))
    return packets
  },
  "wrong sequence numbers": (packets, dice) => {
    const all = dice.below(2) === 0
    for (const each of all ? packets : [dice.one(packets)]) each[3] = dice.below(256)
    return packets
  },
  "a packet of another type": (packets, dice) => {
    const chosen = dice.one(packets)
    if (chosen.length > 4) chosen[4] = dice.one(types)
    return packets
  },
  "noise": (_, dice) => [dice.bytes(1 + dice.below(2_000))],
  "noise in packets": (packets, dice) => packets.map((each) => packet(each[3] ?? 0, dice.bytes(dice.below(60)))),
  "a packet missing": (packets, dice) => {
    packets.splice(dice.below(packets.length), 1)
    return packets
  },
  "a packet twice": (packets, dice) => {
    const at = dice.below(packets.length)
    packets.splice(at, 0, packets[at] as Buffer)
    return packets
  },
  "packets in another order": (packets, dice) => packets.sort(() => dice.below(3) - 1),
  "an empty packet": (packets, dice) => {
    const at = dice.below(packets.length + 1)
    packets.splice(at, 0, packet(packets[at]?.[3] ?? lastSequence(packets) + 1, Buffer.alloc(0)))
    return packets
  },
  "the answer to something else": (packets, dice, scripts) => {
    const first = packets[0]?.[3] ?? 0
    return packetsIn(dice.one(dice.one(scripts)).bytes).map((each, at) => packet(first + at, each.subarray(4)))
  },
  "an answer that nobody asked for": (packets, dice, scripts) => [...packets, dice.one(dice.one(scripts)).bytes],
  "endless columns": (packets, dice) => {
    const column = dice.one(packets).subarray(4)
    const first = packets[0]?.[3] ?? 0
    const many = packet(first, dice.one([lengths[0], lengths[1], lengths[2]] as ReadonlyArray<Buffer>))
    return endless([many], (at) => packet(first + 1 + at, column))
  },
  "endless packets": (packets, dice) => {
    const again = dice.one(packets).subarray(4)
    return endless(packets, (at) => packet(lastSequence(packets) + 1 + at, again))
  }
}

/** One case; `number` and `seed` decide everything. */
export const caseOf = (
  seed: number,
  number: number,
  scripts: ReadonlyArray<readonly [name: string, script: Script]>
) => {
  const dice = new Dice(Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b))
  const [scenario, script] = dice.one(scripts)
  const turn = dice.below(script.length)
  const name = dice.one(Object.keys(mutations))
  const mutate = mutations[name] as Mutation
  const others = scripts.map(([, other]) => other)
  const cut = dice.one(["whole", "whole", "whole", "in two", "byte by byte"] as const)
  const said = mutate(packetsIn(script[turn]?.bytes ?? Buffer.alloc(0)), dice, others)
  const pieces = Array.isArray(said) ? cutUp(Buffer.concat(said as ReadonlyArray<Buffer>), cut, dice) : said
  const lie: Lie = {
    turn,
    pieces: () => pieces,
    then: dice.below(50) === 0 ? "fall silent" : dice.one(["go on", "go on", "close", "reset"])
  }
  return { scenario, script, turn, mutation: name, lie }
}

const cutUp = (bytes: Buffer, how: "whole" | "in two" | "byte by byte", dice: Dice): ReadonlyArray<Buffer> => {
  if (how === "whole" || bytes.length < 2) return [bytes]
  if (how === "in two") {
    const at = 1 + dice.below(bytes.length - 1)
    return [bytes.subarray(0, at), bytes.subarray(at)]
  }
  // of long ones the beginning, where the headers are
  const pieces = Array.from(bytes.subarray(0, 100), (byte) => Buffer.of(byte))
  return bytes.length > 100 ? [...pieces, bytes.subarray(100)] : pieces
}
