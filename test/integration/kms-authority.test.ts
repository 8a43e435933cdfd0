import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { AuditRecord, KeyPolicy } from '@kms-agent/protocol';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cleanEnv, type Finished, kmsProgram, run, TempFolder, TestAgent } from '../kit/agent.ts';

let folder: TempFolder;
let agent: TestAgent;
let keyId: string;
beforeAll(async () => {
  folder = new TempFolder();
  agent = await TestAgent.dev();
  ({ keyId } = await (await agent.client()).createKey({ keySpec: 'EC_P256', aliasName: 'alias/cli' }));
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const env = (): NodeJS.ProcessEnv => cleanEnv({ KMS_AGENT_SOCK: agent.socketPath });
const kms = (args: readonly string[], input?: string): Promise<Finished> =>
  run(kmsProgram, args, { env: env(), ...(input === undefined ? {} : { input: Buffer.from(input) }) });

describe('kms policy', () => {
  const policy: KeyPolicy = {
    statements: [
      { sid: 'all', effect: 'Allow', principals: [`uid:${process.getuid?.() ?? 0}`], actions: ['use', 'view', 'manage'] },
      { sid: 'shop', effect: 'Allow', principals: ['uid:4820'], actions: ['sign'], limits: { hours: '00:00-23:59' } },
      { sid: 'no checks', effect: 'Deny', principals: ['uid:4820'], actions: ['verify'] },
    ],
  };

  test('set takes a file or standard input, by alias; get prints what set takes', async () => {
    writeFileSync(folder.join('policy.json'), JSON.stringify(policy));
    expect(await kms(['policy', 'set', 'alias/cli', folder.join('policy.json')])).toMatchObject({ code: 0, stderr: '' });
    const { stdout } = await kms(['policy', 'get', keyId]);
    expect(JSON.parse(stdout.toString())).toEqual(policy);
    expect(await kms(['policy', 'set', 'alias/cli'], stdout.toString())).toMatchObject({ code: 0 });
  });

  test('what is no JSON and what is no policy are refused, with the place', async () => {
    expect(await kms(['policy', 'set', 'alias/cli'], 'statements')).toMatchObject({ code: 2, stderr: expect.stringContaining('not JSON') as string });
    const unknown = JSON.stringify({ statements: [{ effect: 'Allow', principals: ['*'], actions: ['use'], extra: 1 }] });
    expect(await kms(['policy', 'set', 'alias/cli'], unknown)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('/policy/statements/0/extra') as string,
    });
  });

  test('warnings about what its writer may not have meant go to standard error', async () => {
    const statements = [...policy.statements, { effect: 'Allow', principals: [`exe:${process.execPath}`], actions: ['sign'] }];
    const { code, stderr } = await kms(['policy', 'set', 'alias/cli'], JSON.stringify({ statements }));
    expect([code, stderr]).toEqual([0, expect.stringContaining('kms: warning: ')]);
  });
});

describe('kms explain', () => {
  test('about oneself: yes, and 0', async () => {
    const { code, stdout } = await kms(['explain', 'sign', 'alias/cli']);
    expect([code, stdout.toString()]).toEqual([0, expect.stringMatching(/^answer +yes\nrule +keyPolicy\nsid +all\n/)]);
  });

  test.each([
    ['sign', 'uid=4820', 0, { allowed: true, wouldSucceed: true, sid: 'shop' }],
    ['verify', 'uid=4820,groups=4+24', 1, { allowed: false, wouldSucceed: false, sid: 'no checks', blockedBy: 'ERR_ACCESS_DENIED' }],
    ['sign', 'uid=4821,unit=shop.service', 1, { allowed: false, rule: 'noStatement' }],
    ['advanceEncrypt', `uid=${process.getuid?.() ?? 0}`, 1, { allowed: true, wouldSucceed: false, blockedBy: 'ERR_UNSUPPORTED_OPERATION' }],
  ])('%s --as %s', async (method, as, status, verdict) => {
    const { code, stdout } = await kms(['--json', 'explain', method, keyId, '--as', as]);
    expect([code, JSON.parse(stdout.toString())]).toEqual([status, expect.objectContaining(verdict)]);
  });

  test.each(['uid', 'uid=x', 'gid=4', 'unit=', 'uid=1;groups=2'])('--as %s is usage', async (as) => {
    expect((await kms(['explain', 'sign', keyId, '--as', as])).code).toBe(2);
  });
});

describe('kms audit tail', () => {
  const records = async (...args: string[]): Promise<AuditRecord[]> =>
    (await kms(['--json', 'audit', 'tail', ...args])).stdout
      .toString()
      .trim()
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as AuditRecord);

  test('the last records, as lines a person reads, and as JSON', async () => {
    await kms(['sign', '-k', 'alias/cli', '--base64'], 'message');
    const { stdout } = await kms(['audit', 'tail', '-n', '200']);
    expect(stdout.toString()).toMatch(new RegExp(`^ +\\d+  \\S+Z  ok +sign  uid ${process.getuid?.() ?? 0}  pid \\d+  .*${keyId}$`, 'm'));
    expect((await records('-n', '3')).length).toBe(3);
    expect(await records('-n', '0')).toEqual([]);
  });

  test('filters by key, method, user, unit, program and outcome; looks back as far as it must', async () => {
    await kms(['sign', '-k', 'alias/cli', '--base64'], 'message');
    const client = await agent.client();
    for (let index = 0; index < 1500; index += 1) await client.generateRandom({ numberOfBytes: 1 });
    expect((await records('--key', 'alias/cli', '--method', 'sign', '-n', '1')).map(({ operation, keyId: id }) => [operation, id])).toEqual([['sign', keyId]]);
    expect((await records('--outcome', 'done', '--uid', `${process.getuid?.() ?? 0}`, '-n', '1000')).every(({ outcome }) => outcome === 'done')).toBe(true);
    expect(await records('--uid', '4999')).toEqual([]);
    expect(await records('--unit', 'nothing.service')).toEqual([]);
    expect(await records('--exe', '/usr/bin/nothing')).toEqual([]);
    expect((await kms(['audit', 'tail', '--help'])).stdout.toString().replace(/\s+/g, ' ')).toContain('begun, done, ok, denied, failed or unknown');
    expect((await kms(['audit', 'tail', '--outcome', 'maybe'])).code).toBe(2);
  });

  test('--follow shows what comes, in order, and never its own looks', async () => {
    const child = spawn(process.execPath, [kmsProgram, 'audit', 'tail', '--follow', '-n', '0', '--json'], { env: env(), stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const client = await agent.client();
    const seen = (): AuditRecord[] =>
      text
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as AuditRecord);
    await expect
      .poll(
        async () => {
          await client.getPublicKey({ keyId });
          return seen().filter(({ operation }) => operation === 'getPublicKey').length;
        },
        { timeout: 20_000, interval: 200 },
      )
      .toBeGreaterThan(3);
    child.kill();
    const seqs = seen().map(({ seq }) => seq);
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
    expect(seen().filter(({ caller }) => caller?.pid === child.pid)).toEqual([]);
  });
});
