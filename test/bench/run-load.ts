import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cleanEnv } from '../kit/agent.ts';
import type { LoadResult, LoadSpec } from './work/work.ts';

const program = fileURLToPath(new URL('./load.ts', import.meta.url));

/** A load with its name. */
export interface Variant {
  readonly name: string;
  readonly load: Omit<LoadSpec, 'seconds' | 'warmUpSeconds'>;
  readonly env?: NodeJS.ProcessEnv;
  /** Whether answers that are errors are a figure of the row; elsewhere they end the bench. */
  readonly mayFail?: boolean;
}

/** How long and how often everything is measured. */
export interface Thoroughness {
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** One load, in a process of its own. @throws Error with what it complained of; for answers that are errors. */
export async function runLoad({ name, load, env = {}, mayFail = false }: Variant, { seconds, warmUpSeconds }: Thoroughness): Promise<LoadResult> {
  const spec: LoadSpec = { ...load, seconds, warmUpSeconds };
  const args = ['--disable-warning=ExperimentalWarning', program, JSON.stringify(spec)];
  const { stdout } = await promisify(execFile)(process.execPath, args, { env: cleanEnv(env) });
  const result = JSON.parse(stdout) as LoadResult;
  if (result.errors > 0 && !mayFail) throw new Error(`${name}: ${result.errors} calls were answered with errors`);
  return result;
}

/** All loads in turns, so that a machine that is slower for a while is so for each. @returns the median of each figure. */
export async function runInterleaved(variants: readonly Variant[], thoroughness: Thoroughness, onDone: () => void): Promise<Map<string, LoadResult>> {
  const results = new Map<string, LoadResult[]>(variants.map(({ name }) => [name, []]));
  for (let round = 0; round < thoroughness.rounds; round += 1)
    for (const variant of variants) {
      results.get(variant.name)?.push(await runLoad(variant, thoroughness));
      onDone();
    }
  return new Map([...results].map(([name, all]) => [name, medianOf(all)]));
}

/** The median of each figure; of errors the sum. */
export function medianOf(all: readonly LoadResult[]): LoadResult {
  const median = (pick: (result: LoadResult) => number): number => all.map(pick).sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN;
  return {
    count: median(({ count }) => count),
    perSecond: median(({ perSecond }) => perSecond),
    p50Us: median(({ p50Us }) => p50Us),
    p99Us: median(({ p99Us }) => p99Us),
    errors: all.reduce((sum, { errors }) => sum + errors, 0),
  };
}
