/**
 * Draws a screen as SVG: `node docs/picture.mjs 100 30 < frame.ansi > docs/monitor.svg`, where the input is a real
 * screen with its colors, as `tmux capture-pane -e -p` gives it.
 */
import xterm from "@xterm/headless"
import { readFileSync } from "node:fs"

const [columns, rows] = process.argv.slice(2).map(Number)
const palette = ["#45475a", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#cba6f7", "#94e2d5", "#bac2de"]
const [background, foreground] = ["#1e1e2e", "#cdd6f4"]
const [wide, high, margin] = [8.4, 18, 14]

const terminal = new xterm.Terminal({ cols: columns, rows, convertEol: true, allowProposedApi: true })
await new Promise((done) => terminal.write(readFileSync(0, "utf8").trimEnd(), done))

const escape = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    // neighbouring spaces would be one
    .replaceAll(" ", "\u00a0")
const styleOf = (cell) =>
  [
    `fill="${cell.isFgPalette() ? palette[cell.getFgColor() % 8] : foreground}"`,
    ...(cell.isBold() ? [`font-weight="bold"`] : []),
    ...(cell.isDim() ? [`opacity="0.6"`] : [])
  ].join(" ")

/** Neighbours that look the same are one text, and its place is given, so that every font keeps the columns. */
const runsOf = (line) => {
  const runs = []
  for (let x = 0; x < columns; x++) {
    const cell = line.getCell(x)
    const chars = cell.getChars() || " "
    const style = styleOf(cell)
    const last = runs.at(-1)
    if (last?.style === style) last.text += chars
    else runs.push({ x, style, text: chars })
  }
  return runs.filter(({ text }) => text.trim() !== "")
}

const texts = Array.from({ length: rows }, (_, y) => {
  const line = terminal.buffer.active.getLine(y)
  return runsOf(line).map(({ style, text, x }) => {
    const shown = text.trim()
    const left = (margin + (x + text.search(/\S/)) * wide).toFixed(1)
    return `<text x="${left}" y="${margin + y * high + 13}" textLength="${(shown.length * wide).toFixed(1)}" ${style}>`
      + `${escape(shown)}</text>`
  })
}).flat()

const [width, height] = [Math.ceil(2 * margin + columns * wide), 2 * margin + rows * high]
process.stdout.write(
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" `
    + `font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="14">\n`
    + `<title>PoolMonitor in a terminal</title>\n`
    + `<rect width="100%" height="100%" rx="8" fill="${background}"/>\n${texts.join("\n")}\n</svg>\n`
)
