import { describe, expect, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { InvalidConfig } from "../../src/DbError.js"
import * as PoolConfig from "../../src/PoolConfig.js"

const make = (options: PoolConfig.PoolOptions, maxConnections?: number) =>
  PoolConfig.make(options, { name: "server:3306/shop", maxConnections })

const issues = (options: PoolConfig.PoolOptions, maxConnections?: number) =>
  Effect.map(Effect.flip(make(options, maxConnections)), (error) => error.issues)

const positive = [
  "acquireTimeout",
  "connectTimeout",
  "validationTimeout",
  "cancelTimeout",
  "idleTimeout",
  "maxLifetime",
  "keepalive"
] as const
const nonNegative = ["validateAfter", "drainTimeout"] as const

/** What plain JavaScript, or a cast, can pass where the types do not let it. */
const untyped = (options: Readonly<Record<string, unknown>>) => options as PoolConfig.PoolOptions

describe("make", () => {
  it.effect("fills in every default", () =>
    Effect.gen(function*() {
      expect(yield* make({})).toEqual({
        name: "server:3306/shop",
        poolSize: 10,
        minimumIdle: 0,
        acquireTimeout: 10_000,
        connectTimeout: 5_000,
        validationTimeout: 2_000,
        validateAfter: 500,
        cancelTimeout: 2_000,
        idleTimeout: 10 * 60_000,
        maxLifetime: 30 * 60_000,
        keepalive: 2 * 60_000,
        statementTimeout: Infinity,
        leakDetectionThreshold: Infinity,
        drainTimeout: 5_000,
        maxWaiters: Infinity,
        affinity: "soft",
        recovery: undefined,
        connectSchedule: undefined
      })
    }))

  it.effect("takes undefined for an option that is not there", () =>
    Effect.gen(function*() {
      expect(yield* make({ poolSize: undefined, acquireTimeout: undefined, affinity: undefined, name: undefined }))
        .toEqual(yield* make({}))
    }))

  it.effect("takes durations in each of Effect's forms, infinity among them", () =>
    Effect.gen(function*() {
      const config = yield* make({
        acquireTimeout: "3 seconds",
        connectTimeout: 1_500,
        validationTimeout: Duration.minutes(1),
        cancelTimeout: 2_000_000_000n,
        keepalive: Duration.infinity,
        maxLifetime: Infinity
      })
      expect(config).toMatchObject({
        acquireTimeout: 3_000,
        connectTimeout: 1_500,
        validationTimeout: 60_000,
        cancelTimeout: 2_000,
        keepalive: Infinity,
        maxLifetime: Infinity
      })
    }))

  it.effect("lets validateAfter and drainTimeout be nothing, for always and for at once", () =>
    Effect.gen(function*() {
      expect(yield* make({ validateAfter: 0, drainTimeout: "0 seconds" })).toMatchObject({
        validateAfter: 0,
        drainTimeout: 0
      })
    }))

  it.effect.each([0, -1, -10, 0.5, 2.5, NaN, Infinity, 2 ** 53])(
    "refuses a pool size of %s",
    (poolSize) =>
      Effect.gen(function*() {
        expect(yield* issues({ poolSize })).toEqual([`poolSize must be a whole number from 1, not ${poolSize}`])
      })
  )

  it.effect.each(["10", true, [], {}])(
    "refuses a pool size that is no number: %j",
    (poolSize) =>
      Effect.gen(function*() {
        const found = yield* issues(untyped({ poolSize, minimumIdle: 0 }))
        expect(found[0]).toContain("poolSize must be a whole number from 1")
      })
  )

  it.effect.each([-1, 0.5, NaN, Infinity])("refuses a minimumIdle of %s", (minimumIdle) =>
    Effect.gen(function*() {
      expect(yield* issues({ minimumIdle })).toEqual([`minimumIdle must be a whole number from 0, not ${minimumIdle}`])
    }))

  it.effect("refuses a minimumIdle above the maximum, given or default", () =>
    Effect.gen(function*() {
      expect(yield* issues({ poolSize: 3, minimumIdle: 4 })).toEqual([
        "minimumIdle must be at most poolSize (3), not 4"
      ])
      expect(yield* issues({ minimumIdle: 11 })).toEqual(["minimumIdle must be at most poolSize (10), not 11"])
      expect(yield* make({ poolSize: 3, minimumIdle: 3 })).toMatchObject({ minimumIdle: 3 })
    }))

  it.effect.each([-1, 1.5, NaN, -Infinity])("refuses a maxWaiters of %s", (maxWaiters) =>
    Effect.gen(function*() {
      expect(yield* issues({ maxWaiters })).toEqual([`maxWaiters must be a whole number from 0, not ${maxWaiters}`])
    }))

  it.effect("lets nobody wait when maxWaiters is 0", () =>
    Effect.gen(function*() {
      expect(yield* make({ maxWaiters: 0 })).toMatchObject({ maxWaiters: 0 })
    }))

  for (const name of positive) {
    it.effect.each([0, -1, NaN, "0 seconds", "-5 seconds"])(
      `refuses a ${name} of %s`,
      (time) =>
        Effect.gen(function*() {
          expect(yield* issues(untyped({ [name]: time }))).toEqual([`${name} must be longer than nothing`])
        })
    )
  }

  for (const name of nonNegative) {
    it.effect.each([-1, NaN, "-5 seconds"])(`refuses a ${name} of %s`, (time) =>
      Effect.gen(function*() {
        expect(yield* issues(untyped({ [name]: time }))).toEqual([`${name} must not be negative`])
      }))
  }

  for (const name of [...positive, ...nonNegative]) {
    it.effect.each(["soon", "10", "10 parsecs", "", {}, null, true])(
      `refuses a ${name} that is no duration: %j`,
      (time) =>
        Effect.gen(function*() {
          expect(yield* issues(untyped({ [name]: time }))).toEqual([`${name} is not a duration`])
        })
    )
  }

  it.effect.each(["Strict", "thread", "", 1])("refuses an affinity of %j", (affinity) =>
    Effect.gen(function*() {
      expect(yield* issues(untyped({ affinity }))).toEqual([
        `affinity must be one of soft, strict, statement, not ${affinity}`
      ])
    }))

  it.effect("names everything that is wrong at once, one sentence each", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(make(untyped({
        poolSize: 0,
        minimumIdle: -1,
        maxWaiters: 0.5,
        acquireTimeout: "soon",
        idleTimeout: 0,
        affinity: "loose"
      })))
      expect(error._tag).toBe("InvalidConfig")
      expect(error.isRetryable).toBe(false)
      expect(error.issues).toEqual([
        "acquireTimeout is not a duration",
        "poolSize must be a whole number from 1, not 0",
        "minimumIdle must be a whole number from 0, not -1",
        "maxWaiters must be a whole number from 0, not 0.5",
        "idleTimeout must be longer than nothing",
        "affinity must be one of soft, strict, statement, not loose"
      ])
      for (const issue of error.issues) expect(error.message).toContain(issue)
      expect(error.message).not.toContain("\n")
    }))

  it.effect("keeps to what the database allows: one connection, which is never closed for its age", () =>
    Effect.gen(function*() {
      expect(yield* make({}, 1)).toMatchObject({ poolSize: 1, idleTimeout: Infinity, maxLifetime: Infinity })
      expect(yield* issues({ poolSize: 2 }, 1)).toEqual(["poolSize must be at most 1 for this database, not 2"])
      expect(yield* make({ name: "mine", poolSize: 4 }, 5)).toMatchObject({ name: "mine", poolSize: 4 })
    }))
})

// ---------------------------------------------------------------------------------------------------------------------

const secret = "s3cret%2Fw0rd"

const fromEnvironment = (name: string, variables: Readonly<Record<string, string>>) =>
  Effect.withConfigProvider(
    PoolConfig.fromEnvironment(name),
    ConfigProvider.fromMap(new Map(Object.entries(variables)))
  )

const refused = (
  name: string,
  variables: Readonly<Record<string, string>>
): Effect.Effect<InvalidConfig, PoolConfig.DatabaseOptions> => Effect.flip(fromEnvironment(name, variables))

describe("fromEnvironment", () => {
  it.effect.each(["mysql", "mariadb", "MySQL"])(
    "takes a MySQL server from a URL with the scheme %s",
    (scheme) =>
      Effect.gen(function*() {
        const url = `${scheme}://app:${secret}@db.example:3307/shop`
        const found = yield* fromEnvironment("primary", { DB_PRIMARY_URL: url })
        expect(found.database).toBe("mysql")
        expect(found.options.url).toEqual(Redacted.make(url))
        expect(found.options.poolSize).toBeUndefined()
      })
  )

  it.effect.each(["sqlite:data/shop.sqlite", "sqlite::memory:", "sqlite:", "SQLite:///var/shop"])(
    "takes SQLite from the URL %s",
    (url) =>
      Effect.gen(function*() {
        const found = yield* fromEnvironment("primary", { DB_PRIMARY_URL: url, DB_PRIMARY_POOL_SIZE: "1" })
        expect(found.database).toBe("sqlite")
        expect(found.options.url).toEqual(Redacted.make(url))
        expect(found.options.poolSize).toBe(1)
      })
  )

  it.effect("takes a server from host and the like, with every variable read", () =>
    Effect.gen(function*() {
      const found = yield* fromEnvironment("primary", {
        DB_PRIMARY_HOST: "db.example",
        DB_PRIMARY_PORT: "3307",
        DB_PRIMARY_USER: "app",
        DB_PRIMARY_PASSWORD: secret,
        DB_PRIMARY_NAME: "shop",
        DB_PRIMARY_POOL_SIZE: "20",
        DB_PRIMARY_MINIMUM_IDLE: "2",
        DB_PRIMARY_ACQUIRE_TIMEOUT: "3 seconds",
        DB_PRIMARY_CONNECT_TIMEOUT: "500 millis",
        DB_PRIMARY_IDLE_TIMEOUT: "1 minute",
        DB_PRIMARY_MAX_LIFETIME: "1 hour",
        DB_PRIMARY_AFFINITY: "strict",
        DB_PRIMARY_ISOLATION: "READ COMMITTED",
        DB_PRIMARY_TLS: "true"
      })
      expect(found).toEqual({
        database: "mysql",
        options: {
          url: undefined,
          host: "db.example",
          port: 3307,
          username: "app",
          password: Redacted.make(secret),
          database: "shop",
          poolSize: 20,
          minimumIdle: 2,
          acquireTimeout: Duration.seconds(3),
          connectTimeout: Duration.millis(500),
          idleTimeout: Duration.minutes(1),
          maxLifetime: Duration.hours(1),
          affinity: "strict",
          isolation: "READ COMMITTED",
          tls: true
        }
      })
    }))

  it.effect("needs no more than a host", () =>
    Effect.gen(function*() {
      const found = yield* fromEnvironment("primary", { DB_PRIMARY_HOST: "db.example" })
      expect(found).toMatchObject({ database: "mysql", options: { host: "db.example", port: undefined } })
    }))

  it.effect("lets single variables add to a URL", () =>
    Effect.gen(function*() {
      const found = yield* fromEnvironment("primary", {
        DB_PRIMARY_URL: "mysql://db.example/shop",
        DB_PRIMARY_USER: "app",
        DB_PRIMARY_PASSWORD: secret
      })
      expect(found.options).toMatchObject({ username: "app", password: Redacted.make(secret), host: undefined })
    }))

  it.effect("reads each database by its own name", () =>
    Effect.gen(function*() {
      const variables = {
        DB_PRIMARY_URL: "mysql://one/shop",
        DB_REPLICA_URL: "mysql://two/shop",
        DB_REPLICA_POOL_SIZE: "7",
        DB_NIGHTLY_REPORTS_HOST: "three"
      }
      expect(yield* fromEnvironment("primary", variables)).toMatchObject({
        options: { url: Redacted.make("mysql://one/shop"), poolSize: undefined }
      })
      expect(yield* fromEnvironment("replica", variables)).toMatchObject({
        options: { url: Redacted.make("mysql://two/shop"), poolSize: 7 }
      })
      expect(yield* fromEnvironment("Replica", variables)).toMatchObject({ options: { poolSize: 7 } })
      expect(yield* fromEnvironment("nightly-reports", variables)).toMatchObject({ options: { host: "three" } })
      expect(yield* fromEnvironment("nightly_reports", variables)).toMatchObject({ options: { host: "three" } })
    }))

  it.effect("names the variables that are missing", () =>
    Effect.gen(function*() {
      const error = yield* refused("replica", { DB_PRIMARY_URL: "mysql://one/shop" })
      expect(error._tag).toBe("InvalidConfig")
      expect(error.message).toBe(
        "The database \"replica\" is not configured: DB_REPLICA_URL or DB_REPLICA_HOST is missing"
      )
    }))

  it.effect.each([
    ["postgres://app:s3cret@db/shop", "the scheme \"postgres:\""],
    ["mysqlx://app:s3cret@db/shop", "the scheme \"mysqlx:\""],
    ["file:s3cret", "the scheme \"file:\""],
    ["//app:s3cret@db/shop", "no scheme"],
    [" mysql://app:s3cret@db/shop", "no scheme"],
    ["", "no scheme"],
    ["s3cret", "no scheme"]
  ])("refuses the URL %j, saying no more of it than its scheme", ([url, found]) =>
    Effect.gen(function*() {
      const error = yield* refused("primary", { DB_PRIMARY_URL: url! })
      expect(error.issues).toEqual([`DB_PRIMARY_URL has ${found}; mysql: and sqlite: are known`])
      expect(error.message).not.toContain("s3cret")
    }))

  it.effect.each([
    ["POOL_SIZE", "ten-s3cret"],
    ["MINIMUM_IDLE", "s3cret"],
    ["ACQUIRE_TIMEOUT", "s3cret"],
    ["ACQUIRE_TIMEOUT", "10"],
    ["CONNECT_TIMEOUT", "s3cret seconds"],
    ["IDLE_TIMEOUT", "-s3cret"],
    ["MAX_LIFETIME", "s3cret"],
    ["AFFINITY", "s3cret"],
    ["PORT", "s3cret"],
    ["PORT", "65536"],
    ["PORT", "-1"],
    ["ISOLATION", "READ S3CRET"],
    ["TLS", "s3cret"]
  ])("names %s when it cannot be read (%j), without its value", ([variable, value]) =>
    Effect.gen(function*() {
      const error = yield* refused("primary", {
        DB_PRIMARY_HOST: "db.example",
        DB_PRIMARY_PASSWORD: secret,
        [`DB_PRIMARY_${variable}`]: value!
      })
      expect(error.message).toBe(
        `The database "primary" is not configured: DB_PRIMARY_${variable} has a value that cannot be read`
      )
      expect(JSON.stringify(error)).not.toMatch(/s3cret/i)
    }))

  it.effect.each(["", " ", "a b", "a.b", "a=b", "1st", "-x", "_x", "__proto__", "ünïcode", "a\nb", "a'b", "../etc"])(
    "refuses %j as the name of a database",
    (name) =>
      Effect.gen(function*() {
        const error = yield* refused(name, {})
        expect(error.issues).toEqual([`"${name}" cannot be the name of a database in the environment`])
      })
  )

  it.effect.each(["constructor", "toString", "x", "a1-b2_C3"])(
    "takes %j as the name of a database",
    (name) =>
      Effect.gen(function*() {
        const variable = `DB_${name.toUpperCase().replaceAll("-", "_")}_URL`
        expect(yield* fromEnvironment(name, { [variable]: "sqlite:" })).toMatchObject({ database: "sqlite" })
        expect((yield* refused(name, {})).message).toContain(variable)
      })
  )

  it.effect("leaves sizes that are numbers but cannot be to make, which names them", () =>
    Effect.gen(function*() {
      const found = yield* fromEnvironment("primary", {
        DB_PRIMARY_URL: "mysql://db/shop",
        DB_PRIMARY_POOL_SIZE: "2.5",
        DB_PRIMARY_MINIMUM_IDLE: "-1"
      })
      expect(yield* issues(found.options)).toEqual([
        "poolSize must be a whole number from 1, not 2.5",
        "minimumIdle must be a whole number from 0, not -1"
      ])
    }))
})
