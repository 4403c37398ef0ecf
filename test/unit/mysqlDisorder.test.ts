/** A refusal that cannot be the answer to what was sent, in mysql2's own reader and without a server. */
import { describe, expect, it, vi } from "@effect/vitest"
import { Cause, Exit } from "effect"
import { setImmediate } from "node:timers/promises"
import { answer, open, statement } from "../support/mysqlPackets.js"

const refusal = (errno: number): Buffer =>
  Buffer.concat([Buffer.from([0xff, errno & 255, errno >> 8]), Buffer.from("#HY000It was refused")])

/** What comes of a statement that is refused by the packet of this number, where the first has to be 1. */
const refuse = async (errno: number, sequence: number) => {
  const { connection, stream } = open()
  const errors: Array<unknown> = []
  connection.run(statement("COMMIT"), (exit) =>
    Exit.match(exit, {
      onFailure: (cause) => errors.push(...Cause.failures(cause)),
      onSuccess: () => errors.push("none")
    }))
  const bytes = answer(refusal(errno))
  bytes.writeUInt8(sequence, 3)
  stream.push(bytes)
  for (let turns = 0; turns < 5; turns++) await setImmediate()
  return { errors, isOpen: connection.isOpen() }
}

describe("a refusal", () => {
  it("is what the server says when it is the next packet", async () => {
    expect(await refuse(1205, 1)).toMatchObject({ errors: [{ _tag: "LockTimeoutError" }] })
  })

  it("that is not the next packet leaves it unknown what became of the statement", async () => {
    const said = vi.spyOn(console, "error").mockReturnValue()
    expect(await refuse(1213, 3)).toMatchObject({
      errors: [{ _tag: "ConnectionLost", outcome: "unknown" }],
      isOpen: false
    })
    said.mockRestore()
  })

  it("with which the server ends the connection is believed, whatever its number", async () => {
    const said = vi.spyOn(console, "error").mockReturnValue()
    expect(await refuse(4031, 0)).toMatchObject({
      errors: [{ _tag: "ConnectionLost", outcome: "not executed", errno: 4031 }],
      isOpen: false
    })
    expect(await refuse(1153, 0)).toMatchObject({
      errors: [{ _tag: "StatementError", errno: 1153 }],
      isOpen: false
    })
    said.mockRestore()
  })
})
