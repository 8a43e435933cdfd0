import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, utf8 } from '@kms-agent/client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { cleanEnv, initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { reasonsToLock } from '../kit/audit-lines.ts';
import { hasLogindKit, TestBus, TestLogind } from '../kit/logind.ts';
import { agentWarnings } from '../kit/outcome.ts';

const uid = process.geteuid?.() ?? 0;
const sessionPath = '/org/freedesktop/login1/session/_31';
const message = utf8('what is kept');

let folder: TempFolder;
let bus: TestBus;
let logind: TestLogind;
let agent: TestAgent;
let kms: AgentClient;
let recoveryCode: string;

/** An agent, unlocked. */
async function serve(settings: object = {}): Promise<void> {
  writeFileSync(folder.join('config.json'), JSON.stringify(settings), { mode: 0o600 });
  const env = cleanEnv({ DBUS_SYSTEM_BUS_ADDRESS: bus.address });
  agent = await TestAgent.serve(folder, '--config', folder.join('config.json'), { env });
  kms = await agent.client();
  await unlock();
}

const unlock = (): Promise<unknown> => kms.unlock({ passphrase: recoveryCode });
const state = async (): Promise<string> => (await kms.status()).state;
const reasons = (): unknown[] => reasonsToLock(folder.join('vault', 'audit'));
const patient = { timeout: 10_000 };
const isReached = (): Promise<void> => expect.poll(() => agent.log, patient).toContain('systemd-logind says when');
/** Until so many requests run, and the one that asks. */
const runs = (count: number): Promise<void> => expect.poll(async () => (await kms.status()).counts?.inFlight, patient).toBeGreaterThanOrEqual(count + 1);
/** Long enough for what the helper says to reach the agent, which then answers. @param helper - its name on the bus: it has seen everything before. */
async function settle(helper?: string): Promise<void> {
  if (helper !== undefined) bus.ping(helper);
  await delay(300);
  await kms.status();
}

describe.skipIf(!hasLogindKit)('what systemd-logind tells (needs dbus, python3-dbus and python3-gi)', () => {
  beforeEach(async () => {
    folder = new TempFolder();
    recoveryCode = await initVault(folder);
    bus = new TestBus(folder);
    await bus.start();
    logind = await TestLogind.start(bus);
    await logind.tell(`session 1 ${uid}`);
    await logind.tell(`session 2 ${uid + 1}`);
  });
  afterEach(async () => {
    await agent.end();
    await logind[Symbol.asyncDispose]();
    await bus.stop();
    folder[Symbol.dispose]();
  });

  test('suspension waits until the agent has locked, and the next one waits again', async () => {
    await serve();
    expect(await logind.next('inhibit')).toMatchObject({ what: 'sleep', who: 'kms-agent', mode: 'delay' });
    await isReached();
    for (let round = 1; round <= 2; round += 1) {
      await unlock();
      expect(logind.has('released')).toBe(false);
      await logind.tell('sleep');
      await logind.next('released');
      expect(await state()).toBe('LOCKED');
      expect(reasons()).toEqual(Array.from({ length: round }, () => 'suspend'));
      await logind.tell('wake');
      await logind.next('inhibit');
    }
  });

  test('a request that runs: suspension waits for its end, and it ends well', async () => {
    await logind.tell('delay 60000000');
    await serve({ lockTimeoutMs: 60_000 });
    await isReached();
    const making = Array.from({ length: 8 }, () => kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }));
    await runs(8);
    await logind.tell('sleep');
    await expect.poll(state, patient).toBe('LOCKED');
    const wasReleased = logind.has('released');
    await Promise.all(making);
    await logind.next('released');
    expect(wasReleased).toBe(false);
    expect((await unlock()) && (await kms.listKeys()).keys).toHaveLength(9);
  });

  test('requests that do not end before the machine sleeps: the process leaves with 70', async () => {
    await logind.tell('delay 200000');
    await serve({ lockTimeoutMs: 600_000 });
    await isReached();
    const exited = new Promise<number | null>((resolve) => agent.child.once('exit', resolve));
    const makings = Array.from({ length: 16 }, () => kms.createKey({ keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' }).catch((error: unknown) => error));
    await runs(16);
    await logind.tell('sleep');
    expect(await exited).toBe(70);
    await logind.next('released');
    kms.close();
    await Promise.all(makings);
  });

  test('the lock of a session: of its own user, asked for or shown, and no other', async () => {
    await serve();
    const { sender = '' } = await logind.next('inhibit');
    await isReached();
    await logind.tell('ask 2');
    await logind.tell('hint 2 1');
    await settle(sender);
    expect(await state()).toBe('UNLOCKED');
    await logind.tell('ask 1');
    await expect.poll(state, patient).toBe('LOCKED');
    await unlock();
    await logind.tell('hint 1 1');
    await expect.poll(state, patient).toBe('LOCKED');
    await unlock(); // beside a screen that is locked, from elsewhere
    await logind.tell('hint 1 0');
    await settle(sender);
    expect(await state()).toBe('UNLOCKED');
    await logind.tell(`session 3 ${uid}`);
    await logind.tell('hint 3 1');
    await expect.poll(state, patient).toBe('LOCKED');
    expect(reasons()).toEqual(['screenLock', 'screenLock', 'screenLock']);
  });

  test('a setting that is off: no lock, and no delay of the suspension', async () => {
    await serve({ lockOnSuspend: false });
    await isReached();
    await logind.tell('sleep');
    await settle();
    expect([await state(), logind.has('inhibit')]).toEqual(['UNLOCKED', false]);
    await logind.tell('ask 1');
    await expect.poll(state, patient).toBe('LOCKED');
    await agent.end();
    await logind.tell('wake');
    await serve({ lockOnScreenLock: false });
    await logind.next('inhibit');
    await logind.tell('ask 1');
    await logind.tell('hint 1 1');
    await settle();
    expect(await state()).toBe('UNLOCKED');
    await logind.tell('sleep');
    await expect.poll(state, patient).toBe('LOCKED');
  });

  test('signals that anybody else sends are nothing to it', async () => {
    await serve();
    const { sender = '' } = await logind.next('inhibit');
    await isReached();
    bus.forge(sender, '/org/freedesktop/login1', 'org.freedesktop.login1.Manager.PrepareForSleep', 'boolean:true');
    bus.forge(sender, sessionPath, 'org.freedesktop.login1.Session.Lock');
    await settle(sender);
    expect([await state(), logind.has('released')]).toEqual(['UNLOCKED', false]);
  });

  test('its helper is killed: it comes back, and what happened meanwhile is noticed', async () => {
    await serve();
    await logind.next('inhibit');
    await isReached();
    process.kill(helperOf(agent.child.pid ?? 0), 'SIGKILL');
    await logind.next('released');
    await logind.tell('hint 1 1'); // nobody listens
    expect(await state()).toBe('UNLOCKED');
    await expect.poll(state, patient).toBe('LOCKED');
    expect(reasons()).toEqual(['screenLock']);
    await logind.next('inhibit');
    await unlock();
    process.kill(helperOf(agent.child.pid ?? 0), 'SIGKILL');
    await logind.next('inhibit');
    await settle();
    expect(await state()).toBe('UNLOCKED'); // the screen was locked before
  });

  test('the bus goes away and comes back, and logind after it', async () => {
    await serve({ lockOnSuspend: true });
    await logind.next('inhibit');
    await isReached();
    expect(await agentWarnings(kms)).toEqual([]);
    await logind[Symbol.asyncDispose]();
    await bus.stop();
    await expect.poll(() => agentWarnings(kms), patient).toEqual([expect.stringContaining('lockOnSuspend is set')]);
    expect(await state()).toBe('UNLOCKED');
    await bus.start();
    await expect.poll(() => agent.log, patient).toContain('not on the system bus');
    logind = await TestLogind.start(bus);
    await logind.next('inhibit');
    await expect.poll(() => agentWarnings(kms), patient).toEqual([]);
    await logind.tell('sleep');
    await logind.next('released');
    expect(await state()).toBe('LOCKED');
  });

  test('logind lets nobody wait: the agent locks all the same, and says that it cannot wait', async () => {
    await logind.tell('refuse 1');
    await serve({ lockOnSuspend: true });
    await expect.poll(() => agentWarnings(kms), patient).toEqual([expect.stringContaining('suspension does not wait')]);
    await logind.tell('sleep');
    await expect.poll(state, patient).toBe('LOCKED');
  });

  test('a suspension that has begun when the helper comes: the agent locks', async () => {
    await serve();
    await logind.next('inhibit');
    process.kill(helperOf(agent.child.pid ?? 0), 'SIGKILL');
    await logind.next('released');
    await logind.tell('sleep'); // nobody listens
    await expect.poll(state, patient).toBe('LOCKED');
    expect(reasons()).toEqual(['suspend']);
  });

  test('the agent ends by whatever signal: its helper ends with it', async () => {
    await serve();
    await logind.next('inhibit');
    const helper = helperOf(agent.child.pid ?? 0);
    await agent.end('SIGKILL');
    await logind.next('released');
    await expect.poll(() => isAlive(helper), patient).toBe(false);
  });
});

describe('without a system bus', () => {
  afterEach(async () => {
    await agent.end();
    folder[Symbol.dispose]();
  });

  test.each([
    ['auto', false, []],
    [true, false, ['lockOnSuspend is set', 'lockOnScreenLock is set']],
    ['auto', true, ['unlockOnScreenUnlock is set']],
  ])('locks %j, unlockOnScreenUnlock %j: the agent goes on, and the warnings are %j', async (value, unlockOnScreenUnlock, expected) => {
    folder = new TempFolder();
    recoveryCode = await initVault(folder);
    bus = new TestBus(folder); // that does not run
    await serve({ lockOnSuspend: value, lockOnScreenLock: value, unlockOnScreenUnlock });
    await expect.poll(() => agent.log, patient).toContain('systemd-logind cannot be used');
    await kms.advanceEncrypt({ plaintext: message });
    expect(await agentWarnings(kms)).toEqual(expected.map((words) => expect.stringContaining(words)));
    await delay(1500);
    expect(agent.log.match(/systemd-logind cannot be used/g)).toHaveLength(1); // said once, however often it is tried
    await kms.lock();
    await kms.unlock({ passphrase });
  });
});

/** The process that listens for an agent. */
function helperOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number);
  const found = children.find((child) => readFileSync(`/proc/${child}/cmdline`, 'utf8').includes('logind-process'));
  if (found === undefined) throw new Error('there is no helper');
  return found;
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false; // it is not there
  }
}
