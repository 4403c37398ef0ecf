import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import { generateKeyPairSync } from "node:crypto"
import { inspect } from "node:util"
import * as ConnectionPool from "../../src/ConnectionPool.js"
import * as Db from "../../src/Db.js"
import * as Errors from "../../src/DbError.js"
import * as DbLayer from "../../src/DbLayer.js"
import * as MysqlDriver from "../../src/MysqlDriver.js"
import * as PoolConfig from "../../src/PoolConfig.js"
import * as PoolStats from "../../src/PoolStats.js"
import * as SqliteDriver from "../../src/SqliteDriver.js"

const counts = { idle: 1, held: 2, opening: 3, busy: 4, waiting: 5, max: 10 }
const bare = { statement: "SELECT 1", reason: "because" }
const told = { ...bare, errno: 1064, sqlState: "42000" }

/** Each class with what it must have alone, and with all it can have; and whether trying again may help. */
const samples: {
  readonly [Name in Errors.DbError["_tag"] | "InvalidConfig"]: readonly [
    isRetryable: boolean,
    ...ReadonlyArray<Errors.DbError | Errors.InvalidConfig>
  ]
} = {
  InvalidConfig: [false, new Errors.InvalidConfig({ issues: ["one is wrong", "two is wrong"] })],
  PoolExhausted: [
    true,
    new Errors.PoolExhausted({ pool: "shop", waitedMillis: 10, counts }),
    new Errors.PoolExhausted({ pool: "shop", waitedMillis: 10, counts, oldest: undefined, hint: undefined }),
    new Errors.PoolExhausted({
      pool: "shop",
      waitedMillis: 10,
      counts,
      oldest: { holder: "#7", heldMillis: 900, why: "a transaction is open" },
      lastConnectFailure: new Errors.ConnectionError({ target: "db:3306", reason: "refused", isRetryable: true }),
      hint: "Raise poolSize"
    })
  ],
  PoolUnreachable: [
    true,
    new Errors.PoolUnreachable({ pool: "shop", waitedMillis: 10, counts }),
    new Errors.PoolUnreachable({
      pool: "shop",
      waitedMillis: 10,
      counts,
      cause: new Errors.ConnectionError({ target: "db:3306", reason: "refused", isRetryable: true })
    })
  ],
  TooManyWaiters: [true, new Errors.TooManyWaiters({ pool: "shop", maxWaiters: 5, counts })],
  PoolClosed: [false, new Errors.PoolClosed({ pool: "shop" })],
  ConnectionError: [
    true,
    new Errors.ConnectionError({ target: "db:3306", reason: "refused", isRetryable: true }),
    new Errors.ConnectionError({
      target: "db:3306",
      reason: "too many connections",
      isRetryable: true,
      code: "ER_CON_COUNT_ERROR",
      errno: 1040,
      sqlState: ""
    })
  ],
  AuthenticationError: [
    false,
    new Errors.AuthenticationError({ target: "db:3306", reason: "denied" }),
    new Errors.AuthenticationError({ target: "db:3306", reason: "denied", errno: 1045, sqlState: "28000" })
  ],
  ConnectionLost: [
    false,
    new Errors.ConnectionLost({ outcome: "unknown", reason: "it broke" }),
    new Errors.ConnectionLost({ outcome: "unknown", ...told, code: "PROTOCOL_CONNECTION_LOST" })
  ],
  AffinityLost: [false, new Errors.AffinityLost({ statement: "SELECT LAST_INSERT_ID()" })],
  ConnectionBusy: [false, new Errors.ConnectionBusy({ statement: "SELECT 1" })],
  SessionEnded: [false, new Errors.SessionEnded({ statement: "SELECT 1" })],
  InvalidStatement: [false, new Errors.InvalidStatement(bare)],
  ParameterError: [false, new Errors.ParameterError(bare)],
  DecodeError: [false, new Errors.DecodeError(bare)],
  InvalidTransaction: [false, new Errors.InvalidTransaction({ reason: "because" })],
  TransactionAborted: [
    false,
    new Errors.TransactionAborted({ statement: "SELECT 1", cause: new Errors.DeadlockError(told) })
  ],
  SqlSyntaxError: [false, new Errors.SqlSyntaxError(bare), new Errors.SqlSyntaxError(told)],
  UniqueViolation: [false, new Errors.UniqueViolation(bare), new Errors.UniqueViolation(told)],
  ConstraintError: [false, new Errors.ConstraintError(bare), new Errors.ConstraintError(told)],
  AuthorizationError: [false, new Errors.AuthorizationError(bare), new Errors.AuthorizationError(told)],
  DeadlockError: [true, new Errors.DeadlockError(bare), new Errors.DeadlockError(told)],
  SerializationError: [true, new Errors.SerializationError(bare), new Errors.SerializationError(told)],
  LockTimeoutError: [true, new Errors.LockTimeoutError(bare), new Errors.LockTimeoutError(told)],
  StatementTimeoutError: [false, new Errors.StatementTimeoutError(bare), new Errors.StatementTimeoutError(told)],
  StatementCancelled: [false, new Errors.StatementCancelled(bare), new Errors.StatementCancelled(told)],
  ReadOnlyError: [true, new Errors.ReadOnlyError(bare), new Errors.ReadOnlyError(told)],
  StatementError: [false, new Errors.StatementError(bare), new Errors.StatementError({ ...bare, errno: undefined })]
}

const isClass = (value: unknown): boolean => typeof value === "function" && value.prototype instanceof Error

describe("every error", () => {
  it("is in this table", () => {
    const classes = Object.entries(Errors).filter(([, value]) => isClass(value)).map(([name]) => name)
    expect(classes.sort()).toEqual(Object.keys(samples).sort())
  })

  for (const [name, [isRetryable, ...errors]] of Object.entries(samples)) {
    it.each(errors.map((error) => [error]))(
      `${name} says what happened in a plain line, and whether to try again`,
      (error) => {
        expect(error).toBeInstanceOf(Error)
        expect(error._tag).toBe(name)
        expect(error.name).toBe(name)
        expect(error.isRetryable).toBe(isRetryable)
        expect(error.message).toMatch(/^[A-Z0-9a-z][^\n\r\t]*[^\s.]$/)
        expect(error.message).not.toMatch(/undefined|null|NaN|\[object|\(\)|\.\.| {2}/)
      }
    )
  }

  it("keeps the server's number and state in its message, and what the statement was in a field", () => {
    const error = new Errors.SqlSyntaxError(told)
    expect(error.message).toBe("The statement is not valid: because (errno 1064, sqlState 42000)")
    expect(error).toMatchObject({ errno: 1064, sqlState: "42000", statement: "SELECT 1" })
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ ...told, _tag: "SqlSyntaxError" })
  })

  it("of a pool says how it stands", () => {
    for (
      const error of [...samples.PoolExhausted.slice(1), ...samples.PoolUnreachable.slice(1), samples.TooManyWaiters[1]]
    ) {
      expect((error as Errors.PoolExhausted).message).toContain(
        "(max=10, idle=1, held=2, opening=3, busy=4, waiting=5)"
      )
    }
  })

  it("for want of a connection says who holds one, why no other was opened, and what to do", () => {
    const error = samples.PoolExhausted[3] as Errors.PoolExhausted
    expect(error.message).toContain("held by #7 for 900 ms (a transaction is open)")
    expect(error.message).toContain("Cannot connect to db:3306: refused")
    expect(error.message).toContain("Raise poolSize")
  })

  it("says of a lost connection what is known about the statement", () => {
    const lost = (outcome: Errors.Outcome) => new Errors.ConnectionLost({ outcome, reason: "it broke" })
    expect(lost("unknown").isRetryable).toBe(false)
    expect(lost("unknown").message).toContain("Outcome unknown")
    expect(lost("not executed").isRetryable).toBe(true)
    expect(lost("not executed").message).toContain("not executed")
    expect(lost("rolled back").isRetryable).toBe(true)
    expect(lost("rolled back").message).toContain("rolled back")
  })

  it("takes the word of whoever saw the connect fail", () => {
    const error = new Errors.ConnectionError({ target: "db:3306", reason: "no such host", isRetryable: false })
    expect(error.isRetryable).toBe(false)
  })
})

// ---------------------------------------------------------------------------------------------------------------------

const secret = "s3cret-Pa55w0rd"
const password = Redacted.make(secret)
const url = Redacted.make(`mysql://app:${secret}@localhost:1/shop`)
// what is before the key is a comment
const encryptedKey = `key ${secret}\n` +
  generateKeyPairSync("ec", { namedCurve: "prime256v1" }).privateKey.export({
    type: "pkcs8",
    format: "pem",
    cipher: "aes-256-cbc",
    passphrase: secret
  }).toString()
const mysqlOptions: PoolConfig.MysqlOptions & PoolConfig.PoolOptions = {
  url,
  password,
  tls: { key: Redacted.make(encryptedKey), passphrase: password }
}

/** In every way in which a value finds its way into a log. */
const tellings = (value: unknown): ReadonlyArray<string> => [
  String(value),
  JSON.stringify(value) ?? "",
  inspect(value, { depth: Infinity, showHidden: true, getters: false, maxArrayLength: Infinity }),
  ...(value instanceof Error ? [value.message, value.stack ?? "", Cause.pretty(Cause.fail(value))] : []),
  ...(Cause.isCause(value) ? [Cause.pretty(value)] : [])
]

const expectNoSecret = (value: unknown): void => {
  for (const text of tellings(value)) expect(text).not.toContain(secret)
}

describe("a password", () => {
  it("is seen by these tests when it is there", () => {
    expect(() => expectNoSecret({ a: [new Map([["b", { c: secret }]])] })).toThrow()
    expect(() => expectNoSecret(new Errors.InvalidConfig({ issues: [secret] }))).toThrow()
  })

  it("is not in the options as JSON or in a log", () => {
    expectNoSecret(mysqlOptions)
  })

  it.scoped("is not in the driver, the pool, the database or the statistics", () =>
    Effect.gen(function*() {
      expectNoSecret(yield* MysqlDriver.make(mysqlOptions))
      const services = yield* Layer.build(DbLayer.mysql(mysqlOptions))
      expectNoSecret(services)
      for (const tag of [Db.Db, ConnectionPool.ConnectionPool, PoolStats.PoolStats]) {
        expectNoSecret(services.unsafeMap.get(tag.key))
      }
    }))

  it("is not in the layer or in the effect that makes a pool", () => {
    expectNoSecret(DbLayer.mysql(mysqlOptions))
    expectNoSecret(DbLayer.mysqlPool(mysqlOptions))
    expectNoSecret(MysqlDriver.make(mysqlOptions))
  })

  it.effect("is not in what the environment gives", () =>
    Effect.gen(function*() {
      const variables = new Map([["DB_A_URL", Redacted.value(url)], ["DB_A_PASSWORD", secret]])
      const found = yield* Effect.withConfigProvider(
        PoolConfig.fromEnvironment("a"),
        ConfigProvider.fromMap(variables)
      )
      expect(found.database).toBe("mysql")
      expectNoSecret(found)
    }))

  it.scoped.each([
    `mysql://app:${secret}@local host/shop`,
    `mysql://app:${secret}/@localhost/shop`,
    `mysql://app:${secret}#@localhost/shop`,
    `mysql://app:${secret}?@localhost/shop`,
    `mysql://app:%${secret}%@localhost/shop`,
    `mysql://app:${secret}@localhost:99999/shop`,
    `mysql:${secret}`,
    `mysql:///${secret}/x`,
    `postgres://app:${secret}@localhost/shop`,
    secret,
    ""
  ])("is not in the error of an URL that cannot be: %s", (text) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(MysqlDriver.make({ url: Redacted.make(text) }))
      expect(error._tag).toBe("InvalidConfig")
      expect(error.message).toMatch(/URL/)
      expectNoSecret(error)
    }))

  it.scoped.each([
    `sqlite:${secret}?mode=ro`,
    `sqlite://app:${secret}@localhost/shop`,
    `mysql://app:${secret}@localhost/shop`,
    `file:${secret}`
  ])("is not in the error of a SQLite URL that cannot be: %s", (text) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(SqliteDriver.make({ url: Redacted.make(text) }))
      expect(error._tag).toBe("InvalidConfig")
      expectNoSecret(error)
    }))

  it.scoped("is not in the errors of options beside it that cannot be", () =>
    Effect.gen(function*() {
      const layer = DbLayer.mysql({ ...mysqlOptions, poolSize: 0, port: -1, timeZone: "here" })
      const error = yield* Effect.flip(Layer.build(layer))
      expect(error._tag).toBe("InvalidConfig")
      expectNoSecret(error)
    }))

  it.scoped.each<readonly [what: string, tls: PoolConfig.TlsOptions]>([
    ["a key that is none", { key: password }],
    ["a key without its passphrase", { key: Redacted.make(encryptedKey), passphrase: Redacted.make("wrong") }],
    ["a passphrase of the wrong type", {
      key: Redacted.make(encryptedKey),
      passphrase: Redacted.make([secret]) as never
    }],
    ["a version that is none", { ...mysqlOptions.tls as PoolConfig.TlsOptions, minVersion: "TLSv9" as never }]
  ])("is not in the error of %s, which is told before anything is opened", ([, tls]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(MysqlDriver.make({ ...mysqlOptions, tls }))
      expect(error._tag).toBe("InvalidConfig")
      expect(error.message).toMatch(/^tls cannot be used: .+/)
      expectNoSecret(error)
    }))

  const broken = new Error(`the vault said: ${secret} is expired`)
  it.scoped.each([["fails", Effect.fail(broken)], ["dies", Effect.die(broken)]] as const)(
    "is not in the error when a provider of credentials %s",
    ([, credentials]) =>
      Effect.gen(function*() {
        const options = { host: "localhost", port: 1, credentials, acquireTimeout: "5 seconds" } as const
        const services = yield* Layer.build(DbLayer.mysql(options))
        const db = Context.get(services, Db.Db)
        const query = yield* Effect.fork(Effect.flip(db.value("SELECT 1")))
        yield* TestClock.adjust("5 seconds")
        const error = yield* Fiber.join(query)
        expect(["ConnectionError", "PoolUnreachable"]).toContain(error._tag)
        expect(error.message).toContain("credentials")
        expectNoSecret(error)
      })
  )
})
