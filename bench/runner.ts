/** Runs the arms of a work in processes of their own, round by round: A B C A B C, so that noise meets all alike. */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import type { Order } from "./child.js"
import type { Sample, Target, Work } from "./model.js"

/** The samples of each arm, in the order of the rounds. */
export type Samples = Readonly<Record<string, ReadonlyArray<Sample>>>

const start = (): ChildProcess =>
  fork(fileURLToPath(new URL("../.cache/bench/bench/child.js", import.meta.url)), {
    execArgv: ["--expose-gc", "--disable-warning=ExperimentalWarning"],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })

const ask = async (child: ChildProcess, order: Order): Promise<Sample | undefined> => {
  const ended = new AbortController()
  try {
    const answer = once(child, "message", { signal: ended.signal })
    const gone = once(child, "exit", { signal: ended.signal }).then(() => {
      throw new Error("the process of an arm has ended")
    })
    child.send(order)
    const [message] = await Promise.race([answer, gone])
    return (message as { readonly answer?: Sample }).answer
  } finally {
    ended.abort()
  }
}

/** Opens every arm, warms all up, measures, closes. */
export const runWork = async (work: Work, target: Target, rounds: number): Promise<Samples> => {
  const names = Object.keys(work.arms)
  const children = names.map(start)
  const samples: Record<string, Array<Sample>> = Object.fromEntries(names.map((name) => [name, []]))
  try {
    for (const [at, arm] of names.entries()) await ask(children[at]!, { open: { work: work.name, arm, target } })
    for (const child of children) await ask(child, "warm up")
    for (let round = 0; round < rounds; round++) {
      for (const [at, arm] of names.entries()) {
        const sample = await ask(children[at]!, "round")
        if (sample !== undefined) samples[arm]!.push(sample)
      }
    }
    for (const child of children) await ask(child, "close")
    return samples
  } finally {
    for (const child of children) child.kill("SIGKILL")
  }
}
