import { setTimeout as delay } from 'node:timers/promises';
import { Backoff, longestMs, type Waits } from './backoff.ts';
import type { Failure } from './messages.ts';

/** A wait and the try after it. */
interface Round {
  readonly nap: AbortController;
  readonly tried: PromiseWithResolvers<void>;
  readonly isSlow: boolean;
  /** On the clock of performance.now(). */
  readonly beginTime: number;
}

/** How a token that is down is tried again. */
export interface ComeBackOptions {
  /** A wait that a failure asks for by itself. */
  readonly leastMs: (failure: Failure) => number | undefined;
  /** Gives why it failed; undefined when nothing is to be tried any more. */
  readonly tryAgain: () => Promise<Failure | undefined>;
  readonly waits?: Waits | undefined;
}

/** Tries a token again by itself, until that succeeds or somebody stops it. */
export class ComeBack {
  readonly #options: ComeBackOptions;
  readonly #waits: Waits;
  #round: Round | undefined;

  constructor(options: ComeBackOptions) {
    this.#options = options;
    this.#waits = options.waits ?? new Backoff();
  }

  /** @param first - why it is down. */
  async run(first: Failure): Promise<void> {
    for (let failure: Failure | undefined = first; failure; ) {
      const leastMs = this.#options.leastMs(failure);
      const waitMs = leastMs ?? this.#waits.next(failure);
      const isSlow = leastMs === undefined && this.#waits.isSlow;
      const round = { nap: new AbortController(), tried: Promise.withResolvers<void>(), isSlow, beginTime: performance.now() };
      this.#round = round;
      await delay(waitMs, undefined, { ref: false, signal: round.nap.signal }).catch(() => undefined); // cut short by who hurries
      failure = await this.#options.tryAgain();
      round.tried.resolve();
    }
  }

  /** Somebody asks: a token that has been away for long is looked for at once, and that is waited for; where it was looked for just now, it is not. @param patienceMs - who waits for longer goes on without it. */
  async hurry(patienceMs: number): Promise<void> {
    const round = this.#round;
    if (!round?.isSlow || performance.now() - round.beginTime < longestMs) return;
    round.nap.abort();
    const patience = new AbortController();
    const late = delay(patienceMs, undefined, { ref: false, signal: patience.signal }).catch(() => undefined); // cut short when it was tried
    await Promise.race([round.tried.promise, late]);
    patience.abort();
  }
}
