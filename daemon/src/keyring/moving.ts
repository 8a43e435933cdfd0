import type { OpenRecord } from '../vault/inspection.ts';
import type { Carry, FindBox, Moving } from '../vault/moving.ts';
import { isRootBound } from './check-value.ts';
import { boxAad } from './lifetimes.ts';
import { decodeKey, encodeKey, findBoxedKey } from './record.ts';

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
