import { constants, createDecipheriv, generateKeyPairSync, publicEncrypt, randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, cpSync, mkdirSync, realpathSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import type { AgentClient } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { checkModuleFile, defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { agentProgram, initVault, passphrase, run, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs } from '../kit/clocked.ts';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenWarnings, until } from '../kit/outcome.ts';
import { hasSoftHsm, pin, SoftHsm, softHsmModule, swapKey, TokenRig } from '../kit/softhsm.ts';
import { importInto, wrapMaterial } from '../kit/wrap.ts';

const hexOf = (uuid: string): string => uuid.replaceAll('-', '');
const pkcs8 = (key: ReturnType<typeof generateKeyPairSync>['privateKey']): Uint8Array => key.export({ type: 'pkcs8', format: 'der' }) as Buffer;

describe.skipIf(!hasSoftHsm)('import into a token (needs SoftHSM)', () => {
  test('AES: unwrapped inside the token where it can, in the agent where not; the same again, and no other', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    const { keyId } = key;
    expect((await kms.getParametersForImport({ keyId })).wrappingAlgorithm).toBe('RSAES_OAEP_SHA_1'); // what SoftHSM unwraps by itself
    const material = randomBytes(32);
    expect(await importInto(kms, key, material, 'RSAES_OAEP_SHA_1')).toMatchObject({ unwrappedIn: 'TOKEN', keyMetadata: { keyState: 'Enabled' } });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('imported') });
    const opens = async (): Promise<string> => Buffer.from((await kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).plaintext).toString();
    const raw = await kms.encrypt({ keyId, plaintext: Buffer.from('for OpenSSL'), algorithm: 'AES_CBC' });
    const cbc = createDecipheriv('aes-256-cbc', material, raw.iv ?? null);
    expect(Buffer.concat([cbc.update(raw.ciphertextBlob), cbc.final()]).toString()).toBe('for OpenSSL');
    const blocks = await kms.encrypt({ keyId, plaintext: randomBytes(32), algorithm: 'AES_ECB', paddingMode: 'NO_PADDING' });
    const ecb = createDecipheriv('aes-256-ecb', material, null).setAutoPadding(false);
    expect(Buffer.concat([ecb.update(blocks.ciphertextBlob), ecb.final()])).toEqual(Buffer.from((await kms.decrypt(blocks)).plaintext));
    const gcm = createDecipheriv('aes-256-gcm', material, sealed.ciphertextBlob.subarray(22, 34), { authTagLength: 16 });
    gcm.setAAD(sealed.ciphertextBlob.subarray(0, 22)).setAuthTag(sealed.ciphertextBlob.subarray(-16));
    expect(Buffer.concat([gcm.update(sealed.ciphertextBlob.subarray(34, -16)), gcm.final()]).toString()).toBe('imported');
    // Over the material that is there: the same is taken, another is refused, and neither costs the key.
    expect(await importInto(kms, key, material, 'RSAES_OAEP_SHA_256')).toMatchObject({ unwrappedIn: 'AGENT' });
    for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const)
      expect(await codeOf(importInto(kms, key, randomBytes(32), algorithm))).toBe('ERR_INVALID_KEY_MATERIAL');
    expect(await opens()).toBe('imported');
    await kms.deleteKeyMaterial({ keyId });
    expect(rig.hsm.objects('hsm')).not.toContain(hexOf(key.primaryKeyVersionId));
    expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob }))).toBe('ERR_KEY_PENDING_IMPORT');
    for (const wrong of [randomBytes(32), randomBytes(16)])
      for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const)
        expect(await codeOf(importInto(kms, key, wrong, algorithm))).toBe('ERR_INVALID_KEY_MATERIAL');
    await importInto(kms, key, material, 'RSAES_OAEP_SHA_256');
    expect(await opens()).toBe('imported');
    expect(await tokenWarnings(kms)).toEqual([]);
  });

  test('private keys of every kind; what is no such key, or another one, is refused', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const pairs = [
      ['EC_P256', undefined, generateKeyPairSync('ec', { namedCurve: 'prime256v1' })],
      ['EC_P256K', undefined, generateKeyPairSync('ec', { namedCurve: 'secp256k1' })],
      ['RSA_2048', 'SIGN_VERIFY', generateKeyPairSync('rsa', { modulusLength: 2048 })],
      ['RSA_2048', 'ENCRYPT_DECRYPT', generateKeyPairSync('rsa', { modulusLength: 2048 })],
    ] as const;
    for (const [keySpec, keyUsage, { privateKey, publicKey }] of pairs) {
      const key = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL', keySpec, ...(keyUsage ? { keyUsage } : {}) });
      const { keyId } = key;
      for (const wrong of [randomBytes(40), pkcs8(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey)])
        expect(await codeOf(importInto(kms, key, wrong, 'RSA_AES_KEY_WRAP_SHA_256'))).toBe('ERR_INVALID_KEY_MATERIAL');
      await importInto(kms, key, pkcs8(privateKey), 'RSA_AES_KEY_WRAP_SHA_256');
      const shown = await kms.getPublicKey({ keyId });
      expect(shown.publicKey).toBe(publicKey.export({ type: 'spki', format: 'pem' }));
      if (keyUsage === 'ENCRYPT_DECRYPT') {
        const ciphertextBlob = publicEncrypt({ key: publicKey, oaepHash: 'sha256', padding: constants.RSA_PKCS1_OAEP_PADDING }, Buffer.from('to it'));
        expect(Buffer.from((await kms.decrypt({ keyId, ciphertextBlob })).plaintext).toString()).toBe('to it');
      } else {
        const message = randomBytes(10);
        expect((await kms.verify({ ...(await kms.sign({ keyId, message })), message })).valid).toBe(true);
      }
      const other = keySpec.startsWith('EC')
        ? generateKeyPairSync('ec', { namedCurve: keySpec === 'EC_P256' ? 'prime256v1' : 'secp256k1' })
        : generateKeyPairSync('rsa', { modulusLength: 2048 });
      expect(await codeOf(importInto(kms, key, pkcs8(other.privateKey), 'RSA_AES_KEY_WRAP_SHA_256'))).toBe('ERR_INVALID_KEY_MATERIAL');
      await kms.deleteKeyMaterial({ keyId });
      expect(await codeOf(importInto(kms, key, pkcs8(other.privateKey), 'RSA_AES_KEY_WRAP_SHA_256'))).toBe('ERR_INVALID_KEY_MATERIAL');
      await importInto(kms, key, pkcs8(privateKey), 'RSA_AES_KEY_WRAP_SHA_256');
    }
  }, 60_000);

  test('only the newest wrapping pair of a key is in the token; an older import token is none any more', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    const old = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
    await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048' });
    const wrapped = wrapMaterial(old.publicKey, randomBytes(32), 'RSAES_OAEP_SHA_1');
    expect(await codeOf(kms.importKeyMaterial({ keyId, importToken: old.importToken, encryptedKeyMaterial: wrapped }))).toBe('ERR_IMPORT_TOKEN_INVALID');
    expect(rig.hsm.objects('hsm', '--type', 'privkey').match(/Private Key Object/g)).toHaveLength(1);
  });
});

describe.skipIf(!hasSoftHsm)('vault and token apart (needs SoftHSM)', () => {
  test('a key swapped for another with the same CKA_ID is refused, at once and after a restart', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const aes = await kms.createKey({ protectionLevel: 'HSM' });
    const ec = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const sealed = await kms.advanceEncrypt({ keyId: aes.keyId, plaintext: Buffer.from('x') });
    await kms.sign({ keyId: ec.keyId, message: Buffer.from('x') });
    swapKey(rig, aes.primaryKeyVersionId, 'AES:32');
    swapKey(rig, ec.primaryKeyVersionId, 'EC:prime256v1');
    const expectRefused = async (client: AgentClient): Promise<void> => {
      expect(await codeOf(client.advanceEncrypt({ keyId: aes.keyId, plaintext: Buffer.from('x') }))).toBe('ERR_KEY_UNAVAILABLE');
      expect(await codeOf(client.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob }))).toBe('ERR_KEY_UNAVAILABLE');
      expect(await codeOf(client.sign({ keyId: ec.keyId, message: Buffer.from('x') }))).toBe('ERR_KEY_UNAVAILABLE');
      for (const { keyId } of [aes, ec]) expect((await client.describeKey({ keyId })).keyState).toBe('Unavailable');
      expect((await client.status()).providers?.find(({ name }) => name === 'hsm')?.state).toBe('ok');
    };
    await expectRefused(kms);
    await rig.restart();
    await expectRefused(await rig.client());
  });

  test('a key that is there twice, and one that is gone: Unavailable, never deleted, and back when the token has it again', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const [twice, gone] = [await kms.createKey({ protectionLevel: 'HSM' }), await kms.createKey({ protectionLevel: 'HSM' })];
    await kms.lock();
    rig.hsm.tool('hsm', '--keygen', '--key-type', 'AES:32', '--id', hexOf(twice.primaryKeyVersionId), '--sensitive');
    renameSync(rig.folder.join('tokens'), rig.folder.join('whole'));
    cpSync(rig.folder.join('whole'), rig.folder.join('tokens'), { recursive: true }); // a copy, from which one key goes
    rig.hsm.tool('hsm', '--delete-object', '--type', 'secrkey', '--id', hexOf(gone.primaryKeyVersionId));
    await kms.unlock({ passphrase });
    await until(async () => (await tokenWarnings(kms)).length > 0, 'the missing key is reported');
    expect((await tokenWarnings(kms)).join()).toContain(gone.primaryKeyVersionId);
    expect(await codeOf(kms.advanceEncrypt({ keyId: twice.keyId, plaintext: Buffer.from('x') }))).toBe('ERR_KEY_UNAVAILABLE');
    expect(await codeOf(kms.advanceEncrypt({ keyId: gone.keyId, plaintext: Buffer.from('x') }))).toBe('ERR_KEY_UNAVAILABLE');
    expect((await kms.describeKey({ keyId: gone.keyId })).keyState).toBe('Unavailable');
    const unavailable = await kms.listKeys({ filters: { keyState: ['Unavailable'] } });
    expect(unavailable.keys.map(({ keyId }) => keyId).sort()).toEqual([twice.keyId, gone.keyId].sort());
    await kms.lock();
    renameSync(rig.folder.join('tokens'), rig.folder.join('damaged'));
    renameSync(rig.folder.join('whole'), rig.folder.join('tokens'));
    await kms.unlock({ passphrase });
    expect(await codeOf(kms.advanceEncrypt({ keyId: gone.keyId, plaintext: Buffer.from('x') }))).toBe('no error');
    expect((await kms.describeKey({ keyId: gone.keyId })).keyState).toBe('Enabled');
  });

  test('an agent killed while it makes keys: what the token alone holds is reported and left, what the vault alone noted is closed', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const acknowledged: string[] = [];
    const making = Array.from({ length: 40 }, () =>
      kms.createKey({ protectionLevel: 'HSM' }).then(
        ({ primaryKeyVersionId }) => acknowledged.push(primaryKeyVersionId),
        () => undefined,
      ),
    );
    await until(() => acknowledged.length >= 3, 'some keys are made');
    await rig.agent?.end('SIGKILL');
    await Promise.all(making);
    const shown = (): string[] => [...rig.hsm.objects('hsm', '--type', 'secrkey').matchAll(/ID: +([0-9a-f]{32})/g)].map(([, id]) => id ?? '');
    const before = shown();
    await rig.start();
    const again = await rig.client();
    const { keys } = await again.listKeys();
    const ids = new Set(keys.filter(({ protectionLevel }) => protectionLevel === 'HSM').map(({ primaryKeyVersionId }) => hexOf(primaryKeyVersionId)));
    for (const id of acknowledged) expect(ids).toContain(hexOf(id));
    await until(async () => (await again.status()).providers?.find(({ name }) => name === 'hsm')?.state === 'ok', 'the token is there');
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(shown()).toEqual(before); // nothing was removed
    const orphans = before.filter((id) => !ids.has(id));
    const reported = (await tokenWarnings(again)).join();
    for (const id of orphans) expect(hexOf(reported)).toContain(id);
    if (orphans.length === 0) expect(reported).toBe('');
    for (const { keyId, protectionLevel } of keys)
      if (protectionLevel === 'HSM') expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: Buffer.from('x') }))).toBe('no error');
  });

  test('a creation whose answer the token lost is reported as left over, and the vault has no key of it', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 800, generateTimeoutMs: 5000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    await kms.createKey({ protectionLevel: 'HSM' }); // connected, and probed
    fault.begin('C_EncryptInit', 'hang', 2); // the check passes, the key is made, and its proof is not
    const making = codeOf(kms.createKey({ protectionLevel: 'HSM', description: 'lost' }));
    expect(await making).toBe('ERR_HSM_UNAVAILABLE');
    fault.end();
    await until(async () => (await tokenWarnings(kms)).length > 0, 'it is reported');
    const [warning = ''] = await tokenWarnings(kms);
    expect(warning).toMatch(/holds 1 objects of creations that were cut off/);
    expect((await kms.listKeys()).keys.filter(({ description }) => description === 'lost')).toEqual([]);
    const [, id = ''] = /([0-9a-f-]{36})\.$/.exec(warning) ?? [];
    rig.hsm.tool('hsm', '--delete-object', '--type', 'secrkey', '--id', hexOf(id)); // as the warning says
    await rig.restart();
    const again = await rig.client();
    await codeOf(again.createKey({ protectionLevel: 'HSM' }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(await tokenWarnings(again)).toEqual([]);
  });

  test('a key whose window is over, and one that rotates: with clocks that move, the token follows the vault', async () => {
    using folder = new TempFolder();
    const hsm = new SoftHsm(folder);
    hsm.initToken('hsm');
    await initVault(folder);
    process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF'];
    process.env['CREDENTIALS_DIRECTORY'] = folder.path;
    writeFileSync(folder.join('pin'), pin);
    const tokens = [{ ...defaultTokenSettings, name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=hsm', pin: 'credential:pin' }];
    await using agent = await ClockedAgent.start(folder, { tokens });
    const { kms } = agent;
    const doomed = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const rotating = await kms.createKey({ protectionLevel: 'HSM', rotationInterval: '7d' });
    const waiting = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    await kms.getParametersForImport({ keyId: waiting.keyId, wrappingKeySpec: 'RSA_2048' });
    const old = await kms.advanceEncrypt({ keyId: rotating.keyId, plaintext: Buffer.from('old') });
    await kms.scheduleKeyDeletion({ keyId: doomed.keyId, pendingWindowInDays: 7 });
    expect(hsm.objects('hsm').match(new RegExp(hexOf(doomed.primaryKeyVersionId), 'g'))).toHaveLength(2);
    await agent.advance(8 * dayMs);
    await until(async () => (await codeOf(kms.describeKey({ keyId: doomed.keyId }))) === 'ERR_KEY_NOT_FOUND', 'the key is destroyed');
    await until(() => !hsm.objects('hsm').includes(hexOf(doomed.primaryKeyVersionId)), 'both of its objects are gone');
    await until(async () => (await kms.describeKey({ keyId: rotating.keyId })).keyVersionCount === 2, 'the other one has rotated');
    expect(Buffer.from((await kms.advanceDecrypt({ ciphertextBlob: old.ciphertextBlob })).plaintext).toString()).toBe('old');
    await until(() => !hsm.objects('hsm').includes('kms-agent import'), 'the wrapping pair, whose day is over, is gone');
  });

  test('material deleted while the token is away is destroyed in it when it is back', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 800, generateTimeoutMs: 5000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const key = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    await importInto(kms, key, randomBytes(32), 'RSAES_OAEP_SHA_1');
    const id = hexOf(key.primaryKeyVersionId);
    fault.begin('*', 0x32);
    expect((await kms.deleteKeyMaterial({ keyId: key.keyId })).keyState).toBe('PendingImport');
    expect(rig.hsm.objects('hsm')).toContain(id);
    fault.end();
    await until(() => !rig.hsm.objects('hsm').includes(id), 'the object is gone');
  });
});

describe.skipIf(!hasSoftHsm)('what settings of tokens may say (needs SoftHSM)', () => {
  async function startWith(token: object): Promise<string> {
    using folder = new TempFolder();
    writeFileSync(folder.join('config.json'), JSON.stringify({ tokens: [token].flat() }), { mode: 0o600 });
    const args = ['serve', '--config', folder.join('config.json'), '--data-dir', folder.join('vault'), '--socket', folder.join('s')];
    const { code, stderr } = await run(agentProgram, args);
    expect(code).toBe(2);
    return stderr;
  }
  const token = { name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=a' };

  test('a module that others can write, a PIN in clear, a slot number, a name twice: named, and the agent does not start', async () => {
    using folder = new TempFolder();
    const module = folder.join('module.so');
    copyFileSync(softHsmModule, module);
    chmodSync(module, 0o666);
    expect(await startWith({ ...token, module })).toMatch(/module\.so can be written by others; run: chmod go-w/);
    chmodSync(module, 0o644);
    chmodSync(folder.path, 0o777);
    expect(await startWith({ ...token, module })).toMatch(/can be written by others/);
    expect(await startWith({ ...token, pin })).toMatch(/pin.* must match pattern/);
    expect(await startWith({ ...token, uri: `pkcs11:token=a?pin-value=${pin}` })).toMatch(/pin-value.* does not belong/);
    expect(await startWith({ ...token, uri: 'pkcs11:slot-id=3' })).toMatch(/chosen by token, serial, manufacturer, model, not by slot-id/);
    expect(await startWith({ ...token, uri: 'pkcs11:model=SoftHSM' })).toMatch(/label \(token=\) or its serial/);
    expect(await startWith([token, token])).toMatch(/the name stands there twice/);
    expect(await startWith({ ...token, name: 'software' })).toMatch(/name is taken/);
    expect(await startWith({ ...token, module: 'softhsm2.so' })).toMatch(/module.* must match pattern/);
    expect(await startWith({ ...token, slot: 1 })).toMatch(/must NOT have additional properties/);
  });

  test('a module behind a link that others can replace is refused, and a link in a folder that they cannot is followed', async () => {
    using folder = new TempFolder();
    const [open, own] = [folder.join('open'), folder.join('own')];
    for (const path of [open, own]) {
      mkdirSync(path);
      symlinkSync(softHsmModule, `${path}/module.so`);
    }
    symlinkSync(open, folder.join('way'));
    chmodSync(open, 0o777);
    for (const module of [`${open}/module.so`, `${folder.join('way')}/module.so`])
      expect(await startWith({ ...token, module })).toMatch(/open can be written by others/);
    const copy = folder.join('sticky.so');
    copyFileSync(softHsmModule, copy);
    chmodSync(copy, 0o1666); // of a file the sticky bit says nothing
    expect(await startWith({ ...token, module: copy })).toMatch(/sticky\.so can be written by others/);
    expect(checkModuleFile(`${own}/module.so`)).toBe(realpathSync(softHsmModule));
  });

  test('a token that is not there, and a module that does not load: status says so, and the rest goes on', async () => {
    await using rig = await TokenRig.make();
    const tokens = [
      { ...token, uri: 'pkcs11:token=absent' },
      { ...token, name: 'broken', module: '/etc/hostname' },
    ];
    rig.configure({ tokens });
    await rig.restart();
    const kms = await rig.client();
    const errors = async (): Promise<string[]> => ((await kms.status()).providers ?? []).map(({ error }) => error ?? '');
    await until(async () => (await errors()).every((error, index) => index === 0 || (error !== '' && error !== 'connecting')), 'both are down');
    expect((await errors())[1]).toBe('no token fits its URI');
    expect((await errors())[2]).toMatch(/the module does not start/);
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', token: 'broken' }))).toBe('ERR_HSM_UNAVAILABLE');
    expect(await codeOf(kms.createKey({}))).toBe('no error');
    rig.hsm.initToken('absent'); // a token that is made while the agent runs is found
    await until(
      async () =>
        (await codeOf(kms.createKey({ protectionLevel: 'HSM', token: 'hsm' }))) !== 'ERR_HSM_UNAVAILABLE' || (await errors())[1] !== 'no token fits its URI',
      'it is found',
    );
  });
});
