import type { Finding } from './damage.ts';
import type { Database } from './database.ts';
import { Head, hashKeyslots } from './head.ts';
import { deriveKey, recordAad, tagOf, unseal } from './seal.ts';

/** A record as its owner knows it; `plaintext` has a buffer of its own, which the reader zeroes. */
export interface OpenRecord {
  readonly kind: string;
  readonly id: string;
  readonly plaintext: Uint8Array;
}

/** Names the records that a record points at, so that one that is gone can be named. */
export type Mentions = (record: OpenRecord) => readonly { kind: string; id: string }[];

/** What an open vault holds in memory. */
export interface OpenState {
  readonly rootKey: Buffer;
  readonly recordsKey: Buffer;
  readonly headKey: Buffer;
  head: Head;
  /** Revision and tag of each record, by kind and id, to take it out of the head's sums. */
  readonly index: Map<string, { revision: bigint; tag: Uint8Array }>;
}

export const indexName = (kind: string, id: string): string => `${kind}\0${id}`;

export function deriveState(rootKey: Buffer): OpenState {
  const headKey = deriveKey(rootKey, 'head');
  return { rootKey, recordsKey: deriveKey(rootKey, 'records'), headKey, head: new Head(headKey), index: new Map() };
}

export function wipeState({ rootKey, recordsKey, headKey }: OpenState): void {
  for (const key of [rootKey, recordsKey, headKey]) key.fill(0);
}

/** Opens every record and checks it and all of them together against the head. Fills `state`; nothing is thrown for damage. */
export function inspect(db: Database, vaultId: Uint8Array, state: OpenState, mentions: Mentions): { findings: Finding[]; records: OpenRecord[] } {
  const findings: Finding[] = [];
  const records: OpenRecord[] = [];
  const seen = new Head(state.headKey);
  for (const row of db.records()) {
    const { kind, id, revision } = row;
    const tag = tagOf(row.sealed);
    seen.add({ kind, id, revision, tag });
    state.index.set(indexName(kind, id), { revision, tag });
    const plaintext = unseal(state.recordsKey, recordAad(vaultId, kind, id, revision), row);
    if (plaintext) records.push({ kind, id, plaintext });
    else findings.push({ what: 'record', kind, id, reason: 'was changed or swapped' });
  }
  findings.push(...checkHead(db, vaultId, state, seen), ...findMissing(records, state.index, mentions));
  return { findings, records };
}

function checkHead(db: Database, vaultId: Uint8Array, state: OpenState, seen: Head): Finding[] {
  const row = db.head();
  const encoded = row && unseal(state.headKey, recordAad(vaultId, 'head', '', row.revision), row);
  if (!encoded) return [{ what: 'head', reason: row ? 'was changed' : 'is missing' }];
  state.head = Head.decode(state.headKey, encoded);
  const findings: Finding[] = state.head
    .differingBuckets(seen)
    .map((bucket) => ({ what: 'bucket', bucket, reason: 'a record was dropped, added, changed or rolled back' }));
  if (!state.head.keyslotsHash.equals(hashKeyslots(db.keyslots()))) findings.push({ what: 'keyslots', reason: 'one was changed, added or removed' });
  return findings;
}

/** Records that others mention and that are not there. */
function findMissing(records: readonly OpenRecord[], index: OpenState['index'], mentions: Mentions): Finding[] {
  const missing = records.flatMap((record) => mentions(record)).filter(({ kind, id }) => !index.has(indexName(kind, id)));
  return missing.map(({ kind, id }) => ({ what: 'record', kind, id, reason: 'is mentioned by another record and missing' }));
}
