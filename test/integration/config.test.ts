import { spawn } from 'node:child_process';
import { chmodSync, chownSync, fstatSync, mkdirSync, openSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultSettings, makeSettingsSchema } from '../../daemon/src/config.ts';
import { agentProgram, cleanEnv, initVault, repository, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditRecords } from '../kit/audit.ts';
import { asRoot, TestPeer } from '../kit/peer.ts';

const folder = new TempFolder();
const file = folder.join('config.json');
beforeAll(async () => {
  chmodSync(folder.path, 0o755);
  await initVault(folder);
});
afterAll(() => folder[Symbol.dispose]());

const write = (settings: object): void => writeFileSync(file, JSON.stringify(settings));
const config = (...args: string[]) => run(agentProgram, ['config', ...args], { env: cleanEnv({ HOME: folder.path }) });

describe('kms-agent config show', () => {
  test('every setting, its value, and where it comes from', async () => {
    write({ maxDepth: 16, $schema: './config.schema.json' });
    const { code, stdout } = await config('show', '--config', file, '--json');
    const { settings, places } = JSON.parse(stdout.toString()) as {
      settings: { name: string; value: unknown; from: string }[];
      places: Record<string, { path: string; from: string }>;
    };
    expect(code).toBe(0);
    expect(settings.map(({ name }) => name).sort()).toEqual(Object.keys(defaultSettings).sort());
    expect(settings.filter(({ from }) => from === 'file')).toEqual([expect.objectContaining({ name: 'maxDepth', value: 16 })]);
    expect(places['configFile']).toEqual({ path: file, from: '--config' });
    expect(places['dataDir']).toEqual({ path: folder.join('.local', 'share', 'kms-agent'), from: 'default' });
    expect((await config('show', '--config', file)).stdout.toString()).toMatch(/^maxDepth +16 {2}\(file\)$/m);
  });

  test('a place that a variable chose names the variable', async () => {
    const env = cleanEnv({ HOME: folder.path, KMS_AGENT_DATA_DIR: '/somewhere', LOGS_DIRECTORY: '/var/log/kms-agent', XDG_CONFIG_HOME: folder.path });
    const { stdout } = await run(agentProgram, ['config', 'show', '--json'], { env });
    expect(JSON.parse(stdout.toString())).toMatchObject({
      places: {
        dataDir: { path: '/somewhere', from: 'KMS_AGENT_DATA_DIR' },
        auditDir: { path: '/var/log/kms-agent', from: 'LOGS_DIRECTORY' },
        configFile: { path: folder.join('kms-agent', 'config.json'), from: 'XDG_CONFIG_HOME' },
      },
    });
  });
});

describe('kms-agent config check', () => {
  test('good settings are ok, and 0', async () => {
    write({ idleLockMs: 1000 });
    expect(await config('check', '--config', file)).toMatchObject({ code: 0, stderr: '' });
  });

  test.each<[name: string, settings: object, words: string]>([
    ['an unknown one', { maxDept: 4 }, 'maxDept'],
    ['an ill-typed one', { maxDepth: 'deep' }, 'maxDepth'],
    ['one out of its range', { maxDepth: 0 }, 'maxDepth'],
    [
      'an unknown action in the policy',
      { policy: { statements: [{ effect: 'Allow', principals: ['uid:1'], actions: ['sign'], x: 1 }] } },
      '/policy/statements/0/x',
    ],
    ['an administrator whom nobody knows', { administrators: ['user:nosuchuser'] }, '/administrators/0'],
    ['an administrator without a number', { administrators: ['uid:0', 'uid:abc'] }, '/administrators/1'],
    [
      'a principal of the policy whom nobody knows',
      { policy: { statements: [{ effect: 'Allow', principals: ['user:nosuchuser'], actions: ['metrics'] }] } },
      '/policy/statements/0/principals/0',
    ],
    ['a token without a module', { tokens: [{ name: 'a', uri: 'pkcs11:token=a' }] }, 'module'],
  ])('%s is named', async (_name, settings, words) => {
    write(settings);
    const { code, stderr } = await config('check', '--config', file);
    expect(code).toBe(1);
    expect(stderr).toContain(words);
    expect(stderr).toContain(file);
  });

  test('a file that others can write, one that is no JSON, and one that is not there', async () => {
    write({});
    chmodSync(file, 0o666);
    expect(await config('check', '--config', file)).toMatchObject({ code: 1, stderr: expect.stringContaining('chmod go-w') as string });
    chmodSync(file, 0o600);
    writeFileSync(file, '{');
    expect(await config('check', '--config', file)).toMatchObject({ code: 1, stderr: expect.stringContaining('not valid') as string });
    for (const text of ['[{"maxDepth":4}]', '5', '"maxDepth"', 'null']) {
      writeFileSync(file, text);
      expect(await config('check', '--config', file)).toMatchObject({ code: 1, stderr: expect.stringContaining('no JSON object') as string });
    }
    expect(await config('check', '--config', folder.join('nothing.json'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('no settings file') as string,
    });
  });
});

test.runIf(asRoot)('settings of somebody else: the hint is to take them over, whatever their mode', async () => {
  write({});
  chmodSync(file, 0o600);
  chownSync(file, 65534, 65534);
  const { code, stderr } = await config('check', '--config', file);
  chownSync(file, 0, 0);
  expect(code).toBe(1);
  expect(stderr).toContain(`chown root ${file}`);
});

describe('the folder of the settings', () => {
  const place = folder.join('place');
  const inPlace = join(place, 'config.json');
  const check = (mode: number) => {
    mkdirSync(place, { recursive: true });
    writeFileSync(inPlace, '{}', { mode: 0o600 });
    chmodSync(place, mode);
    return config('check', '--config', inPlace);
  };

  test.each(asRoot ? [0o777, 0o775, 0o757] : [0o777, 0o757])('of mode %o is refused: others can put another file there', async (mode) => {
    expect(await check(mode)).toMatchObject({ code: 1, stderr: expect.stringContaining(`chmod go-w ${place}`) as string });
  });

  test('a shared folder is not: nobody else can take the file away', async () => {
    expect(await check(0o1777)).toMatchObject({ code: 0 });
  });

  test('a link leads to what is judged, and is judged by its folder', async () => {
    await check(0o755);
    const open = folder.join('open');
    mkdirSync(open, { recursive: true });
    chmodSync(open, 0o777);
    symlinkSync(inPlace, join(open, 'link.json'));
    expect(await config('check', '--config', join(open, 'link.json'))).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`chmod go-w ${open}`) as string,
    });
  });
});

test('config show: a reader that goes away is no error of the agent', async () => {
  const script = `${process.execPath} --disable-warning=ExperimentalWarning ${agentProgram} config show --config ${file}; echo $? >&2`;
  write({});
  const child = spawn('/bin/sh', ['-c', `{ ${script}; } | true`], { env: cleanEnv({ HOME: folder.path }) });
  const said: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => said.push(chunk));
  await new Promise((resolve) => child.on('close', resolve));
  expect(Buffer.concat(said).toString()).toBe('141\n');
});

test('the schema that the package ships is that of the code', async () => {
  const schema = JSON.parse(JSON.stringify(makeSettingsSchema())) as unknown;
  expect(JSON.parse(readFileSync(join(repository, 'daemon', 'config.schema.json'), 'utf8'))).toEqual(schema);
  expect(JSON.parse((await config('schema')).stdout.toString())).toEqual(schema);
});

describe('SIGHUP', () => {
  test.skipIf(!asRoot)(
    'takes over who may do what and the level of the log; names what waits; wrong settings change nothing (needs root, to be another user)',
    async () => {
      write({ socketMode: 0o666 });
      await using agent = await TestAgent.serve(folder, '--config', file);
      await using peer = await TestPeer.start(agent.socketPath, { uid: 4830 });
      const reload = async (settings: object, words: string): Promise<void> => {
        const before = agent.log.length;
        write(settings);
        agent.child.kill('SIGHUP');
        await expect.poll(() => agent.log.slice(before)).toContain(words);
      };
      expect(await peer.outcome('lock')).toBe('ERR_ACCESS_DENIED');
      const policy = { statements: [{ effect: 'Allow', principals: ['uid:4830'], actions: ['lock'] }] };
      await reload({ socketMode: 0o666, policy, maxDepth: 8, logLevel: 'debug' }, 'wait for a restart');
      expect(await peer.outcome('lock')).toBe('ok');
      expect(agent.log).toContain('"settings":"logLevel policy"');
      expect(agent.log).toContain('"settings":"maxDepth"');
      expect(agent.log).toContain('"level":"debug"');
      await reload({ socketMode: 0o666, policy: { statements: [{ effect: 'Allow', principals: ['uid:4830'], actions: ['none'] }] } }, 'are not valid');
      await reload({ nothing: 1 }, 'nothing');
      expect(await peer.outcome('lock')).toBe('ok');
      expect(await peer.outcome('listKeyslots')).toBe('ERR_ACCESS_DENIED');
      await reload({ socketMode: 0o666, administrators: ['uid:4830'] }, '"settings":"logLevel administrators policy"');
      expect(await peer.outcome('listKeyslots')).toBe('ok');
      const reloads = auditRecords(folder.join('vault', 'audit')).filter(({ operation }) => operation === 'reload');
      expect(reloads.map(({ outcome }) => outcome)).toEqual(['ok', 'failed', 'failed', 'ok']);
    },
  );
});

test('the log has a priority in front of each line where it goes to the journal, and none elsewhere', async () => {
  write({});
  const path = folder.join('journal');
  const fd = openSync(path, 'w');
  const { dev, ino } = fstatSync(fd);
  expect(statSync(path).ino).toBe(ino);
  const child = spawn(process.execPath, [agentProgram, 'serve', '--data-dir', folder.join('vault'), '--socket', folder.join('j.sock')], {
    stdio: ['ignore', 'ignore', fd],
    env: cleanEnv({ JOURNAL_STREAM: `${dev}:${ino}` }),
  });
  await expect.poll(() => readFileSync(path, 'utf8'), { timeout: 20_000 }).toMatch(/^<6>\{"time":/m);
  child.kill();
  await new Promise((resolve) => child.on('exit', resolve));
  await using agent = await TestAgent.serve(folder);
  const said = (): string => `${agent.startLog}${agent.log}`; // the line may come before the address or after it
  await expect.poll(said).toContain('"ready"');
  expect(said()).not.toMatch(/^<\d>/m);
});

test('why a start failed is an error in the journal', async () => {
  write({ administrators: ['uid:abc'] });
  const path = folder.join('failed');
  const fd = openSync(path, 'w');
  const { dev, ino } = fstatSync(fd);
  const child = spawn(process.execPath, [agentProgram, 'serve', '--config', file, '--data-dir', folder.join('vault'), '--socket', folder.join('f.sock')], {
    stdio: ['ignore', 'ignore', fd],
    env: cleanEnv({ JOURNAL_STREAM: `${dev}:${ino}` }),
  });
  await new Promise((resolve) => child.on('exit', resolve));
  expect(readFileSync(path, 'utf8')).toMatch(
    /^<3>kms-agent: ERR_STATE_CONFLICT: The settings in .*config\.json are not valid: \/administrators\/0 must be a number/m,
  );
});
