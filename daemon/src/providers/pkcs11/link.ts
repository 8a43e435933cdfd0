import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { AbilityCheck } from './ability-check.ts';
import { Connection, changes, unrepeatable } from './connection.ts';
import { Ladder, maxAttempts, type Step } from './ladder.ts';
import { type CallName, type Calls, type Failure, suspiciousMs, TokenFailure } from './messages.ts';
import { Quarantine } from './quarantine.ts';
import type { TokenSettings } from './settings.ts';
import { Slots } from './slots.ts';
import { Tries } from './tries.ts';

/** `connecting` while a recovery runs: calls wait for it. `down`: calls fail at once, and it is tried again by itself. `disabled`: only a person helps. */
export type LinkState = 'stopped' | 'connecting' | 'ok' | 'down' | 'disabled';

const firstBackoffMs = 100;
const maxBackoffMs = 800;
/** A helper that died so soon after the token was there is not replaced at once, unless somebody needs it. */
const shortLifeMs = 1000;
/** Waits before a log-in that was refused for no clear reason is tried again; then it is left to a person. */
const logInBackoffMs = [1000, 5000] as const;
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
  /** Half of the others: what is judged leaves room for what opens at once. */
  readonly #verdicts: Slots;
  readonly #quarantine = new Quarantine();
  readonly #ladder = new Ladder();
  readonly connection: Connection;
  readonly abilityCheck: AbilityCheck;
  #state: LinkState = 'stopped';
  /** Resolved when it is not `connecting` any more. */
  #settled = Promise.withResolvers<void>();
  #climbing: Promise<void> | undefined;
  #logIns: Promise<unknown> = Promise.resolve();
  /** A PIN was refused, and nothing but a person tries one again: a real token would lock. Outlives a stop. */
  #refusal: Failure | undefined;
  /** Log-ins in a row that were refused for no clear reason, which a token may count. */
  #logInFailures = 0;
  /** Counts recoveries: a call that failed before one is only tried again. */
  #generation = 0;
  /** Counts starts: what an earlier life began does not touch a later one. */
  #life = 0;
  /** When it was last mended or opened. */
  #okTime = Number.NEGATIVE_INFINITY;
  #checkTimer: NodeJS.Timeout | undefined;
  lastFailure: Failure | undefined;

  constructor(options: LinkOptions) {
    const { sessions, maxQueued } = options.settings;
    this.#options = options;
    this.#slots = new Slots(sessions, maxQueued);
    this.#changes = new Slots(1, maxQueued);
    this.#verdicts = new Slots(Math.ceil(sessions / 2), maxQueued);
    this.connection = new Connection(options.settings, options.readPin, (why) => void this.#noteGone(why));
    this.abilityCheck = new AbilityCheck(this.connection, () => this.#run('probe', {}));
  }

  get state(): LinkState {
    return this.#state;
  }

  get recoveries(): number {
    return this.#ladder.recoveries;
  }

  /** Connects, unless it is or does already. Does not wait. */
  start(): void {
    if (this.#state !== 'stopped') return;
    if (this.#refusal) this.#disable(this.#refusal);
    else this.#restart(true);
  }

  /** Ends the helper and forgets the PIN. Waits for nothing but that: a keychain that is asked for a PIN may take long. */
  async stop(): Promise<void> {
    this.#life += 1;
    this.#climbing = undefined;
    this.#setState('stopped');
    clearTimeout(this.#checkTimer);
    this.connection.setPin(undefined);
    await this.connection.closeAll();
  }

  /**
   * Logs in with the PIN of a person, or again with the one that is known, and waits; one after the other. Takes the PIN over. A token that
   * works goes on working meanwhile, and with what it has when the PIN is wrong.
   * @throws TokenFailure; AgentError `ERR_BUSY`.
   */
  async logIn(pin: Uint8Array | undefined): Promise<void> {
    const mine = this.#logIns.then(() => this.#logIn(pin));
    this.#logIns = mine.catch(() => undefined); // the caller of this one hears of it; the next one does not care
    await mine;
  }

  async #logIn(pin: Uint8Array | undefined): Promise<void> {
    if (this.#state === 'connecting') await this.#waitToSettle();
    if (pin && (this.#state === 'ok' || this.connection.hasProvenPin)) await this.connection.prove(pin);
    else if (pin) this.connection.setPin(pin);
    if (this.#state === 'ok') return void (await this.#run('check', {}));
    this.#refusal = undefined;
    this.#logInFailures = 0;
    this.#restart(pin === undefined);
    await this.ready();
  }

  /** Waits for a connection that is being made. @throws TokenFailure when there is none. */
  async ready(): Promise<void> {
    if (this.#state === 'connecting') await this.#waitToSettle();
    if (this.#state !== 'ok') throw new TokenFailure(this.lastFailure ?? { kind: 'fault', rv: this.#state, call: 'open' });
  }

  /** @throws TokenFailure: kind `fault` once every rung was tried, or at once while the token is down. AgentError `ERR_BUSY`. */
  async call<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    if (call === 'judge') return await this.#verdicts.run(() => this.#runWhenCalm(call, params));
    if (unrepeatable.has(call)) await this.#run('check', {}); // what has died of idleness is found by something that can be repeated
    return await this.#run(call, params);
  }

  /** A verdict on a ciphertext: where the token was sick a moment ago, another one later. Nothing is mended meanwhile: nobody knows of anything that is broken. */
  async #runWhenCalm<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    for (let attempt = 1; ; attempt += 1)
      try {
        return await this.#run(call, params);
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'doubtful') throw error;
        if (attempt === maxAttempts) throw new TokenFailure({ kind: 'fault', rv: 'a token that is sick again and again', call });
        await delay(suspiciousMs, undefined, { ref: false });
      }
  }

  async #run<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    const tries = new Tries(this.connection.timeoutMs(call));
    for (;;) {
      await this.ready();
      let generation = this.#generation;
      try {
        return await this.#inTurn(call, tries, () => {
          generation = this.#generation;
          return this.connection.ask(call, params);
        });
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault') throw error;
        this.lastFailure = error.failure;
        tries.note(error.failure);
        const isSick = tries.isRepeated || !this.connection.isRunning || unrepeatable.has(call);
        if (isSick && this.#state === 'ok' && generation === this.#generation) this.#recover(this.#ladder.steps(!this.connection.isRunning), true);
        if (unrepeatable.has(call)) throw error;
        tries.checkRepeat(error.failure);
        await setImmediate(); // what is not counted may not keep the event loop from hearing how the helper ended
      }
    }
  }

  /** Runs a try in a slot beside others, or alone what may have cost a helper. */
  async #inTurn<T>(call: CallName, tries: Tries, ask: () => Promise<T>): Promise<T> {
    const work = async (letIn?: () => void): Promise<T> => {
      if (this.#state === 'connecting') await this.#waitToSettle(); // since it began to wait for its turn
      tries.begin();
      const answer = ask();
      if (tries.suspicion === 'late') letIn?.();
      return await answer;
    };
    if (tries.suspicion) return await this.#quarantine.alone(work);
    return await (changes.has(call) ? this.#changes : this.#slots).run(() => this.#quarantine.beside(work));
  }

  /** The helper died, perhaps of nothing that was asked of it: it is replaced before somebody needs it, but not at once, again and again. */
  async #noteGone(why: string): Promise<void> {
    const life = this.#life;
    const generation = this.#generation;
    const isSoon = performance.now() - this.#okTime < shortLifeMs;
    if (isSoon) await delay(shortLifeMs, undefined, { ref: false });
    if (this.#state !== 'ok' || life !== this.#life || generation !== this.#generation) return;
    this.lastFailure = { kind: 'fault', rv: why, call: 'the module' };
    this.#recover(this.#ladder.steps(true), true);
  }

  async #waitToSettle(): Promise<void> {
    const { timeoutMs, generateTimeoutMs } = this.#options.settings;
    const patience = new AbortController();
    const patienceMs = this.connection.abilities ? timeoutMs : generateTimeoutMs; // the first time it is also tried out
    const late = delay(patienceMs, 'late', { ref: false, signal: patience.signal }).catch(() => 'settled');
    while (this.#state === 'connecting') if ((await Promise.race([this.#settled.promise, late])) === 'late') return;
    patience.abort();
  }

  #restart(automatic: boolean): void {
    this.#life += 1;
    this.#recover(['helper'], automatic);
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
        failure = this.#judge(failureOf(error));
        if (failure.kind === 'pin' || failure.kind === 'logIn') break; // another try could lock the PIN
      }
    }
    if (life === this.#life) this.#giveUp(failure, life);
  }

  async #tryStep(step: Step, automatic: boolean, life: number): Promise<void> {
    if (step === 'check' || (step === 'renew' && !(await this.connection.drain()))) await this.connection.ask('check', {});
    else if (step === 'helper' || step === 'renew') await this.connection.open(automatic, () => life === this.#life);
    else await this.connection.recover(step);
  }

  #succeed(step: Step): void {
    this.#generation += 1;
    this.#okTime = performance.now();
    this.#logInFailures = 0;
    this.#ladder.note(step);
    this.#setState('ok');
    this.#watch();
  }

  #giveUp(failure: Failure, life: number): void {
    this.lastFailure = failure;
    if (failure.kind === 'pin') {
      this.#disable(failure);
      return;
    }
    this.#setState('down', failure);
    void this.#comeBack(life, failure);
  }

  /** Nothing is tried any more until a person does. A PIN that is only missing may be there at the next start. */
  #disable(failure: Failure): void {
    if (failure.kind === 'pin' && failure.why !== 'needed') this.#refusal = failure;
    this.lastFailure = failure;
    this.connection.setPin(undefined);
    this.#setState('disabled', failure);
    void this.connection.close();
  }

  /** Tries again by itself, with a new helper, until it succeeds or somebody stops it. */
  async #comeBack(life: number, first: Failure): Promise<void> {
    let failure = first;
    for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
      await delay(this.#backoffMs(failure) ?? backoffMs, undefined, { ref: false });
      if (life !== this.#life) return;
      try {
        await this.#tryStep('helper', true, life);
        if (life === this.#life) this.#succeed('helper');
        return;
      } catch (error) {
        if (life !== this.#life) return;
        failure = this.#judge(failureOf(error));
        this.lastFailure = failure;
        if (failure.kind === 'pin') return this.#giveUp(failure, life);
      }
    }
  }

  /** Counts log-ins that failed for no clear reason; the last one is a refusal. */
  #judge(failure: Failure): Failure {
    if (failure.kind !== 'logIn') return failure;
    this.#logInFailures += 1;
    return this.#logInFailures > logInBackoffMs.length ? { kind: 'pin', why: 'refused', rv: failure.rv } : failure;
  }

  /** How long a failure lasts at least. */
  #backoffMs({ kind }: Failure): number | undefined {
    if (kind === 'load') return loadBackoffMs;
    return kind === 'logIn' ? logInBackoffMs[this.#logInFailures - 1] : undefined;
  }

  /** Asks an idle token from time to time, so that what is wrong shows before somebody needs it; and replaces a helper that is worn out. */
  #watch(): void {
    clearTimeout(this.#checkTimer);
    const { checkIntervalMs } = this.#options.settings;
    this.#checkTimer = setTimeout(() => {
      if (this.#state !== 'ok') return;
      if (this.connection.isWornOut) return this.#recover(['renew'], true);
      const isIdle = performance.now() - this.connection.lastUse >= checkIntervalMs;
      const checked = (isIdle ? this.#run('check', {}) : Promise.resolve()).then(() => this.abilityCheck.settle()).catch(ignoreFailure);
      void checked.then(() => this.#state === 'ok' && this.#watch());
    }, checkIntervalMs);
    this.#checkTimer.unref();
  }

  #setState(state: LinkState, failure?: Failure): void {
    const isNew = state !== this.#state;
    this.#state = state;
    if (isNew && state === 'connecting') this.#settled = Promise.withResolvers();
    if (state !== 'connecting') this.#settled.resolve();
    if (isNew) this.#options.onState(state, failure);
  }
}

/** A check that fails has started the recovery, and its error is in the state; where so many calls wait that it finds no room, the token is not idle. */
function ignoreFailure(error: unknown): void {
  if (!(error instanceof TokenFailure) && !isAgentError(error, 'ERR_BUSY')) throw error;
}

/** What cannot even be tried, because a file or a PIN cannot be read, is a failure like others. */
function failureOf(error: unknown): Failure {
  if (error instanceof TokenFailure) return error.failure;
  return { kind: 'load', message: isAgentError(error) && error.details.hint ? error.details.hint : error instanceof Error ? error.message : String(error) };
}
