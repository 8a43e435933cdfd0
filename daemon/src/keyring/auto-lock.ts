import type { TimeSource } from './clock.ts';

/** Why the agent locks itself, as the audit record says it. */
export type LockReason = 'idle' | 'suspend' | 'screenLock' | 'SIGUSR2';

/** Milliseconds that a suspension lasts at least: two clocks are read one after the other. */
const shortestSleepMs = 1000;
/** Longest time in milliseconds between two looks: a suspension is noticed within it even if nobody asks for anything. */
const longestLookMs = 5000;
/** While a request runs the agent is not idle; it is looked at again so soon. */
const shortestLookMs = 100;

export interface AutoLockOptions {
  readonly time: Pick<TimeSource, 'sinceBoot' | 'slept'>;
  /** Milliseconds without use of a key; 0 for never. */
  readonly idleLockMs: number;
  /** Whether a suspension of the machine locks, also one that nobody announced. */
  readonly lockOnSuspend: boolean;
}

/** When an open agent should lock itself. By clocks that nobody can set; a suspension counts as time without use. */
export class AutoLock {
  readonly #options: AutoLockOptions;
  #lastUse = 0;
  #slept = 0;

  constructor(options: AutoLockOptions) {
    this.#options = options;
  }

  /** The vault is open: everything counts from now. */
  begin(): void {
    this.#slept = this.#options.time.slept();
    this.touch();
  }

  /** A key is used. */
  touch(): void {
    if (this.#options.idleLockMs > 0) this.#lastUse = this.#options.time.sinceBoot();
  }

  /** Why the agent should be locked by now; undefined while it need not. @param isBusy - a request that needs keys runs: that is use. */
  due(isBusy: boolean): LockReason | undefined {
    const { time, idleLockMs, lockOnSuspend } = this.#options;
    if (lockOnSuspend && time.slept() - this.#slept >= shortestSleepMs) return 'suspend';
    return idleLockMs > 0 && !isBusy && time.sinceBoot() - this.#lastUse >= idleLockMs ? 'idle' : undefined;
  }

  /** Milliseconds until something may be due. */
  get nextLookMs(): number {
    const { time, idleLockMs } = this.#options;
    if (idleLockMs === 0) return longestLookMs;
    const remainingMs = this.#lastUse + idleLockMs - time.sinceBoot();
    return Math.min(Math.max(Math.ceil(remainingMs), shortestLookMs), longestLookMs);
  }
}
