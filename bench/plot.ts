/** The figures as an SVG: for each work a bar for each arm, with its spread. */
import type { Figure, Outcome } from "./report.js"

const left = 215
const width = 760
const bar = 16
const gap = 26

const escape = (text: string): string => text.replace(/[&<>"]/g, (mark) => `&#${mark.charCodeAt(0)};`)

const text = (x: number, y: number, content: string, style = ""): string =>
  `<text x="${x}" y="${y}" ${style}>${escape(content)}</text>`

/** One bar, from nothing to the median, and a line from the lower to the upper quartile. */
const row = (arm: string, figure: Figure, top: number, scale: number): string => {
  const own = arm === "Db" || arm === "Db, dictionaries" || arm === "SqlClient" || arm.startsWith("effect-sql-pool")
  const [low, middle, high] = [figure.low, figure.median, figure.high].map((value) => left + value * scale) as [
    number,
    number,
    number
  ]
  const centre = top + bar / 2
  return [
    text(left - 8, top + 12, arm, `text-anchor="end"${own ? ` font-weight="bold"` : ""}`),
    `<rect x="${left}" y="${top}" width="${(middle - left).toFixed(1)}" height="${bar}" fill="${
      own ? "#3a7d44" : "#9aa5b1"
    }"/>`,
    `<path d="M${low.toFixed(1)} ${centre}H${high.toFixed(1)}" stroke="#111" stroke-width="2"/>`,
    text(
      Math.round(Math.max(middle, high)) + 6,
      top + 12,
      figure.median.toLocaleString("en", { maximumSignificantDigits: 3 })
    )
  ].join("\n")
}

const chart = ({ arms, measures, title }: Outcome, top: number): { readonly svg: string; readonly height: number } => {
  const measure = measures[0]!
  const rows = Object.entries(arms).map(([arm, figures]) => [arm, figures[measure.key]!] as const)
  const most = Math.max(...rows.map(([, { high }]) => high))
  const scale = (width - left - 70) / most
  const heading = text(
    8,
    top + 14,
    `${title}: ${measure.title} [${measure.unit}], less is better`,
    `font-weight="bold"`
  )
  const bars = rows.map(([arm, figure], at) => row(arm, figure, top + 26 + at * (bar + 6), scale))
  return { svg: [heading, ...bars].join("\n"), height: 26 + rows.length * (bar + 6) + gap }
}

export const plot = (outcomes: ReadonlyArray<Outcome>, versions: string): string => {
  let top = 30
  const charts = outcomes.map((outcome) => {
    const { height, svg } = chart(outcome, top)
    top += height
    return svg
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" font-family="sans-serif" font-size="12">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text(8, 18, versions, `fill="#555"`),
    ...charts,
    "</svg>",
    ""
  ].join("\n")
}
