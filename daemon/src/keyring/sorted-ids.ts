/** Ids in order, with the place of each found by halving. */
export class SortedIds {
  readonly #ids: string[] = [];

  get length(): number {
    return this.#ids.length;
  }

  /** The id at a place; undefined past the end. */
  at(index: number): string | undefined {
    return this.#ids[index];
  }

  /** The last ids, last first. */
  newest(count: number): string[] {
    return this.#ids.slice(-count).reverse();
  }

  /** The place of the first id that is greater than `id`. */
  indexAfter(id: string): number {
    let low = 0;
    let high = this.#ids.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ids[middle] ?? '') <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The ids that begin so, in order; at most `limit`. */
  beginningWith(beginning: string, limit: number): string[] {
    const after = this.indexAfter(beginning);
    const first = this.#ids[after - 1] === beginning ? after - 1 : after;
    const some = this.#ids.slice(first, first + limit);
    const end = some.findIndex((id) => !id.startsWith(beginning)); // they stand together
    return end === -1 ? some : some.slice(0, end);
  }

  add(id: string): void {
    const last = this.#ids.at(-1);
    if (last === undefined || id > last) {
      this.#ids.push(id); // ids of keys grow with time: the usual case
      return;
    }
    const index = this.indexAfter(id);
    if (this.#ids[index - 1] !== id) this.#ids.splice(index, 0, id);
  }

  delete(id: string): void {
    const index = this.indexAfter(id) - 1;
    if (this.#ids[index] === id) this.#ids.splice(index, 1);
  }

  clear(): void {
    this.#ids.length = 0;
  }

  static of(ids: Iterable<string>): SortedIds {
    const sorted = new SortedIds();
    for (const id of [...ids].sort()) sorted.add(id);
    return sorted;
  }
}
