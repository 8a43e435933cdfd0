import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { renameSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Readable } from 'node:stream';
import { connect } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { agentProgram, cleanEnv, initVault, TempFolder } from '../kit/agent.ts';

test('serve: listens on the descriptor that a supervisor passes, through the change of flags, under the same pid', async () => {
  using folder = new TempFolder();
  await initVault(folder);
  const socketPath = folder.join('passed.sock');
  const server = createServer();
  server.listen(folder.join('first.sock'));
  await once(server, 'listening');
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle; // node:net has no public way to it
  const command = `export LISTEN_FDS=1 LISTEN_PID=$$; exec "${process.execPath}" "${agentProgram}" serve --data-dir "${folder.join('vault')}" --socket "${folder.join('unused.sock')}"`;
  const child = spawn('sh', ['-c', command], { stdio: ['ignore', 'pipe', 'pipe', fd], env: cleanEnv() });
  const exited = once(child, 'exit');
  renameSync(folder.join('first.sock'), socketPath); // closing here would take the file away, and not closing would take the connections
  server.close();
  let said = '';
  (child.stdout as Readable).on('data', (chunk: Buffer) => (said += chunk.toString())); // stdio above makes it a pipe
  (child.stderr as Readable).resume();
  const client = await connect({ socketPath });
  expect(await client.status()).toMatchObject({ state: 'LOCKED' });
  await expect(connect({ socketPath: folder.join('unused.sock') })).rejects.toMatchObject({ code: 'ERR_UNREACHABLE' });
  client.close();
  child.kill('SIGTERM');
  expect(await exited).toEqual([0, null]);
  expect(said).toBe(''); // who passed it knows where it is, and standard output is the journal
});
