import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { isAgentError } from '@kms-agent/client';
import { describe, expect, test } from 'vitest';
import { describeState } from '../../daemon/src/cli/supervised.ts';
import { takeSupervision } from '../../daemon/src/os/systemd.ts';
import { agentProgram, cleanEnv, initVault, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { NotifySocket } from '../kit/notify-socket.ts';
import { hasSoftHsm, TokenRig } from '../kit/softhsm.ts';

const hasPython = existsSync('/usr/bin/python3');

describe.skipIf(!hasPython)('sd_notify (needs python3)', () => {
  test.each(['path', 'abstract'])(
    'serve: says READY, how it is with each change, RELOADING and STOPPING, from its own pid, to a socket with a name of kind %s',
    async (kind) => {
      using folder = new TempFolder();
      await initVault(folder);
      writeFileSync(folder.join('config.json'), '{}', { mode: 0o600 });
      await using manager = await NotifySocket.open(kind === 'path' ? folder.join('notify') : `@kms-agent-test-${process.pid}`);
      await using agent = await TestAgent.serve(folder, '--config', folder.join('config.json'), { env: cleanEnv({ NOTIFY_SOCKET: manager.name }) });
      await manager.wait(/^READY=1$/);
      expect(manager.said.slice(0, 2)).toEqual(['STATUS=locked, no keys in memory; run kms unlock', 'READY=1']);
      const kms = await agent.client();
      await kms.unlock({ passphrase });
      await manager.wait(/^STATUS=unlocked, 1 key$/);
      await kms.createKey({});
      await manager.wait(/^STATUS=unlocked, 2 keys$/);
      await kms.status();
      await kms.lock();
      manager.notices.length = 0;
      agent.child.kill('SIGHUP');
      await manager.wait(/^READY=1$/);
      expect(manager.said.filter((line) => !line.startsWith('STATUS'))).toEqual(['RELOADING=1', expect.stringMatching(/^MONOTONIC_USEC=\d+$/), 'READY=1']);
      expect(await agent.end()).toBe(0);
      await manager.wait(/^STOPPING=1$/);
      expect(new Set(manager.notices.map(({ pid }) => pid))).toEqual(new Set([agent.child.pid]));
    },
  );

  test('serve: a reload that is refused is in the status, with its reason on the same line, until a good one; the settings from before hold', async () => {
    using folder = new TempFolder();
    await initVault(folder);
    writeFileSync(folder.join('config.json'), '{}', { mode: 0o600 });
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using agent = await TestAgent.serve(folder, '--config', folder.join('config.json'), { env: cleanEnv({ NOTIFY_SOCKET: manager.name }) });
    await manager.wait(/^READY=1$/);
    const reload = async (text: string): Promise<string[]> => {
      writeFileSync(folder.join('config.json'), text);
      manager.notices.length = 0;
      agent.child.kill('SIGHUP');
      await manager.wait(/^READY=1$/);
      return manager.said.filter((line) => !/^(RELOADING|MONOTONIC_USEC)=/.test(line));
    };
    const refused = (why: string): string =>
      `^STATUS=locked, no keys in memory; run kms unlock; the last reload was refused, the settings from before hold: .*${why}`;
    expect(await reload('{"maxDepth": "deep"}')).toEqual([expect.stringMatching(new RegExp(refused('maxDepth'))), 'READY=1']);
    await expect.poll(() => agent.log).toContain('"message":"reload refused: the settings are not valid; those from before hold"');
    const noJson = `${refused('config\\.json are no valid JSON: see the log')}$`; // every user can read the status, and not the file
    expect(await reload('x271828\nSTATUS=unlocked')).toEqual([expect.stringMatching(new RegExp(noJson)), 'READY=1']);
    await expect.poll(() => agent.log).toContain('x271828');
    expect(describeState({ state: 'LOCKED', keyCount: 0 }, { refusal: 'odd\nSTATUS=unlocked' })).toMatch(/^locked, .*: odd STATUS=unlocked$/);
    await (await agent.client()).unlock({ passphrase });
    await manager.wait(/^STATUS=unlocked, 1 key; the last reload was refused/);
    expect(await reload('{"logLevel": "debug"}')).toEqual(['STATUS=unlocked, 1 key', 'READY=1']);
  });

  test('serve: without a vault it waits and says so, and notices the vault that is made', async () => {
    using folder = new TempFolder();
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using agent = await TestAgent.serve(folder, { env: cleanEnv({ NOTIFY_SOCKET: manager.name }) });
    await manager.wait(/^STATUS=uninitialized, no vault yet; run kms-agent init$/);
    await initVault(folder);
    await (await agent.client()).status();
    await manager.wait(/^STATUS=locked/);
  });

  test('serve: signs of life come from the main loop at half of WATCHDOG_USEC, and stop when it stops', async () => {
    using folder = new TempFolder();
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using agent = await TestAgent.serve(folder, { env: cleanEnv({ NOTIFY_SOCKET: manager.name, WATCHDOG_USEC: '200000' }) });
    const signs = (): number => manager.said.filter((line) => line === 'WATCHDOG=1').length;
    while (signs() < 3) await manager.wait(/^WATCHDOG=1$/).then(() => new Promise((resolve) => setTimeout(resolve, 20)));
    agent.child.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = signs();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(signs()).toBe(before);
    agent.child.kill('SIGCONT');
  });

  test('serve: a watchdog of another process, and a manager that is gone, are nothing to it', async () => {
    using folder = new TempFolder();
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using agent = await TestAgent.serve(folder, { env: cleanEnv({ NOTIFY_SOCKET: manager.name, WATCHDOG_USEC: '20000', WATCHDOG_PID: '1' }) });
    await manager.wait(/^READY=1$/);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(manager.said).not.toContain('WATCHDOG=1');
    using other = new TempFolder();
    await using lonely = await TestAgent.serve(other, { env: cleanEnv({ NOTIFY_SOCKET: other.join('nobody') }) });
    expect(await (await lonely.client()).status()).toMatchObject({ state: 'UNINITIALIZED' });
    await expect.poll(() => lonely.startLog + lonely.log).toContain('the service manager cannot be told');
    expect(await agent.end()).toBe(0);
  });

  test.skipIf(!hasSoftHsm)('the helper of a token: inherits nothing with which it could speak for the agent', async () => {
    using folder = new TempFolder();
    await using manager = await NotifySocket.open(folder.join('notify'));
    await using rig = await TokenRig.make({ env: cleanEnv({ NOTIFY_SOCKET: manager.name, WATCHDOG_USEC: '60000000' }) });
    await (await rig.client()).status();
    const pid = manager.notices[0]?.pid ?? 0;
    const helpers = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean);
    expect(helpers.length).toBeGreaterThan(0);
    for (const helper of helpers) {
      const names = readFileSync(`/proc/${helper}/environ`, 'utf8')
        .split('\0')
        .map((entry) => entry.split('=')[0]);
      expect(names).toContain('PATH');
      expect(names.filter((name) => /^(NOTIFY_SOCKET|WATCHDOG_|LISTEN_)/.test(name ?? ''))).toEqual([]);
      expect(readdirSync(`/proc/${helper}/fd`).length).toBeGreaterThan(0);
    }
  });
});

test('takeSupervision: what is meant for another process is not taken, and nothing is left for children', () => {
  const env = { NOTIFY_SOCKET: '/n', WATCHDOG_USEC: '3000000', LISTEN_FDS: '1', LISTEN_PID: '1', LISTEN_FDNAMES: 'kms-agent', PATH: '/bin' };
  expect(takeSupervision(env)).toEqual({ notifySocket: '/n', watchdogMs: 3000, sockets: { count: 0 } });
  expect(env).toEqual({ PATH: '/bin' });
  expect(takeSupervision({})).toEqual({ sockets: { count: 0 } });
});

test.each([
  ['a name that is not the agent’s', 'LISTEN_FDS=1 LISTEN_FDNAMES=ssh', 'one socket named ssh'],
  ['more than one', 'LISTEN_FDS=2 LISTEN_FDNAMES=kms-agent:kms-agent', '2 sockets named kms-agent, kms-agent'],
])('serve: sockets of systemd with %s stop the start, and the status says that a restart is no use', async (_name, variables, words) => {
  using folder = new TempFolder();
  const command = `export ${variables} LISTEN_PID=$$; exec "${process.execPath}" "${agentProgram}" serve --data-dir "${folder.join('v')}" --socket "${folder.join('s')}" 3</dev/null 4</dev/null`;
  const child = (await import('node:child_process')).spawnSync('sh', ['-c', command], { encoding: 'utf8', env: cleanEnv() });
  expect([child.status, child.stderr]).toEqual([2, expect.stringContaining(words)]);
});

test('serve: bad settings, and files that are not as they must be, end with 2', async () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('config.json'), '{"maxDepth": "deep"}', { mode: 0o600 });
  const { code, stderr } = await run(agentProgram, [
    'serve',
    '--config',
    folder.join('config.json'),
    '--data-dir',
    folder.join('v'),
    '--socket',
    folder.join('s'),
  ]);
  expect([code, stderr]).toEqual([2, expect.stringContaining('maxDepth')]);
});

test('keyslot credential over the socket: the answer says what makes one', async () => {
  await using agent = await TestAgent.dev();
  using folder = new TempFolder();
  await initVault(folder);
  await using served = await TestAgent.serve(folder);
  const kms = await served.client();
  await kms.unlock({ passphrase });
  const refused = await kms.addKeyslot({ type: 'credential', proof: { passphrase } }).catch((error: unknown) => error);
  expect(isAgentError(refused) && [refused.code, refused.details.hint]).toEqual([
    'ERR_UNSUPPORTED_OPERATION',
    expect.stringContaining('kms-agent keyslot add credential'),
  ]);
  expect(await (await agent.client()).status()).toMatchObject({ state: 'UNLOCKED' });
});
