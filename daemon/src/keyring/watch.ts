import type { BelievableClock } from './clock.ts';
import type { Gate } from './gate.ts';
import { dueTimeOf, type Key } from './key.ts';
import type { Keyring } from './keyring.ts';
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
  /** Hears once of a wall clock that cannot be believed, and by how many milliseconds it jumped. */
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
  #hadJumped = false;

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

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Writes the tick, so that the next process knows since when the clock can be believed. */
  keepTick(): void {
    const { keyring, clock } = this.#options;
    keyring.commit({ facts: { ...keyring.facts, tick: clock.tick } });
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
    if (this.#stopped) return;
    const again = this.#askedAgain;
    this.#askedAgain = undefined;
    this.#lookIn(again ? 0 : this.#options.scheduler.nextLookMs(this.#options.intervalMs), again?.all);
  }

  async #lookInside(all: boolean): Promise<void> {
    const { gate, scheduler, mayAct, onError } = this.#options;
    if (!mayAct()) return;
    try {
      await gate.pass(async () => {
        const wasSet = this.#observeClock();
        await scheduler.look(all || wasSet, () => this.#stopped);
      });
    } catch (error) {
      if (!this.#stopped) onError(error);
    }
  }

  #lookIn(inMs: number, all = false): void {
    const delayMs = Math.max(inMs, shortestLookMs);
    clearTimeout(this.#timer);
    this.#nextLookAt = performance.now() + delayMs;
    this.#timer = setTimeout(() => void this.#look(all), delayMs);
    this.#timer.unref();
  }

  /** @returns whether the wall clock was set, or set right, since the last look. */
  #observeClock(): boolean {
    const { clock, keyring, onJump } = this.#options;
    const jumpMs = clock.observe();
    const wasSet = this.#hadJumped !== (jumpMs !== 0);
    if (jumpMs !== 0 && wasSet) onJump(jumpMs);
    this.#hadJumped = jumpMs !== 0;
    const kept = keyring.facts.tick;
    const isBehind = kept === undefined || kept.anchor.bootId !== clock.tick.anchor.bootId || clock.tick.lastSeen.wall - kept.lastSeen.wall >= tickGrainMs;
    if (jumpMs === 0 && isBehind) this.keepTick();
    return wasSet;
  }
}
