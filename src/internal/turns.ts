/**
 * Whose turn it is on a shared connection: one statement at a time, and a transaction, or one nested in it, has the
 * connection for itself, since neither a rollback nor one to a savepoint tells whose work it undoes.
 *
 * Sections are a stack, each with the one around it; statements of a section wait until it is on top. One that has ended
 * never is again, and who waits for it is told.
 *
 * @internal
 */
import type { DbError } from "../DbError.js"
import { LinkedList, type Node } from "./linkedList.js"

/** @internal What a transaction and everything nested in it have in common. */
export interface Whole {
  /** Why the server has undone all of it: nothing may be sent any more, since it would stand alone. */
  aborted: DbError | undefined
  /** Whether a statement inside, such as CREATE TABLE on MySQL, may have committed what came before it. */
  committed: boolean
}

/** @internal A part of a program that has a shared connection for itself. */
export interface Section {
  readonly whole: Whole
  /** The section around it; `undefined` for what is outside of every transaction. */
  readonly parent: Section | undefined
  /** What undoes its work, sent by the section around it when this one is left behind unfinished. */
  readonly undo: ReadonlyArray<string>
  ended: boolean
}

/** @internal A statement, or cursor, that waits for its turn. */
export interface Waiting {
  readonly section: Section | undefined
  readonly start: () => void
}

/** @internal */
export class Turns {
  /** The section on top of the stack. */
  section: Section | undefined
  /** Made by the first that waits. */
  #queues: Map<Section | undefined, LinkedList<Waiting>> | undefined
  /** Who waited for a section that has ended meanwhile, and has to be told. */
  #late: Array<Waiting> = []

  /** Whether a statement of the section need not wait for another section; one that has ended is told so at once. */
  mayStart(section: Section | undefined): boolean {
    return section === this.section || section?.ended === true
  }

  enqueue(waiting: Waiting): Node<Waiting> {
    this.#queues ??= new Map()
    const queue = this.#queues.get(waiting.section)
    if (queue !== undefined) return queue.append(waiting)
    const fresh = new LinkedList<Waiting>()
    this.#queues.set(waiting.section, fresh)
    return fresh.append(waiting)
  }

  /** Takes the longest waiting of those who may start now, or will be refused at once. */
  next(): Waiting | undefined {
    return this.#late.shift() ?? this.#shift(this.section)
  }

  /** The section on top of the stack, which has ended, makes way for the one around it. */
  pop(section: Section): void {
    for (let one = this.#shift(section); one !== undefined; one = this.#shift(section)) this.#late.push(one)
    this.section = section.parent
  }

  /** Takes anybody who waits. */
  any(): Waiting | undefined {
    const late = this.#late.shift()
    if (late !== undefined) return late
    for (const section of this.#queues?.keys() ?? []) {
      // who has given up has left an empty queue behind
      const one = this.#shift(section)
      if (one !== undefined) return one
    }
    return undefined
  }

  /** Whether the section is on the stack. */
  has(section: Section): boolean {
    for (let each = this.section; each !== undefined; each = each.parent) if (each === section) return true
    return false
  }

  /**
   * Ends every section inside `section`, which must be on the stack and is on top afterwards. Answers with the outermost
   * of those, whose undoing undoes the others too, and with everybody who waited for one of them.
   */
  popTo(section: Section): { readonly unfinished: Section | undefined; readonly waiting: ReadonlyArray<Waiting> } {
    let unfinished: Section | undefined
    const waiting: Array<Waiting> = []
    for (let each = this.section; each !== undefined && each !== section; each = each.parent) {
      each.ended = true
      unfinished = each
      for (let one = this.#shift(each); one !== undefined; one = this.#shift(each)) waiting.push(one)
    }
    this.section = section
    return { unfinished, waiting }
  }

  #shift(section: Section | undefined): Waiting | undefined {
    const queue = this.#queues?.get(section)
    if (queue === undefined) return undefined
    const waiting = queue.shift()
    if (queue.size === 0) this.#queues?.delete(section)
    return waiting
  }
}
