import { maxAttempts } from './ladder.ts';
import { type Failure, type HelperEnd, TokenFailure } from './messages.ts';

type Fault = Extract<Failure, { kind: 'fault' }>;

/** Helpers that one call may cost: it is repeated once, lest a call that crashes its module takes the token from everybody. */
const maxHelpers = 2;
/** No try begins later than so many times of one after the first: who waits behind a call that hangs twice has its answer right after that. */
const maxTimes = 2.5;

/** How often a call was tried, and what that has cost. */
export class Tries {
  readonly #timeoutMs: number;
  #start: number | undefined;
  #faults = 0;
  #helpers = 0;
  /**
   * It may be what the helper was lost for. One during which it died runs alone from now on, so that nobody else is taken for the cause, nor suffers
   * from it; one that did not end in time begins alone, and is the first whose time is over if it hangs again.
   */
  suspicion: 'died' | 'late' | undefined;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  /** The first try begins. Before, it waited for others. */
  begin(): void {
    this.#start ??= performance.now();
  }

  /** Whether it failed more than once by itself. */
  get isRepeated(): boolean {
    return this.#faults > 1;
  }

  /** Whether it has cost as many helpers as it may. */
  get isSpent(): boolean {
    return this.#helpers >= maxHelpers;
  }

  /** Calls of its kind have cost helpers: one more is all that it may cost. @param end - how the last one was lost. */
  spend(end: HelperEnd): void {
    this.#helpers = maxHelpers - 1;
    if (end !== 'ended') this.suspicion = end;
  }

  /** Takes the failure of a try down; one that another call caused is free. */
  note(failure: Fault): void {
    if (failure.helper !== 'ended') this.#faults += 1;
    if (failure.helper !== 'died' && failure.helper !== 'late') return;
    this.#helpers += 1;
    this.suspicion = failure.helper;
  }

  /** Returns where it may be tried again. @throws TokenFailure of kind `failed` for a call that is the cause; the failure itself when the tries or the time are over. */
  checkRepeat(failure: Fault): void {
    if (this.isSpent) throw new TokenFailure({ kind: 'failed', rv: failure.rv, call: failure.call });
    const isLate = performance.now() - (this.#start ?? Number.POSITIVE_INFINITY) >= maxTimes * this.#timeoutMs;
    if (this.#faults >= maxAttempts || isLate) throw new TokenFailure(failure);
  }
}
