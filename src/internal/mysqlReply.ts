/**
 * From what mysql2 calls back with to the driver contract's result: one, or several as of a procedure or of several
 * statements.
 *
 * @internal
 */
import type { Result, Row } from "../Driver.js"
import type { RawField, RawOk } from "./mysqlProtocol.js"
import { columnNames, type Reading, type RowConverter, rowConverter, toInsertId } from "./mysqlRows.js"

/** @internal Of a class, see `statement`, as all that is made for each. */
export class Reply {
  constructor(
    readonly result: Result,
    readonly oks: ReadonlyArray<RawOk>,
    readonly hasRows: boolean
  ) {}
}

class OneResult implements Result {
  constructor(
    readonly columns: ReadonlyArray<string>,
    readonly rows: ReadonlyArray<Row>,
    readonly affectedRows: number,
    readonly insertId: number | bigint,
    readonly warnings: number,
    readonly info?: string | undefined
  ) {}
}

/** @internal */
export type Fields = ReadonlyArray<RawField>

/** In place: the rows are nobody else's. */
const convertAll = (rows: ReadonlyArray<Array<unknown>>, convert: RowConverter | undefined): ReadonlyArray<Row> => {
  if (convert !== undefined) { for (const row of rows) convert(row) }
  return rows
}

const rowsResult = (rows: unknown, fields: Fields, warnings: number, reading: Reading): Result =>
  new OneResult(
    columnNames(fields),
    convertAll(rows as Array<Array<unknown>>, rowConverter(fields, reading)),
    0,
    0,
    warnings
  )

const okResult = (ok: RawOk): Result =>
  new OneResult([], [], Number(ok.affectedRows), toInsertId(ok.insertId), ok.warningStatus, ok.info)

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
  const oks = results.filter((_, at) => fields[at] === undefined) as ReadonlyArray<RawOk>
  return new Reply({ ...(first ?? all[all.length - 1] as Result), all }, oks, first !== undefined)
}

/**
 * Of one result `fields` are its columns, or `undefined` without rows; of several there is one entry for each. The first
 * `own` of those are the driver's and left out.
 *
 * @internal
 */
export const readReply = (result: unknown, fields: unknown, warnings: number, reading: Reading, own = 0): Reply => {
  if (fields === undefined) return new Reply(okResult(result as RawOk), [result as RawOk], false)
  const single = !(Array.isArray(fields) && (fields[0] === undefined || Array.isArray(fields[0])))
  if (single) return new Reply(rowsResult(result, fields as Fields, warnings, reading), [], true)
  const results = result as ReadonlyArray<unknown>
  return readSeveral(results.slice(own), (fields as ReadonlyArray<Fields | undefined>).slice(own), warnings, reading)
}
