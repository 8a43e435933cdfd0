import type { AuditFolder } from './folder.ts';
import { type AuditEntry, errorNameOf } from './record.ts';
import type { Expendable, Retention } from './retention.ts';

/** What old files are dropped with. */
export interface OldFilesOptions {
  readonly folder: AuditFolder;
  readonly retention: Retention;
  /** Records something that is about to happen; `written` is called when it is written, and nothing where it cannot be. */
  readonly announce: (entry: AuditEntry, written: () => void) => void;
  /** Records something that has happened. */
  readonly note: (entry: AuditEntry) => void;
}

/**
 * Deletes the oldest files past the limit, after the record says so and the vault knows of it: what is missing at the beginning and not known there
 * was taken by somebody else. What cannot be deleted is no reason to record nothing; it is tried again with each new file.
 */
export class OldFiles {
  readonly #options: OldFilesOptions;
  /** The last record of those that are deleted, as the vault knows it. */
  #knownSeq = 0;
  /** Files that go when the vault knows of it, and the last record of each. */
  readonly #leaving = new Map<string, number>();
  /** Files that the vault knows to be deleted, and that could not be. */
  readonly #stuck = new Set<string>();

  constructor(options: OldFilesOptions) {
    this.#options = options;
  }

  /** The last record of those that are deleted once the vault knows of it. */
  get leavingSeq(): number {
    return Math.max(this.#knownSeq, ...this.#leaving.values());
  }

  /** What the vault knew when it was opened. */
  resume(knownSeq: number): void {
    this.#knownSeq = Math.max(this.#knownSeq, knownSeq);
  }

  /** The vault knows now that records up to this one are deleted. */
  known(seq: number): void {
    this.#knownSeq = seq;
    for (const [file, lastSeq] of this.#leaving) {
      if (lastSeq > seq) continue;
      this.#leaving.delete(file);
      this.#drop(file);
    }
  }

  /**
   * Announces files past the limit.
   * @param now - milliseconds since the epoch; undefined where the clock cannot be believed: where a least age is set, none may go then.
   * @param sinceBoot - milliseconds since the machine started.
   */
  look(now: number | undefined, sinceBoot: number): void {
    for (const { file, firstSeq, lastSeq } of this.#find(now, sinceBoot)) {
      if (this.#stuck.has(file)) this.#drop(file);
      if (this.#stuck.has(file) || this.#leaving.has(file)) continue;
      const entry: AuditEntry = { operation: 'dropOldest', outcome: 'ok', detail: { firstSeq, lastSeq } };
      this.#options.announce(entry, () => this.#leaving.set(file, lastSeq)); // where it cannot be written nothing is dropped, and the next file asks again
    }
  }

  #find(now: number | undefined, sinceBoot: number): Expendable[] {
    try {
      return this.#options.retention.findOldest(now, sinceBoot);
    } catch (error) {
      this.#noteFailure(error);
      return [];
    }
  }

  /** A failure is noted once: records about files that stay would fill files of their own, and those more. */
  #drop(file: string): void {
    try {
      this.#options.folder.drop(file);
      this.#stuck.delete(file);
    } catch (error) {
      if (!this.#stuck.has(file)) this.#noteFailure(error);
      this.#stuck.add(file);
    }
  }

  #noteFailure(error: unknown): void {
    this.#options.note({ operation: 'dropOldest', outcome: 'failed', error: errorNameOf(error) });
  }
}
