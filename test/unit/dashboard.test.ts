/** The Grafana dashboard asks for what is exported, and for nothing else. */
import { describe, expect, it } from "@effect/vitest"
import type { SyntaxNode } from "@lezer/common"
import { parser } from "@prometheus-io/lezer-promql"
import { Effect, Stream } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as Db from "../../src/Db.js"
import * as PoolMetrics from "../../src/PoolMetrics.js"
import { joinAfter, withPool } from "../support/poolFixture.js"
import { scrape } from "../support/scrape.js"

interface Target {
  readonly expr: string
  readonly legendFormat: string
}

interface Panel {
  readonly id: number
  readonly title: string
  readonly description: string
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number }
  readonly targets: ReadonlyArray<Target>
}

interface Dashboard {
  readonly panels: ReadonlyArray<Panel>
  readonly templating: { readonly list: ReadonlyArray<{ readonly name: string; readonly definition?: string }> }
}

const file = fileURLToPath(new URL("../../dashboards/grafana.json", import.meta.url))
const dashboard = JSON.parse(readFileSync(file, "utf8")) as Dashboard

/** What Grafana puts in for its variables. */
const filledIn = (expr: string): string => expr.replaceAll("$__rate_interval", "5m").replaceAll("$pool", ".*")

/** The labels that each metric of an expression is asked for. */
const asked = (expr: string): ReadonlyArray<{ readonly metric: string; readonly labels: ReadonlyArray<string> }> => {
  const text = filledIn(expr)
  const textOf = ({ from, to }: SyntaxNode): string => text.slice(from, to)
  const namesIn = (node: SyntaxNode | null | undefined, kind: string): ReadonlyArray<string> => {
    const found: Array<string> = []
    node?.cursor().iterate((each) => {
      if (each.name === kind) found.push(textOf(each.node))
    })
    return found
  }
  const selectors: Array<SyntaxNode> = []
  parser.parse(text).iterate({
    enter: (node) => {
      if (node.type.isError) throw new Error(`no PromQL at ${node.from}: ${text}`)
      if (node.name === "VectorSelector") selectors.push(node.node)
    }
  })
  return selectors.map((selector) => {
    const groupings: Array<string> = []
    for (let around = selector.parent; around !== null; around = around.parent) {
      if (around.name === "AggregateExpr") groupings.push(...namesIn(around.getChild("AggregateModifier"), "LabelName"))
    }
    return {
      metric: namesIn(selector, "Identifier")[0] ?? "",
      labels: [...namesIn(selector, "LabelName"), ...groupings]
    }
  })
}

/** The labels of each series that Prometheus is told of, by its name. */
const seriesOf = (text: string): ReadonlyMap<string, ReadonlySet<string>> => {
  const found = new Map<string, Set<string>>()
  for (const [, name = "", labels = ""] of text.matchAll(/^([a-z_]+)\{(.*)\} \S+$/gm)) {
    const known = found.get(name) ?? new Set()
    for (const [, label = ""] of labels.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) known.add(label)
    found.set(name, known)
  }
  return found
}

/** What a pool exports that has had some traffic, failures included. */
const exported = withPool({ poolSize: 2, name: "dashboard" }, ({ pool }) =>
  Effect.scoped(Effect.gen(function*() {
    yield* PoolMetrics.make(pool)
    const db = Db.make(pool)
    const traffic = Effect.all([
      db.value("SELECT id"),
      Effect.either(db.execute("FAIL")),
      Stream.runDrain(db.stream("ROWS 4"))
    ])
    yield* joinAfter(yield* Effect.fork(traffic), 60_000)
    return seriesOf((yield* scrape("dashboard")).text)
  })))

const targets = dashboard.panels.flatMap((panel) => panel.targets.map((target) => ({ ...target, title: panel.title })))

describe("the dashboard", () => {
  it.effect("asks only for metrics and labels that are exported", () =>
    Effect.gen(function*() {
      const series = yield* exported
      const wrong = targets.flatMap(({ expr, title }) =>
        asked(expr).flatMap(({ labels, metric }) => {
          const known = series.get(metric)
          if (known === undefined) return [`${title}: no ${metric}`]
          return labels.filter((label) => !known.has(label)).map((label) => `${title}: no ${label} of ${metric}`)
        })
      )
      expect(wrong).toEqual([])
    }))

  it("asks each panel for something, of the chosen pools", () => {
    expect(dashboard.panels.length).toBeGreaterThan(10)
    for (const { description, targets, title } of dashboard.panels) {
      expect([title, targets.length > 0, description.length > 0]).toEqual([title, true, true])
    }
    for (const { expr, title } of targets) {
      const all = asked(expr)
      expect([title, all.length]).toEqual([title, 1])
      expect([title, all[0]?.labels]).toEqual([title, expect.arrayContaining(["db_client_connection_pool_name"])])
    }
  })

  it("names its lines by labels that its queries leave", () => {
    for (const { expr, legendFormat, title } of targets) {
      const used = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label)
      const grouped = /sum by \(([^)]*)\)/.exec(expr)?.[1]?.split(", ") ?? []
      expect([title, used.filter((label) => !grouped.includes(label ?? ""))]).toEqual([title, []])
    }
  })

  it.effect("takes the names of the pools from a metric that has them", () =>
    Effect.gen(function*() {
      const series = yield* exported
      const definition = dashboard.templating.list.find(({ name }) => name === "pool")?.definition ?? ""
      const [, metric = "", label = ""] = /^label_values\((\w+), (\w+)\)$/.exec(definition) ?? []
      expect([...(series.get(metric) ?? [])]).toContain(label)
    }))

  it("has its panels side by side", () => {
    const cells = dashboard.panels.flatMap(({ gridPos: { h, w, x, y } }) =>
      Array.from({ length: h * w }, (_, at) => `${x + at % w},${y + Math.floor(at / w)}`)
    )
    expect(new Set(cells).size).toBe(cells.length)
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
  })
})

it("an expression that is none is found out", () => {
  expect(() => asked("sum by (le (x)")).toThrow("no PromQL")
  expect(asked("sum by (a) (rate(x_total{b=\"$pool\"}[$__rate_interval]))")).toEqual([
    { metric: "x_total", labels: ["b", "a"] }
  ])
})
