/** Every example is run as a user would, in a process of its own, on the embedded default. */
import { execFile } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, expect, inject, it } from "vitest"

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
const shows: Readonly<Record<string, ReadonlyArray<string>>> = {
  "fibers.ts": ["inside db.session:        1,1,1"],
  "first.ts": ["Ada, Grace, Barbara"],
  "lost-update.ts": [
    "in a transaction                   100 of 100  right",
    "SERIALIZABLE, with retry           100 of 100"
  ],
  "observability.ts": [
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
  "stream.ts": ["the sum of all readings: 975000", "36, 37, 38"],
  "transaction.ts": ["after a transfer of 30: 70, 130", "account 1 has too little", "75, 125"]
}

describe("an example", () => {
  it("is shown to work, each of them", () => {
    expect(readdirSync(examples).filter((name) => name.endsWith(".ts")).sort()).toEqual(Object.keys(shows).sort())
  })

  it.each(Object.entries(shows))("%s runs", async (name, expected) => {
    const { code, err, out } = await run(name)
    expect({ code, err }).toEqual({ code: 0, err: "" })
    for (const text of expected) expect(out).toContain(text)
  })
})

describe("the lost update", () => {
  it("on a server is lost without a lock, and not with one, nor with SERIALIZABLE and retry", async () => {
    const { host, password, port, user } = inject("server")
    const url = `mysql://${user}:${encodeURIComponent(password)}@${host}:${port}`
    // a database of its own, so that nobody else's counter is met
    const { createConnection } = await import("mysql2/promise")
    const admin = await createConnection({ host, port, user, password })
    const database = `t_lost_update_${process.pid}`
    await admin.query(`CREATE DATABASE ${database}`)
    try {
      const { code, err, out } = await run("lost-update.ts", { DB_PRIMARY_URL: `${url}/${database}` })
      expect({ code, err }).toEqual({ code: 0, err: "" })
      expect(out).toMatch(/without a transaction +\d+ of 100 {2}wrong: [1-9]\d* lost/)
      // 11.6 and newer refuse it
      expect(out).toMatch(/in a transaction( +\d+ of 100 {2}wrong: [1-9]\d* lost|: refused)/)
      expect(out).toMatch(/SELECT \.\.\. FOR UPDATE +100 of 100 {2}right/)
      expect(out).toMatch(/SERIALIZABLE, with retry +100 of 100 {2}right/)
      expect(Number(/(\d+) of its transactions were run again/.exec(out)?.[1])).toBeGreaterThan(0)
      const [left] = await admin.query(`SHOW TABLES FROM ${database}`)
      expect(left).toEqual([])
    } finally {
      await admin.query(`DROP DATABASE ${database}`)
      await admin.end()
    }
  })
})
