import { setTimeout as delay } from 'node:timers/promises';
import type { Waits } from './backoff.ts';
import { ComeBack } from './come-back.ts';
import type { Connection } from './connection.ts';
import { failureOf } from './failures.ts';
import { Ladder, type Step } from './ladder.ts';
import { LogInTries } from './log-in-tries.ts';
import { type Failure, TokenFailure } from './messages.ts';
import type { TokenSettings } from './settings.ts';

/** `connecting` while a recovery runs: calls wait for it. `down`: calls fail at once, and it is tried again by itself. `disabled`: only a person helps. */
export type LinkState = 'stopped' | 'connecting' | 'ok' | 'down' | 'disabled';

export interface RecoveryOptions {
  readonly settings: TokenSettings;
  readonly connection: Connection;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Hears of each change of state, once. */
  readonly onState: (state: LinkState, failure?: Failure) => void;
  /** How long a token that is down is left alone; by itself less than a second, and ten where it is away. */
  readonly waits?: Waits;
}

/** The state of a token, and the way back to a good one: which step is tried, how often, and when nothing is tried any more. */
export class Recovery {
  readonly #options: RecoveryOptions;
  readonly #connection: Connection;
  readonly #ladder = new Ladder();
  readonly #logIns = new LogInTries();
  #state: LinkState = 'stopped';
  /** Resolved when it is not `connecting` any more. */
  #settled = Promise.withResolvers<void>();
  #climbing: Promise<void> | undefined;
  /** While it is down. */
  #comeBack: ComeBack | undefined;
  /** Counts recoveries: a call that failed before one is only tried again. */
  generation = 0;
  /** Counts starts: what an earlier life began does not touch a later one. */
  life = 0;
  /** When it was last mended or opened. */
  okTime = Number.NEGATIVE_INFINITY;
  /** Why calls fail at once when they do. */
  #last: Failure | undefined;
  #shown: { readonly failure: Failure; readonly time: number } | undefined;

  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.#connection = options.connection;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Times that the token was mended. */
  get recoveries(): number {
    return this.#ladder.recoveries;
  }

  get lastFailure(): Failure | undefined {
    return this.#shown?.failure;
  }

  /** When that was, in milliseconds since the epoch. */
  get lastFailureTime(): number | undefined {
    return this.#shown?.time;
  }

  /** Something is wrong with the token. */
  note(failure: Failure): void {
    this.#last = failure;
    this.show(failure);
  }

  /** Something failed; `status` shows it until something else does. */
  show(failure: Failure): void {
    this.#shown = { failure, time: this.#options.now() };
  }

  /** Connects, unless it is or does already. Does not wait. */
  start(): void {
    if (this.#state !== 'stopped') return;
    if (this.#logIns.refusal) this.#disable(this.#logIns.refusal);
    else this.#restart(true);
  }

  /** What runs or waits to be tried is of an earlier life. */
  stop(): void {
    this.life += 1;
    this.#climbing = undefined;
    this.#setState('stopped');
  }

  /** Connects for a person, whatever was refused before. @param automatic - with the PIN that is known: its last try is left alone. */
  restart(automatic: boolean): void {
    this.#logIns.begin();
    this.#restart(automatic);
  }

  /** Mends a token by a failure of its own: the rungs that may help, or a new helper where there is none. */
  mend(failure: Failure): void {
    this.note(failure);
    this.#recover(this.#ladder.steps(!this.#connection.isRunning), true);
  }

  /** Replaces a helper that is worn out. */
  renew(): void {
    this.#recover(['renew'], true);
  }

  /** Waits for a connection that is being made, or for a look at where a token was long missing. @throws TokenFailure when there is none. */
  async ready(): Promise<void> {
    if (this.#state === 'down') await this.#comeBack?.hurry(this.#options.settings.timeoutMs);
    if (this.#state === 'connecting') await this.waitToSettle();
    if (this.#state !== 'ok') throw new TokenFailure(this.#last ?? { kind: 'fault', rv: this.#state, call: 'open' });
  }

  /** Waits until it does not connect any more, or has for too long. */
  async waitToSettle(): Promise<void> {
    const { timeoutMs, generateTimeoutMs } = this.#options.settings;
    const patience = new AbortController();
    const patienceMs = this.#connection.abilities ? timeoutMs : generateTimeoutMs; // the first time it is also tried out
    const late = delay(patienceMs, 'late', { ref: false, signal: patience.signal }).catch(() => 'settled');
    while (this.#state === 'connecting') if ((await Promise.race([this.#settled.promise, late])) === 'late') return;
    patience.abort();
  }

  #restart(automatic: boolean): void {
    this.life += 1;
    this.#recover(['helper'], automatic);
  }

  #recover(ladder: readonly Step[], automatic: boolean): void {
    const { life } = this;
    this.#setState('connecting');
    const climbing = (this.#climbing ?? Promise.resolve())
      .then(() => this.#trySteps(ladder, automatic, life))
      .finally(() => {
        if (this.#climbing === climbing) this.#climbing = undefined;
      });
    this.#climbing = climbing;
  }

  async #trySteps(ladder: readonly Step[], automatic: boolean, life: number): Promise<void> {
    let failure: Failure = { kind: 'fault', rv: 'not tried', call: 'open' };
    const { era } = this.#logIns;
    for (const step of ladder) {
      if (life !== this.life) return;
      try {
        await this.#tryStep(step, automatic, life);
        if (life === this.life) this.#succeed(step);
        return;
      } catch (error) {
        failure = this.#judge(error, era);
        if (failure.kind === 'pin' || failure.kind === 'logIn') break; // another try could lock the PIN
      }
    }
    if (life === this.life) this.#giveUp(failure, life);
  }

  /** What a lock cut off counts as well, lest each lock and unlock sends a PIN once more. */
  #judge(error: unknown, era: number): Failure {
    if (era !== this.#logIns.era) return failureOf(error);
    const failure = this.#logIns.judge(failureOf(error), this.#connection.sentTaken);
    this.#logIns.refuse(failure);
    if (failure.kind === 'pin') this.note(failure); // who asks after the next unlock hears of it
    return failure;
  }

  async #tryStep(step: Step, automatic: boolean, life: number): Promise<void> {
    if (step === 'check' || (step === 'renew' && !(await this.#connection.drain()))) await this.#connection.ask('check', {});
    else if (step === 'helper' || step === 'renew') await this.#connection.open(automatic, () => life === this.life);
    else await this.#connection.recover(step);
  }

  #succeed(step: Step): void {
    this.generation += 1;
    this.okTime = performance.now();
    this.#logIns.succeed();
    this.#ladder.note(step);
    this.#setState('ok');
  }

  #giveUp(failure: Failure, life: number): void {
    this.note(failure);
    if (failure.kind === 'pin') {
      this.#disable(failure);
      return;
    }
    this.#setState('down', failure);
    this.#comeBack = new ComeBack({
      leastMs: ({ kind }) => (kind === 'logIn' ? this.#logIns.backoffMs : undefined),
      tryAgain: () => this.#tryAgain(life),
      waits: this.#options.waits,
    });
    void this.#comeBack.run(failure);
  }

  #disable(failure: Failure): void {
    this.#logIns.refuse(failure);
    this.#connection.setPin(undefined);
    this.#setState('disabled', failure);
    void this.#connection.close();
  }

  /** Tries once more, with a new helper. @returns why that failed; undefined when it is over. */
  async #tryAgain(life: number): Promise<Failure | undefined> {
    if (life !== this.life) return undefined;
    const { era } = this.#logIns;
    try {
      await this.#tryStep('helper', true, life);
      if (life === this.life) this.#succeed('helper');
      return undefined;
    } catch (error) {
      const failure = this.#judge(error, era);
      if (life !== this.life) return undefined;
      this.note(failure);
      if (failure.kind !== 'pin') return failure;
      this.#giveUp(failure, life);
      return undefined;
    }
  }

  #setState(state: LinkState, failure?: Failure): void {
    const isNew = state !== this.#state;
    this.#state = state;
    if (isNew && state === 'connecting') this.#settled = Promise.withResolvers();
    if (state !== 'connecting') this.#settled.resolve();
    if (isNew) this.#options.onState(state, failure);
  }
}
