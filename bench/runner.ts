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

type Gathered = Readonly<Record<string, Array<Sample>>>

/** Opens every arm, warms all up, measures, closes. */
const runProcesses = async (work: Work, target: Target, rounds: number, samples: Gathered): Promise<void> => {
  const names = Object.keys(work.arms)
  const children = names.map(start)
  try {
    await Promise.all(names.map((arm, at) => ask(children[at]!, { open: { work: work.name, arm, target } })))
    for (const child of children) await ask(child, "warm up")
    for (let round = 0; round < rounds; round++) {
      for (const [at, arm] of names.entries()) {
        const sample = await ask(children[at]!, "round")
        if (sample !== undefined) samples[arm]!.push(sample)
      }
    }
    for (const child of children) await ask(child, "close")
  } finally {
    for (const child of children) child.kill("SIGKILL")
  }
}

/** All rounds of a work, among as many processes for each arm as it asks for, one after the other. */
export const runWork = async (work: Work, target: Target, rounds: number): Promise<Samples> => {
  const samples: Gathered = Object.fromEntries(Object.keys(work.arms).map((name) => [name, []]))
  const processes = Math.min(work.processes ?? 1, rounds)
  for (let at = 0; at < processes; at++) {
    await runProcesses(work, target, Math.floor((rounds + at) / processes), samples)
  }
  return samples
}
