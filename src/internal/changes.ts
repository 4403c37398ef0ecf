/**
 * A pool's snapshots as a stream: pushed by what happens, not polled.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { PoolSnapshot } from "../PoolStats.js"
import type { Announcer } from "./announcer.js"

/** What became of the snapshot before. */
type Last =
  | { readonly _tag: "None" }
  | { readonly _tag: "Taken"; readonly at: number; readonly somebodyWaits: boolean }
  | { readonly _tag: "Final" }

const isFinal = ({ busy, held, idle, opening, phase, waiting }: PoolSnapshot): boolean =>
  phase === "Closed" && idle + held + opening + busy + waiting === 0

/** @internal */
export const changes = (
  snapshot: Effect.Effect<PoolSnapshot>,
  announcer: Announcer,
  interval: Duration.DurationInput
): Stream.Stream<PoolSnapshot> => {
  const millis = Math.max(1, Duration.toMillis(interval))
  return Stream.unwrapScoped(Effect.map(announcer.watch, (changed) => {
    const take = Effect.flatMap(Clock.currentTimeMillis, (at) =>
      // what changes from here on is for the next one
      Effect.map(Effect.zipRight(changed.clear, snapshot), (taken): Option.Option<readonly [PoolSnapshot, Last]> => {
        const last: Last = isFinal(taken)
          ? { _tag: "Final" }
          : { _tag: "Taken", at, somebodyWaits: taken.waiting > 0 }
        return Option.some([taken, last])
      }))
    return Stream.unfoldEffect<Last, PoolSnapshot, never, never>({ _tag: "None" }, (last) => {
      if (last._tag === "Final") return Effect.succeed(Option.none())
      return last._tag === "None" ? take : Effect.zipRight(untilDue(changed, last, millis), take)
    })
  }))
}

/** The rest of the interval, which the pool's end cuts short, and then the next change; how long they wait changes by itself. */
const untilDue = (
  changed: Mailbox.ReadonlyMailbox<void>,
  { at, somebodyWaits }: Last & { readonly _tag: "Taken" },
  millis: number
): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.flatMap(
      Clock.currentTimeMillis,
      (now) => Effect.raceFirst(Effect.sleep(Math.max(0, at + millis - now)), changed.await)
    ),
    somebodyWaits ? Effect.void : Effect.asVoid(changed.takeAll)
  )
