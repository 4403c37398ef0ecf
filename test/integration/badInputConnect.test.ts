/** Servers, credentials and options that cannot be: a clear, typed error each, within its deadline, and no secret told. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { once } from "node:events"
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inject } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { ConnectionError, PoolUnreachable } from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as PoolStats from "../../src/PoolStats.js"
import { expectSecretless, failure, logged } from "../support/bothDatabases.js"
import { type DbFixture, eventually, withFixture, withLayer } from "../support/dbFixture.js"
import { openProxy } from "../support/proxy.js"

const wrong = "wr0ng-Pa55word"

/** The proxy in front of the server, with the fixture's credentials or others. */
const through = (
  fixture: DbFixture,
  port: number,
  changes: { readonly password?: string; readonly database?: string }
) => {
  const url = new URL(Redacted.value(fixture.url))
  url.host = `127.0.0.1:${port}`
  if (changes.password !== undefined) url.password = changes.password
  if (changes.database !== undefined) url.pathname = `/${changes.database}`
  return Redacted.make(url.href)
}

const snapshot = Effect.flatMap(PoolStats.PoolStats, (stats) => stats.snapshot)

/** Long enough for anything that is retried without a pause to have come: several connects and round trips. */
const someRoundTrips = (fixture: DbFixture) => Effect.repeatN(fixture.admin("SELECT 1"), 4)

/** Tries again at once, and for ever, so that whoever tries again is seen to. */
const atOnce = Schedule.forever

const select = Effect.flatMap(Db.Db, (db) => db.value("SELECT 1"))

const nobodyListens = Effect.promise(async () => {
  const probe = createServer().listen(0, "127.0.0.1")
  await once(probe, "listening")
  const address = probe.address()
  probe.close()
  await once(probe, "close")
  if (address === null || typeof address === "string") throw new Error("no free port")
  return address.port
})

describe("a wrong password", () => {
  it.scopedLive("is an AuthenticationError after one attempt, and is not tried again", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        const url = through(fixture, proxy.port, { password: wrong })
        yield* withLayer(
          { url, connectSchedule: atOnce, acquireTimeout: "1 minute" },
          Effect.gen(function*() {
            const error = yield* failure(select)
            expect(error).toMatchObject({
              _tag: "AuthenticationError",
              target: `127.0.0.1:${proxy.port}`,
              errno: 1045,
              sqlState: "28000",
              isRetryable: false
            })
            yield* someRoundTrips(fixture)
            expect(proxy.accepted()).toBe(1)
            expect(yield* snapshot).toMatchObject({
              created: 0,
              connectFailures: 1,
              opening: 0,
              waiting: 0,
              timedOut: 0
            })
            // who asks again gets an attempt of its own
            expect(yield* failure(select)).toMatchObject({ _tag: "AuthenticationError" })
            yield* someRoundTrips(fixture)
            expect(proxy.accepted()).toBe(2)
            yield* eventually("the sockets are closed", Effect.sync(() => proxy.open() === 0))
          })
        )
      })
    ))

  it.scopedLive("is told to everybody who waits, after one attempt for all", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        const url = through(fixture, proxy.port, { password: wrong })
        yield* withLayer(
          { url, poolSize: 10, connectSchedule: atOnce },
          Effect.gen(function*() {
            const errors = yield* Effect.forEach(Array.from({ length: 30 }), () => failure(select), {
              concurrency: "unbounded"
            })
            for (const error of errors) expect(error._tag).toBe("AuthenticationError")
            expect(proxy.accepted()).toBe(1)
          })
        )
      })
    ))

  it.scopedLive("with minimumIdle is tried once when the pool is made, and then only when somebody asks", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        const url = through(fixture, proxy.port, { password: wrong })
        const options = { url, minimumIdle: 3, connectSchedule: atOnce, keepalive: "40 millis" } as const
        yield* withLayer(
          options,
          Effect.gen(function*() {
            yield* eventually(
              "the first connect has failed",
              Effect.map(snapshot, ({ connectFailures }) => connectFailures > 0)
            )
            yield* someRoundTrips(fixture)
            expect(proxy.accepted()).toBe(1)
            expect(yield* failure(select)).toMatchObject({ _tag: "AuthenticationError" })
            yield* someRoundTrips(fixture)
            expect(proxy.accepted()).toBe(2)
            expect(yield* snapshot).toMatchObject({ created: 0, connectFailures: 2, opening: 0 })
          })
        )
      })
    ))

  it.scopedLive("is nowhere in the error, its JSON, what is inspected, or a log of any level", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const url = through(fixture, fixture.server.port, { password: wrong })
        const [errors, lines] = yield* logged(
          withLayer(
            { url, minimumIdle: 1, poolSize: 2 },
            Effect.gen(function*() {
              const db = yield* Db.Db
              const pool = yield* ConnectionPool.ConnectionPool
              const found = [
                yield* failure(db.value("SELECT 1")),
                yield* failure(Effect.scoped(db.connection)),
                yield* failure(db.transaction(Effect.void)),
                yield* failure(db.session(Effect.void))
              ]
              yield* Effect.logError("it failed", ...found)
              yield* Effect.logDebug("the pool", pool, db, yield* pool.snapshot)
              expectSecretless(pool, wrong)
              expectSecretless(db, wrong)
              // as a program without an error handler would have it
              const exit = yield* Effect.exit(db.value("SELECT 1"))
              if (Exit.isFailure(exit)) yield* Effect.logFatal("it died", exit.cause)
              return found
            })
          )
        )
        for (const error of errors) {
          expect(error._tag).toBe("AuthenticationError")
          expectSecretless(error, wrong)
        }
        expect(lines.length).toBeGreaterThanOrEqual(3)
        expect(lines.join("\n")).not.toContain(wrong)
      })
    ))

  it.scopedLive("from a provider of credentials is asked for once more, since it may have changed meanwhile", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const right = Redacted.make(new URL(Redacted.value(fixture.url)).password)
        const { host, port } = fixture.server
        const passwords = [Redacted.make(wrong), right]
        let asked = 0
        const credentials = Effect.sync(() => ({ username: fixture.user, password: passwords[asked++ % 2]! }))
        yield* withLayer({ host, port, database: fixture.database, credentials }, select)
        expect(asked).toBe(2)
        asked = 0
        const never = Effect.sync(() => {
          asked++
          return { username: fixture.user, password: Redacted.make(wrong) }
        })
        const refused = withLayer({ host, port, credentials: never, connectSchedule: atOnce }, failure(select))
        expect(yield* refused).toMatchObject({ _tag: "AuthenticationError" })
        expect(asked).toBe(2)
      })
    ))
})

describe("a server that cannot be had", () => {
  it.scopedLive("an unknown database is refused at once, after one attempt", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        const { password, user } = inject("server")
        const url = Redacted.make(`mysql://${user}:${password}@127.0.0.1:${proxy.port}/no_such_database`)
        yield* withLayer(
          { url, connectSchedule: atOnce, acquireTimeout: "1 minute" },
          Effect.gen(function*() {
            const error = yield* failure(select)
            expect(error).toMatchObject({
              _tag: "ConnectionError",
              errno: 1049,
              sqlState: "42000",
              isRetryable: false
            })
            expect(error.message).toContain("no_such_database")
            yield* someRoundTrips(fixture)
            expect(proxy.accepted()).toBe(1)
          })
        )
      })
    ))

  it.scopedLive("a database that is not the user's is refused at once", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const url = through(fixture, fixture.server.port, { database: "mysql" })
        const error = yield* withLayer({ url, acquireTimeout: "1 minute" }, failure(select))
        expect(error).toMatchObject({ _tag: "ConnectionError", errno: 1044, isRetryable: false })
      })
    ))

  it.live("a host that does not resolve is PoolUnreachable at the deadline, and says so", () =>
    Effect.gen(function*() {
      // too long for a name: the resolver says no without asking the network, which may be slow or absent
      const host = `${"x".repeat(64)}.invalid`
      const options = { host, acquireTimeout: "400 millis", name: "shop" } as const
      const error = (yield* withLayer(options, failure(select))) as PoolUnreachable
      expect(error).toMatchObject({ _tag: "PoolUnreachable", pool: "shop", isRetryable: true })
      expect(error.waitedMillis).toBeGreaterThanOrEqual(400)
      expect(error.cause).toMatchObject({ _tag: "ConnectionError", isRetryable: true })
      expect((error.cause as ConnectionError).code).toMatch(/^(ENOTFOUND|EAI_AGAIN)$/)
      expect(error.message).toContain(`${host}:3306`)
    }))

  it.live("a port where nothing listens is PoolUnreachable at the deadline, for everybody who waits", () =>
    Effect.gen(function*() {
      const port = yield* nobodyListens
      const options = { host: "127.0.0.1", port, acquireTimeout: "300 millis", poolSize: 5 } as const
      yield* withLayer(
        options,
        Effect.gen(function*() {
          const started = performance.now()
          const errors = yield* Effect.forEach(Array.from({ length: 20 }), () => failure(select), {
            concurrency: "unbounded"
          })
          const took = performance.now() - started
          expect(took).toBeGreaterThan(295)
          expect(took).toBeLessThan(3_000)
          for (const error of errors) {
            expect(error).toMatchObject({
              _tag: "PoolUnreachable",
              isRetryable: true,
              cause: { _tag: "ConnectionError", code: "ECONNREFUSED", target: `127.0.0.1:${port}`, isRetryable: true }
            })
            expect(error.message).toMatch(/was not reached within \d+ ms \(max=5, idle=0, held=0, .*ECONNREFUSED/)
            expect(error.message).not.toContain("\n")
          }
          expect(yield* snapshot).toMatchObject({ waiting: 0, held: 0, timedOut: 20, created: 0 })
        })
      )
    }))

  it.scopedLive("a port that accepts but never speaks is given up after connectTimeout, and told at the deadline", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* proxy.hold
        const url = through(fixture, proxy.port, {})
        const options = { url, connectTimeout: "100 millis", acquireTimeout: "400 millis" } as const
        yield* withLayer(
          options,
          Effect.gen(function*() {
            const error = yield* failure(select)
            expect(error).toMatchObject({
              _tag: "PoolUnreachable",
              cause: { _tag: "ConnectionError", reason: "no answer within 100 ms", isRetryable: true }
            })
            expect(proxy.accepted()).toBeGreaterThanOrEqual(1)
            // what was given up is closed, at this end too
            yield* eventually("no more than the attempt in flight is open", Effect.sync(() => proxy.open() <= 1))
            yield* proxy.release
            expect(yield* select).toEqual(Option.some(1))
          })
        )
        yield* eventually("every socket is closed", Effect.sync(() => proxy.open() === 0))
      })
    ))

  it.scopedLive("a port that speaks another protocol is a ConnectionError, or PoolUnreachable that says why", () =>
    Effect.gen(function*() {
      const server = createServer((socket) => {
        socket.on("error", () => socket.destroy())
        socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")
      })
      yield* Effect.acquireRelease(
        Effect.promise(async () => {
          server.listen(0, "127.0.0.1")
          await once(server, "listening")
        }),
        () => Effect.async<void>((resume) => void server.close(() => resume(Effect.void)))
      )
      const { port } = server.address() as { readonly port: number }
      const options = { host: "127.0.0.1", port, acquireTimeout: "300 millis", connectTimeout: "100 millis" } as const
      const error = yield* withLayer(options, failure(select))
      expect(["ConnectionError", "PoolUnreachable"]).toContain(error._tag)
      expect(error.message).toContain(`127.0.0.1:${port}`)
    }))

  it.scopedLive("TLS that the server cannot give, or not for this name, fails without falling back to none", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        for (const tls of [true, { minVersion: "TLSv1.3" }] as const) {
          const proxy = yield* openProxy(fixture.server)
          // verified by name, which an address has not
          const options = { url: through(fixture, proxy.port, {}), host: "localhost", tls } as const
          yield* withLayer(
            { ...options, connectSchedule: atOnce, acquireTimeout: "1 minute" },
            Effect.gen(function*() {
              const error = yield* failure(select)
              expect(error).toMatchObject({ _tag: "ConnectionError", isRetryable: false })
              expect(error.message).toMatch(/SSL|TLS|certificate|secure/i)
              yield* someRoundTrips(fixture)
              expect(proxy.accepted()).toBe(1)
              expect(yield* snapshot).toMatchObject({ created: 0 })
            })
          )
        }
      })
    ))

  it.live("a socket that is not there says so", () =>
    Effect.gen(function*() {
      const socketPath = join(tmpdir(), "no-such-socket.sock")
      const error = yield* withLayer({ socketPath, acquireTimeout: "200 millis" }, failure(select))
      expect(error).toMatchObject({ _tag: "PoolUnreachable", cause: { code: "ENOENT", target: socketPath } })
    }))

  it.scopedLive("initial SQL that fails is named", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const options = {
          url: fixture.url,
          initialSql: ["SET @fine = 1", "SELEC 1"],
          acquireTimeout: "1 minute"
        } as const
        const error = yield* withLayer(options, failure(select))
        expect(error).toMatchObject({ _tag: "ConnectionError", errno: 1064, isRetryable: false })
        expect(error.message).toContain("SELEC 1")
      })
    ))
})

describe("a SQLite file that cannot be had", () => {
  const folder = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-sql-pool-test-"))),
    (path) =>
      Effect.sync(() => {
        chmodSync(path, 0o700)
        rmSync(path, { recursive: true, force: true })
      })
  )

  it.scopedLive("is a ConnectionError at once, which names the file", () =>
    Effect.gen(function*() {
      const path = yield* folder
      writeFileSync(join(path, "text.sqlite"), "this is no database, but long enough to be looked at as one".repeat(20))
      for (const filename of [path, join(path, "no", "such", "folder.sqlite"), join(path, "text.sqlite")]) {
        const services = yield* Layer.build(DbLayer.sqlite({ filename, acquireTimeout: "1 minute" }))
        const error = yield* failure(Effect.provide(select, services))
        expect(error).toMatchObject({ _tag: "ConnectionError", isRetryable: false, target: filename })
        expect(yield* Effect.provide(snapshot, services)).toMatchObject({ created: 0, waiting: 0, opening: 0 })
      }
    }))

  it.scopedLive("read-only is not made when it is not there", () =>
    Effect.gen(function*() {
      const filename = join(yield* folder, "new.sqlite")
      const services = yield* Layer.build(DbLayer.sqlite({ filename, readOnly: true, acquireTimeout: "1 minute" }))
      expect(yield* failure(Effect.provide(select, services))).toMatchObject({ _tag: "ConnectionError" })
    }))
})

describe("options that cannot be", () => {
  const build = <A, E>(layer: Layer.Layer<A, E>) => failure(Effect.scoped(Layer.build(layer)))

  it.live("fail the layer with InvalidConfig before anything is opened", () =>
    Effect.gen(function*() {
      const secret = "s3cret"
      const { url } = inject("server")
      const layers: ReadonlyArray<
        readonly [Layer.Layer<DbLayer.Services, { readonly _tag: string; readonly message: string }>, RegExp]
      > = [
        [DbLayer.mysql({ url: Redacted.make(`mysql//app:${secret}@x`) }), /URL is malformed/],
        [DbLayer.mysql({ url: Redacted.make(`postgres://app:${secret}@x/y`) }), /scheme has to be mysql/],
        [DbLayer.mysql({ url: Redacted.make(`mysql://app:${secret}@x/y?ssl=1`) }), /options of their own/],
        [DbLayer.mysql({ url: Redacted.make(url), poolSize: 0 }), /poolSize must be a whole number from 1, not 0/],
        [DbLayer.mysql({ url: Redacted.make(url), poolSize: 2.5 }), /not 2\.5/],
        [DbLayer.mysql({ url: Redacted.make(url), poolSize: NaN }), /not NaN/],
        [DbLayer.mysql({ url: Redacted.make(url), minimumIdle: 11 }), /at most poolSize \(10\), not 11/],
        [DbLayer.mysql({ url: Redacted.make(url), acquireTimeout: 0 }), /acquireTimeout must be longer than nothing/],
        [DbLayer.mysql({ url: Redacted.make(url), port: 0 }), /port has to be/],
        [DbLayer.mysql({ url: Redacted.make(url), collation: "latin1_swedish_ci" }), /collation has to be/],
        [DbLayer.mysql({ host: "127.0.0.1", tls: true }), /host is an address/],
        [DbLayer.sqlite({ url: "mysql://localhost/x" }), /starts with sqlite:/],
        [DbLayer.sqlite({ filename: ":memory:", poolSize: 2 }), /at most 1/],
        [DbLayer.sqlite({ readOnly: true }), /read-only/],
        [DbLayer.sqlite({ poolSize: -1 }), /not -1/]
      ]
      for (const [layer, says] of layers) {
        const error = yield* build(layer)
        expect(error._tag).toBe("InvalidConfig")
        expect(error.message).toMatch(says)
        expectSecretless(error, secret)
        expect(error.message).not.toContain(inject("server").password)
      }
    }))
})
