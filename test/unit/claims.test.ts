/**
 * A fiber's connection is claimed for a statement, which may then not be run after all: it must not stay claimed, or the
 * fiber waits for its own child, which waits for the connection.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, Scope, TestClock } from "effect"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import { StatementError } from "../../src/DbError.js"
import type { Connection } from "../../src/Driver.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { config, type Fixture, joinAfter, settle, withPool } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"

const question = "SELECT LAST_INSERT_ID()"

const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<boolean> => Effect.map(Fiber.poll(fiber), Option.isSome)

/** Lets the driver ask which id was generated last, as MySQL's does. */
const asksForId = ({ fake }: Fixture): void => void Object.assign(fake, { generatedId: question })

type Run = Connection["run"]

/** Changes how the first connection runs statements. */
const replaceRun = ({ fake }: Fixture, change: (run: Run) => Run): void => {
  const connection = fake.connection("1")
  Object.assign(connection, { run: change(connection.run.bind(connection)) })
}

/** The question is answered with an id that no INSERT of this fiber has generated. */
const idOfAnother = (fixture: Fixture): void =>
  replaceRun(fixture, (run) => (statement, done) =>
    run(statement, (exit) =>
      done(
        statement.sql === question && Exit.isSuccess(exit) ? Exit.succeed({ ...exit.value, rows: [["7"]] }) : exit
      )))

/** Another fiber's statement finds the only connection within the time that anybody waits for one. */
const expectLent = (fixture: Fixture) =>
  Effect.gen(function*() {
    const child = yield* Effect.fork(fixture.run("SELECT id"))
    expect(yield* joinAfter(child, 5_000)).toBe("1")
  })

describe("a connection whose fiber was refused a statement is lent to its child:", () => {
  it.effect("no id was generated", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("SELECT id")
        expect((yield* Effect.flip(fixture.run(question)))._tag).toBe("AffinityLost")
        yield* expectLent(fixture)
      })))

  it.effect("the id is another's", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        asksForId(fixture)
        yield* fixture.run("INSERT")
        idOfAnother(fixture)
        expect((yield* Effect.flip(fixture.run(question)))._tag).toBe("AffinityLost")
        yield* expectLent(fixture)
      })))

  it.effect("it has reconnected, and runs nothing", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.fibers.reconnect
        yield* expectLent(fixture)
      })))
})

describe("who waits in a session while a statement asks for the last id is served when", () => {
  /** Answers with the reader, and whether the one behind it has had its turn. */
  const behind = (fixture: Fixture, prepare: () => void, interrupt = false) =>
    fixture.fibers.session(() =>
      Effect.gen(function*() {
        asksForId(fixture)
        yield* fixture.run("INSERT")
        prepare()
        const reader: Fiber.RuntimeFiber<unknown, unknown> = yield* Effect.fork(fixture.run(question))
        if (interrupt) {
          replaceRun(fixture, (run) => (statement, done) =>
            run(statement, (exit) => {
              done(exit)
              if (statement.sql === question) reader.unsafeInterruptAsFork(reader.id())
            }))
        }
        const other = yield* Effect.fork(fixture.run("SELECT id"))
        yield* TestClock.adjust(9_000)
        return [yield* Fiber.await(reader), yield* isDone(other)] as const
      })
    )

  it.effect("the id is another's", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const [reader, served] = yield* behind(fixture, () => idOfAnother(fixture))
        expect([reader, served]).toMatchObject([{ cause: { error: { _tag: "AffinityLost" } } }, true])
      })))

  it.effect("the question fails", () => {
    const refused = FakeDriver.fails(new StatementError({ statement: question, reason: "no" }))
    return withPool(
      { poolSize: 1, script: { run: [FakeDriver.succeeds, FakeDriver.takes(5, refused)] } },
      (fixture) =>
        Effect.gen(function*() {
          const [reader, served] = yield* behind(fixture, () => undefined)
          expect([reader, served]).toMatchObject([{ cause: { error: { _tag: "StatementError" } } }, true])
        })
    )
  })

  it.effect("the reader is interrupted as the question is answered", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const [reader, served] = yield* behind(fixture, () => undefined, true)
        expect([Exit.isInterrupted(reader), served]).toEqual([true, true])
      })))
})

describe("between the question for the last id and the statement that reads it", () => {
  /** Lets `go` complete in the moment in which the question is answered, before who asked it has gone on. */
  const completedByAnswer = (fixture: Fixture, go: Deferred.Deferred<void>): void =>
    replaceRun(fixture, (run) => (statement, done) =>
      run(statement, (exit) => {
        if (statement.sql === question) Deferred.unsafeDone(go, Exit.void)
        done(exit)
      }))

  /** In a session that has inserted a row. */
  const afterInsert = <A, E>(use: (fixture: Fixture) => Effect.Effect<A, E>) =>
    withPool({ poolSize: 1 }, (fixture) => {
      asksForId(fixture)
      return fixture.fibers.session(() => Effect.zipRight(fixture.run("INSERT"), Effect.suspend(() => use(fixture))))
    })

  const texts = ({ fake }: Fixture): ReadonlyArray<string> => fake.sent.map(({ sql }) => sql)

  it.effect("nobody else in the session is served, however close it comes", () =>
    afterInsert((fixture) =>
      Effect.gen(function*() {
        const go = yield* Deferred.make<void>()
        completedByAnswer(fixture, go)
        const other = yield* Effect.fork(Effect.zipRight(Deferred.await(go), fixture.run("SELECT id")))
        yield* settle
        const reader = yield* Effect.fork(fixture.run(question))
        yield* Fiber.joinAll([reader, other])
        expect(texts(fixture)).toEqual(["INSERT", question, question, "SELECT id"])
      })
    ))

  it.effect("another that runs the same statement, and is interrupted, does not let others come between", () =>
    afterInsert((fixture) =>
      Effect.gen(function*() {
        const statement = FakeDriver.statement(question)
        const reader = yield* Effect.fork(fixture.fibers.run(statement))
        const other = yield* Effect.fork(fixture.fibers.run(statement))
        replaceRun(fixture, (run) => (sent, done) =>
          run(sent, (exit) => {
            if (sent.sql === question) other.unsafeInterruptAsFork(other.id())
            done(exit)
          }))
        const insert = yield* Effect.fork(fixture.run("INSERT"))
        yield* Fiber.joinAll([reader, insert])
        expect(Exit.isInterrupted(yield* Fiber.await(other))).toBe(true)
        expect(texts(fixture)).toEqual(["INSERT", question, question, "INSERT"])
      })
    ))

  it.effect("an INSERT that was ahead of the question counts", () =>
    afterInsert((fixture) =>
      Effect.gen(function*() {
        const insert = yield* Effect.fork(fixture.run("INSERT"))
        const reader = yield* Effect.fork(fixture.run(question))
        yield* Fiber.join(insert)
        // the second statement of the first connection
        expect(yield* Fiber.join(reader)).toBe(1002)
      })
    ))

  it.effect("who came then is served when the reader is interrupted instead", () =>
    afterInsert((fixture) =>
      Effect.gen(function*() {
        const go = yield* Deferred.make<void>()
        completedByAnswer(fixture, go)
        const reader: Fiber.RuntimeFiber<unknown, unknown> = yield* Effect.fork(fixture.run(question))
        const other = yield* Effect.fork(Effect.zipRight(Deferred.await(go), fixture.run("SELECT id")))
        const third = yield* Effect.fork(Effect.zipRight(
          Deferred.await(go),
          Effect.sync(() => reader.unsafeInterruptAsFork(reader.id()))
        ))
        yield* Fiber.joinAll([other, third])
        expect(Exit.isInterrupted(yield* Fiber.await(reader))).toBe(true)
        expect(texts(fixture)).toEqual(["INSERT", question, "SELECT id"])
      })
    ))
})

describe("a fiber that is interrupted and goes on in a finalizer", () => {
  it.effect("between the grant and the start of its statement has sent nothing and lends the connection", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const held = fixture.pool.unsafeBorrow("connection", yield* Effect.fiberId)
        yield* settle
        const waiting = yield* Effect.fork(Effect.onExit(fixture.run("INSERT"), () => Effect.sleep(50_000)))
        yield* settle
        // the interruption first, then the grant, before the fiber has gone on
        waiting.unsafeInterruptAsFork(waiting.id())
        held.release("the test")
        yield* settle
        expect(fixture.fake.sent).toEqual([])
        yield* expectLent(fixture)
        yield* TestClock.adjust(60_000)
        expect(Exit.isInterrupted(yield* Fiber.await(waiting))).toBe(true)
      })))

  const scenario = (turns: number, seen: { second: number; lent: number }) =>
    Effect.gen(function*() {
      const fake = yield* FakeDriver.make()
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(
        ConnectionPool.make(fake, config({ poolSize: 1, acquireTimeout: 1_000 })),
        scope
      )
      const run = FiberConnection.make(pool).run(FakeDriver.statement("SELECT id"))
      const twice = Effect.zipRight(run, Effect.zipRight(Effect.sync(() => seen.second++), run))
      const first = yield* Effect.fork(Effect.onExit(twice, () => Effect.sleep(5_000)))
      yield* Effect.repeatN(Effect.yieldNow(), turns)
      first.unsafeInterruptAsFork(first.id())
      yield* Effect.sleep(10)
      const other = yield* Effect.fork(run)
      if (Exit.isSuccess(yield* Fiber.await(other))) seen.lent++
      yield* Fiber.await(first)
      yield* Scope.close(scope, Exit.void)
      yield* Effect.sleep(10_000)
    })

  it("in any of its steps lends what it does not use", { timeout: 60_000 }, () => {
    const seen = { second: 0, lent: 0 }
    let runs = 0
    for (let maxOpsBeforeYield = 2; maxOpsBeforeYield < 8; maxOpsBeforeYield++) {
      for (let turns = 0; turns < 60; turns++) {
        runs++
        simulate({ seed: turns + 1, maxOpsBeforeYield }, scenario(turns, seen))
      }
    }
    expect(seen.lent).toBe(runs)
    // some were interrupted before their second statement, and some after
    expect(seen.second).toBeGreaterThan(runs / 10)
    expect(seen.second).toBeLessThan(runs)
  })
})

describe("a driver that throws instead of answering", () => {
  /** Throws once, at the next statement; its connection answers that one too when it is closed. */
  const throwOnce = (fixture: Fixture): void => {
    let thrown = 0
    replaceRun(fixture, (run) => (statement, done) => {
      if (thrown++ > 0) return run(statement, done)
      const connection = fixture.fake.connection("1")
      const destroy = connection.destroy.bind(connection)
      Object.assign(connection, {
        destroy: () => {
          destroy()
          done(Exit.fail(FakeDriver.lost("not executed")))
        }
      })
      throw new Error("boom")
    })
  }
  const boom = { cause: { _tag: "Die", defect: { message: "boom" } } }

  it.effect("ends the statement that had waited with a defect, and its connection, and nothing else", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        const held = yield* Effect.fork(fixture.run("SLEEP 10"))
        yield* settle
        throwOnce(fixture)
        const waiting = yield* Effect.fork(fixture.run("SELECT id"))
        yield* joinAfter(held, 10)
        yield* settle
        expect(yield* Fiber.await(waiting)).toMatchObject(boom)
        const other = yield* Effect.fork(fixture.run("SELECT id"))
        expect(yield* joinAfter(other, 5_000)).toBe("2")
      })))

  it.effect("does not have the statement run outside of the transaction that it was in", () =>
    withPool({ poolSize: 1 }, (fixture) =>
      Effect.gen(function*() {
        yield* fixture.run("BEGIN")
        throwOnce(fixture)
        expect(yield* Effect.exit(fixture.run("INSERT"))).toMatchObject(boom)
        expect(yield* Effect.flip(fixture.run("INSERT"))).toMatchObject({
          _tag: "ConnectionLost",
          outcome: "rolled back"
        })
        expect(fixture.fake.sent.map(({ sql }) => sql)).toEqual(["BEGIN"])
      })))
})
