import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import { bindNamed, type Dialect, scan } from "../../src/internal/sqlText.js"

const dialects: ReadonlyArray<Dialect> = ["mysql", "sqlite"]

/** Fragments that open, close and escape things, so that random texts reach every branch. */
const fragment = fc.oneof(
  fc.constantFrom("'", "\"", "`", "[", "]", "\\", "--", "-- ", "#", "/*", "/*!", "/*!50000 ", "/*M!", "*/", "\n", ";"),
  fc.constantFrom(
    "?",
    ":",
    ":a",
    "::",
    ":=",
    "@",
    "@@",
    "@'",
    "$",
    ".",
    "(",
    ")",
    "1",
    "1e",
    "0x",
    " ",
    "select",
    "\0"
  ),
  fc.string({ unit: "binary", maxLength: 3 })
)
const text = fc.array(fragment, { maxLength: 40 }).map((parts) => parts.join(""))

const words = (sql: string, dialect: Dialect): ReadonlyArray<string> =>
  scan(sql, dialect).tokens.filter((token) => token.kind === "word").map((token) => token.text)

const kinds = (sql: string, dialect: Dialect): string => scan(sql, dialect).tokens.map((token) => token.kind).join(" ")

describe("scan", () => {
  it.each(
    [
      ["mysql", "a 'b' \"c\" `d` e", "A E"],
      ["mysql", "a 'it''s b' c", "A C"],
      ["mysql", "a 'it\\'s b' c", "A C"],
      ["mysql", "a `b\\` c", "A C"],
      ["sqlite", "a 'b\\' c", "A C"],
      ["sqlite", "a [b'c] d", "A D"],
      ["mysql", "a # b\nc", "A C"],
      ["mysql", "a -- b\nc", "A C"],
      ["mysql", "a --\tb", "A"],
      ["mysql", "a --", "A"],
      ["mysql", "a --b", "A B"],
      ["sqlite", "a --b\nc", "A C"],
      ["mysql", "a/*b*/c", "A C"],
      ["mysql", "a /*! b */ c", "A B C"],
      ["mysql", "a /*!50000b */ c", "A B C"],
      ["mysql", "a /*!100100 b */ c", "A B C"],
      ["mysql", "a /*M!100100 b */ c", "A B C"],
      ["mysql", "a /*+ b */ c", "A C"],
      ["sqlite", "a /*! b */ c", "A C"],
      ["mysql", "a /* 'b */ c", "A C"],
      ["mysql", "1abc 2 0x1F 0xZZ 1e5 1.5e3 .5", "1ABC 0XZZ"],
      ["mysql", "x.1e5", "X 1E5"]
    ] as const
  )("in %s, %j has the words %j", (dialect, sql, expected) => {
    expect(words(sql, dialect).join(" ")).toBe(expected)
  })

  it("tells user variables, system variables and assignments apart", () => {
    expect(kinds("SELECT@x:=1", "mysql")).toBe("word variable mark number")
    expect(kinds("@'a b' @`c` @d.e @@f @@session.g", "mysql")).toBe(
      "variable variable variable system system mark word"
    )
  })

  it("takes SQLite's own parameters for variables, and its numbered ones for placeholders", () => {
    expect(kinds("@a $b ?12 :c", "sqlite")).toBe("variable variable placeholder named")
  })

  it.each([
    "SELECT 'abc",
    "SELECT \"abc",
    "SELECT `abc",
    "SELECT 1 /* abc",
    "SELECT 1 /*! abc",
    "SELECT /*!99999 ' */ x -- '",
    "SELECT /*M! 1 */ 2",
    "SELECT /*! 1 /* 2 */ 3 */",
    "SELECT 'C:\\', a, b \\",
    "SELECT 1 -- \0, 2"
  ])("doubts %j", (sql) => {
    expect(scan(sql, "mysql").doubtful).toBe(true)
  })

  it("does not doubt a complete text", () => {
    const sql = "SELECT 'a', \"b\", `c` /* d */ FROM t /*! FORCE INDEX (i) */ WHERE x = 'it\\'s' -- '\n"
    expect(scan(sql, "mysql").doubtful).toBe(false)
  })

  it("does not take a foreign letter for one of a keyword", () => {
    expect(words("ſelect LOC\u212a", "mysql")).toEqual(["ſelect", "LOC\u212a"])
  })

  it("terminates on any text, with tokens in order and inside it", () => {
    fc.assert(
      fc.property(text, fc.constantFrom(...dialects), (sql, dialect) => {
        let end = 0
        for (const token of scan(sql, dialect).tokens) {
          expect(token.start).toBeGreaterThanOrEqual(end)
          expect(token.end).toBeGreaterThan(token.start)
          end = token.end
        }
        expect(end).toBeLessThanOrEqual(sql.length)
      }),
      { numRuns: 2000 }
    )
  })
})

describe("bindNamed", () => {
  it.each(
    [
      ["SELECT :a", "SELECT ?", ["a"]],
      ["SELECT :a, :b, :a", "SELECT ?, ?, ?", ["a", "b", "a"]],
      ["WHERE x=:x AND (y IN(:y_1,:y2))", "WHERE x=? AND (y IN(?,?))", ["x", "y_1", "y2"]],
      ["SELECT ':a', \":b\", `:c` -- :d\n, :e /* :f */", "SELECT ':a', \":b\", `:c` -- :d\n, ? /* :f */", ["e"]],
      ["SELECT '10:20', :t", "SELECT '10:20', ?", ["t"]],
      ["SELECT '10:20:30' = :t AND 10:20", "SELECT '10:20:30' = ? AND 10:20", ["t"]],
      ["SELECT @x:=:v, @y := 1", "SELECT @x:=?, @y := 1", ["v"]],
      ["SELECT a::text, a:b", "SELECT a::text, a:b", []],
      ["SELECT ?, :a", "SELECT ?, ?", ["a"]],
      ["here:BEGIN", "here:BEGIN", []],
      ["SELECT /*! :a */ 1", "SELECT /*! ? */ 1", ["a"]],
      ["SELECT d->'$.a:b', d->>:p", "SELECT d->'$.a:b', d->>?", ["p"]],
      ["SELECT :größe", "SELECT ?", ["größe"]],
      ["SELECT :1, :", "SELECT :1, :", []]
    ] as const
  )("turns %j into %j", (sql, bound, names) => {
    expect(bindNamed(sql, "mysql")).toEqual({ sql: bound, names })
  })

  it("knows SQLite's brackets and comments", () => {
    expect(bindNamed("SELECT [:a], :b --:c\n# :d", "sqlite")).toEqual({
      sql: "SELECT [:a], ? --:c\n# ?",
      names: ["b", "d"]
    })
  })

  it("leaves a text without named parameters unchanged", () => {
    fc.assert(
      fc.property(text, fc.constantFrom(...dialects), (sql, dialect) => {
        const { names, sql: bound } = bindNamed(sql, dialect)
        if (names.length === 0) expect(bound).toBe(sql)
        expect(bindNamed(sql.replaceAll(":", ";"), dialect)).toEqual({ sql: sql.replaceAll(":", ";"), names: [] })
      }),
      { numRuns: 1000 }
    )
  })

  it("puts exactly one placeholder for each name", () => {
    const placeholders = (sql: string): number =>
      scan(sql, "mysql").tokens.filter(({ kind }) => kind === "placeholder").length
    fc.assert(
      fc.property(text, (sql) => {
        const { names, sql: bound } = bindNamed(sql, "mysql")
        expect(placeholders(bound)).toBe(placeholders(sql) + names.length)
      }),
      { numRuns: 1000 }
    )
  })
})
