import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { Node } from "../../src/internal/linkedList.js"
import type { Action, Condition, Policy, Slot, Waiter, Work } from "../../src/internal/poolModel.js"
import { PoolState } from "../../src/internal/poolState.js"

type Place = Slot<number, number>

const policy: Policy = { minimumIdle: 0, idleTimeout: 10_000, keepalive: 4_000, validateAfter: 500, patience: Infinity }

/** A cheap `expect`, for what is looked at some hundred thousand times. */
const ensure = (condition: boolean, what: string): void => {
  if (!condition) throw new Error(`broken: ${what}`)
}

/** The same elements, whatever their order unless both are arrays. */
const same = (left: Iterable<unknown>, right: Iterable<unknown>): boolean => {
  const [one, other] = [[...left], [...right]]
  if (one.length !== other.length) return false
  if (Array.isArray(left) && Array.isArray(right)) return one.every((element, at) => element === other[at])
  const set = new Set(other)
  return one.every((element) => set.has(element))
}

/**
 * The pool around the state, reduced to arrays: it writes down what the state asks for, and answers when the test says
 * so. Every action is checked when it comes.
 */
class World {
  readonly state: PoolState<number, number>
  now = 0
  readonly waiting: Array<{
    readonly lease: number
    readonly node: Node<Waiter<number>>
    readonly since: number
    readonly deadline: number
  }> = []
  /** When the pool's alarm rings, as `ConnectionPool` sets it. */
  alarm = Infinity
  readonly held = new Map<number, Place>()
  readonly lendable = new Set<number>()
  readonly opening: Array<Place> = []
  readonly preparing: Array<{ readonly slot: Place; readonly work: Work }> = []
  readonly closing: Array<Place> = []
  readonly open = new Set<number>()
  readonly ended = new Set<number>()
  readonly left = new Map<number, "granted" | "rejected" | "abandoned">()
  /** The actions since the last look, by name. */
  log: Array<string> = []
  backingOff = false
  connectFailed = false
  #leases = 0
  #connections = 0

  constructor(policy: Policy, max: number) {
    this.state = new PoolState(policy, max)
  }

  /** What was asked for since the last look. */
  look(): ReadonlyArray<string> {
    const log = this.log
    this.log = []
    return log
  }

  // --- events --------------------------------------------------------------------------------------------------------

  borrow(timeout = 1_000): number {
    const lease = ++this.#leases
    const slot = this.state.lend(lease, this.now)
    if (slot !== undefined) {
      this.left.set(lease, "granted")
      this.held.set(lease, slot)
      this.#expectGood(slot)
      this.log.push(`lend ${this.connectionOf(slot)}`)
      return lease
    }
    const deadline = this.now + timeout
    const [node, actions] = this.state.wait(lease, this.now, deadline)
    this.waiting.push({ lease, node, since: this.now, deadline })
    this.perform(actions)
    if (!this.left.has(lease)) this.alarm = Math.min(this.alarm, deadline, this.now + this.state.policy.patience)
    return lease
  }

  abandon(lease: number): void {
    const index = this.waiting.findIndex((waiter) => waiter.lease === lease)
    const waiter = this.waiting[index]
    if (waiter === undefined) return
    ensure(this.state.abandon(waiter.node), "who waits can leave")
    ensure(!this.state.abandon(waiter.node), "who has left cannot leave again")
    this.waiting.splice(index, 1)
    this.leave(lease, "abandoned")
  }

  release(lease: number, condition: Condition = "clean"): void {
    const slot = this.held.get(lease)
    if (slot === undefined) return
    this.held.delete(lease)
    this.lendable.delete(lease)
    this.perform(this.state.release(slot, condition, this.now))
  }

  setLendable(lease: number, yes: boolean): void {
    const slot = this.held.get(lease)
    if (slot === undefined) return
    if (yes) this.lendable.add(lease)
    else this.lendable.delete(lease)
    this.perform(this.state.setLendable(slot, yes, () => this.now))
  }

  opened(index = 0, lifetime = 1_000_000): void {
    const [slot] = this.opening.splice(index, 1)
    if (slot === undefined) return
    const connection = ++this.#connections
    this.open.add(connection)
    this.connectFailed = false
    this.perform(this.state.opened(slot, connection, this.now + lifetime, this.now))
  }

  openFailed(index = 0, hopeless = false): void {
    const [slot] = this.opening.splice(index, 1)
    if (slot === undefined) return
    this.connectFailed = true
    this.perform(this.state.openFailed(slot, hopeless, this.now))
  }

  backedOff(gaveUp = false): void {
    if (!this.backingOff) return
    this.backingOff = false
    this.perform(gaveUp ? this.state.connectorGaveUp(this.now) : this.state.connectorReady(this.now))
  }

  prepared(index = 0): void {
    const [work] = this.preparing.splice(index, 1)
    if (work !== undefined) this.perform(this.state.prepared(work.slot, this.now))
  }

  broke(index = 0): void {
    const [work] = this.preparing.splice(index, 1)
    if (work !== undefined) this.perform(this.state.discard(work.slot, "invalid", this.now))
  }

  closed(index = 0): void {
    const [slot] = this.closing.splice(index, 1)
    if (slot === undefined) return
    if (slot.state._tag === "Retiring") this.end(slot.state.member.connection)
    this.perform(this.state.closed(slot, this.now))
  }

  /** A connection breaks, wherever it is. */
  lose(slot: Place): void {
    for (const [lease, place] of this.held) {
      if (place !== slot) continue
      this.held.delete(lease)
      this.lendable.delete(lease)
    }
    const at = this.preparing.findIndex((work) => work.slot === slot)
    if (at >= 0) this.preparing.splice(at, 1)
    this.perform(this.state.discard(slot, "lost", this.now))
  }

  close(): void {
    this.held.clear()
    this.lendable.clear()
    this.preparing.length = 0
    this.perform(this.state.close(this.now))
  }

  /** Time passes, and the alarm rings when it has to. */
  pass(millis: number): void {
    const end = this.now + millis
    while (this.alarm <= end) {
      this.now = Math.max(this.now, this.alarm)
      this.perform(this.state.expire(this.now))
      this.alarm = this.state.nextDeadline(this.now) ?? Infinity
      ensure(this.alarm > this.now, "the alarm does not ring for ever")
    }
    this.now = end
  }

  // --- actions -------------------------------------------------------------------------------------------------------

  perform(actions: ReadonlyArray<Action<number, number>>): void {
    for (const action of actions) this.#perform(action)
  }

  #perform(action: Action<number, number>): void {
    switch (action._tag) {
      case "Open":
        this.log.push("open")
        ensure(!(this.backingOff && this.state.connector.state === "BackingOff"), "no connect while backing off")
        ensure(this.state.phase !== "Closed", "no connect for a closed pool")
        ensure(!this.connectFailed || this.opening.length === 0, "one connect in flight after a failure")
        this.opening.push(action.slot)
        return
      case "Prepare":
        this.log.push(`${action.work} ${action.member.connection}`)
        ensure(this.open.has(action.member.connection), "only what is open is worked on")
        this.preparing.push({ slot: action.slot, work: action.work })
        return
      case "Close":
        this.log.push(`close ${action.member.connection} (${action.reason})`)
        ensure(this.open.has(action.member.connection), "only what is open is worked on")
        this.closing.push(action.slot)
        return
      case "Destroy":
        this.log.push(`destroy ${action.member.connection} (${action.reason})`)
        return this.end(action.member.connection)
      case "Grant": {
        this.log.push(`grant ${action.lease} ${action.member.connection}`)
        ensure(this.waiting[0]?.lease === action.lease, "first come first served")
        this.waiting.shift()
        this.leave(action.lease, "granted")
        this.held.set(action.lease, action.slot)
        this.#expectGood(action.slot)
        return
      }
      case "TakeBack":
        this.log.push(`take back from ${action.lease}`)
        ensure(this.lendable.delete(action.lease), "only what is lendable is taken back")
        this.held.delete(action.lease)
        return
      case "Reject": {
        this.log.push(`reject ${action.lease} (${action.why})`)
        const index = this.waiting.findIndex(({ lease }) => lease === action.lease)
        const waiter = this.waiting[index]
        ensure(waiter !== undefined, "only who waits is rejected")
        ensure(action.why !== "timeout" || (waiter?.deadline ?? Infinity) <= this.now, "nobody times out early")
        this.waiting.splice(index, 1)
        return this.leave(action.lease, "rejected")
      }
      case "BackOff":
        this.log.push("back off")
        this.backingOff = true
        return
    }
  }

  leave(lease: number, how: "granted" | "rejected" | "abandoned"): void {
    ensure(!this.left.has(lease), "each waiter leaves once")
    this.left.set(lease, how)
  }

  end(connection: number): void {
    ensure(this.open.delete(connection), "each connection is closed once")
    this.ended.add(connection)
  }

  connectionOf(slot: Place): number {
    return "member" in slot.state ? slot.state.member.connection : 0
  }

  #expectGood(slot: Place): void {
    ensure(slot.state._tag === "Held", "what is granted is held")
    if (slot.state._tag !== "Held") return
    const { member } = slot.state
    ensure(this.open.has(member.connection), "what is granted is open")
    ensure(member.epoch === this.state.epoch, "what is granted was checked after the last loss")
    ensure(this.now - member.checkedAt <= this.state.policy.validateAfter, "what is granted was checked lately")
    ensure(this.now < member.expiresAt, "what is granted is within its lifetime")
  }

  // --- invariants ----------------------------------------------------------------------------------------------------

  check(totalBefore: number): void {
    const { state } = this
    this.#checkPlaces()
    ensure(state.slots.total <= Math.max(state.max, totalBefore), "never more than the maximum")
    const queue = Array.from(state.waiters.nodes(), (node) => node.value.lease)
    ensure(same(queue, this.waiting.map(({ lease }) => lease)), "the queue is in order")
    ensure(state.waiters.size === this.waiting.length, "the queue counts its members")
    const earliest = Math.min(...this.waiting.map(({ deadline }) => deadline))
    ensure((state.nextDeadline(this.now) ?? Infinity) <= earliest, "the next deadline is not later than the earliest")
    ensure(this.alarm <= earliest, "the alarm is set for every waiter")
    if (this.waiting.length > 0) this.#checkWait()
    if (state.phase !== "Open") {
      ensure(state.slots.lendable.size === 0, "nothing is lendable once lending is over")
      // what is being prepared was promised to somebody; when that is done the idle ones go too
      const promised = this.waiting.length > 0 || this.preparing.length > 0
      ensure(promised || state.slots.idle.length === 0, "nothing is idle once lending is over")
    }
    if (state.phase === "Closed") {
      const left = state.waiters.size + state.slots.held.size + state.slots.preparing.size + state.slots.idle.length
      ensure(left === 0, "a closed pool has nothing but what is opening or closing")
    }
  }

  /** Whoever waits has something to wait for. */
  #checkWait(): void {
    const { state } = this
    const coming = state.slots.opening.size + state.slots.preparing.size
    ensure(
      state.slots.idle.length === 0 || state.slots.preparing.size >= this.waiting.length,
      "idle only while each waiter has a connection under preparation"
    )
    const due = state.connector.state === "Ready" ? Math.max(0, state.max - state.slots.total) : 0
    ensure(
      state.slots.lendable.size === 0 || coming + due >= this.waiting.length,
      "lendable only while each waiter has a connect on its way or due"
    )
    const longest = this.now - Math.min(...this.waiting.map(({ since }) => since))
    ensure(
      state.slots.lendable.size === 0 || longest < state.policy.patience ||
        state.slots.preparing.size >= this.waiting.length,
      "lendable only until a waiter's patience is over"
    )
    const stuck = coming === 0 && state.slots.held.size === 0 && state.slots.retiring.size === 0 && !this.backingOff
    ensure(!stuck, "each waiter has something to wait for")
  }

  #checkPlaces(): void {
    const { state } = this
    const places: ReadonlyArray<readonly [string, Iterable<Place>]> = [
      ["Opening", state.slots.opening],
      ["Idle", state.slots.idle],
      ["Held", state.slots.held],
      ["Preparing", state.slots.preparing],
      ["Retiring", state.slots.retiring]
    ]
    const seen = new Set<Place>()
    for (const [tag, slots] of places) {
      for (const slot of slots) {
        ensure(slot.state._tag === tag, "a slot's state says where it is")
        ensure(!seen.has(slot), "a slot is in one place only")
        seen.add(slot)
      }
    }
    ensure(seen.size === state.slots.total, "the total counts every slot")
    ensure(same(state.slots.opening, this.opening), "what is opening was asked for")
    ensure(same(state.slots.held, this.held.values()), "what is held has a holder")
    ensure(same(state.slots.preparing, this.preparing.map(({ slot }) => slot)), "what is prepared was asked for")
    for (const slot of state.slots.retiring) ensure(this.closing.includes(slot), "what retires is being closed")
    const connections = [...seen].map((slot) => this.connectionOf(slot)).filter((connection) => connection > 0)
    ensure(same(new Set(connections), this.open), "no connection is lost")
    const lendable = new Set(Array.from(state.slots.lendable.nodes(), (node) => node.value))
    ensure(same(lendable, Array.from(this.lendable, (lease) => this.held.get(lease))), "lendable is what leases say")
    for (const slot of seen) ensure((slot.lendable !== undefined) === lendable.has(slot), "a slot knows its node")
  }
}

// --- the model test ---------------------------------------------------------------------------------------------------

type Event = readonly [
  name:
    | "borrow"
    | "abandon"
    | "release"
    | "setLendable"
    | "opened"
    | "openFailed"
    | "backedOff"
    | "prepared"
    | "broke"
    | "lose"
    | "closed"
    | "expire"
    | "housekeeping"
    | "resize"
    | "suspectAll"
    | "drain"
    | "close"
    | "pass",
  pick: number,
  choice: boolean
]

type Weights = Readonly<Record<Event[0], number>>

/** What happens on a good day. */
const calm: Weights = {
  borrow: 120,
  abandon: 20,
  release: 80,
  setLendable: 100,
  opened: 80,
  openFailed: 30,
  backedOff: 30,
  prepared: 60,
  broke: 20,
  lose: 20,
  closed: 40,
  expire: 20,
  housekeeping: 30,
  resize: 10,
  suspectAll: 10,
  drain: 2,
  close: 1,
  pass: 50
}

/** What happens when the server goes up and down. */
const stormy: Weights = { ...calm, opened: 50, openFailed: 90, backedOff: 90, lose: 70, housekeeping: 5, drain: 4 }

const eventOf = (weights: Weights): fc.Arbitrary<Event> =>
  fc.tuple(
    fc.oneof(
      ...(Object.keys(weights) as Array<Event[0]>).map((name) => ({
        weight: weights[name],
        arbitrary: fc.constant(name)
      }))
    ),
    fc.nat(30),
    fc.boolean()
  )

const nth = <A>(from: Iterable<A>, pick: number): A | undefined => {
  const all = [...from]
  return all[pick % Math.max(1, all.length)]
}

const happen = (world: World, [name, pick, choice]: Event): void => {
  const { state } = world
  const holder = nth(world.held.keys(), pick) ?? 0
  const index = (list: ReadonlyArray<unknown>): number => pick % Math.max(1, list.length)
  switch (name) {
    case "borrow":
      if (state.phase === "Open") world.borrow(choice ? 300 : 5_000)
      return
    case "abandon":
      return world.abandon(nth(world.waiting, pick)?.lease ?? 0)
    case "release":
      return world.release(holder, choice ? "clean" : "changed")
    case "setLendable":
      return world.setLendable(holder, pick % 4 > 0)
    case "opened":
      return world.opened(index(world.opening), choice ? 1_000_000 : pick * 1_000)
    case "openFailed":
      return world.openFailed(index(world.opening), choice)
    case "backedOff":
      return world.backedOff(choice)
    case "prepared":
      return world.prepared(index(world.preparing))
    case "broke":
      return world.broke(index(world.preparing))
    case "lose": {
      const slot = nth(
        [...state.slots.idle, ...state.slots.held, ...state.slots.preparing, ...state.slots.retiring],
        pick
      )
      if (slot !== undefined) world.lose(slot)
      return
    }
    case "closed":
      return world.closed(index(world.closing))
    case "expire":
      return world.perform(state.expire(world.now))
    case "housekeeping":
      return world.perform(state.housekeeping(world.now))
    case "resize":
      return world.perform(state.resize(1 + (pick % 6), world.now))
    case "suspectAll":
      return state.suspectAll()
    case "drain":
      return world.perform(state.drain(world.now))
    case "close":
      return world.close()
    case "pass":
      return world.pass(choice ? pick * 10 : pick * 300)
  }
}

/** Everything in flight succeeds, every lease comes back; nothing new is borrowed. */
const calmDown = (world: World): void => {
  for (let round = 0; round < 500; round++) {
    const busy = world.opening.length + world.preparing.length + world.closing.length + world.held.size
    const total = world.state.slots.total
    const holder = nth(world.held.keys(), 0)
    if (world.opening.length > 0) world.opened()
    else if (world.preparing.length > 0) world.prepared()
    else if (world.closing.length > 0) world.closed()
    else if (holder !== undefined) world.release(holder, round % 2 === 0 ? "clean" : "changed")
    world.check(total)
    if (busy === 0) return
  }
  throw new Error("the pool never comes to rest")
}

describe("whatever happens, in whatever order", () => {
  it("the invariants hold, nobody overtakes, everybody leaves once, nothing is lost", { timeout: 60_000 }, () => {
    const scenario = fc.record({
      max: fc.integer({ min: 1, max: 5 }),
      minimumIdle: fc.integer({ min: 0, max: 3 }),
      patience: fc.constantFrom(150, 1_000, Infinity),
      events: fc.oneof(
        fc.array(eventOf(calm), { maxLength: 80, size: "max" }),
        fc.array(eventOf(stormy), { maxLength: 80, size: "max" })
      )
    })
    fc.assert(
      fc.property(scenario, ({ events, max, minimumIdle, patience }) => {
        const world = new World({ ...policy, minimumIdle, patience }, max)
        for (const next of events) {
          const total = world.state.slots.total
          happen(world, next)
          world.check(total)
        }
        calmDown(world)
        expect(
          world.waiting.length === 0 || world.backingOff || world.state.phase === "Closed",
          "with everything back, somebody still waits"
        ).toBe(true)
        world.backedOff()
        calmDown(world)
        expect(world.waiting).toEqual([])
        world.perform(world.state.drain(world.now))
        calmDown(world)
        world.close()
        world.check(world.state.slots.total)
        expect(world.state.slots.total).toBe(0)
        expect(world.open.size).toBe(0)
      }),
      { numRuns: Number(process.env["FC_RUNS"] ?? 2_000), seed: Number(process.env["FC_SEED"] ?? 20_250_101) }
    )
  })
})

// --- sentences --------------------------------------------------------------------------------------------------------

/** A pool with so many connections, all idle, opened in order. */
const worldWith = (connections: number, options: Partial<Policy> & { readonly max?: number } = {}): World => {
  const world = new World({ ...policy, ...options }, options.max ?? connections)
  const leases = Array.from({ length: connections }, () => world.borrow())
  while (world.opening.length > 0) world.opened()
  for (const lease of leases) world.release(lease)
  world.look()
  return world
}

describe("borrowing", () => {
  it("lends the connection that was used last", () => {
    const world = worldWith(3)
    const first = world.borrow()
    const second = world.borrow()
    expect(world.look()).toEqual(["lend 3", "lend 2"])
    world.release(first)
    world.release(second)
    world.borrow()
    expect(world.look()).toEqual(["lend 2"])
  })

  it("asks nothing of a connection that was used within validateAfter", () => {
    const world = worldWith(1)
    world.now += 500
    world.borrow()
    expect(world.look()).toEqual(["lend 1"])
  })

  it("validates a connection that was unused for longer than validateAfter", () => {
    const world = worldWith(1)
    world.now += 501
    const lease = world.borrow()
    expect(world.look()).toEqual(["validate 1"])
    world.prepared()
    expect(world.look()).toEqual([`grant ${lease} 1`])
  })

  it("validates every connection that was open during a loss, and none that was opened after it", () => {
    const world = worldWith(2, { max: 3 })
    world.state.suspectAll()
    world.borrow()
    world.borrow()
    world.borrow()
    expect(world.look()).toEqual(["validate 2", "validate 1", "open"])
    world.opened()
    expect(world.look()).toEqual(["grant 3 3"])
  })

  it("replaces a connection that fails its validation", () => {
    const world = worldWith(1)
    world.state.suspectAll()
    world.borrow()
    world.broke()
    expect(world.look()).toEqual(["validate 1", "destroy 1 (invalid)", "open"])
  })

  it("lets nobody overtake a waiter, even when a connection is idle again", () => {
    const world = worldWith(1)
    world.state.suspectAll()
    const first = world.borrow()
    const second = world.borrow()
    world.prepared()
    world.release(first)
    expect(world.look()).toEqual(["validate 1", `grant ${first} 1`, `grant ${second} 1`])
  })

  it("lends no connection whose lifetime is over", () => {
    const world = new World(policy, 2)
    const lease = world.borrow()
    world.opened(0, 100)
    world.release(lease)
    world.now += 100
    world.borrow()
    expect(world.look()).toEqual(["open", `grant ${lease} 1`, "close 1 (lifetime)", "open"])
  })
})

describe("connecting", () => {
  it("starts one connect, then two, then four while somebody waits", () => {
    const world = new World(policy, 20)
    for (let n = 0; n < 12; n++) world.borrow()
    expect(world.opening.length).toBe(1)
    world.opened()
    expect(world.opening.length).toBe(2)
    world.opened()
    expect(world.opening.length).toBe(4)
  })

  it("starts with one again after nobody had to wait", () => {
    const world = new World(policy, 20)
    for (let n = 0; n < 7; n++) world.borrow()
    while (world.opening.length > 0) world.opened()
    expect(world.held.size).toBe(7)
    for (let n = 0; n < 3; n++) world.borrow()
    expect(world.opening.length).toBe(1)
  })

  it("has one connect in flight after a failure, until one succeeds", () => {
    const world = new World(policy, 20)
    for (let n = 0; n < 12; n++) world.borrow()
    world.opened()
    world.opened()
    world.openFailed()
    expect(world.backingOff).toBe(true)
    while (world.opening.length > 0) world.openFailed()
    world.backedOff()
    expect(world.opening.length).toBe(1)
    world.openFailed()
    expect(world.opening.length).toBe(0)
    world.backedOff()
    world.opened()
    expect(world.opening.length).toBe(2)
  })

  it("starts no connect that nobody needs any more", () => {
    const world = new World(policy, 2)
    const lease = world.borrow()
    world.openFailed()
    world.abandon(lease)
    world.backedOff()
    expect(world.look()).toEqual(["open", "back off"])
  })

  it("turns every waiter away after a hopeless failure, and tries again only when somebody comes", () => {
    const world = new World({ ...policy, minimumIdle: 1 }, 2)
    const first = world.borrow()
    const second = world.borrow()
    world.openFailed(0, true)
    expect(world.look()).toEqual([
      "open",
      `reject ${first} (unreachable)`,
      `reject ${second} (unreachable)`,
      "back off"
    ])
    world.backedOff()
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual([])
    world.borrow()
    expect(world.look()).toEqual(["open"])
  })

  it("lets waiters wait for working connections when a connect fails hopelessly", () => {
    const world = worldWith(1, { max: 2 })
    const first = world.borrow()
    const second = world.borrow()
    world.look()
    world.openFailed(0, true)
    expect(world.look()).toEqual(["back off"])
    world.release(first)
    expect(world.look()).toEqual([`grant ${second} 1`])
  })

  it("does not connect in a loop when the connect schedule has come to its end", () => {
    const world = worldWith(1, { max: 2 })
    world.borrow()
    world.borrow()
    world.openFailed()
    world.look()
    world.backedOff(true)
    expect(world.look()).toEqual([])
  })

  it("connects again for those who wait when the last connection breaks after the connect schedule has come to its end", () => {
    const world = worldWith(1, { max: 2 })
    world.borrow()
    const waiter = world.borrow()
    world.openFailed()
    world.backedOff(true)
    world.look()
    world.lose([...world.state.slots.held][0] ?? expect.fail("nothing is held"))
    expect(world.look().slice(1)).toContainEqual(expect.stringMatching(`open|reject ${waiter}`))
  })

  it("does not connect in a loop for minimumIdle when the connect schedule has come to its end", () => {
    const world = new World({ ...policy, minimumIdle: 1 }, 2)
    world.perform(world.state.housekeeping(world.now))
    world.openFailed()
    world.look()
    world.backedOff(true)
    expect(world.look()).toEqual([])
  })
})

describe("taking back", () => {
  it("leaves a fiber its connection while there is room for another", () => {
    const world = worldWith(1, { max: 2 })
    const lease = world.borrow()
    world.setLendable(lease, true)
    world.look()
    world.borrow()
    expect(world.look()).toEqual(["open"])
  })

  it("waits for a connect only so long before it takes a connection back all the same", () => {
    const world = worldWith(1, { max: 2, patience: 300 })
    const first = world.borrow()
    world.setLendable(first, true)
    const second = world.borrow()
    expect(world.look()).toContain("open")
    expect(world.state.nextDeadline(world.now)).toBe(world.now + 300)
    world.now += 299
    world.perform(world.state.expire(world.now))
    expect(world.look()).toEqual([])
    world.now += 1
    world.perform(world.state.expire(world.now))
    expect(world.look()).toEqual([`take back from ${first}`, `grant ${second} 1`])
  })

  it("takes the connection that was lendable for the longest when there is no room", () => {
    const world = worldWith(2)
    const first = world.borrow()
    const second = world.borrow()
    world.setLendable(second, true)
    world.setLendable(first, true)
    world.look()
    const third = world.borrow()
    expect(world.look()).toEqual([`take back from ${second}`, `grant ${third} 1`])
  })

  it("takes a connection back for each waiter whose patience is over, also for one that came while another waited", () => {
    const world = worldWith(1, { max: 2, patience: 1_000, validateAfter: Infinity })
    const first = world.borrow()
    const second = world.borrow(10_000)
    world.pass(900)
    const third = world.borrow(10_000)
    world.pass(600)
    world.setLendable(first, true)
    world.pass(100)
    world.setLendable(second, true)
    world.look()
    world.pass(299)
    expect(world.look()).toEqual([])
    world.pass(1)
    expect(world.look()).toEqual([`take back from ${second}`, `grant ${third} 1`])
  })

  it("takes a connection back when no connect may be started because the server is down", () => {
    const world = worldWith(1, { max: 2 })
    const first = world.borrow()
    world.setLendable(first, true)
    const second = world.borrow()
    world.look()
    world.openFailed()
    expect(world.look()).toEqual(["back off", `take back from ${first}`, `grant ${second} 1`])
  })

  it("validates what it takes back when that was unused for longer than validateAfter", () => {
    const world = worldWith(1)
    const first = world.borrow()
    world.setLendable(first, true)
    world.now += 501
    world.look()
    const second = world.borrow()
    world.prepared()
    expect(world.look()).toEqual([`take back from ${first}`, "validate 1", `grant ${second} 1`])
  })

  it("takes nothing back from who has begun a statement", () => {
    const world = worldWith(1)
    const first = world.borrow()
    world.setLendable(first, true)
    world.setLendable(first, false)
    world.look()
    world.borrow()
    expect(world.look()).toEqual([])
  })
})

describe("giving back", () => {
  it("resets what was changed before anybody else gets it", () => {
    const world = worldWith(1)
    const first = world.borrow()
    const second = world.borrow()
    world.look()
    world.release(first, "changed")
    expect(world.look()).toEqual(["reset 1"])
    world.prepared()
    expect(world.look()).toEqual([`grant ${second} 1`])
  })

  it("replaces what could not be reset", () => {
    const world = worldWith(1)
    const first = world.borrow()
    world.borrow()
    world.look()
    world.release(first, "changed")
    world.broke()
    expect(world.look()).toEqual(["reset 1", "destroy 1 (invalid)", "open"])
  })
})

describe("waiting", () => {
  it("ends at each waiter's own deadline", () => {
    const world = worldWith(1)
    world.borrow()
    const slow = world.borrow(2_000)
    const quick = world.borrow(100)
    expect(world.state.nextDeadline(world.now)).toBe(100)
    world.now += 100
    world.perform(world.state.expire(world.now))
    expect(world.look()).toEqual(["lend 1", `reject ${quick} (timeout)`])
    expect(world.waiting.map(({ lease }) => lease)).toEqual([slow])
  })
})

describe("housekeeping", () => {
  it("closes the longest unused connections down to minimumIdle", () => {
    const world = worldWith(3, { minimumIdle: 1, keepalive: Infinity })
    world.now += 10_000
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual(["close 1 (idle)", "close 2 (idle)"])
  })

  it("closes what has reached its lifetime, and opens what minimumIdle asks for", () => {
    const world = new World({ ...policy, minimumIdle: 1 }, 2)
    world.perform(world.state.housekeeping(world.now))
    world.opened(0, 1_000)
    world.look()
    world.now += 1_000
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual(["close 1 (lifetime)", "open"])
  })

  it("checks what was not heard of for keepalive, and does not count that as use", () => {
    const world = worldWith(2)
    world.now += 4_000
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual(["keepalive 1", "keepalive 2"])
    world.prepared()
    world.prepared()
    world.now += 3_999
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual([])
    world.now += 2_001
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual(["close 2 (idle)", "close 1 (idle)"])
  })

  it("opens nothing while the connections that minimumIdle asks for are only being checked", () => {
    const world = new World({ ...policy, minimumIdle: 2 }, 4)
    world.perform(world.state.housekeeping(world.now))
    while (world.opening.length > 0) world.opened()
    world.look()
    world.now += 4_000
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual(["keepalive 1", "keepalive 2"])
  })

  it("takes back and closes what a fiber holds but has not used for idleTimeout", () => {
    const world = worldWith(1)
    const lease = world.borrow()
    world.setLendable(lease, true)
    world.look()
    world.now += 10_000
    world.perform(world.state.housekeeping(world.now))
    expect(world.look()).toEqual([`take back from ${lease}`, "close 1 (idle)"])
  })
})

describe("resizing", () => {
  it("opens more for those who wait", () => {
    const world = worldWith(1)
    world.borrow()
    world.borrow()
    world.look()
    world.perform(world.state.resize(2, world.now))
    expect(world.look()).toEqual(["open"])
  })

  it("closes the longest unused idle connections now, and held ones when they come back", () => {
    const world = worldWith(4)
    const first = world.borrow()
    const second = world.borrow()
    world.look()
    world.perform(world.state.resize(1, world.now))
    expect(world.look()).toEqual(["close 1 (shrunk)", "close 2 (shrunk)"])
    world.closed()
    world.closed()
    world.release(first)
    expect(world.look()).toEqual(["close 4 (shrunk)"])
    world.closed()
    world.release(second)
    world.borrow()
    expect(world.look()).toEqual(["lend 3"])
  })

  it("takes back what is lendable when there are too many", () => {
    const world = worldWith(2)
    const first = world.borrow()
    world.borrow()
    world.setLendable(first, true)
    world.look()
    world.perform(world.state.resize(1, world.now))
    expect(world.look()).toEqual([`take back from ${first}`, "close 2 (shrunk)"])
  })

  it("keeps as many as it may have while the surplus is still closing", () => {
    const world = worldWith(3)
    const lease = world.borrow()
    world.perform(world.state.resize(1, world.now))
    world.look()
    world.release(lease)
    expect(world.look()).toEqual([])
    expect(world.state.slots.idle.length).toBe(1)
  })
})

describe("ending", () => {
  it("closes what is idle or lendable when it drains, serves who waits, and closes what comes back", () => {
    const world = worldWith(3)
    const first = world.borrow()
    const second = world.borrow()
    world.setLendable(second, true)
    world.look()
    world.perform(world.state.drain(world.now))
    expect(world.look()).toEqual(["close 1 (drained)", `take back from ${second}`, "close 2 (drained)"])
    world.release(first)
    expect(world.look()).toEqual(["close 3 (drained)"])
  })

  it("serves who waited already when it drains", () => {
    const world = worldWith(1)
    const first = world.borrow()
    const second = world.borrow()
    world.perform(world.state.drain(world.now))
    world.look()
    world.release(first)
    expect(world.look()).toEqual([`grant ${second} 1`])
    world.release(second)
    expect(world.look()).toEqual(["close 1 (drained)"])
  })

  it("turns waiters away, cuts what is held and closes what is still opening when it ends", () => {
    const world = worldWith(1, { max: 2 })
    world.borrow()
    const second = world.borrow()
    world.look()
    world.close()
    expect(world.look()).toEqual([`reject ${second} (closed)`, "destroy 1 (cut)"])
    world.opened()
    expect(world.look()).toEqual(["close 2 (drained)"])
  })
})
