import type { AgentAct } from './acts.ts';
import type { TimeSource } from './clock.ts';
import type { Gate } from './gate.ts';
import type { Lifetimes } from './lifetimes.ts';
import type { KeyringLimits } from './open-keyring.ts';
import type { Witness } from './witness.ts';

/** Why the agent locks itself, as the audit record says it. */
export type LockReason = 'idle' | 'suspend' | 'screenLock' | 'SIGUSR2';

/** Milliseconds that a suspension lasts at least: two clocks are read one after the other. */
const shortestSleepMs = 1000;
/** Longest time in milliseconds between two looks: a suspension is noticed within it even if nobody asks for anything. */
const longestLookMs = 5000;
/** While a request runs the agent is not idle; it is looked at again so soon. */
const shortestLookMs = 100;
/** While a key whose time is over is in use it is looked at again so soon. */
const shortestDropMs = 10;

export interface AutoLockSettings {
  /** Milliseconds without a request that needs keys after which the agent locks itself; 0 for never. */
  readonly idleLockMs: number;
  /** Whether the agent locks itself when the machine has been suspended, also if nobody announced it. */
  readonly lockOnSuspend: boolean;
}

export interface AutoLockOptions extends AutoLockSettings {
  readonly time: Pick<TimeSource, 'sinceBoot' | 'slept'>;
  readonly limits: Pick<KeyringLimits, 'lookIntervalMs'>;
  readonly witness: Pick<Witness, 'note'>;
  /** Hears of each act of the agent's own, once it is done and recorded. */
  readonly onAct: (act: AgentAct) => void;
}

/** What can be locked: the agent. */
export interface Lockable {
  readonly isUnlocked: boolean;
  /** Rejects when it leaves because it cannot lock. */
  lockBecause(because: LockReason): Promise<void>;
}

/**
 * Locks the agent when it should lock itself, and drops single keys whose unlockLifetime is over: on the way of each request, and by looks of its own,
 * because keys must not stay in memory for want of a request. By clocks that nobody can set; a suspension counts as time without use.
 */
export class AutoLock {
  readonly #agent: Lockable;
  readonly #gate: Pick<Gate, 'inside'>;
  readonly #options: AutoLockOptions;
  #lifetimes: Lifetimes | undefined;
  #lastUse = 0;
  #slept = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(agent: Lockable, gate: Pick<Gate, 'inside'>, options: AutoLockOptions) {
    this.#agent = agent;
    this.#gate = gate;
    this.#options = options;
  }

  /** The vault is open: everything counts from now. */
  begin(lifetimes: Lifetimes): void {
    this.#lifetimes = lifetimes;
    this.#slept = this.#options.time.slept();
    this.touch();
    this.#lookLater();
  }

  /** The keys are about to be forgotten, all of them. */
  end(): void {
    clearTimeout(this.#timer);
    this.#lifetimes = undefined;
  }

  /** A key is used. */
  touch(): void {
    if (this.#options.idleLockMs > 0) this.#lastUse = this.#options.time.sinceBoot();
  }

  /** Does what is due by now. */
  look(): void {
    const because = this.#agent.isUnlocked ? this.#findReason() : undefined;
    if (because !== undefined) this.#agent.lockBecause(because).catch(() => undefined); // onLockFailed has heard of it
    this.dropOver();
  }

  /** Drops keys whose time is over, and says so afterwards: like a lock, that waits for no record. */
  dropOver(): void {
    if (!this.#lifetimes?.isUsed) return; // on the way of every request
    for (const keyId of this.#lifetimes.dropOver()) {
      this.#options.witness.note({ operation: 'drop', outcome: 'ok', keyId });
      this.#options.onAct({ act: 'drop', keyId });
    }
  }

  /** Why the agent should be locked by now; undefined while it need not. */
  #findReason(): LockReason | undefined {
    const { time, idleLockMs, lockOnSuspend } = this.#options;
    if (lockOnSuspend && time.slept() - this.#slept >= shortestSleepMs) return 'suspend';
    const isIdle = this.#gate.inside === 0; // a request that needs keys is use while it runs
    return idleLockMs > 0 && isIdle && time.sinceBoot() - this.#lastUse >= idleLockMs ? 'idle' : undefined;
  }

  #lookLater(): void {
    const dropMs = Math.max(this.#lifetimes?.nextEndMs ?? Number.POSITIVE_INFINITY, shortestDropMs);
    this.#timer = setTimeout(
      () => {
        this.look();
        if (this.#agent.isUnlocked) this.#lookLater();
      },
      Math.min(this.#nextLookMs, this.#options.limits.lookIntervalMs, dropMs),
    );
    this.#timer.unref();
  }

  /** Milliseconds until the whole agent may have to be locked. */
  get #nextLookMs(): number {
    const { time, idleLockMs } = this.#options;
    if (idleLockMs === 0) return longestLookMs;
    const remainingMs = this.#lastUse + idleLockMs - time.sinceBoot();
    return Math.min(Math.max(Math.ceil(remainingMs), shortestLookMs), longestLookMs);
  }
}
