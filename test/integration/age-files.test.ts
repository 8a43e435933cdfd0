import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, ftruncateSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { stripVTControlCharacters } from 'node:util';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { formatProgress, showProgress } from '../../client/src/cli/progress.ts';
import { cleanEnv, type Finished, kmsProgram, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { collectBytes } from '../kit/streams.ts';

vi.setConfig({ testTimeout: 180_000 }); // many processes, one after the other

let agent: TestAgent;
let folder: TempFolder;
beforeAll(async () => {
  agent = await TestAgent.dev();
  folder = new TempFolder();
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

const env = (extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => cleanEnv({ KMS_AGENT_SOCK: agent.socketPath, ...extra });
const kms = (args: readonly string[], input?: Uint8Array): Promise<Finished> => run(kmsProgram, args, { env: env(), ...(input ? { input } : {}) });

test('encrypt-file, decrypt-file: through files and pipes, 0600, nothing lost, nothing half', async () => {
  const at = (name: string): string => folder.join(name);
  const bytes = randomBytes(300_000);
  writeFileSync(at('plain'), bytes);
  expect(await kms(['encrypt-file', at('plain'), '-o', at('sealed')])).toMatchObject({ code: 0, stderr: '' });
  expect(statSync(at('sealed')).mode & 0o777).toBe(0o600);
  expect((await kms(['decrypt-file'], readFileSync(at('sealed')))).stdout.equals(bytes)).toBe(true);
  const piped = `${process.execPath} ${kmsProgram} encrypt-file < ${at('plain')} | ${process.execPath} ${kmsProgram} decrypt-file -o /dev/stdout | cat`;
  expect(spawnSync('bash', ['--norc', '-c', piped], { env: env() }).stdout.equals(bytes)).toBe(true);
  expect(await kms(['encrypt-file', at('plain'), '-o', at('sealed')])).toMatchObject({ code: 2, stderr: expect.stringContaining('-f') as string });
  expect(await kms(['encrypt-file', at('plain'), '-o', at('sealed'), '-f'])).toMatchObject({ code: 0 });
  expect(await kms(['decrypt-file', at('sealed'), '-o', at('again')])).toMatchObject({ code: 0 });
  expect(readFileSync(at('again')).equals(bytes)).toBe(true);
  const sealed = readFileSync(at('sealed'));
  sealed[250_000] = (sealed[250_000] ?? 0) ^ 1;
  writeFileSync(at('changed'), sealed);
  const failed = await kms(['decrypt-file', at('changed'), '-o', at('again'), '-f']);
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringMatching(/^kms: ERR_INVALID_CIPHERTEXT: .*changed, or its end is missing/) as string });
  expect(readFileSync(at('again')).equals(bytes)).toBe(true);
  expect(await kms(['decrypt-file', at('changed'), '-o', at('never')])).toMatchObject({ code: 1 });
  expect(await kms(['encrypt-file', at('none'), '-o', at('never')])).toMatchObject({ code: 2 });
  expect(await kms(['encrypt-file', at('plain'), '-k', 'alias/none', '-o', at('never')])).toMatchObject({ code: 1 });
  expect(await kms(['encrypt-file', at('plain'), '-r', 'age1nonsense', '-o', at('never')])).toMatchObject({ code: 2 });
  expect(readdirSync(folder.path).sort()).toEqual(['again', 'changed', 'plain', 'sealed']);
});

test('encrypt-file: a terminal gets nothing of it', () => {
  const command = `${process.execPath} ${kmsProgram} encrypt-file ${kmsProgram}`;
  const { status, stdout } = spawnSync('script', ['-qec', command, '/dev/null'], { env: env(), encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  expect([status, stdout]).toEqual([2, expect.stringMatching(/^kms: .*-o FILE/)]);
});

test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('encrypt-file: ended by %s it leaves no file and ends by that signal', async (signal) => {
  using own = new TempFolder();
  const child = spawn(process.execPath, [kmsProgram, 'encrypt-file', '-o', own.join('sealed')], { env: env(), stdio: ['pipe', 'ignore', 'inherit'] });
  child.stdin.on('error', () => undefined); // it goes away while we write
  child.stdin.write(randomBytes(200_000));
  while (readdirSync(own.path).length === 0) await sleep(10);
  child.kill(signal);
  expect(await new Promise((resolve) => child.on('exit', (_code, by) => resolve(by)))).toBe(signal);
  expect(readdirSync(own.path)).toEqual([]);
});

/** Runs kms and answers the most memory that it held, in MiB. */
async function measureMemory(...args: readonly string[]): Promise<number> {
  const hook = folder.join('memory.mjs');
  writeFileSync(hook, "process.on('exit', () => console.error('maxRSS', process.resourceUsage().maxRSS));");
  const { code, stderr } = await run(kmsProgram, args, { env: env({ NODE_OPTIONS: `--import=file://${hook}` }) });
  expect(code, stderr).toBe(0);
  return Number(/^maxRSS (\d+)$/m.exec(stderr)?.[1]) / 1024;
}

test('encrypt-file, decrypt-file: 200 MB take hardly more memory than 2 MB', async () => {
  for (const [name, size] of [
    ['small', 2_000_000],
    ['large', 200_000_000],
  ] as const)
    ftruncateSync(openSync(folder.join(name), 'w'), size);
  const sealing = [await measureMemory('encrypt-file', folder.join('small'), '-o', folder.join('small.age'))];
  sealing.push(await measureMemory('encrypt-file', folder.join('large'), '-o', folder.join('large.age')));
  const opening = [await measureMemory('decrypt-file', folder.join('small.age'), '-o', '/dev/null')];
  opening.push(await measureMemory('decrypt-file', folder.join('large.age'), '-o', '/dev/null'));
  expect(statSync(folder.join('large.age')).size).toBeGreaterThan(200_000_000);
  console.log(`memory, MiB: encrypt ${sealing.map(Math.round).join(' → ')}, decrypt ${opening.map(Math.round).join(' → ')}`);
  for (const [small = 0, large = Number.POSITIVE_INFINITY] of [sealing, opening]) expect(large - small).toBeLessThan(128);
});

test.skipIf(!existsSync('/usr/bin/age'))('encrypt-file -r: the age program opens it without the agent (needs age)', async () => {
  const at = (name: string): string => folder.join(name);
  const made = spawnSync('age-keygen', ['-o', at('identity')], { encoding: 'utf8' });
  const recipient = /age1\w+/.exec(made.stderr)?.[0] ?? '';
  for (const size of [0, 100, 65_536, 65_537, 131_072]) {
    const bytes = randomBytes(size);
    const sealed = (await kms(['encrypt-file', '-r', recipient], bytes)).stdout;
    const opened = spawnSync('age', ['-d', '-i', at('identity')], { input: sealed });
    expect([opened.status, opened.stdout.equals(bytes)], String(opened.stderr)).toEqual([0, true]);
    expect((await kms(['decrypt-file'], sealed)).stdout.equals(bytes)).toBe(true);
  }
  const foreign = spawnSync('age', ['-r', recipient], { input: 'x' });
  expect(await kms(['decrypt-file'], foreign.stdout)).toMatchObject({ code: 1, stderr: expect.stringContaining('not for a key of this agent') as string });
});

test('progress: a bar where the end is known, drawn on a terminal only, after a second, and taken away at the end', async () => {
  expect(formatProgress(1_048_576, 4_194_304, 1000)).toBe(`[${'#'.repeat(7)}${'.'.repeat(23)}]  25 %  1.0 MiB  1.0 MiB/s`);
  expect(formatProgress(512, undefined, 2000)).toBe('512 B  256 B/s');
  expect(formatProgress(3000, 2000, 1000)).toContain('100 %');
  async function* slow(): AsyncGenerator<Uint8Array, void, undefined> {
    for (let turn = 0; turn < 3; turn += 1) {
      yield new Uint8Array(1024);
      await sleep(600);
    }
  }
  const drawn = async (isTTY: boolean): Promise<string> => {
    const pieces: string[] = [];
    await collectBytes(showProgress(slow(), 3072, { isTTY, write: (piece: string | Uint8Array) => pieces.push(String(piece)) > 0 }));
    return stripVTControlCharacters(pieces.join(''));
  };
  expect(await drawn(false)).toBe('');
  expect(await drawn(true)).toMatch(/^\r\[#{30}\] 100 % {2}3\.0 KiB.*\r$/);
});
