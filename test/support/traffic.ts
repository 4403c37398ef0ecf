/** A little of everything that fibers do with a pool, and a database on which anything may fail, for runs at random. */
import { Effect, Fiber, Stream } from "effect"
import type { ConnectFailure, DbError } from "../../src/DbError.js"
import type * as FiberConnection from "../../src/FiberConnection.js"
import { runOn } from "../../src/internal/submission.js"
import * as FakeDriver from "./fakeDriver.js"

export type Work = Effect.Effect<unknown, unknown>

/**
 * All at a time. Not by `Effect.all` and `Fiber.joinAll`: Effect 3.22 never ends a concurrent `all` or `forEach` that is interrupted in the
 * moment between its start and that of its fibers, which a scheduler that yields often makes likely.
 */
const together = (works: ReadonlyArray<Work>): Work =>
  Effect.flatMap(
    Effect.forEach(works, (work) => Effect.fork(work)),
    Effect.forEach((fiber) => Fiber.join(fiber))
  )

/** What a fiber may do with the pool. */
export const works = (fibers: FiberConnection.FiberConnection) => {
  const run = (sql: string): Effect.Effect<unknown, DbError> => fibers.run(FakeDriver.statement(sql))
  const stream = (sql: string) => fibers.stream(FakeDriver.statement(sql))
  const explicit = (sql: string) =>
    Effect.scoped(Effect.flatMap(fibers.connection, (connection) => runOn(connection, FakeDriver.statement(sql))))
  return {
    "a read": run("SELECT id"),
    "a long read": run("SLEEP 3"),
    "an insert": run("INSERT"),
    "a change": run("DIRTY"),
    "a failure": run("FAIL"),
    "a loss": run("LOSE"),
    "an unsent loss": run("LOSE UNSENT"),
    "a read-only server": run("READ ONLY"),
    "an insert id": run("SELECT LAST_INSERT_ID()"),
    "an insert and its id": Effect.zipRight(run("INSERT"), run("SELECT LAST_INSERT_ID()")),
    "a transaction": Effect.zipRight(run("BEGIN"), Effect.ensuring(run("SLEEP 2"), Effect.ignore(run("COMMIT")))),
    "a transaction released": Effect.zipRight(run("BEGIN"), fibers.release),
    "a timeout in time": Effect.timeout(run("SLEEP 5"), 4),
    "a timeout": Effect.timeout(run("SLEEP 500"), 2),
    "a race": Effect.race(run("SLEEP 2"), run("SLEEP 4")),
    "a fan-out": together([1, 2, 3].map((n) => run(`SLEEP ${n}`))),
    "an interruption that reads": Effect.onInterrupt(run("SLEEP 50"), () => Effect.ignore(run("SELECT id"))),
    "a connection": explicit("SLEEP 2"),
    "a changed connection": explicit("DIRTY"),
    "an unused connection": Effect.scoped(fibers.connection),
    "a stream": Stream.runDrain(stream("ROWS 10")),
    "a stream ended early": Stream.runDrain(Stream.take(stream("ROWS 100"), 4)),
    "a stream that breaks": Stream.runDrain(stream("ROWS 6 THEN LOSE")),
    "a stream with statements": Stream.runDrain(Stream.mapEffect(stream("ROWS 4"), () => run("SLEEP 1"))),
    "a session with a timeout": fibers.session(() => Effect.zipRight(run("DIRTY"), Effect.timeout(run("SLEEP 9"), 3))),
    "a session shared": fibers.session(() => together([run("SLEEP 1"), run("SLEEP 2"), run("FAIL")])),
    "a session's stream": fibers.session(() => Stream.runDrain(Stream.take(stream("ROWS 20"), 5)), {
      acquireTimeout: 30
    }),
    "a session in a session": fibers.session(() => fibers.session(() => run("SELECT id"))),
    "a release": fibers.release,
    "a yield": Effect.yieldNow(),
    "a sleep": Effect.sleep(1),
    "a long sleep": Effect.sleep(600)
  } satisfies Record<string, Work>
}

/** A database on which anything may go wrong. It throws its own dice, in whatever fiber it is asked. */
export const unreliable = (seed: number): Partial<FakeDriver.Scripts> => {
  let state = seed
  const throwDice = (): number => {
    state = (state * 48_271) % 2_147_483_647
    return state / 2_147_483_647
  }
  const sometimes = <E>(
    usual: FakeDriver.Behaviour<E>,
    others: ReadonlyArray<FakeDriver.Behaviour<E>>
  ) =>
  (): FakeDriver.Behaviour<E> => {
    const pick = Math.floor(throwDice() * others.length * 5)
    return others[pick] ?? usual
  }
  const lost = FakeDriver.fails(FakeDriver.lost("unknown"))
  return {
    connect: sometimes<ConnectFailure>(
      FakeDriver.takes(2),
      [
        FakeDriver.fails(FakeDriver.refused()),
        FakeDriver.takes(3, FakeDriver.fails(FakeDriver.refused())),
        FakeDriver.succeeds
      ]
    ),
    ping: sometimes<DbError>(FakeDriver.succeeds, [lost, FakeDriver.takes(2), FakeDriver.never]),
    reset: sometimes<DbError>(FakeDriver.succeeds, [lost, FakeDriver.takes(2), FakeDriver.never]),
    cancel: sometimes<DbError>(FakeDriver.takes(1), [lost, FakeDriver.succeeds, FakeDriver.never]),
    close: sometimes<never>(FakeDriver.succeeds, [FakeDriver.takes(5), FakeDriver.never])
  }
}
