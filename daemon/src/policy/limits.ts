import { AgentError, type PolicyLimits } from '@kms-agent/protocol';

/** The time, and a count that outlives the process. */
export interface LimitContext {
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
}

/** Counts the operations of a statement in total. Durable. */
export interface TotalCount {
  /** Operations that were let through. */
  readonly used: number;
  /** Takes one. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  take(): void;
}

/** Why a statement does not let an operation through now. */
const tooFast = (retryAfterMs: number): AgentError => new AgentError('ERR_RATE_LIMITED', { retryAfterMs });
const spent = (): AgentError => new AgentError('ERR_LIMIT_EXCEEDED', { hint: 'The policy allows no more operations in total.' });
const outOfHours = (): AgentError => new AgentError('ERR_ACCESS_DENIED', { hint: 'The policy allows this at other hours.' });

const minutesOf = (text: string): number => Number(text.slice(0, 2)) * 60 + Number(text.slice(3, 5));

/** Whether a local time is inside `08:00-18:00`; the end does not belong to it. */
export function isWithinHours(hours: string, time: Date): boolean {
  const [from = 0, until = 0] = hours.split('-').map(minutesOf);
  const now = time.getHours() * 60 + time.getMinutes();
  return from <= until ? now >= from && now < until : now >= from || now < until;
}

/** What an Allow lets through: a second's worth at once, refilled evenly; in all; and by day. */
export class Limiter {
  readonly #limits: PolicyLimits;
  readonly #now: () => number;
  #tokens: number;
  #filledAt: number;

  constructor(limits: PolicyLimits, { now }: LimitContext) {
    this.#limits = limits;
    this.#now = now;
    this.#tokens = limits.perSecond ?? 0;
    this.#filledAt = performance.now();
  }

  /** Why an operation would not be let through now; undefined if it would. Changes nothing. */
  refusal(total: TotalCount | undefined): AgentError | undefined {
    const { perSecond, total: most, hours } = this.#limits;
    if (hours !== undefined && !isWithinHours(hours, new Date(this.#now()))) return outOfHours();
    if (most !== undefined && (total?.used ?? 0) >= most) return spent();
    if (perSecond === undefined) return undefined;
    const tokens = this.#refilled(perSecond);
    return tokens >= 1 ? undefined : tooFast(Math.ceil(((1 - tokens) * 1000) / perSecond));
  }

  /** Counts an operation that is let through. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  take(total: TotalCount | undefined): void {
    if (this.#limits.total !== undefined) total?.take();
    const { perSecond } = this.#limits;
    if (perSecond === undefined) return;
    this.#tokens = this.#refilled(perSecond) - 1;
    this.#filledAt = performance.now();
  }

  #refilled(perSecond: number): number {
    return Math.min(perSecond, this.#tokens + ((performance.now() - this.#filledAt) * perSecond) / 1000);
  }
}
