import { spawnSync } from 'node:child_process';
import { expect, test, vi } from 'vitest';
import { agentProgram, cleanEnv, initVault, kmsProgram, passphrase, TempFolder, TestAgent } from '../kit/agent.ts';

vi.setConfig({ testTimeout: 180_000 }); // many processes, one after the other

const kms = `'${process.execPath}' '${kmsProgram}'`;

/** Runs a pipe whose writer is slow: only a shell's pipe is a pipe, what Node makes is a socket. */
function runPipe(command: string, socketPath: string): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('bash', ['--norc', '-euo', 'pipefail', '-c', command], { encoding: 'utf8', env: cleanEnv({ KMS_AGENT_SOCK: socketPath }) });
}

test('kms: waits for what comes slowly through a pipe, piece by piece', async () => {
  await using agent = await TestAgent.dev();
  const slow = '(sleep 2; printf hello; sleep 1; printf " world")';
  expect(runPipe(`${slow} | ${kms} encrypt | ${kms} decrypt`, agent.socketPath)).toMatchObject({ status: 0, stdout: 'hello world', stderr: '' });
  expect(runPipe(`${slow} | ${kms} encrypt-file | ${kms} decrypt-file`, agent.socketPath)).toMatchObject({ status: 0, stdout: 'hello world', stderr: '' });
});

test('kms unlock and kms-agent init: a passphrase that comes slowly through standard input', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  await using agent = await TestAgent.serve(folder);
  const slow = `(sleep 2; echo '${passphrase}')`;
  expect(runPipe(`${slow} | ${kms} unlock --passphrase-fd 0`, agent.socketPath)).toMatchObject({ status: 0, stderr: '' });
  const init = `${slow} | '${process.execPath}' '${agentProgram}' init --data-dir '${folder.join('other')}' --passphrase-fd 0`;
  expect(runPipe(init, agent.socketPath)).toMatchObject({ status: 0, stdout: expect.stringMatching(/recovery code/i) as string });
});
