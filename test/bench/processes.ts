import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { TempFolder, TestAgent } from '../kit/agent.ts';
import { initSelfOpening } from '../kit/credential.ts';
import { PassedSocket } from '../kit/passed-socket.ts';
import type { Line } from './row.ts';
import { figuresOf } from './rows.ts';
import { medianOf, runLoad, type Thoroughness } from './run-load.ts';
import { residentMiB } from './scale.ts';
import type { LoadResult } from './work/work.ts';

const counts = [1, 2, 4];
const connections = 16;
const inFlight = 4;

/** Worker processes that accept from one socket. */
class Workers implements AsyncDisposable {
  readonly socket: PassedSocket;
  readonly #folder: TempFolder;
  #children: ChildProcess[] = [];

  private constructor(folder: TempFolder, socket: PassedSocket) {
    this.#folder = folder;
    this.socket = socket;
  }

  /** As many as wanted: each with the same keys in a memory of its own, from a copy of the vault, which it opens by itself. */
  static async start(folder: TempFolder, env: NodeJS.ProcessEnv, count: number): Promise<Workers> {
    const workers = new Workers(new TempFolder(), await PassedSocket.open(folder));
    for (let place = 0; place < count; place += 1) {
      const its = workers.#folder.join(`${place}`);
      execFileSync('cp', ['-a', folder.join('vault'), its]);
      workers.#children.push(await workers.socket.start(its, env));
    }
    return workers;
  }

  get memoryMiB(): number {
    return this.#children.reduce((sum, { pid = 0 }) => sum + residentMiB(pid), 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    }
    this.socket[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}

/** A vault that opens by itself, with a key. */
async function makeVault(folder: TempFolder, keySpec: 'EC_P256' | 'AES_256'): Promise<{ env: NodeJS.ProcessEnv; keyId: string }> {
  const env = await initSelfOpening(folder);
  await using agent = await TestAgent.serve(folder, { env });
  return { env, keyId: (await (await agent.client()).createKey({ keySpec })).keyId };
}

/**
 * A prototype of several processes behind one socket: each is a whole agent with the same keys. They share nothing but the socket, so this is the most
 * that workers could give: those would also have to share one audit record, the budgets of keys and the limits of policies.
 */
export async function workerCurve(operation: 'sign' | 'advanceEncrypt', thoroughness: Thoroughness, onDone: () => void): Promise<Line[]> {
  using folder = new TempFolder();
  const { env, keyId } = await makeVault(folder, operation === 'sign' ? 'EC_P256' : 'AES_256');
  const results = new Map<number, { load: LoadResult; memoryMiB: number }[]>(counts.map((count) => [count, []]));
  for (let round = 0; round < thoroughness.rounds; round += 1)
    for (const count of counts) {
      await using workers = await Workers.start(folder, env, count);
      const work = { kind: 'frames', socketPath: workers.socket.path, operation, keyId, bytes: 1024 } as const;
      const load = await runLoad({ name: `${count} workers`, load: { work, connections, inFlight } }, thoroughness);
      results.get(count)?.push({ load, memoryMiB: workers.memoryMiB });
      onDone();
    }
  return counts.map((count) => {
    const its = results.get(count) ?? [];
    const memoryMiB = Math.max(...its.map((result) => result.memoryMiB));
    return {
      row: `curve by bare frames: processes behind one socket, ${connections} × ${inFlight} ${operation} in flight`,
      name: `${count}`,
      figures: { ...figuresOf(medianOf(its.map(({ load }) => load))), 'memory MiB': memoryMiB },
      verdicts: [],
    };
  });
}
