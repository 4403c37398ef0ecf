/**
 * A pool's snapshots as a stream: pushed by what happens, not polled.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { PoolSnapshot } from "../PoolStats.js"
import type { Announcer } from "./announcer.js"

/** What became of the snapshot before. */
type Last =
  | { readonly _tag: "None" }
  /** While somebody waits the next one is due without a change: they wait longer by themselves. */
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
      if (last._tag === "None") return take
      const due = Effect.raceFirst(untilDue(last, millis), Deferred.await(announcer.ended))
      return Effect.zipRight(Effect.zipRight(due, last.somebodyWaits ? Effect.void : changed.takeAll), take)
    })
  }))
}

/** The rest of the interval. */
const untilDue = ({ at }: { readonly at: number }, millis: number): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.sleep(Math.max(0, at + millis - now)))
