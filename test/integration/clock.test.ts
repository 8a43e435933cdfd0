import { copyFileSync, rmSync } from 'node:fs';
import { type AgentClient, isAgentError, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { completeFacts, keyringMoving } from '../../daemon/src/keyring/moving.ts';
import { mentionedBy } from '../../daemon/src/keyring/records.ts';
import { backupVault, restoreVault, salvageVault } from '../../daemon/src/vault/copies.ts';
import { passphrase, TempFolder } from '../kit/agent.ts';
import { ClockedAgent, type ClockMessage, dayMs, hourMs, makeVault, minuteMs, startMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';

const time = (ms: number): string => new Date(ms).toISOString();

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;

/** Ends the agent and starts it anew with clocks of this moment. */
async function restart(from: ClockMessage, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  await agent.end(signal);
  agent = await ClockedAgent.start(folder, {}, { from });
  kms = agent.kms;
}

beforeEach(async () => {
  folder = new TempFolder();
  await makeVault(folder);
  agent = await ClockedAgent.start(folder);
  kms = agent.kms;
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

/** Long enough for the agent, which looks every 20 ms, to have done what it will do. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 150));
const isGone = (keyId: string): Promise<boolean> =>
  kms.describeKey({ keyId }).then(
    () => false,
    (error: unknown) => isAgentError(error, 'ERR_KEY_NOT_FOUND'),
  );

/** The key must outlive `ms` from now and be gone a little later, whatever happened to the wall clock before. */
async function expectGoneAfter(keyId: string, ms: number): Promise<void> {
  await agent.advance(ms - hourMs);
  await settle();
  expect(await isGone(keyId)).toBe(false);
  await agent.advance(3 * hourMs);
  await expect.poll(() => isGone(keyId)).toBe(true);
}

describe('a deletion window is never shorter than asked for', () => {
  test('scheduled by a clock that was 400 days behind and was put right: a window of 366 days is one', async () => {
    const { keyId } = await kms.createKey();
    await agent.advance(2 * hourMs);
    await settle();
    const { wallMs } = agent.now;
    await agent.set({ wallMs: wallMs - 400 * dayMs });
    await settle();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 366 });
    await agent.set({ wallMs });
    await settle();
    expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingDeletion', deletionTime: time(wallMs + 366 * dayMs) });
    await expectGoneAfter(keyId, 366 * dayMs);
  });

  test('scheduled after a start with an empty clock battery, which the network puts right', async () => {
    const { keyId } = await kms.createKey();
    await agent.advance(2 * hourMs);
    await settle();
    const { wallMs } = agent.now;
    await restart({ wallMs: startMs - 3650 * dayMs, bootMs: minuteMs, bootId: 'second boot' });
    await settle();
    await kms.scheduleKeyDeletion({ keyId });
    await agent.set({ wallMs: wallMs + 10 * minuteMs, bootMs: 2 * minuteMs });
    await settle();
    expect(await isGone(keyId)).toBe(false);
    await expectGoneAfter(keyId, 30 * dayMs - minuteMs);
  });

  test.each([365, -365])('a clock that was wrong by %d days from the first day on, put right and confirmed', async (days) => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 30 });
    await agent.advance(dayMs);
    await settle();
    await agent.set({ wallMs: agent.now.wallMs + days * dayMs });
    await settle();
    await kms.confirmClock();
    await settle();
    expect(await kms.describeKey({ keyId })).toMatchObject({ keyState: 'PendingDeletion', deletionTime: time(agent.now.wallMs + 29 * dayMs) });
    await expectGoneAfter(keyId, 29 * dayMs);
  });

  test('the default key as well, with imported material', async () => {
    const { keyId } = await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' });
    await importMaterial(kms, keyId, new Uint8Array(32).fill(7));
    await agent.set({ wallMs: startMs - 20 * dayMs });
    await settle();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await agent.set({ wallMs: startMs });
    await settle();
    expect(await kms.describeKey({ keyId: 'alias/default' })).toMatchObject({ keyId, keyState: 'PendingDeletion' });
  });

  test('starts of the machine whose clock is ahead by less than what is believed: they do not add up', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    for (const bootId of ['second boot', 'third boot', 'fourth boot']) {
      await agent.advance(2 * hourMs);
      await settle();
      await restart({ wallMs: agent.now.wallMs + 2.9 * dayMs, bootMs: minuteMs, bootId });
      await settle();
      expect(await isGone(keyId)).toBe(false);
    }
    await expectGoneAfter(keyId, 7 * dayMs - 6 * hourMs - 3 * minuteMs);
  });

  test('time that the machine was off does not count, time that the agent was killed or locked does', async () => {
    const { keyId } = await kms.createKey();
    await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
    await settle();
    await restart({ ...agent.now, wallMs: startMs + 3 * dayMs, bootMs: agent.now.bootMs + 3 * dayMs }, 'SIGKILL');
    await settle();
    await kms.lock();
    await restart({ wallMs: startMs + 5 * dayMs, bootMs: minuteMs, bootId: 'second boot' });
    await settle();
    expect((await kms.describeKey({ keyId })).deletionTime).toBe(time(startMs + 9 * dayMs - minuteMs));
    await expectGoneAfter(keyId, 4 * dayMs - minuteMs);
  });
});

describe('a vault that was put back', () => {
  const message = utf8('what is kept');

  /** A key whose window ends after 7 days and one whose material expires then, in a backup of the first day; and the agent, 8 days later, on that backup. */
  async function putBack(how: 'restore' | 'salvage' | 'rollback'): Promise<{ pending: string; expiring: string }> {
    const pending = (await kms.createKey()).keyId;
    const expiring = (await kms.createKey({ aliasName: 'alias/default', origin: 'EXTERNAL' })).keyId;
    await importMaterial(kms, expiring, new Uint8Array(32).fill(7), { materialExpireTime: time(startMs + 7 * dayMs) });
    await kms.scheduleKeyDeletion({ keyId: pending, pendingWindowInDays: 7 });
    await agent.advance(2 * hourMs);
    await settle();
    await backupVault(folder.join('vault'), folder.join('backup.db'));
    await agent.advance(8 * dayMs);
    await expect.poll(() => isGone(pending)).toBe(true);
    await agent.end();
    if (how === 'rollback') copyFileSync(folder.join('backup.db'), folder.join('vault', 'vault.db'));
    else rmSync(folder.join('vault'), { recursive: true });
    if (how === 'restore') await restoreVault(folder.join('backup.db'), folder.join('vault'));
    if (how === 'salvage') await salvageBackup();
    return { pending, expiring };
  }

  async function salvageBackup(): Promise<void> {
    await restoreVault(folder.join('backup.db'), folder.join('damaged'));
    const options = { dataDir: folder.join('damaged'), clock: () => agent.now.wallMs };
    await salvageVault(options, { passphrase }, folder.join('vault'), { mentions: mentionedBy, complete: completeFacts, ...keyringMoving });
  }

  test.each(['restore', 'salvage'] as const)(
    '%s: destruction and expiry wait, a restart included, until an administrator has cancelled what must live',
    async (how) => {
      const { pending, expiring } = await putBack(how);
      await restart(agent.now);
      await settle();
      await restart({ wallMs: agent.now.wallMs + hourMs, bootMs: agent.now.bootMs + hourMs, bootId: agent.now.bootId }, 'SIGKILL');
      await settle();
      const { warnings } = await kms.status();
      for (const keyId of [pending, expiring]) expect(warnings).toContainEqual(expect.stringMatching(new RegExp(`put back.*confirm-clock.*${keyId}`)));
      await kms.advanceEncrypt({ keyId: expiring, plaintext: message });
      expect((await kms.cancelKeyDeletion({ keyId: pending })).keyState).toBe('Enabled');
      expect((await kms.confirmClock()).warnings).not.toContainEqual(expect.stringContaining('put back'));
      await expect.poll(async () => (await kms.describeKey({ keyId: expiring })).keyState).toBe('PendingImport');
      expect((await kms.describeKey({ keyId: pending })).keyState).toBe('Enabled');
    },
  );

  test('what nobody cancelled: destroyed once it is confirmed, and stays so', async () => {
    const { pending } = await putBack('restore');
    await restart(agent.now);
    await settle();
    expect(await isGone(pending)).toBe(false);
    await kms.confirmClock();
    await expect.poll(() => isGone(pending)).toBe(true);
    await restart(agent.now);
    expect((await kms.status()).warnings).not.toContainEqual(expect.stringContaining('put back'));
  });

  test('an older file that --accept-rollback goes on with: the same', async () => {
    const { pending } = await putBack('rollback');
    agent = await ClockedAgent.start(folder, {}, { from: agent.now, unlock: false });
    const refusal: unknown = await agent.kms.unlock({ passphrase }).catch((error: unknown) => error);
    const acceptRollback = /--accept-rollback (\d+)/.exec(isAgentError(refusal) ? String(refusal.details['hint']) : '')?.[1] ?? '';
    await agent.end();
    agent = await ClockedAgent.start(folder, {}, { from: agent.now, acceptRollback });
    kms = agent.kms;
    await settle();
    expect((await kms.cancelKeyDeletion({ keyId: pending })).keyState).toBe('Enabled');
  });
});

describe('rotation by a clock that was wrong', () => {
  const versionCount = async (keyId: string): Promise<number> => (await kms.describeKey({ keyId })).keyVersionCount;

  test.each(['stopped', 'killed', 'locked'])('ahead when the key rotated, right again after the agent was %s: it goes on rotating', async (how) => {
    const { keyId } = await kms.createKey({ rotationInterval: '30d' });
    await agent.advance(2 * hourMs);
    await settle();
    const right = agent.now;
    await agent.set({ wallMs: right.wallMs + 300 * dayMs });
    await expect.poll(() => versionCount(keyId)).toBe(2);
    if (how === 'locked') {
      await kms.lock();
      await agent.set(right);
      await kms.unlock({ passphrase });
    } else await restart(right, how === 'stopped' ? 'SIGTERM' : 'SIGKILL');
    await expect.poll(async () => (await kms.describeKey({ keyId })).rotation.nextRotationTime).toBe(time(right.wallMs + 30 * dayMs));
    await agent.advance(30 * dayMs);
    await expect.poll(() => versionCount(keyId)).toBe(3);
  });

  test('turned on after a version was made by a clock that was ahead: it does not wait until then', async () => {
    const { keyId } = await kms.createKey();
    await agent.set({ wallMs: startMs + 300 * dayMs });
    await settle();
    await kms.createKeyVersion({ keyId });
    await agent.set({ wallMs: startMs });
    await settle();
    const { rotation } = await kms.updateRotationPolicy({ keyId, enabled: true, rotationInterval: '7d' });
    expect(rotation.nextRotationTime).toBe(time(startMs + 7 * dayMs));
  });

  test('starts that begin in 2020 and are put right: no rotation for it', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '365d' });
    const { rotation } = await kms.describeKey({ keyId });
    for (const day of [1, 2, 3]) {
      await restart({ wallMs: startMs - 3650 * dayMs, bootMs: minuteMs, bootId: `boot ${day}` });
      await settle();
      await agent.set({ wallMs: startMs + day * dayMs, bootMs: 2 * minuteMs });
      await settle();
    }
    expect(await kms.describeKey({ keyId })).toMatchObject({ keyVersionCount: 1, rotation });
  });

  test('versions that are made and not used do not put it off', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    await agent.advance(6 * dayMs);
    const { keyVersionId } = await kms.createKeyVersion({ keyId, setPrimary: false });
    expect((await kms.describeKey({ keyId })).rotation.lastRotationTime).toBe(time(startMs));
    await agent.advance(dayMs);
    await expect.poll(() => versionCount(keyId)).toBe(3);
    const rotated = await kms.describeKey({ keyId });
    expect(rotated.rotation.lastRotationTime).toBe(time(startMs + 7 * dayMs));
    await agent.advance(dayMs);
    expect((await kms.setPrimaryKeyVersion({ keyId, keyVersionId })).rotation).toEqual(rotated.rotation);
  });

  test('a newer version that is put to use for the first time is a rotation', async () => {
    const { keyId } = await kms.createKey({ rotationInterval: '7d' });
    const { keyVersionId } = await kms.createKeyVersion({ keyId, setPrimary: false });
    await agent.advance(2 * dayMs);
    expect((await kms.setPrimaryKeyVersion({ keyId, keyVersionId })).rotation.lastRotationTime).toBe(time(startMs + 2 * dayMs));
  });
});

test('versions are listed in the order in which they were made, page by page, also where the clock was set back in between', async () => {
  const { keyId, primaryKeyVersionId: first } = await kms.createKey();
  const made = [first];
  for (const back of [dayMs, 2 * dayMs]) {
    await restart({ ...agent.now, wallMs: startMs - back });
    made.push((await kms.createKeyVersion({ keyId })).keyVersionId);
  }
  expect(made.toSorted()).not.toEqual(made);
  for (const limit of [1, 2, 100]) {
    expect((await Array.fromAsync(kms.listAllKeyVersions({ keyId, limit }))).map(({ keyVersionId }) => keyVersionId)).toEqual(made);
  }
});
