/** Many rows in constant memory: one at a time from one statement, or a page at a time. */
import { Chunk, Console, Effect, Option, Schema, Stream } from "effect"
import { Db, DbLayer } from "../src/index.js"

// #region decode
const Reading = Schema.Struct({ id: Schema.Number, celsius: Schema.Number })
type Reading = typeof Reading.Type
// #endregion

const program = Effect.gen(function*() {
  const db = yield* Db.Db
  yield* db.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, celsius DOUBLE NOT NULL)")
  yield* db.execute(
    `INSERT INTO readings
       WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50000)
       SELECT n, n % 40 FROM numbers`
  )

  // #region stream
  // one connection for as long as the stream; nothing is read while nobody asks
  const sum = yield* db.decode(Reading).stream("SELECT id, celsius FROM readings").pipe(
    Stream.runFold(0, (sum, { celsius }) => sum + celsius)
  )

  // ends the statement on the server after the third row
  const hot = yield* db.stream<Reading>("SELECT id, celsius FROM readings WHERE celsius > ?", [35]).pipe(
    Stream.take(3),
    Stream.runCollect
  )

  // a page at a time: no connection is held in between, and every page begins where the last one ended
  const pages = Stream.paginateChunkEffect(0, (after) =>
    Effect.map(
      db.dictionaries<Reading>("SELECT id, celsius FROM readings WHERE id > ? ORDER BY id LIMIT 1000", [after]),
      (rows) => [Chunk.unsafeFromArray(rows), Option.map(Option.fromNullable(rows.at(-1)), (row) => row.id)]
    ))
  // #endregion

  yield* Console.log(`the sum of all readings: ${sum}`)
  yield* Console.log(`three hot ones: ${Chunk.toReadonlyArray(hot).map(({ id }) => id).join(", ")}`)
  yield* Console.log(`readings in pages: ${yield* Stream.runCount(pages)}`)
})

await Effect.runPromise(program.pipe(Effect.provide(DbLayer.sqlite())))
