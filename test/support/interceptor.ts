/**
 * A TCP listener between pool and server that does something to what a client says when it says a certain text: keeps it
 * back for a while, or its answer, swallows it, or cuts the connection instead. It notes what was said and answered, in
 * order; newcomers can be turned away or left without an answer.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"
import type { ServerAddress } from "./dbFixture.js"

export interface Rule {
  /** What a request has to contain. */
  readonly text: string
  /** For how many milliseconds the request is kept back. */
  readonly delay?: number
  /** For how many milliseconds the answer to it is kept back. */
  readonly delayAnswer?: number
  /** What happens instead of passing it on. */
  readonly instead?: "swallow" | "cut"
  /** For how many requests it is in force. Default: for all. */
  readonly times?: number
}

/** A request that reached the server, or an answer that reached the client. */
export interface Passed {
  readonly connection: number
  readonly what: "request" | "answer"
  readonly text: string
}

export interface Interceptor {
  readonly port: number
  /** Replaces the rule that is in force. */
  readonly rule: (rule: Rule | undefined) => void
  /** What becomes of connections from now on. */
  readonly newcomers: (how: "forward" | "stall" | "refuse") => void
  readonly passed: ReadonlyArray<Passed>
  /** How many requests a rule was applied to. */
  readonly applied: () => number
  /** How many connections have come. */
  readonly accepted: () => number
  /** How many are open now. */
  readonly open: () => number
}

/** Sends what it is given in order, each as soon as its time is over. */
class Way {
  readonly #queue: Array<() => void> = []
  #until = 0
  #timer: ReturnType<typeof setTimeout> | undefined

  push(delay: number, send: () => void): void {
    if (delay > 0) this.#until = performance.now() + delay
    this.#queue.push(send)
    this.#go()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #go(): void {
    if (this.#timer !== undefined) return
    const left = this.#until - performance.now()
    if (left > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#go()
      }, left)
      return
    }
    for (const send of this.#queue.splice(0)) send()
  }
}

class State {
  readonly passed: Array<Passed> = []
  readonly clients = new Set<Socket>()
  newcomers: "forward" | "stall" | "refuse" = "forward"
  accepted = 0
  applied = 0
  #rule: Rule | undefined
  #left = 0

  setRule(rule: Rule | undefined): void {
    this.#rule = rule
    this.#left = rule?.times ?? Infinity
  }

  /** The rule for what was just said, if there is one. */
  match(text: string): Rule | undefined {
    const rule = this.#rule
    if (rule === undefined || this.#left === 0 || !text.includes(rule.text)) return undefined
    this.#left--
    this.applied++
    return rule
  }

  accept(client: Socket, server: ServerAddress): void {
    const connection = ++this.accepted
    this.clients.add(client)
    client.on("error", () => client.destroy())
    client.on("close", () => this.clients.delete(client))
    if (this.newcomers === "refuse") client.destroy()
    else if (this.newcomers === "stall") client.resume()
    else this.#forward(connection, client, connect({ port: server.port, host: server.host, noDelay: true }))
  }

  #forward(connection: number, client: Socket, upstream: Socket): void {
    const requests = new Way()
    const answers = new Way()
    let answerDelay = 0
    const note = (what: Passed["what"], text: string): void => void this.passed.push({ connection, what, text })
    upstream.on("error", () => client.destroy())
    upstream.on("close", () => client.destroy())
    client.on("close", () => {
      answers.stop()
      // what was kept back still arrives, late as it is: the network does not know that nobody wants it any more
      requests.push(0, () => upstream.end())
    })
    client.on("data", (bytes) => {
      const text = bytes.toString("latin1")
      const rule = this.match(text)
      if (rule?.instead === "swallow") return
      if (rule?.instead === "cut") {
        client.destroy()
        return
      }
      requests.push(rule?.delay ?? 0, () => {
        note("request", text)
        answerDelay = rule?.delayAnswer ?? 0
        upstream.write(bytes)
      })
    })
    upstream.on("data", (bytes) => {
      answers.push(answerDelay, () => {
        note("answer", bytes.toString("latin1"))
        client.write(bytes)
      })
      answerDelay = 0
    })
  }
}

/** Forwards to the server for as long as the scope. */
export const openInterceptor = (server: ServerAddress): Effect.Effect<Interceptor, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const state = new State()
        const listener = createServer({ noDelay: true }, (client) => state.accept(client, server))
        listener.listen(0, "127.0.0.1")
        await once(listener, "listening")
        const address = listener.address()
        if (address === null || typeof address === "string") throw new Error("the proxy got no port")
        return { listener, state, port: address.port }
      }),
      ({ listener, state }) =>
        Effect.async<void>((resume) => {
          listener.close(() => resume(Effect.void))
          for (const client of state.clients) client.destroy()
        })
    ),
    ({ port, state }) => ({
      port,
      rule: (rule) => state.setRule(rule),
      newcomers: (how) => {
        state.newcomers = how
      },
      passed: state.passed,
      applied: () => state.applied,
      accepted: () => state.accepted,
      open: () => state.clients.size
    })
  )
