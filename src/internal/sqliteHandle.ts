/**
 * A handle: one open database of the binding, with the statements prepared on it. Opening, closing and tidying it.
 *
 * Invariants: a handle is rolled back before it is closed; SQLite itself never waits for a lock (`busy_timeout` is 0).
 * A closed handle may keep its files open until garbage collection, so handles are not opened and closed lightly.
 *
 * @internal
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Settings } from "./sqliteOptions.js"
import type { SqliteValue } from "./sqliteValues.js"

/** @internal */
export interface Prepared {
  readonly columns: () => ReadonlyArray<{ readonly name: string }>
  readonly run: (...params: ReadonlyArray<SqliteValue>) => {
    readonly changes: number | bigint
    readonly lastInsertRowid: number | bigint
  }
  readonly all: (...params: ReadonlyArray<SqliteValue>) => ReadonlyArray<unknown>
  readonly iterate: (...params: ReadonlyArray<SqliteValue>) => Iterator<unknown>
  readonly setReadBigInts: (enabled: boolean) => void
  readonly setReturnArrays: (enabled: boolean) => void
}

interface Database {
  readonly isTransaction: boolean
  readonly exec: (sql: string) => void
  readonly prepare: (sql: string) => Prepared
  readonly close: () => void
}

/** @internal */
export interface Binding {
  readonly DatabaseSync: new(location: string, options: { readonly readOnly: boolean }) => Database
  readonly StatementSync: { readonly prototype: object }
}

/** @internal */
export interface Handle {
  readonly database: Database
  /** In the order of their last use. */
  readonly statements: Map<string, Prepared>
  /** Whether the initial SQL made temporary objects, which belong to a pristine session then. */
  readonly startsWithTemporary: boolean
}

const mostStatements = 64

/** @internal */
export const prepare = (handle: Pick<Handle, "database" | "statements">, sql: string): Prepared => {
  const known = handle.statements.get(sql)
  if (known !== undefined) {
    handle.statements.delete(sql)
    handle.statements.set(sql, known)
    return known
  }
  const prepared = handle.database.prepare(sql)
  prepared.setReturnArrays(true)
  prepared.setReadBigInts(true)
  handle.statements.set(sql, prepared)
  const oldest = handle.statements.keys().next()
  if (handle.statements.size > mostStatements && oldest.done !== true) handle.statements.delete(oldest.value)
  return prepared
}

/**
 * Rolls back first: @photostructure/sqlite frees a closed handle, with its locks and open files, only when its statements
 * have been garbage-collected.
 *
 * @internal
 */
export const closeHandle = ({ database, statements }: Handle): void => {
  statements.clear()
  try {
    if (database.isTransaction) database.exec("ROLLBACK")
  } catch {
    // The disk failed under it. Closing rolls back all the same, and nobody is left to be told.
  }
  database.close()
}

/**
 * SQLite only says that it cannot open the file, and opens one that it may not write for reading. The file itself must
 * not be opened here: closing it would end all locks of this process on it (https://sqlite.org/howtocorrupt.html, 2.2).
 */
const checkFile = (file: string, readOnly: boolean): void => {
  const found = Fs.statSync(file, { throwIfNoEntry: false })
  if (found?.isDirectory()) throw new Error("it is a directory")
  const { R_OK, W_OK } = Fs.constants
  Fs.accessSync(found !== undefined || readOnly ? file : Path.dirname(file), readOnly ? R_OK : R_OK | W_OK)
}

/** Views and triggers before the tables they stand on; an index goes with its table. */
const listTemporary = "SELECT type, name FROM sqlite_temp_schema WHERE type <> 'index' ORDER BY type DESC"

/**
 * Drops all temporary objects; false when that is not enough, or one cannot be dropped: SQLite's own tables (of
 * AUTOINCREMENT), which would hide those of the database, or a table that another one refers to.
 *
 * @internal
 */
export const dropTemporary = (handle: Handle): boolean => {
  if (handle.startsWithTemporary) return false
  try {
    const list = prepare(handle, listTemporary)
    for (const row of list.all()) {
      const [type, name] = row as readonly [string, string]
      // IF EXISTS, since a view takes its triggers with it.
      handle.database.exec(`DROP ${type} IF EXISTS temp."${name.replaceAll("\"", "\"\"")}"`)
    }
    return list.all().length === 0
  } catch {
    // Whatever it was, a new handle has nothing of it.
    return false
  }
}

/** Where WAL cannot be had, as in memory, SQLite keeps its own journal without a word. */
const setup = "PRAGMA busy_timeout = 0; PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL"

/** @internal */
export const openHandle = (binding: Binding, location: string, settings: Settings): Handle => {
  if (settings.place.kind !== "memory") checkFile(location, settings.readOnly)
  const database = new binding.DatabaseSync(location, { readOnly: settings.readOnly })
  try {
    database.exec(settings.readOnly ? setup : `${setup}; PRAGMA journal_mode = WAL`)
    settings.initialSql.forEach((sql) => database.exec(sql))
    const handle = { database, statements: new Map<string, Prepared>() }
    const startsWithTemporary = settings.initialSql.length > 0 && prepare(handle, listTemporary).all().length > 0
    return { ...handle, startsWithTemporary }
  } catch (error) {
    database.close()
    throw error
  }
}
