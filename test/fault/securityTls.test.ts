/**
 * TLS against a real server with certificates made for this run: verified, refused, demanded of a server that has none,
 * and against one in the middle who would rather not have it.
 */
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { writeFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inject } from "vitest"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import type { TlsOptions } from "../../src/PoolConfig.js"
import { failure } from "../support/bothDatabases.js"
import { type Authority, type Certificate, makeAuthority } from "../support/certificates.js"
import { type DbFixture, withFixture, withLayer } from "../support/dbFixture.js"
import { snapshot } from "../support/dbQuestions.js"
import { type PrivateServer, startServer } from "../support/privateServer.js"
import { listen, openWiretap, saidBy, type Wiretap } from "../support/wiretap.js"

const { flavour } = inject("server")
const showsOnlyGood = flavour === "mysql"
const onServersThatShow = (name: string): string =>
  showsOnlyGood ? `${name} (skipped: MySQL refuses to show a certificate that it would not accept)` : name
const day = 86_400_000

let folder: string
let authority: Authority
let server: PrivateServer

const show = ({ certificate, key }: Certificate): void => {
  writeFileSync(join(folder, "server.pem"), certificate)
  writeFileSync(join(folder, "server.key"), key, { mode: 0o600 })
}

/** Runs the test while the server shows that certificate. */
const whileShowing = <A, E, R>(
  fixture: DbFixture,
  certificate: Certificate,
  test: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const reload = fixture.admin(flavour === "mariadb" ? "FLUSH SSL" : "ALTER INSTANCE RELOAD TLS")
  const put = (shown: Certificate) => Effect.zipRight(Effect.sync(() => show(shown)), reload)
  return Effect.acquireUseRelease(
    put(certificate),
    () => test,
    () => put(authority.issue({ dnsName: "localhost" }))
  )
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "effect-sql-pool-tls-"))
  authority = makeAuthority("the tests' authority")
  writeFileSync(join(folder, "authority.pem"), authority.certificate)
  show(authority.issue({ dnsName: "localhost" }))
  server = await startServer({
    flavour,
    settings: [
      `--ssl-ca=${join(folder, "authority.pem")}`,
      `--ssl-cert=${join(folder, "server.pem")}`,
      `--ssl-key=${join(folder, "server.key")}`
    ]
  })
})

afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true })
})

const trusted = (): TlsOptions => ({ ca: authority.certificate })

const through = (fixture: DbFixture, port: number): Redacted.Redacted => {
  const url = new URL(Redacted.value(fixture.url))
  url.port = String(port)
  return Redacted.make(url.href)
}

/** The server as a client knows it by name. */
const named = (fixture: DbFixture, port = fixture.server.port) => ({ url: through(fixture, port), host: "localhost" })

const cipher = Effect.flatMap(Db.Db, (db) =>
  Effect.map(
    db.dictionary<{ readonly Value: string }>("SHOW STATUS LIKE 'Ssl_cipher'"),
    (row) => Option.getOrThrow(row).Value
  ))

const select = Effect.flatMap(Db.Db, (db) => db.value("SELECT 1"))

/** Nobody who listens has read a name, a text or a password. */
const expectUnread = (fixture: DbFixture, { wires }: Wiretap, texts: ReadonlyArray<string> = []): void => {
  const { password } = new URL(Redacted.value(fixture.url))
  for (const wire of wires) {
    const said = Buffer.concat(wire.map(({ bytes }) => bytes)).toString("latin1")
    for (const secret of [fixture.user, password, "SET NAMES", ...texts]) expect(said).not.toContain(secret)
  }
}

/** Demands TLS and is refused: at once, for good, with a reason, after one connection that has not told who it is. */
const refused = (
  fixture: DbFixture,
  tls: true | TlsOptions,
  address: Pick<DbFixture["server"], "host" | "port"> = fixture.server,
  greeting?: (bytes: Buffer) => Buffer
): Effect.Effect<DbError> =>
  Effect.scoped(Effect.gen(function*() {
    const tap = yield* openWiretap(address, greeting)
    return yield* withLayer(
      {
        ...named(fixture, tap.port),
        tls,
        acquireTimeout: "1 minute",
        connectSchedule: Schedule.spaced("1 millis")
      },
      Effect.gen(function*() {
        const error = yield* failure(select)
        expect(error).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
        expect(yield* snapshot).toMatchObject({ created: 0, held: 0, idle: 0, opening: 0 })
        expect(tap.wires).toHaveLength(1)
        expectUnread(fixture, tap)
        expect(yield* fixture.processes).toEqual([])
        return error
      })
    )
  }))

describe("TLS with a certificate that can be verified", () => {
  it.scopedLive("encrypts the session, and what is said in it cannot be read on the way", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const plain = yield* openWiretap(fixture.server)
        yield* withLayer(
          { ...named(fixture, plain.port) },
          Effect.gen(function*() {
            expect(yield* cipher).toBe("")
          })
        )
        // what is read where there is no TLS, so that not to read it means something
        expect(() => expectUnread(fixture, plain)).toThrow(fixture.user)
        const tap = yield* openWiretap(fixture.server)
        yield* withLayer(
          { ...named(fixture, tap.port), tls: trusted() },
          Effect.gen(function*() {
            expect(yield* cipher).toMatch(/^(TLS|ECDHE|DHE)/)
          })
        )
        expect(tap.wires).toHaveLength(1)
        expectUnread(fixture, tap, ["Ssl_cipher"])
      }), server))

  it.scopedLive("encrypts the connection on which statements are stopped too", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        yield* fixture.admin(`ALTER USER ${fixture.user}@'%' REQUIRE SSL`)
        const tap = yield* openWiretap(fixture.server)
        yield* withLayer(
          { ...named(fixture, tap.port), tls: trusted(), poolSize: 1 },
          Effect.gen(function*() {
            const db = yield* Db.Db
            const fiber = yield* Effect.fork(db.value("SELECT SLEEP(60)"))
            const id = yield* fixture.running("SLEEP(60)")
            yield* Fiber.interrupt(fiber)
            yield* fixture.notRunning("SLEEP(60)")
            // stopped, not closed
            expect(Option.getOrThrow(yield* db.value("SELECT CONNECTION_ID()"))).toBe(id)
          })
        )
        expect(tap.wires).toHaveLength(2)
        for (const wire of tap.wires) expect(saidBy("client", wire).length).toBeGreaterThan(300)
        expectUnread(fixture, tap, ["KILL QUERY", "SLEEP"])
      }), server))

  it.scopedLive("shows a certificate of one's own to a server that asks for it", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        yield* fixture.admin(`ALTER USER ${fixture.user}@'%' REQUIRE X509`)
        const { certificate, key } = authority.issue({ dnsName: "client" })
        const tls = { ...trusted(), cert: certificate, key: Redacted.make(key) }
        yield* withLayer(
          { ...named(fixture), tls },
          Effect.gen(function*() {
            expect(yield* cipher).not.toBe("")
          })
        )
        const error = yield* withLayer({ ...named(fixture), tls: trusted() }, failure(select))
        expect(error).toMatchObject({ _tag: "AuthenticationError", errno: 1045 })
      }), server))

  it.live.skipIf(showsOnlyGood)(
    onServersThatShow("need not be verified when that is asked for, and is encrypted all the same"),
    () =>
      withFixture((fixture) =>
        whileShowing(
          fixture,
          makeAuthority("nobody").issue({ dnsName: "elsewhere.example" }),
          withLayer(
            { ...named(fixture), tls: { verify: false } },
            Effect.gen(function*() {
              expect(yield* cipher).not.toBe("")
            })
          )
        ), server)
  )
})

describe("TLS is refused at once, and says why, when the certificate", () => {
  it.live("is of an authority that is not trusted", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const other = makeAuthority("another authority")
        const error = yield* refused(fixture, { ca: other.certificate })
        expect(error).toMatchObject({ code: "HANDSHAKE_SSL_ERROR" })
        expect(error.message).toMatch(/certificate/)
        // nor by those that the system trusts
        expect((yield* refused(fixture, true)).message).toMatch(/certificate/)
      }), server))

  it.live("is of another host", () =>
    withFixture((fixture) =>
      whileShowing(
        fixture,
        authority.issue({ dnsName: "elsewhere.example" }),
        Effect.gen(function*() {
          const error = yield* refused(fixture, trusted())
          expect(error.message).toMatch(/localhost.*elsewhere\.example/s)
        })
      ), server))

  it.live.skipIf(showsOnlyGood)(
    onServersThatShow("has expired, or is not valid yet"),
    () =>
      withFixture((fixture) =>
        Effect.gen(function*() {
          const at = (days: number) => new Date(Date.now() + days * day)
          const expired = authority.issue({ dnsName: "localhost", notBefore: at(-3), notAfter: at(-1) })
          const error = yield* whileShowing(fixture, expired, refused(fixture, trusted()))
          expect(error.message).toContain("certificate has expired")
          const early = authority.issue({ dnsName: "localhost", notBefore: at(1), notAfter: at(3) })
          const earlier = yield* whileShowing(fixture, early, refused(fixture, trusted()))
          expect(earlier.message).toContain("not yet valid")
        }), server)
  )
})

// --- who is in the middle --------------------------------------------------------------------------------------------

const sslFlag = 0x0800

/** Where the lower half of the server's capabilities is in its greeting: after header, protocol, version, id, scramble. */
const capabilitiesAt = (greeting: Buffer): number => greeting.indexOf(0, 5) + 1 + 4 + 8 + 1

const withoutTls = (greeting: Buffer): Buffer => {
  const changed = Buffer.from(greeting)
  const at = capabilitiesAt(changed)
  expect(changed.readUInt16LE(at) & sslFlag, "the server offers TLS").not.toBe(0)
  changed.writeUInt16LE(changed.readUInt16LE(at) & ~sslFlag, at)
  return changed
}

const greetingOf = ({ host, port }: Pick<DbFixture["server"], "host" | "port">): Effect.Effect<Buffer> =>
  Effect.async((resume) => {
    const socket = connect(port, host)
    socket.once("data", (bytes) => {
      socket.destroy()
      resume(Effect.succeed(bytes))
    })
  })

describe("TLS that was demanded", () => {
  it.live("is not done without on a server that has none", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const plain = inject("server")
        const greeting = yield* greetingOf(plain)
        if ((greeting.readUInt16LE(capabilitiesAt(greeting)) & sslFlag) !== 0) {
          return console.log("the shared server offers TLS by itself: a plain one is shown by the greeting alone")
        }
        const error = yield* refused(fixture, { verify: false }, plain)
        expect(error).toMatchObject({ code: "HANDSHAKE_NO_SSL_SUPPORT" })
      }), server))

  it.live("is not done without because one in the middle takes it out of the greeting", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        for (const tls of [true, trusted(), { verify: false }] as const) {
          const error = yield* refused(fixture, tls, fixture.server, withoutTls)
          expect(error).toMatchObject({ code: "HANDSHAKE_NO_SSL_SUPPORT" })
        }
      }), server))

  it.scopedLive("is not thought done because somebody answers in the clear before it has begun", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const greeting = yield* greetingOf(fixture.server)
        const ok = Buffer.of(7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0)
        const answer = Buffer.of(7, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0)
        let heard = Buffer.alloc(0)
        const port = yield* listen((client) => {
          client.write(Buffer.concat([greeting, ok, answer, answer, answer, answer]))
          client.on("data", (bytes) => {
            heard = Buffer.concat([heard, bytes])
          })
        })
        yield* withLayer(
          { ...named(fixture, port), tls: trusted(), connectTimeout: "200 millis", acquireTimeout: "400 millis" },
          Effect.gen(function*() {
            const error = yield* failure(select)
            expect(error).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
            expect(error.message).toContain("before the connection was encrypted")
            expect(yield* snapshot).toMatchObject({ created: 0 })
          })
        )
        expect(heard.toString("latin1")).not.toContain(fixture.user)
        expect(heard.toString("latin1")).not.toContain("SET NAMES")
      }), server))
})
