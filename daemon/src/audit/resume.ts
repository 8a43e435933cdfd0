import { type AuditState, type ChainEnd, isCheckpointOf, nextKey } from './chain.ts';
import { readAfter } from './reading.ts';
import { type AuditRecord, hashLine, noHash } from './record.ts';

/** What a look at the files found out when the vault was opened. */
export interface Resumed {
  /** Key and number of the next checkpoint. */
  readonly key: Buffer;
  readonly number: number;
  /** The greatest revision of the vault that a proven checkpoint saw. */
  readonly vaultRevision: bigint;
  /** Changes that nobody knows the end of: they had begun when an earlier process ended. */
  readonly openChanges: readonly AuditRecord[];
  /** What is wrong with the record; undefined when nothing is. */
  readonly finding?: string;
}

/**
 * Walks from the last checkpoint that the vault remembers, or from a change that had begun before it and not ended, to where the chain was
 * when this process began to write: a crash may have left checkpoints that the vault does not know of.
 * @param until - the end of the chain when the walk begins.
 */
export async function resume(folder: string, state: AuditState, until: ChainEnd): Promise<Resumed> {
  const walk = new Walk(state);
  const first = state.openSeq === 0 ? state.seq : Math.min(state.openSeq, state.seq);
  if (until.seq >= state.seq)
    for await (const { line, record } of readAfter(folder, Math.max(first - 1, 0))) {
      if (record && record.seq < first) continue;
      if (record && record.seq > until.seq) break;
      if (!walk.take(line, record)) break;
    }
  return walk.result(until);
}

class Walk {
  readonly #state: AuditState;
  readonly #openChanges = new Map<string, AuditRecord>();
  #key: Buffer;
  #number: number;
  #vaultRevision = 0n;
  #previous: string | undefined;
  #hasSeen: boolean;
  #finding: string | undefined;

  constructor(state: AuditState) {
    this.#state = state;
    this.#key = Buffer.from(state.key);
    this.#number = state.number;
    this.#hasSeen = state.seq === 0;
  }

  /** @returns whether the walk can go on. */
  take(line: string, record: AuditRecord | undefined): boolean {
    const { seq, hash } = this.#state;
    if (!record || (this.#previous !== undefined && record.previous !== this.#previous)) return this.#fail(`The audit record is broken after ${seq}`);
    this.#previous = hashLine(line);
    if (record.seq > seq && !this.#hasSeen) return false;
    if (record.seq === seq) this.#hasSeen = true;
    if (record.seq === seq && this.#previous !== hash) return this.#fail(`Record ${seq} of the audit record is not the one that the vault remembers`);
    this.#follow(record);
    return true;
  }

  result(until: ChainEnd): Resumed {
    const { seq } = this.#state;
    if (until.seq < seq) this.#fail(`The audit record ends at ${until.seq}, and the vault remembers ${seq}`);
    else if (!this.#hasSeen) this.#fail(`Record ${seq} of the audit record, which the vault remembers, is gone`);
    const openChanges = [...this.#openChanges.values()];
    const finding = this.#finding === undefined ? {} : { finding: this.#finding };
    return { key: this.#key, number: this.#number, vaultRevision: this.#vaultRevision, openChanges, ...finding };
  }

  #follow(record: AuditRecord): void {
    const { requestId, outcome } = record;
    if (requestId !== undefined && outcome === 'begun') this.#openChanges.set(requestId, record);
    else if (requestId !== undefined) this.#openChanges.delete(requestId);
    if (record.seq <= this.#state.seq || !isCheckpointOf(this.#key, this.#number, record)) return;
    const revision = BigInt(record.vaultRevision ?? 0);
    if (revision > this.#vaultRevision) this.#vaultRevision = revision; // the greatest, not the last
    const used = this.#key;
    this.#key = nextKey(used);
    used.fill(0);
    this.#number += 1;
  }

  #fail(what: string): false {
    this.#finding ??= `${what}; kms-agent audit verify names what is wrong.`;
    return false;
  }
}

/** The state of a vault that was never attached to a record. */
export const firstState = (key: Uint8Array): AuditState => ({ key, number: 0, seq: 0, openSeq: 0, droppedSeq: 0, hash: noHash });
