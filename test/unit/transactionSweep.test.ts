/**
 * Transactions that nest, fork, deadlock and are run again, under many schedulers, and interrupted after any number of
 * turns. Whatever the interleaving: nothing is written outside of a transaction (the driver watches), everybody settles,
 * nobody meets a defect, and nothing is left behind.
 */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Random, Schedule, Scope } from "effect"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import type { DbError } from "../../src/DbError.js"
import * as FiberConnection from "../../src/FiberConnection.js"
import * as Transaction from "../../src/Transaction.js"
import { aborting } from "../support/abortingDriver.js"
import * as FakeDriver from "../support/fakeDriver.js"
import { config } from "../support/poolFixture.js"
import { simulate } from "../support/simulation.js"

type Work = Effect.Effect<unknown, unknown>

/** All at a time; why not by `Effect.all`, see interleavings.test.ts. */
const together = (works: ReadonlyArray<Work>): Work =>
  Effect.flatMap(
    Effect.forEach(works, (work) => Effect.fork(work)),
    Effect.forEach((fiber) => Fiber.join(fiber))
  )

const again: Schedule.Schedule<unknown, DbError> = Schedule.intersect(Schedule.spaced(2), Schedule.recurs(3))

const works = (fibers: FiberConnection.FiberConnection) => {
  const run = (sql: string): Effect.Effect<unknown, DbError> => fibers.run(FakeDriver.statement(sql))
  const transaction = (effect: Work, options?: Transaction.TransactionOptions): Work =>
    Transaction.run(fibers, effect, options)
  const write = run("INSERT")
  /** Deadlocks that many times, then writes. */
  const fighting = (times: number) => {
    let runs = 0
    return Effect.suspend(() => run(runs++ < times ? "UPDATE deadlock" : "INSERT"))
  }
  const failing = Effect.zipRight(write, Effect.fail("no"))
  return {
    "a transaction": () => transaction(Effect.zipRight(write, run("SLEEP 2"))),
    "a failure": () => transaction(failing),
    "nested, one of which fails": () =>
      transaction(Effect.zipRight(write, Effect.zipRight(Effect.ignore(transaction(failing)), transaction(write)))),
    "three deep": () => transaction(transaction(Effect.zipRight(transaction(write), write))),
    "siblings side by side": () =>
      transaction(
        together([transaction(write), Effect.ignore(transaction(failing)), write, transaction(run("SLEEP 1"))])
      ),
    "siblings, one of which fails them all": () =>
      transaction(together([transaction(run("SLEEP 3")), transaction(failing), write])),
    "a deadlock": () => transaction(fighting(1)),
    "a deadlock, run again": () => transaction(Effect.zipRight(write, fighting(2)), { retry: again }),
    "a deadlock in a nested one, run again": () =>
      transaction(Effect.zipRight(write, transaction(fighting(2))), { retry: again }),
    "a deadlock that is caught, run again": () =>
      transaction(Effect.zipRight(Effect.ignore(fighting(1)), Effect.ignore(write)), { retry: again }),
    "a deadlock among siblings, run again": () => {
      const fight = fighting(2)
      return transaction(together([transaction(write), transaction(fight), write]), { retry: again })
    },
    "a deadlock for ever": () => transaction(run("UPDATE deadlock"), { retry: again }),
    "a loss, run again": () => {
      let runs = 0
      return transaction(Effect.zipRight(write, Effect.suspend(() => run(runs++ === 0 ? "UPDATE lost" : "INSERT"))), {
        retry: again
      })
    },
    "a session that goes on": () =>
      fibers.session(() =>
        Effect.zipRight(Effect.ignore(transaction(failing)), transaction(fighting(1), { retry: again }))
      ),
    "a timeout inside": () => transaction(Effect.zipRight(Effect.timeoutOption(run("SLEEP 20"), 2), write)),
    "a nested one that times out": () =>
      transaction(
        Effect.zipRight(Effect.timeoutOption(transaction(Effect.zipRight(write, run("SLEEP 20"))), 2), write)
      ),
    "a daemon that comes too late": () =>
      Effect.flatMap(Deferred.make<void>(), (ended) =>
        Effect.flatMap(
          transaction(Effect.forkDaemon(Effect.exit(Effect.zipRight(Deferred.await(ended), write)))) as Effect.Effect<
            Fiber.Fiber<Exit.Exit<unknown, DbError>>,
            unknown
          >,
          (daemon) =>
            Effect.zipRight(
              transaction(Effect.zipRight(Deferred.succeed(ended, undefined), Fiber.join(daemon))),
              Effect.map(Fiber.join(daemon), (exit) => {
                // it writes nowhere
                if (Exit.isSuccess(exit)) throw new Error("a daemon has written")
              })
            )
        ))
  } satisfies Record<string, () => Work>
}

const expectNoDefect = (exit: Exit.Exit<unknown, unknown>): void => {
  if (Exit.isFailure(exit)) expect([...Cause.defects(exit.cause)]).toEqual([])
}

/** The work; afterwards, however it ends, its fiber is in no session and no transaction any more. */
const andBack = (fibers: FiberConnection.FiberConnection, work: Work): Work =>
  Effect.onExit(work, () =>
    Effect.withFiberRuntime((fiber) => {
      if (fibers.places.of(fiber) !== undefined) throw new Error("the fiber has not come back")
      return Effect.void
    }))

const withPool = (
  options: { readonly poolSize: number; readonly script?: Partial<FakeDriver.Scripts> },
  use: (fibers: FiberConnection.FiberConnection, fake: FakeDriver.FakeDriver) => Effect.Effect<void>
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const fake = yield* FakeDriver.make(options.script)
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(
      ConnectionPool.make(
        aborting(fake),
        config({ poolSize: options.poolSize, acquireTimeout: 500, cancelTimeout: 20, drainTimeout: 100 })
      ),
      scope
    )
    yield* use(FiberConnection.make(pool), fake)
    // whatever was being cancelled or reset has had its time
    yield* Effect.sleep(1_000)
    const { busy, closed, created, held, idle, opening, waiting } = yield* pool.snapshot
    expect({ held, waiting, busy, opening }).toEqual({ held: 0, waiting: 0, busy: 0, opening: 0 })
    expect(created - closed).toBe(idle)
    yield* Scope.close(scope, Exit.void)
    yield* Effect.sleep(1_000)
    fake.expectAllClosed()
  })

const slow: Partial<FakeDriver.Scripts> = {
  connect: FakeDriver.takes(1),
  cancel: FakeDriver.takes(1),
  reset: FakeDriver.takes(1)
}

describe("sixty fibers in transactions, some interrupted at any moment,", () => {
  const scenario = withPool({ poolSize: 5, script: slow }, (fibers, fake) =>
    Effect.gen(function*() {
      const choices = Object.values(works(fibers))
      const life = Effect.gen(function*() {
        for (let round = 0; round < 3; round++) {
          const work = choices[yield* Random.nextIntBetween(0, choices.length)]
          if (work !== undefined) expectNoDefect(yield* Effect.exit(andBack(fibers, work())))
        }
      })
      const lives = yield* Effect.forEach(Array.from({ length: 60 }), () => Effect.fork(life))
      for (const fiber of lives) {
        if (yield* Random.nextBoolean) continue
        const delay = yield* Random.nextIntBetween(0, 40)
        const hops = yield* Random.nextIntBetween(0, 30)
        const interrupt = Effect.zipRight(Effect.repeatN(Effect.yieldNow(), hops), Fiber.interrupt(fiber))
        yield* Effect.fork(Effect.zipRight(Effect.sleep(delay), interrupt))
      }
      for (const fiber of lives) expectNoDefect(yield* Fiber.await(fiber))
      const sent = new Set(fake.sent.map(({ sql }) => sql.replace(/ effect_sql_pool_.*/, "")))
      for (
        const text of [
          "COMMIT",
          "ROLLBACK",
          "UPDATE deadlock",
          "UPDATE lost",
          "RELEASE SAVEPOINT",
          "ROLLBACK TO SAVEPOINT"
        ]
      ) {
        expect(sent).toContain(text)
      }
    }))

  for (let maxOpsBeforeYield = 2; maxOpsBeforeYield <= 17; maxOpsBeforeYield++) {
    it(`leave nothing behind, yielding after ${maxOpsBeforeYield} operations`, { timeout: 60_000 }, () => {
      simulate({ seed: maxOpsBeforeYield, maxOpsBeforeYield }, scenario)
    })
  }
})

describe("a transaction that is interrupted after any number of turns leaves nothing behind:", () => {
  const interrupted = (name: keyof ReturnType<typeof works>, turns: number) =>
    withPool({ poolSize: 2, script: slow }, (fibers) =>
      Effect.gen(function*() {
        const work = works(fibers)[name]
        const fiber = yield* Effect.fork(andBack(fibers, work()))
        yield* Effect.repeatN(Effect.yieldNow(), turns)
        expectNoDefect(yield* Fiber.interrupt(fiber))
        // the next one finds everything as it should be
        const next = yield* Effect.fork(works(fibers)["a transaction"]())
        expect(Exit.isSuccess(yield* Fiber.await(next))).toBe(true)
      }))

  const names: ReadonlyArray<keyof ReturnType<typeof works>> = [
    "a transaction",
    "nested, one of which fails",
    "siblings side by side",
    "a deadlock in a nested one, run again",
    "a deadlock among siblings, run again",
    "a loss, run again",
    "a session that goes on",
    "a nested one that times out",
    "a daemon that comes too late"
  ]
  for (const name of names) {
    it(name, { timeout: 60_000 }, () => {
      for (let turns = 0; turns < 240; turns += 3) {
        simulate({ seed: turns + 1, maxOpsBeforeYield: 2 + (turns % 5) }, interrupted(name, turns))
      }
    })
  }
})
