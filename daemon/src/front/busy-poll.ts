import { availableParallelism } from 'node:os';
import { openRunDelay, type RunDelay } from '../os/run-delay.ts';

/** Microseconds in a millisecond. */
const usPerMs = 1000;

/** Milliseconds between two looks at whether others want the cores. */
const lookMs = 100;
/** Share of the time that the event loop may have to wait for a core: alone with a caller it is below a twentieth, and above a quarter where all cores are wanted. */
const crowdedShare = 0.15;
/** Milliseconds without staying awake after that: the kernel lets one who has slept run at once, and one who has not wait. */
const restMs = 1000;

/** When to stay awake. */
export interface BusyPollOptions {
  /** Microseconds to stay awake after an answer; 0 for never. */
  readonly windowUs: number;
  /** Calls that run: what they need is a core, and their end wakes the event loop anyhow. */
  readonly work: { readonly inFlight: number };
  /** Cores that there are: a caller that has to wait for ours would only be held up. */
  readonly cores?: number;
  /** Milliseconds of a clock that goes on. */
  readonly now?: () => number;
  /** How long the event loop has waited for a core; where that is not known nobody stays awake. */
  readonly waited?: RunDelay;
}

/**
 * Keeps the event loop awake for a moment after an answer, as long as requests come that fast: to sleep and be woken takes longer than most operations.
 * What comes later than the window ends it, so that it costs nothing where requests are rare; and so do cores that others want.
 */
export class BusyPoll {
  readonly #windowMs: number;
  readonly #work: { readonly inFlight: number };
  readonly #now: () => number;
  readonly #waited: RunDelay;
  #answeredMs = Number.NEGATIVE_INFINITY;
  #lookedMs = Number.NEGATIVE_INFINITY;
  #waitedMs = 0;
  #restUntilMs = Number.NEGATIVE_INFINITY;
  #isQuick = false;
  #isPolling = false;

  constructor({ windowUs, work, cores = availableParallelism(), now = () => performance.now(), waited }: BusyPollOptions) {
    this.#windowMs = cores > 1 ? windowUs / usPerMs : 0;
    this.#work = work;
    this.#now = now;
    this.#waited = waited ?? (this.#windowMs > 0 ? openRunDelay() : () => undefined); // nothing is opened for nothing
  }

  /** Whether the event loop is kept awake now. */
  get isPolling(): boolean {
    return this.#isPolling;
  }

  /** Something has come from a peer. */
  noteRequest(): void {
    if (this.#windowMs > 0) this.#isQuick = this.#now() - this.#answeredMs < this.#windowMs;
  }

  /** Answers have left. */
  noteAnswers(): void {
    if (this.#windowMs === 0) return;
    this.#answeredMs = this.#now();
    if (this.#isQuick && !this.#isPolling && !this.#mustRest(this.#answeredMs)) this.#turn();
  }

  /** Whether others want the cores, or did a moment ago. */
  #mustRest(now: number): boolean {
    if (now - this.#lookedMs >= lookMs) {
      const waitedMs = this.#waited() ?? Number.POSITIVE_INFINITY;
      if (!((waitedMs - this.#waitedMs) / (now - this.#lookedMs) <= crowdedShare)) this.#restUntilMs = now + restMs; // also for what is not known
      [this.#lookedMs, this.#waitedMs] = [now, waitedMs];
    }
    return now < this.#restUntilMs;
  }

  readonly #turn = (): void => {
    this.#isPolling = this.#work.inFlight === 0 && this.#now() - this.#answeredMs < this.#windowMs;
    if (this.#isPolling) setImmediate(this.#turn);
  };
}
