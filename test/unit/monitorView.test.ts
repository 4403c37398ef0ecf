import * as Option from "effect/Option"
import { stripVTControlCharacters } from "node:util"
import stringWidth from "string-width"
import { describe, expect, it } from "vitest"
import { ConnectionError } from "../../src/DbError.js"
import { frame } from "../../src/internal/monitorView.js"
import { PoolEvent } from "../../src/PoolEvents.js"
import { holder, view, watched } from "../support/monitorViews.js"

const pool = "db:3306/shop"

/** What a frame shows, without colors, as one text. */
const shown = (of: Parameters<typeof frame>[0], columns: number, rows: number): string =>
  `\n${frame(of, { columns, rows }, false).join("\n")}\n`

const busy = watched({
  idle: 2,
  heldClean: 3,
  heldWithState: 2,
  heldExplicitly: 1,
  running: 4,
  opening: 1,
  waiting: 5,
  oldestWaitMillis: 1_234
}, {
  trend: { waits: [0, 1, 5, 40, 80, 1_234], rates: [0, 200, 400, 1_000, 2_000, 1_500] },
  holders: [
    holder({ fiber: "#7", session: "transaction", running: true }),
    holder({
      heldMillis: 65_000,
      kind: "connection",
      origin: Option.some("db.connection\n    at report (shop.ts:12:3)")
    })
  ]
})
const events = [
  PoolEvent.TakenBack({ pool, at: 99_900, connection: "34", fiber: "#12" }),
  PoolEvent.Lost({ pool, at: 90_000, connection: "31", reason: "read ECONNRESET" })
]

describe("a frame", () => {
  it("of a pool that nobody has used", () => {
    expect(shown(view([watched()]), 80, 20)).toBe(`
db:3306/shop  0 of 10 connections, 0 running
········································
█ 0 explicit  ▓ 0 with state  ▒ 0 clean  ░ 0 idle  · 10 not open
waiting  nobody
wait                                               0 ms, at most 0 ms
served                                             0/s, at most 0/s

Holders (0)

Events
`)
  })

  it("of a busy pool: states, queue, course, the oldest holder first, the latest event first", () => {
    expect(shown(view([busy], events), 80, 20)).toBe(`
db:3306/shop  9 of 10 connections, 4 running
████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░++++····
█ 1 explicit  ▓ 2 with state  ▒ 3 clean  ░ 2 idle  + 1 opening  · 1 not open
waiting  ●●●●● 5, the oldest for 1.2 s
wait                                        ▁▂▂▂▂█ 1.2 s, at most 1.2 s
served                                      ▁▂▃▅█▇ 1,500/s, at most 2,000/s

Holders (2)
   1 min 5 s  #12      connection 34, explicit  db.connection at report (shop.t…
       1.2 s  #7       connection 34, transaction, running

Events
      100 ms  connection 34 taken back from #12
      10.0 s  connection 31 lost: read ECONNRESET
`)
  })

  it("in a terminal of 40 by 10 has everything, with fewer words", () => {
    expect(shown(view([busy], events), 40, 10)).toBe(`
db:3306/shop  9/10, 4 running
████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░++++····
█ 1  ▓ 2  ▒ 3  ░ 2  + 1  · 1
waiting  ●●●●● 5, the oldest for 1.2 s
wait                  ▁▂▂▂▂█ 1.2 s
served                ▁▂▃▅█▇ 1,500/s
Holders (2)
   1 min 5 s  #12      connection 34, e…
Events
      100 ms  connection 34 taken back …
`)
  })

  const wide = watched({
    pool: "報告データベース/日本語の名前",
    max: 200,
    idle: 1,
    heldClean: 150,
    busy: 2,
    phase: "Draining"
  })

  it("of two pools, one with a name of wide characters and more connections than columns", () => {
    expect(shown(view([busy, wide], events), 60, 24)).toBe(`
db:3306/shop  9 of 10 connections, 4 running
████▓▓▓▓▓▓▓▓▒▒▒▒▒▒▒▒▒▒▒▒░░░░░░░░++++····
█ 1  ▓ 2  ▒ 3  ░ 2  + 1  · 1
waiting  ●●●●● 5, the oldest for 1.2 s
wait                    ▁▂▂▂▂█ 1.2 s, at most 1.2 s
served                  ▁▂▃▅█▇ 1,500/s, at most 2,000/s

報告データベース/日本語の名前  draining, 153/200, 0 running
▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒░~··············
█ 0  ▓ 0  ▒ 150  ░ 1  ~ 2  · 47
waiting  nobody
wait                           0 ms, at most 0 ms
served                         0/s, at most 0/s

Holders (2)
   1 min 5 s  db:3306/shop     #12      connection 34, expl…
       1.2 s  db:3306/shop     #7       connection 34, tran…

Events
      100 ms  db:3306/shop     connection 34 taken back fro…
      10.0 s  db:3306/shop     connection 31 lost: read ECO…
`)
  })

  it("of more pools than have room in full: a line for each", () => {
    expect(shown(view([busy, wide], events), 60, 12)).toBe(`
db:3306/shop         ██▓▓▓▓▒▒▒▒▒▒░░░░++·· 5 waiting
報告データベース/日… ▒▒▒▒▒▒▒▒▒▒▒▒▒▒░~···· 0 waiting

Holders (2)
   1 min 5 s  db:3306/shop     #12      connection 34, expl…
       1.2 s  db:3306/shop     #7       connection 34, tran…

Events
      100 ms  db:3306/shop     connection 34 taken back fro…
      10.0 s  db:3306/shop     connection 31 lost: read ECO…
`)
  })

  it("of more pools than there are rows: the rest is counted", () => {
    const many = Array.from({ length: 9 }, (_, at) => watched({ pool: `pool ${at + 1}`, max: 2, heldClean: 1 }))
    expect(shown(view(many), 90, 4)).toBe(`
pool 1                         ▒▒▒▒····                       1 held, 0 waiting, 0/s
pool 2                         ▒▒▒▒····                       1 held, 0 waiting, 0/s
pool 3                         ▒▒▒▒····                       1 held, 0 waiting, 0/s
and 6 more pools
`)
  })

  it("cuts long lists and counts the rest; the one that is short leaves its room to the other", () => {
    const holders = Array.from({ length: 20 }, (_, at) => holder({ fiber: `#${at}`, heldMillis: at * 1_000 }))
    expect(shown(view([watched({ heldClean: 10 }, { holders })], events), 60, 16)).toBe(`
db:3306/shop  10 of 10 connections, 0 running
▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
█ 0 explicit  ▓ 0 with state  ▒ 10 clean  ░ 0 idle
waiting  nobody
wait                           0 ms, at most 0 ms
served                         0/s, at most 0/s

Holders (20)
      19.0 s  #19      connection 34
      18.0 s  #18      connection 34
      17.0 s  #17      connection 34
              and 17 more

Events
      100 ms  connection 34 taken back from #12
      10.0 s  connection 31 lost: read ECONNRESET
`)
  })

  it("tells every kind of event, and how often it came", () => {
    const error = new ConnectionError({ reason: "refused", target: "db:3306", isRetryable: true })
    const all = [
      PoolEvent.Opened({ pool, at: 99_000, connection: "1", connectMillis: 12 }),
      PoolEvent.ConnectFailed({ pool, at: 99_000, error }),
      PoolEvent.Closed({ pool, at: 99_000, connection: "1", reason: "idle", ageMillis: 61_000 }),
      PoolEvent.Lost({ pool, at: 99_000, connection: "1", reason: "gone" }),
      PoolEvent.Recovered({ pool, at: 99_000, downMillis: 3_200, failures: 1 }),
      PoolEvent.TakenBack({ pool, at: 99_000, connection: "1", fiber: "#2" }),
      PoolEvent.Exhausted({ pool, at: 99_000, waiting: 1, held: 10, max: 10 }),
      PoolEvent.LeakSuspected({
        pool,
        at: 99_000,
        connection: "1",
        fiber: "#2",
        heldMillis: 5_000,
        holding: "an explicit connection",
        origin: Option.some("db.connection\n    at Generator.next (<anonymous>)\n    at f (a.ts:1:1)")
      })
    ]
    const of = { ...view([watched()]), events: all.map((event, at) => ({ event, times: at === 5 ? 1_234 : 1 })) }
    const lines = frame(of, { columns: 100, rows: 40 }, false)
    expect(`\n${lines.slice(lines.indexOf("Events") + 1).join("\n")}\n`).toBe(`
       1.0 s  connection 1 opened in 12 ms
       1.0 s  connect failed: Cannot connect to db:3306: refused
       1.0 s  connection 1 closed (idle) at the age of 1 min 1 s
       1.0 s  connection 1 lost: gone
       1.0 s  recovered after 3.2 s and 1 failed connect
       1.0 s  connection 1 taken back from #2 (×1,234)
       1.0 s  exhausted: all 10 connections in use, 1 waiting
       1.0 s  leak suspected: #2 has held connection 1 for 5.0 s, db.connection at f (a.ts:1:1)
`)
  })

  it("lets no text from outside steer the terminal", () => {
    const evil = "a\u001b[2J\u0007\r\nb\u009b1mc\u202ed"
    const of = view(
      [watched({ pool: evil, heldClean: 1 }, {
        holders: [holder({ fiber: evil, connection: evil, origin: Option.some(evil) })]
      })],
      [PoolEvent.Lost({ pool: evil, at: 0, connection: evil, reason: evil })]
    )
    const text = frame(of, { columns: 200, rows: 20 }, false).join("\n")
    expect(text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\u202e]/u)
    expect(text).toContain("a [2J b 1mc d  1 of 10 connections")
  })

  it("has colors when it is asked for them, and the same words", () => {
    const of = view([busy], events)
    const plain = frame(of, { columns: 80, rows: 20 }, false)
    const colored = frame(of, { columns: 80, rows: 20 }, true)
    expect(plain.join("")).not.toContain("\u001b")
    expect(colored[1]).toContain("\u001b[33m▓▓▓▓▓▓▓▓\u001b[39m")
    expect(colored.map(stripVTControlCharacters)).toEqual(plain)
  })

  it("never has more lines or wider ones than the terminal, whatever its size", () => {
    const holders = Array.from({ length: 12 }, (_, at) => holder({ heldMillis: at * 997 }))
    const some = [busy, wide, watched({ heldClean: 9 }, { holders })]
    for (const pools of [some.slice(0, 1), some.slice(1, 2), some]) {
      for (const columns of [1, 2, 3, 8, 13, 14, 20, 24, 31, 40, 59, 60, 79, 133]) {
        for (const rows of [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 15, 16, 21, 30]) {
          const lines = frame(view(pools, events), { columns, rows }, false)
          expect(lines.length, `${columns} x ${rows}`).toBeLessThanOrEqual(rows)
          const widest = Math.max(...lines.map((line) => stringWidth(line)))
          expect(widest, `${columns} x ${rows}`).toBeLessThanOrEqual(columns)
        }
      }
    }
  })
})
