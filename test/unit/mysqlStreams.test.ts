/** The packets of a stream, in mysql2's own reader and without a server: what is left of it on the connection. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { setImmediate } from "node:timers/promises"
import type { Result, Statement } from "../../src/Driver.js"
import { column, counted, open, rows, statement } from "../support/mysqlPackets.js"

const unprepared = (sql: string): Statement => statement(sql, { unprepared: true })
const answer = (count: number): Buffer =>
  rows([column("n")], ...Array.from({ length: count }, (_, row) => counted(`r${row}`)))

describe("a stream whose consumer works on the last rows when it goes", () => {
  it("leaves a connection that the next statement is sent on", async () => {
    const { connection, stream, written } = open()
    const cursor = connection.stream(unprepared("SELECT n FROM t"))
    const chunks: Array<number> = []
    // as a fiber does, which asks in a microtask of the chunk before
    const ask = (): void =>
      cursor.next((exit) => {
        if (Exit.isSuccess(exit)) chunks.push(exit.value.length)
        if (chunks.length < 2) queueMicrotask(ask)
      })
    ask()
    stream.push(answer(600))
    for (let turns = 0; turns < 5; turns++) await setImmediate()
    expect(chunks).toEqual([512, 88])
    await Effect.runPromise(connection.cancel)
    let answered: Exit.Exit<Result, unknown> | undefined
    connection.run(unprepared("SELECT 2"), (exit) => {
      answered = exit
    })
    expect(written.filter((text) => text.includes("SELECT 2"))).toHaveLength(1)
    stream.push(answer(1))
    for (let turns = 0; turns < 5; turns++) await setImmediate()
    expect(answered).toMatchObject({ _tag: "Success", value: { rows: [["r0"]] } })
  })
})
