import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, createReadStream, existsSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { cleanEnv, kmsProgram, TempFolder, type TestAgent } from '../kit/agent.ts';
import { compare, type Line } from './row.ts';
import { WrongAnswer } from './work/work.ts';

const mebibyte = 2 ** 20;

/** A program that encrypts a file into another. */
interface Way {
  readonly name: string;
  readonly command: readonly string[];
}

interface Run {
  readonly seconds: number;
  readonly peakMiB: number;
}

function makeFile(path: string, mebibytes: number): void {
  const chunk = randomBytes(mebibyte);
  const file = openSync(path, 'w');
  for (let written = 0; written < mebibytes; written += 1) {
    chunk.writeUInt32BE(written);
    writeSync(file, chunk);
  }
  closeSync(file);
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Looks at the most memory that a process had, for as long as it runs (proc(5), VmHWM). */
function watchPeak(child: ChildProcess): () => number {
  let peakMiB = 0;
  const timer = setInterval(() => {
    try {
      peakMiB = Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? peakMiB * 1024) / 1024;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' && (error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // it has ended
    }
  }, 20);
  return () => {
    clearInterval(timer);
    return peakMiB;
  };
}

async function run([program = '', ...args]: readonly string[], env: NodeJS.ProcessEnv): Promise<Run> {
  const started = performance.now();
  const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  const peak = watchPeak(child);
  const [code] = (await once(child, 'exit')) as [number | null];
  const peakMiB = peak();
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}`);
  return { seconds: (performance.now() - started) / 1000, peakMiB };
}

const durableAge = 'age, then sync(1) of its file';

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

function waysInto(folder: TempFolder, plain: string, output: string, keyId: string, missing: string[]): Way[] {
  const ways: Way[] = [
    { name: 'kms encrypt-file', command: [process.execPath, kmsProgram, 'encrypt-file', plain, '--force', '--key', keyId, '--output', output] },
  ];
  if (existsSync('/usr/bin/age')) {
    const identity = folder.join('age-key.txt');
    execFileSync('age-keygen', ['-o', identity], { stdio: 'ignore' });
    const recipient = execFileSync('age-keygen', ['-y', identity]).toString().trim();
    const age = ['age', '-r', recipient, '-o', output, plain];
    // ours says that a file is there when the disk has it; age leaves it to the kernel
    ways.push({ name: 'age', command: age }, { name: durableAge, command: ['sh', '-c', '"$@" && exec sync "$0"', output, ...age] });
  } else missing.push('age');
  writeFileSync(folder.join('pass'), randomBytes(16).toString('hex'), { mode: 0o600 });
  const openssl = ['enc', '-aes-256-ctr', '-pbkdf2', '-pass', `file:${folder.join('pass')}`, '-in', plain, '-out', output];
  ways.push({ name: 'openssl enc -aes-256-ctr, not authenticated', command: ['openssl', ...openssl] });
  return ways;
}

/**
 * A large file, encrypted by us, by age and by OpenSSL's program, from disk to disk. In every other round in the opposite order: what the kernel needs
 * for the same writes depends on whose memory it uses again.
 */
export async function streams(agent: TestAgent, keyId: string, mebibytes: number, rounds: number, missing: string[], onDone: () => void): Promise<Line[]> {
  using folder = new TempFolder();
  const [plain, output, opened] = [folder.join('plain'), folder.join('sealed'), folder.join('opened')];
  makeFile(plain, mebibytes);
  const env = cleanEnv({ KMS_AGENT_SOCK: agent.socketPath });
  const ways = waysInto(folder, plain, output, keyId, missing);
  const runs = new Map<string, Run[]>(ways.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round += 1)
    for (const { name, command } of round % 2 === 0 ? ways : ways.toReversed()) {
      rmSync(output, { force: true });
      execFileSync('sync'); // nobody pays for what another one has left for the disk to take
      const its = await run(command, env);
      onDone();
      if (round > 0) runs.get(name)?.push(its); // the first of each pays for memory that the machine has not used before: up to four times as long
      if (round > 0 || name !== 'kms encrypt-file') continue;
      await run([process.execPath, kmsProgram, 'decrypt-file', output, '--output', opened], env);
      if ((await hashOf(opened)) !== (await hashOf(plain))) throw new WrongAnswer('kms decrypt-file');
      rmSync(opened);
    }
  const rate = (name: string): number => mebibytes / median(runs.get(name)?.map(({ seconds }) => seconds) ?? []);
  const row = `a file of ${mebibytes.toLocaleString('en-US')} MiB, encrypted from disk to disk`;
  return ways.map(({ name }, index) => ({
    row,
    name,
    figures: { 'MiB a second': rate(name), 'peak MiB': median(runs.get(name)?.map(({ peakMiB }) => peakMiB) ?? []) },
    verdicts: index > 0 || !runs.has('age') ? [] : ['age', durableAge].map((peer) => compare(rate(name), rate(peer), peer, { atLeast: 0.8 })),
  }));
}
