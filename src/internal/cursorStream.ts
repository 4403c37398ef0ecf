/**
 * Rows of an open cursor as a stream: the first chunk, which has been read to know that the statement works, then the
 * others as they are asked for.
 *
 * @internal
 */
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { DbError } from "../DbError.js"
import type { Row, Statement } from "../Driver.js"
import type { Lease } from "./lease.js"
import { cursor, type OpenCursor } from "./leaseCursor.js"
import type { Turn } from "./leaseModel.js"

/** @internal A cursor that has given its first chunk; an empty one means that there are no rows. */
export interface FirstChunk {
  readonly cursor: OpenCursor
  readonly first: ReadonlyArray<Row>
}

/** @internal Opens a cursor in the scope and reads its first chunk. */
export const firstChunk = (
  lease: Lease,
  statement: Statement,
  scope: Scope.Scope,
  turn?: Turn
): Effect.Effect<FirstChunk, DbError> =>
  Effect.flatMap(Scope.extend(cursor(lease, statement, turn), scope), (open) =>
    Effect.catchAll(
      Effect.map(open.pull, (first): FirstChunk => ({ cursor: open, first })),
      Option.match({
        onNone: () => Effect.succeed({ cursor: open, first: [] }),
        onSome: (error) => Effect.fail(error)
      })
    ))

/** @internal What `FiberConnection` tells programs of. */
export type Rows = Stream.Stream<{ readonly columns: ReadonlyArray<string>; readonly row: Row }, DbError>

/** @internal The rows of the cursor that is opened in the scope that it is given: that of the stream. */
export const rowsOf = (open: (scope: Scope.Scope) => Effect.Effect<FirstChunk, DbError>): Rows =>
  Stream.unwrapScoped(Effect.map(Effect.flatMap(Effect.scope, open), rowsFrom))

const rowsFrom = ({ cursor, first }: FirstChunk): Rows =>
  first.length === 0
    ? Stream.empty
    : Stream.flattenChunks(Stream.map(
      Stream.concat(Stream.succeed(first), Stream.repeatEffectOption(cursor.pull)),
      (rows) => Chunk.map(Chunk.unsafeFromArray(rows), (row) => ({ columns: cursor.columns(), row }))
    ))
