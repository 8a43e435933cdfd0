import { type AgentClient, type ErrorCode, type MethodName, utf8 } from '@kms-agent/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestAgent } from '../kit/agent.ts';
import { importMaterial } from '../kit/material.ts';
import { codeOf } from '../kit/outcome.ts';

const plaintext = utf8('what is kept');

let agent: TestAgent;
let kms: AgentClient;
beforeAll(async () => {
  agent = await TestAgent.dev('--no-default-key');
  kms = await agent.client();
});
afterAll(() => agent.end());

/** What explain says of a call, and then the call itself: the same code. */
async function compare(
  method: MethodName,
  names: string | { keyId?: string; aliasName?: string },
  call: () => Promise<unknown>,
  expected: ErrorCode,
): Promise<void> {
  const named = typeof names === 'string' ? { keyId: names } : names;
  expect([method, await kms.explain({ method, ...named })]).toMatchObject([method, { allowed: true, wouldSucceed: false, blockedBy: expected }]);
  expect([method, await codeOf(call())]).toEqual([method, expected]);
}

/** Does something with another agent, which has what the options give it. */
async function onAnother(options: readonly string[], work: () => Promise<void>): Promise<void> {
  await using other = await TestAgent.dev(...options);
  const before = kms;
  kms = await other.client();
  await work().finally(() => {
    kms = before;
  });
}

const methodsWithDefault = {
  encrypt: () => kms.encrypt({ plaintext }),
  advanceEncrypt: () => kms.advanceEncrypt({ plaintext }),
  generateDataKey: () => kms.generateDataKey(),
  advanceGenerateDataKey: () => kms.advanceGenerateDataKey(),
  generateDataKeyWithoutPlaintext: () => kms.generateDataKeyWithoutPlaintext(),
};

test('calls without a key: there is no default key, it is disabled, it is there; a service has its own', async () => {
  await onAnother(['--no-default-key'], async () => {
    const compareAll = async (expected: ErrorCode): Promise<void> => {
      for (const [method, call] of Object.entries(methodsWithDefault)) await compare(method as 'encrypt', {}, call, expected);
    };
    const explainAll = async (caller?: { unit: string }): Promise<unknown[]> =>
      await Promise.all(
        Object.keys(methodsWithDefault).map(async (method) => (await kms.explain({ method, ...(caller ? { caller } : {}) })).blockedBy ?? 'none'),
      );
    await compareAll('ERR_KEY_NOT_FOUND');
    expect(new Set(await explainAll({ unit: 'shop.service' }))).toEqual(new Set(['none']));
    const { keyId } = await kms.createKey({ aliasName: 'alias/default' });
    expect(new Set(await explainAll())).toEqual(new Set(['none']));
    for (const call of Object.values(methodsWithDefault)) await call();
    await kms.disableKey({ keyId });
    await compareAll('ERR_KEY_DISABLED');
    expect(new Set(await explainAll({ unit: 'shop.service' }))).toEqual(new Set(['none']));
    await compare('describeKey', {}, () => kms.call('describeKey', {} as never), 'ERR_INVALID_PARAMS'); // as a caller who forgets it would
    expect(await kms.explain({ method: 'advanceDecrypt' })).toMatchObject({ wouldSucceed: true }); // the ciphertext names its key
  });
});

test('updateAlias and deleteAlias: of an alias that is not there, of a default key, and to a key that cannot have it', async () => {
  await onAnother([], async () => {
    const { keyId } = await kms.createKey();
    for (const [aliasName, expected] of [
      ['alias/nowhere', 'ERR_ALIAS_NOT_FOUND'],
      ['alias/default', 'ERR_UNSUPPORTED_OPERATION'],
      ['alias/service/shop', 'ERR_UNSUPPORTED_OPERATION'],
    ] as const) {
      await compare('updateAlias', { keyId, aliasName }, () => kms.updateAlias({ keyId, aliasName }), expected);
      await compare('deleteAlias', { aliasName }, () => kms.deleteAlias({ aliasName }), expected);
    }
    for (let made = 0; made < 100; made += 1) await kms.createAlias({ aliasName: `alias/of-many-${made}`, keyId });
    const { keyId: second } = await kms.createKey();
    const aliasName = 'alias/of-the-second';
    await kms.createAlias({ aliasName, keyId: second });
    await compare('updateAlias', { keyId, aliasName }, () => kms.updateAlias({ keyId, aliasName }), 'ERR_LIMIT_EXCEEDED');
    await compare('createAlias', keyId, () => kms.createAlias({ aliasName: 'alias/one-more', keyId }), 'ERR_LIMIT_EXCEEDED');
    const missing = '018f3c5e-1b2a-7c3d-8e4f-5a6b7c8d9e0f';
    await compare('updateAlias', { keyId: missing, aliasName }, () => kms.updateAlias({ keyId: missing, aliasName }), 'ERR_KEY_NOT_FOUND');
    await kms.scheduleKeyDeletion({ keyId });
    await compare('updateAlias', { keyId, aliasName }, () => kms.updateAlias({ keyId, aliasName }), 'ERR_STATE_CONFLICT');
    for (const [method, call] of [
      ['updateAlias', () => kms.updateAlias({ keyId: second, aliasName })],
      ['deleteAlias', () => kms.deleteAlias({ aliasName })],
    ] as const) {
      expect(await kms.explain({ method, aliasName, ...(method === 'updateAlias' ? { keyId: second } : {}) })).toMatchObject({
        allowed: true,
        wouldSucceed: true,
      });
      await call();
    }
  });
});

test('scheduleKeyDeletion and deleteKeyMaterial of a protected key: refused, but the type and the state are asked first', async () => {
  const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  await importMaterial(kms, keyId, new Uint8Array(32).fill(1));
  const schedule = (): Promise<unknown> => kms.scheduleKeyDeletion({ keyId });
  const empty = (): Promise<unknown> => kms.deleteKeyMaterial({ keyId });
  await kms.setDeletionProtection({ keyId, enabled: true });
  await compare('scheduleKeyDeletion', keyId, schedule, 'ERR_DELETION_PROTECTED');
  await compare('deleteKeyMaterial', keyId, empty, 'ERR_DELETION_PROTECTED');
  await kms.setDeletionProtection({ keyId, enabled: false });
  await kms.scheduleKeyDeletion({ keyId });
  await compare('scheduleKeyDeletion', keyId, schedule, 'ERR_STATE_CONFLICT');
  const { keyId: generated } = await kms.createKey({ deletionProtection: true });
  await compare('deleteKeyMaterial', generated, () => kms.deleteKeyMaterial({ keyId: generated }), 'ERR_UNSUPPORTED_OPERATION');
});

test('raw methods of a key whose policy binds ciphertexts to their caller: refused whatever its state', async () => {
  const { keyId } = await kms.createKey();
  const policy = { statements: [{ effect: 'Allow', principals: ['uid:4711'], actions: ['use'], bindAad: ['user'] }] } as const;
  await kms.setKeyPolicy({ keyId, policy: policy as never }); // the params are not readonly
  const calls = {
    encrypt: () => kms.encrypt({ keyId, plaintext }),
    decrypt: () => kms.decrypt({ keyId, ciphertextBlob: plaintext, iv: new Uint8Array(12) }),
    generateDataKey: () => kms.generateDataKey({ keyId }),
  };
  for (const [method, call] of Object.entries(calls)) await compare(method as 'encrypt', keyId, call, 'ERR_UNSUPPORTED_OPERATION');
  expect(await kms.explain({ method: 'advanceEncrypt', keyId })).toMatchObject({ wouldSucceed: true });
  await kms.disableKey({ keyId });
  for (const [method, call] of Object.entries(calls)) await compare(method as 'encrypt', keyId, call, 'ERR_UNSUPPORTED_OPERATION');
});

test('createKeyVersion at the limit of versions, updateRotationPolicy of an asymmetric key', async () => {
  const { keyId } = await kms.createKey();
  for (let made = 1; made < 1000; made += 1) await kms.createKeyVersion({ keyId });
  const create = (): Promise<unknown> => kms.createKeyVersion({ keyId });
  await compare('createKeyVersion', keyId, create, 'ERR_LIMIT_EXCEEDED');
  await kms.disableKey({ keyId });
  await compare('createKeyVersion', keyId, create, 'ERR_KEY_DISABLED');
  const { keyId: pair } = await kms.createKey({ keySpec: 'EC_P256' });
  const rotate = (): Promise<unknown> => kms.updateRotationPolicy({ keyId: pair, enabled: true, rotationInterval: '30d' });
  await compare('updateRotationPolicy', pair, rotate, 'ERR_UNSUPPORTED_OPERATION');
});
