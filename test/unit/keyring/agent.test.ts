import { setTimeout as delay } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { expect, onTestFinished, test } from 'vitest';
import { Audit } from '../../../daemon/src/audit/audit.ts';
import { defaultSettings } from '../../../daemon/src/config.ts';
import { Agent, type AgentOptions } from '../../../daemon/src/keyring/agent.ts';
import { Witness } from '../../../daemon/src/keyring/witness.ts';
import { machineTime } from '../../../daemon/src/os/time.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';
import { TempFolder } from '../../kit/agent.ts';
import { FakeProvider } from '../../kit/fake-provider.ts';

const passphrase = 'correct horse battery staple';
/** As cheap as RFC 9106 allows: what is tested here is not its cost. */
const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };

interface Made {
  readonly agent: Agent;
  readonly provider: FakeProvider;
  readonly keyId: string;
  readonly overdue: () => boolean;
}

/** An agent in this process, unlocked, with a key in a provider that does as it is told. */
async function makeAgent(lockTimeoutMs: number, more: Partial<Pick<AgentOptions, 'time' | 'onAct' | 'onState' | 'lockMark'>> = {}): Promise<Made> {
  const provider = new FakeProvider();
  const { vault } = await Vault.create({ clock: Date.now, argon2Cost, slots: [{ type: 'passphrase', passphrase }] });
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
    sinceBoot: machineTime.sinceBoot,
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
    ...more,
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

test('a provider that stalls until the unlockLifetime of its key is over: the operation ends well, the next is refused, the material goes afterwards', async () => {
  let bootMs = 1000;
  const dropped: string[] = [];
  const onAct = ({ act, keyId }: { act: string; keyId?: string }): unknown => dropped.push(`${act} ${keyId}`);
  const { agent, provider } = await makeAgent(1000, { time: { ...machineTime, sinceBoot: () => bootMs }, onAct });
  const { keyId } = await agent.open.creation.createKey({ uid: 0 }, { unlockLifetime: '15m' });
  let used: Uint8Array = new Uint8Array();
  const real = provider.encrypt.bind(provider);
  provider.encrypt = (ref, input) => {
    used = ref.material;
    return real(ref, input);
  };
  provider.stall();
  const running = encrypt(agent, keyId);
  await expect.poll(() => used.length).toBe(32);
  bootMs += 15 * 60_000;
  await expect(encrypt(agent, keyId)).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
  await delay(50); // the agent looks each 10 ms
  expect([dropped, used.some((byte) => byte !== 0)]).toEqual([[], true]);
  provider.release();
  await expect(running).resolves.toBeDefined();
  expect([dropped, used.some((byte) => byte !== 0)]).toEqual([[`drop ${keyId}`], false]);
  await agent.close();
});

test('a lock that is asked for while the vault opens: the mark that it was locked stays', async () => {
  const marks: string[] = [];
  const lockMark = { path: '/nowhere', isSet: false, isOdd: false, set: () => void marks.push('set'), clear: () => void marks.push('clear') };
  let lockNow: (() => void) | undefined;
  const { agent } = await makeAgent(5000, { lockMark, onState: () => lockNow?.() });
  const unlock = (): Promise<unknown> => agent.ways.unlock(0, { passphrase });
  await agent.lock();
  await unlock();
  await agent.lock();
  expect(marks).toEqual(['set', 'clear', 'set']);
  const { promise: locked, resolve } = Promise.withResolvers<void>();
  lockNow = () => {
    lockNow = undefined;
    resolve(agent.lock());
  };
  await unlock();
  await locked;
  expect(agent.state).toBe('LOCKED');
  expect(marks).toEqual(['set', 'clear', 'set', 'set']);
});
