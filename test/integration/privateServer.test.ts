import { createConnection } from "mysql2/promise"
import { existsSync } from "node:fs"
import { describe, expect, inject, it } from "vitest"
import { startServer } from "../support/privateServer.js"

const select = async (url: string, sql: string): Promise<unknown> => {
  const connection = await createConnection({ uri: url, connectTimeout: 5000 })
  try {
    const [rows] = await connection.query({ sql, rowsAsArray: true })
    return rows
  } finally {
    await connection.end()
  }
}

const withPassword = (url: string, password: string): string => {
  const changed = new URL(url)
  changed.password = password
  return changed.href
}

describe("the shared server", () => {
  it("answers on its url", async () => {
    expect(await select(inject("server").url, "SELECT 1 + 1")).toEqual([[2]])
  })

  it("refuses a wrong password and none", async () => {
    const { url } = inject("server")
    await expect(select(withPassword(url, "wrong"), "SELECT 1")).rejects.toMatchObject({ errno: 1045 })
    await expect(select(withPassword(url, ""), "SELECT 1")).rejects.toMatchObject({ errno: 1045 })
  })
})

describe("a server of one's own", () => {
  it("keeps port, password and committed data over a restart, also after a crash", async () => {
    const server = await startServer({ settings: ["--max-connections=17"] })
    try {
      await select(server.url, "CREATE TABLE kept (id INT PRIMARY KEY)")
      await select(server.url, "INSERT INTO kept VALUES (1)")
      const first = server.pid
      await server.restart()
      expect(server.pid).not.toBe(first)
      await select(server.url, "INSERT INTO kept VALUES (2)")
      server.kill("SIGKILL")
      await server.restart()
      expect(await select(server.url, "SELECT id FROM kept ORDER BY id")).toEqual([[1], [2]])
      expect(await select(server.url, "SELECT @@max_connections")).toEqual([[17]])
    } finally {
      await server.stop()
    }
    await expect(select(server.url, "SELECT 1")).rejects.toMatchObject({ code: "ECONNREFUSED" })
    expect(existsSync(`/proc/${server.pid}`)).toBe(false)
  })
})
