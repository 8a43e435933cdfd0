import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { lookAtSystemClock } from '../../daemon/src/cli/doctor/clock.ts';
import { look } from '../../daemon/src/cli/doctor/finding.ts';
import { agentProgram, initVault, passphrase, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { asUser, canRunAsUser, otherUid } from '../kit/attacker.ts';
import { ClockedAgent, dayMs, makeVault } from '../kit/clocked.ts';
import { protectionsOfTheMachine } from '../kit/outcome.ts';

interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

const isRoot = process.getuid?.() === 0;
/** Whether it is so is the machine's affair. */
const ofTheMachine = [...protectionsOfTheMachine.map((name) => `protection ${name}`), 'system clock'];

/** A vault, and the record of an agent that has ended. Each test has a copy. */
let pattern: TempFolder;
let folder: TempFolder;
beforeAll(async () => {
  pattern = new TempFolder();
  writeFileSync(pattern.join('config.json'), '{}', { mode: 0o600 });
  await initVault(pattern);
  await using agent = await TestAgent.serve(pattern);
  await (await agent.client()).unlock({ passphrase });
});
afterAll(() => pattern[Symbol.dispose]());
beforeEach(() => {
  folder = new TempFolder();
  execFileSync('cp', ['-a', `${pattern.path}/.`, folder.path]);
});
afterEach(() => folder[Symbol.dispose]());

const places = (): string[] => ['--config', folder.join('config.json'), '--data-dir', folder.join('vault'), '--socket', folder.join('agent.sock')];

/** What doctor finds wrong, and its exit status. */
async function examine(): Promise<{ code: number | null; findings: Finding[]; wrong: Finding[] }> {
  const { code, stdout, stderr } = await run(agentProgram, ['doctor', ...places(), '--json']);
  expect(stderr).toBe('');
  const { ok, findings } = JSON.parse(stdout.toString()) as { ok: boolean; findings: Finding[] };
  expect([code, ok]).toEqual(findings.every((finding) => finding.ok) ? [0, true] : [1, false]);
  return { code, findings, wrong: findings.filter((finding) => !finding.ok && !ofTheMachine.includes(finding.name)) };
}

async function startAgent(): Promise<TestAgent> {
  return await TestAgent.serve(folder, '--config', folder.join('config.json'));
}

const audit = (name: string): string => folder.join('vault', 'audit', name);

describe('well', () => {
  test('before there is anything: nothing is wrong, and it says what is not there yet', async () => {
    rmSync(folder.join('vault'), { recursive: true });
    const { findings, wrong } = await examine();
    expect(wrong).toEqual([]);
    const details = findings.map(({ name, detail }) => `${name}: ${detail}`).join('\n');
    expect(details).toMatch(/^vault: there is none in .* yet; kms-agent init makes one$/m);
    expect(details).toMatch(/^agent: none runs on .*what follows is what one that is started now would have$/m);
    expect(details).toMatch(/^protection notInspectable: PR_SET_DUMPABLE 0/m);
  });

  test('a running agent: its own protections and record, and all of it for a person too', async () => {
    await using agent = await startAgent();
    const { findings, wrong } = await examine();
    expect(wrong).toEqual([]);
    const { protections = [] } = await (await agent.client()).status();
    const names = protections.map(({ name }) => `protection ${name}`);
    const looked = ['settings', 'vault', 'audit folder', 'keychain', 'socket', 'system clock', 'agent', 'audit record', 'clock'];
    expect(findings.map(({ name }) => name)).toEqual([...looked, ...names]);
    const { stdout } = await run(agentProgram, ['doctor', ...places()]);
    expect(stdout.toString()).toMatch(/^ok {5}agent: version .* answers on .*agent\.sock, LOCKED$/m);
    expect(stdout.toString()).toMatch(/^ok {5}audit record: is written; record \d+ is the last$/m);
    expect(stdout.toString()).toMatch(/^ok {5}protection secureHeap: .* of 4194304 bytes in use$/m);
    await agent.end();
    const after = await examine();
    expect(after.wrong).toEqual([]);
    expect(after.findings.find(({ name }) => name === 'audit record')?.detail).toMatch(/^can be written; record \d+ of 20.*Z is the last$/);
  });
});

test('--system: looks at the places of the system’s agent, whatever is there', async () => {
  const { stdout } = await run(agentProgram, ['doctor', '--system']);
  for (const place of ['/etc/kms-agent/config.json', '/var/lib/kms-agent', '/var/log/kms-agent', '/run/kms-agent/agent.sock'])
    expect(stdout.toString()).toContain(place);
});

describe('the clock', () => {
  test('one that jumped under a running agent: is named with what waits for it, until it is confirmed', async () => {
    using clocked = new TempFolder();
    await makeVault(clocked);
    await using agent = await ClockedAgent.start(clocked);
    const find = async (): Promise<Finding | undefined> => {
      const args = ['doctor', '--config', folder.join('config.json'), '--data-dir', clocked.join('vault'), '--socket', agent.socketPath, '--json'];
      const { findings } = JSON.parse((await run(agentProgram, args)).stdout.toString()) as { findings: Finding[] };
      return findings.find(({ name }) => name === 'clock');
    };
    expect(await find()).toEqual({ name: 'clock', ok: true, detail: 'the agent believes it' });
    await agent.set({ wallMs: agent.now.wallMs + 2 * dayMs });
    expect(await find()).toMatchObject({
      ok: false,
      detail: expect.stringMatching(/^The wall clock jumped by 2880 minutes; .*To mend it: .*kms confirm-clock\.$/),
    });
    await agent.kms.confirmClock();
    expect((await find())?.ok).toBe(true);
  });

  test.each([
    ['NTP=yes\nNTPSynchronized=yes', /^is synchronised/],
    ['CanNTP=yes\nNTP=no\nNTPSynchronized=no', /not synchronised.*To mend it: timedatectl set-ntp true\.$/],
    ['CanNTP=yes\nNTP=yes\nNTPSynchronized=no', /not synchronised.*To mend it: timedatectl timesync-status/],
    ['CanNTP=no\nNTP=no\nNTPSynchronized=no', /not synchronised.*To mend it: install a time service/],
    [undefined, /^whether it is synchronised is not known: systemd does not run here$/],
  ])('that of the system, of which timedatectl says %j: %s', async (shown, words) => {
    const { ok, detail } = await look('system clock', () => lookAtSystemClock(() => shown));
    expect([ok, detail]).toEqual([!detail.includes('not synchronised'), expect.stringMatching(words)]);
  });

  test('the guide says what a host without a network makes of it', () => {
    const guide = readFileSync(join(repository, 'daemon', 'README.md'), 'utf8');
    expect(guide).toMatch(/host without a network.*not synchronised/);
  });

  test('that of the system, where timedatectl fails: it is said, and not taken for wrong', async () => {
    const fail = (): never => {
      throw new Error('Failed to connect to bus');
    };
    expect(await look('system clock', () => lookAtSystemClock(fail))).toMatchObject({
      ok: true,
      detail: expect.stringContaining('is not known: Failed to connect'),
    });
  });
});

/** Files that are as they must not be: what to do to a vault whose agent has ended, what is named, and how it says to mend it. */
const plants: [what: string, plant: () => void, name: string, words: RegExp][] = [
  ['settings that others can write', () => chmodSync(folder.join('config.json'), 0o666), 'settings', /can be written by other users; run: chmod go-w /],
  ['a setting that there is not', () => writeFileSync(folder.join('config.json'), '{"idleLock":1}'), 'settings', /are not valid/],
  [
    'an administrator whom nobody knows',
    () => writeFileSync(folder.join('config.json'), '{"administrators":["user:nosuchuser"]}'),
    'settings',
    /config\.json are not valid: \/administrators\/0 names no local user/,
  ],
  [
    'a policy with an unknown action',
    () => writeFileSync(folder.join('config.json'), '{"policy":{"statements":[{"effect":"Deny","principals":["*"],"actions":["createKeys"]}]}}'),
    'settings',
    /config\.json are not valid: \/policy\/statements\/0\/actions\/0 is no action/,
  ],
  ['a vault folder that is open', () => chmodSync(folder.join('vault'), 0o750), 'vault', /mode 0750\. To mend it: chmod 700 .*vault\.$/],
  ['a vault that is open', () => chmodSync(folder.join('vault', 'vault.db'), 0o640), 'vault', /To mend it: chmod 600 .*vault\.db\.$/],
  ['a lock that is open', () => chmodSync(folder.join('vault', 'vault.lock'), 0o604), 'vault', /To mend it: chmod 600 .*vault\.lock\.$/],
  ['an audit folder that is open', () => chmodSync(audit('.'), 0o705), 'audit folder', /To mend it: chmod 700 .*audit\.$/],
  ['an audit record that is open', () => chmodSync(audit('audit.jsonl'), 0o644), 'audit folder', /To mend it: chmod 600 .*audit\.jsonl\.$/],
  [
    'an audit record that ends in something else',
    () => writeFileSync(audit('audit.jsonl'), 'something else\n'),
    'audit record',
    /does not end in a record\. To mend it: kms-agent audit verify/,
  ],
  ['a file in the place of the socket', () => writeFileSync(folder.join('agent.sock'), ''), 'socket', /is no socket.*To mend it: move it away/],
];

describe('files', () => {
  test.each(plants)('%s: is named, with how to mend it, and nothing else is wrong', async (_what, plant, name, words) => {
    plant();
    const { wrong } = await examine();
    expect(wrong).toEqual([{ name, ok: false, detail: expect.stringMatching(words) }]);
  });

  test('a vault that is a folder: is named', async () => {
    renameSync(folder.join('vault', 'vault.db'), folder.join('moved'));
    mkdirSync(folder.join('vault', 'vault.db'), { mode: 0o700 });
    expect((await examine()).wrong).toMatchObject([{ name: 'vault', detail: expect.stringMatching(/is not a file\. To mend it: move it away/) }]);
  });

  test.skipIf(!isRoot)('a vault of somebody else (needs root): is named', async () => {
    chownSync(folder.join('vault', 'vault.db'), otherUid, otherUid);
    const detail = expect.stringMatching(new RegExp(`belongs to uid ${otherUid}, and not to uid 0\\. To mend it: chown 0 .*vault\\.db\\.$`));
    expect((await examine()).wrong).toEqual([{ name: 'vault', ok: false, detail }]);
  });
});

describe('a running agent', () => {
  test('a socket that more can open than the settings say, in a folder where others can put another one: each is named', async () => {
    await using _agent = await startAgent();
    const detailOf = async (): Promise<string | undefined> => (await examine()).wrong.find(({ name }) => name === 'socket')?.detail;
    chmodSync(folder.join('agent.sock'), 0o666);
    expect(await detailOf()).toMatch(/mode 0666, and the settings say 0600\. To mend it: chmod 0600 /);
    chmodSync(folder.join('agent.sock'), 0o600);
    chmodSync(folder.path, 0o777);
    expect(await detailOf()).toMatch(/others can put another socket.*To mend it: chmod go-w /);
  });

  test.each([
    ['0600', /mode 0600, of uid \d+; uid \d+ and root may connect$/],
    ['0660', /mode 0660, of uid \d+; uid \d+, group \d+ and root may connect$/],
    ['0666', /; everybody who can enter \S+ may connect: .* makes records .* up to maxConnectionsPerUid/],
  ])('a socket of mode %s, as the settings say: well, and who may connect is said', async (mode, words) => {
    writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: Number.parseInt(mode, 8) }), { mode: 0o600 });
    await using _agent = await startAgent();
    const { findings } = await examine();
    expect(findings.find(({ name }) => name === 'socket')).toEqual({ name: 'socket', ok: true, detail: expect.stringMatching(words) as string });
  });

  test.each([
    ['ends at once', (socket: Socket) => socket.end()],
    ['says something else', (socket: Socket) => socket.write('{"jsonrpc":"2.0","id":1,"result":{"hello":"world"}}\n')],
    ['says no JSON', (socket: Socket) => socket.write('hello\n')],
    ['says nothing', () => undefined],
  ])('what listens there and %s: is named', async (_what, answer) => {
    const server = createServer((socket) => answer(socket.on('error', () => undefined)));
    await new Promise<void>((resolve) => server.listen(folder.join('agent.sock'), resolve));
    chmodSync(folder.join('agent.sock'), 0o600);
    const { wrong } = await examine();
    server.close();
    expect(wrong).toMatchObject([{ name: 'agent', detail: expect.stringMatching(/does not answer as an agent: .*To mend it: /) }]);
  });

  test('a socket that was left behind: nothing is wrong', async () => {
    const agent = await startAgent();
    await agent.end('SIGKILL');
    const { findings, wrong } = await examine();
    expect(wrong).toEqual([]);
    expect(findings.find(({ name }) => name === 'agent')?.detail).toMatch(/^none runs/);
  });
});

describe.skipIf(!isRoot)('a file system that is full or cannot be written (needs root for a tmpfs)', () => {
  beforeEach(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=700', 'tmpfs', audit('.')]);
    execFileSync('cp', ['-a', `${pattern.join('vault', 'audit')}/.`, audit('.')]);
  });
  afterEach(() => void execFileSync('umount', ['-l', audit('.')]));

  const fill = (): Buffer => execFileSync('sh', ['-c', `head -c 4000000 /dev/zero >> ${audit('filler')} 2>/dev/null || true`]);
  const detailOfRecord = async (): Promise<string | undefined> => (await examine()).wrong.find(({ name }) => name === 'audit record')?.detail;

  test('full, and no agent: is named', async () => {
    rmSync(audit('reserve'));
    fill();
    expect(await detailOfRecord()).toMatch(/has 0 bytes left.*To mend it: make room there/);
  });

  test('read-only, and no agent: is named', async () => {
    execFileSync('mount', ['-o', 'remount,ro', audit('.')]);
    expect(await detailOfRecord()).toMatch(/cannot be written: EROFS\. To mend it: see that its file system/);
  });

  test('full, under a running agent: is named while it lasts', async () => {
    await using agent = await startAgent();
    const kms = await agent.client();
    fill();
    for (let left = 200; left > 0 && (await kms.status()).audit?.state === 'ok'; left -= 1)
      await Promise.allSettled(Array.from({ length: 50 }, () => kms.listKeyslots()));
    fill(); // what the agent gave up to record that
    expect(await detailOfRecord()).toMatch(/the agent cannot write it.*To mend it: make room/);
    truncateSync(audit('filler'));
    for (let left = 100; left > 0 && (await kms.status()).audit?.state !== 'ok'; left -= 1) await delay(100);
    expect((await examine()).wrong).toEqual([]);
  });
});

describe.skipIf(!canRunAsUser)('as an ordinary user (as root: needs a checkout that others can read)', () => {
  const ask = (before: readonly string[]): string => {
    const [program = '', ...args] = [...before, ...asUser, process.execPath, agentProgram, 'doctor', ...places()];
    return execFileSync('sh', ['-c', '"$0" "$@" || true', program, ...args], { cwd: '/' }).toString(); // its status is another test's
  };

  test('a limit of locked memory that is too low: is named', () => {
    chmodSync(folder.path, 0o755);
    expect(ask(['prlimit', '--memlock=65536:65536'])).toMatch(/^WRONG {2}protection secureHeapLocked: 0 bytes are locked.*To mend it: allow 8 MiB/m);
  });

  test.skipIf(!isRoot)('what only the agent’s user may see (needs root): says who must ask', async () => {
    writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666 }), { mode: 0o644 });
    chmodSync(folder.join('config.json'), 0o644);
    chmodSync(folder.path, 0o755);
    await using _agent = await startAgent();
    const found = ask([]);
    expect(found).toMatch(/^WRONG {2}vault: EACCES.*To mend it: run doctor as root or as the agent's own user\.$/m);
    expect(found).toMatch(/^ok {5}agent: version .* answers/m);
    expect(found).toMatch(/^WRONG {2}protections: the agent tells them to administrators only\. To mend it: run doctor as one/m);
  });
});
