/** How a transaction ends, and what is known of it: by itself, by the server, by the loss of its connection. */
import { SqlClient } from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { createConnection } from "mysql2/promise"
import * as Db from "../../src/Db.js"
import * as DbErrors from "../../src/DbError.js"
import { eventually, withDb, withFixture, withLayer, withServer } from "../support/dbFixture.js"
import type { DbFixture, ServerAddress } from "../support/dbFixture.js"
import { connectionId, snapshot } from "../support/dbQuestions.js"
import { openDeafProxy } from "../support/deafProxy.js"
import { openProxy } from "../support/proxy.js"
import { noRetries } from "../support/retries.js"

const pool = { poolSize: 2, acquireTimeout: "10 seconds" } as const

const createItems = Effect.flatMap(Db.Db, (db) => db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)"))
const insert = (id: number) => Effect.flatMap(Db.Db, (db) => db.execute("INSERT INTO items VALUES (?)", [id]))
const items = Effect.flatMap(Db.Db, (db) => db.list<number>("SELECT id FROM items ORDER BY id"))
const session = Effect.flatMap(
  Db.Db,
  (db) => Effect.map(db.currentConnection, Option.map((current) => current.session))
)
const lost = (count: number) =>
  eventually(`the pool has seen ${count} losses`, Effect.map(snapshot, (counts) => counts.lost === count))

/** The server has seen the end of every transaction, whichever it was. */
const expectNoTransaction = ({ admin, user }: DbFixture) =>
  eventually(
    `no transaction of ${user} is open`,
    Effect.map(
      admin(
        "SELECT 1 FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id"
          + ` WHERE user = '${user}'`
      ),
      (rows) => rows.length === 0
    )
  )

/** From now on nobody commits on the whole server, until the scope ends. */
const blockCommits = ({ host, password, port, user }: ServerAddress) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const connection = await createConnection({ host, port, user, password })
      await connection.query("FLUSH TABLES WITH READ LOCK")
      return connection
    }),
    (connection) => Effect.promise(() => connection.end())
  )

describe("a COMMIT that the server refuses", () => {
  it.live(
    "is the transaction's error, a SqlError of sql.withTransaction, and nothing was written",
    () =>
      withServer({}, (server) =>
        withDb({ ...pool, server }, (fixture) =>
          Effect.gen(function*() {
            const db = yield* Db.Db
            const sql = yield* SqlClient
            yield* createItems
            const refused = <A, E, R>(transaction: Effect.Effect<A, E, R>) =>
              Effect.scoped(Effect.gen(function*() {
                const scope = yield* Effect.scope
                const running = yield* Effect.fork(Effect.flip(Effect.provideService(transaction, Scope.Scope, scope)))
                const id = yield* fixture.running("COMMIT")
                yield* fixture.admin(`KILL QUERY ${id}`)
                return yield* Fiber.join(running)
              }))
            const cancelled = { _tag: "StatementCancelled", statement: "COMMIT" }
            const direct = db.transaction(Effect.zipRight(insert(1), blockCommits(server)))
            expect(yield* refused(direct)).toMatchObject(cancelled)
            const error = yield* refused(
              sql.withTransaction(Effect.zipRight(sql`INSERT INTO items VALUES (2)`, blockCommits(server)))
            )
            expect(error).toMatchObject({ _tag: "SqlError" })
            expect(DbErrors.find(error)).toMatchObject(cancelled)
            expect(yield* items).toEqual([])
            expect(yield* session).not.toEqual(Option.some("transaction"))
            yield* db.transaction(insert(3))
            expect(yield* items).toEqual([3])
          }))),
    120_000
  )
})

describe("a connection that is lost", () => {
  it.live("before ROLLBACK leaves the body its error, and the next statement its connection", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const exit = yield* Effect.exit(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
          return yield* Effect.fail("mine")
        })))
        expect(exit).toEqual(Exit.fail("mine"))
        yield* insert(2)
        expect(yield* items).toEqual([2])
      })))

  it.live("in a nested transaction is rolled back, whatever the one around it makes of it", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const rolledBack = { _tag: "ConnectionLost", outcome: "rolled back" }
        const error = yield* Effect.flip(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          const inner = yield* Effect.flip(db.transaction(Effect.gen(function*() {
            yield* insert(2)
            yield* fixture.kill(yield* connectionId)
            yield* lost(1)
            yield* insert(3)
          })))
          expect(inner).toMatchObject(rolledBack)
          expect(yield* Effect.flip(insert(4))).toMatchObject(rolledBack)
          expect(yield* Effect.flip(db.transaction(insert(5)))).toMatchObject(rolledBack)
        })))
        expect(error).toMatchObject(rolledBack)
        expect(yield* items).toEqual([])
        expect(yield* snapshot).toMatchObject({ ...noRetries, lost: 1 })
      })))

  /** Runs a transaction until its COMMIT is under way, breaks the connection, and looks what has become of it. */
  const lostCommit = (
    fixture: DbFixture,
    options: {
      readonly port: number
      /** At the end of the body; what it gives completes when COMMIT has come as far as it is to come. */
      readonly prepare: Effect.Effect<Effect.Effect<void>>
      readonly cut: Effect.Effect<void>
      readonly left: ReadonlyArray<number>
    }
  ) =>
    withLayer(
      { ...pool, url: fixture.url, port: options.port },
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        let runs = 0
        const prepared = yield* Deferred.make<Effect.Effect<void>>()
        const body = Effect.gen(function*() {
          runs++
          yield* insert(1)
          yield* Deferred.succeed(prepared, yield* options.prepare)
        })
        const running = yield* Effect.fork(Effect.flip(db.transaction(body, { retry: Schedule.recurs(5) })))
        yield* Effect.flatten(Deferred.await(prepared))
        yield* options.cut
        expect(yield* Fiber.join(running)).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "unknown",
          statement: "COMMIT"
        })
        yield* expectNoTransaction(fixture)
        expect(yield* items).toEqual(options.left)
        expect(runs).toBe(1)
      })
    )

  it.live("under a COMMIT that the server got is of unknown outcome, and not run again", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const { cut, mute, port } = yield* openProxy(fixture.server)
        const committed = eventually(
          "the server has committed",
          Effect.map(fixture.admin(`SELECT id FROM ${fixture.database}.items`), (rows) => rows.length === 1)
        )
        yield* lostCommit(fixture, { port, prepare: Effect.as(mute, committed), cut, left: [1] })
      }))
    ))

  it.live("under a COMMIT that the server never got is of unknown outcome, and not run again", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const { cut, port, swallow } = yield* openDeafProxy(fixture.server)
        yield* lostCommit(fixture, { port, prepare: swallow("COMMIT"), cut, left: [] })
      }))
    ))
})

describe("an interrupted transaction", () => {
  it.live("ends although the server says nothing any more, and waits for no cancel", () =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const proxy = yield* openProxy(fixture.server)
        yield* withLayer(
          { ...pool, url: fixture.url, port: proxy.port, cancelTimeout: "15 seconds" },
          Effect.gen(function*() {
            const db = yield* Db.Db
            yield* createItems
            const running = yield* Effect.fork(db.transaction(
              Effect.zipRight(insert(1), db.value("SELECT SLEEP(30) AS unanswered"))
            ))
            yield* fixture.running("AS unanswered")
            yield* Effect.zipRight(proxy.mute, proxy.hold)
            expect(Exit.isInterrupted(yield* Fiber.interrupt(running))).toBe(true)
            // the pool has not got its connection yet, since nothing has answered the cancel; the other is this fiber's
            expect(yield* snapshot).toMatchObject({ held: 2, lost: 0 })
            yield* Effect.zipRight(proxy.release, proxy.cut)
            expect(yield* Effect.flatMap(Effect.fork(items), Fiber.join)).toEqual([])
          })
        )
      }))
    ))

  it.live("by itself, when its connection was lost, has nothing more to tell the next statement of its fiber", () =>
    withDb(pool, (fixture) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        yield* createItems
        const exit = yield* Effect.exit(db.transaction(Effect.gen(function*() {
          yield* insert(1)
          yield* fixture.kill(yield* connectionId)
          yield* lost(1)
          return yield* Effect.interrupt
        })))
        expect(Exit.isInterrupted(exit)).toBe(true)
        yield* insert(2)
        expect(yield* items).toEqual([2])
      })))
})
