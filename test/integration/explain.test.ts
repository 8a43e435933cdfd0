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
async function compare(method: MethodName, keyId: string, call: () => Promise<unknown>, expected: ErrorCode): Promise<void> {
  expect([method, await kms.explain({ method, keyId })]).toMatchObject([method, { allowed: true, wouldSucceed: false, blockedBy: expected }]);
  expect([method, await codeOf(call())]).toEqual([method, expected]);
}

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
