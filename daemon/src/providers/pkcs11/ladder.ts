/** Rungs of the recovery ladder. The first one, a new session, is the helper's own: no session is used again after an error. */
const rungs = ['login', 'initialize', 'helper'] as const;
export type Rung = (typeof rungs)[number];
/** A check mends nothing: it tells a sick token from a call that fails by itself. To renew is to replace a helper that is worn out, when nothing runs. */
export type Step = Rung | 'check' | 'renew';

/** Tries of one call: in a pooled session, in a new one, and after each rung. */
export const maxAttempts = 2 + rungs.length;
/** A recovery that is asked for so soon after another one begins a rung higher. */
const soonMs = 2000;
/** A new helper is not replaced again so soon because of calls that fail while the token is well: it is checked first. */
const settledMs = 1000;

/** Remembers what mended a token last, and says what to try next. */
export class Ladder {
  #last: { readonly rung: Rung; readonly time: number } | undefined;
  /** Times that the token was mended; the first connection is none. */
  recoveries = 0;

  /** What to try, in this order. @param isGone - there is no helper that a lower rung could mend. */
  steps(isGone: boolean): readonly Step[] {
    const last = this.#last;
    const since = last ? performance.now() - last.time : Number.POSITIVE_INFINITY;
    if (last?.rung === 'helper' && since < settledMs && !isGone) return ['check', 'helper'];
    const next = last && since < soonMs ? rungs.indexOf(last.rung) + 1 : 0;
    return rungs.slice(isGone ? -1 : Math.min(next, rungs.length - 1));
  }

  /** A step mended the token, or opened it. */
  note(step: Step): void {
    if (step === 'check' || step === 'renew') return;
    if (this.#last) this.recoveries += 1;
    this.#last = { rung: step, time: performance.now() };
  }
}
