import { type AuditState, isCheckpointOf, nextKey } from './chain.ts';
import type { ReadLine } from './reading.ts';
import { type AuditRecord, hashLine } from './record.ts';

/** What happened to a record; `differs`: it begins a file that is there twice, and not the same. */
type FindingKind = 'changed' | 'dropped' | 'swapped' | 'duplicated' | 'cutOff' | 'forged' | 'differs';

/** Records that are not there, as it must be. */
interface Gap {
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** Records right before it that no checkpoint proves: the one that did was deleted. */
  readonly unproven: number;
}

/** What a check of the record found. */
export interface Verification {
  readonly ok: boolean;
  /** Records that were read. */
  readonly records: number;
  readonly firstSeq?: number;
  readonly lastSeq?: number;
  /** Checkpoints that were proven with the key. */
  readonly checkpoints: number;
  /** Records after the last of these: chained, but not keyed yet. */
  readonly unkeyed: number;
  /** Records between files that are there, which the agent itself deleted. */
  readonly gaps?: readonly Gap[];
  /** What lies in an archive folder and was not read. */
  readonly passedOver?: readonly string[];
  /** The first thing that is wrong: which record, and what happened to it. */
  readonly finding?: { readonly seq: number; readonly what: FindingKind; readonly file?: string };
}

/** What a check starts from. */
export interface VerifyOptions {
  /** The audit start key, out of a keyslot. */
  readonly startKey: Uint8Array;
  /** Where the vault remembers the chain: a record that ends before it was cut off, and only the vault says which of the oldest records the agent deleted. */
  readonly remembered?: Pick<AuditState, 'seq' | 'hash' | 'number' | 'droppedSeq'>;
  /** Folders with files that were moved or copied away. */
  readonly archives?: readonly string[];
  /** Hears how many records were read. */
  readonly onProgress?: (records: number) => void;
}

type Finding = NonNullable<Verification['finding']>;

/** Records between two reports of progress. */
const progressRecords = 10_000;

/** Keys that are computed for a checkpoint whose number no vault remembers, about a second's worth: the number may be anybody's. */
const mostUnremembered = 500_000;

/** A line with its own hash. */
interface HashedLine extends ReadLine {
  readonly hash: string;
}

/** A check of lines, from the first to the last. */
export class Check {
  readonly #options: VerifyOptions;
  #key: Uint8Array;
  #number = 0;
  #records = 0;
  #firstSeq: number | undefined;
  /** The line that waits for the one after it, which tells whose fault a break is. */
  #pending: HashedLine | undefined;
  #last: { seq: number; hash: string; file: string } | undefined;
  #checkpoints = 0;
  #unkeyed = 0;
  readonly #gaps: Gap[] = [];
  /** The next checkpoint may have any later number: those before it are not there. */
  #mayLeap = true;
  #finding: Finding | undefined;
  /** The first checkpoint that did not prove itself, before one that did: of another vault, or forged. */
  #unproven: number | undefined;

  constructor(options: VerifyOptions) {
    this.#options = options;
    this.#key = options.startKey;
  }

  /** @returns whether all is well so far. */
  take(line: ReadLine): boolean {
    const next = { ...line, hash: hashLine(line.line) };
    const isWell = this.#pending === undefined || this.#check(this.#pending, next);
    this.#pending = next;
    return isWell;
  }

  /** At the end: what is missing before the first record and after the last, and a record that no checkpoint proves although the vault has made some. */
  finish(): Verification {
    if (this.#pending && !this.#check(this.#pending, undefined)) return this.result();
    const { remembered } = this.#options;
    const [firstSeq, lastSeq] = [this.#firstSeq ?? 1, this.#last?.seq ?? 0];
    const droppedSeq = remembered?.droppedSeq ?? 0; // a line of the record itself could be anybody's
    if (firstSeq - 1 > droppedSeq) this.#finding = { seq: droppedSeq + 1, what: 'dropped' };
    else if (remembered && lastSeq < remembered.seq) this.#finding = { seq: lastSeq + 1, what: 'cutOff' };
    else if (remembered && remembered.number > 0 && this.#checkpoints === 0 && this.#unproven !== undefined)
      this.#finding = { seq: this.#unproven, what: 'forged' };
    return this.result();
  }

  /** Something is wrong before a line was read. */
  stop(finding: Finding): Verification {
    this.#finding = finding;
    return this.result();
  }

  #check(line: HashedLine, next: HashedLine | undefined): boolean {
    const { record, hash, file } = line;
    if (this.#isAfterGap(line, next)) this.#leap(line);
    this.#finding = this.#findBreak(line, next);
    if (this.#finding || !record) return false;
    const { seq } = record;
    this.#records += 1;
    if (this.#records % progressRecords === 0) this.#options.onProgress?.(this.#records);
    this.#firstSeq ??= seq;
    this.#last = { seq, hash, file };
    this.#unkeyed += 1;
    const { remembered } = this.#options;
    if (record.operation === 'checkpoint') this.#takeCheckpoint(record, line, next);
    if (seq === remembered?.seq && hash !== remembered.hash) this.#finding ??= this.#explainForgetting({ seq, what: 'changed', file });
    return this.#finding === undefined;
  }

  /** Whether the agent itself deleted what is missing before a line: whole files, and none that the vault does not know of. */
  #isAfterGap({ record, file }: HashedLine, next: HashedLine | undefined): boolean {
    const { remembered } = this.#options;
    if (!record || !this.#last || !remembered || file === this.#last.file) return false;
    const expected = this.#last.seq + 1;
    return record.seq > expected && record.seq - 1 <= remembered.droppedSeq && next?.record?.seq !== expected;
  }

  /** Goes on behind what was deleted, as if it were all there. */
  #leap({ record, file }: HashedLine): void {
    if (!record || !this.#last) return;
    this.#gaps.push({ firstSeq: this.#last.seq + 1, lastSeq: record.seq - 1, unproven: this.#unkeyed });
    this.#last = { seq: record.seq - 1, hash: record.previous, file };
    this.#unkeyed = 0;
    this.#mayLeap = true;
  }

  result(): Verification {
    return {
      ok: this.#finding === undefined,
      records: this.#records,
      ...(this.#firstSeq === undefined ? {} : { firstSeq: this.#firstSeq }),
      ...(this.#last === undefined ? {} : { lastSeq: this.#last.seq }),
      checkpoints: this.#checkpoints,
      unkeyed: this.#unkeyed,
      ...(this.#gaps.length > 0 ? { gaps: this.#gaps } : {}),
      ...(this.#finding ? { finding: this.#finding } : {}),
    };
  }

  #findBreak(line: HashedLine, next: HashedLine | undefined): Finding | undefined {
    const { file, record } = line;
    const expected = this.#last === undefined ? record?.seq : this.#last.seq + 1;
    if (!record || expected === undefined) return { seq: expected ?? 1, what: 'changed', file };
    if (!this.#last && next?.record?.seq === record.seq - 1) return { seq: record.seq - 1, what: 'swapped', file };
    const vouched = this.#isVouched(line, next);
    if (record.seq !== expected) return this.#explainNumber(record.seq, { expected, vouched, file, after: next?.record?.seq });
    if (this.#last && record.previous !== this.#last.hash) return { seq: vouched ? this.#last.seq : record.seq, what: 'changed', file };
    return undefined;
  }

  /** Whether the line after this one, or the vault, knows it as it is. */
  #isVouched({ hash, record }: HashedLine, next: HashedLine | undefined): boolean {
    const { remembered } = this.#options;
    return next ? next.record?.previous === hash : record?.seq === remembered?.seq && hash === remembered?.hash;
  }

  /** A number that is not the next one: changed, if the line after it goes on as if nothing were missing; else something moved. */
  #explainNumber(seq: number, { expected, vouched, file, after }: { expected: number; vouched: boolean; file: string; after: number | undefined }): Finding {
    if (!vouched && after === expected + 1) return { seq: expected, what: 'changed', file };
    if (seq === expected - 1) return { seq, what: 'duplicated', file };
    if (after === expected) return { seq: expected, what: 'swapped', file };
    return { seq: expected, what: seq > expected ? 'dropped' : 'changed', file };
  }

  /** Proves a checkpoint with the key of its number. One of another vault, before this one's first, proves nothing and breaks nothing. */
  #takeCheckpoint(record: AuditRecord, line: HashedLine, next: HashedLine | undefined): void {
    const { seq, number = -1 } = record;
    const { file } = line;
    if (this.#mayLeap) this.#catchUp(number);
    if (isCheckpointOf(this.#key, this.#number, record)) {
      this.#key = nextKey(this.#key);
      this.#number += 1;
      this.#checkpoints += 1;
      this.#mayLeap = false;
      this.#unkeyed = 0;
    } else if (this.#checkpoints > 0) this.#finding = { seq, what: this.#isVouched(line, next) ? 'forged' : 'changed', file };
    else this.#unproven ??= seq;
  }

  /** The vault remembers another line: everything was made anew from before the first checkpoint on, if none proved itself. */
  #explainForgetting(finding: Finding): Finding {
    return this.#checkpoints === 0 && this.#unproven !== undefined ? { seq: this.#unproven, what: 'forged' } : finding;
  }

  /** The first files may be gone: the key of any later checkpoint is computed from the first. */
  #catchUp(number: number): void {
    const most = this.#options.remembered?.number ?? mostUnremembered;
    if (!Number.isSafeInteger(number) || number < this.#number || number > most) return;
    for (; this.#number < number; this.#number += 1) this.#key = nextKey(this.#key);
  }
}
