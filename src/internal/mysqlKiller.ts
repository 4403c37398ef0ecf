/**
 * The side connection on which statements of other connections are stopped: one per driver, opened when first needed,
 * kept, replaced when it is lost. One KILL at a time; each is answered before the next is sent.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { ConnectionLost } from "../DbError.js"
import type { ConnectFailure, DbError } from "../DbError.js"
import type { Connection, Statement } from "../Driver.js"

/** @internal */
export interface SideConnection extends Connection {
  /** Which of the servers behind the address it is. */
  readonly server: string
}

/** @internal */
export interface Target {
  readonly id: string
  readonly server: string
  readonly isRunning: () => boolean
  /** Succeeds when it does not run any more, whatever became of it. */
  readonly ended: Effect.Effect<void>
}

/**
 * Stops what the target runs. Succeeds when the server has answered every request; fails when that cannot be known.
 *
 * @internal
 */
export type Kill = (target: Target) => Effect.Effect<void, DbError>

const noSuchThread = 1094
// A KILL QUERY that is carried out before the statement has begun does nothing, and MariaDB loses one in a thousand that
// hit a statement as it begins to wait. So it is repeated as long as the statement runs. The pauses between, in seconds,
// are the server's: a driver has no clock.
const pauses: ReadonlyArray<number> = [0, 0.005, 0.02, 0.08]

const sideStatement = (sql: string): Statement => ({
  sql,
  params: [],
  traits: {
    empty: false,
    placeholders: 0,
    named: false,
    verb: "KILL",
    plainRead: false,
    changesSession: false,
    readsPrevious: false,
    readsInsertId: false,
    statements: 1,
    transaction: undefined,
    mayCommit: "never",
    readsOwnInsertId: false
  }
})

interface Request {
  readonly target: Target
  /** The side connection is at work for it, and has to finish before anything else. */
  unanswered: boolean
}

const refuse = (reason: string): DbError => new ConnectionLost({ outcome: "unknown", reason })

const send = (side: SideConnection, sql: string): Effect.Effect<void, DbError> =>
  Effect.async<void, DbError>((resume) => {
    side.run(sideStatement(sql), (exit) => resume(Effect.asVoid(exit)))
    // Its answer is still to come: nobody else may take that for theirs.
    return Effect.sync(() => side.destroy())
  }).pipe(
    Effect.catchIf((error) => error._tag === "StatementError" && error.errno === noSuchThread, () => Effect.void)
  )

/** @internal */
export const makeKiller = (
  open: Effect.Effect<SideConnection, ConnectFailure>
): Effect.Effect<Kill, never, Scope.Scope> =>
  Effect.gen(function*() {
    const turn = yield* Effect.makeSemaphore(1)
    let side: SideConnection | undefined
    let closed = false
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        closed = true
        side?.destroy()
      })
    )

    const opened = Effect.uninterruptibleMask((restore) =>
      Effect.map(restore(open), (connection) => {
        if (closed) connection.destroy()
        side = connection
        return connection
      })
    )
    const sideConnection = Effect.suspend((): Effect.Effect<SideConnection, DbError> => {
      if (side?.isOpen() === true) return Effect.succeed(side)
      return closed ? Effect.fail(refuse("the driver is closed and cannot stop the statement")) : opened
    })

    const attempt = (request: Request, pause: number): Effect.Effect<void, DbError> =>
      Effect.flatMap(sideConnection, (connection) => {
        const { target } = request
        if (!target.isRunning()) return Effect.void
        // One address, several servers: there the same id is another one's statement.
        if (connection.server !== target.server) {
          return Effect.fail(refuse("the statement runs on another server than the one a KILL QUERY would reach"))
        }
        request.unanswered = true
        return send(connection, `KILL QUERY ${target.id}`).pipe(
          // The side connection may have been dead for long; a second KILL does no harm.
          Effect.catchTag("ConnectionLost", (error) => pause === 0 ? Effect.void : Effect.fail(error)),
          Effect.zipRight(Effect.suspend(() => again(request, connection, pause)))
        )
      })

    const again = (request: Request, side: SideConnection, pause: number): Effect.Effect<void, DbError> => {
      const seconds = pauses[pause]
      if (seconds === undefined || !request.target.isRunning()) return Effect.void
      const paused = seconds === 0 ? Effect.void : send(side, `DO SLEEP(${seconds})`)
      return Effect.zipRight(
        paused,
        Effect.suspend(() => {
          request.unanswered = false
          return attempt(request, pause + 1)
        })
      )
    }

    return (target) => {
      const request: Request = { target, unanswered: false }
      // A statement that ends by itself needs no side connection any more, but one that was asked has to answer.
      const ended = Effect.flatMap(target.ended, () => request.unanswered ? Effect.never : Effect.void)
      return Effect.raceFirst(turn.withPermits(1)(attempt(request, 0)), ended)
    }
  })
