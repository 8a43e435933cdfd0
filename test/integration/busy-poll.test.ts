import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { serveWith, TempFolder, type TestAgent } from '../kit/agent.ts';
import { Wire } from '../kit/wire.ts';

/** So few that they are nearly over before the agent looks again at whether others want the cores. */
const calls = 100;
const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'whoAmI', params: {} });

/** Nanoseconds that the agent's event loop has been awake (proc_pid_schedstat(5)). */
function awakeNs({ child }: TestAgent): number {
  return Number(readFileSync(`/proc/${child.pid}/schedstat`, 'utf8').split(' ')[0]);
}

/** Waits without sleeping: a timer takes longer. */
function spend(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

/** How long an agent is awake while it is asked something every half of a millisecond, and in the 200 ms after that. */
async function measure(busyPollUs: number): Promise<{ asked: number; left: number }> {
  using folder = new TempFolder();
  await using agent = await serveWith(folder, { busyPollUs });
  using wire = await Wire.open(agent.socketPath);
  const started = awakeNs(agent);
  for (let call = 0; call < calls; call += 1) {
    await wire.ask(request);
    spend(0.5);
  }
  const ended = awakeNs(agent);
  await delay(200);
  return { asked: ended - started, left: awakeNs(agent) - ended };
}

test.skipIf(availableParallelism() === 1 || !existsSync('/proc/self/schedstat'))(
  'busyPollUs: an agent that is asked again within that time stays awake in between, and sleeps when nobody asks',
  { timeout: 120_000 },
  async () => {
    const compare = async (): Promise<number> => {
      const [asleep, awake] = [await measure(0), await measure(1000)];
      expect(awake.left).toBeLessThan(20e6); // of 200
      return awake.asked / asleep.asked;
    };
    await expect.poll(compare, { timeout: 100_000 }).toBeGreaterThan(1.5); // where others want the cores it sleeps too
  },
);
