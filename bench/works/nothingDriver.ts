/** A database that does nothing and answers in the next microtask, so that only the pool is measured. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Connection, Driver, Result } from "../../src/Driver.js"

const nothing: Exit.Exit<Result> = Exit.succeed({ columns: [], rows: [], affectedRows: 0, insertId: 0, warnings: 0 })

const connection = (id: number): Connection => ({
  id: String(id),
  isOpen: () => true,
  session: () => "clean",
  run: (_, done) => queueMicrotask(() => done(nothing)),
  stream: () => ({ columns: () => [], next: (done) => done(Exit.succeed([])) }),
  ping: Effect.void,
  reset: Effect.void,
  cancel: Effect.void,
  close: Effect.void,
  destroy: () => undefined,
  onLost: () => undefined
})

export const nothingDriver = (): Driver => {
  let opened = 0
  return {
    dialect: "mysql",
    target: "nothing",
    transaction: {
      begin: () => ["BEGIN"],
      commit: "COMMIT",
      rollback: "ROLLBACK",
      savepoint: (name) => `SAVEPOINT ${name}`,
      releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
      rollbackTo: (name) => `ROLLBACK TO SAVEPOINT ${name}`
    },
    rejectParameter: () => undefined,
    connect: Effect.sync(() => connection(++opened))
  }
}
