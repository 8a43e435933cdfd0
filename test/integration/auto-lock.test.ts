import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { initVault, passphrase, TempFolder } from '../kit/agent.ts';
import { reasonsToLock } from '../kit/audit-lines.ts';
import { ClockedAgent, hourMs, minuteMs } from '../kit/clocked.ts';

const message = utf8('what is kept');

let folder: TempFolder;
let agent: ClockedAgent;
let kms: AgentClient;

async function start(settings: object): Promise<void> {
  agent = await ClockedAgent.start(folder, settings);
  kms = agent.kms;
}

beforeEach(async () => {
  folder = new TempFolder();
  await initVault(folder);
});
afterEach(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const state = async (): Promise<string> => (await kms.status()).state;
const reasons = (): unknown[] => reasonsToLock(folder.join('vault', 'audit'));
/** Long enough for the agent, which looks at least every 20 ms, to have done what it will do. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 200));

describe('idleLockMs', () => {
  test('only the use of keys keeps it open: status does not, encryption does', async () => {
    await start({ idleLockMs: 10 * minuteMs });
    for (let round = 0; round < 5; round += 1) {
      await agent.advance(9 * minuteMs);
      await kms.advanceEncrypt({ plaintext: message });
    }
    expect(await state()).toBe('UNLOCKED');
    await agent.advance(9 * minuteMs);
    expect(await state()).toBe('UNLOCKED');
    await agent.advance(minuteMs);
    await expect.poll(state).toBe('LOCKED');
    expect(reasons()).toEqual(['idle']);
  });

  test('a request that needs keys is use, whatever its answer', async () => {
    await start({ idleLockMs: 10 * minuteMs });
    await agent.advance(9 * minuteMs);
    await expect(kms.describeKey({ keyId: 'alias/none' })).rejects.toMatchObject({ code: 'ERR_ALIAS_NOT_FOUND' });
    await agent.advance(minuteMs);
    await settle();
    expect(await state()).toBe('UNLOCKED');
  });

  test('a request that is refused for want of a right is no use', async () => {
    await start({ idleLockMs: 10 * minuteMs });
    const { keyId } = await kms.createKey();
    const nobody = { statements: [{ effect: 'Deny' as const, principals: ['*'], actions: ['use'] }] };
    await kms.setKeyPolicy({ keyId, policy: nobody });
    await agent.advance(9 * minuteMs);
    await expect(kms.advanceEncrypt({ keyId, plaintext: message })).rejects.toMatchObject({ code: 'ERR_ACCESS_DENIED' });
    await agent.advance(minuteMs);
    await expect.poll(state).toBe('LOCKED');
  });

  test('a wall clock that is set, back or forward, neither puts it off nor brings it on', async () => {
    await start({ idleLockMs: 10 * minuteMs });
    await agent.set({ wallMs: agent.now.wallMs + hourMs });
    await settle();
    expect(await state()).toBe('UNLOCKED');
    await agent.set({ wallMs: agent.now.wallMs - 48 * hourMs });
    await settle();
    expect(await state()).toBe('UNLOCKED');
    await agent.set({ bootMs: agent.now.bootMs + 10 * minuteMs });
    await expect.poll(state).toBe('LOCKED');
  });

  test('the first request after the time is over is refused, even before the agent has looked', async () => {
    await start({ idleLockMs: 10 * minuteMs, lookIntervalMs: hourMs });
    await agent.advance(10 * minuteMs);
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
    await expect.poll(reasons).toEqual(['idle']);
  });

  test('after the next unlock it counts anew', async () => {
    await start({ idleLockMs: 10 * minuteMs });
    await agent.advance(10 * minuteMs);
    await expect.poll(state).toBe('LOCKED');
    await agent.advance(hourMs);
    await kms.unlock({ passphrase });
    await agent.advance(9 * minuteMs);
    await settle();
    expect(await state()).toBe('UNLOCKED');
    expect(reasons()).toEqual(['idle']);
  });
});

describe('lockOnSuspend, where nobody announced the suspension', () => {
  test('the agent locks when the machine is back, and says why', async () => {
    await start({});
    await agent.sleep(2 * hourMs);
    await expect.poll(state).toBe('LOCKED');
    expect(reasons()).toEqual(['suspend']);
    await kms.unlock({ passphrase });
    await settle();
    expect(await state()).toBe('UNLOCKED');
  });

  test('the first request after it is refused, even before the agent has looked', async () => {
    await start({ lookIntervalMs: hourMs });
    await agent.sleep(minuteMs);
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
    await expect.poll(reasons).toEqual(['suspend']);
  });

  test('false: the keys stay; true and time that passes without a suspension: they stay too', async () => {
    await start({ lockOnSuspend: false });
    await agent.sleep(2 * hourMs);
    await settle();
    expect(await state()).toBe('UNLOCKED');
    await agent.end();
    await start({ lockOnSuspend: true });
    await agent.advance(100 * hourMs);
    await settle();
    expect(await state()).toBe('UNLOCKED');
  });

  test('a suspension counts as time without use', async () => {
    await start({ lockOnSuspend: false, idleLockMs: hourMs, lookIntervalMs: hourMs });
    await agent.sleep(2 * hourMs);
    await expect(kms.advanceEncrypt({ plaintext: message })).rejects.toMatchObject({ code: 'ERR_AGENT_LOCKED' });
    await expect.poll(reasons).toEqual(['idle']);
  });
});
