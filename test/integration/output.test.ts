import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { agentProgram, cleanEnv, initVault, kmsProgram, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';

const vaultArgs = ['--data-dir', 'vault', '--passphrase-fd', '3'];

/** Runs a program in a folder with its standard output on a device without room, or a pipe that nobody reads. @returns how it ended. */
async function runUnheard(program: string, args: readonly string[], where: 'full' | 'gone', folder: TempFolder, env = cleanEnv()): Promise<object> {
  const full = openSync('/dev/full', 'w');
  const stdout = where === 'full' ? full : 'pipe';
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', stdout, 'pipe', 'pipe'], env, cwd: folder.path });
  closeSync(full);
  child.stdout?.destroy();
  (child.stdio[3] as NodeJS.WritableStream).on('error', () => undefined).end(`${passphrase}\n`); // stdio above makes it a pipe; not every command reads it
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number]; // as node:child_process documents it
  return { code, stderr };
}

describe('output that cannot be written', () => {
  const folder = new TempFolder();
  let agent: TestAgent;
  beforeAll(async () => {
    await initVault(folder);
    agent = await TestAgent.serve(folder);
    await (await agent.client()).unlock({ passphrase });
  });
  afterAll(async () => {
    await agent.end();
    folder[Symbol.dispose]();
  });
  const env = (): NodeJS.ProcessEnv => cleanEnv({ KMS_AGENT_SOCK: agent.socketPath });
  const noRoom = (program: string): string => `${program}: standard output cannot be written: ENOSPC: no space left on device, write\n`;

  test.each([
    ['kms', kmsProgram, ['key', 'list']],
    ['kms', kmsProgram, ['call', 'rpc.discover']],
    ['kms-agent', agentProgram, ['config', 'schema']],
  ])('%s (%s %j): says so and ends with 2; a reader that went away is no error', async (name, program, args) => {
    expect(await runUnheard(program, args, 'full', folder, env())).toEqual({ code: 2, stderr: noRoom(name) });
    expect(await runUnheard(program, args, 'gone', folder, env())).toEqual({ code: 141, stderr: '' });
  });

  test.each(['full', 'gone'] as const)('init, rekey and salvage (%s): the vault is there, and what to do for want of its recovery code', async (where) => {
    using own = new TempFolder();
    const said = (dataDir: string): object => ({
      code: where === 'full' ? 2 : 141,
      stderr: expect.stringMatching(
        new RegExp(`^kms-agent: standard output cannot be written: .*\\nThe vault in .*${dataDir} is whole.*nobody has it.*kms keyslot add recovery`),
      ) as string,
    });
    expect(await runUnheard(agentProgram, ['init', ...vaultArgs], where, own)).toEqual(said('vault'));
    expect(existsSync(own.join('vault', 'vault.db'))).toBe(true);
    expect(await runUnheard(agentProgram, ['rekey', ...vaultArgs, '--json'], where, own)).toEqual(said('vault'));
    expect(await runUnheard(agentProgram, ['salvage', 'rescued', ...vaultArgs], where, own)).toEqual(said('rescued'));
    await using served = await TestAgent.serve(own);
    await (await served.client()).unlock({ passphrase }); // as it says
  });

  test.each(['full', 'gone'] as const)('kms keyslot add recovery (%s): the keyslot is named, which nobody can use', async (where) => {
    const kms = await agent.client();
    const before = (await kms.listKeyslots()).keyslots.map(({ keyslotId }) => keyslotId);
    const ended = await runUnheard(kmsProgram, ['keyslot', 'add', 'recovery', '--passphrase-fd', '3'], where, folder, env());
    const added = (await kms.listKeyslots()).keyslots.find(({ keyslotId }) => !before.includes(keyslotId));
    expect(ended).toEqual({
      code: where === 'full' ? 2 : 141,
      stderr: expect.stringContaining(`kms keyslot remove ${added?.keyslotId}, and add another.`) as string,
    });
  });
});
