/** Every example is run as a user would, in a process of its own, on the embedded default. */
import { Effect } from "effect"
import { execFile, spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, inject, it } from "vitest"
import { openInterceptor } from "../support/interceptor.js"

const examples = fileURLToPath(new URL("../../examples/", import.meta.url))

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

const run = (name: string, env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  new Promise((resolve) => {
    const { DB_PRIMARY_URL: _, ...inherited } = process.env
    execFile(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", "--import", "tsx", `${examples}${name}`],
      { env: { ...inherited, ...env } },
      (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err })
    )
  })

/** What an example has to show, besides ending well. */
const shows: Readonly<Record<string, ReadonlyArray<string | RegExp>>> = {
  "batch.ts": [
    /broken down on the way: ([1-9]|1\d)[05]00 of 20000 invoices/,
    "gone on: 20000 invoices for 20000 of 20000 orders",
    "their total is right: true"
  ],
  "fibers.ts": ["inside db.session:        1,1,1"],
  "first.ts": ["Ada, Grace, Barbara"],
  "from-sql-mysql2.ts": ["the client is of sqlite, and Db is beside it: 3 people"],
  "job-worker.ts": [/stopped on the way: [1-9]\d* jobs were given back/, "100 of 100 jobs have their result"],
  "lost-update.ts": [
    "in a transaction                   100 of 100  right",
    "SERIALIZABLE, with retry           100 of 100"
  ],
  "migrations.ts": [
    "migrations that were new: 1 create_books, 2 first_books\n",
    "books: Emma, Persuasion",
    "migrations that were new: 3 add_year\n",
    "of the year: 1815"
  ],
  "monitor.ts": [
    /\[pool shop\] 4 of 4 connections .*served [1-9]\d*\/s/,
    "customer 12 has seen enough",
    "the shop is closed\n"
  ],
  "observability.ts": [
    /shop is exhausted: 2 of 2 connections are held, and [1-9] fibers? waits?: #\d+ \(session, /,
    "db_client_connection_limit{unit=\"{connection}\",db_client_connection_pool_name=\"shop\"} 2",
    "error_type=\"UniqueViolation\"",
    "7 of order",
    "8 of sql.execute",
    " of sql.acquire",
    " of 2 idle, 0 in a transaction"
  ],
  "options.ts": ["0 of at most 20 connections are open"],
  "scoped-connection.ts": ["picked 1 and 2", "no such table: picked"],
  "several-databases.ts": ["answers of the three: 1, 2, 3"],
  "sql-client.ts": ["Ada Lovelace", "Barbara"],
  "sqlite-in-tests.ts": [
    "a page that nobody has seen has no visits, on embedded SQLite",
    "visits at the same time are all counted, on embedded SQLite",
    /pass 2\n.*fail 0\n/
  ],
  "stale-connections.ts": ["booked: 100, 250", "an increment: done", "a transaction: committed", "connections lost: 0"],
  "stream.ts": ["the sum of all readings: 975000", "36, 37, 38"],
  "transaction.ts": ["after a transfer of 30: 70, 130", "account 1 has too little", "75, 125"],
  "web.ts": [
    "the last one's answer is 10000",
    /they were served by ([1-9]|10) connections of at most 10/,
    /three statements side by side in one request: connections \["(\d+)","\1","\1"\]/,
    "a client waits for its report: 1 connection is held",
    "it has gone away: 0 connections are held"
  ]
}

const expectAll = (out: string, expected: ReadonlyArray<string | RegExp>): void => {
  for (const text of expected) expect(out).toMatch(text)
}

describe("an example", () => {
  it("is shown to work, each of them", () => {
    expect(readdirSync(examples).filter((name) => name.endsWith(".ts")).sort()).toEqual(Object.keys(shows).sort())
  })

  it.each(Object.entries(shows))("%s runs", async (name, expected) => {
    const { code, err, out } = await run(name)
    expect({ code, err }).toEqual({ code: 0, err: "" })
    expectAll(out, expected)
  })
})

/** A database of its own on the server of the tests, which has to be as empty at the end as it was. */
const withDatabase = async (name: string, use: (url: string) => Promise<void>): Promise<void> => {
  const { host, password, port, user } = inject("server")
  const { createConnection } = await import("mysql2/promise")
  const admin = await createConnection({ host, port, user, password })
  const database = `t_${name}_${process.pid}`
  await admin.query(`CREATE DATABASE ${database}`)
  try {
    await use(`mysql://${user}:${encodeURIComponent(password)}@${host}:${port}/${database}`)
    const [left] = await admin.query(`SHOW TABLES FROM ${database}`)
    expect(left).toEqual([])
  } finally {
    await admin.query(`DROP DATABASE ${database}`)
    await admin.end()
  }
}

/** What an example has to show on a server, where it is the one that `DB_PRIMARY_URL` names. */
const showsOnServer: Readonly<Record<string, ReadonlyArray<string | RegExp>>> = {
  "batch.ts": shows["batch.ts"]!,
  "job-worker.ts": shows["job-worker.ts"]!,
  "lost-update.ts": [
    /without a transaction +\d+ of 100 {2}wrong: [1-9]\d* lost/,
    // MariaDB 11.6 and newer refuse it
    /in a transaction( +\d+ of 100 {2}wrong: [1-9]\d* lost|: refused)/,
    /SELECT \.\.\. FOR UPDATE +100 of 100 {2}right/,
    /SERIALIZABLE, with retry +100 of 100 {2}right/,
    /[1-9]\d* of its transactions were run again/
  ],
  "migrations.ts": shows["migrations.ts"]!,
  "sqlite-in-tests.ts": ["visits at the same time are all counted, on the server", /pass 4\n.*fail 0\n/],
  "stale-connections.ts": [
    "a read afterwards: 100",
    "booked: 100, 250",
    // told whether it was lost before it was sent, or is not known to be done
    /an increment: (done|not executed|unknown)\n/,
    "a transaction: rolled back",
    "at the end: 100, 250",
    "connections lost: 5"
  ],
  "web.ts": shows["web.ts"]!
}

describe("an example on a server", () => {
  it.each(Object.entries(showsOnServer))(
    "%s runs, and leaves nothing behind",
    (name, expected) =>
      withDatabase(name.replace(/\W/g, "_"), async (url) => {
        const { code, err, out } = await run(name, { DB_PRIMARY_URL: url })
        expect({ code, err }).toEqual({ code: 0, err: "" })
        expectAll(out, expected)
      })
  )
})

describe("the job worker", () => {
  it("goes on after COMMITs that were lost, more of them than there are workers", () =>
    withDatabase("lost_commits", (url) =>
      Effect.gen(function*() {
        const lossy = yield* openInterceptor(inject("server"))
        lossy.rule({ text: "\u0003COMMIT", instead: "cut", times: 12 })
        const through = Object.assign(new URL(url), { hostname: "127.0.0.1", port: lossy.port })
        const { code, err, out } = yield* Effect.promise(() => run("job-worker.ts", { DB_PRIMARY_URL: through.href }))
        expect({ code, err }).toEqual({ code: 0, err: "" })
        expectAll(out, shows["job-worker.ts"]!)
        expect(lossy.applied()).toBe(12)
      }).pipe(Effect.scoped, Effect.runPromise)))
})

describe("the web example", () => {
  it("stays where PORT says, until it is told to stop", async () => {
    const { DB_PRIMARY_URL: _, ...inherited } = process.env
    const child = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", "--import", "tsx", `${examples}web.ts`],
      { env: { ...inherited, PORT: "0" }, stdio: ["ignore", "pipe", "inherit"] }
    )
    const ended = new Promise<number | null>((resolve) => child.on("exit", resolve))
    try {
      const address = await new Promise<string>((resolve, reject) => {
        let out = ""
        child.stdout.on("data", (data) => {
          const found = /Listening on (http:\S+)/.exec(out += data)?.[1]
          if (found !== undefined) resolve(found)
        })
        child.on("exit", (code) => reject(new Error(`ended with ${code}: ${out}`)))
      })
      expect(await (await fetch(`${address}/square/7`)).text()).toBe("49")
      expect((await fetch(`${address}/nowhere`)).status).toBe(404)
    } finally {
      child.kill("SIGTERM")
    }
    // it ends by itself, and is not killed
    expect(await ended).toBe(0)
  })
})
