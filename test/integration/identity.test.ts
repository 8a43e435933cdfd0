import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import type { AgentClient } from '@kms-agent/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseUnit } from '../../daemon/src/caller/unit.ts';
import { livingByStartTime } from '../../daemon/src/os/peer.ts';
import { initVault, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';
import { asRoot, cgroupRoot, TestPeer } from '../kit/peer.ts';

const message = 'aGVsbG8=';

describe('the unit in /proc/PID/cgroup', () => {
  const system = (name: string): object => ({ scope: 'system', name });
  const user = (name: string): object => ({ scope: 'user', name });
  test.each([
    ['/system.slice/nginx.service', system('nginx.service')],
    ['/system.slice/system-app.slice/app@1.service', system('app@1.service')],
    ['/machine.slice/docker-1a2b.scope', system('docker-1a2b.scope')],
    ['/system.slice/docker.service/nginx.service', system('docker.service')],
    ['/system.slice/_cpu.service', system('cpu.service')],
    ['/init.scope', system('init.scope')],
    ['/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service', user('nginx.service')],
    ['/user.slice/user-1000.slice/user@1000.service/init.scope', user('init.scope')],
    ['/user.slice/user-1000.slice/user@1000.service', undefined],
    ['/user.slice/user-1000.slice/session-2.scope', undefined],
    ['/user.slice/nginx.service', undefined],
    ['/user.slice/user-1000.slice/session-2.scope/nginx.service', undefined],
    ['/', undefined],
    ['/../nginx.service', undefined],
    ['/system.slice', undefined],
    ['/kubepods/nginx.service', undefined],
    ['/system.slice/nginx.service (deleted)', undefined],
    ['/system.slice/ngi nx.service', undefined],
  ])('%s', (path, unit) => {
    expect(parseUnit(`12:cpu:/other.service\n1:name=systemd:/evil.service\n0::${path}\n`)).toEqual(unit);
  });

  test('without a hierarchy of version 2 there is no unit', () => {
    expect(parseUnit('1:name=systemd:/system.slice/nginx.service\n')).toBeUndefined();
  });
});

test('a kernel without pidfds of peers: a process that started after the connection is another one', () => {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  const startedSeconds = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]) / 100;
  expect(livingByStartTime(process.pid, startedSeconds).whileAlive((pid) => pid)).toBe(process.pid);
  for (let tick = 1; tick <= 20; tick += 1)
    expect(Number(livingByStartTime(process.pid, startedSeconds + tick / 100).whileAlive((pid) => pid))).toBe(process.pid);
  expect(livingByStartTime(process.pid, startedSeconds - 0.02).whileAlive((pid) => pid)).toBe('unknown');
  expect(livingByStartTime(2 ** 22 + 1, startedSeconds).whileAlive((pid) => pid)).toBe('unknown');
});

describe.skipIf(!asRoot)('attacks on the identity of a caller (needs root, to be other users)', () => {
  const folder = new TempFolder();
  let agent: TestAgent;
  let kms: AgentClient;

  beforeAll(async () => {
    chmodSync(folder.path, 0o755);
    writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666 }));
    await initVault(folder);
    agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
    kms = await agent.client();
    await kms.unlock({ passphrase });
  });
  afterAll(async () => {
    await agent.end();
    folder[Symbol.dispose]();
  });

  async function keyFor(...principals: string[]): Promise<{ keyId: string; plaintext: string }> {
    const policy = { statements: [{ effect: 'Allow' as const, principals, actions: ['use'] }] };
    return { keyId: (await kms.createKey({ policy })).keyId, plaintext: message };
  }

  test('connect, then exec another program on the same descriptor: another caller', async () => {
    const request = await keyFor('exe:/usr/bin/perl');
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4820 });
    expect(await peer.outcome('encrypt', request)).toBe('ok');
    peer.say('exec');
    expect(await peer.outcome('encrypt', request)).toBe('ERR_ACCESS_DENIED');
  });

  test('the process that connected exits and its child keeps the socket: nobody that a rule can name', async () => {
    const byProgram = await keyFor('exe:/usr/bin/perl');
    const byUser = await keyFor('uid:4820');
    const stay = ['sh', '-c', '"$@"; sleep 5', 'sh']; // its input stays open when the process that connected is gone
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4820, before: stay });
    expect(await peer.outcome('encrypt', byProgram)).toBe('ok');
    peer.say('orphan');
    const orphan = Number((await peer.line()).split(' ')[1]);
    expect(await peer.outcome('encrypt', byProgram)).toBe('ERR_ACCESS_DENIED');
    expect(await peer.outcome('encrypt', byUser)).toBe('ok');
    expect(await peer.outcome('advanceEncrypt', { plaintext: message })).toBe('ERR_ACCESS_DENIED'); // no default key of anybody's
    const denied = await kms.createKey({
      policy: {
        statements: [
          { effect: 'Allow', principals: ['uid:4820'], actions: ['use'] },
          { effect: 'Deny', principals: ['exe:/bin/false'], actions: ['use'] },
        ],
      },
    });
    expect(await peer.outcome('encrypt', { keyId: denied.keyId, plaintext: message })).toBe('ERR_ACCESS_DENIED'); // it might be the one that Deny means
    expect(orphan).toBeGreaterThan(1);
    process.kill(orphan, 'SIGKILL');
  });

  test('a symbolic link names the program that it leads to', async () => {
    symlinkSync('/usr/bin/perl', folder.join('link'));
    const request = await keyFor(`exe:${folder.join('link')}`);
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4820 });
    expect(await peer.outcome('encrypt', request)).toBe('ok');
  });

  test('a program that is replaced on disk while it runs is not the one at the path any more; what runs from the new file is', async () => {
    const program = folder.join('program');
    copyFileSync('/usr/bin/perl', program);
    const request = await keyFor(`exe:${program}`);
    await using old = await TestPeer.start(agent.socketPath, { uid: 4820, perl: program });
    expect(await old.outcome('encrypt', request)).toBe('ok');
    copyFileSync('/usr/bin/perl', folder.join('program.new'));
    renameSync(folder.join('program.new'), program);
    expect(await old.outcome('encrypt', request)).toBe('ERR_ACCESS_DENIED');
    await using fresh = await TestPeer.start(agent.socketPath, { uid: 4820, perl: program });
    expect(await fresh.outcome('encrypt', request)).toBe('ok');
  });

  test('a bind mount in a namespace of the attacker forges the path, and opens nothing', async () => {
    const allowed = folder.join('allowed');
    const evil = folder.join('evil');
    for (const path of [allowed, evil]) copyFileSync('/usr/bin/perl', path);
    const request = await keyFor(`exe:${allowed}`);
    await using honest = await TestPeer.start(agent.socketPath, { uid: 4820, perl: allowed });
    await using forger = await TestPeer.start(agent.socketPath, {
      before: ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', `mount --bind ${evil} ${allowed} && exec "$@"`, 'sh'],
      perl: allowed,
    });
    expect((await forger.ask('whoAmI')).result).toMatchObject({ exe: allowed });
    expect(await honest.outcome('encrypt', request)).toBe('ok');
    await kms.setKeyPolicy({
      keyId: request.keyId,
      policy: {
        statements: [
          { effect: 'Allow', principals: [`exe:${allowed}`], actions: ['encrypt'] },
          { effect: 'Deny', principals: [`exe:${evil}`], actions: ['encrypt'] },
        ],
      },
    });
    expect(await honest.outcome('encrypt', request)).toBe('ok');
    expect(await forger.outcome('encrypt', request)).toBe('ERR_ACCESS_DENIED');
  });

  test.skipIf(cgroupRoot === undefined)(
    "a unit of a user's own that is named like one of the system is not that one (needs cgroups of version 2)",
    async () => {
      const system = await keyFor('unit:kms-web.service');
      const own = await keyFor('user-unit:kms-web.service');
      await using real = await TestPeer.start(agent.socketPath, { uid: 4820, cgroup: 'system.slice/kms-web.service' });
      await using forged = await TestPeer.start(agent.socketPath, {
        uid: 4821,
        cgroup: 'user.slice/user-4821.slice/user@4821.service/app.slice/kms-web.service',
      });
      const outcomes = async (peer: TestPeer): Promise<string[]> => [await peer.outcome('encrypt', system), await peer.outcome('encrypt', own)];
      expect(await outcomes(real)).toEqual(['ok', 'ERR_ACCESS_DENIED']);
      expect(await outcomes(forged)).toEqual(['ERR_ACCESS_DENIED', 'ok']);
      expect((await forged.ask('whoAmI')).result).toMatchObject({ unit: 'user-unit:kms-web.service', defaultKey: 'alias/default' });
    },
  );

  test.skipIf(cgroupRoot === undefined)('a process that moves to another unit is of that unit from its next request on', async () => {
    const request = await keyFor('unit:kms-a.service');
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4820, cgroup: 'system.slice/kms-a.service' });
    expect(await peer.outcome('encrypt', request)).toBe('ok');
    const other = `${cgroupRoot}/system.slice/kms-b.service`;
    mkdirSync(other, { recursive: true });
    writeFileSync(`${other}/cgroup.procs`, String(peer.pid));
    expect(await peer.outcome('encrypt', request)).toBe('ERR_ACCESS_DENIED');
    writeFileSync(`${cgroupRoot}/system.slice/kms-a.service/cgroup.procs`, String(peer.pid));
    execFileSync('rmdir', [other]);
  });
});

test.skipIf(!asRoot)('a pid that is given to another process: the connection is not its (needs root, for a namespace of few pids)', async () => {
  using folder = new TempFolder();
  const inside = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', 'echo 400 > /proc/sys/kernel/pid_max && exec "$@"', 'sh'];
  const agent = await TestAgent.start(['dev', '--socket', folder.join('s', 'agent.sock')], { command: inside });
  await using _end = { [Symbol.asyncDispose]: async () => void (await agent.end('SIGKILL')) }; // unshare does not mind SIGTERM; with it goes all that is inside
  const kms = await agent.client();
  copyFileSync('/usr/bin/perl', folder.join('victim'));
  const policy = { statements: [{ effect: 'Allow' as const, principals: [`exe:${folder.join('victim')}`], actions: ['use'] }] };
  const { keyId } = await kms.createKey({ policy });
  const script = `
use Socket; use IO::Handle; use POSIX; $^F = 255; STDOUT->autoflush(1);
socket(my $s, PF_UNIX, SOCK_STREAM, 0); my $old = 0;
pipe(my $r, my $w);
for (1 .. 320) { my $pid = fork(); if (!$pid) { POSIX::_exit(0); } waitpid($pid, 0); } # numbers below 300 are not given out twice
my $connector = fork();
if (!$connector) { connect($s, pack_sockaddr_un($ARGV[0])) or die; print $w "x"; close $w; POSIX::_exit(0); }
waitpid($connector, 0);
for (1 .. 5000) { my $pid = fork(); if (!$pid) { if ($$ == $connector) { exec($ARGV[1], '-e', 'sleep 30'); } POSIX::_exit(0); } if ($pid == $connector) { $old = $pid; last; } waitpid($pid, 0); }
select(undef, undef, undef, 0.2);
print "connected $old\\n"; $s->autoflush(1);
while (my $line = <STDIN>) { print $s $line; my $answer = <$s>; print $answer; }
kill 9, $old if $old > 0;
`;
  const namespaceOf =
    execFileSync('sh', ['-c', `cat /proc/${agent.child.pid}/task/*/children`])
      .toString()
      .trim()
      .split(' ')[0] ?? '';
  await using peer = await TestPeer.start(agent.socketPath, {
    before: ['nsenter', '--target', namespaceOf, '--pid', '--mount'],
    script,
    args: [folder.join('victim')],
  });
  expect(peer.pid).toBeGreaterThan(0); // the very pid that connected runs the allowed program now
  const { result } = await peer.ask('whoAmI');
  expect(result).toMatchObject({ pid: peer.pid });
  expect(result?.['exe']).toBeUndefined();
  const asked = (await peer.ask('explain', { method: 'encrypt', keyId })).result;
  expect(asked).toMatchObject({ rule: 'administrator' }); // root is let in as such; not by the statement about the program
});

test.skipIf(!asRoot)('where no rule asks for a unit or a program, nothing under /proc is opened for a caller (needs root, for strace)', async () => {
  using folder = new TempFolder();
  await using agent = await TestAgent.dev();
  const kms = await agent.client();
  const { keyId } = await kms.createKey();
  const args = ['-f', '-e', 'trace=openat,readlink,stat,statx', '-o', folder.join('trace'), '-p', String(agent.child.pid)];
  const strace = spawn('strace', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  await once(strace.stderr, 'data'); // it says that it is attached
  for (let index = 0; index < 20; index += 1) await kms.encrypt({ keyId, plaintext: new Uint8Array(1) });
  await kms.describeKey({ keyId });
  await kms.whoAmI();
  strace.kill('SIGINT');
  await once(strace, 'exit');
  const opened = readFileSync(folder.join('trace'), 'utf8')
    .split('\n')
    .filter((line) => line.includes(`/proc/${process.pid}/`));
  expect(opened.filter((line) => line.includes('/cgroup'))).toHaveLength(1); // whoAmI alone
  expect(opened.filter((line) => line.includes('/exe'))).toHaveLength(1);
});
