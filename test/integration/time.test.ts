import { randomBytes } from 'node:crypto';
import { type AgentClient, isAgentError, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs, hourMs, makeVault, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

const message = utf8('what is kept');
const time = (ms: number): string => new Date(ms).toISOString();

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;

async function start(options: Parameters<typeof ClockedAgent.start>[2] = {}): Promise<void> {
  agent = await ClockedAgent.start(folder, {}, options);
  kms = agent.kms;
}

beforeEach(async () => {
  folder = new TempFolder();
  await makeVault(folder);
  await start();
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const versionCount = async (keyId: string): Promise<number> => (await kms.describeKey({ keyId })).keyVersionCount;
/** Long enough for the agent, which looks every 20 ms, to have done what it will do. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150));

describe('rotation', () => {
  test('a new version each interval, longer than a timer can hold, and old ciphertexts open for ever', async () => {
    const { keyId, rotation } = await kms.createKey({ rotationInterval: '30d' });
    expect(rotation).toEqual({ status: 'Enabled', rotationInterval: '30d', lastRotationTime: time(startMs), nextRotationTime: time(startMs + 30 * dayMs) });
    const sealed = [await kms.advanceEncrypt({ keyId, plaintext: message })];
    for (let count = 2; count <= 4; count += 1) {
      await agent.advance(30 * dayMs);
      await expect.poll(() => versionCount(keyId)).toBe(count);
      sealed.push(await kms.advanceEncrypt({ keyId, plaintext: message }));
    }
    expect(new Set(sealed.map(({ keyVersionId }) => keyVersionId)).size).toBe(4);
    for (const blob of sealed) expect((await kms.advanceDecrypt(blob)).plaintext).toEqual(message);
    const now = startMs + 90 * dayMs;
    expect((await kms.describeKey({ keyId })).rotation).toMatchObject({ lastRotationTime: time(now), nextRotationTime: time(now + 30 * dayMs) });
    expect(agent.log.match(/"act":"rotate"/g)).toHaveLength(3);
  });

  test.each(['locked', 'stopped'])('missed while %s, however often: once on unlock', async (how) => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    if (how === 'locked') {
      await kms.lock();
      await agent.advance(100 * dayMs);
      await kms.unlock({ passphrase });
    } else {
      const { wallMs, bootMs, bootId } = agent.now;
      await agent.end();
      await start({ from: { wallMs: wallMs + 100 * dayMs, bootMs: bootMs + 100 * dayMs, bootId } });
    }
    await expect.poll(() => versionCount(keyId)).toBe(2);
    await settle();
    expect(await versionCount(keyId)).toBe(2);
  });

  test('updateRotationPolicy: on, off and on again; Suspended while Disabled and PendingDeletion, and due at once afterwards', async () => {
    const { keyId } = await kms.createKey();
    await expect(kms.updateRotationPolicy({ keyId, enabled: true })).rejects.toMatchObject({ details: { path: '/rotationInterval' } });
    await expect(kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '6d' })).rejects.toMatchObject({ code: 'ERR_INVALID_PARAMS' });
    await kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '7d' });
    expect((await kms.updateRotationPolicy({ keyId, enabled: false })).rotation).toMatchObject({ status: 'Disabled', rotationInterval: '7d' });
    expect((await kms.updateRotationPolicy({ keyId, enabled: true })).rotation).toMatchObject({
      status: 'Enabled',
      nextRotationTime: time(startMs + 7 * dayMs),
    });
    const disabled = await kms.disableKey({ keyId });
    expect(disabled.rotation).toEqual({ status: 'Suspended', rotationInterval: '7d', lastRotationTime: time(startMs) });
    await agent.advance(8 * dayMs);
    await settle();
    expect(await versionCount(keyId)).toBe(1);
    expect((await kms.scheduleKeyDeletion({ keyId })).rotation.status).toBe('Suspended');
    await kms.cancelKeyDeletion({ keyId });
    await kms.enableKey({ keyId });
    await expect.poll(() => versionCount(keyId)).toBe(2);
  });

  test('createKeyVersion by hand: counts as a rotation', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    await agent.advance(6 * dayMs);
    await kms.createKeyVersion({ keyId });
    expect((await kms.describeKey({ keyId })).rotation.nextRotationTime).toBe(time(startMs + 13 * dayMs));
  });

  test('a clock that was far ahead when the key rotated: set right, the key rotates by the right time again', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    await agent.set({ wallMs: startMs + 1000 * dayMs });
    await expect.poll(() => versionCount(keyId)).toBe(2);
    await agent.set({ wallMs: startMs + dayMs, bootMs: agent.now.bootMs + dayMs });
    await expect.poll(async () => (await kms.describeKey({ keyId })).rotation.nextRotationTime).toBe(time(startMs + 8 * dayMs));
    await agent.advance(7 * dayMs);
    await expect.poll(() => versionCount(keyId)).toBe(3);
  });

  test('under load: no call fails while the key rotates', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    let stopped = false;
    const used = new Set<string>();
    const worker = async (): Promise<void> => {
      while (!stopped) {
        const sealed = await kms.advanceEncrypt({ keyId, plaintext: message });
        expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
        used.add(sealed.keyVersionId);
      }
    };
    const workers = Array.from({ length: 8 }, worker);
    for (let count = 2; count <= 6; count += 1) {
      await agent.advance(7 * dayMs);
      await expect.poll(() => versionCount(keyId)).toBe(count);
    }
    await settle();
    stopped = true;
    await Promise.all(workers);
    expect(used.size).toBeGreaterThanOrEqual(5);
  });
});

describe('a believable clock', () => {
  const isGone = (keyId: string): Promise<boolean> =>
    kms.describeKey({ keyId }).then(
      () => false,
      (error: unknown) => isAgentError(error, 'ERR_KEY_NOT_FOUND'),
    );

  test('a jump forward: nothing is destroyed, status warns, and confirmClock moves the end of the window with it', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await agent.set({ wallMs: startMs + 400 * dayMs });
    await settle();
    expect(await isGone(keyId)).toBe(false);
    expect((await kms.status()).warnings).toContainEqual(expect.stringContaining('kms confirm-clock'));
    expect(agent.log).toContain('wall clock jumped');
    expect((await kms.confirmClock()).warnings).not.toContainEqual(expect.stringContaining('kms confirm-clock'));
    await settle();
    expect((await kms.describeKey({ keyId })).deletionTime).toBe(time(startMs + 407 * dayMs));
    await agent.advance(7 * dayMs);
    await expect.poll(() => isGone(keyId)).toBe(true);
  });

  test('a jump forward that is put right: forgotten, and the key lives to its own time', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await agent.set({ wallMs: startMs + 400 * dayMs });
    await settle();
    await agent.set({ wallMs: startMs });
    await settle();
    expect((await kms.status()).warnings).not.toContainEqual(expect.stringContaining('kms confirm-clock'));
    await agent.advance(7 * dayMs - hourMs);
    await settle();
    expect(await isGone(keyId)).toBe(false);
    await agent.advance(hourMs);
    await expect.poll(() => isGone(keyId)).toBe(true);
  });

  test('a jump while the agent is stopped: found by the tick in the vault; a restart of the agent does not confirm it', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    const { bootMs, bootId } = agent.now;
    await settle();
    for (let round = 0; round < 2; round += 1) {
      await agent.end(round === 0 ? 'SIGTERM' : 'SIGKILL');
      await start({ from: { wallMs: startMs + 30 * dayMs, bootMs: bootMs + hourMs, bootId } });
      await settle();
      expect(await isGone(keyId)).toBe(false);
    }
  });

  test('a machine that was off for two days: believed; for a month: what is due waits until it is confirmed', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await settle();
    await agent.end();
    await start({ from: { wallMs: startMs + 2 * dayMs, bootMs: 60_000, bootId: 'second boot' } });
    await settle();
    expect((await kms.status()).warnings).not.toContainEqual(expect.stringContaining('kms confirm-clock'));
    await agent.end();
    await start({ from: { wallMs: startMs + 42 * dayMs, bootMs: 7 * dayMs, bootId: 'third boot' } });
    await settle();
    expect(await isGone(keyId)).toBe(false);
    expect((await kms.status()).warnings).toContainEqual(expect.stringContaining(keyId));
    await kms.confirmClock();
    await expect.poll(() => isGone(keyId)).toBe(true);
  });
});

describe('expiry of imported material', () => {
  test('the key is PendingImport from that time on, its material is gone, and the same may be imported again', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
    const material = randomBytes(32);
    const materialExpireTime = time(startMs + 10 * dayMs);
    expect(await importMaterial(kms, keyId, material, { materialExpireTime })).toMatchObject({ keyMetadata: { keyState: 'Enabled', materialExpireTime } });
    const sealed = await kms.advanceEncrypt({ plaintext: message });
    await agent.advance(10 * dayMs);
    await expect(kms.advanceDecrypt(sealed)).rejects.toMatchObject({ code: 'ERR_KEY_PENDING_IMPORT' });
    await expect.poll(() => agent.log).toContain('"act":"expire"');
    expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingImport' });
    await expect(importMaterial(kms, keyId, randomBytes(32))).rejects.toMatchObject({ code: 'ERR_INVALID_KEY_MATERIAL' });
    await importMaterial(kms, keyId, material);
    expect((await kms.advanceDecrypt(sealed)).plaintext).toEqual(message);
  });

  test('a clock that jumped: the material stays until the clock is confirmed', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
    await importMaterial(kms, keyId, randomBytes(32), { materialExpireTime: time(startMs + 10 * dayMs) });
    await agent.set({ wallMs: startMs + 11 * dayMs });
    await settle();
    await kms.advanceEncrypt({ plaintext: message });
    await kms.confirmClock();
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject({ code: 'ERR_KEY_PENDING_IMPORT' });
  });
});
