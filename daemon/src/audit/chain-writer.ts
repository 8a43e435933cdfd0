import { type ChainEnd, macCheckpoint } from './chain.ts';
import type { AuditFolder } from './folder.ts';
import { type AuditEntry, type AuditRecord, encodeRecord, hashLine } from './record.ts';

/** What a chain is written with. */
export interface ChainWriterOptions {
  readonly folder: AuditFolder;
  /** Where the chain goes on. */
  readonly end: ChainEnd;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** Hears of what somebody else did to the files. */
  readonly onTampering: (detail: Record<string, number>) => void;
}

/** Writes records into the folder, each chained to the one before it. The chain moves only when they are written. */
export class ChainWriter {
  readonly #options: ChainWriterOptions;
  #end: ChainEnd;
  /** Numbers of changes that have begun and not ended, by request: in the order of their beginning. */
  readonly #openChanges = new Map<string, number>();

  constructor(options: ChainWriterOptions) {
    this.#options = options;
    this.#end = options.end;
  }

  /** Where the last record is. */
  get end(): ChainEnd {
    return this.#end;
  }

  /** The oldest change that has not ended; 0 when there is none. */
  get openSeq(): number {
    return this.#openChanges.values().next().value ?? 0;
  }

  /** Writes entries in one write. @throws the system's error; then none of them is written. */
  write(entries: readonly AuditEntry[]): void {
    const { folder, onTampering } = this.#options;
    const firstSeq = this.#end.seq + 1;
    const { lines, end } = this.#chain(entries);
    folder.append(lines, firstSeq);
    this.#end = end;
    for (const [index, entry] of entries.entries()) this.#followChange(entry, firstSeq + index);
    const tampering = folder.takeTampering();
    if (tampering) onTampering(tampering);
  }

  /** Writes a checkpoint of everything up to here. @throws the system's error. */
  writeCheckpoint(key: Uint8Array, number: number, vaultRevision: bigint): void {
    const { seq, hash: previous } = this.#end;
    const facts = { number, seq: seq + 1, time: this.#time(), vaultRevision: String(vaultRevision), previous };
    const record: AuditRecord = { ...facts, operation: 'checkpoint', outcome: 'ok', mac: macCheckpoint(key, facts) };
    const line = encodeRecord(record);
    this.#options.folder.append(`${line}\n`, record.seq);
    this.#end = { seq: record.seq, hash: hashLine(line) };
  }

  #chain(entries: readonly AuditEntry[]): { lines: string; end: ChainEnd } {
    let { seq, hash } = this.#end;
    const time = this.#time();
    let lines = '';
    for (const entry of entries) {
      seq += 1;
      const line = encodeRecord({ seq, time, ...entry, previous: hash });
      hash = hashLine(line);
      lines += `${line}\n`;
    }
    return { lines, end: { seq, hash } };
  }

  #time(): string {
    return new Date(this.#options.now()).toISOString();
  }

  #followChange({ requestId, outcome }: AuditEntry, seq: number): void {
    if (requestId === undefined) return;
    if (outcome === 'begun') this.#openChanges.set(requestId, seq);
    else this.#openChanges.delete(requestId);
  }
}
