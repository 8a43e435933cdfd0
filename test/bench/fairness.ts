import type { TestAgent } from '../kit/agent.ts';
import { compare, type Line } from './row.ts';
import { figuresOf } from './rows.ts';
import { medianOf, runLoad, type Thoroughness, type Variant } from './run-load.ts';
import type { LoadResult } from './work/work.ts';

/** Figures of one load alone, beside another, and of that other. */
interface Beside {
  readonly alone: LoadResult;
  readonly beside: LoadResult;
  readonly other: LoadResult;
}

async function measureBeside(load: Variant, other: Variant, thoroughness: Thoroughness, onDone: () => void): Promise<Beside> {
  const rounds: Beside[] = [];
  for (let round = 0; round < thoroughness.rounds; round += 1) {
    const alone = await runLoad(load, thoroughness);
    const [beside, its] = await Promise.all([
      runLoad(load, { ...thoroughness, warmUpSeconds: thoroughness.warmUpSeconds + 0.5 }), // both are there before either counts
      runLoad(other, { ...thoroughness, warmUpSeconds: thoroughness.warmUpSeconds + 0.5 }),
    ]);
    rounds.push({ alone, beside, other: its });
    onDone();
  }
  const of = (pick: keyof Beside): LoadResult => medianOf(rounds.map((round) => round[pick]));
  return { alone: of('alone'), beside: of('beside'), other: of('other') };
}

/** A polite client, which asks two hundred times a second, alone and beside one that always has 256 requests in flight. */
export async function fairness(agent: TestAgent, keyId: string, thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  const work = { kind: 'agent', socketPath: agent.socketPath, operation: 'advanceEncrypt', keyId, bytes: 1024 } as const;
  const polite: Variant = { name: 'the polite client', load: { work, connections: 1, inFlight: 1, ratePerSecond: 200 } };
  const greedy: Variant = { name: 'the greedy client', load: { work, connections: 1, inFlight: 256 } };
  const { alone, beside, other } = await measureBeside(polite, greedy, thoroughness, onDone);
  const row = 'a polite client, 200 a second, beside one with 256 in flight';
  return [
    { row, name: 'polite, beside', figures: figuresOf(beside), verdicts: [compare(beside.p99Us, alone.p99Us, 'its p99 alone', { atMost: 5 })] },
    { row, name: 'polite, alone', figures: figuresOf(alone), verdicts: [] },
    { row, name: 'greedy', figures: figuresOf(other), verdicts: [] },
  ];
}

/** What takes microseconds, alone and beside what takes milliseconds. */
export async function quickBesideSlow(
  { socketPath }: TestAgent,
  keys: { readonly ec: string; readonly rsa: string },
  thoroughness: Thoroughness,
  onDone: () => void,
): Promise<Line[]> {
  const ask = (keyId: string, inFlight: number): Variant['load'] => ({
    work: { kind: 'frames', socketPath, operation: 'sign', keyId, bytes: 1024 },
    connections: 1,
    inFlight,
  });
  const { alone, beside, other } = await measureBeside(
    { name: 'EC_P256', load: ask(keys.ec, 2) },
    { name: 'RSA_2048', load: ask(keys.rsa, 8) },
    thoroughness,
    onDone,
  );
  const row = 'by bare frames: sign EC_P256, 2 in flight, beside RSA_2048, 8 in flight';
  return [
    { row, name: 'EC_P256, beside', figures: figuresOf(beside), verdicts: [] },
    { row, name: 'EC_P256, alone', figures: figuresOf(alone), verdicts: [] },
    { row, name: 'RSA_2048', figures: figuresOf(other), verdicts: [] },
  ];
}
