/**
 * One statement on a handle, from its text and values to its rows and counters. Everything here is synchronous and
 * throws what the binding throws.
 *
 * Invariant: no iterator stays unfinished, since it would keep its read snapshot; {@link openSource} leaves that to its
 * caller.
 *
 * @internal
 */
import * as Either from "effect/Either"
import * as DbError from "../DbError.js"
import type { Result, Row, Statement } from "../Driver.js"
import { type Handle, prepare, type Prepared } from "./sqliteHandle.js"
import { encode, readInteger, type SqliteValue, toRow } from "./sqliteValues.js"

/**
 * What can be bound, or why the statement must not be run.
 *
 * @internal
 */
export const admit = (statement: Statement): Either.Either<ReadonlyArray<SqliteValue>, DbError.DbError> => {
  const { params, sql, traits } = statement
  // Both bindings would run the first of several statements and say nothing of the rest.
  if (traits.empty || traits.statements > 1) {
    const reason = traits.empty ? "it is empty" : "it is more than one statement"
    return Either.left(new DbError.InvalidStatement({ statement: sql, reason }))
  }
  const values: Array<SqliteValue> = []
  for (const param of params) {
    const value = encode(param)
    if (Either.isLeft(value)) {
      const reason = `parameter ${values.length + 1}: ${value.left}`
      return Either.left(new DbError.ParameterError({ statement: sql, reason }))
    }
    values.push(value.right)
  }
  return Either.right(values)
}

/** @internal */
export const take = (rows: Iterator<unknown>, most: number): ReadonlyArray<Row> => {
  const chunk: Array<Row> = []
  while (chunk.length < most) {
    const next = rows.next()
    if (next.done === true) break
    chunk.push(toRow(next.value))
  }
  return chunk
}

/**
 * All rows of a statement that writes, or may write: at its end, and not before, its work is done. Row by row, since `all`
 * cuts the rows to the width of before another connection's ALTER TABLE (Node 22), and there is no second try.
 */
const takeAll = (prepared: Prepared, params: ReadonlyArray<SqliteValue>): ReadonlyArray<Row> => {
  const rows = prepared.iterate(...params)
  try {
    return take(rows, Infinity)
  } finally {
    rows.return?.()
  }
}

const affecting = new Set(["INSERT", "REPLACE", "UPDATE", "DELETE", "WITH"])
/** @internal What a statement gives that has no rows and changes nothing. */
export const noResult: Result = { columns: [], rows: [], affectedRows: 0, insertId: 0, warnings: 0 }

/** SQLite's counters keep what an earlier statement left, so they are believed only where this one set them. */
const runWithoutRows = (prepared: Prepared, { sql, traits }: Statement, params: ReadonlyArray<SqliteValue>): Result => {
  const { changes, lastInsertRowid } = prepared.run(...params)
  if (!affecting.has(traits.verb)) return noResult
  const affectedRows = Number(changes)
  const inserts = traits.verb === "INSERT" || traits.verb === "REPLACE" ||
    (traits.verb === "WITH" && /\binto\b/i.test(sql))
  // An upsert that updated leaves the id of an earlier insert, and nothing tells it from one that inserted.
  const known = inserts && affectedRows > 0 && !/\bdo\s+update\b/i.test(sql)
  return { ...noResult, affectedRows, insertId: known ? readInteger(lastInsertRowid) : 0 }
}

/** @internal */
export const columnNames = (prepared: Prepared): ReadonlyArray<string> => prepared.columns().map(({ name }) => name)

/** @internal */
export const execute = (handle: Handle, statement: Statement, params: ReadonlyArray<SqliteValue>): Result => {
  const prepared = prepare(handle, statement.sql)
  if (!statement.traits.plainRead) {
    if (prepared.columns().length === 0) return runWithoutRows(prepared, statement, params)
    const rows = takeAll(prepared, params)
    return { ...noResult, columns: columnNames(prepared), rows }
  }
  const rows = prepared.all(...params).map(toRow)
  // After the rows: only then has SQLite noticed an ALTER TABLE. The second try has their new width.
  const columns = columnNames(prepared)
  const stale = rows[0] !== undefined && rows[0].length !== columns.length
  return { ...noResult, columns, rows: stale ? prepared.all(...params).map(toRow) : rows }
}

/**
 * A statement whose rows are being read.
 *
 * @internal
 */
export interface Source {
  readonly prepared: Prepared
  readonly rows: Iterator<unknown>
}

/**
 * Rows as they are needed, except from what writes: that one has made them all before it gives the first.
 *
 * @internal
 */
export const openSource = (handle: Handle, { sql, traits }: Statement, params: ReadonlyArray<SqliteValue>): Source => {
  const prepared = prepare(handle, sql)
  const rows = traits.plainRead ? prepared.iterate(...params) : takeAll(prepared, params)[Symbol.iterator]()
  return { prepared, rows }
}
