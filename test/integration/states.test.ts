import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { type AgentClient, type ErrorCode, isAgentError, type MethodName, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acts } from '../../daemon/src/keyring/forecast.ts';
import { TestAgent } from '../kit/agent.ts';
import { importMaterial, wrapMaterial } from '../kit/material.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';
import { importInto } from '../kit/wrap.ts';

type Cell = 'ok' | ErrorCode;
type State = 'Enabled' | 'Disabled' | 'PendingDeletion' | 'PendingImport';
type Row = readonly [Cell, Cell, Cell, Cell];

const states: readonly State[] = ['Enabled', 'Disabled', 'PendingDeletion', 'PendingImport'];
const plaintext = utf8('what is kept');
const material = randomBytes(32);

/** The rows of the table, in the order of the states above. */
const rows = {
  read: ['ok', 'ok', 'ok', 'ok'],
  cryptography: ['ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_KEY_PENDING_IMPORT'],
  describe: ['ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
  ability: ['ok', 'ok', 'ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT'],
  scheduleDeletion: ['ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'],
  cancelDeletion: ['ERR_STATE_CONFLICT', 'ERR_STATE_CONFLICT', 'ok', 'ERR_STATE_CONFLICT'],
  aliasTarget: ['ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'],
  version: ['ok', 'ERR_KEY_DISABLED', 'ERR_KEY_PENDING_DELETION', 'ERR_UNSUPPORTED_OPERATION'],
  importMaterial: ['ok', 'ok', 'ERR_STATE_CONFLICT', 'ok'],
  publicKey: ['ok', 'ok', 'ok', 'ERR_KEY_PENDING_IMPORT'],
  protect: ['ok', 'ok', 'ERR_KEY_PENDING_DELETION', 'ok'],
} as const satisfies Record<string, Row>;

/** Of which key a cell is: one that encrypts, one of origin EXTERNAL in every state, or one that signs; the last two are in a token where no other can be. */
type Kind = 'any' | 'external' | 'signing';

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
  await kms.createAlias({ aliasName: 'alias/other', keyId: other });
});
afterAll(() => agent.end());

async function put(keyId: string, state: State): Promise<string> {
  if (state === 'PendingImport') await kms.deleteKeyMaterial({ keyId });
  if (state === 'Disabled') await kms.disableKey({ keyId });
  if (state === 'PendingDeletion') await kms.scheduleKeyDeletion({ keyId });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: state });
  return keyId;
}

/** A key in a state. PendingImport is there for imported material only, and that for the default key only: one key that is put into each state again. */
async function keyIn(state: State, kind: Kind): Promise<string> {
  if (kind === 'signing') return await put((await kms.createKey({ keySpec: 'EC_P256' })).keyId, state);
  const external = kind === 'external' || state === 'PendingImport';
  const { keyId } = external ? await resetImported() : await kms.createKey();
  if (external) await importMaterial(kms, keyId, material);
  sealedBy.set(keyId, (await kms.advanceEncrypt({ keyId, plaintext })).ciphertextBlob);
  await kms.createAlias({ keyId, aliasName: `alias/gone/${Math.random().toString(36).slice(2)}` });
  return await put(keyId, state);
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
const ofAny = (key: string): string => key.replace(/ .*/, '');

/** What was used and found no valid blob or signature was let through by the state. */
async function letThrough(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    if (!isAgentError(error, 'ERR_INVALID_CIPHERTEXT')) throw error;
  });
}

/** What each method does with a key, and its row; what stands behind the name is another way to call it. */
const table: Readonly<Record<string, readonly [keyof typeof rows, (keyId: string, client: AgentClient) => Promise<unknown>, Kind?]>> = {
  describeKey: ['read', (keyId) => kms.describeKey({ keyId })],
  listKeys: ['read', async (keyId) => expect((await Array.fromAsync(kms.listAllKeys({ limit: 1000 }))).map((key) => key.keyId)).toContain(keyId)],
  listKeyVersions: ['read', (keyId) => kms.listKeyVersions({ keyId })],
  describeKeyVersion: ['read', async (keyId) => kms.describeKeyVersion({ keyId, keyVersionId: (await kms.describeKey({ keyId })).primaryKeyVersionId })],
  listAliases: ['read', (keyId) => kms.listAliases({ keyId })],
  deleteAlias: [
    'read',
    async (keyId) => kms.deleteAlias({ aliasName: (await kms.describeKey({ keyId })).aliases.find((name) => name.startsWith('alias/gone/')) ?? '' }),
  ],
  getKeyPolicy: ['read', (keyId) => kms.getKeyPolicy({ keyId })],
  setKeyPolicy: ['protect', (keyId) => kms.setKeyPolicy({ keyId, policy: { statements: [] } })],
  setDeletionProtection: ['protect', (keyId) => kms.setDeletionProtection({ keyId, enabled: false })],
  updateKeyDescription: ['describe', (keyId) => kms.updateKeyDescription({ keyId, description: 'new' })],
  tagKey: ['describe', (keyId) => kms.tagKey({ keyId, tags: { a: 'b' } })],
  untagKey: ['describe', (keyId) => kms.untagKey({ keyId, tagKeys: ['a'] })],
  enableKey: ['ability', (keyId) => kms.enableKey({ keyId })],
  disableKey: ['ability', (keyId) => kms.disableKey({ keyId })],
  scheduleKeyDeletion: ['scheduleDeletion', (keyId) => kms.scheduleKeyDeletion({ keyId })],
  cancelKeyDeletion: ['cancelDeletion', (keyId) => kms.cancelKeyDeletion({ keyId })],
  createAlias: ['aliasTarget', (keyId) => kms.createAlias({ keyId, aliasName: aliasOf(keyId) })],
  updateAlias: [
    'aliasTarget',
    async (keyId) => {
      const { aliasName } = await kms.createAlias({ keyId: other, aliasName: aliasOf(keyId) });
      return await kms.updateAlias({ keyId, aliasName });
    },
  ],
  createKeyVersion: ['version', (keyId) => kms.createKeyVersion({ keyId })],
  setPrimaryKeyVersion: ['version', async (keyId) => kms.setPrimaryKeyVersion({ keyId, keyVersionId: (await kms.describeKey({ keyId })).primaryKeyVersionId })],
  updateRotationPolicy: ['version', (keyId) => kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '30d' })],
  encrypt: ['cryptography', (keyId) => kms.encrypt({ keyId, plaintext })],
  decrypt: ['cryptography', (keyId) => letThrough(kms.decrypt({ keyId, ciphertextBlob: new Uint8Array(20), iv: new Uint8Array(12) }))],
  advanceEncrypt: ['cryptography', (keyId) => kms.advanceEncrypt({ keyId, plaintext })],
  advanceDecrypt: ['cryptography', (keyId) => kms.advanceDecrypt({ ciphertextBlob: sealedBy.get(keyId) ?? plaintext })],
  'advanceDecrypt of a raw blob': [
    'cryptography',
    (keyId) => letThrough(kms.advanceDecrypt({ keyId, ciphertextBlob: new Uint8Array(20), iv: new Uint8Array(12) })),
  ],
  generateDataKey: ['cryptography', (keyId) => kms.generateDataKey({ keyId })],
  advanceGenerateDataKey: ['cryptography', (keyId) => kms.advanceGenerateDataKey({ keyId })],
  generateDataKeyWithoutPlaintext: ['cryptography', (keyId) => kms.generateDataKeyWithoutPlaintext({ keyId })],
  'reEncrypt from it': ['cryptography', (keyId) => kms.reEncrypt({ ciphertextBlob: sealedBy.get(keyId) ?? plaintext, destinationKeyId: other })],
  'reEncrypt to it': [
    'cryptography',
    async (keyId) => {
      const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: other, plaintext });
      return await kms.reEncrypt({ ciphertextBlob, destinationKeyId: keyId });
    },
  ],
  sign: ['cryptography', (keyId, client) => client.sign({ keyId, message: plaintext }), 'signing'],
  verify: ['cryptography', (keyId, client) => client.verify({ keyId, message: plaintext, signature: new Uint8Array(70) }), 'signing'],
  getPublicKey: ['publicKey', (keyId, client) => client.getPublicKey({ keyId }), 'signing'],
  getParametersForImport: ['read', (keyId) => kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' }), 'external'],
  importKeyMaterial: [
    'importMaterial',
    async (keyId) => {
      const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
      return await kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) });
    },
    'external',
  ],
  deleteKeyMaterial: ['read', (keyId) => kms.deleteKeyMaterial({ keyId }), 'external'],
};

const outcome = (work: Promise<unknown>): Promise<Cell> =>
  work.then(
    () => 'ok',
    (error: unknown) => {
      if (isAgentError(error)) return error.code;
      throw error;
    },
  );

/** Every cell there is. */
const cells = Object.entries(table).flatMap(([name, [row, act, kind = 'any']]) =>
  states.map((state, index) => ({ name, state, expected: rows[row][index] ?? 'no such cell', act, kind })),
);
const inToken = cells.filter(({ kind, state }) => kind === 'signing' && state === 'PendingImport');

describe('every cell of the table of states, through the socket', () => {
  test('every method whose answer hangs on the state has a row', () => {
    const named = new Set(Object.keys(table).map(ofAny));
    expect(Object.keys(acts).filter((method) => !named.has(method))).toEqual([]);
  });

  test.each(cells.filter((cell) => !inToken.includes(cell)))(
    '$name: on a key that is $state it answers $expected',
    async ({ name, state, expected, act, kind }) => {
      const keyId = await keyIn(state, kind);
      const alias = name === 'updateAlias' ? { aliasName: 'alias/other' } : {};
      if (name in acts) expect((await kms.explain({ method: name as MethodName, keyId, ...alias })).blockedBy ?? 'ok', 'explain').toBe(expected); // a name of acts
      expect(await outcome(act(keyId, kms))).toBe(expected);
    },
  );

  test.each(
    (['getParametersForImport', 'importKeyMaterial', 'deleteKeyMaterial'] as const).flatMap((name) => states.slice(0, 3).map((state) => ({ name, state }))),
  )('$name: on a generated key that is $state it answers ERR_UNSUPPORTED_OPERATION: the type is asked before the state', async ({ name, state }) => {
    const keyId = await keyIn(state, 'any');
    const params = { getParametersForImport: {}, deleteKeyMaterial: {}, importKeyMaterial: { importToken: plaintext, encryptedKeyMaterial: plaintext } }[name];
    expect((await kms.explain({ method: name, keyId })).blockedBy, 'explain').toBe('ERR_UNSUPPORTED_OPERATION');
    expect(await outcome(kms.call(name, { keyId, ...params } as never))).toBe('ERR_UNSUPPORTED_OPERATION'); // the params of each method
  });

  test.skipIf(!hasSoftHsm)(
    'sign, verify and getPublicKey of a key in a token that is PendingImport, before its material came and after it went (needs SoftHSM)',
    async () => {
      await using rig = await TokenRig.make();
      const client = await rig.client();
      const key = await client.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL', keySpec: 'EC_P256' });
      const check = async (): Promise<void> => {
        expect(await client.describeKey({ keyId: key.keyId })).toMatchObject({ keyState: 'PendingImport' });
        for (const { name, act, expected } of inToken) {
          expect([name, (await client.explain({ method: name as 'sign', keyId: key.keyId })).blockedBy]).toEqual([name, expected]);
          expect([name, await outcome(act(key.keyId, client))]).toEqual([name, expected]);
        }
      };
      expect(inToken).toHaveLength(3);
      await check();
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
      await importInto(client, key, privateKey.export({ type: 'pkcs8', format: 'der' }), 'RSA_AES_KEY_WRAP_SHA_256');
      for (const { act } of inToken) expect(await outcome(act(key.keyId, client))).toBe('ok');
      await client.deleteKeyMaterial({ keyId: key.keyId });
      await check();
    },
  );

  test('Disabled is a flag that outlives the material: disabled, deleted, imported again, it is Disabled', async () => {
    const keyId = await keyIn('Disabled', 'external');
    expect(await kms.deleteKeyMaterial({ keyId })).toMatchObject({ keyState: 'PendingImport' });
    await kms.scheduleKeyDeletion({ keyId });
    expect(await kms.cancelKeyDeletion({ keyId })).toMatchObject({ keyState: 'PendingImport' });
    expect(await importMaterial(kms, keyId, material)).toMatchObject({ keyMetadata: { keyState: 'Disabled' }, unwrappedIn: 'AGENT' });
    expect(await kms.enableKey({ keyId })).toMatchObject({ keyState: 'Enabled' });
  });
});
