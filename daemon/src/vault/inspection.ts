import { createSecretKey, type KeyObject } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { type Box, boxFor, deriveBoxKey, publicPartOf } from './box.ts';
import type { Finding } from './damage.ts';
import type { Database, RecordRow } from './database.ts';
import { Head, type HeadKey, hashKeyslots, makeHeadKey } from './head.ts';
import { RecordIndex } from './record-index.ts';
import { deriveKey, recordAad, tagOf, unseal } from './seal.ts';

/** A record as its owner knows it; `plaintext` has a buffer of its own, which the reader zeroes. */
export interface OpenRecord {
  readonly kind: string;
  readonly id: string;
  readonly plaintext: Uint8Array;
}

/** Names the records that a record points at, so that one that is gone can be named. */
export type Mentions = (record: OpenRecord) => readonly { kind: string; id: string }[];

/** Gets each record as it is opened; the plaintext is its to zero. */
export type Visit = (record: OpenRecord) => void;

/** What keys are derived for, beside the vault's own records. The names are part of the format. */
const purposes = ['page token', 'import check value', 'import token'] as const;

export type Purpose = (typeof purposes)[number];

/** What an open vault holds in memory. Not the root key: from it follows what must not be had again before the next unlock. */
export interface OpenState {
  /** Used for every record; dropped at lock, and collected. */
  readonly recordsKey: KeyObject;
  readonly headSealingKey: Buffer;
  readonly headKey: HeadKey;
  /** Makes what the root key alone opens. */
  readonly box: Box;
  readonly purposeKeys: ReadonlyMap<Purpose, Buffer>;
  head: Head;
  readonly index: RecordIndex;
}

/** @param rootKey - stays the caller's to wipe. */
export function deriveState(rootKey: Uint8Array): OpenState {
  const [records, headSealingKey, sums] = [deriveKey(rootKey, 'records'), deriveKey(rootKey, 'head'), deriveKey(rootKey, 'head sums')];
  const [recordsKey, headKey] = [createSecretKey(records), makeHeadKey(sums)];
  records.fill(0);
  sums.fill(0);
  const box = boxFor(publicPartOf(deriveBoxKey(rootKey)));
  const purposeKeys = new Map(purposes.map((purpose) => [purpose, deriveKey(rootKey, purpose)]));
  return { recordsKey, headSealingKey, headKey, box, purposeKeys, head: new Head(headKey), index: new RecordIndex() };
}

export function wipeState({ headSealingKey, headKey, purposeKeys }: OpenState): void {
  for (const key of [headSealingKey, headKey, ...purposeKeys.values()]) key.fill(0);
}

const changed = 'was changed or swapped';

/** Longest kind and id that are authenticated (recordAad). */
const [maxKindBytes, maxIdBytes] = [0xff, 0xffff];

/** Whether a row could have been written by us: SQLite lets others put in what has no place in the head's sums. */
function isPossible({ kind, id, revision }: RecordRow): boolean {
  return revision >= 0n && Buffer.byteLength(kind) <= maxKindBytes && Buffer.byteLength(id) <= maxIdBytes;
}

/**
 * Opens every record and checks it and all of them together against the head. Fills `state`; nothing is thrown for damage.
 * The event loop gets its turn between pages: others ask for the status while 100,000 records are opened.
 */
export async function inspect(
  db: Database,
  vaultId: Uint8Array,
  state: OpenState,
  mentions: Mentions,
  visit: Visit,
  { tolerant = false }: { tolerant?: boolean } = {},
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const onDamage = (): void => void findings.push({ what: 'file', reason: 'a part of it cannot be read' });
  const mentioned: { kind: string; id: string }[] = [];
  const seen = new Head(state.headKey);
  for (const page of tolerant ? db.readableRecords(onDamage) : db.recordPages()) {
    for (const row of page) {
      const { kind, id, revision } = row;
      if (!isPossible(row)) {
        findings.push({ what: 'record', kind, id, reason: changed });
        continue;
      }
      const tag = tagOf(row.sealed);
      seen.add({ kind, id, revision, tag });
      state.index.set(kind, id, { revision, tag });
      const plaintext = unseal(state.recordsKey, recordAad(vaultId, kind, id, revision), row.sealed);
      if (plaintext) {
        const record = { kind, id, plaintext };
        mentioned.push(...mentions(record));
        visit(record);
      } else findings.push({ what: 'record', kind, id, reason: changed });
    }
    await setImmediate();
  }
  const missing = mentioned.filter(({ kind, id }) => !state.index.has(kind, id));
  const named = missing.map(({ kind, id }): Finding => ({ what: 'record', kind, id, reason: 'is mentioned by another record and missing' }));
  return [...findings, ...checkHead(db, vaultId, state, seen), ...named];
}

function checkHead(db: Database, vaultId: Uint8Array, state: OpenState, seen: Head): Finding[] {
  const row = db.head();
  const encoded = row && row.revision >= 0n && unseal(state.headSealingKey, recordAad(vaultId, 'head', '', row.revision), row.sealed);
  if (!encoded) return [{ what: 'head', reason: row ? 'was changed' : 'is missing' }];
  state.head = Head.decode(state.headKey, encoded);
  const findings: Finding[] = state.head
    .differingBuckets(seen)
    .map((bucket) => ({ what: 'bucket', bucket, reason: 'a record was dropped, added, changed or rolled back' }));
  if (!state.head.keyslotsHash.equals(hashKeyslots(db.keyslots()))) findings.push({ what: 'keyslots', reason: 'one was changed, added or removed' });
  return findings;
}
