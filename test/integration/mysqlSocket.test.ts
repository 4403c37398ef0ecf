/** The socket of an unencrypted connection, beside a server that says what it is told to. */
import { afterEach, describe, expect, it } from "@effect/vitest"
import { once } from "node:events"
import { type AddressInfo, createServer, type Server, type Socket } from "node:net"
import { openSocket } from "../../src/internal/mysqlSocket.js"

const opened: Array<Server | Socket> = []

afterEach(() => {
  for (const each of opened.splice(0)) {
    if ("destroy" in each) each.destroy()
    else each.close()
  }
})

/** Both ends of a connection. */
const connect = async (): Promise<{ readonly near: Socket; readonly far: Socket }> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const near = openSocket({ host: "127.0.0.1", port: (server.address() as AddressInfo).port })
  const [far] = await once(server, "connection") as [Socket]
  opened.push(server, near, far)
  return { near, far }
}

const received = (socket: Socket): { readonly bytes: () => Buffer } => {
  const chunks: Array<Buffer> = []
  socket.on("data", (chunk: Buffer) => chunks.push(chunk))
  return { bytes: () => Buffer.concat(chunks) }
}

const many = Buffer.from(Array.from({ length: 3_000_000 }, (_, at) => (at * 7919) % 251))

describe("the socket", () => {
  it("tells of all that comes, in order, short and long", async () => {
    const { far, near } = await connect()
    const { bytes } = received(near)
    for (let at = 0; at < 2_000; at += 20) far.write(many.subarray(at, at + 20))
    far.end(many.subarray(2_000))
    await once(near, "close")
    expect(bytes().equals(many)).toBe(true)
  })

  it("reads nothing while it is paused, and goes on where it was", async () => {
    const { far, near } = await connect()
    const { bytes } = received(near)
    let whilePaused = 0
    near.once("data", () => {
      near.pause()
      const before = near.bytesRead
      setTimeout(() => {
        whilePaused = near.bytesRead - before
        near.resume()
      }, 100)
    })
    far.write(many)
    far.end(many)
    await once(near, "close")
    expect(whilePaused).toBe(0)
    expect(bytes().equals(Buffer.concat([many, many]))).toBe(true)
  })

  it("notices its end when nobody listens to what comes", async () => {
    const { far, near } = await connect()
    const { bytes } = received(near)
    far.write("a")
    await once(near, "data")
    near.removeAllListeners("data")
    far.end(many)
    await once(near, "close")
    expect(bytes().toString()).toBe("a")
  })
})
