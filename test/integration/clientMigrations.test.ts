/** Migrations with `@effect/sql`'s migrator and that of `@effect/sql-mysql2`, as on the field's own client. */
import * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as MysqlMigrator from "@effect/sql-mysql2/MysqlMigrator"
import * as Migrator from "@effect/sql/Migrator"
import { fromFileSystem } from "@effect/sql/Migrator/FileSystem"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { byOptions, byUrl, execute, onBoth, onBothWith, outcome, places } from "../support/clientPrograms.js"

const migrate = Migrator.make({})

/** A record of migrations, each a few statements. */
const record = (migrations: Readonly<Record<string, ReadonlyArray<string>>>) =>
  Migrator.fromRecord(
    Object.fromEntries(Object.entries(migrations).map(([name, statements]) => [name, execute(...statements)]))
  )

const recorded = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ migration_id: number; name: string }>`SELECT migration_id, name FROM effect_sql_migrations ORDER BY 1`.values
)
const kept = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT id FROM kept ORDER BY id`.values)

const create = ["CREATE TABLE kept (id INT PRIMARY KEY)"]
const insert = (id: number) => `INSERT INTO kept VALUES (${id})`

describe.each(places)("migrations %s", (_, run, dialect) => {
  it.live("from a record run in order, once, and later only those that are new", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const first = { "2_one": [insert(1)], "0001_kept": create, "10_two": [insert(2)] }
        const runs = [
          yield* migrate({ loader: record(first) }),
          yield* migrate({ loader: record(first) }),
          yield* migrate({ loader: record({ ...first, "11_three": [insert(3)], "3_late": [insert(4)] }) }),
          yield* migrate({ loader: record({ "1_other": ["CREATE TABLE other (id INT)"] }), table: "others" })
        ]
        return [runs, yield* recorded, yield* kept]
      }))
      expect(found).toEqual([
        [[[1, "kept"], [2, "one"], [10, "two"]], [], [[11, "three"]], [[1, "other"]]],
        [[1, "kept"], [2, "one"], [10, "two"], [11, "three"]],
        [[1], [2], [3]]
      ])
    }))

  it.live("from globs take what a module exports", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const runs = [
          yield* migrate({
            loader: Migrator.fromGlob({
              "./migrations/2_one.ts": () => Promise.resolve({ default: execute(insert(1)) }),
              "./migrations/1_kept.js": () => Promise.resolve({ default: { default: execute(...create) } }),
              "./migrations/README.md": () => Promise.reject(new Error("is none"))
            })
          }),
          yield* migrate({ loader: Migrator.fromBabelGlob({ _3_twoJs: { default: execute(insert(2)) }, other: {} }) })
        ]
        return [runs, yield* kept]
      }))
      expect(found).toEqual([[[[1, "kept"], [2, "one"]], [[3, "two"]]], [[1], [2]]])
    }))

  it.live("with a flaw are refused before any runs", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        const loading = [
          Migrator.fromGlob({ "1_a.js": () => Promise.resolve({}) }),
          Migrator.fromGlob({ "1_a.js": () => Promise.resolve({ default: "text" }) }),
          Migrator.fromGlob({ "1_a.js": () => Promise.reject(new Error("unreadable")) }),
          record({ "1_a": create, "01_b": create })
        ]
        const errors = yield* Effect.forEach(loading, (loader) => Effect.flip(migrate({ loader })))
        return [errors.map((error) => error._tag === "MigrationError" ? error.reason : error), yield* recorded]
      }))
      expect(found).toEqual([["import-error", "import-error", "import-error", "duplicates"], []])
    }))

  it.live("that fail are undone and run again when they are mended", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        yield* execute(...create)
        const broken = { "1_one": [insert(1)], "2_two": [insert(2), insert(1)] }
        const failed = yield* outcome(migrate({ loader: record(broken) }))
        const between = [yield* recorded, yield* kept]
        const mended = yield* migrate({ loader: record({ ...broken, "2_two": [insert(2)] }) })
        return [failed, between, mended, yield* recorded, yield* kept]
      }))
      const both = [[1, "one"], [2, "two"]]
      expect(found).toEqual([
        { tag: "MigrationError", message: "Migration \"2_two\" failed" },
        [[], []],
        both,
        both,
        [[1], [2]]
      ])
    }))

  it.live("that change the schema and fail are undone as far as the database can", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        yield* execute("CREATE TABLE log (id INT)")
        const broken = { "1_kept": ["INSERT INTO log VALUES (1)", ...create, insert(1), insert(1)] }
        const failed = yield* outcome(migrate({ loader: record(broken) }))
        const mended = { "1_kept": ["DROP TABLE IF EXISTS kept", ...create, insert(7)] }
        const again = yield* migrate({ loader: record(mended) })
        const sql = yield* SqlClient.SqlClient
        return { failed, again, recorded: yield* recorded, kept: yield* kept, log: yield* sql`SELECT * FROM log` }
      }))
      // DDL commits on MySQL what came before it, so that the migration is recorded and what follows is kept as well
      expect(found).toEqual({
        failed: { tag: "MigrationError", message: "Migration \"1_kept\" failed" },
        recorded: [[1, "kept"]],
        ...(dialect === "mysql"
          ? { again: [], kept: [[1]], log: [{ id: 1 }] }
          : { again: [[1, "kept"]], kept: [[7]], log: [] })
      })
    }))

  it.live("started side by side run once", () =>
    Effect.gen(function*() {
      const found = yield* run(Effect.gen(function*() {
        yield* migrate({ loader: record({ "1_kept": create }) })
        const more = migrate({ loader: record({ "1_kept": create, "2_one": [insert(1)], "3_two": [insert(2)] }) })
        const runs = yield* Effect.all(Array.from({ length: 4 }, () => more), { concurrency: "unbounded" })
        return [[...runs].sort((a, b) => b.length - a.length), yield* recorded, yield* kept]
      }))
      expect(found).toEqual([
        [[[2, "one"], [3, "two"]], [], [], []],
        [[1, "kept"], [2, "one"], [3, "two"]],
        [[1], [2]]
      ])
    }))
})

/** A folder of modules that find the packages of this one. */
const folder = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "effect-sql-pool-test-"))
    symlinkSync(fileURLToPath(new URL("../../node_modules", import.meta.url)), join(path, "node_modules"))
    writeFileSync(join(path, "package.json"), `{ "type": "module" }`)
    const add = (file: string, statement: string) =>
      writeFileSync(
        join(path, file),
        [
          `import * as SqlClient from "@effect/sql/SqlClient"`,
          `import * as Effect from "effect/Effect"`,
          `export default Effect.flatMap(SqlClient.SqlClient, (sql) => sql\`${statement}\`)`
        ].join("\n")
      )
    add("0002_one.js", insert(1))
    add("0001_kept.js", create[0]!)
    add("notes.js", "not a migration")
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const files = (written: Array<readonly [string, string]> = []) =>
  FileSystem.layerNoop({
    readDirectory: (path) => Effect.sync(() => readdirSync(path)),
    makeDirectory: () => Effect.void,
    writeFileString: (path, text) =>
      Effect.sync(() => {
        written.push([path, text])
      })
  })

describe.each(places)("migrations in files %s", (_, run) => {
  it.live("run in the order of their numbers", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const found = yield* run(
        Effect.gen(function*() {
          const runs = [
            yield* migrate({ loader: fromFileSystem(path) }),
            yield* migrate({ loader: fromFileSystem(path) })
          ]
          return [runs, yield* kept]
        }).pipe(Effect.provide(files()))
      )
      expect(found).toEqual([[[[1, "kept"], [2, "one"]], []], [[1]]])
    }).pipe(Effect.scoped))
})

describe("the migrator on MySQL, as with MysqlClient.layer", () => {
  it.live("leaves a migration to whoever was first, and waits for it", () =>
    Effect.gen(function*() {
      const found = yield* onBoth(Effect.gen(function*() {
        yield* execute(...create)
        const [inside, seen] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const slow = Effect.all([execute(insert(1)), Deferred.succeed(inside, undefined), Deferred.await(seen)], {
          discard: true
        })
        const first = yield* Effect.fork(migrate({ loader: Migrator.fromRecord({ "1_one": slow }) }))
        yield* Deferred.await(inside)
        // the second has read by then that nothing is recorded, since the first has not committed
        const loader = Effect.zipLeft(record({ "1_one": [insert(1)] }), Deferred.succeed(seen, undefined))
        const second = yield* migrate({ loader })
        return [yield* Fiber.join(first), second, yield* recorded, yield* kept]
      }))
      expect(found).toEqual([[[1, "one"]], [], [[1, "one"]], [[1]]])
    }))

  it.live.each([["options", byOptions], ["a URL", byUrl]] as const)(
    "gives mysqldump the address and the login, from %s",
    ([, addressOf]) =>
      Effect.gen(function*() {
        const found = yield* onBothWith(addressOf, (fixture) =>
          Effect.gen(function*() {
            const { password, port } = new URL(Redacted.value(fixture.url))
            const own = new Map([
              [fixture.server.host, "<host>"],
              [port, "<port>"],
              [fixture.user, "<name>"],
              [`-p${password}`, "-p<password>"]
            ])
            const commands: Array<ReadonlyArray<string>> = []
            const written: Array<readonly [string, string]> = []
            const executor = Layer.succeed(CommandExecutor.CommandExecutor, {
              ...CommandExecutor.makeExecutor(() => Effect.dieMessage("only asked for text")),
              string: (command) =>
                Effect.sync(() => {
                  const { args, command: program } = command as Extract<typeof command, { _tag: "StandardCommand" }>
                  commands.push([program, ...args.map((arg) => own.get(arg) ?? arg)])
                  return `dump of ${args.at(-1)}\n`
                })
            })
            const loader = record({ "1_kept": create })
            const completed = yield* MysqlMigrator.run({ loader, schemaDirectory: "schema", table: "done" }).pipe(
              Effect.provide(Layer.mergeAll(executor, files(written), Path.layer))
            )
            return { completed, commands: commands.sort(), written, kept: yield* kept }
          }))
        const to = ["mysqldump", "-h", "<host>", "-P", "<port>", "-u", "<name>", "-p<password>", "<name>"]
        expect(found).toEqual({
          completed: [[1, "kept"]],
          commands: [
            [...to, "--skip-comments", "--compact", "--no-create-info", "--tables", "done"],
            [...to, "--skip-comments", "--compact", "--no-data"]
          ],
          written: [["schema/_schema.sql", "dump of --no-data\n\ndump of done"]],
          kept: []
        })
      })
  )
})
