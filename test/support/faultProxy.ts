/**
 * A TCP listener between pool and server that breaks as networks break: on request it closes connections cleanly, slowly or
 * by a reset, swallows everything, stalls handshakes, refuses newcomers, and heals again. It can also keep what clients
 * say until it is let go, so that a fault finds them in the middle of whatever they were doing.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { connect, createServer, type Server, type Socket } from "node:net"

export interface FaultProxy {
  readonly host: string
  readonly port: number
  /** How many connections have come since it was opened. */
  readonly accepted: () => number
  /** How many sockets of clients, and of its own to the server, are not closed yet. */
  readonly sockets: () => { readonly clients: number; readonly upstreams: number }
  /**
   * What clients say is kept from now on, and newcomers are not connected. Completes, when run in turn, as soon as one of
   * them has said something or come.
   */
  readonly hold: Effect.Effect<Effect.Effect<void>>
  /** What was kept goes on to the server. */
  readonly letGo: Effect.Effect<void>
  /** Ends every connection as a server does that shuts down: FIN. Newcomers are served. */
  readonly close: Effect.Effect<void>
  /** Breaks every connection: RST. Newcomers are served. */
  readonly reset: Effect.Effect<void>
  /** Every connection falls silent, sends its FIN after the time, and never closes its other half. Newcomers are served. */
  readonly closeSlowly: (millis: number) => Effect.Effect<void>
  /** Nothing gets through in either direction; newcomers are accepted, and that is all. */
  readonly blackHole: Effect.Effect<void>
  /** Every connection is reset, and newcomers get the server's greeting and nothing more. */
  readonly stallHandshakes: Effect.Effect<void>
  /** Every connection is reset, and nobody listens any more. */
  readonly refuse: Effect.Effect<void>
  /** As if nothing had been: what has been kept back goes on its way, and newcomers are served. */
  readonly heal: Effect.Effect<void>
  /** Newcomers are led to another server. */
  readonly leadTo: (server: Upstream) => void
}

export interface Upstream {
  readonly host: string
  readonly port: number
}

type Mode = "open" | "held" | "silent" | "stalled"

/** Breaks a connection off. A socket that is being closed cannot be reset any more: it would never be gone. */
const breakOff = (socket: Socket): void => void (socket.writableEnded ? socket.destroy() : socket.resetAndDestroy())

/** One connection of a client, and what it is connected to. */
class Link {
  #upstream: Socket | undefined
  #kept: Array<Buffer> = []
  #keeping: ((bytes: Buffer) => void) | undefined
  #greeting: ((bytes: Buffer) => void) | undefined
  #timer: NodeJS.Timeout | undefined
  #silent = false
  #broken = false

  constructor(readonly proxy: Proxy, readonly client: Socket) {
    client.on("error", () => {
      this.#broken = true
    })
    client.on("close", () => {
      clearTimeout(this.#timer)
      // in a black hole the server does not learn of it
      if (!this.#silent) this.#hangUp()
    })
  }

  #connect(): Socket {
    const upstream = connect({ ...this.proxy.upstream, allowHalfOpen: true })
    this.#upstream = upstream
    this.proxy.upstreams.add(upstream)
    // what became of the server's side becomes of the client's
    upstream.on("error", () => breakOff(this.client))
    upstream.on("close", () => {
      this.proxy.upstreams.delete(upstream)
      this.client.end()
    })
    return upstream
  }

  /** What became of the client's side becomes of the server's. */
  #hangUp(): void {
    this.proxy.links.delete(this)
    if (this.#upstream === undefined) return
    if (this.#broken) breakOff(this.#upstream)
    // what the server still says has to be read, or its end would not be seen
    else this.#upstream.resume().end()
  }

  /** Both directions flow; what was kept goes first. */
  flow(): void {
    if (this.client.destroyed) return this.#hangUp()
    this.silence()
    this.#silent = false
    const upstream = this.#upstream ?? this.#connect()
    for (const bytes of this.#kept.splice(0)) upstream.write(bytes)
    this.client.pipe(upstream)
    upstream.pipe(this.client)
  }

  /** What the client says stays here. */
  keep(said: () => void): void {
    if (this.#upstream !== undefined) this.client.unpipe(this.#upstream)
    this.#keeping = (bytes) => {
      this.#kept.push(bytes)
      said()
    }
    this.client.on("data", this.#keeping).resume()
  }

  /** Nothing is read from either side, so that neither learns anything, not even of the other's end. */
  silence(): void {
    if (this.#keeping !== undefined) this.client.off("data", this.#keeping)
    if (this.#greeting !== undefined) this.#upstream?.off("data", this.#greeting)
    this.#keeping = this.#greeting = undefined
    this.#silent = true
    this.client.unpipe().pause()
    this.#upstream?.unpipe().pause()
  }

  /** The server's greeting comes through, and nothing after it. */
  stall(): void {
    this.#greeting = (bytes) => {
      this.client.write(bytes)
      this.silence()
    }
    this.#connect().on("data", this.#greeting)
  }

  close(): void {
    this.silence()
    this.#silent = false
    // the client's own end has to be seen, or its socket would stay
    this.client.end()
    this.client.resume()
    this.#upstream?.destroy()
  }

  closeSlowly(millis: number): void {
    this.silence()
    this.#timer = setTimeout(() => this.client.end(), millis)
  }

  reset(): void {
    this.silence()
    this.#silent = false
    if (this.client.destroyed) this.#hangUp()
    breakOff(this.client)
    this.#upstream?.destroy()
  }
}

class Proxy {
  readonly links = new Set<Link>()
  readonly upstreams = new Set<Socket>()
  mode: Mode = "open"
  accepted = 0
  said = (): void => {}
  #listener: Server | undefined
  #closing: ReadonlySet<Link> = new Set()

  constructor(public upstream: Upstream) {}

  async listen(host: string, port: number): Promise<number> {
    const listener = createServer({ allowHalfOpen: true }, (client) => this.#accept(client))
    listener.listen(port, host)
    await once(listener, "listening")
    this.#listener = listener
    const address = listener.address()
    if (address === null || typeof address === "string") throw new Error("the proxy got no port")
    return address.port
  }

  stopListening(): void {
    this.#listener?.close()
    this.#listener = undefined
  }

  get listening(): boolean {
    return this.#listener !== undefined
  }

  #accept(client: Socket): void {
    this.accepted += 1
    const link = new Link(this, client)
    this.links.add(link)
    if (this.mode === "open") return link.flow()
    if (this.mode === "stalled") return link.stall()
    if (this.mode === "silent") return link.silence()
    link.keep(this.said)
    this.said()
  }

  all(mode: Mode, change: (link: Link) => void): Effect.Effect<void> {
    return Effect.sync(() => {
      this.mode = mode
      for (const link of this.links) change(link)
    })
  }

  closeSlowly(millis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#closing = new Set(this.links)
      return this.all("open", (link) => link.closeSlowly(millis))
    })
  }

  /** What was half closed is gone; everything else goes on. */
  heal(): Effect.Effect<void> {
    return this.all("open", (link) => this.#closing.has(link) ? link.reset() : link.flow())
  }
}

/** A port that no outgoing connection is ever given, so that it is still there when the proxy listens on it again. */
const listenSomewhere = async (proxy: Proxy, host: string): Promise<number> => {
  for (let attempt = 0;; attempt++) {
    try {
      return await proxy.listen(host, 15_000 + Math.floor(Math.random() * 15_000))
    } catch (error) {
      if (attempt === 20) throw error
    }
  }
}

/** Forwards to the server for as long as the scope. */
export const openFaultProxy = (
  server: Upstream,
  { host = "127.0.0.1", port }: { readonly host?: string | undefined; readonly port?: number | undefined } = {}
): Effect.Effect<FaultProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const proxy = new Proxy({ host: server.host, port: server.port })
      const bound = port === undefined ? await listenSomewhere(proxy, host) : await proxy.listen(host, port)
      return { proxy, host, port: bound }
    }),
    ({ proxy }) =>
      Effect.sync(() => {
        proxy.stopListening()
        for (const { client } of proxy.links) client.destroy()
        for (const upstream of proxy.upstreams) upstream.destroy()
      })
  ).pipe(Effect.map(({ host, port, proxy }) => ({
    host,
    port,
    accepted: () => proxy.accepted,
    sockets: () => ({
      clients: [...proxy.links].filter(({ client }) => !client.destroyed).length,
      upstreams: proxy.upstreams.size
    }),
    hold: Effect.flatMap(Deferred.make<void>(), (said) => {
      proxy.said = () => Deferred.unsafeDone(said, Effect.void)
      return Effect.as(proxy.all("held", (link) => link.keep(proxy.said)), Deferred.await(said))
    }),
    letGo: proxy.all("open", (link) => link.flow()),
    close: proxy.all("open", (link) => link.close()),
    reset: proxy.all("open", (link) => link.reset()),
    closeSlowly: (millis) => proxy.closeSlowly(millis),
    blackHole: proxy.all("silent", (link) => link.silence()),
    stallHandshakes: proxy.all("stalled", (link) => link.reset()),
    refuse: Effect.zipRight(Effect.sync(() => proxy.stopListening()), proxy.all("open", (link) => link.reset())),
    heal: Effect.zipRight(
      Effect.suspend(() => proxy.listening ? Effect.void : Effect.promise(() => proxy.listen(host, port))),
      proxy.heal()
    ),
    leadTo: ({ host, port }) => {
      proxy.upstream = { host, port }
    }
  })))
