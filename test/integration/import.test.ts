import { execFileSync } from 'node:child_process';
import { createCipheriv, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { cleanEnv, type Finished, initVault, kmsProgram, passphrase, run, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, hourMs } from '../kit/clocked.ts';
import { importMaterial, wrapMaterial } from '../kit/material.ts';

const message = utf8('what is kept');
const material = randomBytes(32);

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;
let keyId: string;
beforeEach(async () => {
  folder = new TempFolder();
  await initVault(folder, '--no-default-key');
  agent = await ClockedAgent.start(folder);
  kms = agent.kms;
  ({ keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' }));
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

test('an imported key: what a standard library encrypts with the same material opens here, and the reverse', async () => {
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingImport', keyType: 'DEFAULT', defaultKind: 'CMK', origin: 'EXTERNAL' });
  await importMaterial(kms, keyId, material);
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', material, iv);
  const ciphertextBlob = Buffer.concat([cipher.update(message), cipher.final(), cipher.getAuthTag()]);
  expect((await kms.decrypt({ keyId, ciphertextBlob, iv })).plaintext).toEqual(message);
  const sealed = await kms.advanceEncrypt({ plaintext: message });
  expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
});

test('getParametersForImport and importKeyMaterial: a lock and a restart between them lose nothing', async () => {
  const { publicKey, importToken, importTokenExpireTime } = await kms.getParametersForImport({ keyId });
  expect(Date.parse(importTokenExpireTime) - agent.now.wallMs).toBe(24 * hourMs);
  await kms.lock();
  const from = agent.now;
  await agent.end();
  agent = await ClockedAgent.start(folder, {}, { from });
  kms = agent.kms;
  const done = await kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) });
  expect(done).toMatchObject({ unwrappedIn: 'AGENT', keyMetadata: { keyState: 'Enabled', keyVersionCount: 1 } });
});

test('the key after deleteKeyMaterial: PendingImport, and it opens again with the same material only, also after a restart', async () => {
  await importMaterial(kms, keyId, material);
  const sealed = await kms.advanceEncrypt({ plaintext: message });
  expect(await kms.deleteKeyMaterial({ keyId })).toMatchObject({ keyState: 'PendingImport' });
  await expect(kms.advanceDecrypt(sealed)).rejects.toMatchObject({ code: 'ERR_KEY_PENDING_IMPORT' });
  const from = agent.now;
  await agent.end();
  agent = await ClockedAgent.start(folder, {}, { from });
  kms = agent.kms;
  await expect(importMaterial(kms, keyId, randomBytes(32))).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
  await importMaterial(kms, keyId, material);
  expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
  await kms.setDeletionProtection({ keyId, enabled: true });
  await expect(kms.deleteKeyMaterial({ keyId })).rejects.toMatchObject({ code: 'ERR_DELETION_PROTECTED' });
});

test('what is wrong with an import: each has its own error, and the key stays as it was', async () => {
  const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
  const good = { keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) };
  const flipped = Uint8Array.from(importToken, (byte, index) => (index === 40 ? byte ^ 1 : byte));
  await expect(kms.importKeyMaterial({ ...good, importToken: flipped })).rejects.toMatchObject({ code: 'ERR_IMPORT_TOKEN_INVALID' });
  await expect(kms.importKeyMaterial({ ...good, importToken: utf8('short') })).rejects.toMatchObject({ code: 'ERR_IMPORT_TOKEN_INVALID' });
  for (const length of [16, 24, 31, 33, 64])
    await expect(kms.importKeyMaterial({ ...good, encryptedKeyMaterial: wrapMaterial(publicKey, randomBytes(length)) })).rejects.toMatchObject({
      code: 'ERR_INVALID_KEY_MATERIAL',
    });
  await expect(kms.importKeyMaterial({ ...good, encryptedKeyMaterial: randomBytes(256) })).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
  const another = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
  await expect(kms.importKeyMaterial({ ...good, importToken: another.importToken })).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
  const past = new Date(agent.now.wallMs).toISOString();
  await expect(kms.importKeyMaterial({ ...good, materialExpireTime: past })).rejects.toMatchObject({ details: { path: '/materialExpireTime' } });
  await expect(kms.importKeyMaterial({ ...good, materialExpireTime: '2030-02-01' })).rejects.toMatchObject({ details: { path: '/materialExpireTime' } });
  for (const wrappingAlgorithm of ['RSAES_OAEP_SHA_1', 'RSA_AES_KEY_WRAP_SHA_256'] as const)
    await expect(kms.getParametersForImport({ keyId, wrappingAlgorithm })).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_ALGORITHM' });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingImport' });
  await agent.advance(24 * hourMs);
  await expect(kms.importKeyMaterial(good)).rejects.toMatchObject({ code: 'ERR_IMPORT_TOKEN_EXPIRED' });
});

test('an end that no record has room for: refused before anything is made', async () => {
  const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
  const good = { keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) };
  for (const materialExpireTime of ['6000-01-01T00:00:00.000Z', '9999-12-31T23:59:59.000Z', '+275760-09-13T00:00:00.000Z'])
    await expect(kms.importKeyMaterial({ ...good, materialExpireTime })).rejects.toMatchObject({
      code: 'ERR_INVALID_PARAMS',
      details: { path: '/materialExpireTime' },
    });
  expect((await kms.importKeyMaterial({ ...good, materialExpireTime: '5999-12-31T23:59:59.999Z' })).keyMetadata.keyState).toBe('Enabled');
  await kms.lock();
  await kms.unlock({ passphrase });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'Enabled', materialExpireTime: '5999-12-31T23:59:59.999Z' });
});

test('a key that is protected against deletion: no import ends its material, or ends it earlier', async () => {
  const day = (days: number): { materialExpireTime: string } => ({ materialExpireTime: new Date(agent.now.wallMs + days * 24 * hourMs).toISOString() });
  const refused = { code: 'ERR_DELETION_PROTECTED' };
  await kms.setDeletionProtection({ keyId, enabled: true });
  await importMaterial(kms, keyId, material, day(30));
  await expect(importMaterial(kms, keyId, material, day(29))).rejects.toMatchObject(refused);
  expect((await importMaterial(kms, keyId, material, day(31))).keyMetadata).toMatchObject(day(31));
  expect((await importMaterial(kms, keyId, material)).keyMetadata).not.toHaveProperty('materialExpireTime');
  await expect(importMaterial(kms, keyId, material, day(300))).rejects.toMatchObject(refused);
  await kms.setDeletionProtection({ keyId, enabled: false });
  expect((await importMaterial(kms, keyId, material, day(1))).keyMetadata).toMatchObject(day(1));
});

test('the token of another key: ERR_IMPORT_TOKEN_INVALID', async () => {
  const { publicKey, importToken } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
  await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
  await agent.advance(7 * 24 * hourMs);
  await expect.poll(() => kms.listAliases().then(({ aliases }) => aliases.length)).toBe(0);
  const { keyId: second } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
  const attempt = kms.importKeyMaterial({ keyId: second, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material) });
  await expect(attempt).rejects.toMatchObject({ code: 'ERR_IMPORT_TOKEN_INVALID' });
});

const cli = (args: readonly string[], input?: Uint8Array): Promise<Finished> =>
  run(kmsProgram, args, { env: cleanEnv({ KMS_AGENT_SOCK: agent.socketPath }), ...(input === undefined ? {} : { input }) });

test('kms key import --file: does the whole dance', async () => {
  writeFileSync(folder.join('raw.bin'), material);
  expect(await cli(['key', 'import', 'alias/default', '--file', folder.join('raw.bin'), '--expires', '2040-01-01'])).toMatchObject({ code: 0 });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'Enabled', materialExpireTime: '2040-01-01T00:00:00.000Z' });
  expect(await cli(['key', 'delete-material', 'alias/default'])).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') as string });
  expect(await cli(['key', 'delete-material', 'alias/default', '--yes'])).toMatchObject({ code: 0 });
  const again = await cli(['key', 'import', 'alias/default', '--file', '-', '--base64', '--json'], Buffer.from(material.toString('base64')));
  expect(JSON.parse(again.stdout.toString())).toMatchObject({ unwrappedIn: 'AGENT', keyMetadata: { keyState: 'Enabled' } });
  expect(await cli(['key', 'import', 'alias/default', '--file', folder.join('none')])).toMatchObject({ code: 2 });
});

test('kms key import: a file of the wrong length and a time that is none are refused with what is right', async () => {
  writeFileSync(folder.join('long.bin'), randomBytes(5000));
  const long = await cli(['key', 'import', 'alias/default', '--file', folder.join('long.bin')]);
  expect(long).toMatchObject({ code: 2, stderr: 'kms: AES_256 takes 32 bytes; there are 5000\n' });
  writeFileSync(folder.join('raw.bin'), material);
  const never = await cli(['key', 'import', 'alias/default', '--file', folder.join('raw.bin'), '--expires', '2030-02-31']);
  expect(never).toMatchObject({ code: 2, stderr: expect.stringContaining('--expires takes a date such as 2030-01-31 (its midnight in UTC)') as string });
  expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingImport' });
});

test('the documented steps with OpenSSL alone: import-parameters, openssl pkeyutl, import --wrapped', async () => {
  const guide = readFileSync(new URL('../../daemon/README.md', import.meta.url), 'utf8');
  const steps = /with OpenSSL alone.*?```\n(.*?)```/s.exec(guide)?.[1]?.trim().split('\n') ?? [];
  expect(steps).toHaveLength(3);
  writeFileSync(folder.join('raw.bin'), material);
  const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath, PATH: `${folder.path}:${process.env['PATH'] ?? ''}` });
  writeFileSync(folder.join('kms'), `#!/bin/sh\nexec ${process.execPath} ${kmsProgram} "$@"\n`, { mode: 0o755 });
  for (const step of steps) execFileSync('sh', ['-c', step], { cwd: folder.path, env, stdio: 'pipe' });
  const sealed = await kms.encrypt({ plaintext: message });
  const cipher = createCipheriv('aes-256-gcm', material, sealed.iv ?? new Uint8Array());
  expect(Buffer.concat([cipher.update(message), cipher.final(), cipher.getAuthTag()]).equals(sealed.ciphertextBlob)).toBe(true);
  await kms.lock();
  await kms.unlock({ passphrase });
  expect((await kms.decrypt(sealed)).plaintext).toEqual(message);
});
