/**
 * `npm run demo`: the pool at work, on embedded SQLite or on the server that `DB_PRIMARY_URL` names.
 *
 * Exit code 0 when everything ran and every result is right; else one line says what is wrong, and it is 1, or 130 after
 * Ctrl-C, which leaves nothing behind either.
 */
import { Cause, Effect, Exit, Option } from "effect"
import { demonstration } from "./demonstration.js"
import { endProgress } from "./screen.js"

/** One line without a stack trace; the messages of the library hold no password. */
const describe = (cause: Cause.Cause<{ readonly message: string }>): string => {
  const failure = Option.getOrElse(Cause.failureOption(cause), () => Cause.squash(cause))
  return failure instanceof Error ? failure.message : String(failure)
}

const fiber = Effect.runFork(demonstration)

let stopped = false
const stop = (): void => {
  // asked twice: at once, whatever is left
  if (stopped) process.exit(130)
  stopped = true
  Effect.runSync(endProgress)
  process.stderr.write("\nStopping; a moment to clean up.\n")
  fiber.unsafeInterruptAsFork(fiber.id())
}
process.on("SIGINT", stop)
process.on("SIGTERM", stop)
process.on("SIGHUP", stop)
// whoever reads the output has gone: nothing to show any more
process.stdout.on("error", () => stopped || stop())
process.stderr.on("error", () => {})

fiber.addObserver((exit) => {
  if (Exit.isSuccess(exit)) return
  process.exitCode = stopped ? 130 : 1
  if (!Cause.isInterruptedOnly(exit.cause)) process.stderr.write(`The demo failed. ${describe(exit.cause)}\n`)
})
// nothing is open any more; signals would keep the process alive for nothing
fiber.addObserver(() => process.removeAllListeners())
