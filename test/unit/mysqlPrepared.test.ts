/** What is kept of a prepared statement from one execution to the next, in mysql2's own reader and without a server. */
import { describe, expect, it, vi } from "@effect/vitest"
import { Exit } from "effect"
import { setImmediate } from "node:timers/promises"
import type { Result, Statement } from "../../src/Driver.js"
import { type Answer, preparedAs } from "../../src/internal/mysqlAnswer.js"
import { preparedOf } from "../../src/internal/mysqlPrepared.js"
import type { RawConnection, RawQuery } from "../../src/internal/mysqlProtocol.js"
import {
  answer,
  binaryRow,
  column,
  counted,
  end,
  long,
  open,
  prepared,
  rows,
  statement,
  types
} from "../support/mysqlPackets.js"

const select = statement("SELECT * FROM t")
const n = column("n", types.long)
const name = column("name")
const both = [n, name]

const refusal = Buffer.concat([Buffer.from([0xff, 0x25, 0x05]), Buffer.from("#70100Query execution was interrupted")])

/** The statement, prepared already, and executed as often as the test answers. */
const openPrepared = () => {
  const opened = open()
  const { connection, stream } = opened
  const execute = async (...answers: ReadonlyArray<Buffer>): Promise<Exit.Exit<Result, unknown> | undefined> => {
    let exit: Exit.Exit<Result, unknown> | undefined
    connection.run(select, (answered) => {
      exit = answered
    })
    for (const bytes of answers) {
      stream.push(bytes)
      for (let turns = 0; turns < 5; turns++) await setImmediate()
    }
    return exit
  }
  return { ...opened, execute }
}

/** The command that the connection keeps for a statement that it has executed. */
const commandOf = (raw: RawConnection, of: Statement): RawQuery => {
  const known = preparedAs(raw, of)
  if (known === undefined || !Object.hasOwn(known, "kept")) throw new Error("nothing is kept of it")
  return preparedOf(known).command([])
}

const found = (exit: Exit.Exit<Result, unknown> | undefined) =>
  exit !== undefined && Exit.isSuccess(exit)
    ? { columns: exit.value.columns, rows: exit.value.rows }
    : exit

const first = (value: number, text: string): Buffer => binaryRow(2, long(value), counted(text))

describe("the columns of a prepared statement", () => {
  /** How many columns mysql2 reads meanwhile. */
  const countReads = (raw: RawConnection) => {
    return vi.spyOn(Object.getPrototypeOf(commandOf(raw, select)) as RawQuery, "readField")
  }

  it("are read once, and the rows by what was read, whatever becomes of the memory that it was read from", async () => {
    const { execute, raw, written } = openPrepared()
    const expected = (value: number, text: string) => ({ columns: ["n", "name"], rows: [[value, text]] })
    const bytes = rows(both, first(1, "a"))
    expect(found(await execute(prepared(1, both), bytes))).toEqual(expected(1, "a"))
    bytes.fill(0)
    const reads = countReads(raw)
    expect(found(await execute(rows(both, first(2, "b"))))).toEqual(expected(2, "b"))
    expect(found(await execute(rows(both, first(3, "c"))))).toEqual(expected(3, "c"))
    expect(reads).not.toHaveBeenCalled()
    expect(found(await execute(rows([n], binaryRow(1, long(4)))))).toEqual({ columns: ["n"], rows: [[4]] })
    expect(reads).toHaveBeenCalled()
    expect(written).toHaveLength(5)
    reads.mockRestore()
  })

  // each as it is after an ALTER TABLE, beside the two that were there before
  const changes: Record<
    string,
    { readonly columns: ReadonlyArray<Buffer>; readonly row: Buffer; readonly expected: object }
  > = {
    "the first is of another type": {
      columns: [column("n"), name],
      row: binaryRow(2, counted("1"), counted("a")),
      expected: { columns: ["n", "name"], rows: [["1", "a"]] }
    },
    "the last is of another type": {
      columns: [n, column("name", types.long)],
      row: binaryRow(2, long(1), long(2)),
      expected: { columns: ["n", "name"], rows: [[1, 2]] }
    },
    "the last has another name of the same length": {
      columns: [n, column("nome")],
      row: first(1, "a"),
      expected: { columns: ["n", "nome"], rows: [[1, "a"]] }
    },
    "the first has a longer name": {
      columns: [column("number", types.long), name],
      row: first(1, "a"),
      expected: { columns: ["number", "name"], rows: [[1, "a"]] }
    },
    "one is gone": { columns: [name], row: binaryRow(1, counted("a")), expected: { columns: ["name"], rows: [["a"]] } },
    "the last is gone": { columns: [n], row: binaryRow(1, long(7)), expected: { columns: ["n"], rows: [[7]] } },
    "there is one more": {
      columns: [n, name, column("more", types.long)],
      row: binaryRow(3, long(1), counted("a"), long(2)),
      expected: { columns: ["n", "name", "more"], rows: [[1, "a", 2]] }
    },
    "they have changed places": {
      columns: [name, n],
      row: binaryRow(2, counted("a"), long(1)),
      expected: { columns: ["name", "n"], rows: [["a", 1]] }
    }
  }
  for (const [what, { columns, expected, row }] of Object.entries(changes)) {
    it(`are read anew when ${what}, and when they are as before again`, async () => {
      const { execute } = openPrepared()
      await execute(prepared(1, both), rows(both, first(1, "a")))
      expect(found(await execute(rows(columns, row)))).toEqual(expected)
      expect(found(await execute(rows(columns, row)))).toEqual(expected)
      const before = { columns: ["n", "name"], rows: [[1, "a"], [2, "b"]] }
      expect(found(await execute(rows(both, first(1, "a"), first(2, "b"))))).toEqual(before)
    })
  }

  it("are read anew after an answer that ended among them", async () => {
    const { execute } = openPrepared()
    const refused = await execute(prepared(1, both), answer(Buffer.from([2]), n, refusal))
    expect(refused).toMatchObject({ _tag: "Failure", cause: { error: { errno: 1317 } } })
    const known = { columns: ["n", "name"], rows: [[1, "a"]] }
    expect(found(await execute(rows(both, first(1, "a"))))).toEqual(known)
    expect(await execute(answer(Buffer.from([2]), n, refusal))).toMatchObject({ _tag: "Failure" })
    expect(found(await execute(rows(both, first(1, "a"))))).toEqual(known)
  })
})

describe("the command of a prepared statement", () => {
  const oneRow = rows([name], binaryRow(1, counted("kept?")))
  const done = answer(Buffer.from([0, 1, 0, 2, 0, 0, 0]))

  it("is one for all executions, with and without rows", async () => {
    const { execute, raw } = openPrepared()
    await execute(prepared(1, []), done)
    const command = commandOf(raw, select)
    expect(await execute(done)).toMatchObject({ _tag: "Success", value: { affectedRows: 1, rows: [] } })
    expect(found(await execute(oneRow))).toEqual({ columns: ["name"], rows: [["kept?"]] })
    expect(await execute(done)).toMatchObject({ _tag: "Success", value: { columns: [], rows: [] } })
    await execute()
    expect((raw._command as Answer | undefined)?.query).toBe(command)
  })

  const ends = {
    "has been read": oneRow,
    "was refused after it": answer(Buffer.from([1]), name, end, binaryRow(1, counted("kept?")), refusal)
  }
  for (const [what, bytes] of Object.entries(ends)) {
    it(`keeps no row of an answer that ${what}`, async () => {
      const { execute, raw } = openPrepared()
      await execute(prepared(1, [name]), oneRow)
      const command = commandOf(raw, select)
      expect(await execute(bytes)).toBeDefined()
      expect(command).toMatchObject({ _rows: [], _fields: [], _currentRows: null, parameters: [] })
    })
  }

  it("keeps no value of an execution that could not be written", async () => {
    const { connection, raw, stream } = open()
    const exits: Array<Exit.Exit<Result, unknown>> = []
    const execute = async (value: unknown, ...answers: ReadonlyArray<Buffer>): Promise<void> => {
      connection.run(statement("DO ?", { params: [value] }), (exit) => exits.push(exit))
      for (const bytes of answers) stream.push(bytes)
      for (let turns = 0; turns < 5; turns++) await setImmediate()
    }
    await execute("a", prepared(1, [], [column("?")]), done)
    const command = commandOf(raw, statement("DO ?"))
    const secret = {
      toJSON: () => {
        throw new Error("it was changed")
      }
    }
    await execute(secret)
    expect(exits).toMatchObject([{ _tag: "Success" }, { cause: { error: { _tag: "ParameterError" } } }])
    expect(command).toMatchObject({ parameters: [] })
    await execute("b", done)
    expect(exits[2]).toMatchObject({ _tag: "Success" })
  })
})
