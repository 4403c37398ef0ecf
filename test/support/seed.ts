/** Dice for tests that do things at random: another seed in each run, printed, and given again with `FAULT_SEED`. */
import { PCGRandom } from "effect/Utils"

export interface Dice {
  readonly seed: number
  /** A whole number from 0 up to, not including, the limit. */
  readonly below: (limit: number) => number
  /** One of them. */
  readonly pick: <A>(of: ReadonlyArray<A>) => A
}

export const diceOf = (seed: number): Dice => {
  const random = new PCGRandom(seed)
  const below = (limit: number): number => Math.floor(random.number() * limit)
  return { seed, below, pick: (of) => of[below(of.length)]! }
}

/** Throws the seed, or takes it from the environment, and prints it. */
export const printedDice = (what: string): Dice => {
  const given = Number(process.env.FAULT_SEED)
  const seed = Number.isSafeInteger(given) && given > 0 ? given : 1 + Math.floor(Math.random() * 1_000_000_000)
  process.stdout.write(`${what}: FAULT_SEED=${seed}\n`)
  return diceOf(seed)
}
