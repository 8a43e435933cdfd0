import { writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, connect, isAgentError, utf8 } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { readAudit, reasonsToLock } from '../kit/audit-lines.ts';
import { FaultModule } from '../kit/fault.ts';
import { LockLoad } from '../kit/lock-load.ts';
import { agentWarnings } from '../kit/outcome.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';

/** How often each of three callers locks and unlocks; LOCK_CYCLES for a longer run. */
const cycles = Number(process.env['LOCK_CYCLES'] ?? 8);
const connections = 16;
const message = utf8('what is kept');

const stateOf = async (kms: AgentClient): Promise<string> => (await kms.status()).state;

/** An unlock that was asked for before somebody's lock gives way to it. */
async function givingWay(unlock: Promise<unknown>): Promise<boolean> {
  try {
    await unlock;
    return true;
  } catch (error) {
    if (!isAgentError(error, 'ERR_AGENT_LOCKED')) throw error;
    return false;
  }
}

/** Unlocks until no lock comes between. */
async function unlockFor(kms: AgentClient, secret: string): Promise<void> {
  while (!(await givingWay(kms.unlock({ passphrase: secret }))));
}

/** One of several callers: locks in one way after the other, some of them together with unlocks, and leaves it open. */
async function alternate(rig: TokenRig, load: LockLoad, first: number): Promise<void> {
  const kms = await rig.client();
  const unlock = (): Promise<void> => unlockFor(kms, rig.recoveryCode);
  const ways: (() => Promise<unknown>)[] = [
    () => kms.lock(),
    async () => rig.agent?.child.kill('SIGUSR2'),
    () => Promise.all([kms.lock(), kms.lock()]),
    () => Promise.all([kms.lock(), givingWay(kms.unlock({ passphrase })), kms.lock()]),
    () => Promise.all([unlock(), givingWay(kms.unlock({ passphrase })), kms.lock()]),
    async () => {
      load.isResting = true; // nobody uses a key
      while ((await stateOf(kms)) === 'UNLOCKED') await delay(20);
      load.isResting = false;
    },
  ];
  for (let cycle = 0; cycle < cycles; cycle += 1) {
    await ways[(first + cycle) % ways.length]?.();
    await delay(Math.random() * 30);
    await unlock();
    await delay(Math.random() * 100);
  }
}

describe.skipIf(!hasSoftHsm)('lock and unlock under load (needs SoftHSM and gcc)', () => {
  test('16 clients while three callers lock and unlock in every way: each answer is right or ERR_AGENT_LOCKED, and nobody hangs', async () => {
    await using rig = await TokenRig.make({ overrides: { timeoutMs: 10_000 }, settings: { idleLockMs: 400 } });
    const clients = await Promise.all(Array.from({ length: connections }, () => rig.client()));
    const kms = await rig.client();
    const make = async (params: Parameters<AgentClient['createKey']>[0]): Promise<string> => (await kms.createKey(params)).keyId;
    const keys = {
      aes: [await make({}), await make({ protectionLevel: 'HSM' })],
      signing: [
        await make({ keySpec: 'EC_P256' }),
        await make({ keySpec: 'RSA_2048', keyUsage: 'SIGN_VERIFY' }),
        await make({ keySpec: 'EC_P256', protectionLevel: 'HSM' }),
      ],
      rsa: await make({ keySpec: 'RSA_2048', keyUsage: 'ENCRYPT_DECRYPT' }),
    };
    const load = new LockLoad(clients, keys);
    await Promise.all([0, 2, 4].map((first) => alternate(rig, load, first)));
    await unlockFor(kms, passphrase);
    await load.stop();
    await unlockFor(kms, passphrase);
    rig.agent?.child.kill('SIGUSR2'); // one that surely finds it unlocked
    await expect.poll(() => stateOf(kms)).toBe('LOCKED');
    await unlockFor(kms, passphrase);
    expect(load.wrong).toEqual([]);
    expect(load.right).toBeGreaterThan(100);
    expect(load.refused).toBeGreaterThan(10);
    console.log(`${load.right} right answers, ${load.refused} refusals, ${load.made.length} keys made, ${cycles * 3} cycles`);
    const there: string[] = [];
    for await (const { keyId } of kms.listAllKeys({ limit: 1000 })) there.push(keyId);
    expect(load.made.filter((keyId) => !there.includes(keyId))).toEqual([]);
    expect(there).toHaveLength(load.made.length + 7); // what was refused was not made
    expect([await stateOf(kms), await agentWarnings(kms)]).toEqual(['UNLOCKED', []]);
    const reasons = new Set(reasonsToLock(rig.folder.join('vault', 'audit'))); // a signal that finds it locking already is no reason of its own
    expect([...reasons].filter((reason) => reason !== 'SIGUSR2' && reason !== 'idle')).toEqual([]);
    expect(reasons.size).toBeGreaterThan(0);
  }, 180_000);

  test('lock while a request runs: new ones are refused before it has ended, it ends well, and only then lock answers', async () => {
    using folder = new TempFolder();
    const fault = new FaultModule(folder);
    await using rig = await TokenRig.make({ module: fault.module, env: fault.env, overrides: { timeoutMs: 30_000 }, settings: { lockTimeoutMs: 60_000 } });
    const [kms, other] = [await rig.client(), await rig.client()];
    const { keyId } = await kms.createKey({ keySpec: 'EC_P256', protectionLevel: 'HSM' });
    const ended: string[] = [];
    const note = <T>(name: string, promise: Promise<T>): Promise<T> => promise.finally(() => ended.push(name));
    fault.begin('C_Sign', 'hold');
    const signing = note('sign', kms.sign({ keyId, message }));
    await delay(200);
    const locking = note('lock', kms.lock());
    const second = note('lock', other.lock());
    await expect.poll(() => stateOf(other)).toBe('LOCKED');
    for (const request of [() => other.advanceEncrypt({ plaintext: message }), () => other.sign({ keyId, message }), () => other.createKey({})])
      await expect(request()).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
    const unlocking = note('unlock', other.unlock({ passphrase }));
    await delay(500);
    expect(ended).toEqual([]);
    fault.end();
    const signed = await signing;
    expect(await locking).toMatchObject({ state: 'LOCKED' });
    await Promise.all([second, unlocking]);
    expect(ended[0]).toBe('sign');
    expect(await stateOf(kms)).toBe('UNLOCKED'); // both locks were asked for before it
    await kms.assertValidSignature({ ...signed, message });
  });
});

test('an unlock that was asked for before a lock does not undo it', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const [kms, other] = [await agent.client(), await agent.client()];
  for (const isOpen of [false, true]) {
    if (isOpen) await kms.unlock({ passphrase });
    const unlocking = kms.unlock({ passphrase }).catch((error: unknown) => error);
    await expect.poll(async () => (await other.status()).counts?.inFlight).toBeGreaterThan(1);
    await other.lock();
    expect(await unlocking).toMatchObject({ code: 'ERR_AGENT_LOCKED', details: { hint: expect.stringContaining('while it was being opened') as string } });
    expect(await stateOf(other)).toBe('LOCKED');
  }
});

test('a request that runs for longer than lockTimeoutMs: the process ends with 70, and comes back locked', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const config = folder.join('config.json');
  writeFileSync(config, JSON.stringify({ lockTimeoutMs: 100 }), { mode: 0o600 });
  await using agent = await TestAgent.serve(folder, '--config', config);
  const kms = await connect({ socketPath: agent.socketPath, retry: false });
  await kms.unlock({ passphrase });
  const exited = new Promise<number | null>((resolve) => agent.child.once('exit', resolve));
  const makings = Array.from({ length: 16 }, () => kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }).catch((error: unknown) => error));
  await expect.poll(async () => (await kms.status()).counts?.inFlight).toBeGreaterThan(16);
  const locking = kms.lock().catch((error: unknown) => error);
  expect(await exited).toBe(70);
  expect(agent.log).toContain('keys may still be in memory');
  expect(readAudit(folder.join('vault', 'audit')).filter(({ operation }) => operation === 'lock')).toEqual([
    expect.objectContaining({ outcome: 'failed', error: 'overdue' }),
  ]);
  await using again = await TestAgent.serve(folder, '--config', config);
  expect(await stateOf(await again.client())).toBe('LOCKED');
  const outcomes = await Promise.all([...makings, locking]);
  expect(outcomes.filter((outcome) => outcome instanceof Error && !isAgentError(outcome, 'ERR_DISCONNECTED', 'ERR_AGENT_LOCKED'))).toEqual([]);
  expect(outcomes.at(-1)).toMatchObject({ code: 'ERR_DISCONNECTED' });
});
