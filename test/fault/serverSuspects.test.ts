/** After a loss, and after a failover: which connections are still believed in, and where new ones lead. */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { createConnection } from "mysql2/promise"
import dns from "node:dns"
import * as Db from "../../src/Db.js"
import type * as DbLayer from "../../src/DbLayer.js"
import {
  type DbFixture,
  eventually,
  type ServerAddress,
  withFixture,
  withLayer,
  withServer
} from "../support/dbFixture.js"
import { connectionId, latch, numbers, snapshot, valueOf } from "../support/dbQuestions.js"
import { type FaultProxy, openFaultProxy } from "../support/faultProxy.js"

/** Opens so many connections, which are idle afterwards. */
const openIdle = (count: number) =>
  Effect.flatMap(
    latch(count),
    (together) =>
      Effect.forEach(Array.from({ length: count }), () => Effect.zipLeft(connectionId, together), {
        concurrency: "unbounded",
        discard: true
      })
  )

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INT PRIMARY KEY) ENGINE = InnoDB"))

describe("a loss makes every other connection be checked before it is used again:", () => {
  /** Loses one connection in its way, which the pool has to find out before the effect ends. */
  const losses: Record<
    string,
    (fixture: DbFixture, proxy: FaultProxy) => Effect.Effect<unknown, unknown, DbLayer.Services>
  > = {
    "of an idle one": ({ kill }) => Effect.flatMap(Effect.flatMap(Effect.fork(connectionId), Fiber.join), kill),
    "in a statement": ({ kill, running }) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const lost = yield* Effect.fork(Effect.flip(db.execute("DO SLEEP(30) /* lost */")))
        yield* kill(yield* running("/* lost */"))
        yield* Fiber.join(lost)
      }),
    "in a stream": ({ kill, running }) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const rows = db.stream(`SELECT seq, REPEAT('x', 8000) FROM ${numbers(20_000)} /* lost */`)
        let seen = 0
        const lost = Stream.runForEach(rows, () =>
          ++seen === 1 ? Effect.flatMap(running("/* lost */"), kill) : Effect.void)
        expect(yield* Effect.flip(lost)).toMatchObject({ _tag: "ConnectionLost" })
      }),
    "in a transaction": ({ kill }) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const lost = db.transaction(Effect.zipRight(Effect.flatMap(connectionId, kill), db.execute("DO 1")))
        expect(yield* Effect.flip(lost)).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
      }),
    "in a statement that ran for too long and could not be stopped": (_, proxy) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* proxy.blackHole
        const lost = Effect.flip(Db.withStatementTimeout(db.execute("DO 1"), 100))
        expect(yield* Effect.flatMap(Effect.fork(lost), Fiber.join)).toMatchObject({ _tag: "ConnectionLost" })
        yield* proxy.heal
      }),
    "in a reset": ({ kill }, proxy) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const id = yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* db.connection
          yield* connection.execute("SET @x = 1")
          const said = yield* proxy.hold
          yield* Effect.forkDaemon(said)
          return connection.id
        }))
        yield* kill(id)
        yield* eventually("its place is free", Effect.map(snapshot, ({ busy }) => busy === 0))
        yield* proxy.letGo
      })
  }
  for (const [how, lose] of Object.entries(losses)) {
    it.scopedLive(
      how,
      () =>
        withFixture((fixture) =>
          Effect.flatMap(openFaultProxy(fixture.server), (proxy) =>
            withLayer(
              {
                url: fixture.url,
                port: proxy.port,
                poolSize: 4,
                acquireTimeout: "10 seconds",
                cancelTimeout: 500,
                validateAfter: "1 minute"
              },
              Effect.gen(function*() {
                const db = yield* Db.Db
                yield* openIdle(4)
                expect(yield* snapshot).toMatchObject({ idle: 4, validations: 0 })
                yield* lose(fixture, proxy)
                yield* db.releaseFiberConnection
                yield* eventually("one is lost", Effect.map(snapshot, ({ busy, idle }) => idle === 3 && busy === 0))
                yield* openIdle(3)
                const { created, validations } = yield* snapshot
                expect({ created, validations }).toEqual({ created: 4, validations: 3 })
              })
            ))
        )
    )
  }
})

/** Asks as root. */
const onServer = ({ host, password, port, user }: ServerAddress, statements: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const connection = await createConnection({ host, port, user, password })
    for (const sql of statements) await connection.query(sql)
    await connection.end()
  })

/** What makes the fixture's user and schema on a second server. */
const sameUser = ({ database, url, user }: DbFixture): ReadonlyArray<string> => [
  `CREATE DATABASE ${database}`,
  `CREATE USER ${user}@'%' IDENTIFIED BY '${new URL(Redacted.value(url)).password}'`,
  `GRANT ALL ON ${database}.* TO ${user}@'%'`
]

describe("a failover", () => {
  it.live(
    "leaves a primary that refuses writes: a write finds the new one, however many connections lead to the old",
    () =>
      withServer({}, (old) =>
        withFixture((fixture) =>
          Effect.scoped(Effect.gen(function*() {
            const proxy = yield* openFaultProxy(old)
            yield* onServer(old, sameUser(fixture))
            yield* withLayer(
              { url: fixture.url, port: proxy.port, poolSize: 12, acquireTimeout: "10 seconds" },
              Effect.gen(function*() {
                const db = yield* Db.Db
                yield* createItems
                yield* fixture.admin(`CREATE TABLE ${fixture.database}.items (id INT PRIMARY KEY) ENGINE = InnoDB`)
                yield* db.releaseFiberConnection
                yield* openIdle(12)
                const oldPort = yield* valueOf(db, "SELECT @@port")
                yield* db.releaseFiberConnection
                yield* onServer(old, ["SET GLOBAL read_only = ON"])
                proxy.leadTo(fixture.server)
                yield* db.execute("INSERT INTO items VALUES (1)")
                expect(yield* valueOf(db, "SELECT @@port")).not.toBe(oldPort)
                expect(yield* fixture.admin(`SELECT id FROM ${fixture.database}.items`)).toEqual([[1]])
                // nobody is led to the old one any more
                yield* db.releaseFiberConnection
                const together = yield* latch(12)
                const ports = yield* Effect.forEach(
                  Array.from({ length: 12 }),
                  () => Effect.zipLeft(valueOf(db, "SELECT @@port"), together),
                  { concurrency: "unbounded" }
                )
                expect(new Set(ports)).toEqual(new Set([fixture.server.port]))
                process.stdout.write(`failover: ${(yield* snapshot).retriedUnexecuted} retries for the first write\n`)
              })
            )
          }))
        )),
    60_000
  )
})

/** What the name stands for, as the resolver says until the scope ends; counts how often it is asked. */
const resolvable = (name: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const original = dns.lookup
        const answer = { address: "", asked: 0 }
        const lookup = (
          host: string,
          options: { readonly all?: boolean },
          done: (error: null, address: unknown, family?: number) => void
        ): void => {
          if (host !== name) return void Reflect.apply(original, dns, [host, options, done])
          answer.asked += 1
          const { address } = answer
          setImmediate(() => options.all === true ? done(null, [{ address, family: 4 }]) : done(null, address, 4))
        }
        dns.lookup = lookup as unknown as typeof original
        return { answer, original }
      }),
      ({ original }) =>
        Effect.sync(() => {
          dns.lookup = original
        })
    ),
    ({ answer }) => answer
  )

describe("a name", () => {
  it.scopedLive("is looked up at each connect, so that a server that has moved is found at its new address", () =>
    withFixture((fixture) =>
      Effect.gen(function*() {
        const host = "database.example"
        const answer = yield* resolvable(host)
        const before = yield* openFaultProxy(fixture.server)
        const after = yield* openFaultProxy(fixture.server, { host: "127.0.0.2", port: before.port })
        answer.address = before.host
        yield* withLayer(
          { url: fixture.url, host, port: before.port, poolSize: 3, acquireTimeout: "10 seconds" },
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* openIdle(3)
            expect([before.accepted(), after.accepted(), answer.asked]).toEqual([3, 0, 3])
            answer.address = after.host
            yield* before.refuse
            expect(yield* valueOf(db, "SELECT 1")).toBe(1)
            yield* db.releaseFiberConnection
            yield* openIdle(3)
            expect([before.accepted(), after.accepted(), answer.asked]).toEqual([3, 3, 6])
          })
        )
      })
    ))
})
