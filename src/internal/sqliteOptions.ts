/**
 * From the user's options and URL to what the driver works with. Opens and creates nothing.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import * as DbError from "../DbError.js"
import type { SqliteOptions } from "../PoolConfig.js"

type Place =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "memory" }
  | { readonly kind: "temporary" }

/** @internal */
export interface Settings {
  readonly place: Place
  readonly readOnly: boolean
  readonly busyTimeout: number
  readonly initialSql: ReadonlyArray<string>
}

/** @internal */
export const invalid = (...issues: ReadonlyArray<string>): DbError.InvalidConfig =>
  new DbError.InvalidConfig({ issues })

/** A relative path means the same for every connection, wherever the process is by then. */
const placeOf = (filename: string): Place | string => {
  if (filename === "") return { kind: "temporary" }
  if (filename === ":memory:") return { kind: "memory" }
  return filename.startsWith("file:")
    ? "The filename of a SQLite database is a path, not a file: URI"
    : { kind: "file", path: Path.resolve(filename) }
}

const placeOfUrl = (url: string): Place | string => {
  const rest = /^sqlite:(.*)$/is.exec(url)?.[1]
  if (rest === undefined) return "The URL of a SQLite database starts with sqlite:"
  if (/[?#]/.test(rest)) return "The URL of a SQLite database has no options after its path"
  try {
    return placeOf(rest.startsWith("//") ? fileURLToPath(`file:${rest}`) : decodeURIComponent(rest))
  } catch {
    return "The URL of a SQLite database is sqlite:path, sqlite:///absolute/path, sqlite::memory: or sqlite:"
  }
}

/** @internal */
export const settingsOf = (options: SqliteOptions): Either.Either<Settings, DbError.InvalidConfig> => {
  const { filename, url } = options
  const place = filename !== undefined || url === undefined
    ? placeOf(filename ?? "")
    : placeOfUrl(typeof url === "string" ? url : Redacted.value(url))
  if (typeof place === "string") return Either.left(invalid(place))
  const readOnly = options.readOnly === true
  if (readOnly && place.kind !== "file") return Either.left(invalid("A read-only SQLite database needs a filename"))
  const busyTimeout = Duration.decodeUnknown(options.busyTimeout ?? "5 seconds")
  if (Option.isNone(busyTimeout)) return Either.left(invalid("busyTimeout has to be a duration"))
  return Either.right({
    place,
    readOnly,
    busyTimeout: Duration.toMillis(busyTimeout.value),
    initialSql: options.initialSql ?? []
  })
}
