const slabBytes = 1_048_576;

/**
 * Opened records that nobody has asked for yet, side by side in large blocks: a buffer for each of 100,000 would cost more than what it holds.
 * They are plaintext; wiping overwrites them all, and with them the material of keys that were read from here.
 */
export class RecordSlabs {
  readonly #slabs: Buffer[] = [];
  /** For each record: which slab, where in it, and how long. */
  readonly #places: number[] = [];
  #end = 0;

  /** Copies a record and zeroes the original. @returns its number. */
  add(record: Uint8Array): number {
    const last = this.#slabs.at(-1);
    const slab = last && this.#end + record.length <= last.length ? last : this.#start(record.length);
    slab.set(record, this.#end);
    const number = this.#places.push(this.#slabs.length - 1, this.#end, record.length) / 3 - 1;
    this.#end += record.length;
    record.fill(0);
    return number;
  }

  /** The record itself, not a copy. */
  get(number: number): Uint8Array {
    const [slab = 0, start = 0, length = 0] = this.#places.slice(number * 3, number * 3 + 3);
    const found = this.#slabs[slab];
    if (!found) throw new RangeError(`there is no record ${number}`);
    return found.subarray(start, start + length);
  }

  wipe(): void {
    for (const slab of this.#slabs) slab.fill(0);
    this.#slabs.length = 0;
    this.#places.length = 0;
  }

  #start(atLeast: number): Buffer {
    const slab = Buffer.alloc(Math.max(slabBytes, atLeast));
    this.#slabs.push(slab);
    this.#end = 0;
    return slab;
  }
}
