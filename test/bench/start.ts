import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { initVault, TempFolder, TestAgent } from '../kit/agent.ts';
import { compare, type Line } from './row.ts';
import { residentMiB } from './scale.ts';

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** From nothing to a locked agent that says it is ready, beside the least that Node does. */
export async function start(rounds: number, onDone: () => void): Promise<Line[]> {
  using folder = new TempFolder();
  await initVault(folder);
  const [ours, bare] = [
    { ms: [] as number[], mib: [] as number[] },
    { ms: [] as number[], mib: [] as number[] },
  ];
  for (let round = 0; round < rounds; round += 1) {
    let started = performance.now();
    const agent = await TestAgent.serve(folder);
    ours.ms.push(performance.now() - started);
    ours.mib.push(residentMiB(agent.child.pid ?? 0));
    await agent.end();
    started = performance.now();
    execFileSync(process.execPath, ['-e', '']);
    bare.ms.push(performance.now() - started);
    bare.mib.push(Number(execFileSync(process.execPath, ['-p', 'process.memoryUsage.rss()']).toString()) / 1_048_576);
    onDone();
  }
  const row = 'start to ready, locked';
  const figures = ({ ms, mib }: typeof ours): Line['figures'] => ({ ms: median(ms), 'memory MiB': median(mib) });
  const verdicts = [
    compare(median(ours.ms), median(bare.ms), 'node -e "", time', { atMost: 8 }),
    compare(median(ours.mib), median(bare.mib), 'node -e "", memory', { atMost: 2.5 }),
  ];
  return [
    { row, name: 'kms-agent serve', figures: figures(ours), verdicts },
    { row, name: 'node -e ""', figures: figures(bare), verdicts: [] },
  ];
}

/** The packages that the agent loads, and a builtin that takes its time. */
const imports = ['@kms-agent/protocol', 'json-rpc-2.0', 'koffi', 'node:sqlite', 'prom-client', 'winston', 'conf'] as const;

/** What a process costs that only imports something: where the time and the memory of the start go. */
export function startByImport(rounds: number, onDone: () => void): Line[] {
  const daemon = new URL('../../daemon/', import.meta.url);
  const bundled = readdirSync(new URL('dist/bundle/', daemon)).find((name) => name.startsWith('serve-'));
  if (bundled === undefined) throw new Error('the bundle of kms-agent has no part that serves; run: npm run build');
  const serve = { 'all that kms-agent serve imports': 'dist/cli/serve.js', 'the same, bundled': `dist/bundle/${bundled}` };
  const named = new Map(Object.entries(serve).map(([name, path]) => [new URL(path, daemon).href, name]));
  const all = [...imports, ...named.keys()];
  const report = `console.log(performance.now() - started, process.memoryUsage.rss() / 2 ** 20)`;
  const measured = new Map<string, { ms: number[]; mib: number[] }>(all.map((name) => [name, { ms: [], mib: [] }]));
  for (let round = 0; round < rounds; round += 1) {
    for (const [name, { ms, mib }] of measured) {
      const program = `const started = performance.now(); await import(${JSON.stringify(name)}); ${report}`;
      const [took, resident] = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
        cwd: fileURLToPath(daemon),
        stdio: ['ignore', 'pipe', 'ignore'],
      })
        .toString()
        .split(' ')
        .map(Number);
      ms.push(took ?? Number.NaN);
      mib.push(resident ?? Number.NaN);
    }
    onDone();
  }
  return [...measured].map(([name, { ms, mib }]) => ({
    row: 'start by import, each in a process of its own',
    name: named.get(name) ?? name,
    figures: { ms: median(ms), 'memory MiB': median(mib) },
    verdicts: [],
  }));
}
