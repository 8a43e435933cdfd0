import { execFileSync } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { chmodSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, isAgentError } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { cleanEnv, type Finished, kmsProgram, passphrase, run } from '../kit/agent.ts';
import { FaultyRig } from '../kit/fault.ts';
import { codeOf, tokenOf, tokenWarnings, until } from '../kit/outcome.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';
import { importInto, wrapMaterial } from '../kit/wrap.ts';

const x = Buffer.from('x');
const hexOf = (uuid: string): string => uuid.replaceAll('-', '');
const shows = (rig: TokenRig, id: string): boolean => rig.hsm.objects('hsm').includes(hexOf(id));
const makeWaiting = async (kms: AgentClient, keySpec: 'AES_256' | 'EC_P256' | 'RSA_2048' = 'AES_256') =>
  await kms.createKey({ protectionLevel: 'HSM', origin: 'EXTERNAL', keySpec, ...(keySpec === 'RSA_2048' ? { keyUsage: 'SIGN_VERIFY' } : {}) });

/** A private key as PKCS#8 beside the public half of another. */
function mismatched(type: 'ec' | 'rsa'): Uint8Array {
  const make = (): KeyObject =>
    type === 'ec' ? generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey : generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const [own, foreign] = [make().export({ format: 'jwk' }), make().export({ format: 'jwk' })];
  const mixed = type === 'ec' ? { ...own, x: foreign['x'], y: foreign['y'] } : { ...own, n: foreign['n'] };
  return createPrivateKey({ key: mixed as never, format: 'jwk' }).export({ type: 'pkcs8', format: 'der' });
}

describe.skipIf(!hasSoftHsm)('material on its way into and out of a token (needs SoftHSM and gcc)', () => {
  test('imports and deletions at once: a key that says it has material has it, and one that says it has none leaves none', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await makeWaiting(kms);
    const { keyId, primaryKeyVersionId } = key;
    const material = randomBytes(32);
    const { importToken, publicKey } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048', wrappingAlgorithm: 'RSAES_OAEP_SHA_1' });
    const again = (): Promise<string> =>
      codeOf(kms.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial: wrapMaterial(publicKey, material, 'RSAES_OAEP_SHA_1') }));
    expect(await again()).toBe('no error');
    for (let wait = 0; wait < 16; wait += 1) {
      const importing = again();
      await delay(wait % 8);
      const deleting = codeOf(kms.deleteKeyMaterial({ keyId }));
      expect([await importing, await deleting]).toEqual(['no error', 'no error']);
      const { keyState } = await kms.describeKey({ keyId });
      expect(shows(rig, primaryKeyVersionId), keyState).toBe(keyState === 'Enabled');
      if (keyState === 'Enabled') expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
      else expect(await again()).toBe('no error');
    }
  });

  test.each([
    ['EC_P256', 'ec'],
    ['RSA_2048', 'rsa'],
  ] as const)('%s whose halves do not belong together is no material: nothing is left of it, and the right key is taken', async (keySpec, type) => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await makeWaiting(kms, keySpec);
    expect(await codeOf(importInto(kms, key, mismatched(type), 'RSA_AES_KEY_WRAP_SHA_256'))).toBe('ERR_INVALID_KEY_MATERIAL');
    expect(shows(rig, key.primaryKeyVersionId)).toBe(false);
    expect((await kms.describeKey({ keyId: key.keyId })).keyState).toBe('PendingImport');
    const pair = type === 'ec' ? generateKeyPairSync('ec', { namedCurve: 'prime256v1' }) : generateKeyPairSync('rsa', { modulusLength: 2048 });
    await importInto(kms, key, pair.privateKey.export({ type: 'pkcs8', format: 'der' }), 'RSA_AES_KEY_WRAP_SHA_256');
    expect(await codeOf(kms.sign({ keyId: key.keyId, message: x }))).toBe('no error');
  });

  test('a vault put back from before an import: the object stays, is reported, is in the way of other material, and is used again with its own', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await makeWaiting(kms);
    const { keyId, primaryKeyVersionId } = key;
    await rig.agent?.end();
    cpSync(rig.folder.join('vault'), rig.folder.join('backup'), { recursive: true });
    await rig.start();
    const material = randomBytes(32);
    const importing = await rig.client();
    await importInto(importing, key, material, 'RSAES_OAEP_SHA_1');
    const sealed = await importing.encrypt({ keyId, plaintext: Buffer.from('kept'), algorithm: 'AES_CBC' });
    await rig.agent?.end();
    rmSync(rig.folder.join('vault'), { recursive: true });
    cpSync(rig.folder.join('backup'), rig.folder.join('vault'), { recursive: true });
    chmodSync(rig.folder.join('vault'), 0o700);
    await rig.start();
    const again = await rig.client();
    await until(async () => (await tokenWarnings(again)).join().includes(primaryKeyVersionId), 'the object is reported');
    for (const algorithm of ['RSAES_OAEP_SHA_1', 'RSAES_OAEP_SHA_256'] as const) {
      expect(await codeOf(importInto(again, key, randomBytes(32), algorithm))).toBe('ERR_KEY_UNAVAILABLE');
      expect(shows(rig, primaryKeyVersionId)).toBe(true);
    }
    await importInto(again, key, material, 'RSAES_OAEP_SHA_1');
    expect(Buffer.from((await again.decrypt(sealed)).plaintext).toString()).toBe('kept');
    await again.deleteKeyMaterial({ keyId });
    expect(shows(rig, primaryKeyVersionId)).toBe(false);
  });

  test.each([
    ['begins', true],
    ['ceases', false],
  ] as const)('a token that %s to unwrap between import parameters and material: the material is taken as the parameters were made', async (_name, begins) => {
    await using faulty = await FaultyRig.make();
    const { rig, fault } = faulty;
    const start = async (unwraps: boolean): Promise<AgentClient> => {
      await rig.agent?.end();
      if (!unwraps) fault.begin('C_UnwrapKey', 0x54); // CKR_FUNCTION_NOT_SUPPORTED
      await rig.start();
      const kms = await rig.client();
      await until(async () => (await tokenOf(kms))?.hsm?.mechanisms !== undefined, 'it is tried out');
      fault.end();
      return kms;
    };
    const kms = await start(!begins);
    const { keyId } = await makeWaiting(kms);
    const { importToken, publicKey } = await kms.getParametersForImport({ keyId, wrappingKeySpec: 'RSA_2048', wrappingAlgorithm: 'RSAES_OAEP_SHA_1' });
    const again = await start(begins);
    const material = randomBytes(32);
    const encryptedKeyMaterial = wrapMaterial(publicKey, material, 'RSAES_OAEP_SHA_1');
    expect(await codeOf(again.importKeyMaterial({ keyId, importToken, encryptedKeyMaterial }))).toBe('no error');
    expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: x }))).toBe('no error');
  });

  test("an import that fails leaves somebody else's object alone, and it is reported", async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const key = await makeWaiting(kms);
    const id = hexOf(key.primaryKeyVersionId);
    rig.hsm.tool('hsm', '--keygen', '--key-type', 'AES:32', '--id', id, '--label', 'somebody else', '--sensitive');
    const { importToken } = await kms.getParametersForImport({ keyId: key.keyId, wrappingKeySpec: 'RSA_2048', wrappingAlgorithm: 'RSAES_OAEP_SHA_256' });
    const bad = kms.importKeyMaterial({ keyId: key.keyId, importToken, encryptedKeyMaterial: randomBytes(256) });
    expect(await codeOf(bad)).toBe('ERR_INVALID_KEY_MATERIAL');
    expect(await codeOf(importInto(kms, key, randomBytes(32), 'RSAES_OAEP_SHA_256'))).toBe('ERR_KEY_UNAVAILABLE');
    expect(rig.hsm.objects('hsm')).toContain('somebody else');
    await until(async () => (await tokenWarnings(kms)).join().includes(key.primaryKeyVersionId), 'it is reported');
    expect((await tokenWarnings(kms)).join()).not.toContain('deleted');
  });

  test('creations that the vault refuses leave nothing in the token', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const creating = Array.from({ length: 6 }, () => codeOf(kms.createKey({ protectionLevel: 'HSM', aliasName: 'alias/one' })));
    const codes = await Promise.all(creating);
    expect(codes.sort()).toEqual([...Array<string>(5).fill('ERR_ALREADY_EXISTS'), 'no error']);
    expect(rig.hsm.objects('hsm', '--type', 'secrkey').match(/Secret Key Object/g)).toHaveLength(1);
    expect(await tokenWarnings(kms)).toEqual([]);
  });

  test('the key of a keyslot that is being added is never reported as left over, and one that is refused leaves none', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 10_000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const key = await makeWaiting(kms);
    const { importToken } = await kms.getParametersForImport({ keyId: key.keyId, wrappingKeySpec: 'RSA_2048', wrappingAlgorithm: 'RSAES_OAEP_SHA_256' });
    fault.begin('C_Encrypt', 'slow300'); // between the token's key and the slot that it is for
    let running = true;
    const comparing = Array.from({ length: 3 }, async () => {
      while (running) await codeOf(kms.importKeyMaterial({ keyId: key.keyId, importToken, encryptedKeyMaterial: randomBytes(256) })); // each failure compares
    });
    for (let turn = 0; turn < 2; turn += 1) await kms.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    running = false;
    await Promise.all(comparing);
    fault.end();
    await delay(300);
    expect(rig.log).not.toMatch(/cut off|does not know/);
    expect(await tokenWarnings(kms)).toEqual([]);
    const refused: unknown = await kms.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase: 'wrong' } }).catch((error: unknown) => error);
    expect(isAgentError(refused, 'ERR_UNLOCK_FAILED')).toBe(true);
    expect(rig.hsm.objects('hsm', '--type', 'secrkey').match(/Secret Key Object/g)).toHaveLength(2);
  }, 120_000);

  test('deletions while a token is away are said once, and done when it is back', async () => {
    await using faulty = await FaultyRig.make({ overrides: { timeoutMs: 2000 } });
    const { rig, fault } = faulty;
    const kms = await rig.client();
    const keys = await Promise.all(Array.from({ length: 5 }, () => makeWaiting(kms)));
    for (const key of keys) await importInto(kms, key, randomBytes(32), 'RSAES_OAEP_SHA_1');
    fault.begin('*', 0x32);
    for (const { keyId } of keys) expect((await kms.deleteKeyMaterial({ keyId })).keyState).toBe('PendingImport');
    expect(rig.log.match(/could not be destroyed/g)).toHaveLength(1);
    fault.end();
    await until(() => keys.every(({ primaryKeyVersionId }) => !shows(rig, primaryKeyVersionId)), 'all are gone');
  });

  const cli = (rig: TokenRig, ...args: string[]): Promise<Finished> => run(kmsProgram, args, { env: cleanEnv({ KMS_AGENT_SOCK: rig.agent?.socketPath }) });

  test('kms key import --file: a private key as PEM or DER and a raw key go into a token as the library takes them; what is wrong is said', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const file = rig.folder.join('key');
    const pairs = { EC_P256: generateKeyPairSync('ec', { namedCurve: 'prime256v1' }), RSA_2048: generateKeyPairSync('rsa', { modulusLength: 2048 }) };
    for (const [keySpec, { privateKey, publicKey }] of Object.entries(pairs))
      for (const format of ['pem', 'der'] as const) {
        const { keyId } = await makeWaiting(kms, keySpec as keyof typeof pairs);
        writeFileSync(file, privateKey.export({ type: 'pkcs8', format } as { type: 'pkcs8'; format: 'der' }));
        expect(await cli(rig, 'key', 'import', keyId, '--file', file)).toMatchObject({ code: 0, stderr: '' });
        expect(createPublicKey((await kms.getPublicKey({ keyId })).publicKey).equals(publicKey)).toBe(true);
        expect(await codeOf(kms.sign({ keyId, message: x }))).toBe('no error');
      }
    const waiting = await makeWaiting(kms, 'RSA_2048');
    writeFileSync(file, pairs.EC_P256.privateKey.export({ type: 'pkcs8', format: 'pem' }));
    const refused = await cli(rig, 'key', 'import', waiting.keyId, '--file', file);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('RSA_2048 takes a private key of its kind; this one is EC_P256') as string });
    const { keyId } = await makeWaiting(kms);
    writeFileSync(file, randomBytes(32));
    expect(await cli(rig, 'key', 'import', keyId, '--file', file)).toMatchObject({ code: 0, stderr: '' });
  });

  test('the documented steps with OpenSSL for RSA_AES_KEY_WRAP_SHA_256, and the same in the help', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const { keyId } = await makeWaiting(kms, 'EC_P256');
    await kms.createAlias({ keyId, aliasName: 'alias/mine' });
    const { folder } = rig;
    execFileSync('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', folder.join('key.pem')], { stdio: 'ignore' });
    const publicKey = createPublicKey(readFileSync(folder.join('key.pem')));
    const guide = readFileSync(new URL('../../protocol/README.md', import.meta.url), 'utf8');
    const steps = /with the OpenSSL program.*?```sh\n(.*?)```/s.exec(guide)?.[1] ?? '';
    writeFileSync(folder.join('kms'), `#!/bin/sh\nexec ${process.execPath} ${kmsProgram} "$@"\n`, { mode: 0o755 });
    const env = cleanEnv({ KMS_AGENT_SOCK: rig.agent?.socketPath, PATH: `${folder.path}:${process.env['PATH'] ?? ''}` });
    execFileSync('sh', ['-e', '-c', steps], { cwd: folder.path, env, stdio: 'pipe' });
    expect(createPublicKey((await kms.getPublicKey({ keyId })).publicKey).equals(publicKey)).toBe(true);
    expect(await codeOf(kms.sign({ keyId, message: x }))).toBe('no error');
    const help = (await cli(rig, 'key', 'import-parameters', '--help')).stdout.toString().replace(/ \\\n +/g, ' ');
    const commands = steps
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('shred'));
    expect(commands.filter((line) => !help.includes(`$ ${line}\n`))).toEqual([]);
    expect(commands).toHaveLength(6);
  });
});
