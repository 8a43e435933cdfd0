import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { TokenImport } from '../../../daemon/src/providers/pkcs11/import.ts';
import type { KeyCalls } from '../../../daemon/src/providers/pkcs11/key-calls.ts';
import type { TokenLink } from '../../../daemon/src/providers/pkcs11/link.ts';

const algorithm = 'RSAES_OAEP_SHA_1';
const made = { keyId: randomUUID(), keyVersionId: randomUUID(), keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT' } as const;

/** An import into a token that unwraps, or not, and what its helper was asked. */
function setUp(unwraps: boolean) {
  const asked: unknown[] = [];
  const connection = { abilities: { unwraps: unwraps ? [algorithm] : [] } };
  const call = async (name: string, params: unknown): Promise<unknown> => {
    asked.push(params);
    return name === 'unwrap' ? { proof: Buffer.from('proof') } : { publicKey: Buffer.from('public') };
  };
  const keys = { run: async (_id: string, work: () => Promise<unknown>) => await work() };
  return { asked, import: new TokenImport({ connection, call } as unknown as TokenLink, keys as unknown as KeyCalls) }; // as far as an import knows them
}

const unwrap = { algorithm, wrapped: Buffer.alloc(256), hasMaterial: false } as const;

test.each([true, false])('unwrap: who does it is as the pair was made (in the token: %s), whatever the token is seen to do by now', async (inToken) => {
  const id = randomUUID();
  const { state } = await setUp(inToken).import.makePair({ id, keySpec: 'RSA_2048', algorithm, label: 'x' });
  const later = setUp(!inToken);
  expect(await later.import.unwrap(made, { ...unwrap, state })).toMatchObject({ unwrappedIn: inToken ? 'TOKEN' : 'AGENT' });
  expect(later.asked).toMatchObject([{ wrappingId: id, inToken }]);
});

test.each([true, false])('unwrap: a pair of a time when that was not written down is used as the token does it now (in the token: %s)', async (inToken) => {
  const id = randomUUID();
  const token = setUp(inToken);
  await token.import.unwrap(made, { ...unwrap, state: Buffer.from(id) });
  expect(token.asked).toMatchObject([{ wrappingId: id, inToken }]);
});
