import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { serveWith, TempFolder, type TestAgent } from '../kit/agent.ts';
import { Wire } from '../kit/wire.ts';

const calls = 50;
const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'whoAmI', params: {} });

/** Nanoseconds that the agent's event loop has been awake (proc_pid_schedstat(5)). */
function awakeNs({ child }: TestAgent): number {
  return Number(readFileSync(`/proc/${child.pid}/schedstat`, 'utf8').split(' ')[0]);
}

/** How long an agent is awake while it is asked something every two milliseconds. */
async function measure(busyPollUs: number): Promise<number> {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { busyPollUs });
  using wire = await Wire.open(agent.socketPath);
  await wire.ask(request);
  const before = awakeNs(agent);
  for (let call = 0; call < calls; call += 1) {
    await wire.ask(request);
    await delay(2);
  }
  return awakeNs(agent) - before;
}

test.skipIf(availableParallelism() === 1)(
  'busyPollUs: an agent that is asked again within that time stays awake in between; one with less sleeps',
  async () => {
    const asleep = await measure(100);
    expect(await measure(10_000)).toBeGreaterThan(2 * asleep);
  },
);
