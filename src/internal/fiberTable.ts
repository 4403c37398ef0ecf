/**
 * What is kept for each of many fibers that come and go, found by the fiber.
 *
 * V8's `Map` grows into a new table again and again where entries come and go, and each table it has left points to the next.
 * Once one of them is old, all that come after it are kept until the next full collection, with the fibers that were in them:
 * the collections in between, for which every fiber waits, take three times as long. What this table leaves behind points to
 * nothing that comes after it.
 *
 * Open addressing with linear probing and multiplicative hashing of the fibers' numbers (Knuth, The Art of Computer
 * Programming 3, section 6.4, algorithms L and R).
 *
 * Invariant: between a fiber's home and its place there is no free place.
 *
 * @internal
 */
import type * as Fiber from "effect/Fiber"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

const fewestBits = 4
/** 2³² divided by the golden ratio: numbers at equal distances, whichever, get homes far from each other. */
const golden = 0x9e3779b1

/** @internal */
export class FiberTable<V> {
  #bits = fewestBits
  #fibers: Array<AnyFiber | undefined> = free(fewestBits)
  #values: Array<V | undefined> = free(fewestBits)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** For how many there is a place. */
  get capacity(): number {
    return this.#fibers.length
  }

  get(fiber: AnyFiber): V | undefined {
    return this.#values[this.#find(fiber)]
  }

  has(fiber: AnyFiber): boolean {
    return this.#fibers[this.#find(fiber)] !== undefined
  }

  set(fiber: AnyFiber, value: V): void {
    const place = this.#find(fiber)
    this.#values[place] = value
    if (this.#fibers[place] !== undefined) return
    this.#fibers[place] = fiber
    // never more than half full, so that there is a free place near every home
    if (++this.#size > this.capacity / 2) this.#resize(this.#bits + 1)
  }

  delete(fiber: AnyFiber): void {
    const place = this.#find(fiber)
    if (this.#fibers[place] === undefined) return
    this.#close(place)
    if (--this.#size < this.capacity / 16 && this.#bits > fewestBits) this.#resize(Math.max(fewestBits, this.#bits - 2))
  }

  /** Where the fiber is, or where it would be. */
  #find(fiber: AnyFiber): number {
    const fibers = this.#fibers
    let place = this.#home(fiber)
    for (let found = fibers[place]; found !== undefined && found !== fiber; found = fibers[place]) {
      place = this.#after(place)
    }
    return place
  }

  #home(fiber: AnyFiber): number {
    return Math.imul(fiber.id().id, golden) >>> (32 - this.#bits)
  }

  #after(place: number): number {
    return (place + 1) & (this.#fibers.length - 1)
  }

  /** Frees the place, and moves into it what would not be found behind it any more. */
  #close(gap: number): void {
    const fibers = this.#fibers
    const mask = fibers.length - 1
    let free = gap
    let place = this.#after(gap)
    for (let fiber = fibers[place]; fiber !== undefined; fiber = fibers[place]) {
      const fromHome = (place - this.#home(fiber)) & mask
      if (fromHome >= ((place - free) & mask)) {
        fibers[free] = fiber
        this.#values[free] = this.#values[place]
        free = place
      }
      place = this.#after(place)
    }
    fibers[free] = this.#values[free] = undefined
  }

  #resize(bits: number): void {
    const fibers = this.#fibers
    const values = this.#values
    this.#bits = bits
    this.#fibers = free(bits)
    this.#values = free(bits)
    fibers.forEach((fiber, index) => {
      if (fiber === undefined) return
      const place = this.#find(fiber)
      this.#fibers[place] = fiber
      this.#values[place] = values[index]
    })
  }
}

const free = (bits: number): Array<undefined> => Array.from({ length: 2 ** bits }, () => undefined)
