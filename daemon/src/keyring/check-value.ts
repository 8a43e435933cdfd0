import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { Key } from './key.ts';

const saltBytes = 32;

/** What tells imported material from other when it is gone; both base64. It is sealed with the key, and follows from no root key: a new one leaves it good. */
export type SaltedCheck = Required<Pick<Key, 'checkValue' | 'checkSalt'>>;

const compute = (salt: Uint8Array, keyId: string, material: Uint8Array): Buffer => createHmac('sha256', salt).update(keyId).update(material).digest();

/** The check value of material whose bytes are at hand. Who has it and its salt can try material; material is random, so that trying is of no use. */
export function makeCheck(keyId: string, material: Uint8Array): SaltedCheck {
  const salt = randomBytes(saltBytes);
  return { checkValue: compute(salt, keyId, material).toString('base64'), checkSalt: salt.toString('base64') };
}

/**
 * Holds material to the check value of the key, if it has one.
 * @param deriveSalt - what the first check values have in place of a salt of their own: a key that follows from the root key.
 * @throws AgentError `ERR_INVALID_KEY_MATERIAL` when the key had other material before.
 */
export function requireSame({ keyId, checkValue, checkSalt }: Key, material: Uint8Array, deriveSalt: () => Buffer): void {
  if (checkValue === undefined) return;
  const salt = checkSalt === undefined ? deriveSalt() : Buffer.from(checkSalt, 'base64');
  const computed = compute(salt, keyId, material);
  salt.fill(0);
  const expected = Buffer.from(checkValue, 'base64');
  if (expected.length !== computed.length || !timingSafeEqual(computed, expected))
    throw new AgentError('ERR_INVALID_KEY_MATERIAL', { hint: 'The key had other material before; only the same may be imported again.' });
}

/** Whether the check value follows from the root key. That of a key in a token is the provider's, and does not. */
export const isRootBound = ({ protectionLevel, checkValue, checkSalt }: Key): boolean =>
  protectionLevel === 'SOFTWARE' && checkValue !== undefined && checkSalt === undefined;
