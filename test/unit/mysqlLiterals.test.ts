/** What a text looks like with its values written into it, read by a small reader of the server's rules. */
import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as fc from "fast-check"
import { writeStatement, type Writing } from "../../src/internal/mysqlLiterals.js"
import { analyze } from "../../src/internal/sessionState.js"

const plain: Writing = { offsetMillis: 0, plain: true }
const careful: Writing = { offsetMillis: 0, plain: false }

const write = (sql: string, params: ReadonlyArray<unknown>, writing = plain) =>
  writeStatement({ sql, params, traits: analyze(sql, "mysql") }, writing)
const written = (sql: string, params: ReadonlyArray<unknown>, writing = plain) =>
  Either.getOrThrow(write(sql, params, writing))

/** The string that a server reads at the start of the text, and what comes after it. */
const readString = (text: string, { escapes }: { readonly escapes: boolean }): readonly [string, string] => {
  const binary = /^_utf8mb4 x'([0-9a-f]*)'/.exec(text)
  if (binary !== null) {
    return [Buffer.from(binary[1] ?? "", "hex").toString("utf8"), text.slice(binary[0].length)]
  }
  expect(text[0]).toBe("'")
  let value = ""
  let at = 1
  while (at < text.length) {
    const letter = text.charAt(at)
    const next = text.charAt(at + 1)
    if (escapes && letter === "\\") {
      value += next
      at += 2
    } else if (letter === "'" && next !== "'") {
      return [value, text.slice(at + 1)]
    } else {
      value += letter
      at += letter === "'" ? 2 : 1
    }
  }
  throw new Error("the string does not end")
}

const anyString = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom("'", "\\", "\"", "\0", "?", ";", "-", "😀", "x", " ", "\n") })
)

describe("a string", () => {
  it("is read as it was by a server that escapes with backslashes, and nothing of it is code", () => {
    fc.assert(fc.property(anyString, anyString, (first, second) => {
      const text = written("SELECT ?, ? FROM t", [first, second])
      const [one, rest] = readString(text.slice("SELECT ".length), { escapes: true })
      const [two, end] = readString(rest.slice(", ".length), { escapes: true })
      expect([one, two, end]).toEqual([first, second, " FROM t"])
    }))
  })

  it("is the same for a server that reads in whatever way, when that is not the default's", () => {
    fc.assert(fc.property(anyString, fc.boolean(), (value, escapes) => {
      const text = written("SELECT ?", [value], careful)
      expect(text).toMatch(/^[\x20-\x7e]*$/)
      expect(readString(text.slice("SELECT ".length), { escapes })).toEqual([
        Buffer.from(value, "utf8").toString("utf8"),
        ""
      ])
    }))
  })

  it("is quoted once, and a pattern's signs are left alone", () => {
    expect(written("SELECT ?", ["it's 100%_"])).toBe("SELECT 'it''s 100%_'")
    expect(written("SELECT ?", ["a\\b"])).toBe("SELECT 'a\\\\b'")
    expect(written("SELECT ?", [""], careful)).toBe("SELECT _utf8mb4 x''")
  })
})

describe("a value that has no text any more", () => {
  it("is refused", () => {
    const circular: Record<string, unknown> = {}
    circular["self"] = circular
    for (const value of [circular, { toJSON: () => undefined }]) {
      expect(write("SELECT ?", [value])).toMatchObject({ _tag: "Left", left: { _tag: "ParameterError" } })
    }
  })
})

describe("another value", () => {
  it.each<[unknown, string]>([
    [null, "NULL"],
    [true, "true"],
    [false, "false"],
    [0, "0"],
    [1.5, "1.5"],
    [1e21, "1e+21"],
    [5e-324, "5e-324"],
    [2n ** 64n - 1n, "18446744073709551615"],
    [new Uint8Array(0), "x''"],
    [Buffer.from([0, 39, 92, 255]), "x'00275cff'"],
    [new Uint8Array([1, 2, 3, 4]).subarray(1, 3), "x'0203'"],
    [new Date("2024-02-29T12:34:56.789Z"), "'2024-02-29 12:34:56.789'"],
    [new Date("0099-01-02T00:00:00Z"), "'0099-01-02 00:00:00.000'"]
  ])("is written so that it is read as the same: %s", (value, expected) => {
    expect(written("SELECT ?", [value])).toBe(`SELECT ${expected}`)
    expect(written("SELECT ?", [value], careful)).toBe(`SELECT ${expected}`)
  })

  it("that is an array or an object is JSON, never a list or a condition", () => {
    expect(written("SELECT ?", [[1, "a'b"]])).toBe("SELECT '[1,\"a''b\"]'")
    expect(written("SELECT ?", [{ password: 1 }])).toBe("SELECT '{\"password\":1}'")
    expect(written("SELECT ?", [{ a: "\\" }])).toBe("SELECT '{\"a\":\"\\\\\\\\\"}'")
  })

  it("that is negative begins no comment after a minus sign", () => {
    expect(written("SELECT 5-?", [-3])).toBe("SELECT 5- -3")
    expect(written("SELECT 5-?", [-3n])).toBe("SELECT 5- -3")
    fc.assert(fc.property(fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.bigInt()), (value) => {
      expect(written("SELECT 1-?, 2", [value])).not.toContain("--")
    }))
  })

  it("that is a Date is written in the session's zone, to the millisecond", () => {
    const moment = new Date("2024-12-31T23:30:00.001Z")
    expect(written("SELECT ?", [moment], { offsetMillis: 3_600_000, plain: true })).toBe(
      "SELECT '2025-01-01 00:30:00.001'"
    )
    expect(written("SELECT ?", [moment], { offsetMillis: -41_400_000, plain: false })).toBe(
      "SELECT '2024-12-31 12:00:00.001'"
    )
  })
})

describe("a text", () => {
  it("is sent as it is when it has no parameters", () => {
    for (const sql of ["SELECT 'x", "SELECT '?' /*!50000 , 1 */", "SELECT 'a\\'"]) {
      expect(written(sql, [])).toBe(sql)
      expect(written(sql, [], careful)).toBe(sql)
    }
  })

  it("has values where its parameters are, and nowhere else", () => {
    const sql = "SELECT '?', \"?\", `?`, /* ? */ ? -- ?\n, ? # ?\n; SELECT ?"
    expect(written(sql, [1, "?", 3])).toBe("SELECT '?', \"?\", `?`, /* ? */ 1 -- ?\n, '?' # ?\n; SELECT 3")
  })

  it("is refused when it is uncertain where its parameters are, or with more or fewer values", () => {
    const refused = [
      "SELECT ?, 'x",
      "SELECT ?, \"x",
      "SELECT ?, `x",
      "SELECT ? /* x",
      "SELECT /*!50000 ? */",
      "SELECT ? /*M! x */",
      "SELECT ? \\",
      "SELECT ?, ?",
      "SELECT '?'"
    ]
    for (const sql of refused) {
      const result = write(sql, ["a secret"])
      expect(Either.getLeft(result), sql).toMatchObject({ value: { _tag: "ParameterError", statement: sql } })
      expect(JSON.stringify(result)).not.toContain("a secret")
    }
  })

  it("with a backslash is refused where a backslash may not escape", () => {
    expect(Either.isRight(write("SELECT 'a\\'', ?", [1]))).toBe(true)
    expect(Either.isLeft(write("SELECT 'a\\'', ?", [1], careful))).toBe(true)
    expect(Either.isLeft(write("SELECT 'a\\', ?", [1], careful))).toBe(true)
  })

  it("with a backslash in double quotes is refused: under ANSI_QUOTES, which no server reports, that is a name's", () => {
    expect(Either.isLeft(write("SELECT 1 AS \"a\\\", 'x' AS \"?\" -- \"", ["v"]))).toBe(true)
  })
})
