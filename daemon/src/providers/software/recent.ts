/** Things by id, in the order of their last use: a Map keeps the order of insertion, and what is asked for is inserted again. */
export class Recent<T> {
  readonly #items = new Map<string, T>();

  get size(): number {
    return this.#items.size;
  }

  /** Ids, the one that was not asked for the longest first. */
  ids(): IterableIterator<string> {
    return this.#items.keys();
  }

  /** Finds a thing, which is the most recent one from now on. */
  get(id: string): T | undefined {
    const item = this.#items.get(id);
    if (item !== undefined) {
      this.#items.delete(id);
      this.#items.set(id, item);
    }
    return item;
  }

  add(id: string, item: T): T {
    this.#items.set(id, item);
    return item;
  }

  /** Takes a thing out. */
  remove(id: string): T | undefined {
    const item = this.#items.get(id);
    this.#items.delete(id);
    return item;
  }
}
