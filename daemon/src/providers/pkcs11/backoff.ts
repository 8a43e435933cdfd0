import type { Failure } from './messages.ts';

const firstMs = 100;
/** Of a token that is sick: it is back so soon after it is well. */
export const longestMs = 800;
/** Modules that do not load do not heal by themselves within a second. */
const loadMs = 30_000;
/** A token that was away for so long may be so all day, as a card that lies in a drawer: it is looked for less often. */
const awayMs = 60_000;
const longestAwayMs = 10_000;

/** Says how long to wait before each try. */
export interface Waits {
  /** Milliseconds until the next try after a failure. */
  next: (failure: Failure) => number;
  /** Whether the token is looked for seldom, and so is worth a look when somebody asks. */
  readonly isSlow: boolean;
}

/** Waits that double: up to what a sick token may take, and further for one that is not there. */
export class Backoff implements Waits {
  #ms = firstMs / 2;
  #waitedMs = 0;
  isSlow = false;

  next({ kind }: Failure): number {
    const isAway = (kind === 'noToken' || kind === 'otherToken') && this.#waitedMs >= awayMs;
    this.#ms = Math.min(this.#ms * 2, isAway ? longestAwayMs : longestMs);
    this.isSlow = isAway;
    this.#waitedMs += this.#ms;
    return kind === 'load' ? loadMs : this.#ms;
  }
}
