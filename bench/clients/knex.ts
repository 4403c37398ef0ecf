/** knex on mysql2, with its pool, which is tarn. */
import knex from "knex"
import { countRows } from "./mysql2.js"
import { connections, idOf, type OpenClient, promiseClient, texts } from "./operations.js"

export const pool: OpenClient = (target) => {
  const db = knex({ client: "mysql2", connection: { ...target }, pool: { min: 0, max: connections } })
  return Promise.resolve(promiseClient({
    select: (n) => db.raw(texts.select, [idOf(n)]),
    insert: (n) => db.raw(texts.insert, [`row ${n}`]),
    transaction: (n) =>
      db.transaction(async (transaction) => {
        await transaction.raw(texts.lock, [idOf(n)])
        await transaction.raw(texts.update, [idOf(n)])
        await transaction.raw(texts.log, [idOf(n)])
      }),
    rows: () => db.raw(texts.rows),
    stream: () => countRows(db.raw(texts.stream).stream())
  }, () => db.destroy()))
}
