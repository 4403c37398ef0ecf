import { describe, expect, it } from "vitest"
import { Timers } from "../../src/internal/timers.js"

/** A clock that is moved by hand, and what sleeps on it. */
const clock = () => {
  let now = 0
  let sleeps = 0
  const sleepers = new Set<{ readonly at: number; readonly then: () => void }>()
  const timers = new Timers(() => now, (millis, then) => {
    sleeps++
    const sleeper = { at: now + millis, then }
    sleepers.add(sleeper)
    return () => sleepers.delete(sleeper)
  })
  const moveTo = (to: number): void => {
    for (;;) {
      const next = [...sleepers].sort((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > to) break
      sleepers.delete(next)
      now = next.at
      next.then()
    }
    now = to
  }
  return { timers, moveTo, sleeping: () => sleepers.size, sleeps: () => sleeps, now: () => now }
}

describe("timers", () => {
  it("ring when they are due, the earliest first, however long each takes", () => {
    const { moveTo, now, timers } = clock()
    const rung: Array<string> = []
    const ring = (name: string) => () => void rung.push(`${name} at ${now()}`)
    timers.after(100, ring("a"))
    timers.after(30, ring("b"))
    moveTo(20)
    timers.after(100, ring("c"))
    timers.after(5, ring("d"))
    moveTo(1_000)
    expect(rung).toEqual(["d at 25", "b at 30", "a at 100", "c at 120"])
  })

  it("do not ring when they were cancelled, not even by one that is due at the same time", () => {
    const { moveTo, timers } = clock()
    const rung: Array<string> = []
    const cancelled = timers.after(10, () => rung.push("cancelled"))
    timers.after(10, () => {
      rung.push("first")
      cancelSecond()
    })
    const cancelSecond = timers.after(10, () => rung.push("second"))
    cancelled()
    cancelled()
    moveTo(100)
    expect(rung).toEqual(["first"])
  })

  it("may set another while they ring", () => {
    const { moveTo, now, timers } = clock()
    const rung: Array<number> = []
    const again = (): void => {
      rung.push(now())
      if (rung.length < 4) timers.after(10, again)
    }
    timers.after(10, again)
    moveTo(100)
    expect(rung).toEqual([10, 20, 30, 40])
  })

  it("are waited for by one sleeper, woken once in a duration however many are set and cancelled, and by none when there is none", () => {
    const { moveTo, sleeping, sleeps, timers } = clock()
    for (let at = 0; at < 1_000; at++) {
      moveTo(at)
      timers.after(100, () => expect.unreachable())()
      expect(sleeping()).toBe(1)
    }
    expect(sleeps()).toBeLessThanOrEqual(11)
    moveTo(2_000)
    expect(sleeping()).toBe(0)
  })
})
