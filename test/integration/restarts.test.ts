import { once } from 'node:events';
import { connect } from '@kms-agent/client';
import { expect, test } from 'vitest';
import { TempFolder } from '../kit/agent.ts';
import { initSelfOpening } from '../kit/credential.ts';
import { PassedSocket } from '../kit/passed-socket.ts';

const restarts = 6;

test('restarts that follow each other at once: none of 16 clients loses a call, and no call outlasts two of them', async () => {
  using folder = new TempFolder();
  const env = await initSelfOpening(folder);
  using socket = await PassedSocket.open(folder);
  let [started, isOver] = [0, false];
  const [spans, failures]: [number[], unknown[]] = [[], []];
  const work = async (): Promise<void> => {
    const kms = await connect({ socketPath: socket.path, timeoutMs: 300_000 }); // how often is asked here, not how long
    while (!isOver) {
      const from = started;
      await kms.advanceEncrypt({ plaintext: Buffer.from('x') }).catch((error: unknown) => failures.push(error));
      spans.push(started - from);
    }
    kms.close();
  };
  const clients = Array.from({ length: 16 }, work);
  for (;;) {
    const agent = await socket.start(folder.join('vault'), env);
    started += 1;
    if (started > restarts) isOver = true;
    if (isOver) await Promise.all(clients);
    agent.kill('SIGTERM'); // at once, as systemctl restart in a loop does it
    expect(await once(agent, 'exit')).toEqual([0, null]);
    if (isOver) break;
  }
  console.log(`16 clients, ${restarts} restarts: ${spans.length} calls, the longest over ${Math.max(...spans)} of them`);
  expect(failures).toEqual([]);
  expect(Math.max(...spans)).toBeLessThanOrEqual(2);
}, 120_000);
