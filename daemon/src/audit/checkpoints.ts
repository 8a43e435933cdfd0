import { type AuditState, nextKey } from './chain.ts';
import type { ChainWriter } from './chain-writer.ts';
import type { OldFiles } from './old-files.ts';
import type { Outage } from './outage.ts';

/** When checkpoints are made. */
export interface CheckpointLimits {
  /** Records after which a checkpoint is made. */
  readonly checkpointRecords: number;
  /** Milliseconds after which one is made, if there are records. */
  readonly checkpointMs: number;
}

/** What ties the record to an open vault. */
export interface AuditAnchor {
  /** Of the vault, as it is now. */
  revision(): bigint;
  /** Whether the wall clock can be believed when something is about to be lost for good. */
  isClockBelievable(): boolean;
  /** Keeps the state, sealed and durable. @returns whether it could; else what is kept is older. */
  keep(state: AuditState): boolean;
}

/** What checkpoints work with. */
export interface CheckpointsOptions {
  readonly chain: ChainWriter;
  readonly oldFiles: OldFiles;
  readonly outage: Outage;
  readonly limits: CheckpointLimits;
}

/** Keys the chain again and again, and lets the vault know each time where it is. */
export class Checkpoints {
  readonly #options: CheckpointsOptions;
  #key: { key: Buffer; number: number } | undefined;
  #anchor: AuditAnchor | undefined;
  #revision = 0n;
  /** Records since the last checkpoint. */
  #records = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
  }

  /** Of the vault, as the last checkpoint of this process saw it. */
  get vaultRevision(): bigint {
    return this.#revision;
  }

  /** Whether this process knows the key. */
  get isKeyed(): boolean {
    return this.#key !== undefined;
  }

  /** Whether there is an open vault, and it says that the wall clock can be believed. */
  get isClockBelievable(): boolean {
    return this.#anchor?.isClockBelievable() ?? false;
  }

  /** The vault is open. @param state - key and number of the next checkpoint; a process that has them goes on with its own. */
  attach(state: Pick<AuditState, 'key' | 'number' | 'droppedSeq'> | undefined, anchor: AuditAnchor): void {
    const { chain, oldFiles } = this.#options;
    if (state) this.#key ??= { key: Buffer.from(state.key), number: state.number };
    oldFiles.resume(state?.droppedSeq ?? 0);
    this.#revision = anchor.revision();
    this.#anchor = anchor;
    if (chain.end.seq > 0) this.#records = Math.max(this.#records, 1); // what was recorded before the unlock is keyed soon
    this.#plan();
  }

  /** The vault is about to be locked: one more checkpoint is kept in it. The key stays; it opens nothing. */
  detach(): void {
    this.#make();
    this.#anchor = undefined;
  }

  /** So many records were written. */
  count(records: number): void {
    this.#records += records;
    if (this.#records >= this.#options.limits.checkpointRecords) this.#make();
    else this.#plan();
  }

  /** So many records were written at the end of an outage: a checkpoint that is due by that comes with the next ones. */
  countLater(records: number): void {
    this.#records += records;
    this.#plan();
  }

  /** Makes the last one. */
  close(): void {
    this.#make();
    clearTimeout(this.#timer);
    this.#key?.key.fill(0);
  }

  #plan(): void {
    if (!this.#key || this.#timer || this.#records === 0) return;
    this.#timer = setTimeout(() => this.#make(), this.#options.limits.checkpointMs);
    this.#timer.unref();
  }

  /** Keys everything up to here. The key that did it is gone afterwards: who takes the process later cannot change what is behind. */
  #make(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const { chain, outage } = this.#options;
    if (!this.#key || this.#records === 0 || outage.failure !== undefined) return;
    const { key, number } = this.#key;
    try {
      this.#revision = this.#anchor?.revision() ?? this.#revision;
      chain.writeCheckpoint(key, number, this.#revision);
    } catch (error) {
      outage.begin(error);
      return;
    }
    const next = { key: nextKey(key), number: number + 1 };
    key.fill(0);
    this.#key = next;
    this.#records = 0;
    this.#keep(next);
  }

  /** What the vault knows of the chain, it knows of files that go too. */
  #keep(next: Pick<AuditState, 'key' | 'number'>): void {
    const { chain, oldFiles } = this.#options;
    const droppedSeq = oldFiles.leavingSeq;
    if (this.#anchor?.keep({ ...next, ...chain.end, openSeq: chain.openSeq, droppedSeq })) oldFiles.known(droppedSeq);
  }
}
