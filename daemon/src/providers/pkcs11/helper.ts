import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type CallName, type Calls, type Reply, type Request, TokenFailure } from './messages.ts';

const program = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './process/main.ts' : './process/main.js', import.meta.url));

/** Bytes of what a module prints that are kept for the log. */
const keptOutput = 2048;

interface Waiting {
  readonly call: CallName;
  readonly resolve: (result: never) => void;
  readonly reject: (error: TokenFailure) => void;
  readonly timer: NodeJS.Timeout;
}

/** A helper process: calls go in, answers come out, and a module that hangs or crashes takes nothing but the helper with it. */
export class HelperProcess {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  readonly #gone: Promise<void>;
  #lastId = 0;
  #printed = '';

  /** @param sessions - calls that run side by side. */
  constructor(sessions: number) {
    const env = { ...process.env, UV_THREADPOOL_SIZE: String(sessions + 2) }; // a vendor's module has its own variables
    this.#child = spawn(process.execPath, ['--disable-sigusr1', '--no-warnings', program, String(process.pid)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
      env,
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gone = promise;
    this.#child.on('message', (reply: Reply) => this.#take(reply));
    this.#child.on('error', (error) => this.#fail(error.message));
    this.#child.on('exit', (code, signal) => {
      this.#fail(`the helper ended with ${signal ?? code}`);
      resolve();
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#printed = (this.#printed + chunk.toString()).slice(-keptOutput);
    });
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null && !this.#child.killed;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  /** What the module printed last. */
  get printed(): string {
    return this.#printed.trim();
  }

  /** @throws TokenFailure; kind `fault` when the helper ended, or did not answer in time, which ends it. */
  ask<C extends CallName>(call: C, params: Calls[C]['takes'], timeoutMs: number): Promise<Calls[C]['gives']> {
    const { promise, resolve, reject } = Promise.withResolvers<Calls[C]['gives']>();
    this.#lastId += 1;
    const id = this.#lastId;
    const timer = setTimeout(() => {
      this.#fail(`no answer for ${timeoutMs} ms`);
      void this.kill();
    }, timeoutMs);
    this.#waiting.set(id, { call, resolve, reject, timer });
    if (!this.isRunning) this.#fail('the helper has ended');
    else this.#child.send({ id, call, params } satisfies Request<C>, (error) => error && this.#fail(error.message));
    return promise;
  }

  /** Ends the process, however it is; what it was asked fails. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  #take(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    if (!waiting) return; // "ready", or an answer that came too late
    this.#waiting.delete(reply.id);
    clearTimeout(waiting.timer);
    if ('failure' in reply) waiting.reject(new TokenFailure(reply.failure));
    else waiting.resolve(reply.result as never); // as its call gives
  }

  #fail(why: string): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { call, reject, timer } of all) {
      clearTimeout(timer);
      reject(new TokenFailure({ kind: 'fault', rv: why, call }));
    }
  }
}
