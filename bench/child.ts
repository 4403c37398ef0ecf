/** The process of one arm: opens it, then does a round whenever it is told to. */
import type { Target } from "./model.js"
import { findWork } from "./works/index.js"

export type Order =
  | { readonly open: { readonly work: string; readonly arm: string; readonly target: Target } }
  | "warm up"
  | "round"
  | "close"

const fail = (error: unknown): never => {
  console.error(error)
  process.exit(1)
}

let arm: Awaited<ReturnType<ReturnType<typeof findWork>["arms"][string]>> | undefined

const obey = async (order: Order): Promise<unknown> => {
  if (order === "warm up") {
    await arm?.warmUp()
    return undefined
  }
  if (order === "round") return arm?.round()
  if (order === "close") return arm?.close()
  const { open } = order
  arm = await findWork(open.work).arms[open.arm]?.(open.target)
  return undefined
}

process.on("message", (order: Order) => {
  obey(order).then((answer) => process.send?.({ answer }), fail)
})
process.on("disconnect", () => process.exit())
