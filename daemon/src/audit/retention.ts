import { statSync } from 'node:fs';
import { isCurrentFile, listFiles, readFirst, readLast } from './files.ts';

/** How much is kept; each is a setting of the agent. */
export interface KeepLimits {
  /** Bytes of all files together; the oldest go first. */
  readonly maxTotalBytes: number;
  /** A file whose last record is younger than so many milliseconds stays, whatever there is of others; 0 lets every one go. */
  readonly minAgeMs: number;
}

/** A file that may go, and the numbers of its records. */
export interface Expendable {
  readonly file: string;
  readonly firstSeq: number;
  readonly lastSeq: number;
}

/** Says which of the oldest files may go, and remembers since when each is there. */
export class Retention {
  readonly #folder: string;
  readonly #limits: KeepLimits;
  /** When each rotated file was first there, by the clock that nobody can set; those of before the first look may be of any age. */
  #seen: ReadonlyMap<string, number> | undefined;

  constructor(folder: string, limits: KeepLimits) {
    this.#folder = folder;
    this.#limits = limits;
  }

  /**
   * The oldest files past the limit that may go, and the records in each, by number. It is to be called after each rotation.
   * @param now - milliseconds since the epoch; undefined where nobody knows for certain.
   * @param sinceBoot - milliseconds since the machine started.
   */
  findOldest(now: number | undefined, sinceBoot: number): Expendable[] {
    const files = listFiles(this.#folder);
    this.#noteSeen(files, sinceBoot);
    const sizes = files.map((file) => statSync(file).size);
    let total = sizes.reduce((sum, size) => sum + size, 0);
    const oldest: Expendable[] = [];
    for (const [index, file] of files.entries()) {
      const next = files[index + 1];
      if (total <= this.#limits.maxTotalBytes || next === undefined || !this.#isOldEnough(file, now, sinceBoot)) break;
      total -= sizes[index] ?? 0;
      const after = readFirst(next)?.seq ?? 0;
      oldest.push({ file, firstSeq: readFirst(file)?.seq ?? 0, lastSeq: after - 1 });
    }
    return oldest;
  }

  #noteSeen(files: readonly string[], sinceBoot: number): void {
    const before = this.#seen;
    const rotated = files.filter((file) => !isCurrentFile(file));
    this.#seen = new Map(rotated.map((file) => [file, before ? (before.get(file) ?? sinceBoot) : Number.NEGATIVE_INFINITY]));
  }

  /**
   * Of a file without a time to read, or with one that is still to come, nobody knows. One that was not there so long ago is not so old, whatever its records say:
   * the wall clock may have been behind when they were made.
   */
  #isOldEnough(file: string, now: number | undefined, sinceBoot: number): boolean {
    const { minAgeMs } = this.#limits;
    if (minAgeMs === 0) return true;
    if (now === undefined || sinceBoot - (this.#seen?.get(file) ?? sinceBoot) < minAgeMs) return false;
    const age = now - Date.parse(readLast(file)?.record.time ?? '');
    return age >= minAgeMs; // not for NaN
  }
}
