/**
 * Who is told what happens to a pool: the readers of its events, those who watch its numbers, and the log.
 *
 * Telling is synchronous and waits for nobody: a slow reader misses the oldest events, and the log is written in a fiber of
 * its own. Without readers and watchers, and below the minimum log level, it costs a look at three fields.
 *
 * @internal
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import type * as LogLevel from "effect/LogLevel"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { format, type PoolEvent } from "../PoolEvents.js"

type Tag = PoolEvent["_tag"]

/** How many events a reader may be late. */
const mostUnread = 1_000

/** @internal At which level each event is logged. */
export const levels: Readonly<Record<Tag, LogLevel.Literal>> = {
  Opened: "Debug",
  ConnectFailed: "Warning",
  Recovered: "Info",
  Closed: "Debug",
  Lost: "Warning",
  TakenBack: "Trace",
  Exhausted: "Debug",
  LeakSuspected: "Warning"
}

const write: Readonly<Record<LogLevel.Literal, typeof Effect.log>> = {
  All: Effect.log,
  None: Effect.log,
  Fatal: Effect.logFatal,
  Error: Effect.logError,
  Warning: Effect.logWarning,
  Info: Effect.logInfo,
  Debug: Effect.logDebug,
  Trace: Effect.logTrace
}

/** @internal What the fiber's minimum log level lets through. */
export const loggedTags: Effect.Effect<ReadonlySet<Tag>> = Effect.map(
  Effect.filter(
    Object.keys(levels) as ReadonlyArray<Tag>,
    (tag) => Effect.map(Effect.whenLogLevel(Effect.void, levels[tag]), Option.isSome)
  ),
  (tags) => new Set(tags)
)

/** @internal */
export class Announcer {
  /** Empty ones are none, so that one look is enough. */
  #readers: Set<Mailbox.Mailbox<PoolEvent>> | undefined
  #watchers: Set<Mailbox.Mailbox<void>> | undefined
  #unlogged: Array<PoolEvent> = []
  #isEnded = false
  /** Done when nothing will happen any more. */
  readonly ended = Deferred.unsafeMake<void>(FiberId.none)

  constructor(
    readonly logged: ReadonlySet<Tag>,
    /** Runs the effect soon, in a fiber of its own. */
    readonly soon: (effect: Effect.Effect<void>) => void
  ) {}

  /** Whether anybody would learn of such an event. */
  hears(tag: Tag): boolean {
    return this.#readers !== undefined || this.logged.has(tag)
  }

  tell(event: PoolEvent): void {
    if (this.#readers !== undefined) {
      for (const reader of this.#readers) reader.unsafeOffer(event)
    }
    if (!this.logged.has(event._tag)) return
    this.#unlogged.push(event)
    if (this.#unlogged.length === 1) this.soon(this.flush)
  }

  /** One of the pool's numbers is another now. */
  changed(): void {
    if (this.#watchers === undefined) return
    for (const watcher of this.#watchers) watcher.unsafeOffer()
  }

  /** Nothing will happen any more: streams end when they have told what there is. */
  end(): void {
    this.#isEnded = true
    Deferred.unsafeDone(this.ended, Exit.void)
    for (const mailbox of [...this.#readers ?? [], ...this.#watchers ?? []]) mailbox.unsafeDone(Exit.void)
  }

  /** Logs what was not logged yet. */
  readonly flush: Effect.Effect<void> = Effect.suspend(() => {
    const events = this.#unlogged
    this.#unlogged = []
    return Effect.forEach(events, (event) => write[levels[event._tag]](format(event)), { discard: true })
  })

  readonly events: Stream.Stream<PoolEvent> = Stream.unwrapScoped(Effect.suspend(() =>
    Effect.map(
      this.#subscribe<PoolEvent>(mostUnread, () => this.#readers ??= new Set(), () => {
        if (this.#readers?.size === 0) this.#readers = undefined
      }),
      Mailbox.toStream
    )
  ))

  /** Has something in it when a number has changed since it was emptied last; done when none will any more. */
  readonly watch: Effect.Effect<Mailbox.ReadonlyMailbox<void>, never, Scope.Scope> = Effect.suspend(() =>
    this.#subscribe<void>(1, () => this.#watchers ??= new Set(), () => {
      if (this.#watchers?.size === 0) this.#watchers = undefined
    })
  )

  #subscribe<A>(
    capacity: number,
    all: () => Set<Mailbox.Mailbox<A>>,
    tidy: () => void
  ): Effect.Effect<Mailbox.Mailbox<A>, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.tap(Mailbox.make<A>({ capacity, strategy: "sliding" }), (mailbox) =>
        Effect.sync(() => {
          all().add(mailbox)
          if (this.#isEnded) mailbox.unsafeDone(Exit.void)
        })),
      (mailbox) =>
        Effect.sync(() => {
          all().delete(mailbox)
          tidy()
        })
    )
  }
}
