import { isLoss } from './costly-calls.ts';
import type { HelperProcess } from './helper.ts';
import { type TokenAbilities, TokenFailure } from './messages.ts';

/** Tries a token out for the first time: what crashes its module, or hangs, keeps it away once, and then is left out. */
export class FirstProbe {
  /** What cost a helper, and so is left for later. */
  readonly #costly = new Set<string>();

  /** @throws TokenFailure */
  async run(helper: HelperProcess, timeoutMs: number): Promise<TokenAbilities> {
    try {
      const { abilities } = await helper.ask('probe', { costly: [...this.#costly] }, timeoutMs);
      return abilities;
    } catch (error) {
      const isLost = error instanceof TokenFailure && error.failure.kind === 'fault' && isLoss(error.failure);
      if (isLost && helper.trying !== undefined) this.#costly.add(helper.trying);
      throw error;
    }
  }
}
