import { parseArgs } from 'node:util';
import type { Target } from './target.ts';
import { targets } from './targets.ts';

/*
 * `npm run fuzz -- [--minutes N] [--target NAME] [--seed S]`: each target for so many minutes (1), from a seed that is printed.
 * A finding ends its target, and makes the exit status 1.
 */

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '1' }, target: { type: 'string' }, seed: { type: 'string' } } });
const minutes = Number(values.minutes);
const firstSeed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed);
const chosen = targets.filter(({ name }) => values.target === undefined || name === values.target);
if (!(minutes > 0) || !Number.isSafeInteger(firstSeed) || chosen.length === 0) {
  console.error(`npm run fuzz -- [--minutes N] [--target ${targets.map(({ name }) => name).join('|')}] [--seed S]`);
  process.exit(2);
}

function showProgress(name: string, runs: number, sinceMs: number): void {
  const seconds = (performance.now() - sinceMs) / 1000;
  const line = `${name.padEnd(10)} ${String(runs).padStart(9)} runs  ${(runs / seconds).toFixed(0).padStart(6)}/s  ${seconds.toFixed(0).padStart(5)} s`;
  if (process.stderr.isTTY) process.stderr.write(`\r${line}`);
  else console.error(line);
}

/** @returns whether the promise held. */
async function fuzz({ name, promise, runs: runsInTest, open }: Target): Promise<boolean> {
  await using stack = new AsyncDisposableStack();
  const prove = await open(stack);
  console.error(`\n${name}: ${promise}`);
  const [start, end] = [performance.now(), performance.now() + minutes * 60_000];
  const runsOfPart = Math.ceil(runsInTest / 10); // between two looks at the clock
  let shown = start;
  let runs = 0;
  for (let seed = firstSeed; performance.now() < end; seed += 1) {
    const outcome = await prove({ seed, runs: runsOfPart });
    runs += outcome.runs;
    if (outcome.finding !== undefined) {
      console.error(`\nFOUND after ${runs} runs, again with: npm run fuzz -- --target ${name} --seed ${seed}\n${outcome.finding}`);
      return false;
    }
    if (performance.now() - shown < (process.stderr.isTTY ? 500 : 30_000)) continue;
    shown = performance.now();
    showProgress(name, runs, start);
  }
  showProgress(name, runs, start);
  return true;
}

console.error(`seed ${firstSeed}`);
for (const target of chosen) if (!(await fuzz(target))) process.exitCode = 1;
