import type { Complete } from '../vault/copies.ts';
import type { OpenRecord } from '../vault/inspection.ts';
import type { Carry, FindBox, Moving } from '../vault/moving.ts';
import { isRootBound } from './check-value.ts';
import { boxAad } from './lifetimes.ts';
import { decodeKey, encodeKey, findBoxedKey } from './record.ts';
import { decodeJson, encodeJson, factsId, type VaultFacts } from './records.ts';

/** The box in a record, so that the vault can box it anew for another root key. */
const boxIn: FindBox = ({ kind, id, plaintext }) => {
  const boxed = kind === 'key' ? findBoxedKey(plaintext) : undefined;
  return boxed && { aad: boxAad(id), boxed };
};

/** The material of a check value of the first kind may be gone: what it was made with becomes its salt. */
const carryCheckSalt: Carry = (record, deriveOld) => {
  if (record.kind !== 'key') return record;
  const key = decodeKey(record.id, record.plaintext);
  if (!isRootBound(key)) return record;
  const salt = deriveOld('import check value');
  const carried: OpenRecord = { ...record, plaintext: encodeKey({ ...key, checkSalt: salt.toString('base64') }) };
  salt.fill(0);
  record.plaintext.fill(0);
  return carried;
};

/** How the records of a keyring move to another root key. */
export const keyringMoving: Moving = { findBox: boxIn, carry: carryCheckSalt };

/** More restores than a version may encrypt messages: of a limit that so many share, each has none. */
const unknownRestores = 2 ** 40;

/**
 * What was saved, with facts that count no fewer restores than its versions do. Where facts were lost or are older nothing says how often the vault was put back, and a
 * version that is older than that may have encrypted any number of times without a count: those of before encrypt no more. What they encrypted opens.
 */
export const completeFacts: Complete = (records) => {
  const facts = records.find(({ kind, id }) => kind === 'facts' && id === factsId);
  const known: VaultFacts = facts ? decodeJson(facts.plaintext) : { restores: 0 };
  const newest = records.reduce((most, { kind, id, plaintext }) => (kind === 'key' ? Math.max(most, ...restoresIn(id, plaintext)) : most), 0);
  if (facts && known.restores >= newest) return records;
  const raised: OpenRecord = { kind: 'facts', id: factsId, plaintext: encodeJson({ ...known, restores: newest + unknownRestores }) };
  return [...records.filter((record) => record !== facts), raised];
};

const restoresIn = (keyId: string, record: Uint8Array): number[] => decodeKey(keyId, record).versions.map(({ restores }) => restores);
