/**
 * From what mysql2 calls back with to the driver contract's result: one, or several as of a procedure or of several
 * statements.
 *
 * @internal
 */
import type { Result, Row } from "../Driver.js"
import type { RawField, RawOk } from "./mysqlProtocol.js"
import { columnNames, type Reading, type RowConverter, rowConverter, toInsertId } from "./mysqlRows.js"

/** @internal */
export interface Reply {
  readonly result: Result
  readonly oks: ReadonlyArray<RawOk>
  readonly hasRows: boolean
}

/** @internal */
export type Fields = ReadonlyArray<RawField>

/** In place: the rows are nobody else's. */
const convertAll = (rows: ReadonlyArray<Array<unknown>>, convert: RowConverter | undefined): ReadonlyArray<Row> => {
  if (convert !== undefined) { for (const row of rows) convert(row) }
  return rows
}

const rowsResult = (rows: unknown, fields: Fields, warnings: number, reading: Reading): Result => ({
  columns: columnNames(fields),
  rows: convertAll(rows as Array<Array<unknown>>, rowConverter(fields, reading)),
  affectedRows: 0,
  insertId: 0,
  warnings
})

const okResult = (ok: RawOk): Result => ({
  columns: [],
  rows: [],
  affectedRows: Number(ok.affectedRows),
  insertId: toInsertId(ok.insertId),
  warnings: ok.warningStatus,
  info: ok.info
})

const readSeveral = (
  results: ReadonlyArray<unknown>,
  fields: ReadonlyArray<Fields | undefined>,
  warnings: number,
  reading: Reading
): Reply => {
  const all = results.map((result, at) => {
    const own = fields[at]
    return own === undefined ? okResult(result as RawOk) : rowsResult(result, own, warnings, reading)
  })
  const first = all.find((_, at) => fields[at] !== undefined)
  return {
    result: { ...(first ?? all[all.length - 1] as Result), all },
    oks: results.filter((_, at) => fields[at] === undefined) as ReadonlyArray<RawOk>,
    hasRows: first !== undefined
  }
}

/**
 * Of one result `fields` are its columns, or `undefined` without rows; of several there is one entry for each. The first
 * `own` of those are the driver's and left out.
 *
 * @internal
 */
export const readReply = (result: unknown, fields: unknown, warnings: number, reading: Reading, own = 0): Reply => {
  if (fields === undefined) return { result: okResult(result as RawOk), oks: [result as RawOk], hasRows: false }
  const single = !(Array.isArray(fields) && (fields[0] === undefined || Array.isArray(fields[0])))
  if (single) return { result: rowsResult(result, fields as Fields, warnings, reading), oks: [], hasRows: true }
  const results = result as ReadonlyArray<unknown>
  return readSeveral(results.slice(own), (fields as ReadonlyArray<Fields | undefined>).slice(own), warnings, reading)
}
