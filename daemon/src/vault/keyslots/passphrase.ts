import { spawn } from 'node:child_process';
import { AgentError } from '@kms-agent/protocol';
import { programOf } from '../../os/own-package.ts';

/** Cost of Argon2id (RFC 9106 section 3.1). */
export interface Argon2Cost {
  readonly memoryKiB: number;
  readonly passes: number;
  readonly parallelism: number;
}

/** 64 MiB, t = 3, p = 4: the second recommendation of RFC 9106 section 4, and the least that init takes. */
export const defaultCost: Argon2Cost = { memoryKiB: 65_536, passes: 3, parallelism: 4 };

/** Derivations that may wait for the running one. */
const maxWaiting = 8;
const deadlineMs = 30_000;

const program = programOf('vault/keyslots/argon2-process');

/** Derives keys from passphrases, one at a time, each in a short-lived process. */
export class Argon2Queue {
  #waiting = 0;
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @returns the 32-byte key; the caller zeroes it.
   * @throws AgentError `ERR_BUSY` when eight derivations wait already; `ERR_TIMEOUT` past the deadline.
   */
  async derive(passphrase: string, salt: Uint8Array, cost: Argon2Cost): Promise<Buffer> {
    if (this.#waiting > maxWaiting) throw new AgentError('ERR_BUSY', { retryAfterMs: 1000 });
    this.#waiting += 1;
    const derived = this.#turn.then(() => runProcess(passphrase, salt, cost));
    this.#turn = derived.catch(() => undefined); // the caller hears of it; the next in the queue does not care
    try {
      return await derived;
    } finally {
      this.#waiting -= 1;
    }
  }
}

function runProcess(passphrase: string, salt: Uint8Array, cost: Argon2Cost): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const child = spawn(process.execPath, ['--disable-sigusr1', '--no-warnings', program], { stdio: ['pipe', 'pipe', 'pipe'], env: {} });
  const output: Buffer[] = [];
  const complaints: Buffer[] = [];
  const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs);
  const fail = (cause: Error): void => reject(new AgentError(child.killed ? 'ERR_TIMEOUT' : 'ERR_INTERNAL', {}, { cause }));
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
  child.stdin.on('error', fail);
  child.on('error', fail);
  child.on('close', (code) => {
    clearTimeout(timer);
    const key = Buffer.concat(output);
    if (code === 0 && key.length === 32) resolve(key);
    else fail(new Error(`the keyslot process ended with ${code}: ${Buffer.concat(complaints).toString()}`));
    for (const chunk of output) chunk.fill(0);
  });
  const message = Buffer.from(passphrase.normalize('NFC'));
  child.stdin.write(`${JSON.stringify({ ...cost, salt: Buffer.from(salt).toString('base64') })}\n`);
  child.stdin.end(message, () => message.fill(0));
  return promise;
}
