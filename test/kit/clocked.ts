import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type AgentClient, connect } from '@kms-agent/client';
import { Vault } from '../../daemon/src/vault/vault.ts';
import { passphrase, repository, type TempFolder } from './agent.ts';

/** What a test may set of an agent's surroundings; what is absent stays. */
export interface ClockMessage {
  wallMs?: number;
  bootMs?: number;
  /** Of bootMs, how long the machine was suspended. */
  sleptMs?: number;
  bootId?: string;
  /** The unit that every caller seems to run in; null for none. */
  service?: string | null;
}

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

/** Tests start hundreds of these agents from their sources; the types are taken out once. */
const compileCache = join(repository, 'node_modules', '.cache', 'kms-agent-tests');

/** When tests begin. */
export const startMs = Date.parse('2030-01-01T00:00:00.000Z');

/** Makes a vault without keys in a folder, for an agent with clocks of its own; its passphrase costs little. */
export async function makeVault(folder: TempFolder): Promise<void> {
  const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
  const slots = [{ type: 'passphrase', passphrase }] as const;
  const { vault } = await Vault.create({ dataDir: folder.join('vault'), clock: () => startMs, argon2Cost, slots });
  vault.close();
}

/** A real agent on a vault in a folder, with clocks of its own. */
export class ClockedAgent implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly kms: AgentClient;
  readonly socketPath: string;
  readonly #log: { text: string };
  #now: Required<Omit<ClockMessage, 'service'>>;

  private constructor(child: ChildProcess, socketPath: string, kms: AgentClient, now: Required<Omit<ClockMessage, 'service'>>, log: { text: string }) {
    this.child = child;
    this.socketPath = socketPath;
    this.kms = kms;
    this.#now = now;
    this.#log = log;
  }

  /** What it wrote to its log. */
  get log(): string {
    return this.#log.text;
  }

  /** Starts it and unlocks the vault; with `from`, the clocks go on as they were there. */
  static async start(
    folder: TempFolder,
    settings: object = {},
    { from, unlock = true, acceptRollback = '', env = {} }: { from?: ClockMessage; unlock?: boolean; acceptRollback?: string; env?: NodeJS.ProcessEnv } = {},
  ): Promise<ClockedAgent> {
    const now = { wallMs: startMs, bootMs: hourMs, sleptMs: 0, bootId: 'first boot', ...from };
    const program = fileURLToPath(new URL('./clocked-process.ts', import.meta.url));
    const socketPath = folder.join(`clocked-${Math.random().toString(36).slice(2, 8)}.sock`);
    const args = [folder.join('vault'), socketPath, JSON.stringify({ lookIntervalMs: 20, ...settings }), JSON.stringify(now), acceptRollback];
    const child = fork(program, args, {
      execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, ...env, NODE_COMPILE_CACHE: compileCache },
    });
    const log = { text: '' };
    child.stderr?.on('data', (chunk: Buffer) => {
      log.text += chunk.toString();
    });
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => {
        throw new Error(`the agent ended: ${log.text}`);
      }),
    ]);
    const kms = await connect({ socketPath });
    if (unlock) await kms.unlock({ passphrase });
    return new ClockedAgent(child, socketPath, kms, now, log);
  }

  get now(): Required<Omit<ClockMessage, 'service'>> {
    return this.#now;
  }

  /** Time passes: both clocks go on. */
  async advance(ms: number): Promise<void> {
    await this.set({ wallMs: this.#now.wallMs + ms, bootMs: this.#now.bootMs + ms });
  }

  /** The machine is suspended, and nobody said so before. */
  async sleep(ms: number): Promise<void> {
    await this.set({ wallMs: this.#now.wallMs + ms, bootMs: this.#now.bootMs + ms, sleptMs: this.#now.sleptMs + ms });
  }

  async set(message: ClockMessage): Promise<void> {
    const { service: _, ...clocks } = message;
    this.#now = { ...this.#now, ...clocks };
    this.child.send(message);
    await once(this.child, 'message');
  }

  /** Ends it by a signal. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.kms.close();
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.kill(signal);
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
