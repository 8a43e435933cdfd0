import { isAgentError } from '@kms-agent/protocol';
import type { BelievableClock } from './clock.ts';
import type { Gate } from './gate.ts';
import { dueTimeOf, type Key } from './key.ts';
import type { Keyring } from './keyring.ts';
import type { VaultFacts } from './records.ts';
import type { Scheduler } from './scheduler.ts';

/** How far the tick that is kept in the vault may be behind. */
const tickGrainMs = 3_600_000;
/** A timer that fires early must not spin. */
const shortestLookMs = 10;

/** What a watch works with. */
export interface WatchOptions {
  readonly keyring: Keyring;
  readonly scheduler: Scheduler;
  readonly clock: BelievableClock;
  readonly gate: Gate;
  /** False while nothing can be recorded: what is due waits. */
  readonly mayAct: () => boolean;
  /** Longest time between two looks: a sleep, a set clock and a long wait are noticed within it. */
  readonly intervalMs: number;
  readonly onError: (error: unknown) => void;
  /** Hears once when the wall clock can no longer be believed, and by how many milliseconds it jumped; and once, with 0, when it can be again. */
  readonly onJump: (jumpMs: number) => void;
}

/** Looks at the keys again and again while they are open. */
export class Watch {
  readonly #options: WatchOptions;
  #timer: NodeJS.Timeout | undefined;
  /** On the clock of performance.now(). */
  #nextLookAt = 0;
  #stopped = false;
  #looking = false;
  /** A look that was asked for during one: whether at all keys. */
  #askedAgain: { all: boolean } | undefined;
  /** Whether the clock was wrong at the last look; nothing before the first. */
  #wasWrong: boolean | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Looks now, and from then on whenever something is due. @param all - at every key that time can change, due or not. */
  start(all = false): void {
    void this.#look(all);
  }

  /** Looks earlier when a key that changed is due before the next look. */
  note(key: Key): void {
    const { keyring, intervalMs } = this.#options;
    const inMs = (dueTimeOf(key) ?? Number.POSITIVE_INFINITY) - keyring.clock.now();
    if (inMs < intervalMs && performance.now() + inMs < this.#nextLookAt) this.#lookIn(inMs);
  }

  /** Ends the looks, and keeps the time that was counted so far: a window goes on from there. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    try {
      this.keepClock();
    } catch (error) {
      if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
      // A vault that cannot be written counts at most an hour too little, and lock must go on.
    }
  }

  /** Writes what the next process must know of time. */
  keepClock(changed: Partial<VaultFacts> = {}): void {
    const { keyring, clock } = this.#options;
    keyring.commit({ facts: { ...keyring.facts, ...clock.kept, ...changed } });
  }

  /** One look at a time: two at once would do the same twice. */
  async #look(all: boolean): Promise<void> {
    if (this.#looking) {
      this.#askedAgain = { all: all || (this.#askedAgain?.all ?? false) };
      return;
    }
    this.#looking = true;
    try {
      await this.#lookInside(all);
    } finally {
      this.#looking = false;
    }
    const again = this.#askedAgain;
    this.#askedAgain = undefined;
    this.#lookIn(again ? 0 : this.#options.scheduler.nextLookMs(this.#options.intervalMs), again?.all);
  }

  async #lookInside(all: boolean): Promise<void> {
    const { gate, scheduler, clock, mayAct, onError } = this.#options;
    if (!mayAct()) return;
    try {
      await gate.pass(async () => {
        const wasSet = this.#observeClock();
        await scheduler.look(all || wasSet, () => this.#stopped);
        if (wasSet && !this.#stopped && clock.observe() === 0) this.keepClock({ clockWasWrong: false }); // after all keys were looked at, not before
      });
    } catch (error) {
      if (!this.#stopped) onError(error);
    }
  }

  #lookIn(inMs: number, all = false): void {
    if (this.#stopped) return; // what looks on would see the keys of the next unlock
    const delayMs = Math.max(inMs, shortestLookMs);
    clearTimeout(this.#timer);
    this.#nextLookAt = performance.now() + delayMs;
    this.#timer = setTimeout(() => void this.#look(all), delayMs);
    this.#timer.unref();
  }

  /** @returns whether the wall clock was set, or set right, since the last look, also one of an earlier process. */
  #observeClock(): boolean {
    const { clock, keyring, onJump } = this.#options;
    const jumpMs = clock.observe();
    const isWrong = jumpMs !== 0;
    const wasSet = (keyring.facts.clockWasWrong ?? false) !== isWrong;
    if (isWrong !== (this.#wasWrong ?? (wasSet && !isWrong))) onJump(jumpMs);
    this.#wasWrong = isWrong;
    if (isWrong && wasSet) this.keepClock({ clockWasWrong: true });
    else if (this.#isBehind()) this.keepClock();
    return wasSet;
  }

  /** Whether what the vault keeps of time is too old: a process that ends now would lose it. */
  #isBehind(): boolean {
    const { clock, keyring } = this.#options;
    const { tick, runningTime } = keyring.facts;
    const now = clock.kept;
    return (
      runningTime?.bootId !== now.runningTime.bootId ||
      now.runningTime.ms - runningTime.ms >= tickGrainMs ||
      tick?.anchor.bootId !== now.tick.anchor.bootId ||
      now.tick.lastSeen.wall - tick.lastSeen.wall >= tickGrainMs
    );
  }
}
