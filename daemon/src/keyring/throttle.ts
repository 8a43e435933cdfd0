import { AgentError, type ErrorCode, isAgentError } from '@kms-agent/protocol';
import type { Clock } from './clock.ts';

/** First delay after a wrong secret, the factor is two. */
const firstDelayMs = 1000;
const longestDelayMs = 60_000;

/** Attempts of one uid that may wait behind its running one. */
const maxWaiting = 8;
const busyRetryMs = 1000;

interface Attempts {
  failures: number;
  /** On the throttle's clock. */
  until: number;
  waiting: number;
  turn: Promise<unknown>;
}

/**
 * Slows down the uid that gives wrong secrets, and nobody else. Attempts of one uid run one after the other, so that asking in parallel
 * gains nothing; one that comes too early is refused at once.
 */
export class Throttle {
  readonly #clock: Clock;
  readonly #counted: readonly ErrorCode[];
  readonly #attempts = new Map<number, Attempts>();

  /** @param clock - milliseconds that nobody can set. @param counted - what says that a secret was wrong. */
  constructor(clock: Clock, counted: readonly ErrorCode[]) {
    this.#clock = clock;
    this.#counted = counted;
  }

  /**
   * Runs one attempt of a uid and counts its failure.
   * @throws AgentError `ERR_UNLOCK_FAILED` with `retryAfterMs`, at once while the uid must wait; `ERR_BUSY` when eight of its attempts wait already; whatever else `attempt` throws.
   */
  async attempt<T>(uid: number, attempt: () => Promise<T>): Promise<T> {
    const mine = this.#attempts.get(uid) ?? { failures: 0, until: 0, waiting: 0, turn: Promise.resolve() };
    this.#attempts.set(uid, mine);
    if (mine.waiting > maxWaiting) throw new AgentError('ERR_BUSY', { retryAfterMs: busyRetryMs });
    mine.waiting += 1;
    const result = mine.turn.then(() => this.#run(mine, attempt));
    mine.turn = result.catch(() => undefined); // the caller of this attempt hears of it; the next one does not care
    try {
      return await result;
    } finally {
      mine.waiting -= 1;
      if (mine.waiting === 0 && mine.failures === 0) this.#attempts.delete(uid);
    }
  }

  async #run<T>(mine: Attempts, attempt: () => Promise<T>): Promise<T> {
    const waitMs = Math.ceil(mine.until - this.#clock());
    if (waitMs > 0) throw new AgentError('ERR_UNLOCK_FAILED', { retryAfterMs: waitMs, hint: 'Too many wrong secrets; wait before the next try.' });
    try {
      const result = await attempt();
      mine.failures = 0;
      return result;
    } catch (error) {
      if (!isAgentError(error, ...this.#counted)) throw error;
      throw new AgentError(error.code, { ...error.details, retryAfterMs: this.#countFailure(mine) }, { cause: error });
    }
  }

  #countFailure(mine: Attempts): number {
    const delayMs = Math.min(firstDelayMs * 2 ** Math.min(mine.failures, 16), longestDelayMs);
    mine.failures += 1;
    mine.until = this.#clock() + delayMs;
    return delayMs;
  }
}
