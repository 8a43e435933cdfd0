import { AgentError } from '@kms-agent/protocol';
import { withAgentErrors } from './failures.ts';
import { describeFailure, type Failure, TokenFailure } from './messages.ts';
import type { Refusals } from './refusals.ts';

export interface KeyCallsOptions {
  readonly token: string;
  readonly refusals: Refusals;
  readonly onNote: (note: string, level: 'warn' | 'info') => void;
  /** Hears of what is answered ERR_HSM_FAILED, or ERR_LIMIT_EXCEEDED because the token is full. */
  readonly onFailed: (failure: Failure) => void;
}

/** Runs what is asked of a token for a key, and remembers which keys were not what they should be, so that their state can say so. */
export class KeyCalls {
  readonly #token: string;
  readonly #refusals: Refusals;
  readonly #onNote: KeyCallsOptions['onNote'];
  readonly #onFailed: KeyCallsOptions['onFailed'];
  /** Versions whose object was last missing, doubled or another one. */
  readonly #unavailable = new Map<string, Extract<Failure, { kind: 'key' }>['why']>();

  constructor({ token, refusals, onNote, onFailed }: KeyCallsOptions) {
    this.#token = token;
    this.#refusals = refusals;
    this.#onNote = onNote;
    this.#onFailed = onFailed;
  }

  isUnavailable(keyVersionId: string): boolean {
    return this.#unavailable.has(keyVersionId);
  }

  markMissing(keyVersionId: string): void {
    this.#unavailable.set(keyVersionId, 'missing');
  }

  /** One that was another key is not mended by being there. */
  markShown(keyVersionId: string): void {
    if (this.#unavailable.get(keyVersionId) === 'missing') this.#unavailable.delete(keyVersionId);
  }

  clear(): void {
    this.#unavailable.clear();
  }

  /** What goes into the log. */
  note(note: string): void {
    this.#onNote(`the token ${this.#token} ${note}`, 'warn');
  }

  #noteFailed(failure: Failure): void {
    this.note(`failed: ${describeFailure(failure)}`);
    this.#onFailed(failure);
  }

  /** @param invalid - the code of what does not open. @throws AgentError */
  async run<T>(
    keyVersionId: string,
    work: () => Promise<T>,
    invalid: 'ERR_INVALID_CIPHERTEXT' | 'ERR_INVALID_KEY_MATERIAL' = 'ERR_INVALID_CIPHERTEXT',
  ): Promise<T> {
    try {
      const result = await withAgentErrors(work);
      this.#unavailable.delete(keyVersionId);
      return result;
    } catch (error) {
      const failure = error instanceof AgentError && error.cause instanceof TokenFailure ? error.cause.failure : undefined;
      if (failure?.kind === 'key') this.#unavailable.set(keyVersionId, failure.why);
      if (failure?.kind === 'unsupported') this.#refusals.note(failure.mechanism, describeFailure(failure));
      if (failure?.kind === 'failed' || failure?.kind === 'full') this.#noteFailed(failure);
      throw failure?.kind === 'invalid' ? new AgentError(invalid) : error;
    }
  }
}
