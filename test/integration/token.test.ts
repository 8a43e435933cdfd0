import { createPublicKey, createVerify, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { AgentClient, KeyMetadata, KeySpec } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { agentProgram, kmsProgram, passphrase, run } from '../kit/agent.ts';
import { codeOf, tokenOf, until } from '../kit/outcome.ts';
import { hasSoftHsm, killHelper, pin, softHsmModule, TokenRig } from '../kit/softhsm.ts';

const hardwareSpecs: readonly KeySpec[] = ['AES_256', 'AES_192', 'AES_128', 'RSA_2048', 'RSA_3072', 'RSA_4096', 'EC_P256', 'EC_P256K'];

const stateOf = async (kms: AgentClient): Promise<string | undefined> => (await tokenOf(kms))?.state;

describe.skipIf(!hasSoftHsm)('a token (needs SoftHSM)', () => {
  let rig: TokenRig;
  let kms: AgentClient;
  beforeAll(async () => {
    rig = await TokenRig.make();
    kms = await rig.client();
  });
  afterAll(async () => {
    await rig[Symbol.asyncDispose]();
  });

  test('hardware-protected | AES_256, AES_192, AES_128, RSA_2048, RSA_3072, RSA_4096, EC_P256, EC_P256K | generated or imported | encrypt, decrypt, sign, verify', async () => {
    for (const keySpec of hardwareSpecs) {
      const usages = keySpec.startsWith('RSA_') ? (['ENCRYPT_DECRYPT', 'SIGN_VERIFY'] as const) : [undefined];
      for (const keyUsage of usages) {
        const key = await kms.createKey({ protectionLevel: 'HSM', keySpec, ...(keyUsage ? { keyUsage } : {}) });
        expect(key).toMatchObject({ keyType: 'HARDWARE', protectionLevel: 'HSM', token: 'hsm', keySpec, keyState: 'Enabled', origin: 'GENERATED' });
        await useEverything(kms, key);
        const waiting = await kms.createKey({ protectionLevel: 'HSM', keySpec, origin: 'EXTERNAL', ...(keyUsage ? { keyUsage } : {}) });
        expect(waiting).toMatchObject({ keyState: 'PendingImport', origin: 'EXTERNAL' });
      }
    }
  }, 120_000);

  test('every key object is sensitive and not extractable, and is for nothing but its usage, by the words of pkcs11-tool', async () => {
    await kms.createKey({ protectionLevel: 'HSM', keySpec: 'AES_128' });
    await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256' });
    const objects = rig.hsm.objects('hsm').split(/\n(?=\S)/);
    const secrets = objects.filter((object) => /^(Secret|Private) Key Object/.test(object));
    expect(secrets.length).toBeGreaterThanOrEqual(2);
    for (const object of secrets) {
      expect(object).toMatch(/label: +kms-agent [A-Z0-9_]+ [0-9a-f-]{36}/);
      expect(object).toMatch(/ID: +[0-9a-f]{32}/);
      expect(object).toMatch(/Access: +sensitive, always sensitive, never extractable, local/);
      expect(object).toMatch(object.startsWith('Secret') ? /Usage: +encrypt, decrypt\n/ : /Usage: +(sign|decrypt)\n/);
    }
  });

  test('algorithms are what the token was seen to do, and what it cannot do is ERR_UNSUPPORTED_ALGORITHM', async () => {
    const key = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'AES_256' });
    expect(key.encryptionAlgorithms).toEqual(['AES_GCM', 'AES_CBC', 'AES_ECB']);
    expect(await codeOf(kms.encrypt({ keyId: key.keyId, plaintext: randomBytes(16), algorithm: 'RSAES_OAEP_SHA_256' }))).toBe('ERR_UNSUPPORTED_ALGORITHM');
    const { providers = [] } = await kms.status();
    const { hsm } = providers.find(({ name }) => name === 'hsm') ?? {};
    expect(hsm).toMatchObject({ label: 'hsm', manufacturer: 'SoftHSM project', firmware: '2.6', sessions: 8 });
    expect(hsm?.mechanisms).toContain('RSAES_OAEP_SHA_256 over RSA_X_509');
    expect(hsm?.refused?.join()).toContain('RSAES_OAEP_SHA_256 (C_DecryptInit answered CKR_ARGUMENTS_BAD)');
    expect(rig.log.match(/the token hsm does not offer RSAES_OAEP_SHA_256 \(C_DecryptInit answered CKR_ARGUMENTS_BAD\)/g)).toHaveLength(1);
  });

  test('aliases, versions, rotation, disable and deletion are those of every key', async () => {
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', aliasName: 'alias/in-token', rotationInterval: '7d' });
    const old = await kms.advanceEncrypt({ keyId: 'alias/in-token', plaintext: Buffer.from('old') });
    const version = await kms.createKeyVersion({ keyId });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('new') });
    expect(sealed.keyVersionId).toBe(version.keyVersionId);
    expect(Buffer.from((await kms.advanceDecrypt({ ciphertextBlob: old.ciphertextBlob })).plaintext).toString()).toBe('old');
    await kms.disableKey({ keyId });
    expect(await codeOf(kms.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('ERR_KEY_DISABLED');
    await kms.enableKey({ keyId });
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    expect((await kms.cancelKeyDeletion({ keyId })).keyState).toBe('Enabled');
    expect(Buffer.from((await kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).plaintext).toString()).toBe('new');
  });

  test('what createKey cannot do says so', async () => {
    expect(await codeOf(kms.createKey({ token: 'hsm' }))).toBe('ERR_INVALID_PARAMS');
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', token: 'other' }))).toBe('ERR_INVALID_PARAMS');
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', aliasName: 'alias/default' }))).toBe('ERR_UNSUPPORTED_OPERATION');
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM', keySpec: 'AES_256', keyUsage: 'SIGN_VERIFY' }))).toBe('ERR_UNSUPPORTED_OPERATION');
  });

  test('a locked agent has no helper, and an unlocked one has its keys again', async () => {
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: Buffer.from('kept') });
    const helper = (await kms.status()).providers?.find(({ name }) => name === 'hsm')?.hsm?.helperPid ?? 0;
    expect(() => process.kill(helper, 0)).not.toThrow();
    await kms.lock();
    expect(() => process.kill(helper, 0)).toThrow();
    await kms.unlock({ passphrase });
    expect(Buffer.from((await kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).plaintext).toString()).toBe('kept');
  });
});

/** Every algorithm of a key, crossed with OpenSSL where there is a public key. */
async function useEverything(kms: AgentClient, { keyId, keySpec, keyUsage, encryptionAlgorithms, signingAlgorithms }: KeyMetadata): Promise<void> {
  for (const algorithm of encryptionAlgorithms) {
    const plaintext = randomBytes(32);
    const sealed = await kms.encrypt({ keyId, plaintext, algorithm });
    expect(Buffer.compare((await kms.decrypt(sealed)).plaintext, plaintext), `${keySpec} ${algorithm}`).toBe(0);
  }
  if (keySpec.startsWith('AES_')) {
    const sealed = await kms.advanceGenerateDataKey({ keyId });
    expect(Buffer.compare((await kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).plaintext, sealed.plaintext)).toBe(0);
  }
  for (const algorithm of signingAlgorithms) {
    const message = randomBytes(50);
    const signed = await kms.sign({ keyId, message, algorithm });
    expect((await kms.verify({ ...signed, message })).valid).toBe(true);
    if (algorithm === 'RSA_PSS_SHA_256') continue; // node's createVerify has PKCS#1 and ECDSA by default; PSS is in the contract suite
    const { publicKey } = await kms.getPublicKey({ keyId });
    expect(createVerify('sha256').update(message).verify(createPublicKey(publicKey), signed.signature), `${keySpec} ${keyUsage}`).toBe(true);
  }
}

describe.skipIf(!hasSoftHsm)('PINs and slots (needs SoftHSM)', () => {
  test('a wrong PIN is tried once, and nothing but a person tries again', async () => {
    await using rig = await TokenRig.make({ overrides: { checkIntervalMs: 100 } });
    const kms = await rig.client();
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    await rig.restart();
    const again = await rig.client();
    await until(async () => (await stateOf(again)) === 'disabled', 'the token is disabled');
    expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('ERR_HSM_PIN_WRONG');
    expect((await again.describeKey({ keyId })).keyState).toBe('Unavailable');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(rig.log.match(/refused the PIN/g)).toHaveLength(1); // no second try, and one line of log
    expect(await codeOf(again.unlock({ token: 'hsm', pin: '11111111' }))).toBe('ERR_HSM_PIN_WRONG');
    await until(async () => (await codeOf(again.unlock({ token: 'hsm', pin }))) === 'no error', 'the right PIN is taken');
    expect(await stateOf(again)).toBe('ok');
    expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
    expect(await codeOf(again.unlock({ token: 'hsm', pin: '22222222' }))).toBe('ERR_HSM_PIN_WRONG'); // a slip of the hand
    expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error'); // costs nobody the token
    expect(rig.log).not.toMatch(/00000000|11111111|12345678/);
  });

  test('a PIN that is asked for, and one that is kept in the vault', async () => {
    await using rig = await TokenRig.make({ overrides: { pin: 'vault' } });
    const kms = await rig.client();
    await until(async () => (await stateOf(kms)) === 'disabled', 'the token waits for a PIN');
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_HSM_UNAVAILABLE');
    const { code, stderr } = await run(kmsProgram, ['--socket', rig.folder.join('agent.sock'), 'unlock', '--token', 'hsm', '--pin-fd', '3'], { secret: pin });
    expect(stderr).toBe('');
    expect(code).toBe(0);
    await kms.createKey({ protectionLevel: 'HSM' });
    await rig.restart();
    const again = await rig.client();
    expect(await codeOf(again.createKey({ protectionLevel: 'HSM' }))).toBe('no error'); // the vault knew it
    expect(await codeOf(again.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } }))).toBe('ERR_STATE_CONFLICT');
  });

  test('a keyslot of a token opens the vault at start without a person, and with a PIN by a person', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    const { keyslot } = await kms.addKeyslot({ type: 'hsm', token: 'hsm', proof: { passphrase } });
    expect(keyslot).toMatchObject({ type: 'hsm', label: 'token hsm' });
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM' });
    await rig.restart('SIGKILL', false);
    const again = await rig.client();
    await until(async () => (await again.status()).state === 'UNLOCKED', 'the token opens the vault');
    expect(await codeOf(again.advanceEncrypt({ keyId, plaintext: randomBytes(1) }))).toBe('no error');
    await again.lock();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect((await again.status()).state).toBe('LOCKED'); // locked by a person: it stays so
    expect((await again.unlock({})).state).toBe('UNLOCKED');
    await again.lock();
    expect((await again.unlock({ token: 'hsm', pin })).state).toBe('UNLOCKED');
    expect(rig.hsm.objects('hsm')).toContain(keyslot.keyslotId.replaceAll('-', ''));
    await again.removeKeyslot({ keyslotId: keyslot.keyslotId, proof: { passphrase } });
    expect(rig.hsm.objects('hsm')).not.toContain(keyslot.keyslotId.replaceAll('-', ''));
    expect((await again.status()).warnings?.join() ?? '').not.toContain('token');
  });

  test('two tokens, each with its helper: one without the other', async () => {
    await using rig = await TokenRig.make({ labels: ['one', 'two'] });
    const kms = await rig.client();
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('ERR_INVALID_PARAMS');
    const [first, second] = [await kms.createKey({ protectionLevel: 'HSM', token: 'one' }), await kms.createKey({ protectionLevel: 'HSM', token: 'two' })];
    const pidOf = async (name: string): Promise<number> => (await kms.status()).providers?.find((provider) => provider.name === name)?.hsm?.helperPid ?? 0;
    expect(await pidOf('one')).not.toBe(await pidOf('two'));
    process.kill(await pidOf('one'), 'SIGKILL');
    expect(await codeOf(kms.advanceEncrypt({ keyId: second.keyId, plaintext: randomBytes(1) }))).toBe('no error');
    expect(await codeOf(kms.advanceEncrypt({ keyId: first.keyId, plaintext: randomBytes(1) }))).toBe('no error'); // it came back by itself
  });
});

describe.skipIf(!hasSoftHsm)('what is shown of a token (needs SoftHSM)', () => {
  test('kms status, kms-agent doctor: its health, sessions and last error, and when that was, mended or not', async () => {
    await using rig = await TokenRig.make();
    const kms = await rig.client();
    await until(async () => (await stateOf(kms)) === 'ok', 'the token is there');
    expect((await tokenOf(kms))?.hsm).not.toHaveProperty('lastErrorTime');
    const before = Date.now();
    await killHelper(kms);
    await until(async () => (await tokenOf(kms))?.hsm?.recoveries === 1, 'it is mended');
    const { lastError, lastErrorTime = '' } = (await tokenOf(kms))?.hsm ?? {};
    expect(lastError).toMatch(/SIGKILL/);
    expect(Date.parse(lastErrorTime)).toBeGreaterThanOrEqual(before);
    const socket = ['--socket', rig.folder.join('agent.sock')];
    const page = (await run(kmsProgram, [...socket, 'status'])).stdout.toString();
    expect(page).toMatch(/hsm: ok, .*firmware 2\.6, [2-9] sessions, last error: .*SIGKILL, at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(.*\), recovered 1 time$/m);
    const doctor = async (): Promise<string> =>
      (await run(agentProgram, ['doctor', '--config', rig.configFile, ...socket], { env: rig.hsm.env })).stdout.toString();
    const shown = `hsm, serial [0-9a-f]{16}, firmware 2\\.6; does .*AES_GCM.*; sessions: [2-9] open, 8 work side by side; recovered 1 times; last error ${lastErrorTime}: .*SIGKILL`;
    expect(await doctor()).toMatch(new RegExp(`^ok +the agent's token hsm: is well; ${shown}`, 'm'));
    await kms.lock();
    expect(await doctor()).toMatch(/^ok +the agent's token hsm: the agent is locked; .*; sessions: 0 open, /m);
    writeFileSync(rig.folder.join('credentials', 'hsm-pin'), '00000000');
    await kms.unlock({ passphrase });
    await until(async () => (await stateOf(kms)) === 'disabled', 'the token is disabled');
    expect(await doctor()).toMatch(/^WRONG +the agent's token hsm: the token refused the PIN.*; last error .* To mend it: /m);
  });
});

describe.skipIf(!hasSoftHsm)('settings of tokens (needs SoftHSM)', () => {
  test('kms-agent hsm list: shows what a module offers, and a configuration that works as it is', async () => {
    await using rig = await TokenRig.make();
    const listed = await run(agentProgram, ['hsm', 'list', '--module', softHsmModule], { env: rig.hsm.env });
    expect(listed.stderr).toBe('');
    expect(listed.stdout.toString()).toMatch(/hsm .*SoftHSM/);
    const { tokens, settings } = JSON.parse(
      (await run(agentProgram, ['hsm', 'list', '--module', softHsmModule, '--json'], { env: rig.hsm.env })).stdout.toString(),
    ) as {
      tokens: { label: string; uri: string }[];
      settings: object;
    };
    const { uri } = tokens.find(({ label }) => label === 'hsm') ?? {};
    expect(uri).toMatch(/^pkcs11:token=hsm;serial=[0-9a-f]{16}$/);
    const well = await run(agentProgram, ['doctor', '--config', rig.configFile], { env: rig.hsm.env });
    expect(well.stdout.toString()).toMatch(/^ok +token hsm: hsm, serial [0-9a-f]{16}, SoftHSM project SoftHSM v2, firmware 2\.6; lists .*AES_GCM/m);
    const absent = rig.folder.join('absent.json');
    writeFileSync(absent, JSON.stringify({ tokens: [{ name: 'x', module: softHsmModule, uri: 'pkcs11:token=other' }] }), { mode: 0o600 });
    const wrong = await run(agentProgram, ['doctor', '--config', absent, '--json'], { env: rig.hsm.env });
    expect(JSON.parse(wrong.stdout.toString())).toMatchObject({
      ok: false,
      findings: expect.arrayContaining([expect.objectContaining({ name: 'token x', ok: false })]),
    });
    expect(wrong.code).toBe(1);
    rig.configure(settings);
    await rig.restart();
    const kms = await rig.client();
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.createKey({ protectionLevel: 'HSM' }))).toBe('no error');
  });
});
