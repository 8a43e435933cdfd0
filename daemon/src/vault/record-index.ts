/** What is remembered of each record that the file holds. */
export interface Remembered {
  readonly revision: bigint;
  readonly tag: Uint8Array;
}

const tagBytes = 16;
const entryBytes = 8 + tagBytes;
const firstEntries = 1024;

/** Revision and tag of every record, to take a changed one out of the head's sums: 24 bytes a record in one block, found by kind and id. */
export class RecordIndex {
  readonly #places = new Map<string, Map<string, number>>();
  readonly #free: number[] = [];
  #block: Buffer = Buffer.alloc(firstEntries * entryBytes);
  #used = 0;

  has(kind: string, id: string): boolean {
    return this.#places.get(kind)?.has(id) ?? false;
  }

  /** A copy of what is remembered. */
  get(kind: string, id: string): Remembered | undefined {
    const place = this.#places.get(kind)?.get(id);
    if (place === undefined) return undefined;
    const at = place * entryBytes;
    return { revision: this.#block.readBigUInt64BE(at), tag: new Uint8Array(this.#block.subarray(at + 8, at + entryBytes)) };
  }

  set(kind: string, id: string, { revision, tag }: Remembered): void {
    const ofKind = this.#places.get(kind) ?? new Map<string, number>();
    this.#places.set(kind, ofKind);
    const place = ofKind.get(id) ?? this.#free.pop() ?? this.#grow();
    ofKind.set(id, place);
    this.#block.set(tag, this.#block.writeBigUInt64BE(revision, place * entryBytes));
  }

  delete(kind: string, id: string): void {
    const ofKind = this.#places.get(kind);
    const place = ofKind?.get(id);
    if (place === undefined) return;
    ofKind?.delete(id);
    this.#free.push(place);
  }

  #grow(): number {
    if ((this.#used + 1) * entryBytes > this.#block.length) this.#block = Buffer.concat([this.#block, Buffer.alloc(this.#block.length)]);
    this.#used += 1;
    return this.#used - 1;
  }
}
