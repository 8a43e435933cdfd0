import { randomBytes } from 'node:crypto';
import { type AgentClient, type ErrorCode, isAgentError, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestAgent } from '../kit/agent.ts';
import { importMaterial, wrapMaterial } from '../kit/material.ts';

type Cell = 'ok' | ErrorCode;
type State = 'Enabled' | 'Disabled' | 'PendingDeletion' | 'PendingImport';

const states: readonly State[] = ['Enabled', 'Disabled', 'PendingDeletion', 'PendingImport'];
const plaintext = utf8('what is kept');
const material = randomBytes(32);

let agent: TestAgent;
let kms: AgentClient;
let imported: string;
let other: string;
/** A blob of each key, made while it could be used. */
const sealedBy = new Map<string, Uint8Array>();
beforeAll(async () => {
  agent = await TestAgent.dev('--no-default-key');
  kms = await agent.client();
  ({ keyId: imported } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' }));
  ({ keyId: other } = await kms.createKey());
});
afterAll(() => agent.end());

/** A key in a state. PendingImport is there for imported material only, and that for the default key only: one key that is put into each state again. */
async function keyIn(state: State, external: boolean): Promise<string> {
  const { keyId } = external ? await resetImported() : await kms.createKey();
  if (external) await importMaterial(kms, keyId, material);
  sealedBy.set(keyId, (await kms.advanceEncrypt({ keyId, plaintext })).ciphertextBlob);
  await kms.createAlias({ keyId, aliasName: `alias/gone/${Math.random().toString(36).slice(2)}` });
  if (state === 'PendingImport') await kms.deleteKeyMaterial({ keyId });
  if (state === 'Disabled') await kms.disableKey({ keyId });
  if (state === 'PendingDeletion') await kms.scheduleKeyDeletion({ keyId });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: state });
  return keyId;
}

async function resetImported(): Promise<{ keyId: string }> {
  const { keyState } = await kms.describeKey({ keyId: imported });
  if (keyState === 'PendingDeletion') await kms.cancelKeyDeletion({ keyId: imported });
  await importMaterial(kms, imported, material);
  await kms.enableKey({ keyId: imported });
  for (const { aliasName } of (await kms.listAliases({ keyId: imported, limit: 1000 })).aliases)
    if (aliasName !== 'alias/default') await kms.deleteAlias({ aliasName });
  return await kms.deleteKeyMaterial({ keyId: imported });
}

const aliasOf = (keyId: string): string => `alias/states/${keyId}-${Math.random().toString(36).slice(2)}`;

/** One row a method: what it does with a key, and what it is answered in each state. Only the last three rows need imported material in every state. */
const table: readonly (readonly [string, (keyId: string) => Promise<unknown>, ...Cell[]])[] = [
  ['describeKey', (keyId) => kms.describeKey({ keyId }), 'ok', 'ok', 'ok', 'ok'],
  [
    'listKeys',
    (keyId) => Array.fromAsync(kms.listAllKeys({ limit: 1000 })).then((keys) => expect(keys.map((key) => key.keyId)).toContain(keyId)),
    'ok',
    'ok',
    'ok',
    'ok',
  ],
  ['listKeyVersions', (keyId) => kms.listKeyVersions({ keyId }), 'ok', 'ok', 'ok', 'ok'],
  ['listAliases', (keyId) => kms.listAliases({ keyId }), 'ok', 'ok', 'ok', 'ok'],
  ['updateKeyDescription', (keyId) => kms.updateKeyDescription({ keyId, description: 'new' }), 'ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
  ['tagKey', (keyId) => kms.tagKey({ keyId, tags: { a: 'b' } }), 'ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
  ['untagKey', (keyId) => kms.untagKey({ keyId, tagKeys: ['a'] }), 'ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
  ['enableKey', (keyId) => kms.enableKey({ keyId }), 'ok', 'ok', 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT'],
  ['disableKey', (keyId) => kms.disableKey({ keyId }), 'ok', 'ok', 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT'],
  ['scheduleKeyDeletion', (keyId) => kms.scheduleKeyDeletion({ keyId }), 'ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'],
  ['cancelKeyDeletion', (keyId) => kms.cancelKeyDeletion({ keyId }), 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT', 'ok', 'ERR_STATE_CONFLICT'],
  ['createAlias', (keyId) => kms.createAlias({ keyId, aliasName: aliasOf(keyId) }), 'ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'],
  [
    'updateAlias',
    async (keyId) => {
      const { aliasName } = await kms.createAlias({ keyId: other, aliasName: aliasOf(keyId) });
      return await kms.updateAlias({ keyId, aliasName });
    },
    'ok',
    'ok',
    'ERR_STATE_CONFLICT',
    'ok',
  ],
  ['createKeyVersion', (keyId) => kms.createKeyVersion({ keyId }), 'ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_UNSUPPORTED_OPERATION'],
  [
    'setPrimaryKeyVersion',
    async (keyId) => kms.setPrimaryKeyVersion({ keyId, keyVersionId: (await kms.describeKey({ keyId })).primaryKeyVersionId }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_UNSUPPORTED_OPERATION',
  ],
  [
    'updateRotationPolicy',
    (keyId) => kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '30d' }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_UNSUPPORTED_OPERATION',
  ],
  ['setDeletionProtection', (keyId) => kms.setDeletionProtection({ keyId, enabled: false }), 'ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
  ['encrypt', (keyId) => kms.encrypt({ keyId, plaintext }), 'ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'],
  ['advanceEncrypt', (keyId) => kms.advanceEncrypt({ keyId, plaintext }), 'ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'],
  ['generateDataKey', (keyId) => kms.generateDataKey({ keyId }), 'ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'],
  ['advanceGenerateDataKey', (keyId) => kms.advanceGenerateDataKey({ keyId }), 'ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'],
  [
    'decrypt',
    (keyId) =>
      kms.decrypt({ keyId, ciphertextBlob: new Uint8Array(20), iv: new Uint8Array(12) }).catch((error: unknown) => {
        if (!isAgentError(error, 'ERR_INVALID_CIPHERTEXT')) throw error; // the key was used
      }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_KEY_PENDING_IMPORT',
  ],
  [
    'advanceDecrypt',
    (keyId) => kms.advanceDecrypt({ ciphertextBlob: sealedBy.get(keyId) ?? plaintext }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_KEY_PENDING_IMPORT',
  ],
  [
    'generateDataKeyWithoutPlaintext',
    (keyId) => kms.generateDataKeyWithoutPlaintext({ keyId }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_KEY_PENDING_IMPORT',
  ],
  [
    'reEncrypt from it',
    (keyId) => kms.reEncrypt({ ciphertextBlob: sealedBy.get(keyId) ?? plaintext, destinationKeyId: other }),
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_KEY_PENDING_IMPORT',
  ],
  [
    'reEncrypt to it',
    async (keyId) => {
      const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: other, plaintext });
      return await kms.reEncrypt({ ciphertextBlob, destinationKeyId: keyId });
    },
    'ok',
    'ERR_KEY_DISABLED',
    'ERR_KEY_PENDING_DELETION',
    'ERR_KEY_PENDING_IMPORT',
  ],
  [
    'describeKeyVersion',
    async (keyId) => kms.describeKeyVersion({ keyId, keyVersionId: (await kms.describeKey({ keyId })).primaryKeyVersionId }),
    'ok',
    'ok',
    'ok',
    'ok',
  ],
  [
    'deleteAlias',
    async (keyId) => kms.deleteAlias({ aliasName: (await kms.describeKey({ keyId })).aliases.find((name) => name.startsWith('alias/gone/')) ?? '' }),
    'ok',
    'ok',
    'ok',
    'ok',
  ],
  ['getParametersForImport', (keyId) => kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' }), 'ok', 'ok', 'ok', 'ok'],
  [
    'importKeyMaterial',
    async (keyId) => {
      const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
      return await kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) });
    },
    'ok',
    'ok',
    'ERR_STATE_CONFLICT',
    'ok',
  ],
  ['deleteKeyMaterial', (keyId) => kms.deleteKeyMaterial({ keyId }), 'ok', 'ok', 'ok', 'ok'],
];

const outcome = (work: Promise<unknown>): Promise<Cell> =>
  work.then(
    () => 'ok',
    (error: unknown) => {
      if (isAgentError(error)) return error.code;
      throw error;
    },
  );

describe('every cell of the table of states, through the socket', () => {
  for (const [method, act, ...cells] of table) {
    test.each(states.map((state, index) => [state, cells[index] ?? 'ok'] as const))(`${method}: on a key that is %s it answers %s`, async (state, expected) => {
      const external = state === 'PendingImport' || ['getParametersForImport', 'importKeyMaterial', 'deleteKeyMaterial'].includes(method);
      expect(await outcome(act(await keyIn(state, external)))).toBe(expected);
    });
  }

  test.each(['Enabled', 'Disabled', 'PendingDeletion'] as const)('sign, verify and getPublicKey of a key that is %s', async (state) => {
    const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
    const { signature } = await kms.sign({ keyId, message: plaintext });
    if (state === 'Disabled') await kms.disableKey({ keyId });
    if (state === 'PendingDeletion') await kms.scheduleKeyDeletion({ keyId });
    const expected = { Enabled: 'ok', Disabled: 'ERR_KEY_DISABLED', PendingDeletion: 'ERR_KEY_PENDING_DELETION' }[state];
    expect(await outcome(kms.sign({ keyId, message: plaintext }))).toBe(expected);
    expect(await outcome(kms.verify({ keyId, message: plaintext, signature }))).toBe(expected);
    expect(await outcome(kms.getPublicKey({ keyId }))).toBe('ok');
  });

  test('Disabled is a flag that outlives the material: disabled, deleted, imported again, it is Disabled', async () => {
    const keyId = await keyIn('Disabled', true);
    expect(await kms.deleteKeyMaterial({ keyId })).toMatchObject({ keyState: 'PendingImport' });
    await kms.scheduleKeyDeletion({ keyId });
    expect(await kms.cancelKeyDeletion({ keyId })).toMatchObject({ keyState: 'PendingImport' });
    expect(await importMaterial(kms, keyId, material)).toMatchObject({ keyMetadata: { keyState: 'Disabled' }, unwrappedIn: 'AGENT' });
    expect(await kms.enableKey({ keyId })).toMatchObject({ keyState: 'Enabled' });
  });
});
