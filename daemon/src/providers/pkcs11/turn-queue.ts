/**
 * What waits, on paths such as user and connection: at each fork the branches take turns, and at the end of a path what came first is first.
 * Who brings much waits longer for it, and nobody else does.
 */
export class TurnQueue<T> {
  readonly #items: T[] = [];
  /** In the order of their next turns. */
  readonly #branches = new Map<number, TurnQueue<T>>();
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** How much waits on a branch. */
  lengthOf(branch: number): number {
    return this.#branches.get(branch)?.length ?? 0;
  }

  /** The most that waits on one branch. */
  get longest(): number {
    return Math.max(0, ...[...this.#branches.values()].map(({ length }) => length));
  }

  push(item: T, [branch, ...rest]: readonly number[]): void {
    this.#length += 1;
    if (branch === undefined) return void this.#items.push(item);
    const queue = this.#branches.get(branch) ?? new TurnQueue<T>();
    this.#branches.set(branch, queue);
    queue.push(item, rest);
  }

  /** Takes out whose turn it is. */
  shift(): T | undefined {
    if (this.#length > 0) this.#length -= 1;
    const [next] = this.#branches;
    if (!next) return this.#items.shift();
    const [branch, queue] = next;
    const item = queue.shift();
    this.#branches.delete(branch);
    if (queue.length > 0) this.#branches.set(branch, queue); // after the others
    return item;
  }

  /** Takes out the newest on the longest branch. */
  drop(): T | undefined {
    if (this.#length > 0) this.#length -= 1;
    const [longest] = [...this.#branches].toSorted(([, one], [, other]) => other.length - one.length);
    if (!longest) return this.#items.pop();
    const [branch, queue] = longest;
    const item = queue.drop();
    if (queue.length === 0) this.#branches.delete(branch);
    return item;
  }
}
