import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, repository, TempFolder } from '../kit/agent.ts';
import { otherUid } from '../kit/attacker.ts';
import { canChangeTables } from '../kit/user-tables.ts';

const [agentUid, groupId] = [4343, 4400];
const passwd = `root:x:0:0::/root:/bin/sh\nkms-agent:x:${agentUid}:${agentUid}::/:/bin/sh\n`;
const group = `root:x:0:\nkms-agent:x:${agentUid}:\nsecrets:x:${groupId}:kms-agent\n`;

describe.skipIf(!canChangeTables)('the settings of the system’s agent, as root asks about them (needs root, to have other users)', () => {
  let folder: TempFolder;
  let file: string;
  beforeEach(() => {
    folder = new TempFolder();
    mkdirSync(folder.join('etc', 'kms-agent'), { recursive: true, mode: 0o755 });
    for (const [name, text] of Object.entries({ passwd, group, 'nsswitch.conf': 'passwd: files\ngroup: files\n' }))
      writeFileSync(folder.join('etc', name), text, { mode: 0o644 });
    if (existsSync('/etc/ld.so.cache')) copyFileSync('/etc/ld.so.cache', folder.join('etc', 'ld.so.cache'));
    file = folder.join('etc', 'kms-agent', 'config.json');
  });
  afterEach(() => folder[Symbol.dispose]());

  const write = (mode: number, uid: number, gid: number): void => {
    writeFileSync(file, '{"maxDepth":8}');
    chownSync(file, uid, gid);
    chmodSync(file, mode);
  };

  /** Runs Node where /etc is that of the folder. */
  function ask(args: readonly string[], before: readonly string[] = []): string {
    const script = 'mount --bind "$1" /etc && shift && exec "$@"';
    const command = ['sh', '-c', script, 'sh', folder.join('etc'), ...before, process.execPath, ...args];
    const { stdout, stderr } = spawnSync('unshare', ['--mount', '--propagation=private', ...command], { cwd: '/', encoding: 'utf8', env: cleanEnv() });
    return stdout + stderr;
  }
  const settingsModule = join(repository, 'daemon/dist/cli/install/settings.js');
  const installCheck = `const { checkSystemSettings } = await import(${JSON.stringify(settingsModule)});
    await checkSystemSettings().then(() => console.log('ok'), (error) => console.log(error.details?.hint ?? error));`;

  /** What an installation says of them, whose packages the agent's user can run, and whose it cannot; and config check and doctor. */
  function askAll(): string[] {
    mkdirSync(folder.join('closed'), { mode: 0o700 });
    writeFileSync(folder.join('closed', 'kms-agent.js'), '');
    const install = (program: string): string => ask(['--input-type=module', '-e', installCheck, program]);
    const doctor = ask([agentProgram, 'doctor', '--system']);
    const line = /^(?:ok|WRONG) +settings: .*$/m.exec(doctor)?.[0] ?? doctor;
    return [install(agentProgram), install(folder.join('closed', 'kms-agent.js')), ask([agentProgram, 'config', 'check', '--system']), line];
  }

  test.each([
    ['that all can read', 0o644, 0, 0],
    ['that a group of the agent’s user can read', 0o640, 0, groupId],
    ['that are the agent’s own', 0o600, agentUid, agentUid],
  ])('%s: all take them', (_name, mode, uid, gid) => {
    write(mode, uid, gid);
    for (const said of askAll()) expect(said).toMatch(/^ok/);
  });

  test.each<[name: string, make: () => void, words: RegExp]>([
    ['that root alone can read', () => write(0o600, 0, 0), /kms-agent.* may not read .*config\.json/],
    ['that are a link into nothing', () => symlinkSync('gone.json', file), /is a link that leads nowhere/],
    ['that are somebody else’s', () => write(0o644, otherUid, otherUid), /belongs to user 4242, who can change the settings/],
  ])('%s: none takes them', (_name, make, words) => {
    make();
    for (const said of askAll()) expect(said).toMatch(words);
  });

  test('where root cannot become another user, nobody says that the agent’s user may not search the root folder', () => {
    write(0o640, 0, groupId);
    const bound = ['setpriv', '--bounding-set=-setuid,-setgid', '--inh-caps=-setuid,-setgid'];
    expect(ask([agentProgram, 'config', 'check', '--system'], bound)).toMatch(/^ok/);
    expect(ask(['--input-type=module', '-e', installCheck, agentProgram], bound)).toBe('ok\n');
  });
});
