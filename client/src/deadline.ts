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
  /** Rejects when the time is over (`ERR_TIMEOUT` with `mayHaveRun`) or the signal says so (its reason). */
  readonly expired: Promise<never>;
  /** Whether the agent may have got the request. */
  mayHaveRun = false;
  isOver = false;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #abort: () => void;

  constructor(timeoutMs: number, signal?: AbortSignal) {
    const { promise, reject } = Promise.withResolvers<never>();
    this.expired = promise;
    promise.catch(() => undefined); // whoever waits is in a race with it; nobody may be waiting
    const end = (reason: unknown): void => {
      this.isOver = true;
      reject(reason);
    };
    this.#signal = signal;
    this.#abort = () => end(signal?.reason);
    this.#timer = timeoutMs > longestMs ? undefined : setTimeout(() => end(new AgentError('ERR_TIMEOUT', { mayHaveRun: this.mayHaveRun })), timeoutMs);
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Waits for some work, no longer than there is time. */
  async wait<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.expired]);
  }

  /** Lets go of timer and signal. */
  end(): void {
    this.isOver = true;
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener('abort', this.#abort);
  }
}
