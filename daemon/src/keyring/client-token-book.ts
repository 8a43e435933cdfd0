import type { ClientTokenEntry } from './records.ts';

/** All client tokens in memory, in the order of their times. */
export class ClientTokenBook {
  readonly #entries = new Map<string, ClientTokenEntry>();

  get(id: string): ClientTokenEntry | undefined {
    return this.#entries.get(id);
  }

  put(entry: ClientTokenEntry): void {
    this.#entries.set(entry.id, entry);
  }

  delete(id: string): void {
    this.#entries.delete(id);
  }

  clear(): void {
    this.#entries.clear();
  }

  /** Puts them in order, once all were taken from the vault, which keeps them by their ids. */
  sort(): void {
    const sorted = [...this.#entries.values()].sort((a, b) => a.time - b.time);
    this.#entries.clear();
    for (const entry of sorted) this.put(entry);
  }

  /** The first `limit` that were made before `time`. */
  before(time: number, limit: number): string[] {
    const ids: string[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.time >= time || ids.length === limit) break;
      ids.push(entry.id);
    }
    return ids;
  }
}
