import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { expect, test } from 'vitest';
import { serveWith, TempFolder, type TestAgent } from '../kit/agent.ts';
import { Wire } from '../kit/wire.ts';

const calls = 500;
const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'whoAmI', params: {} });

/** How often the agent's main thread went to sleep of its own accord (proc_pid_status(5)). */
function sleepsOf({ child }: TestAgent): number {
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]);
}

/** Sleeps of an agent while it answers calls, each of which follows the answer before. */
async function countSleeps(busyPollUs: number): Promise<number> {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { busyPollUs });
  using wire = await Wire.open(agent.socketPath);
  await wire.ask(request);
  const before = sleepsOf(agent);
  for (let call = 0; call < calls; call += 1) await wire.ask(request);
  return sleepsOf(agent) - before;
}

test.skipIf(availableParallelism() === 1)('busyPollUs: an agent that is asked again soon does not sleep in between; 0 lets it sleep each time', async () => {
  const asleep = await countSleeps(0);
  expect(asleep).toBeGreaterThan(calls / 2); // else this says nothing
  expect(await countSleeps(10_000)).toBeLessThan(asleep / 2);
});
