import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { agentProgram, cleanEnv, initVault, passphrase, TempFolder } from '../kit/agent.ts';

/** An agent that logs each request to a pipe that nobody reads. */
async function startUnread(folder: TempFolder): Promise<ChildProcess> {
  await initVault(folder);
  writeFileSync(folder.join('config.json'), JSON.stringify({ logLevel: 'debug', maxUnreadLogBytes: 4096 }), { mode: 0o600 });
  const args = ['serve', '--config', folder.join('config.json'), '--data-dir', folder.join('vault'), '--socket', folder.join('agent.sock')];
  const child = spawn(process.execPath, [agentProgram, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: cleanEnv() });
  await once(child.stdout, 'data');
  return child;
}

const requests = 4000; // their lines are more than the pipe and the limit hold

test('a reader of the log that does not read holds up nobody, and hears later how many lines it missed', async () => {
  using folder = new TempFolder();
  const child = await startUnread(folder);
  await using kms = await connect({ socketPath: folder.join('agent.sock') });
  await kms.unlock({ passphrase });
  for (let sent = 0; sent < requests; sent += 200) await Promise.all(Array.from({ length: 200 }, () => kms.generateRandom({ numberOfBytes: 1 })));
  let log = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  await expect
    .poll(async () => ((await kms.status()).state === 'UNLOCKED' ? log : ''), { timeout: 20_000 })
    .toMatch(/"\d+ lines of the log were dropped: nobody read them"/);
  child.kill('SIGTERM');
  expect(await once(child, 'close')).toEqual([0, null]); // and everything that it wrote was read
  const told = log.split('\n').filter((line) => line.includes('"method":"generateRandom"')).length;
  const missed = [...log.matchAll(/"(\d+) lines of the log were dropped/g)].reduce((sum, [, lines]) => sum + Number(lines), 0);
  expect(told).toBeLessThan(requests);
  expect(told + missed).toBeGreaterThanOrEqual(requests);
});

test('a reader of the log that goes away ends nothing', async () => {
  using folder = new TempFolder();
  const child = await startUnread(folder);
  await using kms = await connect({ socketPath: folder.join('agent.sock') });
  await kms.unlock({ passphrase });
  child.stderr?.destroy();
  for (let sent = 0; sent < 200; sent += 1) await kms.generateRandom({ numberOfBytes: 1 });
  expect(child.exitCode).toBeNull();
  child.kill('SIGTERM');
  expect(await once(child, 'exit')).toEqual([0, null]);
});
