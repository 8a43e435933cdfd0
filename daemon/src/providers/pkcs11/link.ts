import { setTimeout as delay } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { Connection, changes, unrepeatable } from './connection.ts';
import { type CallName, type Calls, type Failure, TokenFailure } from './messages.ts';
import type { TokenSettings } from './settings.ts';
import { Slots } from './slots.ts';

/** `connecting` while a recovery runs: calls wait for it. `down`: calls fail at once, and it is tried again by itself. `disabled`: only a person helps. */
export type LinkState = 'stopped' | 'connecting' | 'ok' | 'down' | 'disabled';

/** Rungs of the recovery ladder. The first one, a new session, is the helper's own: no session is used again after an error. */
const rungs = ['login', 'initialize', 'helper'] as const;
type Rung = (typeof rungs)[number];
/** A check mends nothing: it tells a sick token from a call that fails by itself. */
type Step = Rung | 'check';

/** Tries of one call: in a pooled session, in a new one, and after each rung. */
const maxAttempts = 2 + rungs.length;
/** A recovery that is asked for so soon after another one begins a rung higher. */
const soonMs = 2000;
/** A new helper is not replaced again so soon because of calls that fail while the token is well: it is checked first. */
const settledMs = 1000;
const firstBackoffMs = 100;
const maxBackoffMs = 800;
/** Modules that do not load do not heal by themselves within a second. */
const loadBackoffMs = 30_000;

export interface LinkOptions {
  readonly settings: TokenSettings;
  /** The PIN, where it needs no person. The link zeroes it. */
  readonly readPin: () => Promise<Uint8Array | undefined>;
  /** Hears of each change of state, once. */
  readonly onState: (state: LinkState, failure?: Failure) => void;
}

/** A token by way of its helper, that heals itself. */
export class TokenLink {
  readonly #options: LinkOptions;
  readonly #slots: Slots;
  readonly #changes: Slots;
  readonly connection: Connection;
  #state: LinkState = 'stopped';
  #climbing: Promise<void> | undefined;
  /** Counts recoveries: a call that failed before one is only tried again. */
  #generation = 0;
  /** Counts starts: what an earlier life began does not touch a later one. */
  #life = 0;
  #lastRung: { readonly rung: Rung; readonly time: number } | undefined;
  #checkTimer: NodeJS.Timeout | undefined;
  lastFailure: Failure | undefined;
  recoveries = 0;

  constructor(options: LinkOptions) {
    const { sessions, maxQueued } = options.settings;
    this.#options = options;
    this.#slots = new Slots(sessions, maxQueued);
    this.#changes = new Slots(1, maxQueued);
    this.connection = new Connection(options.settings, options.readPin);
  }

  get state(): LinkState {
    return this.#state;
  }

  /** Connects, unless it is or does already. Does not wait. */
  start(): void {
    if (this.#state === 'stopped') this.#restart();
  }

  /** Ends the helper and forgets the PIN. */
  async stop(): Promise<void> {
    this.#life += 1;
    this.#setState('stopped');
    clearTimeout(this.#checkTimer);
    this.connection.setPin(undefined);
    await this.connection.close();
    await this.#climbing;
  }

  /** Connects anew with the PIN of a person, and waits. A wrong one leaves a token that was logged in as it was. @throws TokenFailure */
  async logIn(pin: Uint8Array | undefined): Promise<void> {
    const before = pin && this.#state === 'ok' ? this.connection.copyPin() : undefined;
    this.#restart(pin);
    try {
      await this.ready();
      before?.fill(0);
    } catch (error) {
      if (before) this.#restart(before); // it is known to be right, so this costs no try
      throw error;
    }
  }

  /** Waits for a connection that is being made. @throws TokenFailure when there is none. */
  async ready(): Promise<void> {
    if (this.#state === 'connecting') await this.#waitToSettle();
    if (this.#state !== 'ok') throw new TokenFailure(this.lastFailure ?? { kind: 'fault', rv: this.#state, call: 'open' });
  }

  /** @throws TokenFailure: kind `fault` once every rung was tried, or at once while the token is down. */
  async call<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    if (unrepeatable.has(call)) await this.#run('check', {}); // what has died of idleness is found by something that can be repeated
    return await this.#run(call, params);
  }

  async #run<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    for (let attempt = 1; ; attempt += 1) {
      await this.ready();
      const generation = this.#generation;
      try {
        return await (changes.has(call) ? this.#changes : this.#slots).run(() => this.connection.ask(call, params));
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault') throw error;
        this.lastFailure = error.failure;
        const isSick = attempt > 1 || !this.connection.isRunning || unrepeatable.has(call);
        if (isSick && this.#state === 'ok' && generation === this.#generation) this.#climb();
        if (attempt === maxAttempts || unrepeatable.has(call)) throw error;
      }
    }
  }

  async #waitToSettle(): Promise<void> {
    const { timeoutMs, generateTimeoutMs } = this.#options.settings;
    const patience = new AbortController();
    const patienceMs = this.connection.abilities ? timeoutMs : generateTimeoutMs; // the first time it is also tried out
    const late = delay(patienceMs, 'late', { ref: false, signal: patience.signal }).catch(() => 'settled');
    while (this.#climbing && this.#state === 'connecting') if ((await Promise.race([this.#climbing, late])) === 'late') return;
    patience.abort();
  }

  #restart(pin?: Uint8Array): void {
    this.connection.setPin(pin);
    this.#life += 1;
    this.#recover(['helper'], pin === undefined);
  }

  /** Starts a recovery from the rung that the last one gives reason for. */
  #climb(): void {
    const last = this.#lastRung;
    const since = last ? performance.now() - last.time : Number.POSITIVE_INFINITY;
    const isGone = !this.connection.isRunning;
    const next = last && since < soonMs ? rungs.indexOf(last.rung) + 1 : 0;
    const isSettled = last?.rung === 'helper' && since < settledMs && !isGone;
    this.#recover(isSettled ? ['check', 'helper'] : rungs.slice(isGone ? -1 : Math.min(next, rungs.length - 1)), true);
  }

  #recover(ladder: readonly Step[], automatic: boolean): void {
    const life = this.#life;
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
    for (const step of ladder) {
      if (life !== this.#life) return;
      try {
        await this.#tryStep(step, automatic, life);
        if (life === this.#life) this.#succeed(step);
        return;
      } catch (error) {
        failure = failureOf(error);
        if (failure.kind === 'pin') break; // another try could lock the PIN
      }
    }
    if (life === this.#life) this.#giveUp(failure, life);
  }

  async #tryStep(step: Step, automatic: boolean, life: number): Promise<void> {
    if (step === 'helper') await this.connection.open(automatic, () => life === this.#life);
    else if (step === 'check') await this.connection.ask('check', {});
    else await this.connection.recover(step);
  }

  #succeed(step: Step): void {
    this.#generation += 1;
    if (step !== 'check') {
      if (this.#lastRung) this.recoveries += 1;
      this.#lastRung = { rung: step, time: performance.now() };
    }
    this.#setState('ok');
    this.#watch();
  }

  #giveUp(failure: Failure, life: number): void {
    this.lastFailure = failure;
    if (failure.kind === 'pin') {
      this.connection.setPin(undefined);
      this.#setState('disabled', failure);
      void this.connection.close();
      return;
    }
    this.#setState('down', failure);
    void this.#comeBack(life, failure);
  }

  /** Tries again by itself, with a new helper, until it succeeds or somebody stops it. */
  async #comeBack(life: number, first: Failure): Promise<void> {
    let failure = first;
    for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
      await delay(failure.kind === 'load' ? loadBackoffMs : backoffMs, undefined, { ref: false });
      if (life !== this.#life) return;
      try {
        await this.#tryStep('helper', true, life);
        if (life === this.#life) this.#succeed('helper');
        return;
      } catch (error) {
        failure = failureOf(error);
        if (life !== this.#life) return;
        this.lastFailure = failure;
        if (failure.kind === 'pin') return this.#giveUp(failure, life);
      }
    }
  }

  /** Asks an idle token from time to time, so that what is wrong shows before somebody needs it; and replaces a helper that is worn out. */
  #watch(): void {
    clearTimeout(this.#checkTimer);
    const { checkIntervalMs } = this.#options.settings;
    this.#checkTimer = setTimeout(() => {
      if (this.#state !== 'ok') return;
      if (this.connection.isWornOut) return this.#recover(['helper'], true);
      const isIdle = performance.now() - this.connection.lastUse >= checkIntervalMs;
      const checked = isIdle ? this.#run('check', {}).then(undefined, ignoreFailure) : Promise.resolve();
      void checked.then(() => this.#state === 'ok' && this.#watch());
    }, checkIntervalMs);
    this.#checkTimer.unref();
  }

  #setState(state: LinkState, failure?: Failure): void {
    const isNew = state !== this.#state;
    this.#state = state;
    if (isNew) this.#options.onState(state, failure);
  }
}

/** A check that fails has started the recovery; its error is in the state. */
function ignoreFailure(error: unknown): void {
  if (!(error instanceof TokenFailure)) throw error;
}

/** What cannot even be tried, because a file or a PIN cannot be read, is a failure like others. */
function failureOf(error: unknown): Failure {
  if (error instanceof TokenFailure) return error.failure;
  return { kind: 'load', message: isAgentError(error) && error.details.hint ? error.details.hint : error instanceof Error ? error.message : String(error) };
}
