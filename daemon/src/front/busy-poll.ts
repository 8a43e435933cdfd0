import { availableParallelism } from 'node:os';

/** Microseconds in a millisecond. */
const usPerMs = 1000;

/** When to stay awake. */
export interface BusyPollOptions {
  /** Microseconds to stay awake after an answer; 0 for never. */
  readonly windowUs: number;
  /** Whether requests run: what they need is a core, and their end wakes the event loop anyhow. */
  readonly isBusy: () => boolean;
  /** Cores that there are: a caller that has to wait for ours would only be held up. */
  readonly cores?: number;
  /** Milliseconds of a clock that goes on. */
  readonly now?: () => number;
}

/**
 * Keeps the event loop awake for a moment after an answer, as long as requests come that fast: to sleep and be woken takes longer than most operations.
 * What comes later than the window ends it, so that it costs nothing where requests are rare.
 */
export class BusyPoll {
  readonly #windowMs: number;
  readonly #isBusy: () => boolean;
  readonly #now: () => number;
  #answeredMs = Number.NEGATIVE_INFINITY;
  #isQuick = false;
  #isPolling = false;

  constructor({ windowUs, isBusy, cores = availableParallelism(), now = () => performance.now() }: BusyPollOptions) {
    this.#windowMs = cores > 1 ? windowUs / usPerMs : 0;
    this.#isBusy = isBusy;
    this.#now = now;
  }

  /** Whether the event loop is kept awake now. */
  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** Something has come from a peer. */
  noteRequest(): void {
    this.#isQuick = this.#now() - this.#answeredMs < this.#windowMs;
  }

  /** Answers have left. */
  noteAnswers(): void {
    if (this.#windowMs === 0) return;
    this.#answeredMs = this.#now();
    if (this.#isQuick && !this.#isPolling) this.#turn();
  }

  #turn(): void {
    this.#isPolling = !this.#isBusy() && this.#now() - this.#answeredMs < this.#windowMs;
    if (this.#isPolling) setImmediate(() => this.#turn());
  }
}
