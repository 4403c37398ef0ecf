import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Random,
  Schedule,
  Scope,
  Stream,
  TestClock
} from "effect"
import { type DbError, PoolExhausted, ReadOnlyError } from "../../src/DbError.js"
import { cursor } from "../../src/internal/leaseCursor.js"
import { runOn } from "../../src/internal/submission.js"
import * as Recovery from "../../src/Recovery.js"
import { fails, lost, never, statement, succeeds, takes } from "../support/fakeDriver.js"
import { type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"

const failureOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<boolean> => Effect.map(Fiber.poll(fiber), Option.isSome)

const rows = ({ fibers }: Fixture, sql: string): Stream.Stream<unknown, DbError> =>
  Stream.map(fibers.stream(statement(sql)), ({ row }) => row[0])

/** A waiter for a connection, and what it got. */
const queueUp = (fixture: Fixture, sql = "SELECT id") => Effect.zipLeft(Effect.fork(fixture.run(sql)), settle)

describe("one fiber, one connection", () => {
  it.effect("the statements of one fiber run on one connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const ids = yield* Effect.forEach([1, 2, 3], () =>
          Effect.zipLeft(fixture.run("SELECT id"), Effect.fork(Effect.zipRight(fixture.run("DIRTY"), Effect.never))))
        expect(ids).toEqual(["1", "1", "1"])
        expect(yield* fixture.fibers.current).toEqual(Option.some({ id: "1", session: "clean" }))
      })))

  it.effect("two fibers that run at a time have two", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const pair = Effect.zipRight(fixture.run("SLEEP 10"), fixture.run("SELECT id"))
        const both = yield* Effect.fork(Effect.all([pair, pair], { concurrency: 2 }))
        expect([...yield* joinAfter(both, 10)].sort()).toEqual(["1", "2"])
      })))

  it.effect("a child starts with none, and leaves none to its parent", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("DIRTY")
        const child = yield* Effect.fork(Effect.zip(
          fixture.fibers.current,
          Effect.zipRight(fixture.run("SELECT id"), fixture.fibers.current)
        ))
        const [before, after] = yield* Fiber.join(child)
        expect(before).toEqual(Option.none())
        expect(after).toMatchObject({ value: { id: "2" } })
        expect(yield* fixture.fibers.current).toMatchObject({ value: { id: "1", session: "changed" } })
        expect(yield* fixture.run("SELECT id")).toBe("1")
        yield* fixture.fibers.release
      })))

  it.effect("release rolls back what is open and gives the connection back now", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        yield* fixture.fibers.release
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "ROLLBACK"])
        expect(yield* fixture.fibers.current).toEqual(Option.none())
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1, resets: 0 })
        yield* fixture.fibers.release
      })))

  it.effect("a connection that broke is not the fiber's current one any more", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        fixture.fake.connection("1").break()
        expect(yield* fixture.fibers.current).toEqual(Option.none())
      })))
})

describe("the end of a fiber", () => {
  const ends: ReadonlyArray<readonly [string, (f: Fixture) => Effect.Effect<unknown, unknown>]> = [
    ["success", () => Effect.void],
    ["failure", () => Effect.fail("no")],
    ["interruption", () => Effect.interrupt],
    ["interruption by another", () => Effect.never],
    ["a defect", () => Effect.die("no")],
    ["a failed statement", (f) => f.run("FAIL")]
  ]
  for (const [how, end] of ends) {
    for (const [state, sql] of [["clean", "SELECT id"], ["changed", "DIRTY"], ["in a transaction", "BEGIN"]] as const) {
      it.effect(`returns a connection that is ${state} before a joining parent goes on: ${how}`, () =>
        withPool({ script: { reset: takes(10) } }, (fixture) =>
          Effect.gen(function*() {
            const child = yield* Effect.fork(Effect.zipRight(fixture.run(sql), end(fixture)))
            yield* settle
            yield* how === "interruption by another" ? Fiber.interrupt(child) : Fiber.await(child)
            expect(yield* fixture.pool.snapshot).toMatchObject({
              held: 0,
              idle: state === "clean" ? 1 : 0,
              busy: state === "clean" ? 0 : 1
            })
            yield* TestClock.adjust(10)
            expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1, busy: 0 })
          })))
    }
  }

  it.effect("returns what the fibers of a large fan-out had", () =>
    withPool({ poolSize: 4 }, (fixture) =>
      Effect.gen(function*() {
        const work = yield* Effect.fork(
          Effect.forEach(Array.from({ length: 100 }), () => fixture.run("SLEEP 1"), { concurrency: "unbounded" })
        )
        yield* joinAfter(work, 100)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, waiting: 0 })
      })))
})

describe("no self-deadlock", () => {
  const combinators: ReadonlyArray<readonly [string, (f: Fixture) => Effect.Effect<unknown, unknown>]> = [
    ["Effect.timeout", (f) => Effect.timeout(f.run("SELECT id"), "1 second")],
    ["Effect.race", (f) => Effect.race(f.run("SELECT id"), f.run("SELECT id"))],
    ["Effect.raceAll", (f) => Effect.raceAll([f.run("SLEEP 5"), f.run("SLEEP 5")])],
    ["a concurrent forEach", (f) => Effect.forEach([1, 2, 3], () => f.run("SLEEP 5"), { concurrency: 3 })],
    ["a concurrent all", (f) => Effect.all([f.run("SELECT id"), f.run("SELECT id")], { concurrency: "unbounded" })],
    ["a stream", (f) => Stream.runDrain(rows(f, "ROWS 10"))],
    [
      "a stream that runs statements",
      (f) => Stream.runDrain(Stream.mapEffect(Stream.range(1, 3), () => f.run("SELECT id")))
    ],
    [
      "an explicit connection",
      (f) => Effect.scoped(Effect.flatMap(f.fibers.connection, (c) => runOn(c, statement("SELECT id"))))
    ],
    ["fork and join", (f) => Effect.flatMap(Effect.fork(f.run("SELECT id")), Fiber.join)],
    ["a layer", (f) =>
      Effect.provide(
        Effect.void,
        Layer.merge(
          Layer.effectDiscard(f.run("SELECT id")),
          Layer.effectDiscard(f.run("SELECT id"))
        )
      )]
  ]
  for (const [name, use] of combinators) {
    it.effect(`a pool of one: a statement, then ${name}, then a statement`, () =>
      withPool({ poolSize: 1 }, (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(
            Effect.zipRight(fixture.run("SELECT id"), Effect.zipRight(use(fixture), fixture.run("SELECT id")))
          )
          expect(yield* joinAfter(fiber, 100)).toBe("1")
        })))
  }

  it.effect("as many fibers as connections, each with a statement and then a timeout around another", () =>
    withPool({ poolSize: 4 }, (fixture) =>
      Effect.gen(function*() {
        const one = Effect.zipRight(fixture.run("SLEEP 5"), Effect.timeout(fixture.run("SLEEP 5"), "1 second"))
        const all = yield* Effect.fork(Effect.all([one, one, one, one], { concurrency: 4 }))
        yield* joinAfter(all, 50)
      })))

  it.effect("a child of a fiber in a transaction that holds the last connection gets an error that says so", () =>
    withPool({ poolSize: 1, acquireTimeout: 300 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.gen(function*() {
          yield* fixture.run("BEGIN")
          const child = yield* Effect.exit(Effect.timeout(fixture.run("SELECT id"), "1 minute"))
          yield* fixture.run("ROLLBACK")
          return child
        }))
        const failure = failureOf(yield* joinAfter(fiber, 300))
        expect(failure).toBeInstanceOf(PoolExhausted)
        expect(failure).toMatchObject({ waitedMillis: 300, oldest: { heldMillis: 300, why: "a transaction is open" } })
        expect(failure?.message).toContain("use db.transaction or db.session")
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "ROLLBACK"])
      })))
})

describe("a connection that is taken back", () => {
  it.effect("is replaced at the fiber's next statement", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        const other = yield* queueUp(fixture, "SLEEP 10")
        expect(yield* fixture.fibers.current).toEqual(Option.none())
        const mine = yield* Effect.fork(Effect.void)
        yield* Fiber.join(mine)
        yield* joinAfter(other, 10)
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect((yield* fixture.pool.snapshot).takenBack).toBe(1)
      })))

  it.effect("is never one that carries state or runs a statement", () =>
    withPool({ poolSize: 1, acquireTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("DIRTY")
        const other = yield* Effect.fork(Effect.flip(fixture.run("SELECT id")))
        expect((yield* joinAfter(other, 100))._tag).toBe("PoolExhausted")
        expect(yield* fixture.run("SELECT id")).toBe("1")
        yield* fixture.fibers.release
      })))

  it.effect("goes to whoever has waited the longest, and the fiber queues behind them", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const order: Array<string> = []
        const run = (who: string, sql: string) => Effect.tap(fixture.run(sql), () => Effect.sync(() => order.push(who)))
        const me = yield* Effect.fork(Effect.forEach([1, 2, 3], () => run("me", "SLEEP 10"), { discard: true }))
        yield* settle
        const others = yield* Effect.forEach(["first", "second"], (who) => Effect.fork(run(who, "SLEEP 10")))
        yield* joinAfter(me, 100)
        yield* Fiber.joinAll(others)
        expect(order).toEqual(["me", "first", "second", "me", "me"])
      })))

  it.effect("is validated for the fiber itself when it was unused for longer than validateAfter", () =>
    withPool({ script: { ping: [fails(lost("unknown"))] } }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        yield* TestClock.adjust(501)
        expect(yield* fixture.run("SELECT id")).toBe("2")
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 1, ping: 1 })
      })))
})

describe("strict affinity", () => {
  it.effect("keeps the connection until the fiber ends, and the error says so", () =>
    withPool({ poolSize: 1, affinity: "strict", acquireTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        const other = yield* Effect.fork(Effect.flip(fixture.run("SELECT id")))
        const failure = yield* joinAfter(other, 100)
        expect(failure).toMatchObject({ _tag: "PoolExhausted", oldest: { why: "strict affinity" } })
      })))

  it.effect("keeps it however long it was unused", () =>
    withPool({ poolSize: 1, affinity: "strict" }, (fixture) =>
      Effect.gen(function*() {
        const strict = yield* Effect.fork(
          Effect.zipRight(fixture.run("SELECT id"), Effect.zipRight(Effect.sleep(501), fixture.run("SELECT id")))
        )
        yield* settle
        const waiter = yield* queueUp(fixture, "SLEEP 100")
        expect(yield* joinAfter(strict, 501)).toBe("1")
        expect(fixture.fake.sentOn("1").slice(0, 2)).toEqual(["SELECT id", "SELECT id"])
        yield* joinAfter(waiter, 100)
      })))
})

describe("statement affinity", () => {
  it.effect("returns the connection after each statement", () =>
    withPool({ affinity: "statement" }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
        expect(yield* fixture.fibers.current).toEqual(Option.none())
      })))

  it.effect("keeps it as long as it carries state", () =>
    withPool({ affinity: "statement" }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        yield* queueUp(fixture, "SLEEP 10")
        yield* fixture.run("INSERT")
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 2 })
        yield* fixture.run("COMMIT")
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "INSERT", "COMMIT"])
        yield* TestClock.adjust(10)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0 })
      })))
})

const readOnly = (): DbError => new ReadOnlyError({ statement: "INSERT", reason: "--read-only", errno: 1290 })

describe("a session", () => {
  it.effect("is one connection for the effect and everything it forks, one statement at a time", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const session = yield* Effect.fork(fixture.fibers.session(() =>
          Effect.all([
            fixture.run("SELECT id"),
            Effect.zipRight(fixture.run("SLEEP 10"), fixture.run("SELECT id")),
            Effect.timeout(fixture.run("SELECT id"), "1 second"),
            Effect.race(fixture.run("SELECT id"), fixture.run("SELECT id")),
            Effect.flatMap(Effect.fork(fixture.run("SELECT id")), Fiber.join),
            Effect.map(
              Stream.runCollect(Stream.mapEffect(Stream.make(1, 2), () => fixture.run("SELECT id"))),
              (ids) => Chunk.unsafeLast(ids)
            )
          ], { concurrency: "unbounded" })
        ))
        expect(yield* joinAfter(session, 100)).toEqual(["1", "1", "1", "1", "1", "1"])
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("takes the fiber's own connection along, and leaves it to the fiber", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        const inside = yield* fixture.fibers.session(() => Effect.timeout(fixture.run("SELECT id"), "1 second"))
        yield* fixture.run("COMMIT")
        expect(inside).toBe("1")
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "SELECT id", "COMMIT"])
        const other = yield* queueUp(fixture)
        expect(yield* Fiber.join(other)).toBe("1")
      })))

  it.effect("inside a session is the same session", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const same = yield* fixture.fibers.session((outer) =>
          Effect.zipLeft(
            fixture.fibers.session((inner) =>
              Effect.zipRight(fixture.run("SELECT id"), Effect.succeed(inner === outer))
            ),
            fixture.run("SELECT id")
          )
        )
        expect(same).toBe(true)
      })))

  it.effect("is not taken back while it rests", () =>
    withPool({ poolSize: 1, acquireTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        const session = yield* Effect.fork(
          fixture.fibers.session(() => Effect.zipRight(fixture.run("SELECT id"), Effect.sleep(200)))
        )
        yield* settle
        const other = yield* Effect.fork(Effect.flip(fixture.run("SELECT id")))
        expect(yield* joinAfter(other, 100)).toMatchObject({ oldest: { why: "an explicit session" } })
        yield* joinAfter(session, 100)
      })))

  it.effect("tells a daemon that outlives it that it has ended", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const daemon = yield* fixture.fibers.session(() =>
          Effect.forkDaemon(Effect.zipRight(Effect.sleep(10), Effect.flip(fixture.run("SELECT id"))))
        )
        expect((yield* joinAfter(daemon, 10))._tag).toBe("SessionEnded")
        expect(fixture.fake.sent).toEqual([])
      })))

  it.effect("tells a daemon whose statement waits for its turn that it has ended", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const [running, waiting] = yield* fixture.fibers.session(() =>
          Effect.all([
            Effect.forkDaemon(Effect.exit(fixture.run("SLEEP 10"))),
            Effect.forkDaemon(Effect.exit(fixture.run("INSERT")))
          ]).pipe(Effect.zipLeft(settle))
        )
        yield* settle
        expect(failureOf(yield* Fiber.join(waiting))).toMatchObject({ _tag: "SessionEnded" })
        expect(yield* isDone(running)).toBe(true)
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 1, cancel: 1 })
      })))

  it.effect("a stream of a daemon that outlives it does not look complete", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const go = yield* Deferred.make<void>()
        const daemon = yield* fixture.fibers.session(() =>
          Effect.zipLeft(
            Effect.forkDaemon(
              Effect.exit(Stream.runCollect(Stream.tap(rows(fixture, "ROWS 9"), () => Deferred.await(go))))
            ),
            settle
          )
        )
        yield* Deferred.succeed(go, undefined)
        yield* settle
        expect(failureOf(yield* Fiber.join(daemon))).toMatchObject({ _tag: "SessionEnded" })
      })))

  it.effect("refuses a statement while a stream is open on it", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const failure = yield* fixture.fibers.session(() =>
          Effect.flip(Stream.runDrain(Stream.mapEffect(rows(fixture, "ROWS 9"), () => fixture.run("SELECT id"))))
        )
        expect(failure._tag).toBe("ConnectionBusy")
        expect(fixture.fake.sentOn("1")).toEqual(["ROWS 9"])
      })))

  it.effect("refuses a statement that waited for its turn when it is a stream's turn first", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        // the stream's consumer waits for a statement that came after the stream
        const session = yield* Effect.fork(fixture.fibers.session(() =>
          Effect.gen(function*() {
            const later = yield* Deferred.make<Exit.Exit<unknown, DbError>>()
            const stream = Stream.runDrain(Stream.tap(rows(fixture, "ROWS 3"), () => Deferred.await(later)))
            yield* Effect.fork(fixture.run("SLEEP 10"))
            yield* Effect.fork(Effect.zipRight(Effect.sleep(1), stream))
            yield* Effect.fork(
              Effect.flatMap(
                Effect.exit(Effect.zipRight(Effect.sleep(2), fixture.run("SELECT id"))),
                (exit) => Deferred.succeed(later, exit)
              )
            )
            yield* Effect.sleep(100)
            return yield* Deferred.isDone(later)
          })
        ))
        expect(yield* joinAfter(session, 100)).toBe(true)
      })))
  it.effect("ends as the effect does: by failure, interruption or defect, its connection is nobody's", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        for (const end of [Effect.fail("no"), Effect.interrupt, Effect.die("no")]) {
          yield* Fiber.await(
            yield* Effect.fork(fixture.fibers.session(() => Effect.zipRight(fixture.run("BEGIN"), end)))
          )
          yield* settle
          expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
        }
        expect(fixture.fake.connection("1").roundTrips.reset).toBe(3)
      })))

  it.effect("waits no longer than its own acquireTimeout", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("DIRTY")
        const session = yield* Effect.fork(
          Effect.flip(fixture.fibers.session(() => Effect.void, { acquireTimeout: 50 }))
        )
        expect(yield* joinAfter(session, 50)).toMatchObject({ _tag: "PoolExhausted", waitedMillis: 50 })
        yield* fixture.fibers.release
      })))

  it.effect("that is interrupted while it waits leaves no trace", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("DIRTY")
        const session = yield* Effect.fork(fixture.fibers.session(() => Effect.void))
        yield* settle
        yield* Fiber.interrupt(session)
        expect(yield* fixture.pool.snapshot).toMatchObject({ waiting: 0, held: 1 })
        yield* fixture.fibers.release
      })))
})

describe("an explicit connection", () => {
  it.effect("is its own for as long as the scope", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* fixture.fibers.connection
          expect(connection.connection?.id).toBe("2")
          yield* runOn(connection, statement("DIRTY"))
          expect(yield* fixture.run("SELECT id")).toBe("1")
          expect((yield* runOn(connection, statement("SELECT id"))).rows).toEqual([["2"]])
        }))
        yield* settle
        expect(fixture.fake.connection("2").roundTrips.reset).toBe(1)
        yield* fixture.fibers.release
      })))

  it.effect("used after its release is a defect that names where it was released", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const leaked = yield* Effect.scoped(fixture.fibers.connection)
        const exit = yield* Effect.exit(runOn(leaked, statement("INSERT")))
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(
          /used after its release \(released by the end of its scope in #\d+\): INSERT/
        )
        expect(fixture.fake.sent).toEqual([])
      })))

  it.effect("is released once, by hand or by its scope", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* fixture.fibers.connection
          connection.release("the user")
          connection.release("the user again")
        }))
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
      })))

  it.effect("whose stream is open when it is released does not make the stream look complete", () =>
    withPool({}, (fixture) =>
      Effect.scoped(Effect.gen(function*() {
        const connection = yield* fixture.fibers.connection
        const { pull } = yield* cursor(connection, statement("ROWS 9"))
        expect(yield* pull).toEqual([[0], [1], [2]])
        connection.release("the user")
        yield* settle
        const end = yield* Effect.exit(pull)
        expect(Exit.isFailure(end) && Cause.failureOption(end.cause)).not.toEqual(Option.some(Option.none()))
      }))))
})

describe("what FiberRefs carry elsewhere", () => {
  it.effect("a finalizer that was added before the first statement uses the fiber's own connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const ids: Array<unknown> = []
        const remember = Effect.map(fixture.run("SELECT id"), (id) => ids.push(id))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Effect.ignore(remember))
          yield* fixture.run("DIRTY")
          yield* remember
        }))
        expect(ids).toEqual(["1", "1"])
        expect(fixture.fake.opened).toEqual(["1"])
        yield* fixture.fibers.release
      })))

  it.effect("setFiberRefs does not bring another fiber's connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        const refs = yield* Effect.getFiberRefs
        const child = yield* Effect.fork(Effect.gen(function*() {
          yield* Effect.setFiberRefs(refs)
          const before = yield* fixture.fibers.current
          return [before, yield* fixture.run("SELECT id")]
        }))
        expect(yield* Fiber.join(child)).toEqual([Option.none(), "2"])
        yield* fixture.fibers.release
      })))

  it.effect("inheritAll does not bring a child's connection", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const child = yield* Effect.fork(Effect.zipRight(fixture.run("BEGIN"), Effect.never))
        yield* settle
        yield* Fiber.inheritAll(child)
        expect(yield* fixture.fibers.current).toEqual(Option.none())
        expect(yield* fixture.run("SELECT id")).toBe("2")
        yield* Fiber.interrupt(child)
      })))

  it.effect("a memoized layer does not bring the connection of the fiber that built it", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        class Built extends Context.Tag("Built")<Built, unknown>() {}
        const layer = Layer.effect(Built, Effect.zipRight(fixture.run("DIRTY"), fixture.run("SELECT id")))
        const memo = yield* Layer.makeMemoMap
        const scope = yield* Scope.make()
        const build = Layer.buildWithMemoMap(layer, memo, scope)
        const builder = yield* Effect.fork(Effect.zipRight(build, Effect.never))
        yield* settle
        const user = yield* Effect.fork(Effect.gen(function*() {
          const id = Context.get(yield* build, Built)
          return [id, yield* fixture.fibers.current, yield* fixture.run("SELECT id")]
        }))
        expect(yield* Fiber.join(user)).toEqual(["1", Option.none(), "2"])
        yield* Fiber.interrupt(builder)
        yield* Scope.close(scope, Exit.void)
      })))
})

describe("a statement that reads what the previous one left", () => {
  it.effect("runs where that is still true", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("INSERT")
        yield* TestClock.adjust(600)
        expect(yield* fixture.run("SELECT LAST_INSERT_ID()")).toBe(1_001)
        expect(fixture.fake.connection("1").roundTrips.ping).toBe(0)
      })))

  it.effect("fails when the connection was taken back", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("INSERT")
        yield* Fiber.join(yield* queueUp(fixture, "INSERT"))
        const failure = yield* Effect.flip(fixture.run("SELECT LAST_INSERT_ID()"))
        expect(failure._tag).toBe("AffinityLost")
        expect(fixture.fake.sentOn("1")).toEqual(["INSERT", "INSERT"])
      })))

  it.effect("fails as a fiber's first statement, a session's, a connection's and a stream's", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const read = "SELECT LAST_INSERT_ID()"
        expect((yield* Effect.flip(fixture.run(read)))._tag).toBe("AffinityLost")
        expect((yield* fixture.fibers.session(() => Effect.flip(fixture.run(read))))._tag).toBe("AffinityLost")
        expect((yield* Effect.flip(Stream.runDrain(rows(fixture, read))))._tag).toBe("AffinityLost")
        expect(fixture.fake.sent).toEqual([])
      })))

  it.effect("fails when the connection broke in between", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("INSERT")
        fixture.fake.connection("1").break()
        expect((yield* Effect.flip(fixture.run("SELECT LAST_INSERT_ID()")))._tag).toBe("AffinityLost")
      })))

  it.effect("does not read another borrower's insert id after the fiber's connection was replaced", () =>
    withPool({ poolSize: 2 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("INSERT")
        // somebody else takes the connection, and inserts on the one that this fiber gets next
        const other = yield* Effect.fork(Effect.zipRight(fixture.run("INSERT"), Effect.never))
        const holder = yield* Effect.fork(Effect.zipRight(fixture.run("DIRTY"), Effect.never))
        yield* settle
        yield* Fiber.interrupt(other)
        expect(yield* fixture.fibers.current).toEqual(Option.none())
        yield* fixture.run("SELECT id")
        const exit = yield* Effect.exit(fixture.run("SELECT LAST_INSERT_ID()"))
        expect(Exit.isSuccess(exit) ? exit.value : failureOf(exit)?._tag).toBe("AffinityLost")
        yield* Fiber.interrupt(holder)
      })))
})

describe("an interrupted statement", () => {
  it.effect("lets its fiber go on at once, and is stopped on the server", () =>
    withPool({ poolSize: 1, script: { cancel: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SLEEP 60000"))
        yield* settle
        yield* Fiber.interrupt(fiber)
        const next = yield* queueUp(fixture)
        yield* TestClock.adjust(99)
        expect(fixture.fake.sentOn("1")).toEqual(["SLEEP 60000"])
        expect(yield* isDone(next)).toBe(false)
        expect(yield* joinAfter(next, 1)).toBe("1")
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 2, cancel: 1, reset: 0 })
      })))

  for (const [how, behaviour] of [["is never answered", never], ["fails", fails(lost("unknown"))]] as const) {
    it.effect(`is replaced with its connection when the cancel ${how}`, () =>
      withPool({ poolSize: 1, cancelTimeout: 200, script: { cancel: behaviour } }, (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(fixture.run("SLEEP 60000"))
          yield* settle
          yield* Fiber.interrupt(fiber)
          const next = yield* queueUp(fixture)
          expect(yield* joinAfter(next, 200)).toBe("2")
          expect(fixture.fake.closed).toEqual(["1"])
          expect(fixture.fake.sentOn("1")).toEqual(["SLEEP 60000"])
        })))
  }

  it.effect("keeps the fiber's transaction: the next statement waits for the cancel and runs on the same connection", () =>
    withPool({ script: { cancel: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(
          Effect.onInterrupt(
            Effect.zipRight(fixture.run("BEGIN"), fixture.run("SLEEP 60000")),
            () => Effect.ignore(fixture.run("ROLLBACK"))
          )
        )
        yield* settle
        const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust(99)
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "SLEEP 60000"])
        yield* joinAfter(interrupting, 1)
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN", "SLEEP 60000", "ROLLBACK"])
        expect(fixture.fake.opened).toEqual(["1"])
      })))

  it.effect("in a fiber without state: a finalizer's statement does not wait for the cancel", () =>
    withPool({ script: { cancel: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(
          Effect.onInterrupt(fixture.run("SLEEP 60000"), () => Effect.ignore(fixture.run("INSERT")))
        )
        yield* settle
        yield* Fiber.interrupt(fiber)
        expect(fixture.fake.sentOn("2")).toEqual(["INSERT"])
        yield* TestClock.adjust(100)
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 2, held: 0 })
      })))

  it.effect("that was answered in time leaves nothing to stop", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SLEEP 10"))
        yield* TestClock.adjust(10)
        yield* Fiber.interrupt(fiber)
        yield* settle
        expect(fixture.fake.connection("1").roundTrips.cancel).toBe(0)
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 1, held: 0 })
      })))

  it.effect("in a session: the others go on when the cancel is answered", () =>
    withPool({ script: { cancel: takes(50) } }, (fixture) =>
      Effect.gen(function*() {
        const session = yield* Effect.fork(fixture.fibers.session(() =>
          Effect.zip(Effect.timeoutOption(fixture.run("SLEEP 60000"), 100), fixture.run("SELECT id"))
        ))
        expect(yield* joinAfter(session, 150)).toEqual([Option.none(), "1"])
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 2, cancel: 1 })
      })))

  it.effect("in a session: one that has not begun is not sent", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const session = yield* Effect.fork(fixture.fibers.session(() =>
          Effect.all([fixture.run("SLEEP 100"), Effect.timeoutOption(fixture.run("INSERT"), 50)], {
            concurrency: 2
          })
        ))
        yield* joinAfter(session, 100)
        expect(fixture.fake.sentOn("1")).toEqual(["SLEEP 100"])
        expect(fixture.fake.connection("1").roundTrips.cancel).toBe(0)
      })))

  it.effect("while it waits for a connection sends nothing", () =>
    withPool({ script: { connect: takes(100) } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("INSERT"))
        yield* TestClock.adjust(50)
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust(50)
        expect(fixture.fake.sent).toEqual([])
        expect(yield* fixture.pool.snapshot).toMatchObject({ idle: 1, held: 0, waiting: 0 })
      })))

  it.effect("that is granted its connection at that moment leaves it to whoever waits, while its fiber cleans up", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const holder = fixture.pool.unsafeBorrow("connection", yield* Effect.fiberId)
        yield* settle
        const fiber = yield* Effect.fork(Effect.onInterrupt(fixture.run("INSERT"), () => Effect.sleep(1_000)))
        yield* settle
        const next = yield* queueUp(fixture)
        holder.release("the test")
        fiber.unsafeInterruptAsFork(fiber.id())
        yield* settle
        expect(yield* isDone(next)).toBe(true)
        // the grant had started it, and so it was stopped before the next one
        expect(fixture.fake.sentOn("1")).toEqual(["INSERT", "SELECT id"])
        expect(yield* fixture.pool.snapshot).toMatchObject({ cancelled: 1 })
        yield* TestClock.adjust(1_000)
      })))

  it.effect("that breaks its connection while it is stopped is closed once", () =>
    withPool({ script: { cancel: never }, cancelTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SLEEP 60000"))
        yield* settle
        yield* Fiber.interrupt(fiber)
        yield* settle
        fixture.fake.connection("1").break()
        yield* TestClock.adjust(100)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, created: 1, closed: 1 })
      })))
})

describe("a lost connection", () => {
  const once = (outcome: "unknown" | "not executed") => [fails(lost(outcome))]

  it.effect("under a plain read: the read is run again on another connection", () =>
    withPool({ script: { run: once("unknown") } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("SELECT id"))
        expect(yield* joinAfter(fiber, 1_000)).toBe("2")
        expect(yield* fixture.pool.snapshot).toMatchObject({ retriedReads: 1, lost: 1, unknownOutcomes: 0 })
      })))

  it.effect("under a write: the outcome is unknown, and it is not run again", () =>
    withPool({ script: { run: once("unknown") } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.flip(fixture.run("INSERT")))
        expect(yield* joinAfter(fiber, 1_000)).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
        expect(fixture.fake.sent.length).toBe(1)
      })))

  it.effect("before a write was sent: it is run again", () =>
    withPool({ script: { run: once("not executed") } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(fixture.run("INSERT"))
        yield* joinAfter(fiber, 1_000)
        expect(fixture.fake.sent.map(({ connection }) => connection)).toEqual(["1", "2"])
      })))

  it.effect("under a write that was declared idempotent: it is run again", () =>
    withPool({ script: { run: once("unknown") } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Recovery.idempotent(fixture.run("INSERT")))
        yield* joinAfter(fiber, 1_000)
        expect(fixture.fake.sent.map(({ connection }) => connection)).toEqual(["1", "2"])
      })))

  for (const sql of ["SELECT id", "LOSE UNSENT", "INSERT"]) {
    for (const open of ["BEGIN", "DIRTY"]) {
      it.effect(`after ${open} under ${sql}: nothing is run again, declared idempotent or not`, () =>
        withPool({ script: { run: [succeeds, fails(lost("not executed"))] } }, (fixture) =>
          Effect.gen(function*() {
            yield* fixture.run(open)
            const fiber = yield* Effect.exit(Recovery.idempotent(fixture.run(sql)))
            expect(failureOf(fiber)?._tag).toBe("ConnectionLost")
            expect(fixture.fake.sent.map(({ sql }) => sql)).toEqual([open, sql])
            expect(yield* fixture.run("SELECT id")).toBe("2")
          })))
    }
  }

  it.effect("with state, between two statements: the fiber is told exactly once", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        fixture.fake.connection("1").break()
        expect(yield* Effect.flip(fixture.run("INSERT"))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        expect(fixture.fake.sentOn("1")).toEqual(["BEGIN"])
        expect(yield* fixture.run("SELECT id")).toBe("2")
      })))

  it.effect("with state, before a session: the session is told", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        fixture.fake.connection("1").break()
        const exit = yield* Effect.exit(fixture.fibers.session(() => fixture.run("INSERT")))
        expect(failureOf(exit)).toMatchObject({ _tag: "ConnectionLost" })
        expect(fixture.fake.sent.map(({ sql }) => sql)).toEqual(["BEGIN"])
      })))

  it.effect("with the fiber's state, inside a session that does not notice: the fiber is told after it", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        yield* fixture.fibers.session(() => Effect.sync(() => fixture.fake.connection("1").break()))
        const exit = yield* Effect.exit(fixture.run("INSERT"))
        expect(failureOf(exit)).toMatchObject({ _tag: "ConnectionLost" })
        expect(fixture.fake.sent.map(({ sql }) => sql)).toEqual(["BEGIN"])
      })))

  it.effect("without state, between two statements: the fiber cannot tell", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        fixture.fake.connection("1").break()
        expect(yield* fixture.run("INSERT")).toBeUndefined()
        expect(fixture.fake.sentOn("2")).toEqual(["INSERT"])
      })))

  it.effect("under a write with others idle: those are checked before they are used", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const other = yield* Effect.fork(fixture.run("SLEEP 1"))
        yield* TestClock.adjust(1)
        yield* Fiber.join(other)
        const pair = yield* Effect.fork(
          Effect.all([fixture.run("SLEEP 1"), fixture.run("SLEEP 1")], { concurrency: 2 })
        )
        yield* joinAfter(pair, 1)
        yield* Effect.exit(fixture.run("LOSE"))
        const survivor = fixture.fake.open[0] ?? ""
        expect(yield* fixture.run("SELECT id")).toBe(survivor)
        expect(fixture.fake.connection(survivor).roundTrips.ping).toBe(1)
      })))

  it.effect("again and again: five retries, full jitter, then the error", () =>
    withPool(
      { random: Random.fixed([1]), script: { run: fails(lost("unknown")) } },
      (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Effect.withRandom(Effect.flip(fixture.run("SELECT id")), Random.fixed([1])))
          yield* TestClock.adjust(619)
          expect(yield* isDone(fiber)).toBe(false)
          expect(yield* joinAfter(fiber, 1)).toMatchObject({ _tag: "ConnectionLost" })
          expect(fixture.fake.sent.length).toBe(6)
          expect(yield* fixture.pool.snapshot).toMatchObject({ retriedReads: 5, unknownOutcomes: 1 })
        })
    ))

  it.effect("is recovered from as the user's schedule says", () =>
    withPool(
      { recovery: Schedule.recurs(1), script: { run: fails(lost("unknown")) } },
      (fixture) =>
        Effect.gen(function*() {
          yield* Effect.flip(fixture.run("SELECT id"))
          expect(fixture.fake.sent.length).toBe(2)
        })
    ))

  it.effect("is not waited for longer than the interruption of its fiber", () =>
    withPool(
      { random: Random.fixed([1]), script: { run: fails(lost("unknown")) } },
      (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(fixture.run("SELECT id"))
          yield* settle
          yield* Fiber.interrupt(fiber)
          expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, waiting: 0 })
        })
    ))

  it.effect("an ordinary failure of a statement neither retries nor replaces anything", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        expect((yield* Effect.flip(fixture.run("FAIL")))._tag).toBe("StatementError")
        expect(yield* fixture.run("SELECT id")).toBe("1")
        expect(fixture.fake.sent.length).toBe(2)
      })))

  for (const affinity of ["soft", "strict", "statement"] as const) {
    it.effect(`a server that has become read-only is left, and the write run again (${affinity})`, () =>
      withPool({ affinity, script: { run: [fails(readOnly())] } }, (fixture) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
          expect(failureOf(yield* joinAfter(fiber, 1_000))).toBeUndefined()
          expect(fixture.fake.sent.map(({ connection }) => connection)).toEqual(["1", "2"])
          expect(fixture.fake.closed).toEqual(["1"])
        })))
  }

  it.effect("a server that has become read-only is left when somebody waits for the connection, too", () =>
    withPool({ poolSize: 1, script: { run: [takes(10, fails(readOnly()))] } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.exit(fixture.run("INSERT")))
        yield* settle
        const waiter = yield* queueUp(fixture)
        expect(failureOf(yield* joinAfter(fiber, 1_000))).toBeUndefined()
        expect(yield* Fiber.join(waiter)).toBe("2")
      })))
})

describe("a stream", () => {
  it.effect("gives every row, and its connection back", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const all = yield* Stream.runCollect(rows(fixture, "ROWS 10"))
        expect(Chunk.toReadonlyArray(all)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 1, cancel: 0 })
      })))

  it.effect("without rows is empty", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        expect(Chunk.size(yield* Stream.runCollect(rows(fixture, "ROWS 0")))).toBe(0)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
      })))

  it.effect("that ends early stops the statement on the server", () =>
    withPool({ poolSize: 1, script: { cancel: takes(50) } }, (fixture) =>
      Effect.gen(function*() {
        const some = yield* Stream.runCollect(Stream.take(rows(fixture, "ROWS 1000"), 4))
        expect(Chunk.size(some)).toBe(4)
        const next = yield* queueUp(fixture)
        yield* TestClock.adjust(49)
        expect(yield* isDone(next)).toBe(false)
        expect(yield* joinAfter(next, 1)).toBe("1")
        expect(fixture.fake.connection("1").roundTrips).toMatchObject({ run: 2, cancel: 1 })
      })))

  it.effect("that is interrupted while it waits for rows stops the statement on the server", () =>
    withPool({ poolSize: 1, script: { run: [never] } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Stream.runDrain(rows(fixture, "ROWS 10")))
        yield* settle
        yield* Fiber.interrupt(fiber)
        yield* settle
        expect(fixture.fake.connection("1").roundTrips.cancel).toBe(1)
        expect(yield* fixture.pool.snapshot).toMatchObject({ held: 0, idle: 1 })
      })))

  it.effect("that breaks before its first row begins again", () =>
    withPool({ script: { run: [fails(lost("unknown"))] } }, (fixture) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Stream.runCollect(rows(fixture, "ROWS 5")))
        expect(Chunk.size(yield* joinAfter(fiber, 1_000))).toBe(5)
        expect(fixture.fake.opened).toEqual(["1", "2"])
      })))

  it.effect("that breaks after its first row fails, after the rows that came", () =>
    withPool({}, (fixture) =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const exit = yield* Effect.exit(
          Stream.runForEach(rows(fixture, "ROWS 6 THEN LOSE"), (n) => Effect.sync(() => seen.push(n)))
        )
        expect(failureOf(exit)).toMatchObject({ _tag: "ConnectionLost", outcome: "unknown" })
        expect(seen).toEqual([0, 1, 2, 3, 4, 5])
      })))

  it.effect("that is cut by the pool's end does not look complete", () =>
    withPool({ drainTimeout: 100 }, (fixture) =>
      Effect.gen(function*() {
        const slow = Stream.tap(rows(fixture, "ROWS 9"), () => Effect.sleep(100))
        const fiber = yield* Effect.fork(Effect.exit(Stream.runCount(slow)))
        yield* TestClock.adjust(150)
        yield* Effect.fork(fixture.close)
        const exit = yield* joinAfter(fiber, 10_000)
        expect(failureOf(exit)?._tag).toMatch(/PoolClosed|ConnectionLost/)
      })))

  it.effect("keeps its connection for itself while its consumer runs statements on its own", () =>
    withPool({ poolSize: 2 }, (fixture) =>
      Effect.gen(function*() {
        const ids = yield* Stream.runCollect(Stream.mapEffect(rows(fixture, "ROWS 4"), () => fixture.run("SELECT id")))
        expect(Chunk.toReadonlyArray(ids)).toEqual(["2", "2", "2", "2"])
      })))
})
