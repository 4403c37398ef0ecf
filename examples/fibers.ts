/** Which fiber runs on which connection. */
import { Console, Effect, Option } from "effect"
import { Db, DbLayer } from "../src/index.js"

/** The connection that this fiber, or the session it is in, has now. */
const connection = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.value("SELECT 1")
  const current = yield* db.currentConnection
  // the fiber does something else and keeps its connection, as long as nobody waits for one
  yield* Effect.sleep("10 millis")
  return Option.match(current, { onNone: () => "none", onSome: ({ id }) => id })
})

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* Console.log(`this fiber, twice:        ${yield* connection}, ${yield* connection}`)
  const five = Effect.all([connection, connection, connection, connection, connection], { concurrency: 5 })
  yield* Console.log(`five fibers side by side: ${yield* five}`)

  // a timeout runs its body in a fiber of its own, and so on a connection of its own
  yield* Console.log(`inside Effect.timeout:    ${yield* Effect.timeout(connection, "1 second")}`)

  // #region session
  // one connection for the effect and everything it forks, one statement at a time
  const together = db.session(Effect.all(
    [connection, Effect.timeout(connection, "1 second"), Effect.race(connection, connection)],
    { concurrency: "unbounded" }
  ))
  // #endregion
  yield* Console.log(`inside db.session:        ${yield* together}`)

  // the pool gets it back now instead of at the fiber's end
  yield* db.releaseFiberConnection
  yield* Console.log(`after the release:        ${yield* Effect.map(db.currentConnection, Option.isSome)}`)
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
