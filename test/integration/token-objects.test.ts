import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { agentProgram, run, TempFolder } from '../kit/agent.ts';
import { buildModule, FaultModule, FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, tokenWarnings, until } from '../kit/outcome.ts';
import { hasSoftHsm, killHelper, swapKey, TokenRig } from '../kit/softhsm.ts';
import { importInto } from '../kit/wrap.ts';

const hexOf = (uuid: string): string => uuid.replaceAll('-', '');

describe.skipIf(!hasSoftHsm)('objects of a token (needs SoftHSM and gcc)', () => {
  test('a token with many objects behind a slow module: its keys can be used while vault and token are compared', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 2000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    await Promise.all(Array.from({ length: 120 }, () => kms.createKeyVersion({ keyId })));
    await rig.agent?.end();
    fault.begin('C_GetAttributeValue', 'slow10'); // a list takes longer than any call may
    await rig.start();
    const again = await rig.client();
    for (let index = 0; index < 20; index += 1) expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect((await tokenOf(again))?.hsm?.recoveries).toBe(0);
    expect(await tokenWarnings(again)).toEqual([]);
    expect((await again.describeKey({ keyId })).keyState).toBe('Enabled');
  });

  test('material deleted while the token shows nothing is not taken for destroyed: it goes when the token is back', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL' });
    await importInto(kms, key, randomBytes(32), 'RSAES_OAEP_SHA_1');
    rig.hideTokens();
    expect((await kms.deleteKeyMaterial({ keyId: key.keyId })).keyState).toBe('PendingImport');
    rig.showTokens();
    await until(() => !rig.hsm.objects('hsm').includes(hexOf(key.primaryKeyVersionId)), 'the object is gone');
  });

  test('a slot that cannot be read hides no other: the token is found, and hsm list shows it', async () => {
    using folder = new TempFolder();
    const fault = new FaultModule(folder);
    const env = { ...fault.env, KMS_FAULT_FOREIGN_SLOT: '1' };
    await using rig = await TokenRig.make({ module: fault.module, env });
    const kms = await rig.client();
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
    const listed = await run(agentProgram, ['hsm', 'list', '--module', fault.module], { env: { ...rig.hsm.env, ...env } });
    expect(listed.stdout.toString()).toMatch(/^ {2}hsm {2}serial/m);
  });

  test('an object swapped for another whose handle stays valid: no signature, ciphertext or plaintext of the other key is answered', async () => {
    using folder = new TempFolder();
    await using rig = await TokenRig.make({ module: buildModule(folder, 'stable-handles.c') });
    const kms = await rig.client();
    const aes = await kms.createKey({ protectionLevel: 'HSM' });
    const ec = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const plaintext = randomBytes(16);
    const blobs = [await kms.advanceEncrypt({ keyId: aes.keyId, plaintext })];
    const raw = [];
    for (const algorithm of ['AES_CBC', 'AES_ECB'] as const) raw.push(await kms.encrypt({ keyId: aes.keyId, plaintext, algorithm, paddingMode: 'NO_PADDING' }));
    const sign = (): Promise<string> => codeOf(kms.sign({ keyId: ec.keyId, message: randomBytes(8) }));
    expect(await sign()).toBe('no error');
    swapKey(rig, aes.primaryKeyVersionId, 'AES:32');
    swapKey(rig, ec.primaryKeyVersionId, 'EC:prime256v1');
    expect(new Set(await Promise.all([sign(), ...Array.from({ length: 12 }, sign)]))).toEqual(new Set(['ERR_KEY_UNAVAILABLE']));
    const asked = [
      ...(['AES_GCM', 'AES_CBC', 'AES_ECB'] as const).map((algorithm) => kms.encrypt({ keyId: aes.keyId, plaintext, algorithm })),
      ...blobs.map(({ ciphertextBlob }) => kms.advanceDecrypt({ ciphertextBlob })),
      ...raw.map((sealed) => kms.decrypt(sealed)),
    ];
    expect(new Set(await Promise.all(asked.map((work) => codeOf(work))))).toEqual(new Set(['ERR_KEY_UNAVAILABLE']));
  });

  test('a key that the token did not show is Enabled again when the token shows it, without a use; one that another took the place of is not', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const swapped = await kms.createKey({ protectionLevel: 'HSM' });
    swapKey(rig, swapped.primaryKeyVersionId, 'AES:32');
    expect(await codeOf(kms.advanceEncrypt({ keyId: swapped.keyId, plaintext: randomBytes(1) }))).toBe('ERR_KEY_UNAVAILABLE');
    const stateOf = async (id: string): Promise<string> => (await kms.describeKey({ keyId: id })).keyState;
    const isState = (wanted: string) => until(async () => (await stateOf(keyId)) === wanted, `it is ${wanted}`);
    const renew = (): Promise<void> => killHelper(kms);
    const [folder = ''] = readdirSync(rig.folder.join('tokens'));
    const objects = readdirSync(rig.folder.join('tokens', folder)).filter((name) => name.endsWith('.object') && name !== 'token.object');
    mkdirSync(rig.folder.join('away'));
    for (const name of objects) renameSync(rig.folder.join('tokens', folder, name), rig.folder.join('away', name));
    await renew();
    await isState('Unavailable');
    for (const name of objects) renameSync(rig.folder.join('away', name), rig.folder.join('tokens', folder, name));
    await renew();
    await isState('Enabled');
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
    expect(await codeOf(kms.advanceEncrypt({ keyId: swapped.keyId, plaintext: randomBytes(1) }))).toBe('ERR_KEY_UNAVAILABLE');
    await renew();
    await until(async () => (await tokenOf(kms))?.state === 'ok', 'the token is there');
    expect(await stateOf(swapped.keyId)).toBe('Unavailable');
  });

  test('unlock of a token that works: vault and token are compared, also what came since the token came up', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    await kms.createKey({ protectionLevel: 'HSM' });
    const id = randomBytes(16).toString('hex');
    rig.hsm.tool('hsm', '--keygen', '--key-type', 'AES:32', '--id', id, '--label', 'kms-agent AES_256 of another vault', '--sensitive');
    await kms.unlock({ token: 'hsm' });
    await until(async () => hexOf((await tokenWarnings(kms)).join()).includes(id), 'it is reported');
    rig.hsm.tool('hsm', '--delete-object', '--type', 'secrkey', '--id', id);
    await kms.unlock({ token: 'hsm' });
    await until(async () => (await tokenWarnings(kms)).length === 0, 'it is reported no more');
  });

  test('a token that fails now and then calls no good ciphertext bad', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 5000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('good') });
    const pattern = (length: number): `x${string}` => `x${Array.from({ length }, (_, index) => (index === 0 || index === 2 ? '1' : '0')).join('')}`;
    for (const length of [3, 4, 5, 6, 7, 9]) {
      await new Promise((resolve) => setTimeout(resolve, 1100)); // what went before is not suspicious any more
      fault.begin('C_Decrypt', 0x5, pattern(length)); // the first and the third call of so many
      for (let turn = 0; turn < 4; turn += 1)
        expect(['no error', 'ERR_HSM_UNAVAILABLE'], `pattern ${length}`).toContain(await codeOf(kms.advanceDecrypt({ ciphertextBlob })));
      fault.end();
    }
  });
});
