import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type AgentClient, isAgentError, type KeyMetadata, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, dayMs, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

const message = utf8('what is kept');
const time = (ms: number): string => new Date(ms).toISOString();

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;

async function start(settings: object = {}, options: Parameters<typeof ClockedAgent.start>[2] = {}): Promise<void> {
  agent = await ClockedAgent.start(folder, settings, options);
  kms = agent.kms;
}

/** Ends the agent and starts it again on the same vault and clocks. */
async function restart(settings: object = {}, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  const from = agent.now;
  await agent.end(signal);
  await start(settings, { from });
}

beforeEach(async () => {
  folder = new TempFolder();
  await initVault(folder);
  await start();
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const stateOf = async (keyId: string): Promise<string> => (await kms.describeKey({ keyId })).keyState;
const gone = (keyId: string): Promise<boolean> =>
  kms.describeKey({ keyId }).then(
    () => false,
    (error: unknown) => isAgentError(error, 'ERR_KEY_NOT_FOUND'),
  );

describe('deletion', () => {
  test('scheduleKeyDeletion: unusable at once, destroyed when the window ends, and its id and aliases are gone for good', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/doomed' });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: message });
    const scheduled = await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    expect(scheduled).toMatchObject({ keyState: 'PendingDeletion', deletionTime: time(startMs + 7 * dayMs) });
    await expect(kms.advanceDecrypt(sealed)).rejects.toMatchObject({ code: 'ERR_KEY_PENDING_DELETION' });
    await agent.advance(7 * dayMs - 1000);
    expect(await stateOf(keyId)).toBe('PendingDeletion');
    await agent.advance(1000);
    await expect.poll(() => gone(keyId)).toBe(true);
    await expect(kms.describeKey({ keyId })).rejects.toMatchObject({ details: { deletionTime: time(startMs + 7 * dayMs) } });
    await expect(kms.describeKey({ keyId: 'alias/doomed' })).rejects.toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
    await expect(kms.advanceDecrypt({ ciphertextBlob: sealed.ciphertextBlob })).rejects.toMatchObject({ code: 'ERR_INVALID_CIPHERTEXT' });
    expect((await kms.listKeys()).keys.map((key) => key.keyId)).not.toContain(keyId);
    await restart();
    await expect(kms.describeKey({ keyId })).rejects.toMatchObject({ code: 'ERR_KEY_NOT_FOUND', details: { deletionTime: time(startMs + 7 * dayMs) } });
  });

  test('cancelKeyDeletion: back to the state before, Disabled included', async () => {
    const { keyId } = await kms.createKey();
    await kms.disableKey({ keyId });
    await kms.scheduleKeyDeletion({ keyId });
    expect(await kms.cancelKeyDeletion({ keyId })).toMatchObject({ keyState: 'Disabled' });
    await kms.enableKey({ keyId });
    await kms.scheduleKeyDeletion({ keyId });
    const back = await kms.cancelKeyDeletion({ keyId });
    expect(back).toMatchObject({ keyState: 'Enabled' });
    expect(back).not.toHaveProperty('deletionTime');
    await agent.advance(400 * dayMs);
    expect(await stateOf(keyId)).toBe('Enabled');
  });

  test('a window that ends while the agent is locked or stopped: destroyed after the next unlock, not before', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await kms.lock();
    await agent.advance(8 * dayMs);
    await kms.unlock({ passphrase });
    await expect.poll(() => gone(keyId)).toBe(true);
  });

  test('setDeletionProtection: scheduleKeyDeletion is ERR_DELETION_PROTECTED until it is lifted', async () => {
    const { keyId } = await kms.createKey({ deletionProtection: true });
    await expect(kms.scheduleKeyDeletion({ keyId })).rejects.toMatchObject({ code: 'ERR_DELETION_PROTECTED' });
    expect(await kms.setDeletionProtection({ keyId, enabled: true, description: 'signs releases' })).toMatchObject({
      deletionProtection: { enabled: true, description: 'signs releases' },
    });
    await kms.setDeletionProtection({ keyId, enabled: false });
    expect(await kms.scheduleKeyDeletion({ keyId })).toMatchObject({ keyState: 'PendingDeletion' });
  });

  test('a destroyed key: none of its sealed bytes, of any revision, is in a file of the vault', async () => {
    const others: KeyMetadata[] = [];
    for (let index = 0; index < 60; index += 1) others.push(await kms.createKey({ description: 'x'.repeat(index * 37) }));
    const doomed: KeyMetadata[] = [];
    for (let index = 0; index < 5; index += 1) doomed.push(await kms.createKey({ keySpec: index % 2 === 0 ? 'AES_256' : 'EC_P256' }));
    const traces: Buffer[] = [];
    const collect = (): void => void traces.push(...doomed.map(({ keyId }) => sealedBytesOf(keyId)));
    collect();
    for (const [index, { keyId }] of doomed.entries()) {
      await kms.updateKeyDescription({ keyId, description: 'y'.repeat(700 * index) });
      await kms.createKeyVersion({ keyId });
      collect();
    }
    for (const { keyId } of others.slice(0, 30)) await kms.createKeyVersion({ keyId });
    expect(countTraces(traces)).toBeGreaterThanOrEqual(doomed.length);
    for (const { keyId } of doomed) await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    collect();
    await agent.advance(7 * dayMs);
    for (const { keyId } of doomed) await expect.poll(() => gone(keyId)).toBe(true);
    expect(traces.length).toBeGreaterThan(30);
    expect(countTraces(traces)).toBe(0);
  });

  test.each(['deleteKeyMaterial', 'expiry'] as const)(
    'material after %s: none of its sealed bytes, of any revision, is in a file of the vault',
    async (how) => {
      const { keyId: old } = await kms.describeKey({ keyId: 'alias/default' });
      await kms.scheduleKeyDeletion({ keyId: old, pendingWindowInDays: 7 });
      await agent.advance(7 * dayMs);
      await expect.poll(() => gone(old)).toBe(true);
      const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
      const { keyId: other } = await kms.createKey();
      await kms.updateRotationPolicy({ keyId: other, enabled: true, rotationInterval: '30d' });
      const expiry = how === 'expiry' ? { materialExpireTime: time(agent.now.wallMs + dayMs) } : {};
      await importMaterial(kms, keyId, new Uint8Array(32).fill(7), expiry);
      const traces = [sealedBytesOf(keyId)];
      for (let round = 1; round < 5; round += 1) {
        await kms.updateKeyDescription({ keyId, description: 'y'.repeat(700 * round) });
        traces.push(sealedBytesOf(keyId));
      }
      expect(countTraces(traces)).toBeGreaterThan(0);
      if (how === 'deleteKeyMaterial') await kms.deleteKeyMaterial({ keyId });
      else await agent.advance(dayMs);
      if (how === 'expiry') {
        await expect.poll(() => kms.describeKey({ keyId }), { interval: 5 }).not.toHaveProperty('materialExpireTime');
        await agent.advance(29 * dayMs); // what is done at the next look comes after all of this one
        await expect.poll(async () => (await kms.describeKey({ keyId: other })).keyVersionCount, { interval: 5 }).toBe(2);
      }
      expect(countTraces(traces)).toBe(0); // at once: the log goes into the file after a quiet second by itself
    },
  );
});

/** What the vault's file holds of a key now, read as anybody could. */
function sealedBytesOf(keyId: string): Buffer {
  const db = new DatabaseSync(folder.join('vault', 'vault.db'), { readOnly: true });
  try {
    const sealed = db.prepare("SELECT sealed FROM record WHERE kind = 'key' AND id = ?").get(keyId)?.['sealed'];
    if (!(sealed instanceof Uint8Array)) throw new TypeError(`the vault has no record of ${keyId}`);
    return Buffer.from(sealed);
  } finally {
    db.close();
  }
}

/** How many of the sealed records can be found, by any 16 bytes of them that stand in a file of the vault. */
function countTraces(traces: readonly Buffer[]): number {
  const entries = readdirSync(folder.join('vault'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const files = entries.map(({ parentPath, name }) => readFileSync(join(parentPath, name)));
  const isThere = (trace: Buffer): boolean => {
    for (let at = 0; at + 16 <= trace.length; at += 16) if (files.some((file) => file.includes(trace.subarray(at, at + 16)))) return true;
    return false;
  };
  return traces.filter(isThere).length;
}
