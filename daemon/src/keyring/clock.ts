/** Where time comes from: the wall clock, and what runs beside it. */
export interface TimeSource {
  /** Milliseconds since the epoch. It can be set, and it can be wrong. */
  wall(): number;
  /** Milliseconds since the machine started, sleep included (CLOCK_BOOTTIME): nobody can set it. */
  sinceBoot(): number;
  /** What grows by the milliseconds that the machine is suspended; its beginning means nothing. */
  slept(): number;
  /** Another one after each start of the machine. */
  readonly bootId: string;
}

/** The wall clock as callers of the agent know it: milliseconds since the epoch. */
export type Clock = () => number;

/** Both clocks at one moment. */
export interface Reading {
  readonly wall: number;
  readonly sinceBoot: number;
  readonly bootId: string;
}

/** What the vault keeps of the clocks. */
export interface Tick {
  /** Since when the two have moved together, within one run of the machine. */
  readonly anchor: Reading;
  /** When they were last seen to. */
  readonly lastSeen: Reading;
}

/** How far the two clocks may drift apart: a correction by NTP is less, a leap that destroys a key is more. */
const toleranceMs = 3_600_000;

/**
 * Whether the wall clock can be believed when something is about to be destroyed for good: while it moves together with the time since boot.
 * Across a start of the machine nothing says how long it was off; then it must not have gone back, nor forward by more than `maxOffMs`.
 * A jump that is put right again is forgotten.
 */
export class BelievableClock {
  readonly #source: TimeSource;
  readonly #maxOffMs: number;
  #tick: Tick;

  constructor(source: TimeSource, maxOffMs: number) {
    this.#source = source;
    this.#maxOffMs = maxOffMs;
    const now = this.#read();
    this.#tick = { anchor: now, lastSeen: now };
  }

  /** Goes on from what an earlier process kept. */
  resume(tick: Tick): void {
    this.#tick = tick;
  }

  /** Milliseconds by which the wall clock has jumped ahead, negative for back; 0 while it can be believed. */
  observe(): number {
    const now = this.#read();
    const { anchor, lastSeen } = this.#tick;
    const sameBoot = now.bootId === anchor.bootId;
    const jumpMs = sameBoot ? now.wall - anchor.wall - (now.sinceBoot - anchor.sinceBoot) : this.#jumpAcrossBoot(now, lastSeen);
    if (Math.abs(jumpMs) > toleranceMs) return jumpMs;
    this.#tick = { anchor: sameBoot ? anchor : now, lastSeen: now };
    return 0;
  }

  /** An administrator says that the wall clock is right. */
  confirm(): void {
    const now = this.#read();
    this.#tick = { anchor: now, lastSeen: now };
  }

  get tick(): Tick {
    return this.#tick;
  }

  #jumpAcrossBoot(now: Reading, before: Reading): number {
    const offMs = now.wall - now.sinceBoot - before.wall;
    return offMs < 0 ? offMs : Math.max(offMs - this.#maxOffMs, 0);
  }

  #read(): Reading {
    return { wall: this.#source.wall(), sinceBoot: this.#source.sinceBoot(), bootId: this.#source.bootId };
  }
}
