import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, type Finished, initVault, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { canInject, type Faults, withFaults } from '../kit/strace.ts';

/** Runs a command on the vault's files with faults under it. */
function runFaulty(folder: TempFolder, args: readonly string[], faults: Faults): Promise<Finished> {
  const [program = '', ...before] = withFaults(faults);
  const { promise, resolve } = Promise.withResolvers<Finished>();
  const child = spawn(program, [...before, process.execPath, agentProgram, ...args, '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    env: cleanEnv(),
  });
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
  const secret = child.stdio[3] as NodeJS.WritableStream; // stdio above makes it a pipe
  secret.on('error', () => undefined); // the command may end without reading
  secret.end(passphrase);
  child.on('close', (code) => resolve({ code, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }));
  return promise;
}

const runWell = (folder: TempFolder, ...args: string[]): Promise<Finished> =>
  run(agentProgram, [...args, '--data-dir', folder.join('vault'), '--passphrase-fd', '3', '--json'], { secret: passphrase });

/** Files that a command works on. */
const filesOf = (folder: TempFolder, path: string): string[] =>
  ['', '.unfinished', '.unfinished-wal', '.unfinished-journal', '-wal', '-journal'].map((end) => folder.join(path) + end);

/** What can go wrong while a new file is built and named. */
const building: readonly (readonly [string, string])[] = [
  ['openat', 'EIO'],
  ['pwrite64', 'ENOSPC'],
  ['fdatasync,fsync', 'EIO'],
  ['link', 'EIO'],
  ['unlink', 'EIO'],
];

/** Whether the vault opens and holds its default key. */
async function expectWhole(folder: TempFolder): Promise<void> {
  await using agent = await TestAgent.serve(folder);
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  expect(await kms.describeKey({ keyId: 'alias/default' })).toMatchObject({ keyState: 'Enabled' });
}

describe.skipIf(!canInject)('calls that fail under a command on the vault (needs root and strace)', () => {
  test.each(building)('init, %s answers %s: named, and nothing is left that stands in the way of the next', async (calls, error) => {
    using folder = new TempFolder();
    const failed = await runFaulty(folder, ['init'], { calls, error, paths: filesOf(folder, 'vault/vault.db') });
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining('ERR_STORE_UNAVAILABLE')]);
    expect(failed.stdout.toString()).toBe('');
    expect(existsSync(folder.join('vault', 'vault.db'))).toBe(false);
    await initVault(folder);
    await expectWhole(folder);
  });

  test.each(building)('backup and restore, %s answers %s: named, the vault is as it was, and the next one works', async (calls, error) => {
    using folder = new TempFolder();
    await initVault(folder);
    const backup = folder.join('backup.db');
    const failed = await runFaulty(folder, ['backup', backup], { calls, error, paths: filesOf(folder, 'backup.db') });
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining('ERR_STORE_UNAVAILABLE')]);
    expect(existsSync(backup)).toBe(false);
    expect(await runWell(folder, 'backup', backup)).toMatchObject({ code: 0 });
    using other = new TempFolder();
    const torn = await runFaulty(other, ['restore', backup], { calls, error, paths: filesOf(other, 'vault/vault.db') });
    expect([torn.code, torn.stderr]).toEqual([1, expect.stringContaining('ERR_STORE_UNAVAILABLE')]);
    expect(existsSync(other.join('vault', 'vault.db'))).toBe(false);
    expect(await runWell(other, 'restore', backup)).toMatchObject({ code: 0 });
    await expectWhole(other);
  });

  test.each([
    ['pwrite64', 'ENOSPC'],
    ['fdatasync,fsync', 'EIO'],
  ])('rekey, %s answers %s: named, and the vault opens as before', async (calls, error) => {
    using folder = new TempFolder();
    await initVault(folder);
    const failed = await runFaulty(folder, ['rekey'], { calls, error, paths: filesOf(folder, 'vault/vault.db') });
    expect([failed.code, failed.stderr]).toEqual([1, expect.stringContaining('ERR_STORE_UNAVAILABLE')]);
    await expectWhole(folder);
  });

  test.each([
    ['openat', 'EACCES', 'vault/vault.lock'],
    ['openat', 'EIO', 'vault/vault.db'],
    ['pread64', 'EIO', 'vault/vault.db'],
  ])('at the start of an agent, %s answers %s on %s: named, nothing is touched, and the next start works', async (calls, error, name) => {
    using folder = new TempFolder();
    await initVault(folder);
    const before = readdirSync(folder.join('vault'));
    await expect(TestAgent.serve(folder, { command: withFaults({ calls, error, paths: [folder.join(name)] }) })).rejects.toThrow(
      /ended with 1: .*ERR_STORE_UNAVAILABLE/,
    );
    expect(readdirSync(folder.join('vault'))).toEqual(expect.arrayContaining(before));
    await expectWhole(folder);
  });
});
