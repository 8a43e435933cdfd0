import { randomBytes } from 'node:crypto';
import { type AgentClient, type ErrorCode, type KeySpec, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

const message = utf8('what is kept');

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;
beforeEach(async () => {
  folder = new TempFolder();
  await initVault(folder, '--no-default-key');
  agent = await ClockedAgent.start(folder);
  kms = agent.kms;
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const refused = (code: ErrorCode): { code: ErrorCode } => ({ code });
const as = (service: string | null): Promise<void> => agent.set({ service });

describe('the default key of everybody: alias/default', () => {
  test('without one: ERR_KEY_NOT_FOUND that says how to make it; then one at a time, made again only when it is destroyed', async () => {
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject({ code: 'ERR_KEY_NOT_FOUND', details: { hint: expect.any(String) } });
    const { keyId } = await kms.createKey({ aliasName: 'alias/default' });
    await expect(kms.createKey({ aliasName: 'alias/default' })).rejects.toMatchObject(refused('ERR_ALREADY_EXISTS'));
    await expect(kms.createKey({ aliasName: 'alias/default', keySpec: 'EC_P256' })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
    expect((await kms.advanceEncrypt({ plaintext: message })).keyId).toBe(keyId);
    await kms.disableKey({ keyId });
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject(refused('ERR_KEY_DISABLED'));
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await expect(kms.createKey({ aliasName: 'alias/default' })).rejects.toMatchObject(refused('ERR_ALREADY_EXISTS'));
    await agent.advance(7 * dayMs);
    await expect.poll(async () => (await kms.listKeys()).keys.length).toBe(0);
    const { keyId: second } = await kms.createKey({ aliasName: 'alias/default' });
    expect((await kms.advanceEncrypt({ plaintext: message })).keyId).toBe(second);
  });
});

describe('the default key of a service', () => {
  test('made on the first call without a key id, one for each service, under its alias', async () => {
    await as('nginx.service');
    const sealed = await Promise.all(Array.from({ length: 8 }, () => kms.advanceEncrypt({ plaintext: message })));
    expect(new Set(sealed.map(({ keyId }) => keyId)).size).toBe(1);
    expect((await kms.whoAmI()).defaultKey).toBe('alias/service/nginx_2eservice');
    const [first] = sealed;
    expect((await kms.advanceDecrypt({ ciphertextBlob: first?.ciphertextBlob ?? new Uint8Array() })).plaintext).toEqual(message);
    await as('app@1.service');
    const other = await kms.advanceGenerateDataKey();
    expect(other.keyId).not.toBe(first?.keyId);
    await as(null);
    expect(await kms.describeKey({ keyId: first?.keyId ?? '' })).toMatchObject({
      keyType: 'DEFAULT',
      defaultKind: 'SERVICE',
      service: 'nginx.service',
      creator: 'unit:nginx.service',
      aliases: ['alias/service/nginx_2eservice'],
      keySpec: 'AES_256',
    });
    expect((await kms.describeKey({ keyId: 'alias/service/app_401_2eservice' })).keyId).toBe(other.keyId);
  });

  test('used by that service only: another service, and an administrator who is none, are ERR_ACCESS_DENIED', async () => {
    await as('nginx.service');
    const sealed = await kms.advanceEncrypt({ plaintext: message });
    const raw = await kms.encrypt({ plaintext: message });
    const { keyId } = sealed;
    for (const service of ['other.service', 'nginx.service.', null]) {
      await as(service);
      await expect(kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
      await expect(kms.advanceDecrypt(sealed)).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
      await expect(kms.decrypt(raw)).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
      await expect(kms.advanceEncrypt({ keyId, plaintext: message })).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
      await expect(kms.advanceEncrypt({ keyId: 'alias/service/nginx_2eservice', plaintext: message })).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
      await expect(kms.reEncrypt({ ciphertextBlob: sealed.ciphertextBlob, destinationKeyId: keyId })).rejects.toMatchObject(refused('ERR_ACCESS_DENIED'));
    }
    await as('nginx.service');
    expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
    expect((await kms.decrypt(raw)).plaintext).toEqual(message);
  });

  test('nobody can change, disable or delete it', async () => {
    await as('nginx.service');
    const { keyId, keyVersionId } = await kms.advanceEncrypt({ plaintext: message });
    await as(null);
    const changes = [
      kms.enableKey({ keyId }),
      kms.disableKey({ keyId }),
      kms.scheduleKeyDeletion({ keyId }),
      kms.cancelKeyDeletion({ keyId }),
      kms.setDeletionProtection({ keyId, enabled: true }),
      kms.tagKey({ keyId, tags: { a: 'b' } }),
      kms.untagKey({ keyId, tagKeys: ['a'] }),
      kms.updateKeyDescription({ keyId, description: 'x' }),
      kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '7d' }),
      kms.createKeyVersion({ keyId }),
      kms.setPrimaryKeyVersion({ keyId, keyVersionId }),
      kms.getParametersForImport({ keyId }),
      kms.deleteKeyMaterial({ keyId }),
      kms.createAlias({ keyId, aliasName: 'alias/mine' }),
      kms.deleteAlias({ aliasName: 'alias/service/nginx_2eservice' }),
      kms.createKey({ aliasName: 'alias/service/other_2eservice' }),
    ];
    for (const change of await Promise.allSettled(changes)) expect(change).toMatchObject({ reason: { code: 'ERR_UNSUPPORTED_OPERATION' } });
  });

  test('the same key after a restart; a unit name of any length has an alias', async () => {
    const long = `${'ü'.repeat(127)}.service`;
    const keys: string[] = [];
    for (const service of ['nginx.service', long, `${long.slice(0, -8)}x.service`]) {
      await as(service);
      keys.push((await kms.advanceEncrypt({ plaintext: message })).keyId);
    }
    expect(new Set(keys).size).toBe(3);
    const from = agent.now;
    await agent.end();
    agent = await ClockedAgent.start(folder, {}, { from });
    kms = agent.kms;
    await as(long);
    expect((await kms.advanceEncrypt({ plaintext: message })).keyId).toBe(keys[1]);
    await kms.lock();
    await kms.unlock({ passphrase });
    expect((await kms.advanceEncrypt({ plaintext: message })).keyId).toBe(keys[1]);
  });
});

/** One row of the overview's table of key types: what there is, what it can, and where its material may come from. */
describe("the seed's table of key types", () => {
  const canEncrypt = async (keyId: string): Promise<void> => {
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: message });
    expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
    expect((await kms.decrypt(await kms.encrypt({ keyId, plaintext: message }))).plaintext).toEqual(message);
    expect((await kms.generateDataKey({ keyId })).plaintext).toHaveLength(32);
    expect((await kms.advanceGenerateDataKey({ keyId })).plaintext).toHaveLength(32);
  };
  const canSign = async (keyId: string): Promise<void> => {
    const signed = await kms.sign({ keyId, message });
    expect(await kms.verify({ ...signed, message })).toMatchObject({ valid: true });
    expect((await kms.getPublicKey({ keyId })).publicKey).toContain('BEGIN PUBLIC KEY');
  };
  const cannotSign = (keyId: string): Promise<void> => expect(kms.sign({ keyId, message })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));

  test('Default key, service key: AES, Aliyun_AES_256, data encryption and decryption only, created and managed by the agent', async () => {
    await as('nginx.service');
    const { keyId } = await kms.advanceEncrypt({ plaintext: message });
    await canEncrypt(keyId);
    expect(await kms.describeKey({ keyId })).toMatchObject({ keySpec: 'AES_256', keyUsage: 'ENCRYPT_DECRYPT', origin: 'GENERATED' });
    await cannotSign(keyId);
  });

  test('Default key, CMK: AES, Aliyun_AES_256, one, generated material, encryption and decryption only', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', keySpec: 'Aliyun_AES_256' as KeySpec });
    await canEncrypt(keyId);
    await cannotSign(keyId);
    await expect(kms.createKey({ aliasName: 'alias/default' })).rejects.toMatchObject(refused('ERR_ALREADY_EXISTS'));
  });

  test('Default key, CMK: imported material', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
    await importMaterial(kms, keyId, randomBytes(32));
    await canEncrypt(keyId);
    await cannotSign(keyId);
  });

  test('Software-protected key, symmetric: Aliyun_AES_256', async () => {
    const { keyId, keySpec, keyType } = await kms.createKey({ keySpec: 'Aliyun_AES_256' as KeySpec });
    expect([keySpec, keyType]).toEqual(['AES_256', 'SOFTWARE']);
    await canEncrypt(keyId);
    await cannotSign(keyId);
  });

  test.each(['RSA_2048', 'RSA_3072'] as const)('Software-protected key, asymmetric: %s encrypts and decrypts, or signs and verifies', async (keySpec) => {
    const { keyId } = await kms.createKey({ keySpec, keyUsage: 'ENCRYPT_DECRYPT' });
    expect((await kms.decrypt(await kms.encrypt({ keyId, plaintext: message }))).plaintext).toEqual(message);
    await expect(kms.advanceEncrypt({ keyId, plaintext: message })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
    await expect(kms.generateDataKey({ keyId })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
    await cannotSign(keyId);
    await canSign((await kms.createKey({ keySpec, keyUsage: 'SIGN_VERIFY' })).keyId);
  });

  test.each(['EC_P256', 'EC_P256K'] as const)('Software-protected key, asymmetric: %s signs and verifies', async (keySpec) => {
    const { keyId } = await kms.createKey({ keySpec });
    await canSign(keyId);
    await expect(kms.encrypt({ keyId, plaintext: message })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
  });

  test.each(['AES_192', 'AES_128', 'RSA_4096'] as const)('Software-protected key: there is no %s', async (keySpec) => {
    await expect(kms.createKey({ keySpec, ...(keySpec === 'RSA_4096' ? { keyUsage: 'SIGN_VERIFY' as const } : {}) })).rejects.toMatchObject(
      refused('ERR_UNSUPPORTED_OPERATION'),
    );
  });

  test.each(['AES_256', 'RSA_2048', 'RSA_3072', 'EC_P256', 'EC_P256K'] as const)(
    'Software-protected key, %s: generated material only, none is imported',
    async (keySpec) => {
      const usage = keySpec.startsWith('RSA') ? { keyUsage: 'SIGN_VERIFY' as const } : {};
      await expect(kms.createKey({ keySpec, origin: 'EXTERNAL', ...usage })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
      const { keyId, origin } = await kms.createKey({ keySpec, ...usage });
      expect(origin).toBe('GENERATED');
      await expect(kms.getParametersForImport({ keyId })).rejects.toMatchObject(refused('ERR_UNSUPPORTED_OPERATION'));
    },
  );
});
