import { spawn } from 'node:child_process';
import { AgentError } from '@kms-agent/protocol';
import { programOf } from './own-package.ts';

/** What our items are filed under in the keychain. */
export const keychainService = 'kms-agent';

/** Milliseconds that a person has for a prompt of the keychain, by default. */
export const defaultKeychainTimeoutMs = 30_000;

const program = programOf('os/keychain-process');

/** Asked of keychain-process.ts. */
interface Request {
  readonly account: string;
  readonly act: 'read' | 'store' | 'remove';
  readonly secret?: Uint8Array;
}

/** The keychain of the user's session, one process a call. */
export class Keychain {
  readonly #timeoutMs: number;

  /** @param timeoutMs - after which a call is given up, a prompt that somebody leaves open included. */
  constructor(timeoutMs: number = defaultKeychainTimeoutMs) {
    this.#timeoutMs = timeoutMs;
  }

  /**
   * What the keychain holds for an account.
   * @returns undefined when it gives nothing: there is none, or it is locked. That is never a reason to make a new secret.
   * @throws AgentError `ERR_STORE_UNAVAILABLE` when there is no keychain to ask.
   */
  async read(account: string): Promise<Buffer | undefined> {
    return await run({ account, act: 'read' }, this.#timeoutMs);
  }

  /** Stores a secret and reads it back. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  async write(account: string, secret: Uint8Array): Promise<void> {
    const kept = await run({ account, act: 'store', secret }, this.#timeoutMs);
    const isSame = kept?.equals(secret) ?? false;
    kept?.fill(0);
    if (!isSame) throw unavailable('it did not keep what it was given; is it locked?');
  }

  /** Removes what it holds for an account, if anything. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  async remove(account: string): Promise<void> {
    await run({ account, act: 'remove' }, this.#timeoutMs);
  }
}

const unavailable = (reason: string): AgentError => new AgentError('ERR_STORE_UNAVAILABLE', { hint: `The OS keychain cannot be used: ${reason}` });

/** The one line of a crash report that says what happened. */
const reasonIn = (printed: string): string => /^\w*Error: (.*)$/m.exec(printed)?.[1] ?? printed.trim().split('\n').at(-1) ?? 'it ended without a word';

/** Secrets go both ways as bytes: text, which nobody can overwrite, is the process's own affair. */
function run({ account, act, secret }: Request, timeoutMs: number): Promise<Buffer | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | undefined>();
  const child = spawn(process.execPath, ['--disable-sigusr1', '--no-warnings', program], { stdio: ['pipe', 'pipe', 'pipe'] });
  const [output, complaints]: [Buffer[], Buffer[]] = [[], []];
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
  child.stdin.on('error', () => undefined); // it ended before it read; its end says why
  child.on('error', (error) => reject(unavailable(error.message)));
  child.on('close', (code, signal) => {
    clearTimeout(timer);
    if (code === 0) resolve(takeSecret(output));
    else
      reject(
        unavailable(
          child.killed
            ? `no answer for ${timeoutMs} ms (keychainTimeoutMs)`
            : signal
              ? `its process ended with ${signal}`
              : reasonIn(Buffer.concat(complaints).toString()),
        ),
      );
  });
  child.stdin.write(`${JSON.stringify({ service: keychainService, account, act })}\n`);
  child.stdin.end(secret);
  return promise;
}

/** Reads what keychain-process.ts wrote: nothing, or a byte and the secret. */
function takeSecret(output: readonly Buffer[]): Buffer | undefined {
  const answer = Buffer.concat(output);
  for (const chunk of output) chunk.fill(0);
  return answer.length === 0 ? undefined : answer.subarray(1);
}
