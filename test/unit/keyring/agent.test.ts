import { setTimeout as delay } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { expect, onTestFinished, test } from 'vitest';
import { Audit } from '../../../daemon/src/audit/audit.ts';
import { defaultSettings } from '../../../daemon/src/config.ts';
import { Agent } from '../../../daemon/src/keyring/agent.ts';
import { Witness } from '../../../daemon/src/keyring/witness.ts';
import { machineTime } from '../../../daemon/src/os/time.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';
import { TempFolder } from '../../kit/agent.ts';
import { FakeProvider } from '../../kit/fake-provider.ts';

/** An agent in this process, unlocked, with a key in a provider that does as it is told. */
async function makeAgent(lockTimeoutMs: number): Promise<{ agent: Agent; provider: FakeProvider; keyId: string; overdue: () => boolean }> {
  const provider = new FakeProvider();
  const { vault } = await Vault.create({ clock: Date.now, slots: [] });
  let isOverdue = false;
  const { maxUsesPerVersion: maxUses, useBlockSize: blockSize, lookIntervalMs, maxOffMs } = defaultSettings;
  const folder = new TempFolder();
  const audit = new Audit({
    folder: folder.join('audit'),
    maxFileBytes: 1_000_000,
    maxTotalBytes: 1_000_000,
    minAgeMs: 0,
    reserveBytes: 4096,
    sync: false,
    checkpointRecords: 1000,
    checkpointMs: 1000,
    now: Date.now,
    onChange: () => undefined,
  });
  onTestFinished(() => folder[Symbol.dispose]());
  const agent = new Agent({
    witness: new Witness({ audit, onWarning: () => undefined }),
    keychain: { read: async () => undefined, write: async () => undefined, remove: async () => undefined },
    providers: [provider],
    time: machineTime,
    limits: { maxUses, blockSize, lookIntervalMs, maxOffMs, lockSettleMs: 1000 },
    openVault: () => vault,
    lockTimeoutMs,
    onLockFailed: () => {
      isOverdue = true;
    },
    onAct: () => undefined,
    onWarning: () => undefined,
    idleLockMs: 0,
    lockOnSuspend: false,
  });
  const { keyId } = await agent.open.creation.createKey({ uid: 0 }, {});
  return { agent, provider, keyId, overdue: () => isOverdue };
}

const encrypt = (agent: Agent, keyId: string): Promise<unknown> =>
  agent.withKeys(() => agent.open.cipher.advanceEncrypt(agent.open.keyring.keyById(keyId), Buffer.from('x')));

test('a provider that fails: the request hears of it, the use is counted all the same, and the next one works', async () => {
  const { agent, provider, keyId } = await makeAgent(1000);
  provider.fail('ERR_HSM_UNAVAILABLE');
  const error: unknown = await encrypt(agent, keyId).catch((thrown: unknown) => thrown);
  expect(isAgentError(error, 'ERR_HSM_UNAVAILABLE')).toBe(true);
  provider.fail();
  await encrypt(agent, keyId);
  expect(agent.open.keyring.keyById(keyId).versions[0]?.useCount).toBe(2);
  await agent.close();
});

test('a provider that stalls: lock waits for what runs, and what runs gets its answer', async () => {
  const { agent, provider, keyId, overdue } = await makeAgent(5000);
  provider.stall();
  const running = encrypt(agent, keyId);
  let isLocked = false;
  const locking = agent.lock().then(() => {
    isLocked = true;
  });
  await delay(50);
  expect(isLocked).toBe(false);
  provider.release();
  await expect(running).resolves.toBeDefined();
  await locking;
  expect(overdue()).toBe(false);
  expect(agent.state).toBe('LOCKED');
});

test('a provider that stalls for longer than lock may wait: the process is told to leave', async () => {
  const { agent, provider, keyId, overdue } = await makeAgent(100);
  provider.stall();
  const running = encrypt(agent, keyId);
  const locking = agent.lock();
  await delay(200);
  expect(overdue()).toBe(true);
  provider.release();
  await running;
  await locking;
});
