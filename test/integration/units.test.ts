import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { installCommand } from '../../daemon/src/cli/install/host.ts';
import { dateAnew, isOutdated } from '../../daemon/src/cli/install/outdated.ts';
import { compareVersion, quoteWord, readProgram, systemManager, unitSteps, userManager } from '../../daemon/src/cli/install/units.ts';
import { agentProgram, cleanEnv, repository, run, TempFolder } from '../kit/agent.ts';

const units = join(repository, 'daemon', 'systemd'); // the folder itself: systemd/ at the top is a link to it
const hasAnalyze = existsSync('/usr/bin/systemd-analyze');

/** The units in a folder of their own, with a program that exists on this machine, and one thing changed. */
function copyUnits(folder: TempFolder, change: (text: string) => string = (text) => text): string {
  const copy = folder.join('units');
  cpSync(units, copy, { recursive: true });
  for (const name of ['kms-agent.service', 'user/kms-agent.service']) {
    const text = readFileSync(join(copy, name), 'utf8').replace(/^ExecStart=.*$/m, 'ExecStart=/bin/true');
    writeFileSync(join(copy, name), change(text));
  }
  return copy;
}

function analyze(cwd: string, ...args: string[]): { status: number | null; said: string } {
  const runtime = join(cwd, 'runtime');
  mkdirSync(runtime, { recursive: true });
  chmodSync(runtime, 0o700);
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, { cwd, encoding: 'utf8', env: cleanEnv({ XDG_RUNTIME_DIR: runtime }) });
  return { status, said: stdout + stderr };
}

const verify = (cwd: string, unit: string, ...flags: string[]): { status: number | null; said: string } =>
  analyze(cwd, ...flags, 'verify', '--man=no', '--recursive-errors=no', `./${unit}`);

describe.skipIf(!hasAnalyze)('the units (need systemd-analyze)', () => {
  test.each([
    ['kms-agent.service', []],
    ['kms-agent.socket', []],
    ['user/kms-agent.service', ['--user']],
    ['user/kms-agent.socket', ['--user']],
    ['figures/kms-agent-figures.service', []],
    ['figures/kms-agent-figures.timer', []],
  ])('%s: systemd-analyze verify has nothing to say', (unit, flags) => {
    using folder = new TempFolder();
    const copy = copyUnits(folder);
    expect(verify(copy, unit, ...flags)).toEqual({ status: 0, said: '' });
  });

  test('verify: finds what is wrong', () => {
    using folder = new TempFolder();
    const copy = copyUnits(folder, (text) => text.replace('NoNewPrivileges', 'NoNewPrivilege'));
    expect(verify(copy, 'kms-agent.service')).toMatchObject({ status: 1, said: expect.stringContaining('NoNewPrivilege') as string });
  });

  test('the exposure of the service is at most 1.5, as systemd-analyze security counts it', () => {
    using folder = new TempFolder();
    const copy = copyUnits(folder);
    const { status, said } = analyze(copy, 'security', '--offline=true', '--no-pager', '--threshold=15', './kms-agent.service');
    const line = said.split('\n').find((text) => text.includes('Overall exposure level'));
    console.log(line?.trim());
    expect([status, line]).toEqual([0, expect.stringContaining('kms-agent.service')]);
  });

  test('the exposure without its sandbox is above, so that the check can fail', () => {
    using folder = new TempFolder();
    const copy = copyUnits(folder, (text) => text.replace(/^(CapabilityBoundingSet|SystemCallFilter|ProtectSystem|PrivateNetwork).*\n/gm, ''));
    expect(analyze(copy, 'security', '--offline=true', '--no-pager', '--threshold=15', './kms-agent.service').status).toBe(1);
  });

  test.each(readdirSync(join(units, 'drop-ins')))('drop-in %s: goes with the service', (name) => {
    using folder = new TempFolder();
    const copy = copyUnits(folder);
    mkdirSync(join(copy, 'kms-agent.service.d'));
    const text = readFileSync(join(copy, 'drop-ins', name), 'utf8').replace(/^ExecStart=.+$/m, 'ExecStart=/bin/true');
    writeFileSync(join(copy, 'kms-agent.service.d', name), text);
    const path = `SYSTEMD_UNIT_PATH=${copy}:`;
    const { status, stderr } = spawnSync('env', [path, 'systemd-analyze', 'verify', '--man=no', '--recursive-errors=no', 'kms-agent.service'], {
      cwd: copy,
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([0, '']);
    writeFileSync(join(copy, 'kms-agent.service.d', name), '[Service]\nNothing=1\n');
    expect(spawnSync('env', [path, 'systemd-analyze', 'verify', '--man=no', '--recursive-errors=no', 'kms-agent.service'], { cwd: copy }).status).toBe(1);
  });
});

describe('what the units must and must not say', () => {
  const service = readFileSync(join(units, 'kms-agent.service'), 'utf8');
  const lines = service.split('\n');

  test.each([
    'NotifyAccess=main',
    'LoadCredentialEncrypted=kms-agent-root',
    'RestartPreventExitStatus=2 243',
    'WatchdogSignal=SIGKILL',
    'LimitCORE=1',
    'MemorySwapMax=0',
    'KeyringMode=private',
    'UMask=0077',
    'CapabilityBoundingSet=',
    'RestrictAddressFamilies=AF_UNIX',
    'IPAddressDeny=any',
    'SystemCallFilter=@system-service @pkey',
    'SystemCallFilter=~@privileged @resources',
    'UnsetEnvironment=NODE_OPTIONS NODE_EXTRA_CA_CERTS OPENSSL_CONF LD_PRELOAD',
  ])('%s', (line) => {
    expect(lines).toContain(line);
  });

  test.each(['NotifyAccess=main', 'RestartPreventExitStatus=2 243', 'WatchdogSignal=SIGKILL', 'LimitCORE=1', 'CoredumpFilter=0x0', 'MemorySwapMax=0'])(
    "%s, in a user's unit too",
    (line) => {
      expect(readFileSync(join(units, 'user/kms-agent.service'), 'utf8').split('\n')).toContain(line);
    },
  );

  test.each(['PrivateUsers', 'ProtectProc', 'ProcSubset', 'MemoryDenyWriteExecute'])('no %s', (name) => {
    for (const file of ['kms-agent.service', 'user/kms-agent.service'])
      expect(readFileSync(join(units, file), 'utf8')).not.toMatch(new RegExp(`^${name}=`, 'm'));
  });
});

test.each(['kms-agent.service', 'user/kms-agent.service'])(
  '%s: a start that crashes after five seconds is a loop; thirty restarts by hand are none',
  (name) => {
    const text = readFileSync(join(units, name), 'utf8');
    const [, length, unit, burst, pauseMs] = /^StartLimitIntervalSec=(\d+)(min|s)\nStartLimitBurst=(\d+)$[\s\S]*^RestartSec=(\d+)ms$/m.exec(text) ?? [];
    expect(Number(burst) * (5000 + Number(pauseMs))).toBeLessThan(Number(length) * (unit === 'min' ? 60_000 : 1000));
    expect(Number(burst)).toBeGreaterThan(30);
  },
);

test('what installs a host is said in one place of the sources, as the guide has it', () => {
  const guide = readFileSync(join(repository, 'daemon', 'README.md'), 'utf8');
  expect(guide).toMatch(new RegExp(`^${installCommand}\\b`, 'm'));
  expect(guide).toContain(`--prefix ${installCommand.replace(/\/bin\/.*/, '')} `);
  const sources = readdirSync(join(repository, 'daemon', 'src'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const saying = sources.filter((name) => readFileSync(join(repository, 'daemon', 'src', name), 'utf8').includes('/opt/kms-agent'));
  expect(saying).toEqual(['cli/install/host.ts']);
});

/** The systemd whose NEWS tells of a directive, for what is younger than 240. */
const news: Readonly<Record<string, number>> = {
  RestrictSUIDSGID: 242,
  ProtectHostname: 242,
  ProtectKernelLogs: 244,
  ProtectClock: 245,
  CoredumpFilter: 246,
  PrivateIPC: 248,
  LoadCredentialEncrypted: 251,
};
/** What 240 knows. */
const old =
  'Description Requires After StartLimitIntervalSec StartLimitBurst Type NotifyAccess ExecStart ExecReload User Group StateDirectory StateDirectoryMode LogsDirectory LogsDirectoryMode Environment UnsetEnvironment Restart RestartSec RestartPreventExitStatus WatchdogSec WatchdogSignal TimeoutStartSec TimeoutStopSec KillMode LimitCORE MemorySwapMax KeyringMode UMask NoNewPrivileges CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp PrivateDevices DevicePolicy PrivateNetwork ProtectKernelTunables ProtectKernelModules ProtectControlGroups RestrictAddressFamilies IPAddressDeny RestrictNamespaces RestrictRealtime RemoveIPC LockPersonality SystemCallArchitectures SystemCallErrorNumber SystemCallFilter WantedBy ListenStream FileDescriptorName SocketUser SocketGroup SocketMode DirectoryMode Backlog'.split(
    ' ',
  );

describe('the systemd that the units need', () => {
  const managers = { system: systemManager(), user: userManager('/nowhere', ['/bin/node', '/bin/program']) };

  test.each(['system', 'user'] as const)('%s: is the oldest that knows each directive', (name) => {
    const text = managers[name].units.map(([, unit]) => unit).join('\n');
    const used = [...text.matchAll(/^(\w+)=/gm)].map(([, directive = '']) => directive);
    expect(used.filter((directive) => !old.includes(directive) && !Object.hasOwn(news, directive))).toEqual([]);
    const needed = Math.max(...used.map((directive) => news[directive] ?? 240));
    expect(managers[name].leastVersion).toBe(Math.max(needed, 247)); // install itself needs 247
    expect(readFileSync(join(repository, 'daemon', 'README.md'), 'utf8')).toContain(`${managers[name].leastVersion}${name === 'user' ? '' : ' or newer'} on a`);
  });

  test.each([
    ['249.11-0ubuntu3.12', true],
    ['250', true],
    ['v251-rc1-3-gabcdef', false],
    ['252.39-1~deb12u2', false],
    ['something else', false],
  ])('%s of a host: too old? %j', (version, isOld) => {
    expect(compareVersion({ leastVersion: 251, systemctl: () => version })).toEqual({ said: `${version}; the units need 251 or newer`, isOld });
  });

  test.each([
    [['install', '--user', '--dry-run'], 'ERR_UNSUPPORTED_OPERATION: systemd here is 246.6-1; the units need 247 or newer. Nothing was changed.'],
    [
      ['install', '--system', '--dry-run'],
      process.getuid?.() === 0 ? 'systemd here is 246.6-1; the units need 251 or newer. Nothing was changed.' : 'run it as root',
    ],
    [
      ['doctor', '--system'],
      'WRONG  systemd: 246.6-1; the units need 251 or newer: what it does not know of them it ignores. To mend it: a newer release of the system.',
    ],
  ])('%j under an older one: says so, first of all', async (args, words) => {
    using folder = new TempFolder();
    writeFileSync(folder.join('systemctl'), '#!/bin/sh\ncase "$*" in *Version*) echo 246.6-1;; *) exit 1;; esac\n', { mode: 0o755 });
    const { code, stdout, stderr } = await run(agentProgram, args, { env: cleanEnv({ PATH: `${folder.path}:${process.env['PATH']}`, HOME: folder.path }) });
    expect([code, stdout.toString() + stderr]).toEqual([1, expect.stringContaining(words)]);
  });
});

test('a systemctl that shows nothing and ends with 0, as in a chroot, is no systemd that answers', async () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('systemctl'), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  const env = cleanEnv({ PATH: `${folder.path}:${process.env['PATH']}`, HOME: folder.path });
  const installed = await run(agentProgram, ['install', '--user', '--dry-run'], { env });
  expect([installed.code, installed.stderr]).toEqual([1, expect.stringMatching(/No systemd answers: systemctl shows no version.*Nothing was changed\.\n$/)]);
  const { stdout } = await run(agentProgram, ['doctor', '--system'], { env });
  expect(stdout.toString()).toMatch(/^WRONG {2}systemd: none answers: systemctl shows no version/m);
});

test('doctor --system where no systemd answers: says so once, on one line, and how to mend it', async () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('systemctl'), '#!/bin/sh\necho "System has not been booted with systemd.\nFailed to connect to bus" >&2; exit 1\n', {
    mode: 0o755,
  });
  const env = cleanEnv({ PATH: `${folder.path}:${process.env['PATH']}`, HOME: folder.path });
  const { stdout } = await run(agentProgram, ['doctor', '--system'], { env });
  expect(stdout.toString()).toMatch(/^WRONG {2}systemd: none answers: .* not been booted with systemd\. Failed to connect to bus\. To mend it: boot the host/m);
  expect(stdout.toString()).not.toMatch(/^\w+ +(unit|state of) /m);
});

describe('the figures, in a folder that belongs to another user', () => {
  const service = readFileSync(join(units, 'figures', 'kms-agent-figures.service'), 'utf8');
  const [, flags = '', script = ''] = /^ExecStart=\/bin\/sh (-\w+) '(.*)'$/m.exec(service) ?? [];
  /** Runs what the service runs, where an agent answers. @param change - what somebody else makes of it. */
  const write = (folder: TempFolder, change: (text: string) => string = (text) => text): number | null =>
    spawnSync('sh', [flags, change(script.replace(/(\/usr\/bin\/)?kms metrics/, 'echo figures'))], { cwd: folder.path, env: cleanEnv() }).status;
  const read = (folder: TempFolder, name: string): string => readFileSync(folder.join(name), 'utf8');

  test('links that were put there are not followed, also where one comes just before the file is opened', () => {
    using folder = new TempFolder();
    writeFileSync(folder.join('victim'), 'whole');
    for (const name of ['kms-agent.prom.new', 'kms-agent.prom']) symlinkSync('victim', folder.join(name));
    expect(write(folder)).toBe(0);
    expect([read(folder, 'victim'), read(folder, 'kms-agent.prom')]).toEqual(['whole', 'figures\n']);
    for (const target of ['victim', 'not there']) {
      expect(write(folder, (text) => text.replace(' && ', ` && ln -s '${target}' kms-agent.prom.new && `))).not.toBe(0);
      expect([read(folder, 'victim'), existsSync(folder.join('not there'))]).toEqual(['whole', false]);
    }
  });

  test('without an agent the old figures stay', () => {
    using folder = new TempFolder();
    expect(write(folder)).toBe(0);
    expect(write(folder, (text) => text.replace('echo figures', 'false'))).not.toBe(0);
    expect(read(folder, 'kms-agent.prom')).toBe('figures\n');
  });

  test('the service can write nowhere else, and has no right of root but to write there', () => {
    for (const line of ['ProtectSystem=strict', 'ReadWritePaths=-/var/lib/node_exporter', 'CapabilityBoundingSet=CAP_DAC_OVERRIDE', 'NoNewPrivileges=yes'])
      expect(service.split('\n')).toContain(line);
  });
});

test('the package ships every file of systemd/, and the programs with the licences of what is in them', () => {
  const packed = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', join(repository, 'daemon')], { encoding: 'utf8', env: cleanEnv() })) as
    | { files: { path: string }[] }[]
    | Record<string, { files: { path: string }[] }>;
  const [first] = Array.isArray(packed) ? packed : Object.values(packed);
  const all = first?.files.map(({ path }) => path) ?? [];
  for (const path of ['main.js', 'early-signals.js', 'THIRD-PARTY-NOTICES.txt']) expect(all).toContain(`dist/bundle/${path}`);
  const shipped = all.filter((path) => path.startsWith('systemd/'));
  const there = readdirSync(units, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  expect(shipped.length).toBe(there.length);
  expect(there.length).toBeGreaterThan(8);
});

test.each([
  ['active', true],
  ['activating', true],
  ['deactivating', true],
  ['reloading', true],
  ['inactive', false],
  ['failed', false],
])('a service that is %s when its program changes: restarted %s', (state, restarted) => {
  const manager = { ...userManager('/nowhere', ['/node', '/kms-agent.js']), units: [], systemctl: () => state };
  const restart = unitSteps(manager, () => true).find(({ name }) => name === 'restart');
  expect(restart?.isDone()).toBe(!restarted);
});

describe('whether a service is older than its program, when the clock was set', () => {
  const hourMs = 3_600_000;
  /** A service that began so long ago, by each clock, and a program that was changed now. */
  const service = (path: string, { wallMs, monotonicMs }: { wallMs: number; monotonicMs: number }): Parameters<typeof isOutdated>[0] => {
    const iso = new Date(wallMs).toISOString();
    const shown: Record<string, string> = {
      ExecMainStartTimestamp: `Mon ${iso.slice(0, 10)} ${iso.slice(11, -1)} UTC`,
      ExecMainStartTimestampMonotonic: String(monotonicMs * 1000),
    };
    return { units: [], program: [path], systemctl: (...args) => shown[args.find((arg) => arg.startsWith('--property='))?.slice(11) ?? ''] ?? '' };
  };

  test.each([
    ['a start after the change, by both clocks', 1000, 1000, false],
    ['a start before it', -1000, -1000, true],
    ['a start before it, under a clock that was ahead', hourMs, -1000, true],
    ['a start before it, under a clock that was behind', -hourMs, 1000, true],
  ])('%s', (_name, byWall, byMonotonic, isOld) => {
    using folder = new TempFolder();
    writeFileSync(folder.join('program'), '');
    const changedMs = statSync(folder.join('program')).ctimeMs;
    const clocks = { wallMs: changedMs + 10_000, monotonicMs: 5 * hourMs };
    const began = { wallMs: changedMs + byWall, monotonicMs: clocks.monotonicMs - 10_000 + byMonotonic };
    expect(isOutdated(service(folder.join('program'), began), clocks)).toBe(isOld);
  });

  test('a program that was changed under a clock that was ahead is dated anew, so that the restart is the last', () => {
    using folder = new TempFolder();
    const program = folder.join('program');
    writeFileSync(program, '', { mode: 0o751 });
    chmodSync(program, 0o751);
    const before = statSync(program);
    const behind = before.ctimeMs - hourMs;
    while (Date.now() <= before.ctimeMs + 50); // until a new time is another
    const used = service(program, { wallMs: behind, monotonicMs: 0 });
    expect(isOutdated(used, { wallMs: behind, monotonicMs: 0 })).toBe(true);
    dateAnew(used, { wallMs: before.ctimeMs + 1 });
    expect(statSync(program).ctimeMs).toBe(before.ctimeMs); // not ahead
    dateAnew(used, { wallMs: behind });
    expect(statSync(program).ctimeMs).toBeGreaterThan(before.ctimeMs);
    expect(statSync(program).mode).toBe(before.mode);
  });
});

test.skipIf(process.getuid?.() !== 0)('a program that lies where nobody can write now is not dated, and stops no installation (needs root)', () => {
  using folder = new TempFolder();
  const outdated = join(repository, 'daemon/dist/cli/install/outdated.js');
  const date = `const { dateAnew } = await import(${JSON.stringify(outdated)}); dateAnew({ units: [], program: [process.argv[1]] }, { wallMs: 0 });`;
  const script = 'mount -t tmpfs none "$1" && touch "$1/program" && mount -o remount,ro "$1" && exec "$2" --input-type=module -e "$3" "$1/program"';
  const args = ['--mount', '--propagation=private', 'sh', '-c', script, 'sh', folder.path, process.execPath, date];
  const { status, stderr } = spawnSync('unshare', args, { encoding: 'utf8', env: cleanEnv() });
  expect([status, stderr]).toEqual([0, '']);
});

describe('install --user', () => {
  test.each([
    ['/usr/bin/node', '"/usr/bin/node"'],
    ['/home/me/my node', '"/home/me/my node"'],
    ['/a%b$c"d\\e', '"/a%%b$$c\\"d\\\\e"'],
  ])('a path %s in a unit', (path, quoted) => {
    expect(quoteWord(path)).toBe(quoted);
    expect(readProgram(`ExecStart=${quoted} "/program" serve\n`)).toEqual([path, '/program']);
  });

  test.skipIf(!hasAnalyze)('the service runs this Node and program, wherever they are', () => {
    using folder = new TempFolder();
    const node = folder.join('my node');
    writeFileSync(node, '#!/bin/sh\n', { mode: 0o755 });
    const { units: files } = userManager(folder.join('config'), [node, folder.join('kms $agent%.js')]);
    for (const [path, text] of files) {
      mkdirSync(join(path, '..'), { recursive: true });
      writeFileSync(path, text);
    }
    const service = files.find(([path]) => path.endsWith('.service'))?.[1];
    expect(service).toContain(`ExecStart="${node}" "${folder.join('kms $$agent%%.js')}" serve\n`);
    expect(verify(folder.join('config', 'systemd', 'user'), 'kms-agent.service', '--user')).toEqual({ status: 0, said: '' });
  });
});
