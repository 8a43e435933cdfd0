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

/** Time that has surely gone by since the vault was first open, and where the count stood on the clock that nobody can set. */
export interface RunningTime {
  readonly ms: number;
  readonly sinceBoot: number;
  readonly bootId: string;
}

/** What the vault keeps of time. All absent until it is first written. */
export interface KeptClock {
  readonly tick?: Tick;
  readonly runningTime?: RunningTime;
  /** The vault was put back from older records: what cannot be undone waits until an administrator has looked. */
  readonly unconfirmed?: boolean;
}

/** How far the two clocks may drift apart: a correction by NTP is less, a leap that destroys a key is more. */
export const clockToleranceMs = 3_600_000;

/**
 * Two answers about time.
 * How much has surely gone by: it is counted while the machine is on, sleep included, so that no set clock and no guess about time off can shorten a window.
 * Whether the wall clock can be believed when something is about to be destroyed for good: while it moves together with the time since boot.
 * Across a start of the machine nothing says how long it was off; then it must not have gone back, nor forward by more than `maxOffMs`.
 * A jump that is put right again is forgotten.
 */
export class BelievableClock {
  readonly #source: TimeSource;
  readonly #maxOffMs: number;
  #tick: Tick;
  #runningTime: RunningTime;
  #unconfirmed = false;

  constructor(source: TimeSource, maxOffMs: number) {
    this.#source = source;
    this.#maxOffMs = maxOffMs;
    const now = this.#read();
    this.#tick = { anchor: now, lastSeen: now };
    this.#runningTime = { ms: 0, sinceBoot: now.sinceBoot, bootId: now.bootId };
  }

  /** Goes on from what an earlier process kept. */
  resume({ tick, runningTime, unconfirmed = false }: KeptClock): void {
    const { sinceBoot, bootId } = this.#read();
    if (tick) this.#tick = tick;
    this.#runningTime = runningTime ?? { ms: 0, sinceBoot, bootId };
    this.#unconfirmed = unconfirmed;
  }

  /** What the vault is to keep. */
  get kept(): Required<KeptClock> {
    this.observe();
    const { sinceBoot, bootId } = this.#read();
    return { tick: this.#tick, runningTime: { ms: this.runningMs(), sinceBoot, bootId }, unconfirmed: this.#unconfirmed };
  }

  /** Milliseconds that have surely gone by since the vault was first open. Only ever too few: what the machine was off is not among them. */
  runningMs(): number {
    const { ms, sinceBoot, bootId } = this.#runningTime;
    const now = this.#read();
    return ms + (now.bootId === bootId ? Math.max(now.sinceBoot - sinceBoot, 0) : now.sinceBoot);
  }

  /** Whether what cannot be undone may happen now. */
  isBelievable(): boolean {
    return !this.#unconfirmed && this.observe() === 0;
  }

  /** Whether the vault was put back from older records and nobody has confirmed it yet. */
  get isUnconfirmed(): boolean {
    return this.#unconfirmed;
  }

  /** Milliseconds by which the wall clock has jumped ahead, negative for back; 0 while it can be believed. */
  observe(): number {
    const now = this.#read();
    const { anchor, lastSeen } = this.#tick;
    const sameBoot = now.bootId === anchor.bootId;
    const jumpMs = sameBoot ? now.wall - anchor.wall - (now.sinceBoot - anchor.sinceBoot) : this.#jumpAcrossBoot(now, lastSeen);
    if (Math.abs(jumpMs) > clockToleranceMs) return jumpMs;
    this.#tick = { anchor: sameBoot ? anchor : now, lastSeen: now };
    return 0;
  }

  /** An administrator says that the wall clock is right, and that what is due may happen. */
  confirm(): void {
    const now = this.#read();
    this.#tick = { anchor: now, lastSeen: now };
    this.#unconfirmed = false;
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
