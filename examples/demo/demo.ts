/** What the parts of the demo share: the database they work on, what they answer, and how they fail. */
import { Data, Effect, Option } from "effect"
import type { Db } from "../../src/index.js"
import type { DbError } from "../../src/index.js"

/** Where the parts run. */
export interface Demo {
  readonly db: Db.DbService
  /** A server, whose connections can be killed; else embedded SQLite. */
  readonly server: boolean
  /** The most connections that the parts have. */
  readonly poolSize: number
  /**
   * Ids of connections that this demo's own pool has lent to the parts, the last used at the end: the only ones that
   * the demo may kill.
   */
  readonly connections: Set<string>
  /** How often a part began a transaction or a stream again whose connection was lost. */
  begunAgain: number
}

/** What a part has done. */
export interface Outcome {
  readonly what: string
  /** Rows read and written. */
  readonly rows: number
}

/** A result is not what it must be, or the demo cannot run here. */
export class DemoFailed extends Data.TaggedError("DemoFailed")<{ readonly message: string }> {}

export type Part = Effect.Effect<Outcome, DbError.DbError | DemoFailed>

/** Fails unless the two are the same. */
export const expect = <A extends string | number | boolean>(
  what: string,
  found: A,
  expected: A
): Effect.Effect<void, DemoFailed> =>
  found === expected
    ? Effect.void
    : Effect.fail(new DemoFailed({ message: `Wrong result: ${what} should be ${expected}, and is ${found}` }))

/** Writes down that the pool has this connection. */
export const noteConnection = (demo: Demo, id: string): void => {
  demo.connections.delete(id)
  demo.connections.add(id)
}

/** The id of the fiber's connection, written down; none when it has gone to a fiber that waited already. */
export const currentConnection = (demo: Demo): Effect.Effect<Option.Option<string>> =>
  Effect.map(
    demo.db.currentConnection,
    Option.map(({ id }) => {
      noteConnection(demo, id)
      return id
    })
  )

/** An expression for the id of the connection that runs the statement; SQLite knows none. */
export const connectionId = (demo: Demo): string => demo.server ? "CONNECTION_ID()" : "NULL"

/**
 * Whether a transaction that finds out by itself if it was done already may be run again: its connection was lost, or
 * the server had it give way to another.
 */
export const mayRunAgain = (demo: Demo) => (error: DbError.DbError): boolean => {
  const again = error._tag === "ConnectionLost" || error._tag === "DeadlockError"
    || error._tag === "LockTimeoutError" || error._tag === "SerializationError"
  if (again) demo.begunAgain++
  return again
}

export const count = (value: number): string => value.toLocaleString("en-US")
