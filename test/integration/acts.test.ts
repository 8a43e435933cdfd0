import { once } from 'node:events';
import { type AgentClient, utf8 } from '@kms-agent/client';
import type { AuditRecord } from '@kms-agent/protocol';
import { describe, expect, test } from 'vitest';
import { agentProgram, initVault, passphrase, run, TempFolder } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { ClockedAgent, dayMs, minuteMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';
import { canInject, injectFaults } from '../kit/strace.ts';

/** No checkpoint is made by itself: each write to the record is one that a test knows of. */
const settings = { auditCheckpointMs: 3_600_000, auditCheckpointRecords: 1_000_000 };

/** Makes a key with which the agent does something by itself in a week. @returns its id. */
type Prepare = (clocked: ClockedAgent) => Promise<string>;

async function importFor(clocked: ClockedAgent, ms: number): Promise<string> {
  const { keyId } = await clocked.kms.createKey({ origin: 'EXTERNAL', aliasName: 'alias/default' });
  await importMaterial(clocked.kms, keyId, Buffer.alloc(32, 3), { materialExpireTime: new Date(clocked.now.wallMs + ms).toISOString() });
  return keyId;
}

const kinds: [operation: string, prepare: Prepare][] = [
  ['rotate', async ({ kms }) => (await kms.createKey({ rotationInterval: '7d' })).keyId],
  [
    'destroy',
    async ({ kms }) => {
      const { keyId } = await kms.createKey();
      await kms.scheduleKeyDeletion({ keyId, pendingWindowInDays: 7 });
      return keyId;
    },
  ],
  ['expire', (clocked) => importFor(clocked, 7 * dayMs)],
];

/** What the agent did to the key, as one can see from outside. */
async function seesDone(kms: AgentClient, operation: string, keyId: string): Promise<boolean> {
  if (operation === 'destroy') return (await Array.fromAsync(kms.listAllKeys())).every((key) => key.keyId !== keyId);
  if (operation === 'rotate') return (await kms.listKeyVersions({ keyId })).keyVersions.length === 2;
  return (await kms.describeKey({ keyId })).keyState === 'PendingImport';
}

const recordsOf = (folder: TempFolder, operation: string): AuditRecord[] =>
  auditRecords(folder.join('vault', 'audit')).filter((record) => record.operation === operation && !record.caller);

const outcomes = (folder: TempFolder, operation: string): string[] => recordsOf(folder, operation).map(({ outcome, error }) => error ?? outcome);

/** The record of a stopped agent proves itself, and each act in it has its beginning and its end. */
async function expectWhole(folder: TempFolder): Promise<void> {
  const args = ['audit', 'verify', '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'];
  const { stdout, stderr } = await run(agentProgram, args, { secret: passphrase });
  expect(JSON.parse(stdout.toString() || '{}'), stderr).toMatchObject({ ok: true });
  const acts = auditRecords(folder.join('vault', 'audit')).filter(({ caller, requestId }) => !caller && requestId);
  for (const { requestId } of acts) expect(acts.filter((record) => record.requestId === requestId).map(({ outcome }) => outcome)[0]).toBe('begun');
  expect(acts.filter(({ outcome }) => outcome === 'begun')).toHaveLength(acts.length / 2);
}

describe.skipIf(!canInject)('acts of the agent’s own and their record (needs root and strace)', () => {
  /** Lets a call end the agent while it acts, and starts it again. @returns the agent, unlocked. */
  async function killActing(
    clocked: ClockedAgent,
    folder: TempFolder,
    ms: number,
    faults: { calls: string; paths: string[]; when: string },
  ): Promise<ClockedAgent> {
    const ended = once(clocked.child, 'exit');
    await using _faults = await injectFaults(clocked.child.pid ?? 0, { ...faults, error: 'KILL' });
    void clocked.advance(ms).catch(() => undefined); // the agent may be gone before it answers
    await ended;
    clocked.kms.close();
    return await ClockedAgent.start(folder, settings, { from: clocked.now });
  }

  test.each(kinds.flatMap(([operation, prepare]) => (['1', '2'] as const).map((when) => [operation, when, prepare] as const)))(
    '%s, kill -9 at its write number %s to the record: what was done is recorded as done, once',
    async (operation, when, prepare) => {
      using folder = new TempFolder();
      await initVault(folder, '--no-default-key');
      const first = await ClockedAgent.start(folder, settings);
      const keyId = await prepare(first);
      await using second = await killActing(first, folder, 8 * dayMs, { calls: 'write', paths: [folder.join('vault', 'audit', 'audit.jsonl')], when });
      await expect.poll(() => seesDone(second.kms, operation, keyId)).toBe(true);
      await expect.poll(() => outcomes(folder, operation)).toEqual(['begun', 'done']);
      const [begun, done] = recordsOf(folder, operation);
      expect(begun).toMatchObject({ keyId, requestId: done?.requestId });
      expect(done).toMatchObject({ keyId, ...(begun?.keyVersionId ? { keyVersionId: begun.keyVersionId } : {}) });
      await second.end();
      await expectWhole(folder);
    },
  );

  test('kill -9 after an act has begun and before the vault has it: closed as not done, and done after that', async () => {
    using folder = new TempFolder();
    await initVault(folder, '--no-default-key');
    const first = await ClockedAgent.start(folder, settings);
    const keyId = await importFor(first, 10 * minuteMs);
    await using second = await killActing(first, folder, 11 * minuteMs, { calls: 'pwrite64', paths: [folder.join('vault', 'vault.db-wal')], when: '1' });
    await expect.poll(() => outcomes(folder, 'expire')).toEqual(['begun', 'notDone', 'begun', 'done']);
    expect(await seesDone(second.kms, 'expire', keyId)).toBe(true);
    await second.end();
    await expectWhole(folder);
  });

  describe.each(['ENOSPC', 'EROFS'])('the record answers %s', (error) => {
    test.each(kinds)('%s: not done without its record, done once when that is back', async (operation, prepare) => {
      using folder = new TempFolder();
      await initVault(folder, '--no-default-key');
      await using clocked = await ClockedAgent.start(folder, settings);
      const keyId = await prepare(clocked);
      {
        const paths = [folder.join('vault', 'audit', 'audit.jsonl'), folder.join('vault', 'audit', 'reserve')];
        await using _faults = await injectFaults(clocked.child.pid ?? 0, { calls: 'write', error, paths });
        await clocked.advance(8 * dayMs);
        await expect.poll(() => clocked.log).toContain('the audit record cannot be written');
        expect(outcomes(folder, operation)).toEqual([]);
      }
      await expect.poll(() => outcomes(folder, operation), { timeout: 20_000 }).toEqual(['begun', 'done']);
      const back = auditRecords(folder.join('vault', 'audit')).findLast((record) => record.operation === 'audit' && record.outcome === 'ok');
      expect(recordsOf(folder, operation)[0]?.seq).toBeGreaterThan(back?.seq ?? Number.POSITIVE_INFINITY);
      expect(await seesDone(clocked.kms, operation, keyId)).toBe(true);
      await clocked.end();
      await expectWhole(folder);
    });

    test.each(kinds)('%s, and the agent is killed meanwhile: nothing was done that nobody recorded', async (operation, prepare) => {
      using folder = new TempFolder();
      await initVault(folder, '--no-default-key');
      const first = await ClockedAgent.start(folder, settings);
      const keyId = await prepare(first);
      {
        await using _faults = await injectFaults(first.child.pid ?? 0, { calls: 'write', error, paths: [folder.join('vault', 'audit', 'audit.jsonl')] });
        await first.advance(8 * dayMs);
        await expect.poll(() => first.log).toContain('the audit record cannot be written');
        await first.end('SIGKILL');
      }
      await using second = await ClockedAgent.start(folder, settings, { from: first.now });
      await expect.poll(() => seesDone(second.kms, operation, keyId)).toBe(true);
      await expect.poll(() => outcomes(folder, operation)).toEqual(['begun', 'done']);
      await second.end();
      await expectWhole(folder);
    });
  });
});

test('the key of a service, and a version that has encrypted as often as it may: begun and done within the request', async () => {
  using folder = new TempFolder();
  await initVault(folder, '--no-default-key');
  await using clocked = await ClockedAgent.start(folder, { ...settings, maxUsesPerVersion: 16, useBlockSize: 1 });
  await clocked.set({ service: 'nginx.service' });
  for (let index = 0; index < 17; index += 1) await clocked.kms.advanceEncrypt({ plaintext: utf8('x') });
  const seen = auditRecords(folder.join('vault', 'audit')).map(({ operation, outcome }) => `${operation} ${outcome}`);
  expect(seen.filter((line) => !line.startsWith('advanceEncrypt')).slice(-4)).toEqual(['create begun', 'create done', 'budget begun', 'budget done']);
  await clocked.end();
  await expectWhole(folder);
});

test('imported material whose time is over is refused while the act waits for the record', async () => {
  using folder = new TempFolder();
  await initVault(folder, '--no-default-key');
  await using clocked = await ClockedAgent.start(folder, { ...settings, lookIntervalMs: 3_600_000 }); // nothing looks at what is due
  const keyId = await importFor(clocked, dayMs);
  await clocked.advance(2 * dayMs);
  await expect(clocked.kms.encrypt({ keyId, plaintext: utf8('x') })).rejects.toMatchObject({ code: 'ERR_KEY_PENDING_IMPORT' });
  expect(outcomes(folder, 'expire')).toEqual([]);
});
