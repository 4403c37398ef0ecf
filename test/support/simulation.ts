/**
 * A world with its own scheduler, clock and dice: every fiber of the program, the pool's and the fake database's
 * included, runs in one loop that picks the next ready fiber by a seeded throw and lets time pass when nobody is ready.
 * The same seed gives the same run; another seed, or another number of operations before a fiber yields, gives other
 * interleavings. Nothing here waits for real time.
 */
import { Clock, Duration, Effect, Exit, type Fiber, Logger, LogLevel, Random, type Scheduler } from "effect"
import { awaiting } from "../../src/internal/awaiting.js"

/** Marsaglia's xorshift: small, fast, and the same everywhere. */
const dice = (seed: number): (limit: number) => number => {
  let state = (seed * 2_654_435_761) >>> 0 || 1
  return (limit) => {
    state ^= state << 13
    state >>>= 0
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state % limit
  }
}

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

/**
 * A yield with a priority sets and restores a FiberRef around itself, and those operations count, too: with few
 * operations before a yield a fiber would do nothing else for ever. Without one it is a single operation.
 */
const noPriority = undefined as unknown as number

class World implements Scheduler.Scheduler {
  readonly #tasks: Array<Scheduler.Task> = []
  readonly #throw: (limit: number) => number
  #sleepers: Array<Sleeper> = []
  now = 0

  constructor(seed: number, readonly maxOpsBeforeYield: number) {
    this.#throw = dice(seed)
  }

  scheduleTask(task: Scheduler.Task): void {
    this.#tasks.push(task)
  }

  shouldYield(fiber: Fiber.RuntimeFiber<unknown, unknown> & { readonly currentOpCount?: number }): number | false {
    return (fiber.currentOpCount ?? 0) > this.maxOpsBeforeYield ? noPriority : false
  }

  readonly clock: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => this.now,
    unsafeCurrentTimeNanos: () => BigInt(this.now) * 1_000_000n,
    currentTimeMillis: Effect.sync(() => this.now),
    currentTimeNanos: Effect.sync(() => BigInt(this.now) * 1_000_000n),
    // not Effect.async: that forgets its finalizer when it is interrupted in a yield right after it has begun
    sleep: (duration) =>
      awaiting<void, never>((resume) => {
        // whole milliseconds, as on a real clock
        const sleeper: Sleeper = {
          at: Math.ceil(this.now + Duration.toMillis(duration)),
          wake: () => resume(Exit.void)
        }
        this.#sleepers.push(sleeper)
        return {
          interrupted: () =>
            Effect.sync(() => {
              this.#sleepers = this.#sleepers.filter((other) => other !== sleeper)
            })
        }
      })
  }

  get asleep(): number {
    return this.#sleepers.length
  }

  /** Lets everybody go on who can without time passing. */
  settle(): void {
    while (this.#tasks.length > 0) this.step()
  }

  /** One ready fiber goes on, or else time passes; false when neither is possible. */
  step(): boolean {
    if (this.#tasks.length > 0) {
      const index = this.#throw(this.#tasks.length)
      const [task] = this.#tasks.splice(index, 1)
      task?.()
      return true
    }
    const next = Math.min(...this.#sleepers.map(({ at }) => at))
    if (!Number.isFinite(next)) return false
    this.now = Math.max(this.now, next)
    const due = this.#sleepers.filter(({ at }) => at <= this.now)
    this.#sleepers = this.#sleepers.filter(({ at }) => at > this.now)
    for (const { wake } of due) wake()
    return true
  }
}

/**
 * Runs the program to its end in a world of its own. Throws when it fails, when nothing can go on any more, or when it leaves
 * somebody asleep. Nothing is logged.
 */
export const simulate = <A, E>(
  options: {
    readonly seed: number
    readonly maxOpsBeforeYield: number
    /** Looks on after every step. */
    readonly afterStep?: (() => void) | undefined
  },
  program: Effect.Effect<A, E>
): A => {
  const world = new World(options.seed, options.maxOpsBeforeYield)
  const fiber = Effect.runFork(
    program.pipe(
      Effect.withClock(world.clock),
      Effect.withRandom(Random.make(options.seed)),
      Logger.withMinimumLogLevel(LogLevel.None)
    ),
    { scheduler: world }
  )
  let exit: Exit.Exit<A, E> | undefined
  fiber.addObserver((end) => {
    exit = end
  })
  for (let steps = 0; exit === undefined; steps++) {
    if (steps > 5_000_000 || world.now > 86_400_000) throw new Error(`the program does not end (at ${world.now} ms)`)
    if (!world.step()) throw new Error(`nothing can go on at ${world.now} ms, and the program has not ended`)
    options.afterStep?.()
  }
  const value = Exit.getOrElse(exit, (cause) => {
    throw new Error(`the program failed: ${String(cause)}`)
  })
  world.settle()
  if (world.asleep > 0) throw new Error(`the program has ended, and ${world.asleep} timers are left`)
  return value
}
