import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import type { Key } from '../../../daemon/src/keyring/key.ts';
import { decodeKey, encodeKey, readIndex } from '../../../daemon/src/keyring/record.ts';
import { byteChanges, changeBytes } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const keyId = '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f';
const time = fc.nat({ max: 4_102_444_800_000 });
const version = fc.record(
  {
    keyVersionId: fc.uuid(),
    creationTime: time,
    restores: fc.nat(3),
    material: fc.uint8Array({ maxLength: 40 }),
    useCount: fc.nat(),
    publicKey: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  },
  { requiredKeys: ['keyVersionId', 'creationTime', 'restores', 'material', 'useCount'] },
);

const tagName = fc.string({ maxLength: 5 }).filter((name) => !/["\\]/.test(name)); // the names that the protocol lets through

/** Keys in every form that a record must hold. */
const key: fc.Arbitrary<Key> = fc
  .record({
    versions: fc.array(version, { minLength: 1, maxLength: 4 }),
    primary: fc.nat(3),
    description: fc.string(),
    tags: fc.dictionary(tagName, fc.string({ maxLength: 5 }), { maxKeys: 3 }),
    disabled: fc.boolean(),
    inToken: fc.boolean(),
    rotation: fc.oneof(fc.constant({ enabled: false }), fc.record({ enabled: fc.constant(true), intervalMs: time })),
    deletionTime: fc.option(time, { nil: undefined }),
    lifetime: fc.option(fc.record({ seconds: fc.nat(365 * 86_400), boxedKey: fc.uint8Array({ maxLength: 255 }) }), { nil: undefined }),
    lastUsedTime: time,
  })
  .map(
    ({ versions, primary, inToken, deletionTime, lifetime, lastUsedTime, ...rest }): Key => ({
      ...rest,
      keyId,
      keySpec: 'AES_256',
      keyUsage: 'ENCRYPT_DECRYPT',
      protectionLevel: inToken ? 'HSM' : 'SOFTWARE',
      origin: 'GENERATED',
      provider: inToken ? 'token' : 'software',
      creator: 'uid:0',
      creationTime: 1,
      lastRotationTime: 1,
      deletionProtection: { enabled: false },
      ...(deletionTime === undefined ? {} : { deletionTime }),
      ...(lifetime === undefined ? {} : { lifetime }),
      primaryKeyVersionId: versions[primary % versions.length]?.keyVersionId ?? '',
      versions: versions.map((one) => ({ ...one, keySpec: 'AES_256', reservedUses: one.useCount })),
      usage: { lastUsedTime, writtenTime: lastUsedTime },
    }),
  );

/** Everything that a key says, in one order, for comparison. */
function show(value: unknown): string {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return `[${value.map(show).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([name, inner]) => `${JSON.stringify(name)}:${show(inner)}`).join()}}`;
}

/** The sealed form of a key, once it is open. */
export const keys: Target = {
  name: 'keys',
  promise: 'a key is read as it was written, and what was changed is a key or named as damaged, at once',
  runs: 2000,
  open: () =>
    prove(fc.record({ key, changes: byteChanges }), ({ key: written, changes }) => {
      const record = encodeKey(written);
      must(show(decodeKey(keyId, record)) === show(written), `${show(written)} is read as ${show(decodeKey(keyId, record))}`);
      for (const read of [readIndex, (bytes: Uint8Array) => decodeKey(keyId, bytes)]) {
        try {
          read(changeBytes(record, changes));
        } catch (error) {
          must(isAgentError(error, 'ERR_INTERNAL'), `it fails with ${String(error)}`);
        }
      }
    }),
};
