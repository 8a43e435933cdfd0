import { AgentError } from '@kms-agent/protocol';
import type { Clock } from './clock.ts';

/** First delay after a wrong secret, the factor is two. */
const firstDelayMs = 1000;
const longestDelayMs = 60_000;

/** Slows down the uid that gives wrong secrets, and nobody else. It never blocks: a try that comes too early is refused. */
export class Throttle {
  readonly #clock: Clock;
  readonly #failures = new Map<number, { count: number; until: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Runs one attempt of a uid and counts its failure.
   * @throws AgentError `ERR_UNLOCK_FAILED` with `retryAfterMs`, at once while the uid must wait; whatever else `attempt` throws.
   */
  async attempt<T>(uid: number, attempt: () => Promise<T>): Promise<T> {
    const waitMs = (this.#failures.get(uid)?.until ?? 0) - this.#clock();
    if (waitMs > 0) throw new AgentError('ERR_UNLOCK_FAILED', { retryAfterMs: waitMs, hint: 'Too many wrong secrets; wait before the next try.' });
    try {
      const result = await attempt();
      this.#failures.delete(uid);
      return result;
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== 'ERR_UNLOCK_FAILED') throw error;
      throw new AgentError('ERR_UNLOCK_FAILED', { ...error.details, retryAfterMs: this.#countFailure(uid) }, { cause: error });
    }
  }

  #countFailure(uid: number): number {
    const count = (this.#failures.get(uid)?.count ?? 0) + 1;
    const delayMs = Math.min(firstDelayMs * 2 ** Math.min(count - 1, 16), longestDelayMs);
    this.#failures.set(uid, { count, until: this.#clock() + delayMs });
    return delayMs;
  }
}
