import { AgentError } from '@kms-agent/protocol';

/** Longest time that a timer holds; more would fire at once. */
const longestMs = 2 ** 31 - 1;

/** @throws RangeError for what is no time: a mistyped option must not mean no time at all. */
export function checkTimeout(timeoutMs: number): number {
  if (timeoutMs === Number.POSITIVE_INFINITY || (timeoutMs > 0 && timeoutMs <= longestMs)) return timeoutMs;
  throw new RangeError(`timeoutMs must be more than 0 and at most ${longestMs}, or Infinity for no limit; it is ${timeoutMs}`);
}

/** What bounds one call from its queue to its answer: one time and one signal for every attempt and every pause between them. */
export class Deadline {
  /** Whether the agent may have got the request. */
  mayHaveRun = false;
  /** Why the last attempt came to nothing; the cause of an `ERR_TIMEOUT`. */
  lastFailure: unknown;
  /** Why nobody waits any longer: `ERR_TIMEOUT` with `mayHaveRun`, or the signal's reason. */
  #end: { readonly reason: unknown } | undefined;
  #rejectWait: ((reason: unknown) => void) | undefined;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #abort = (): void => this.#expire(this.#signal?.reason);

  constructor(timeoutMs: number, signal?: AbortSignal) {
    this.#signal = signal;
    if (timeoutMs <= longestMs) this.#timer = setTimeout(() => this.#expire(this.#timeout()), timeoutMs);
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Waits for some work, no longer than there is time. One wait at a time: it is on the path of every call, and a race of promises costs more. */
  wait<T>(work: Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    work.then(resolve, reject);
    if (this.#end) reject(this.#end.reason);
    else this.#rejectWait = reject;
    return promise;
  }

  /** @throws what ended it. */
  check(): void {
    if (this.#end) throw this.#end.reason;
  }

  /** Lets go of timer and signal. */
  release(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#abort);
  }

  #timeout(): AgentError {
    return new AgentError('ERR_TIMEOUT', { mayHaveRun: this.mayHaveRun }, this.lastFailure === undefined ? {} : { cause: this.lastFailure });
  }

  #expire(reason: unknown): void {
    this.#end ??= { reason };
    this.#rejectWait?.(reason);
  }
}
