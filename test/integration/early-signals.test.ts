import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { connect } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { agentProgram, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { initSelfOpening } from '../kit/credential.ts';
import { catches } from '../kit/signals.ts';

/** Runs a program as process 1 of a namespace of its own; root needs no user namespace for it. */
const asFirst = ['unshare', ...(process.geteuid?.() === 0 ? [] : ['--map-root-user']), '--pid', '--fork', '--kill-child'];
const mayBeFirst = spawnSync('unshare', [...asFirst.slice(1), 'true']).status === 0;

/** An agent that is being started, as soon as it can be sent a signal. */
class Starting implements AsyncDisposable {
  readonly child: ChildProcess;
  isReady = false;

  readonly #before: readonly string[];

  /** @param before - a command that runs it. */
  constructor(folder: TempFolder, env: NodeJS.ProcessEnv, before: readonly string[] = []) {
    this.#before = before;
    const args = [agentProgram, 'serve', '--data-dir', folder.join('vault'), '--socket', folder.join('agent.sock')];
    const [program = '', ...rest] = [...before, process.execPath, ...args];
    this.child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'ignore'], env });
    (this.child.stdout as Readable).once('data', () => (this.isReady = true)); // stdio above makes it a pipe
  }

  /** The agent's; 0 while there is none yet. */
  get pid(): number {
    const pid = this.child.pid ?? 0;
    return this.#before.length === 0 ? pid : Number.parseInt(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'), 10) || 0;
  }

  /** Waits until a signal does not end it. @throws Error if that is when it is ready. */
  async untilHearing(signal: 'SIGUSR2' | 'SIGHUP'): Promise<void> {
    while (this.pid === 0) await delay(5);
    const pid = this.pid;
    const isItself = (): boolean => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--secure-heap'); // not the launcher before it
    while (!isItself() || !catches(pid, constants.signals[signal])) await delay(5);
    expect([signal, this.isReady]).toEqual([signal, false]);
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGKILL');
  }
}

async function stateOfNext(folder: TempFolder, env: NodeJS.ProcessEnv): Promise<string> {
  await using agent = await TestAgent.serve(folder, { env });
  return (await (await agent.client()).status()).state;
}

test('SIGUSR2 while the agent starts, again and again: it comes up locked, although the credential would open it, and so does the next', async () => {
  using folder = new TempFolder();
  const env = await initSelfOpening(folder);
  expect(await stateOfNext(folder, env)).toBe('UNLOCKED');
  await using starting = new Starting(folder, env);
  await starting.untilHearing('SIGUSR2');
  while (!starting.isReady) {
    expect(starting.child.signalCode).toBe(null);
    starting.child.kill('SIGUSR2');
    await delay(50);
  }
  const kms = await connect({ socketPath: folder.join('agent.sock') });
  expect((await kms.status()).state).toBe('LOCKED');
  kms.close();
  await starting.end('SIGTERM');
  expect(await stateOfNext(folder, env)).toBe('LOCKED');
}, 60_000);

test('SIGUSR2 to an agent that is killed before it is ready: the next one is locked', async () => {
  using folder = new TempFolder();
  const env = await initSelfOpening(folder);
  await using starting = new Starting(folder, env);
  await starting.untilHearing('SIGUSR2');
  starting.child.kill('SIGUSR2');
  await expect.poll(() => existsSync(folder.join('vault', 'locked')), { interval: 5, timeout: 30_000 }).toBe(true);
  await starting.end('SIGKILL');
  expect(await stateOfNext(folder, env)).toBe('LOCKED');
}, 60_000);

test('SIGHUP while the agent starts: it does not end, and reads the settings again when it is ready', async () => {
  using folder = new TempFolder();
  const env = await initSelfOpening(folder);
  await using starting = new Starting(folder, env);
  await starting.untilHearing('SIGHUP');
  starting.child.kill('SIGHUP');
  const reloads = (): number => auditRecords(folder.join('vault', 'audit')).filter(({ operation }) => operation === 'reload').length;
  await expect.poll(() => starting.isReady && reloads(), { timeout: 30_000 }).toBe(1);
  await starting.end('SIGTERM');
}, 60_000);

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s while the agent starts: it ends at once, by the signal',
  async (signal) => {
    using folder = new TempFolder();
    const env = await initSelfOpening(folder);
    await using starting = new Starting(folder, env);
    await starting.untilHearing('SIGHUP');
    process.kill(starting.pid, signal);
    await expect.poll(() => starting.child.signalCode ?? starting.isReady, { timeout: 30_000 }).toBe(signal);
    expect(starting.isReady).toBe(false);
  },
  60_000,
);

test.skipIf(!mayBeFirst).each([
  ['SIGTERM', 143],
  ['SIGINT', 130],
] as const)(
  '%s while the agent starts as process 1 of a container: it ends with %i (needs unshare)',
  async (signal, status) => {
    using folder = new TempFolder();
    const env = await initSelfOpening(folder);
    await using starting = new Starting(folder, env, asFirst);
    await starting.untilHearing('SIGHUP');
    process.kill(starting.pid, signal);
    await expect.poll(() => starting.child.exitCode ?? starting.isReady, { timeout: 30_000 }).toBe(status);
  },
  60_000,
);
