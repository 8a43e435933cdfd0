import type { TestAgent } from '../kit/agent.ts';
import { compare, type Line } from './row.ts';
import { figuresOf } from './rows.ts';
import { medianOf, runLoad, type Thoroughness, type Variant } from './run-load.ts';
import type { LoadResult } from './work/work.ts';

/** A polite client, which asks two hundred times a second, alone and beside one that always has 256 requests in flight. */
export async function fairness(agent: TestAgent, keyId: string, thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  const work = { kind: 'agent', socketPath: agent.socketPath, operation: 'advanceEncrypt', keyId, bytes: 1024 } as const;
  const polite: Variant = { name: 'the polite client', load: { work, connections: 1, inFlight: 1, ratePerSecond: 200 } };
  const greedy: Variant = { name: 'the greedy client', load: { work, connections: 1, inFlight: 256 } };
  const rounds: { alone: LoadResult; beside: LoadResult; greedy: LoadResult }[] = [];
  for (let round = 0; round < thoroughness.rounds; round += 1) {
    const alone = await runLoad(polite, thoroughness);
    const [beside, crowd] = await Promise.all([
      runLoad(polite, { ...thoroughness, warmUpSeconds: thoroughness.warmUpSeconds + 0.5 }), // inside of the other's time
      runLoad(greedy, { ...thoroughness, seconds: thoroughness.seconds + 1.5 }),
    ]);
    rounds.push({ alone, beside, greedy: crowd });
    onDone();
  }
  const of = (pick: keyof (typeof rounds)[number]): LoadResult => medianOf(rounds.map((round) => round[pick]));
  const [alone, beside] = [of('alone'), of('beside')];
  const row = 'a polite client, 200 a second, beside one with 256 in flight';
  return [
    { row, name: 'polite, beside', figures: figuresOf(beside), verdicts: [compare(beside.p99Us, alone.p99Us, 'its p99 alone', { atMost: 5 })] },
    { row, name: 'polite, alone', figures: figuresOf(alone), verdicts: [] },
    { row, name: 'greedy', figures: figuresOf(of('greedy')), verdicts: [] },
  ];
}
