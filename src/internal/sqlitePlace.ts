/**
 * Where a database is. A file is the user's; a temporary one, and a database in memory, are made here and end with the
 * scope.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import type * as DbError from "../DbError.js"
import { reasonOf } from "./sqliteErrors.js"
import { type Binding, closeHandle, openHandle } from "./sqliteHandle.js"
import { invalid, type Settings } from "./sqliteOptions.js"

/**
 * What SQLite is told to open; for as long as the scope, where there is something to remove.
 *
 * @internal
 */
export const locate = (
  binding: Binding,
  settings: Settings
): Effect.Effect<{ readonly location: string; readonly target: string }, DbError.InvalidConfig, Scope.Scope> => {
  const { place } = settings
  switch (place.kind) {
    case "file":
      return Effect.succeed({ location: place.path, target: place.path })
    case "memory": {
      // A name for the database, and a handle that nobody uses: it outlives the connections, which come and go.
      const location = `file:/effect-sql-pool-${randomUUID()}?vfs=memdb`
      return Effect.acquireRelease(
        Effect.try({
          try: () => openHandle(binding, location, { ...settings, initialSql: [] }),
          catch: (error) => invalid("This SQLite cannot keep a database in memory", reasonOf(error))
        }),
        (anchor) => Effect.sync(() => closeHandle(anchor))
      ).pipe(Effect.as({ location, target: ":memory:" }))
    }
    case "temporary":
      return Effect.acquireRelease(
        Effect.try({
          try: () => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-sql-pool-sqlite-")),
          catch: (error) => invalid("There is no place for a temporary database", reasonOf(error))
        }),
        (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
      ).pipe(Effect.map((directory) => {
        const location = Path.join(directory, "database.sqlite")
        return { location, target: location }
      }))
  }
}
