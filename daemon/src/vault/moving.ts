import { AgentError } from '@kms-agent/protocol';
import { type Box, deriveBoxKey, unboxWith } from './box.ts';
import type { OpenRecord, Purpose } from './inspection.ts';
import { deriveKey } from './seal.ts';

/** The box in a record, if there is one: a part of its plaintext, and what it is bound to. */
export type FindBox = (record: OpenRecord) => { readonly aad: Uint8Array; readonly boxed: Uint8Array } | undefined;

/**
 * The record with what it needs of the old root key in it; the same object where it needs nothing. A plaintext that is replaced is zeroed.
 * @param deriveOld - the 32-byte key of a purpose, as the old root key gives it; the caller's to wipe.
 */
export type Carry = (record: OpenRecord, deriveOld: (purpose: Purpose) => Buffer) => OpenRecord;

/** What those who write the records know of them: without either, a new root key would make something in them worthless. */
export interface Moving {
  readonly findBox: FindBox;
  readonly carry: Carry;
}

/** Makes records good for another root key. A box has the same length for the same content. @throws AgentError `ERR_INTERNAL` for one that does not open. */
export function moveRecords(records: readonly OpenRecord[], { findBox, carry }: Moving, oldRootKey: Uint8Array, box: Box): OpenRecord[] {
  const carried = records.map((record) => carry(record, (purpose) => deriveKey(oldRootKey, purpose)));
  const unbox = unboxWith(deriveBoxKey(oldRootKey));
  for (const found of carried.map(findBox)) {
    const plaintext = found && unbox(found.aad, found.boxed);
    if (!found) continue;
    if (!plaintext) throw new AgentError('ERR_INTERNAL', {}, { cause: new RangeError('a box does not open') });
    found.boxed.set(box(found.aad, plaintext));
    plaintext.fill(0);
  }
  return carried;
}
