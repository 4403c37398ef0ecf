/** The MariaDB connector's pool. */
import { createPool } from "mariadb"
import { countRows } from "./mysql2.js"
import { connections, idOf, type OpenClient, promiseClient, texts } from "./operations.js"

export const pool: OpenClient = (target) => {
  const pool = createPool({ ...target, connectionLimit: connections, rowsAsArray: true, allowPublicKeyRetrieval: true })
  return Promise.resolve(promiseClient({
    select: (n) => pool.execute(texts.select, [idOf(n)]),
    insert: (n) => pool.execute(texts.insert, [`row ${n}`]),
    transaction: async (n) => {
      const connection = await pool.getConnection()
      try {
        await connection.beginTransaction()
        await connection.execute(texts.lock, [idOf(n)])
        await connection.execute(texts.update, [idOf(n)])
        await connection.execute(texts.log, [idOf(n)])
        await connection.commit()
      } finally {
        await connection.release()
      }
    },
    rows: () => pool.execute(texts.rows),
    stream: async () => {
      const connection = await pool.getConnection()
      try {
        return await countRows(connection.queryStream(texts.stream))
      } finally {
        await connection.release()
      }
    }
  }, () => pool.end()))
}
