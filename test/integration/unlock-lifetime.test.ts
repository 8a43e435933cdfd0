import { createHash, randomBytes } from 'node:crypto';
import { renameSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, type ErrorCode, type KeyMetadata, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { completeFacts, keyringMoving } from '../../daemon/src/keyring/moving.ts';
import { mentionedBy } from '../../daemon/src/keyring/records.ts';
import { defaultTokenSettings } from '../../daemon/src/providers/pkcs11/settings.ts';
import { backupVault, rekeyVault, restoreVault, salvageVault } from '../../daemon/src/vault/copies.ts';
import { kmsProgram, passphrase, run, TempFolder } from '../kit/agent.ts';
import { readAudit } from '../kit/audit-lines.ts';
import { ClockedAgent, dayMs, hourMs, makeVault, minuteMs } from '../kit/clocked.ts';
import { FaultModule } from '../kit/fault.ts';
import { importMaterial } from '../kit/material.ts';
import { codeOf } from '../kit/outcome.ts';
import { hasSoftHsm, pin, SoftHsm, softHsmModule } from '../kit/softhsm.ts';

const message = utf8('what is kept');
const digest = createHash('sha256').update(message).digest();
const over: ErrorCode = 'ERR_AGENT_LOCKED';

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;

async function start(settings: object = {}, options: Parameters<typeof ClockedAgent.start>[2] = {}): Promise<void> {
  agent = await ClockedAgent.start(folder, { lockOnSuspend: false, ...settings }, options);
  kms = agent.kms;
}

beforeEach(async () => {
  folder = new TempFolder();
  await makeVault(folder);
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

type Named = Pick<KeyMetadata, 'keyId'>;
const use = ({ keyId }: Named): Promise<string> => codeOf(kms.advanceEncrypt({ keyId, plaintext: message }));
const limited = (unlockLifetime = '15m'): Promise<KeyMetadata> => kms.createKey({ unlockLifetime });
/** Ids of keys whose end is in the record. */
const drops = (): unknown[] =>
  readAudit(folder.join('vault', 'audit'))
    .filter(({ operation, outcome, caller }) => operation === 'drop' && outcome === 'ok' && !caller)
    .map(({ keyId }) => keyId);
/** Long enough for the agent, which looks at least every 20 ms, to have done what it will do. */
const settle = (): Promise<void> => delay(200);

describe('a key with an unlockLifetime', () => {
  test('is used until its time is over, and then not before an unlock; the agent, and other keys, go on; its end is in the record', async () => {
    await start();
    const [key, other] = [await limited(), await kms.createKey()];
    expect(key.unlockLifetime).toBe('15m');
    await agent.advance(15 * minuteMs - 1);
    expect(await use(key)).toBe('no error');
    await agent.advance(1);
    await expect(kms.advanceEncrypt({ keyId: key.keyId, plaintext: message })).rejects.toMatchObject({
      code: over,
      details: { keyId: key.keyId, hint: expect.stringContaining('kms unlock') as string },
    });
    expect(await use(other)).toBe('no error');
    expect((await kms.status()).state).toBe('UNLOCKED');
    await kms.unlock({ passphrase });
    expect(await use(key)).toBe('no error');
    expect(drops()).toEqual([key.keyId]);
  });

  test('the first request after the end is refused, even before the agent has looked', async () => {
    await start({ lookIntervalMs: hourMs });
    const key = await limited();
    await agent.advance(15 * minuteMs);
    expect(await use(key)).toBe(over);
    expect(drops()).toEqual([key.keyId]);
  });

  test('nobody asks for anything: it ends all the same', async () => {
    await start();
    const key = await limited('1s');
    await agent.advance(1000);
    await expect.poll(drops).toEqual([key.keyId]);
  });

  test('its time begins when it is made, if that is later than the unlock', async () => {
    await start();
    await agent.advance(hourMs);
    const key = await limited();
    await agent.advance(14 * minuteMs);
    expect(await use(key)).toBe('no error');
    await agent.advance(minuteMs);
    expect(await use(key)).toBe(over);
  });

  test('an unlock while it is unlocked begins the time anew; a wrong secret does not, and slows its uid down', async () => {
    await start();
    const key = await limited();
    await agent.advance(14 * minuteMs);
    await kms.unlock({ passphrase });
    await agent.advance(14 * minuteMs);
    expect(await use(key)).toBe('no error');
    await expect(kms.unlock({ passphrase: 'wrong' })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED', details: { retryAfterMs: 1000 } });
    await agent.advance(minuteMs);
    expect(await use(key)).toBe(over);
    await expect(kms.unlock({ passphrase })).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED', details: { retryAfterMs: expect.any(Number) as number } });
    await kms.unlock({});
    expect(await use(key)).toBe(over);
    await delay(1000);
    await kms.unlock({ passphrase });
    expect(await use(key)).toBe('no error');
  });

  test('lock and unlock begin it anew, and so does a start of the agent or of the machine', async () => {
    await start();
    const key = await limited();
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: key.keyId, plaintext: message });
    const opens = async (): Promise<void> => expect((await kms.advanceDecrypt({ ciphertextBlob })).plaintext).toEqual(message);
    for (const again of [
      async (): Promise<void> => {
        await kms.lock();
        await kms.unlock({ passphrase });
      },
      async (): Promise<void> => {
        await agent.end('SIGKILL');
        await start({}, { from: agent.now });
      },
      async (): Promise<void> => {
        await agent.end();
        await start({}, { from: { wallMs: agent.now.wallMs + hourMs, bootMs: minuteMs, bootId: 'another boot' } });
      },
    ]) {
      await agent.advance(14 * minuteMs);
      await opens();
      await again();
      await agent.advance(14 * minuteMs);
      await opens();
      await agent.advance(minuteMs);
      expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob }))).toBe(over);
      await again();
      await opens();
    }
  });

  test('a suspension counts, and a wall clock that is set does not', async () => {
    await start();
    const key = await limited();
    await agent.set({ wallMs: agent.now.wallMs + 30 * dayMs });
    await settle();
    expect(await use(key)).toBe('no error');
    await agent.set({ wallMs: agent.now.wallMs - 60 * dayMs });
    await agent.sleep(15 * minuteMs);
    expect(await use(key)).toBe(over);
  });

  test('a time longer than any timer holds: 365 days, to the second', async () => {
    await start();
    const key = await limited('365d');
    for (const days of [25, 25, 314]) {
      await agent.advance(days * dayMs);
      await settle();
      expect(await use(key)).toBe('no error');
    }
    await agent.advance(dayMs - 1000);
    expect(await use(key)).toBe('no error');
    await agent.advance(1000);
    expect(await use(key)).toBe(over);
  });

  test('each has its own time', async () => {
    await start();
    const keys = await Promise.all(['1m', '2m', '60m'].map(limited));
    const outcomes = async (): Promise<string[]> => await Promise.all(keys.map(use));
    await agent.advance(minuteMs);
    expect(await outcomes()).toEqual([over, 'no error', 'no error']);
    await agent.advance(minuteMs);
    expect(await outcomes()).toEqual([over, over, 'no error']);
    await kms.unlock({ passphrase });
    expect(await outcomes()).toEqual(['no error', 'no error', 'no error']);
  });
});

describe('when the time is over', () => {
  interface Asked {
    readonly keyId: string;
    readonly ciphertextBlob: Uint8Array;
    readonly iv?: Uint8Array;
    readonly signature: Uint8Array;
  }
  const refused: Record<string, (asked: Asked) => Promise<unknown>> = {
    encrypt: ({ keyId }) => kms.encrypt({ keyId, plaintext: message }),
    decrypt: ({ keyId, ciphertextBlob, iv }) => kms.decrypt({ keyId, ciphertextBlob, ...(iv ? { iv } : {}) }),
    advanceEncrypt: ({ keyId }) => kms.advanceEncrypt({ keyId, plaintext: message }),
    generateDataKey: ({ keyId }) => kms.generateDataKey({ keyId }),
    advanceGenerateDataKey: ({ keyId }) => kms.advanceGenerateDataKey({ keyId }),
    generateDataKeyWithoutPlaintext: ({ keyId }) => kms.generateDataKeyWithoutPlaintext({ keyId }),
    createKeyVersion: ({ keyId }) => kms.createKeyVersion({ keyId }),
    sign: ({ keyId }) => kms.sign({ keyId, message }),
  };
  const goesOn: Record<string, (asked: Asked) => Promise<unknown>> = {
    describeKey: ({ keyId }) => kms.describeKey({ keyId }),
    listKeyVersions: ({ keyId }) => kms.listKeyVersions({ keyId }),
    getPublicKey: ({ keyId }) => kms.getPublicKey({ keyId }),
    verify: async ({ keyId, signature }) => expect((await kms.verify({ keyId, message, signature })).valid).toBe(true),
    encrypt: ({ keyId }) => kms.encrypt({ keyId, plaintext: message }),
    updateKeyDescription: ({ keyId }) => kms.updateKeyDescription({ keyId, description: 'still there' }),
    tagKey: ({ keyId }) => kms.tagKey({ keyId, tags: { team: 'web' } }),
    disableKey: ({ keyId }) => kms.disableKey({ keyId }),
    enableKey: ({ keyId }) => kms.enableKey({ keyId }),
    scheduleKeyDeletion: ({ keyId }) => kms.scheduleKeyDeletion({ keyId }),
    cancelKeyDeletion: ({ keyId }) => kms.cancelKeyDeletion({ keyId }),
  };
  const metadata = Object.keys(goesOn).filter((name) => !['getPublicKey', 'verify', 'encrypt'].includes(name));
  const symmetric = [
    'encrypt',
    'decrypt',
    'advanceEncrypt',
    'generateDataKey',
    'advanceGenerateDataKey',
    'generateDataKeyWithoutPlaintext',
    'createKeyVersion',
  ];

  test.each([
    ['AES_256', {}, symmetric, []],
    ['RSA_2048', { keyUsage: 'ENCRYPT_DECRYPT' }, ['decrypt', 'createKeyVersion'], ['getPublicKey', 'encrypt']],
    ['RSA_2048', { keyUsage: 'SIGN_VERIFY' }, ['sign', 'createKeyVersion'], ['getPublicKey', 'verify']],
    ['EC_P256', {}, ['sign', 'createKeyVersion'], ['getPublicKey', 'verify']],
    ['EC_P256K', {}, ['sign', 'createKeyVersion'], ['getPublicKey', 'verify']],
  ] as const)('%s %o: what needs the secret part is refused, as explain says; what does not goes on', async (keySpec, usage, needs, publicOnes) => {
    await start();
    const { keyId } = await kms.createKey({ keySpec, unlockLifetime: '1m', ...usage });
    const signs = needs[0] === 'sign';
    const sealed = signs ? { ciphertextBlob: message } : await kms.encrypt({ keyId, plaintext: message });
    const { signature } = signs ? await kms.sign({ keyId, message: digest, messageType: 'DIGEST' }) : { signature: message };
    const asked = { keyId, signature, ciphertextBlob: sealed.ciphertextBlob, ...('iv' in sealed && sealed.iv ? { iv: sealed.iv } : {}) };
    const blocks = async (name: string): Promise<unknown> => (await kms.explain({ method: name as 'sign', keyId })).blockedBy; // a name of the table
    for (const name of needs) expect([name, await blocks(name)]).toEqual([name, undefined]);
    await agent.advance(minuteMs);
    for (const name of needs) {
      expect([name, await blocks(name), await codeOf(refused[name]?.(asked) ?? Promise.resolve())]).toEqual([name, over, over]);
      expect((await kms.explain({ method: name as 'sign', keyId })).wouldSucceed).toBe(false);
    }
    for (const name of [...publicOnes, ...metadata]) expect([name, await codeOf(goesOn[name]?.(asked) ?? Promise.resolve())]).toEqual([name, 'no error']);
    await kms.unlock({ passphrase });
    expect(await codeOf(refused[needs[0]]?.(asked) ?? Promise.resolve())).toBe('no error');
    expect((await kms.describeKey({ keyId })).keyVersionCount).toBe(1);
  });

  test('advanceDecrypt and reEncrypt, from it and to it, are refused, and count nothing', async () => {
    await start();
    const [key, other] = [await limited(), await kms.createKey()];
    const [mine, theirs] = await Promise.all([key, other].map(({ keyId }) => kms.advanceEncrypt({ keyId, plaintext: message })));
    if (!mine || !theirs) throw new Error('two were asked for');
    await agent.advance(15 * minuteMs);
    expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob: mine.ciphertextBlob }))).toBe(over);
    expect(await codeOf(kms.reEncrypt({ ciphertextBlob: mine.ciphertextBlob, destinationKeyId: other.keyId }))).toBe(over);
    expect(await codeOf(kms.reEncrypt({ ciphertextBlob: theirs.ciphertextBlob, destinationKeyId: key.keyId }))).toBe(over);
    const counts = await Promise.all([key, other].map(async ({ keyId }) => (await kms.describeKey({ keyId })).useCount));
    expect(counts).toEqual([1, 1]);
  });

  test('the state of the key is said first', async () => {
    await start();
    const { keyId } = await limited();
    await kms.disableKey({ keyId });
    await agent.advance(15 * minuteMs);
    expect(await use({ keyId })).toBe('ERR_KEY_DISABLED');
  });

  test('who has no right to the key learns nothing of its time', async () => {
    await start();
    const { keyId } = await limited();
    await kms.setKeyPolicy({ keyId, policy: { statements: [{ effect: 'Deny', principals: ['*'], actions: ['use'] }] } });
    await agent.advance(15 * minuteMs);
    expect(await use({ keyId })).toBe('ERR_ACCESS_DENIED');
  });

  test('a rotation that is due waits for the next unlock, and happens once', async () => {
    await start();
    const { keyId } = await kms.createKey({ unlockLifetime: '1h', rotationInterval: '7d' });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId, plaintext: message });
    await agent.advance(15 * dayMs);
    await settle();
    const versions = async (): Promise<number> => (await kms.describeKey({ keyId })).keyVersionCount;
    expect(await versions()).toBe(1);
    await kms.unlock({ passphrase });
    await expect.poll(versions).toBe(2);
    const newer = await kms.advanceEncrypt({ keyId, plaintext: message });
    for (const blob of [ciphertextBlob, newer.ciphertextBlob]) expect((await kms.advanceDecrypt({ ciphertextBlob: blob })).plaintext).toEqual(message);
    await settle();
    expect(await versions()).toBe(2);
    expect(agent.log).not.toContain('could not be done');
  });

  test('counts stay right over ends, renewals and restarts, and a spent version moves on', async () => {
    const settings = { maxUsesPerVersion: 100, useBlockSize: 8 };
    await start(settings);
    const { keyId } = await limited();
    const counts = async (): Promise<number[]> => (await kms.listKeyVersions({ keyId })).keyVersions.map(({ useCount }) => useCount);
    for (let done = 0; done < 10; done += 1) await use({ keyId });
    await agent.advance(15 * minuteMs);
    for (let done = 0; done < 5; done += 1) expect(await use({ keyId })).toBe(over);
    expect(await counts()).toEqual([10]);
    await agent.end();
    await start(settings, { from: agent.now });
    expect(await counts()).toEqual([10]);
    for (let done = 0; done < 95; done += 1) expect(await use({ keyId })).toBe('no error');
    expect(await counts()).toEqual([99, 6]);
  });

  test('material is imported, deleted and imported again in its time only', async () => {
    await start();
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL', unlockLifetime: '15m' });
    const material = randomBytes(32);
    await importMaterial(kms, keyId, material);
    const { ciphertextBlob } = await kms.advanceEncrypt({ plaintext: message });
    const opens = async (): Promise<void> => expect((await kms.advanceDecrypt({ ciphertextBlob })).plaintext).toEqual(message);
    await importMaterial(kms, keyId, material);
    await opens();
    await kms.deleteKeyMaterial({ keyId });
    expect(await use({ keyId })).toBe('ERR_KEY_PENDING_IMPORT');
    await expect(importMaterial(kms, keyId, randomBytes(32))).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
    await importMaterial(kms, keyId, material);
    await opens();
    await agent.advance(15 * minuteMs);
    await expect(importMaterial(kms, keyId, material)).rejects.toMatchObject({ code: over });
    expect((await kms.explain({ method: 'importKeyMaterial', keyId })).blockedBy).toBe(over);
    await kms.unlock({ passphrase });
    await importMaterial(kms, keyId, material);
    await opens();
  });

  test('it is destroyed at the end of its window all the same', async () => {
    await start();
    const { keyId } = await limited('1m');
    await use({ keyId });
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await agent.advance(7 * dayMs);
    await expect.poll(() => codeOf(kms.describeKey({ keyId }))).toBe('ERR_KEY_NOT_FOUND');
    await kms.unlock({ passphrase });
  });
});

describe('copies of the vault', () => {
  test.each(['rekey', 'restore', 'salvage'] as const)('%s: keys with an unlockLifetime open as before', async (how) => {
    await start();
    const keys = await Promise.all([limited(), kms.createKey({ keySpec: 'EC_P256', unlockLifetime: '1h' }), kms.createKey()]);
    const [aes, ec] = keys;
    if (!aes || !ec) throw new Error('three were made');
    await kms.createKeyVersion({ keyId: aes.keyId });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: aes.keyId, plaintext: message });
    const raw = await kms.encrypt({ keyId: aes.keyId, plaintext: message });
    await agent.end();
    const options = { dataDir: folder.join('vault'), clock: () => agent.now.wallMs, argon2Cost: { memoryKiB: 64, passes: 1, parallelism: 1 } };
    if (how === 'rekey') await rekeyVault(options, { passphrase }, keyringMoving);
    else {
      await backupVault(options.dataDir, folder.join('backup.db'));
      renameSync(options.dataDir, folder.join('old'));
      if (how === 'restore') await restoreVault(folder.join('backup.db'), options.dataDir);
      else
        await salvageVault({ ...options, dataDir: folder.join('old') }, { passphrase }, options.dataDir, {
          mentions: mentionedBy,
          complete: completeFacts,
          ...keyringMoving,
        });
      rmSync(folder.join('old'), { recursive: true });
    }
    await start({}, { from: agent.now });
    expect((await kms.advanceDecrypt({ ciphertextBlob })).plaintext).toEqual(message);
    expect((await kms.decrypt(raw)).plaintext).toEqual(message);
    await kms.assertValidSignature({ ...(await kms.sign({ keyId: ec.keyId, message })), message });
    await agent.advance(15 * minuteMs);
    expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob }))).toBe(over);
    await kms.unlock({ passphrase });
    expect((await kms.advanceDecrypt({ ciphertextBlob })).plaintext).toEqual(message);
  });
});

test('kms key create --unlock-lifetime, kms key show, and what kms says when it is over', async () => {
  await start();
  const cli = async (...args: string[]): ReturnType<typeof run> => await run(kmsProgram, ['--socket', agent.socketPath, ...args], { input: message });
  const made = await cli('key', 'create', '--alias', 'alias/payroll', '--unlock-lifetime', '15m');
  expect([made.code, made.stderr]).toEqual([0, '']);
  expect((await cli('key', 'show', 'alias/payroll')).stdout.toString()).toMatch(/Usable +15m after each unlock/);
  await agent.advance(15 * minuteMs);
  const { code, stderr } = await cli('encrypt', '-k', 'alias/payroll', '--base64');
  expect(code).toBe(4);
  expect(stderr).toMatch(/ERR_AGENT_LOCKED.*unlockLifetime.*kms unlock/s);
  const wrong = await cli('key', 'create', '--unlock-lifetime', '15');
  expect(wrong.stderr).toContain('must be a duration');
});

describe.skipIf(!hasSoftHsm)('a key in a token (needs SoftHSM)', () => {
  test('in use when its time is over (needs gcc): the operation ends well, the next is refused, and it is used again after an unlock', async () => {
    new SoftHsm(folder).initToken('hsm');
    const fault = new FaultModule(folder);
    const token = { ...defaultTokenSettings, name: 'hsm', module: fault.module, uri: 'pkcs11:token=hsm', pin: 'vault', timeoutMs: 60_000 };
    await start({ tokens: [token] }, { env: { ...fault.env, SOFTHSM2_CONF: folder.join('softhsm.conf') } });
    await kms.unlock({ token: 'hsm', pin });
    const { keyId } = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256', unlockLifetime: '15m' });
    const before = fault.counts.held;
    fault.begin('C_Sign', 'hold');
    const signing = kms.sign({ keyId, message });
    await expect.poll(() => fault.counts.held).toBeGreaterThan(before);
    await agent.advance(15 * minuteMs);
    expect(await codeOf(kms.sign({ keyId, message }))).toBe(over);
    fault.end();
    await kms.assertValidSignature({ ...(await signing), message });
    expect(await codeOf(kms.sign({ keyId, message }))).toBe(over);
    await expect.poll(drops).toEqual([keyId]);
    await kms.unlock({ passphrase });
    expect(await codeOf(kms.sign({ keyId, message }))).toBe('no error');
  });

  test('is refused likewise, and used again after an unlock', async () => {
    const hsm = new SoftHsm(folder);
    hsm.initToken('hsm');
    process.env['SOFTHSM2_CONF'] = hsm.env['SOFTHSM2_CONF'];
    await start({ tokens: [{ ...defaultTokenSettings, name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=hsm', pin: 'vault' }] });
    await kms.unlock({ token: 'hsm', pin });
    const key = await kms.createKey({ protectionLevel: 'HSM', unlockLifetime: '15m' });
    const signing = await kms.createKey({ protectionLevel: 'HSM', keySpec: 'EC_P256', unlockLifetime: '15m' });
    const { ciphertextBlob } = await kms.advanceEncrypt({ keyId: key.keyId, plaintext: message });
    const signed = await kms.sign({ keyId: signing.keyId, message });
    await agent.advance(15 * minuteMs);
    expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob }))).toBe(over);
    expect(await codeOf(kms.sign({ keyId: signing.keyId, message }))).toBe(over);
    expect(await codeOf(kms.createKeyVersion({ keyId: key.keyId }))).toBe(over);
    await kms.assertValidSignature({ ...signed, message });
    await kms.unlock({ token: 'hsm', pin });
    expect(await codeOf(kms.advanceDecrypt({ ciphertextBlob }))).toBe(over); // a PIN opens no keyslot here
    await kms.unlock({ passphrase });
    expect((await kms.advanceDecrypt({ ciphertextBlob })).plaintext).toEqual(message);
    expect(new Set(drops())).toEqual(new Set([key.keyId, signing.keyId]));
  });
});
