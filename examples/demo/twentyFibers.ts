/** Twenty fibers read a hundred users through a pool of ten; each has its own connection without asking for one. */
import { Array as Arr, Effect, Option } from "effect"
import { connectionId, currentConnection, type Demo, DemoFailed, expect, type Outcome, type Part } from "./demo.js"
import { progress, say } from "./screen.js"

const users = 100
const fibers = 20

interface User {
  readonly name: string
  readonly email: string
  readonly connection: number | null
}

const nameOf = (id: number): string => `user ${String(id).padStart(3, "0")}`

/** One fiber: reads its users one after the other, with some work of its own in between. */
const readUsers = (demo: Demo, ids: ReadonlyArray<number>): Effect.Effect<string, Effect.Effect.Error<Part>> =>
  Effect.gen(function*() {
    const connections = new Set<string>()
    for (const id of ids) {
      const user = yield* demo.db.dictionary<User>(
        `SELECT name, email, ${connectionId(demo)} AS connection FROM espdemo_users WHERE id = ?`,
        [id]
      )
      if (Option.isNone(user)) return yield* new DemoFailed({ message: `Wrong result: there is no user ${id}` })
      yield* expect(`the name of user ${id}`, user.value.name, nameOf(id))
      const current = Option.getOrUndefined(yield* currentConnection(demo))
      const connection = user.value.connection?.toString() ?? current
      if (connection !== undefined) connections.add(connection)
      yield* progress(`user ${id}`)
      // the fiber does something else: its connection, idle and clean, goes to whoever waits
      yield* Effect.sleep("60 millis")
    }
    return `users ${ids[0]} to ${ids.at(-1)}`.padEnd(18) + `connection ${[...connections].join(", then ")}`
  })

export const twentyFibers = (demo: Demo): Part =>
  Effect.gen(function*() {
    const ids = Arr.range(1, users)
    yield* demo.db.execute(
      `INSERT INTO espdemo_users VALUES ${ids.map(() => "(?, ?, ?)").join(", ")}`,
      ids.flatMap((id) => [id, nameOf(id), `user${id}@example.org`])
    )
    const lines = yield* Effect.forEach(Arr.chunksOf(ids, users / fibers), (chunk) => readUsers(demo, chunk), {
      concurrency: "unbounded"
    })
    yield* say(
      "   While a fiber does something else, its connection serves one that waits; it gets another when it needs one."
    )
    yield* Effect.forEach(lines, (line, index) => say(`   fiber ${String(index + 1).padEnd(4)}${line}`))
    return { what: `${users} users by ${fibers} fibers on ${demo.poolSize} connections`, rows: 2 * users } as Outcome
  })
