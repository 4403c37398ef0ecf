/** A server that closes idle connections by itself, and one that is restarted, in peace and by a crash. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Db from "../../src/Db.js"
import * as Recovery from "../../src/Recovery.js"
import { type DbFixture, eventually, withDb, withServer } from "../support/dbFixture.js"
import { connectionId, idOf, latch, snapshot, valueOf } from "../support/dbQuestions.js"
import { noRetries, retriesOf } from "../support/retries.js"

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INT PRIMARY KEY) ENGINE = InnoDB"))

const noneLeft = ({ processes }: DbFixture) =>
  eventually("the server has closed every connection", Effect.map(processes, (all) => all.length === 0))

describe("wait_timeout", () => {
  it.live(
    "closes idle connections, and neither reads nor writes notice",
    () =>
      withServer(
        { settings: ["--wait-timeout=1"] },
        (server) =>
          withDb({ server, poolSize: 3, keepalive: Duration.infinity, acquireTimeout: "10 seconds" }, (fixture) =>
            Effect.gen(function*() {
              const db = yield* Db.Db
              yield* createItems
              const first = yield* connectionId
              const together = yield* latch(2)
              yield* Effect.forEach([1, 2], () =>
                Effect.zipLeft(connectionId, together), { concurrency: 2 })
              expect((yield* snapshot).created).toBe(3)
              yield* noneLeft(fixture)
              expect(yield* connectionId).not.toBe(first)
              expect(yield* snapshot).toMatchObject({ lost: 3, ...noRetries })
              yield* noneLeft(fixture)
              yield* db.execute("INSERT INTO items VALUES (1)")
              yield* noneLeft(fixture)
              yield* db.transaction(db.execute("INSERT INTO items VALUES (2)"))
              expect(yield* db.list("SELECT id FROM items ORDER BY id")).toEqual([1, 2])
              yield* noneLeft(fixture)
              // session state is gone with its connection, and that is said
              yield* db.execute("SET @x = 1")
              const { lost } = yield* snapshot
              yield* noneLeft(fixture)
              // a statement that comes before the pool has heard of it is refused like all others
              yield* eventually("the pool has noticed", Effect.map(snapshot, (now) => now.lost === lost + 1))
              const error = yield* Effect.flip(db.value("SELECT @x"))
              expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
              expect(yield* valueOf(db, "SELECT @x")).toBe(null)
            }))
      ),
    60_000
  )
})

describe("a restart of the server", () => {
  const restarts = {
    "in peace": (server: { readonly restart: () => Promise<void> }) => Effect.promise(() => server.restart()),
    "by a crash": (server: { readonly restart: () => Promise<void>; readonly kill: (signal: "SIGKILL") => void }) =>
      Effect.zipRight(Effect.sync(() => server.kill("SIGKILL")), Effect.promise(() => server.restart()))
  }
  for (const [how, restart] of Object.entries(restarts)) {
    it.live(
      `${how}: reads, unsent statements and transactions afterwards succeed without noticing`,
      () =>
        withServer(
          {},
          (server) =>
            withDb({ server, poolSize: 3, acquireTimeout: "20 seconds" }, () =>
              Effect.gen(function*() {
                const db = yield* Db.Db
                yield* createItems
                const together = yield* latch(2)
                yield* Effect.forEach([1, 2], () => Effect.zipLeft(connectionId, together), { concurrency: 2 })
                yield* restart(server)
                expect(yield* valueOf(db, "SELECT 1")).toBe(1)
                yield* db.execute("INSERT INTO items VALUES (1)")
                yield* restart(server)
                yield* db.execute("INSERT INTO items VALUES (2)")
                yield* restart(server)
                yield* db.transaction(db.execute("INSERT INTO items VALUES (3)"))
                yield* restart(server)
                yield* Effect.scoped(Effect.flatMap(db.connection, idOf))
                expect(yield* db.list("SELECT id FROM items ORDER BY id")).toEqual([1, 2, 3])
              }))
        ),
      90_000
    )

    it.live(
      `${how}, under many fibers: every read succeeds, and no write is lost or done twice unnoticed`,
      () =>
        withServer(
          {},
          (server) =>
            withDb({ server, poolSize: 5, acquireTimeout: "30 seconds", connectTimeout: "2 seconds" }, () =>
              Effect.gen(function*() {
                const db = yield* Db.Db
                yield* createItems
                // the server keeps what is written twice apart from what is written once
                yield* db.execute("CREATE TABLE log (id INT, INDEX (id)) ENGINE = InnoDB")
                const over = yield* Deferred.make<void>()
                let reads = 0
                const done: Array<number> = []
                const unknown: Array<number> = []
                const untilOver = <E>(step: Effect.Effect<void, E>): Effect.Effect<void, E> =>
                  Effect.flatMap(Deferred.isDone(over), (end) =>
                    end ? Effect.void : Effect.zipRight(step, untilOver(step)))
                const reader = (n: number) =>
                  untilOver(Effect.map(db.value<number>("SELECT ? + 1", [n]), (value) => {
                    expect(Number(Option.getOrThrow(value))).toBe(n + 1)
                    reads++
                  }))
                let next = 0
                const writer = untilOver(Effect.suspend(() => {
                  const id = next++
                  return Effect.map(Effect.either(db.execute("INSERT INTO log VALUES (?)", [id])), (exit) => {
                    if (Either.isRight(exit)) {
                      return void done.push(id)
                    }
                    expect(exit.left).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
                    unknown.push(id)
                  })
                }))
                let replaced = 0
                const replacer = untilOver(Effect.suspend(() => {
                  const id = replaced++
                  return Recovery.idempotent(db.execute("INSERT IGNORE INTO items VALUES (?)", [id]))
                }))
                const fibers = yield* Effect.forEach(
                  [
                    ...Array.from({ length: 20 }, (_, n) =>
                      reader(n)),
                    writer,
                    writer,
                    writer,
                    replacer
                  ],
                  (effect) =>
                    Effect.fork(effect)
                )
                for (let round = 0; round < 2; round++) {
                  const before = reads
                  yield* eventually(
                    "they run",
                    Effect.sync(() =>
                      reads > before + 200
                    )
                  )
                  yield* restart(server)
                }
                const before = reads
                yield* eventually("they run again", Effect.sync(() => reads > before + 200))
                yield* Deferred.succeed(over, undefined)
                yield* Fiber.joinAll(fibers)

                const rows = (yield* db.list<number>("SELECT id FROM log ORDER BY id")).map(Number)
                const present = new Set(rows)
                expect(present.size).toBe(rows.length)
                expect(done.filter((id) => !present.has(id))).toEqual([])
                const allowed = new Set([...done, ...unknown])
                expect(rows.filter((id) => !allowed.has(id))).toEqual([])
                expect(Number(yield* valueOf(db, "SELECT COUNT(*) FROM items"))).toBe(replaced)
                const counts = yield* snapshot
                expect(counts.lost).toBeGreaterThan(0)
                expect(counts.timedOut).toBe(0)
                process.stdout.write(
                  `restart ${how}: ${reads} reads, ${done.length} writes done, ${unknown.length} unknown, ` +
                    `${retriesOf(counts)} retried, ${counts.connectFailures} connects failed\n`
                )
              }))
        ),
      90_000
    )
  }

  it.live(
    "in a transaction: rolled back, nothing retried, and the next one works",
    () =>
      withServer(
        {},
        (server) =>
          withDb({ server, poolSize: 2, acquireTimeout: "20 seconds" }, () =>
            Effect.gen(function*() {
              const db = yield* Db.Db
              yield* createItems
              const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
                yield* db.execute("INSERT INTO items VALUES (1)")
                yield* Effect.promise(() => server.restart())
                yield* db.execute("INSERT INTO items VALUES (2)")
              })))
              expect(error).toMatchObject({ _tag: "ConnectionLost", outcome: "rolled back" })
              yield* db.transaction(db.execute("INSERT INTO items VALUES (3)"))
              expect(yield* db.list("SELECT id FROM items")).toEqual([3])
            }))
      ),
    60_000
  )

  it.live(
    "that takes longer than acquireTimeout ends a statement with PoolUnreachable or why it could not connect",
    () =>
      withServer({}, (server) =>
        withDb({ server, poolSize: 2, acquireTimeout: 1500 }, () =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* connectionId
            server.kill("SIGKILL")
            yield* eventually("the pool has seen it", Effect.map(snapshot, ({ lost }) => lost === 1))
            const started = performance.now()
            const error = yield* Effect.flip(db.value("SELECT 1"))
            expect(error._tag).toBe("PoolUnreachable")
            expect(error.message).toContain("ECONNREFUSED")
            expect(performance.now() - started).toBeLessThan(5000)
            yield* Effect.promise(() => server.restart())
            // all is well within one step of the back-off, which is a second at most
            expect(yield* valueOf(db, "SELECT 1")).toBe(1)
          }))),
    60_000
  )
})
