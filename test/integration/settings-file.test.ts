import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, initVault, passphrase, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { asUser, canRunAsUser, otherUid } from '../kit/attacker.ts';
import { canChangeTables, runWithTables } from '../kit/user-tables.ts';

let folder: TempFolder;
beforeEach(() => {
  folder = new TempFolder();
  chmodSync(folder.path, 0o755);
});
afterEach(() => folder[Symbol.dispose]());

/** A settings file in the usual place of a user whose home is the folder. */
function write(settings: object): string {
  mkdirSync(folder.join('.config', 'kms-agent'), { recursive: true });
  const file = folder.join('.config', 'kms-agent', 'config.json');
  writeFileSync(file, JSON.stringify(settings));
  return file;
}

const env = (extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => cleanEnv({ HOME: folder.path, ...extra });
const check = (extra?: NodeJS.ProcessEnv) => run(agentProgram, ['config', 'check'], { env: env(extra) });
const refused = (words: string) => ({ code: 1, stderr: expect.stringContaining(words) as string });

describe('no settings file', () => {
  test('is there in the usual place, nor its folder: defaults hold', async () => {
    expect(await check()).toMatchObject({ code: 0, stderr: '' });
    mkdirSync(folder.join('elsewhere'));
    symlinkSync('elsewhere', folder.join('.config'));
    expect(await check()).toMatchObject({ code: 0, stderr: '' });
  });

  test('is there, and others can write a folder above it, or own one: defaults hold all the same, but not for a file that is named', async () => {
    chmodSync(folder.path, 0o777);
    expect(await check()).toMatchObject({ code: 0, stderr: '' });
    expect(await check({ KMS_AGENT_CONFIG: folder.join('moved.json') })).toMatchObject(refused('There is no settings file'));
    if (process.getuid?.() === 0) {
      chmodSync(folder.path, 0o755);
      chownSync(folder.path, otherUid, otherUid);
      expect(await check()).toMatchObject({ code: 0, stderr: '' });
    }
    write({});
    expect(await check()).toMatchObject(refused(folder.path));
  });

  test('is there where KMS_AGENT_CONFIG says: nothing starts, and it is named', async () => {
    const file = folder.join('moved.json');
    await initVault(folder);
    expect(await check({ KMS_AGENT_CONFIG: file })).toMatchObject(refused(`There is no settings file ${file}.`));
    const args = ['serve', '--data-dir', folder.join('vault'), '--socket', folder.join('agent.sock')];
    const served = spawnSync(process.execPath, [agentProgram, ...args], { env: env({ KMS_AGENT_CONFIG: file }), timeout: 60_000, encoding: 'utf8' });
    expect([served.status, served.stderr]).toEqual([2, expect.stringContaining(`There is no settings file ${file}.`)]);
    const { stdout } = await run(agentProgram, ['doctor', ...args.slice(1)], { env: env({ KMS_AGENT_CONFIG: file }) });
    expect(stdout.toString()).toMatch(/^WRONG {2}settings: There is no settings file /m);
    writeFileSync(file, '{}');
    expect(await check({ KMS_AGENT_CONFIG: file })).toMatchObject({ code: 0 });
  });
});

describe('a settings file that may be there and cannot be seen is refused, not taken for none', () => {
  test('a link into nothing, whether it is the file or a folder above it', async () => {
    const file = write({});
    rmSync(file);
    symlinkSync('gone.json', file);
    expect(await check()).toMatchObject(refused(`${file} is a link that leads nowhere`));
    rmSync(folder.join('.config'), { recursive: true });
    symlinkSync('gone', folder.join('.config'));
    expect(await check()).toMatchObject(refused(`${folder.join('.config')} is a link that leads nowhere`));
  });

  test('something else in the place of a folder', async () => {
    writeFileSync(folder.join('.config'), '');
    expect(await check()).toMatchObject(refused('cannot be read: ENOTDIR'));
  });

  test.skipIf(!canRunAsUser).each([
    ['a folder that may not be searched', '.config/kms-agent', 0o600, 'search', 'a+x'],
    ['a folder above that one', '.config', 0o600, 'search', 'a+x'],
    ['a file that may not be read', '.config/kms-agent/config.json', 0o200, 'read', 'a+r'],
  ])('%s (as root: needs a checkout that others can read)', (_name, place, mode, verb, right) => {
    write({ maxDepth: 'deep' });
    const path = folder.join(place);
    chmodSync(path, mode);
    const [program, ...args] = [...asUser, process.execPath, agentProgram, 'config', 'check'];
    const { status, stderr } = spawnSync(program, args, { cwd: '/', env: env(), encoding: 'utf8' });
    chmodSync(path, 0o700);
    expect([status, stderr]).toEqual([1, expect.stringMatching(`may not ${verb} ${path}; .*run: chmod ${right.replace('+', '\\+')} ${path}\n$`)]);
  });
});

test('.. behind a link is what the kernel takes it for: the file that is read is the one whose folders are judged', async () => {
  for (const path of ['a', 'b/c']) mkdirSync(folder.join(path), { recursive: true });
  symlinkSync('../b/c', folder.join('a/link'));
  writeFileSync(folder.join('a/config.json'), '{"maxDepth":16}');
  writeFileSync(folder.join('b/config.json'), '{"maxDepth":24}');
  const config = `${folder.path}/a/link/../config.json`;
  const show = () => run(agentProgram, ['config', 'show', '--config', config], { env: env() });
  expect((await show()).stdout.toString()).toMatch(/^maxDepth +24 {2}\(file\)$/m);
  chmodSync(folder.join('b'), 0o777);
  expect(await show()).toMatchObject(refused(`chmod go-w ${folder.join('b')}`));
});

describe.skipIf(!canChangeTables)('what the group of its owner can write (needs root, to have other users)', () => {
  const bob = `bob:x:${otherUid}:${otherUid}::/:/bin/sh\n`;
  const carol = (gid: number): string => `carol:x:${otherUid + 1}:${gid}::/:/bin/sh\n`;
  const trust = join(repository, 'daemon/dist/cli/install/trust.js');
  const program = `const { checkTrusted } = await import(${JSON.stringify(trust)}); checkTrusted(process.argv[1]);`;

  test.each<[outcome: 'taken' | 'refused', who: string, passwd: string, group: string]>([
    ['taken', 'the user alone', bob + carol(otherUid + 1), `bob:x:${otherUid}:\n`],
    ['refused', 'all users, whose first group it is', bob + carol(otherUid), `users:x:${otherUid}:\n`],
    ['refused', 'another member too', bob + carol(otherUid + 1), `bob:x:${otherUid}:carol\n`],
  ])('is %s where that is %s: settings in such a folder, and a program that install --user would run', (outcome, _who, passwd, group) => {
    const file = write({});
    for (const path of [file, join(file, '..'), folder.join('.config')]) chownSync(path, otherUid, otherUid);
    chmodSync(join(file, '..'), 0o2775);
    const ask = (...args: string[]) => runWithTables(folder, { passwd, group }, [process.execPath, ...args]);
    const asked = [ask(agentProgram, 'config', 'check'), ask('--input-type=module', '-e', program, file)];
    expect(asked.map(({ status }) => status)).toEqual(outcome === 'taken' ? [0, 0] : [1, 1]);
    for (const { stderr } of asked) expect(stderr).toMatch(outcome === 'taken' ? /^$/ : /can be written by other/);
  });
});

describe('SIGHUP', () => {
  const policy = { statements: [{ effect: 'Deny', principals: ['*'], actions: ['createKey'] }] };

  test.each<[name: string, hide: (file: string) => void, words: string]>([
    ['has gone', (file) => renameSync(file, `${file}.away`), 'There is no settings file'],
    ['has gone with its folder', (file) => renameSync(join(file, '..'), folder.join('away')), 'There is no settings file'],
    [
      'became a link into nothing',
      (file) => {
        rmSync(file);
        symlinkSync('gone.json', file);
      },
      'leads nowhere',
    ],
  ])('a settings file that %s: what it said holds, and the log says why, until there is one again', async (_name, hide, words) => {
    await initVault(folder);
    const file = write({ policy });
    await using agent = await TestAgent.serve(folder, { env: env() });
    const kms = await agent.client();
    await kms.unlock({ passphrase });
    const reload = async (said: RegExp): Promise<void> => {
      const before = agent.log.length;
      agent.child.kill('SIGHUP');
      await expect.poll(() => agent.log.slice(before)).toMatch(said);
    };
    hide(file);
    await reload(new RegExp(`reload refused.*${words}`));
    await expect(kms.createKey({})).rejects.toMatchObject({ code: 'ERR_ACCESS_DENIED' });
    rmSync(file, { force: true });
    write({});
    await reload(/settings read again.*policy/);
    expect(await kms.createKey({})).toHaveProperty('keyId');
  });

  test('no settings file, as at the start: nothing is wrong', async () => {
    await initVault(folder);
    await using agent = await TestAgent.serve(folder, { env: env() });
    agent.child.kill('SIGHUP');
    await expect.poll(() => agent.log).toContain('settings read again');
  });
});
