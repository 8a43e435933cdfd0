import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ProtectionStatus } from '@kms-agent/client';
import { afterEach, describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { asUser, attack, canRunAsUser, crash, StartWatcher } from '../kit/attacker.ts';
import { protectionsOfTheMachine } from '../kit/outcome.ts';
import { outlives } from '../kit/signals.ts';
import { hasSoftHsm, pin, SoftHsm, softHsmModule } from '../kit/softhsm.ts';

const hasYama = existsSync('/proc/sys/kernel/yama/ptrace_scope');

const children: ChildProcess[] = [];
afterEach(async () => {
  for (const child of children.splice(0)) {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    if (child.kill('SIGKILL')) await gone;
  }
});

/** Starts a program that waits for its input, or for messages over a channel. */
function start(command: readonly string[]): number {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { cwd: '/', stdio: ['pipe', 'ignore', 'inherit', 'ipc'], env: cleanEnv() });
  children.push(child);
  return child.pid ?? 0;
}

async function until(holds: () => boolean, what: string): Promise<void> {
  for (let left = 600; !holds(); left -= 1) {
    if (left === 0) throw new Error(`it never came to be that ${what}`);
    await delay(50);
  }
}

async function protectionsOf(agent: TestAgent): Promise<Map<string, ProtectionStatus>> {
  const { protections = [] } = await (await agent.client()).status();
  return new Map(protections.map((protection) => [protection.name, protection]));
}

test('status: every protection of the process is on, and says what it does', async () => {
  await using agent = await TestAgent.dev();
  const protections = await protectionsOf(agent);
  const names = [
    'notInspectable',
    'shutFromTheStart',
    'notTraced',
    'noCore',
    'debuggerOff',
    'cleanEnvironment',
    'privateFiles',
    'secureHeap',
    'secureHeapLocked',
    'noSwap',
  ];
  expect([...protections.keys()]).toEqual([...names, 'garbageCollection', 'freedMemoryOverwritten']);
  const off = [...protections.values()].filter(({ name, on }) => !on && !protectionsOfTheMachine.includes(name));
  expect(off).toEqual([]);
});

test('an agent that is started around its program: status and the log name each protection that is off, and how to mend it', async () => {
  await using agent = await TestAgent.start(['dev'], { command: ['sh', '-c', 'exec "$0" --disable-sigusr1 "$@"'] });
  const protections = await protectionsOf(agent);
  for (const name of ['secureHeap', 'garbageCollection', 'freedMemoryOverwritten'])
    expect(protections.get(name)).toMatchObject({ on: false, detail: expect.stringMatching(/To mend it: start the agent with its own program, kms-agent/) });
  const { warnings = [] } = await (await agent.client()).status();
  expect(warnings.join('\n')).toMatch(/The protection secureHeap is off: .* To mend it: /);
});

describe.skipIf(!canRunAsUser)('as an ordinary user (as root: needs a checkout that others can read)', () => {
  /** An agent of the ordinary user, on a socket in a folder of its own. */
  async function startAgent(folder: TempFolder, before: readonly string[] = [], settings: object = {}, env: NodeJS.ProcessEnv = {}): Promise<TestAgent> {
    chmodSync(folder.path, 0o1777);
    writeFileSync(folder.join('config.json'), JSON.stringify(settings), { mode: 0o644 });
    const command = [...before, ...asUser, 'env', `TMPDIR=${folder.path}`];
    const dataDir = folder.join('vault');
    const init = [...asUser, process.execPath, agentProgram, 'init', '--data-dir', dataDir, '--passphrase-fd', '0', '--json'];
    const made = spawn(init[0] ?? '', init.slice(1), { stdio: ['pipe', 'ignore', 'inherit'], env: cleanEnv() });
    made.stdin?.end('correct horse battery staple\n');
    await new Promise((resolve) => made.once('exit', resolve));
    const args = ['serve', '--config', folder.join('config.json'), '--data-dir', dataDir, '--socket', folder.join('agent.sock')];
    return await TestAgent.start(args, { command, env: cleanEnv(env) });
  }

  test('another process of the same user gets into none of the processes: not by ptrace, not by process_vm_readv, not by /proc', async () => {
    using folder = new TempFolder();
    const hsm = new SoftHsm(folder);
    hsm.initToken('hsm');
    for (const place of readdirSync(folder.path, { recursive: true })) chmodSync(folder.join(String(place)), 0o777);
    const settings = { tokens: hasSoftHsm ? [{ name: 'hsm', module: softHsmModule, uri: 'pkcs11:token=hsm' }] : [] };
    await using agent = await startAgent(folder, [], settings, hsm.env);
    const kms = await agent.client();
    await kms.unlock({ passphrase: 'correct horse battery staple' });
    await kms.unlock({ token: 'hsm', pin });
    const helperPid = (await kms.status()).providers?.find(({ name }) => name === 'hsm')?.hsm?.helperPid ?? 0;
    const programOf = (path: string): string[] => [...asUser, process.execPath, join(repository, 'daemon/dist', path)];
    const targets = {
      agent: agent.child.pid ?? 0,
      'token helper': helperPid,
      'keyslot process': start(programOf('vault/keyslots/argon2-process.js')),
      'keychain process': start(programOf('os/keychain-process.js')),
    };
    const isProtected = (pid: number): boolean =>
      statSync(`/proc/${pid}/mem`).uid === 0 && /^Max core file size +0 +0 /m.test(readFileSync(`/proc/${pid}/limits`, 'utf8'));
    await until(() => Object.values(targets).every(isProtected), 'each process protects itself'); // one that changes its user has such a file too, for a moment
    const attacks = attack(...Object.values(targets));
    const everyWay = (came: string): object => ({ ptrace: came, process_vm_readv: came, mem: came, maps: came, environ: came, fd: came });
    expect(attacks['control']).toEqual(everyWay('open')); // that the attacks are good
    const shut = { ...everyWay('EACCES'), ptrace: 'EPERM', process_vm_readv: 'EPERM' };
    expect(Object.entries(targets).map(([name, pid]) => [name, attacks[pid]])).toEqual(Object.keys(targets).map((name) => [name, shut]));
  });

  test.skipIf(process.getuid?.() !== 0 || hasYama).each([
    ['a Node that the user can read', 0o755, false],
    ['a Node that only root can read, as installed', 0o711, true],
  ])('a process that watches the start, %s (needs root, and no Yama): whether it keeps the memory open, and status knows', async (_name, mode, isShut) => {
    using folder = new TempFolder();
    chmodSync(folder.path, 0o777);
    const node = folder.join('node');
    copyFileSync(process.execPath, node);
    chmodSync(node, mode);
    await using watcher = await StartWatcher.start(node);
    await using agent = await TestAgent.start(['dev'], { command: [...asUser, 'env', `TMPDIR=${folder.path}`], node });
    expect((await protectionsOf(agent)).get('shutFromTheStart')?.on).toBe(isShut);
    expect(await watcher.canRead(agent.child.pid ?? 0)).toBe(!isShut);
  });

  test('a limit of locked memory that is too low: status and the log say so, and how to mend it', async () => {
    using folder = new TempFolder();
    await using agent = await startAgent(folder, ['prlimit', '--memlock=65536:65536']);
    expect((await protectionsOf(agent)).get('secureHeapLocked')).toEqual({
      name: 'secureHeapLocked',
      on: false,
      detail: '0 bytes are locked, and the limit is 65536. To mend it: allow 8 MiB of locked memory: LimitMEMLOCK=8M in the unit, or ulimit -l 8192.',
    });
    expect(agent.startLog).toContain('the protection secureHeapLocked is off');
  });
});

test.skipIf(process.getuid?.() !== 0 || !existsSync('/usr/bin/strace'))('a debugger that is attached: status names it (needs root and strace)', async () => {
  await using agent = await TestAgent.dev();
  expect((await protectionsOf(agent)).get('notTraced')).toMatchObject({ on: true });
  const strace = spawn('strace', ['-p', String(agent.child.pid), '-e', 'trace=none', '-o', '/dev/null'], { stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(strace);
  await once(strace.stderr, 'data'); // it says that it is attached
  expect((await protectionsOf(agent)).get('notTraced')).toEqual({
    name: 'notTraced',
    on: false,
    detail: `process ${strace.pid} is attached and reads every key. To mend it: end it and restart the agent.`,
  });
});

test.each(['SIGSEGV', 'SIGABRT', 'SIGQUIT'] as const)('%s: no core is written, although the limit allowed it', async (signal) => {
  using folder = new TempFolder();
  mkdirSync(folder.join('control'));
  const control = await crash(signal, folder.join('control'), [process.execPath, '-e', 'console.log(); setInterval(() => {}, 1000)']);
  expect(control).toEqual({ signal, core: true }); // that a core would have been written
  mkdirSync(folder.join('agent'));
  expect(await crash(signal, folder.join('agent'), [process.execPath, agentProgram, 'dev'])).toEqual({ signal, core: false });
  expect(readdirSync(folder.join('agent'))).toEqual([]);
});

/** Sockets of a process that listen on an address of the network, by /proc/PID/net. */
function listeningSockets(pid: number): string[] {
  const own = new Set(readdirSync(`/proc/${pid}/fd`).map((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(pid, fd))?.[1]));
  const rows = ['tcp', 'tcp6']
    .map((file) => `/proc/${pid}/net/${file}`)
    .filter(existsSync)
    .flatMap((path) => readFileSync(path, 'utf8').trimEnd().split('\n').slice(1));
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode]) => state === '0A' && own.has(inode))
    .map(([, address]) => address ?? '');
}

function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return ''; // closed meanwhile
  }
}

test.skipIf(process.getuid?.() !== 0)('SIGUSR1: opens no debugger, in the agent or a process of its own (needs root to see the sockets)', async () => {
  await using agent = await TestAgent.dev();
  const programs = ['vault/keyslots/argon2-process.js', 'os/keychain-process.js', 'providers/pkcs11/process/main.js'];
  const helpers = programs.map((path) => start([process.execPath, '--disable-sigusr1', join(repository, 'daemon/dist', path), String(process.pid)]));
  const control = start([process.execPath, '--inspect-port=127.0.0.1:0', '-e', 'process.stdin.resume()']);
  const pids = [agent.child.pid ?? 0, ...helpers];
  await until(() => pids.every((pid) => /^Max core file size +0 /m.test(readFileSync(`/proc/${pid}/limits`, 'utf8'))), 'each process protects itself');
  await until(() => [...pids, control].every((pid) => outlives(pid, 10)), 'each waits for SIGUSR1'); // before that it would end by it
  for (const pid of [...pids, control]) process.kill(pid, 'SIGUSR1');
  await until(() => listeningSockets(control).length === 1, "Node's debugger listens"); // that one would have been opened
  expect(pids.flatMap(listeningSockets)).toEqual([]);
  expect(await (await agent.client()).status()).toMatchObject({ state: 'UNLOCKED' });
});

test.each([
  [['--inspect=127.0.0.1:0'], {}, /does not start under --inspect/],
  [[], { NODE_OPTIONS: '--no-warnings' }, /NODE_OPTIONS is set/],
  [[], { OPENSSL_CONF: '/nonexistent' }, /OPENSSL_CONF is set/],
  [[], { LD_PRELOAD: '/nonexistent.so' }, /LD_PRELOAD is set/],
])('the launcher: does not start with %s %s', async (flags, extra, words) => {
  const child = spawn(process.execPath, [...flags, agentProgram, 'dev', '--', 'true'], { stdio: ['ignore', 'ignore', 'pipe'], env: cleanEnv(extra) });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  expect([code, complaint]).toEqual([2, expect.stringMatching(words)]);
});

test.each([
  ['none', {}, ''],
  ['one of its own', { GLIBC_TUNABLES: 'glibc.malloc.arena_max=2' }, 'glibc.malloc.arena_max=2'],
])('the command of dev: has the tunables of who started it, and not the agent’s (%s)', async (_name, extra, expected) => {
  const { stdout } = await run(agentProgram, ['dev', '--', 'sh', '-c', 'printf %s "$GLIBC_TUNABLES"'], { env: cleanEnv(extra) });
  expect(stdout.toString()).toBe(expected);
});
