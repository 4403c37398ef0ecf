/**
 * A doubly linked list whose nodes the caller keeps, so that any element leaves in constant time: ten thousand waiters
 * that are interrupted in the middle of the queue must not cost a scan each.
 *
 * @internal
 */

/**
 * An element's place. A class, for V8 allocates literals as old once it has seen some survive, and an old one keeps alive all
 * that it points to, until the next full collection.
 *
 * @internal
 */
export class Node<A> {
  next: Node<A> | undefined

  constructor(
    readonly value: A,
    public prev: Node<A> | undefined,
    /** The list that holds the node, or `undefined` once it has left. */
    public list: LinkedList<A> | undefined
  ) {}
}

/** @internal */
export class LinkedList<A> {
  #head: Node<A> | undefined
  #tail: Node<A> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  get first(): A | undefined {
    return this.#head?.value
  }

  append(value: A): Node<A> {
    const node = new Node(value, this.#tail, this)
    if (this.#tail === undefined) this.#head = node
    else this.#tail.next = node
    this.#tail = node
    this.#size++
    return node
  }

  /** Removes the node; false when it is not in this list any more. */
  remove(node: Node<A>): boolean {
    if (node.list !== this) return false
    if (node.prev === undefined) this.#head = node.next
    else node.prev.next = node.next
    if (node.next === undefined) this.#tail = node.prev
    else node.next.prev = node.prev
    node.list = undefined
    node.prev = undefined
    node.next = undefined
    this.#size--
    return true
  }

  shift(): A | undefined {
    const head = this.#head
    if (head === undefined) return undefined
    this.remove(head)
    return head.value
  }

  *nodes(): IterableIterator<Node<A>> {
    let node = this.#head
    while (node !== undefined) {
      // the node may be removed while it is looked at
      const next: Node<A> | undefined = node.next
      yield node
      node = next
    }
  }
}
