import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import { AbilityCheck } from './ability-check.ts';
import { Connection, changes, unrepeatable } from './connection.ts';
import { maxAttempts } from './ladder.ts';
import { type CallName, type Calls, type Failure, suspiciousMs, TokenFailure } from './messages.ts';
import type { TokenPins } from './pins.ts';
import { Quarantine } from './quarantine.ts';
import { type LinkState, Recovery } from './recovery.ts';
import type { TokenSettings } from './settings.ts';
import { Slots } from './slots.ts';
import { Tries } from './tries.ts';

/** A helper that died so soon after the token was there is not replaced at once, unless somebody needs it. */
const shortLifeMs = 1000;

export interface LinkOptions {
  readonly settings: TokenSettings;
  /** The link zeroes what it reads. */
  readonly pins: TokenPins;
  /** Milliseconds since the epoch, for people. */
  readonly now: () => number;
  /** Hears of each change of state, once. */
  readonly onState: (state: LinkState, failure?: Failure) => void;
}

/** A token by way of its helper, that heals itself: calls go through here, and what they meet begins a recovery. */
export class TokenLink {
  readonly #options: LinkOptions;
  readonly #slots: Slots;
  readonly #changes: Slots;
  /** Half of the others: what is judged leaves room for what opens at once. */
  readonly #verdicts: Slots;
  readonly #quarantine = new Quarantine();
  readonly #recovery: Recovery;
  readonly connection: Connection;
  readonly abilityCheck: AbilityCheck;
  #logIns: Promise<unknown> = Promise.resolve();
  #checkTimer: NodeJS.Timeout | undefined;

  constructor(options: LinkOptions) {
    const { sessions, maxQueued } = options.settings;
    this.#options = options;
    this.#slots = new Slots(sessions, maxQueued);
    this.#changes = new Slots(1, maxQueued);
    this.#verdicts = new Slots(Math.ceil(sessions / 2), maxQueued);
    this.connection = new Connection(options.settings, options.pins, (why) => void this.#noteGone(why));
    this.abilityCheck = new AbilityCheck(this.connection, async (known) => (await this.#run('probe', { known })).abilities);
    this.#recovery = new Recovery({ ...options, connection: this.connection, onState: (state, failure) => this.#noteState(state, failure) });
  }

  get state(): LinkState {
    return this.#recovery.state;
  }

  get recoveries(): number {
    return this.#recovery.recoveries;
  }

  get lastFailure(): Failure | undefined {
    return this.#recovery.lastFailure;
  }

  get lastFailureTime(): number | undefined {
    return this.#recovery.lastFailureTime;
  }

  /** Connects, unless it is or does already. Does not wait. */
  start(): void {
    this.#recovery.start();
  }

  /** Ends the helper and forgets the PIN. Waits for nothing but that: a keychain that is asked for a PIN may take long. */
  async stop(): Promise<void> {
    this.#recovery.stop();
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
    this.abilityCheck.doubt();
    if (this.state === 'connecting') await this.#recovery.waitToSettle();
    if (pin && (this.state === 'ok' || this.connection.hasTakenPin)) await this.connection.prove(pin);
    else if (pin) this.connection.setPin(pin);
    if (this.state === 'ok') return void (await this.#run('check', {}));
    this.#recovery.restart(pin === undefined);
    await this.ready();
  }

  /** Waits for a connection that is being made. @throws TokenFailure when there is none. */
  async ready(): Promise<void> {
    await this.#recovery.ready();
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
    const recovery = this.#recovery;
    const tries = new Tries(this.connection.timeoutMs(call));
    for (;;) {
      await this.ready();
      let { generation } = recovery;
      try {
        return await this.#inTurn(call, tries, () => {
          generation = recovery.generation;
          return this.connection.ask(call, params);
        });
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault') throw error;
        recovery.note(error.failure);
        tries.note(error.failure);
        const isSick = tries.isRepeated || !this.connection.isRunning || unrepeatable.has(call);
        if (isSick && this.state === 'ok' && generation === recovery.generation) recovery.mend(error.failure);
        if (unrepeatable.has(call)) throw error;
        tries.checkRepeat(error.failure);
        await setImmediate(); // what is not counted may not keep the event loop from hearing how the helper ended
      }
    }
  }

  /** Runs a try in a slot beside others, or alone what may have cost a helper. */
  async #inTurn<T>(call: CallName, tries: Tries, ask: () => Promise<T>): Promise<T> {
    const work = async (letIn?: () => void): Promise<T> => {
      if (this.state === 'connecting') await this.#recovery.waitToSettle(); // since it began to wait for its turn
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
    const { life, generation, okTime } = this.#recovery;
    const isSoon = performance.now() - okTime < shortLifeMs;
    if (isSoon) await delay(shortLifeMs, undefined, { ref: false });
    if (this.state !== 'ok' || life !== this.#recovery.life || generation !== this.#recovery.generation) return;
    this.#recovery.mend({ kind: 'fault', rv: why, call: 'the module' });
  }

  #noteState(state: LinkState, failure?: Failure): void {
    this.#options.onState(state, failure);
    if (state === 'ok') this.#watch();
  }

  /** Asks an idle token from time to time, so that what is wrong shows before somebody needs it; and replaces a helper that is worn out. */
  #watch(): void {
    clearTimeout(this.#checkTimer);
    const { checkIntervalMs } = this.#options.settings;
    this.#checkTimer = setTimeout(() => {
      if (this.state !== 'ok') return;
      if (this.connection.isWornOut) return this.#recovery.renew();
      const isIdle = performance.now() - this.connection.lastUse >= checkIntervalMs;
      const checked = (isIdle ? this.#run('check', {}) : Promise.resolve()).then(() => this.abilityCheck.settle()).catch(ignoreFailure);
      void checked.then(() => this.state === 'ok' && this.#watch());
    }, checkIntervalMs);
    this.#checkTimer.unref();
  }
}

/** A check that fails has started the recovery, and its error is in the state; where so many calls wait that it finds no room, the token is not idle. */
function ignoreFailure(error: unknown): void {
  if (!(error instanceof TokenFailure) && !isAgentError(error, 'ERR_BUSY')) throw error;
}
