/** A batch processor: more than 100,000 real rows loaded and worked through twice, in constant memory. */
import { Chunk, Effect, Option, Stream } from "effect"
import { type DbError, Recovery } from "../../src/index.js"
import { citiesFile, type City } from "./citiesFile.js"
import {
  connectionId,
  count,
  currentConnection,
  type Demo,
  expect,
  noteConnection,
  type Outcome,
  type Part
} from "./demo.js"
import { progress, say } from "./screen.js"

const batch = 1_000
const page = 5_000

/** What is worked out from the cities, one after the other. */
interface Report {
  cities: number
  /** To compare that each city was seen once, whatever was cut in between. */
  ids: number
  readonly perCountry: Map<string, number>
  north: City | undefined
}

const emptyReport = (): Report => ({ cities: 0, ids: 0, perCountry: new Map(), north: undefined })

const add = (report: Report, city: City): void => {
  report.cities++
  report.ids += city.id
  report.perCountry.set(city.country, (report.perCountry.get(city.country) ?? 0) + 1)
  if (report.north === undefined || city.latitude > report.north.latitude) report.north = city
}

/** Loads the cities in batches. Replacing a row by itself does no harm, so that a batch that was cut is sent again. */
const load = (demo: Demo): Effect.Effect<number, DbError.DbError> =>
  citiesFile.pipe(
    Stream.grouped(batch),
    Stream.mapEffect((cities) =>
      Effect.gen(function*() {
        const rows = Chunk.toReadonlyArray(cities)
        yield* Recovery.idempotent(demo.db.execute(
          `REPLACE INTO espdemo_cities VALUES ${rows.map(() => "(?, ?, ?, ?, ?)").join(", ")}`,
          rows.flatMap((city) => [city.id, city.name, city.country, city.latitude, city.longitude])
        ))
        yield* currentConnection(demo)
        return rows.length
      }), { concurrency: 4 }),
    Stream.mapAccum(0, (loaded, more) => [loaded + more, loaded + more]),
    Stream.tap((loaded) => progress(`loading: ${count(loaded)} cities`)),
    Stream.runLast,
    Effect.map(Option.getOrElse(() => 0))
  )

/** All cities from one statement, over one connection; when that is lost, on from where it was. */
const streamed = (demo: Demo, after = 0): Stream.Stream<City, DbError.DbError> =>
  Stream.suspend(() => {
    let last = after
    return demo.db.stream<City & { readonly connection: number | null }>(
      `SELECT id, name, country, latitude, longitude, ${connectionId(demo)} AS connection
         FROM espdemo_cities WHERE id > ? ORDER BY id`,
      [after]
    ).pipe(
      Stream.mapChunks((rows) => {
        const lastRow = Option.getOrUndefined(Chunk.last(rows))
        if (lastRow !== undefined) {
          last = lastRow.id
          if (lastRow.connection !== null) noteConnection(demo, String(lastRow.connection))
        }
        return rows
      }),
      Stream.catchTag("ConnectionLost", () => {
        demo.begunAgain++
        return streamed(demo, last)
      })
    )
  })

/** All cities a page at a time, each page by its own statement; no connection is held in between. */
const paged = (demo: Demo): Stream.Stream<City, DbError.DbError> =>
  Stream.paginateChunkEffect(0, (after) =>
    Effect.gen(function*() {
      const rows = yield* demo.db.dictionaries<City>(
        "SELECT id, name, country, latitude, longitude FROM espdemo_cities WHERE id > ? ORDER BY id LIMIT ?",
        [after, page]
      )
      yield* currentConnection(demo)
      return [Chunk.unsafeFromArray(rows), Option.map(Option.fromNullable(rows.at(-1)), (city) => city.id)] as const
    }))

const megabytes = (bytes: number): string => (bytes / 1_048_576).toFixed(0)

/** The heap without garbage, where the program was started so that it may ask. */
const liveHeap = (): number => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

/** Works through the cities, and shows what that took of the heap. */
const work = (how: string, total: number, cities: Stream.Stream<City, DbError.DbError>) =>
  Effect.gen(function*() {
    const report = emptyReport()
    let peak = liveHeap()
    const live: Array<number> = [peak]
    yield* Stream.runForEachChunk(cities, (chunk) =>
      Effect.suspend(() => {
        const quarter = Math.floor(4 * report.cities / total)
        for (const city of chunk) add(report, city)
        peak = Math.max(peak, process.memoryUsage().heapUsed)
        if (Math.floor(4 * report.cities / total) > quarter) live.push(liveHeap())
        return progress(`${how}: ${count(report.cities)} of ${count(total)} cities`)
      }))
    yield* say(
      `   ${how}: ${count(report.cities)} cities; heap in use at the start and after each quarter `
        + `${live.map(megabytes).join(", ")} MB, peak with garbage ${megabytes(peak)} MB`
    )
    return report
  })

export const cities = (demo: Demo): Part =>
  Effect.gen(function*() {
    const loaded = yield* load(demo)
    yield* say(`   ${count(loaded)} cities loaded, ${count(batch)} at a time`)
    const sum = loaded * (loaded + 1) / 2
    const reports = [
      yield* work("db.stream", loaded, streamed(demo)),
      yield* work(`pages of ${count(page)}`, loaded, paged(demo))
    ]
    const [inTable] = yield* demo.db.values<[number, number]>(
      "SELECT COUNT(*), COUNT(DISTINCT country) FROM espdemo_cities"
    )
    for (const report of reports) {
      yield* expect("the number of cities", report.cities, inTable?.[0] ?? 0)
      yield* expect("the sum of their ids", report.ids, sum)
      yield* expect("the number of countries", report.perCountry.size, inTable?.[1] ?? 0)
    }
    const [report] = reports
    const most = [...report?.perCountry ?? []].sort((left, right) => right[1] - left[1]).slice(0, 3)
    yield* say(
      `   ${report?.perCountry.size} countries; most cities: ${
        most.map(([country, number]) => `${country} ${count(number)}`).join(", ")
      }; northernmost: ${report?.north?.name} (${report?.north?.country}, ${report?.north?.latitude}°)`
    )
    return { what: `${count(loaded)} cities loaded, streamed, paged`, rows: 3 * loaded } as Outcome
  })
