/** What the demo shows: plain lines, and on a terminal one line below them that moves. */
import { Clock, Effect } from "effect"

const terminal = process.stdout.isTTY === true
let moving = ""
let shownAt = 0

const erase = (): void => {
  if (moving !== "") process.stdout.write("\r\u001b[2K")
}

/** Prints a line, or several. */
export const say = (text: string): Effect.Effect<void> =>
  Effect.sync(() => {
    erase()
    process.stdout.write(`${text}\n`)
    process.stdout.write(moving)
  })

/** Shows how far something is, a few times a second; nothing without a terminal. */
export const progress = (text: string): Effect.Effect<void> =>
  terminal
    ? Effect.map(Clock.currentTimeMillis, (now) => {
      if (now - shownAt < 100) return
      shownAt = now
      erase()
      // some terminals do not say how wide they are
      moving = `   ${text}`.slice(0, (process.stdout.columns || 80) - 1)
      process.stdout.write(moving)
    })
    : Effect.void

/** Takes the moving line away. */
export const endProgress: Effect.Effect<void> = Effect.sync(() => {
  erase()
  moving = ""
})
