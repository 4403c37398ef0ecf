/** All works, in the order of the table. */
import type { Work } from "../model.js"
import { borrow } from "./borrow.js"
import { crowd } from "./crowd.js"
import { latency } from "./latency.js"
import { spike } from "./spike.js"
import { statements } from "./statements.js"

export const works: ReadonlyArray<Work> = [...statements, ...borrow, ...spike, ...crowd, ...latency]

export const findWork = (name: string): Work => {
  const found = works.find((work) => work.name === name)
  if (found === undefined) throw new Error(`no such work: ${name}`)
  return found
}
