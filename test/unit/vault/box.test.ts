import { createPublicKey, randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { boxFor, deriveBoxKey, publicPartOf, unboxWith } from '../../../daemon/src/vault/box.ts';

const rootKey = randomBytes(32);
const aad = Buffer.from('what it is bound to');
const secret = randomBytes(32);
const box = boxFor(publicPartOf(deriveBoxKey(rootKey)));
const unbox = unboxWith(deriveBoxKey(rootKey));

test('what was boxed for a root key opens with it, and each box is another one', () => {
  const [first, second] = [box(aad, secret), box(aad, secret)];
  expect(unbox(aad, first)).toEqual(secret);
  expect(unbox(aad, second)).toEqual(secret);
  expect(first.equals(second)).toBe(false);
  expect(first.length).toBe(secret.length + 80);
  expect(first.includes(secret)).toBe(false);
});

test('it does not open with another root key, bound to something else, or changed by a bit', () => {
  const boxed = box(aad, secret);
  expect(unboxWith(deriveBoxKey(randomBytes(32)))(aad, boxed)).toBeUndefined();
  expect(unbox(Buffer.from('another'), boxed)).toBeUndefined();
  for (let bit = 0; bit < boxed.length * 8; bit += 1) {
    const other = Buffer.from(boxed);
    other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect([bit, unbox(aad, other)]).toEqual([bit, undefined]); // also the highest one of the public key, which X25519 ignores (RFC 7748 section 5)
  }
});

test('what makes boxes is the public part alone', () => {
  expect(publicPartOf(deriveBoxKey(rootKey)).type).toBe('public');
  expect(publicPartOf(deriveBoxKey(rootKey)).equals(createPublicKey(deriveBoxKey(rootKey)))).toBe(true);
});
