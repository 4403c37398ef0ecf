/**
 * Whoever borrows a connection finds the session of a new one, whatever others have done to it: random sequences of
 * statements over fibers, sessions and connections, each borrower compared with a connection nobody has used.
 *
 * On a server of its own: some of the statements lock all of it.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import fc from "fast-check"
import { type Connection, createConnection } from "mysql2/promise"
import { inject } from "vitest"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import type { DbError } from "../../src/DbError.js"
import type * as DbLayer from "../../src/DbLayer.js"
import type { MysqlOptions } from "../../src/PoolConfig.js"
import type { Queries } from "../../src/Queries.js"
import { type DbFixture, eventually, withFixture, withLayer } from "../support/dbFixture.js"
import { snapshot, valueOf } from "../support/dbQuestions.js"
import { type PrivateServer, startServer } from "../support/privateServer.js"
import { openRoundTrips } from "../support/roundTrips.js"
import { blocking, changes, type Fingerprint, fingerprint, schema } from "../support/sessionChanges.js"

const { flavour } = inject("server")
const seed = Number(process.env["SESSIONS_SEED"] ?? 20_261_121)
const runs = Number(process.env["SESSIONS_RUNS"] ?? 45)

let server: PrivateServer
beforeAll(async () => {
  // nothing waits for long for a lock that somebody has left
  server = await startServer({ flavour, settings: ["--lock-wait-timeout=2", "--innodb-lock-wait-timeout=2"] })
})
afterAll(() => server.stop())

// --- where, and how it ends ------------------------------------------------------------------------------------------

type Place = "fiber" | "fiber, released" | "session" | "connection" | "client" | "client's transaction" | "reserved"
type End = "success" | "failure" | "interruption"

const places: ReadonlyArray<Place> = [
  "fiber",
  "fiber, released",
  "session",
  "connection",
  "client",
  "client's transaction",
  "reserved"
]
const ends: ReadonlyArray<End> = ["success", "failure", "interruption"]

/** Somebody who uses a connection and leaves it as it is. */
interface Borrower {
  readonly place: Place
  readonly statements: ReadonlyArray<string>
  readonly end: End
  /** All in one text, where the place can do that. */
  readonly together: boolean
  /** What the next one looks at first. */
  readonly next: "reads" | "writes"
}

const tally = { borrowers: 0, statements: 0, refused: 0, kept: 0, replaced: 0 }

const noted = <E>(effect: Effect.Effect<unknown, E>): Effect.Effect<void> =>
  Effect.map(Effect.exit(effect), (exit) => {
    tally.statements++
    if (Exit.isFailure(exit)) tally.refused++
  })

const one = (queries: Queries, statements: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.forEach(statements, (text) => noted(queries.values(text)), { discard: true })

const inTexts = ({ statements, together }: Borrower): ReadonlyArray<string> =>
  together ? [statements.join("; ")] : statements

const work = (borrower: Borrower): Effect.Effect<void, unknown, DbLayer.Services | Scope.Scope> =>
  Effect.gen(function*() {
    const db = yield* Db.Db
    const sql = yield* SqlClient.SqlClient
    const texts = Effect.forEach(inTexts(borrower), (text) => noted(sql.unsafe(text).unprepared), { discard: true })
    switch (borrower.place) {
      case "fiber":
        return yield* one(db, borrower.statements)
      case "fiber, released":
        return yield* Effect.zipRight(one(db, borrower.statements), db.releaseFiberConnection)
      case "session":
        return yield* db.session(one(db, borrower.statements))
      case "connection":
        return yield* one(yield* db.connection, borrower.statements)
      case "client":
        return yield* texts
      case "client's transaction":
        return yield* sql.withTransaction(texts)
      case "reserved": {
        const reserved = yield* sql.reserve
        return yield* Effect.forEach(
          inTexts(borrower),
          (text) => noted(reserved.executeUnprepared(text, [], undefined)),
          { discard: true }
        )
      }
    }
  })

/** The borrower comes, does its work in a fiber of its own, and ends. */
const borrow = (borrower: Borrower): Effect.Effect<void, never, DbLayer.Services> =>
  Effect.gen(function*() {
    tally.borrowers++
    const done = yield* Deferred.make<void>()
    const life = Effect.scoped(
      Effect.gen(function*() {
        // a transaction of the client that cannot be committed is a failure of its own
        yield* Effect.ignore(work(borrower))
        yield* Deferred.succeed(done, undefined)
        if (borrower.end === "failure") return yield* Effect.fail("the borrower failed")
        if (borrower.end === "interruption") return yield* Effect.never
      })
    )
    const fiber = yield* Effect.fork(life)
    yield* Deferred.await(done)
    if (borrower.end === "interruption") yield* Fiber.interrupt(fiber)
    yield* Fiber.await(fiber)
  })

// --- what the next one sees ------------------------------------------------------------------------------------------

const look = ({ database }: DbFixture, first: Borrower["next"]) =>
  Effect.scoped(Effect.gen(function*() {
    const db = yield* Db.Db
    const connection = yield* db.connection
    return { id: connection.id, facts: yield* fingerprint(connection, { flavour, database, first }) }
  }))

const differences = (found: Fingerprint, expected: Fingerprint): ReadonlyArray<string> =>
  [...new Set([...Object.keys(found), ...Object.keys(expected)])]
    .filter((name) => found[name] !== expected[name])
    .map((name) => `${name}: ${String(found[name])} instead of ${String(expected[name])}`)

/** Root's own connection, for what only another session can tell. */
interface Outside {
  /** Whether anybody holds a lock on the tables, or a row, or all of the server. */
  readonly locks: (statements: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>>
}

const openOutside = ({ database }: DbFixture): Effect.Effect<Outside, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { host, password, port, user } = server
    const open = Effect.acquireRelease(
      Effect.promise(() => createConnection({ host, port, user, password, database, multipleStatements: true })),
      (connection: Connection) => Effect.promise(() => connection.end())
    )
    const [writer, locker] = [yield* open, yield* open]
    // a row that nobody may see
    yield* Effect.promise(() => writer.query("BEGIN; INSERT INTO uncommitted VALUES (1)"))
    const probe = (sql: string) =>
      Effect.promise(() => locker.query(sql).then(() => [], (error: Error) => [`${sql}: ${error.message}`]))
    return {
      locks: (statements) =>
        Effect.map(
          Effect.all([
            probe("LOCK TABLES items WRITE, written WRITE; UNLOCK TABLES"),
            // slow, and only these can tell
            statements.some((sql) => /BACKUP/.test(sql)) ? probe("ALTER TABLE items COMMENT = ''") : Effect.succeed([])
          ]),
          (found) => found.flat()
        )
    }
  })

const prepared = (fixture: DbFixture): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { admin, database, user } = fixture
    for (const sql of schema(database)) yield* admin(sql)
    yield* admin(`GRANT RELOAD, LOCK TABLES, PROCESS ON *.* TO ${user}@'%'`)
    yield* admin("CREATE ROLE IF NOT EXISTS reader")
    yield* admin(`GRANT reader TO ${user}@'%'`)
    if (flavour === "mariadb") yield* admin(`CREATE SEQUENCE ${database}.counted`)
    else {
      yield* admin(`GRANT BACKUP_ADMIN ON *.* TO ${user}@'%'`)
      yield* admin(`GRANT SELECT ON performance_schema.* TO ${user}@'%'`)
    }
  })

const borrowers = (statements: ReadonlyArray<string>): fc.Arbitrary<Borrower> =>
  fc.record({
    place: fc.constantFrom(...places),
    statements: fc.array(fc.constantFrom(...statements), { minLength: 1, maxLength: 5 }),
    end: fc.constantFrom(...ends),
    together: fc.boolean(),
    next: fc.constantFrom("reads" as const, "writes" as const)
  })

type Test = (
  fixture: DbFixture,
  fresh: Record<Borrower["next"], Fingerprint>
) => Effect.Effect<void, DbError, DbLayer.Services>

/** A pool, and what a connection of its options that nobody has used looks like. */
const onPool = (options: MysqlOptions & { readonly poolSize: number }, test: Test) =>
  withFixture(
    (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        yield* prepared(fixture)
        const all = { ...options, url: fixture.url, acquireTimeout: 20_000 }
        const untouched = (first: Borrower["next"]) =>
          Effect.map(withLayer(all, look(fixture, first)), ({ facts }) => facts)
        const fresh = { reads: yield* untouched("reads"), writes: yield* untouched("writes") }
        expect(Object.keys(fresh.reads).length).toBeGreaterThan(200)
        yield* withLayer(all, test(fixture, fresh))
      })),
    server
  )

const initialSql = [
  "SET @initial = 7",
  "SET SESSION sort_buffer_size = 300000, sql_mode = 'STRICT_ALL_TABLES'",
  "CREATE TEMPORARY TABLE IF NOT EXISTS initial_table (a INT)",
  "SET SESSION lock_wait_timeout = 2"
]

const pools: Readonly<Record<string, MysqlOptions>> = {
  "without initialSql": {},
  "with initialSql, a collation, a time zone and an isolation level of its own": {
    initialSql,
    collation: "utf8mb4_general_ci",
    timeZone: "+05:30",
    isolation: "READ COMMITTED"
  }
}

const property = <A>(
  numRuns: number,
  arbitrary: fc.Arbitrary<A>,
  holds: (value: A) => Effect.Effect<void, DbError, DbLayer.Services>
): Effect.Effect<void, DbError, DbLayer.Services> =>
  Effect.flatMap(Effect.runtime<DbLayer.Services>(), (runtime) =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(arbitrary, (value) => Runtime.runPromise(runtime)(holds(value))),
        { seed, numRuns }
      )
    ))

describe("after any sequence of statements the next borrower finds a new session", () => {
  for (const [name, options] of Object.entries(pools)) {
    it.live(
      `on a pool of one connection, ${name}`,
      () =>
        onPool({ ...options, poolSize: 1 }, (fixture, fresh) =>
          Effect.scoped(Effect.gen(function*() {
            Object.assign(tally, { borrowers: 0, statements: 0, refused: 0, kept: 0, replaced: 0 })
            const outside = yield* openOutside(fixture)
            let id = (yield* look(fixture, "reads")).id
            const leavesNothing = (borrower: Borrower) =>
              Effect.scoped(Effect.gen(function*() {
                yield* borrow(borrower)
                // the connection comes when it has been reset, and holds nothing by then
                const db = yield* Db.Db
                const connection = yield* db.connection
                const locks = yield* outside.locks(borrower.statements)
                const { database } = fixture
                const facts = yield* fingerprint(connection, { flavour, database, first: borrower.next })
                if (connection.id === id) tally.kept++
                else tally.replaced++
                id = connection.id
                const found = [...locks, ...differences(facts, fresh[borrower.next])]
                // what could not be cleaned must not disturb the smaller cases that follow
                if (found.length > 0) yield* connection.invalidate
                expect(found.join("\n")).toBe("")
              }))
            yield* property(
              runs,
              fc.array(borrowers(changes(flavour)), { minLength: 1, maxLength: 3 }),
              (all) => Effect.forEach(all, leavesNothing, { discard: true })
            )
            const { created, resets } = yield* snapshot
            process.stdout.write(
              `sessions ${name} (seed ${seed}): ${tally.borrowers} borrowers, ${tally.statements} texts, ${tally.refused} `
                + `of them refused; the next one met the same connection ${tally.kept} times, another one ${tally.replaced} `
                + `times; ${created} connections, ${resets} resets\n`
            )
            // else it would not be the reset that is looked at
            expect(tally.kept).toBeGreaterThan(tally.borrowers / 2)
          }))),
      60_000
    )
  }

  it.live(
    "on a pool of three connections that ten borrow at a time",
    () =>
      onPool({ poolSize: 3, initialSql }, (fixture, fresh) =>
        Effect.gen(function*() {
          const harmless = changes(flavour).filter((text) => !blocking.test(text))
          // what others see of each other's locks is none of this
          const facts = (all: Fingerprint): Fingerprint => ({ ...all, locks: "", items: "", "may write": "" })
          let looked = 0
          yield* property(Math.ceil(runs / 6), fc.array(borrowers(harmless), { minLength: 10, maxLength: 10 }), (all) =>
            Effect.forEach(all, (borrower) =>
              Effect.gen(function*() {
                yield* borrow(borrower)
                const found = yield* look(fixture, borrower.next)
                looked++
                expect(differences(facts(found.facts), facts(fresh[borrower.next])).join("\n")).toBe("")
              }), { concurrency: "unbounded", discard: true }))
          process.stdout.write(`sessions of ten at a time (seed ${seed}): ${looked} looks at another's connection\n`)
        })),
    60_000
  )
})

describe("what no reset restores", () => {
  const remains: Readonly<Record<string, string>> = {
    "SET ROLE reader": "SELECT CURRENT_ROLE()",
    "SET profiling = 1; SELECT 'a secret'": "SHOW PROFILES"
  }
  for (const [change, question] of Object.entries(remains)) {
    it.live(`costs the connection: ${change}`, () =>
      onPool({ poolSize: 1 }, () =>
        Effect.gen(function*() {
          const db = yield* Db.Db
          const ask = Effect.scoped(Effect.flatMap(db.connection, (connection) => connection.values(question)))
          const before = yield* ask
          yield* borrow({ place: "client", statements: [change], end: "success", together: true, next: "reads" })
          expect(yield* ask).toEqual(before)
          expect((yield* snapshot).lost).toBe(0)
        })))
  }
})

describe("what is open is rolled back", () => {
  const open = ["BEGIN", "SET autocommit = 0", "START TRANSACTION", "XA START 'open'", "BEGIN; SAVEPOINT a"]
  for (const place of places.filter((name) => name !== "client's transaction")) {
    it.live(`when its borrower ends: ${place}`, () =>
      onPool({ poolSize: 1 }, (fixture) =>
        Effect.gen(function*() {
          const write = `UPDATE ${fixture.database}.written SET a = 1`
          for (const begin of open) {
            for (const end of ends) {
              // db's own helpers run one statement at a time
              const statements = [...begin.split("; "), write]
              yield* borrow({ place, statements, end, together: true, next: "reads" })
              const db = yield* Db.Db
              expect(yield* Effect.orDie(valueOf(db, "SELECT MAX(a) FROM written"))).toBe(0)
              yield* db.releaseFiberConnection
              // nor is the row still locked
              yield* fixture.admin(`UPDATE ${fixture.database}.written SET a = 0`)
            }
          }
          expect((yield* snapshot).created).toBe(1)
        })))
  }
})

describe("round trips", () => {
  const statement = "SELECT 40 + 2"

  /** A pool behind a counter, whose one connection is open and has prepared the statement. */
  const counting = (
    test: (count: () => number) => Effect.Effect<void, DbError, DbLayer.Services>
  ) =>
    withFixture((fixture) =>
      Effect.scoped(Effect.gen(function*() {
        yield* prepared(fixture)
        const trips = yield* openRoundTrips(server)
        const options = { url: fixture.url, host: server.host, port: trips.port, poolSize: 1, initialSql }
        yield* withLayer(
          { ...options, validateAfter: "1 minute" },
          Effect.zipRight(
            Effect.orDie(
              Effect.flatMap(Db.Db, (db) => Effect.zipRight(db.value(statement), db.releaseFiberConnection))
            ),
            test(trips.count)
          )
        )
      })), server)

  /** How many it takes until the connection is idle again. */
  const taking = (count: () => number, use: Effect.Effect<unknown, unknown, DbLayer.Services>) =>
    Effect.gen(function*() {
      const before = count()
      yield* Effect.fork(use).pipe(Effect.flatMap(Fiber.await))
      const { snapshot: look } = yield* ConnectionPool.ConnectionPool
      yield* eventually("it is idle", Effect.map(look, ({ busy, held, idle }) => busy + held === 0 && idle === 1))
      return count() - before
    })

  it.live("are the statements' own, and none for borrowing and giving back what was not changed", () =>
    counting((count) =>
      Effect.gen(function*() {
        const db = yield* Db.Db
        const sql = yield* SqlClient.SqlClient
        const uses: Record<string, readonly [number, Effect.Effect<unknown, unknown, Scope.Scope>]> = {
          "a fiber's statement": [1, db.value(statement)],
          "three of them": [3, Effect.repeatN(db.value(statement), 2)],
          "a statement and a release": [1, Effect.zipRight(db.value(statement), db.releaseFiberConnection)],
          "a connection for nothing": [0, db.connection],
          "a connection's statement": [1, Effect.flatMap(db.connection, (connection) => connection.value(statement))],
          "a session for nothing": [0, db.session(Effect.void)],
          "a session's statement": [1, db.session(db.value(statement))],
          "a transaction": [3, db.transaction(db.value(statement))],
          "the client's text": [1, sql.unsafe("SELECT 1").unprepared],
          "the client's several statements": [1, sql.unsafe("SELECT 1; SELECT 2").unprepared],
          "a write": [2, db.execute("UPDATE written SET a = a WHERE a = -1")]
        }
        for (const [name, [expected, use]] of Object.entries(uses)) {
          expect([name, yield* taking(count, Effect.scoped(use))]).toEqual([name, expected])
        }
        const hundred = Effect.forEach(
          Array.from({ length: 100 }),
          () => taking(count, db.value(statement)),
          { concurrency: 1 }
        )
        expect((yield* hundred).every((trips) => trips === 1)).toBe(true)
        expect(yield* snapshot).toMatchObject({ created: 1, resets: 0, validations: 0 })
      })
    ))

  // outside of a transaction, and the insert id is asked for or known to be another's where it is read
  const leavesNothing = [
    "COMMIT",
    "DELETE FROM items WHERE id > 1",
    "INSERT INTO numbered VALUES (NULL)",
    "SAVEPOINT here",
    "SELECT * FROM items FOR UPDATE",
    "SELECT 1",
    "SELECT COUNT(*) FROM items",
    "SELECT SQL_CALC_FOUND_ROWS * FROM items LIMIT 0",
    "UPDATE written SET a = LAST_INSERT_ID(43)",
    "UPDATE written SET a = a + 1"
  ]

  it.live("are one more, and only one, for each kind of change", () =>
    counting((count) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const db = yield* Db.Db
        // what ends its connection, or cannot be undone, costs another one
        const lasting = changes(flavour).filter((text) => !/RELEASE$|ROLE|profiling/.test(text))
        let changed = 0
        const clean: Array<string> = []
        for (const text of lasting) {
          const before = (yield* snapshot).resets
          const [session, own] = [{ state: "" }, { trips: 0 }]
          const all = yield* taking(
            count,
            Effect.gen(function*() {
              const start = count()
              yield* Effect.ignore(sql.unsafe(text).unprepared)
              own.trips = count() - start
              session.state = Option.getOrThrow(yield* db.currentConnection).session
            })
          )
          const resets = (yield* snapshot).resets - before
          expect([text, session.state === "clean" ? 0 : 1]).toEqual([text, resets])
          expect([text, all - own.trips]).toEqual([text, resets])
          changed += resets
          if (resets === 0) clean.push(text)
        }
        process.stdout.write(`one reset of one round trip: after ${changed} of ${lasting.length} kinds of change\n`)
        expect(clean.sort()).toEqual([...leavesNothing].sort())
        expect((yield* snapshot).created).toBe(1)
      })
    ))
})
