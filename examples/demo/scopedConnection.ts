/** An explicit connection with a temporary table, which nobody else sees and which is gone when the scope ends. */
import { Effect, Exit } from "effect"
import { count, type Demo, expect, type Outcome, type Part } from "./demo.js"
import { say } from "./screen.js"

export const scopedConnection = (demo: Demo): Part =>
  Effect.gen(function*() {
    const { db } = demo
    const picked = yield* Effect.scoped(Effect.gen(function*() {
      const connection = yield* db.connection
      yield* connection.execute("CREATE TEMPORARY TABLE espdemo_picked (id INTEGER NOT NULL PRIMARY KEY)")
      const { affectedRows } = yield* connection.execute(
        "INSERT INTO espdemo_picked SELECT id FROM espdemo_cities WHERE latitude > :from",
        { from: 70 }
      )
      const names = yield* connection.list<string>(
        "SELECT name FROM espdemo_cities JOIN espdemo_picked USING (id) ORDER BY latitude DESC LIMIT 4"
      )
      yield* say(`   connection ${connection.id} picked ${affectedRows} cities beyond 70° north: ${names.join(", ")}`)
      const elsewhere = yield* Effect.exit(db.value("SELECT COUNT(*) FROM espdemo_picked"))
      yield* expect("that another connection sees the temporary table", Exit.isSuccess(elsewhere), false)
      return affectedRows
    }))
    const later = yield* Effect.forEach(
      Array.from({ length: demo.poolSize }),
      () => Effect.exit(db.value("SELECT COUNT(*) FROM espdemo_picked")),
      { concurrency: "unbounded" }
    )
    yield* expect("how many later borrowers see the temporary table", later.filter(Exit.isSuccess).length, 0)
    yield* say("   no other connection saw the temporary table, and no later borrower does")
    return { what: `${count(picked)} cities in a temporary table`, rows: picked } as Outcome
  })
