import { serveAgent } from './rig.ts';
import type { Line } from './row.ts';
import { runLoad, type Thoroughness } from './run-load.ts';
import { residentMiB } from './scale.ts';

const counts = [1, 2, 4];

/**
 * The most that several processes behind one socket could give: whole agents side by side, each with keys of its own and a client of its own, which
 * share nothing. Worker processes would also have to share one audit record, the budgets of keys and the limits of policies, so they give less.
 */
export async function sideBySide(operation: 'sign' | 'advanceEncrypt', thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  await using stack = new AsyncDisposableStack();
  const agents = await Promise.all(
    Array.from({ length: Math.max(...counts) }, async () => {
      const agent = await serveAgent(stack);
      const { keyId } = await (await agent.client()).createKey({ keySpec: operation === 'sign' ? 'EC_P256' : 'AES_256' });
      return { agent, keyId };
    }),
  );
  const sums = new Map<number, number[]>(counts.map((count) => [count, []]));
  for (let round = 0; round < thoroughness.rounds; round += 1)
    for (const count of counts) {
      const loads = agents.slice(0, count).map(({ agent, keyId }) => {
        const work = { kind: 'frames', socketPath: agent.socketPath, operation, keyId, bytes: 1024 } as const;
        return runLoad({ name: 'one of several', load: { work, connections: 1, inFlight: 64 / count } }, thoroughness);
      });
      const results = await Promise.all(loads);
      sums.get(count)?.push(results.reduce((sum, { perSecond }) => sum + perSecond, 0));
      onDone();
    }
  const memory = (count: number): number => agents.slice(0, count).reduce((sum, { agent }) => sum + residentMiB(agent.child.pid ?? 0), 0);
  return counts.map((count) => ({
    row: `curve: agents side by side, 64 ${operation} in flight in all`,
    name: `${count}`,
    figures: {
      'per second': [...(sums.get(count) ?? [])].sort((a, b) => a - b)[Math.floor(thoroughness.rounds / 2)] ?? Number.NaN,
      'memory MiB': memory(count),
    },
    verdicts: [],
  }));
}
