import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import { isAgentError } from '@kms-agent/protocol';
import type { Asker } from '../../caller/identity.ts';
import { AbilityCheck } from './ability-check.ts';
import type { Waits } from './backoff.ts';
import { Connection, unrepeatable } from './connection.ts';
import { maxAttempts } from './ladder.ts';
import { type CallName, type Calls, type Failure, suspiciousMs, type TokenAbilities, TokenFailure } from './messages.ts';
import type { TokenPins } from './pins.ts';
import { type LinkState, Recovery } from './recovery.ts';
import type { TokenSettings } from './settings.ts';
import { Slots } from './slots.ts';
import { Tries } from './tries.ts';
import { type Asked, kindOf, Turns } from './turns.ts';

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
  /** Hears of what it was seen to do, each time that it is tried out anew. */
  readonly onAbilities?: (abilities: TokenAbilities) => void;
  /** How long a token that is down is left alone. */
  readonly waits?: Waits;
}

/** A token by way of its helper, that heals itself: calls go through here, and what they meet begins a recovery. */
export class TokenLink {
  readonly #options: LinkOptions;
  readonly #turns: Turns;
  /** Half of the others: what is judged leaves room for what opens at once. */
  readonly #verdicts: Slots;
  readonly #recovery: Recovery;
  readonly connection: Connection;
  readonly abilityCheck: AbilityCheck;
  #logIns: Promise<unknown> = Promise.resolve();
  #checkTimer: NodeJS.Timeout | undefined;

  constructor(options: LinkOptions) {
    const { sessions, maxQueued } = options.settings;
    this.#options = options;
    this.#turns = new Turns(options.settings, () => this.#settle());
    this.#verdicts = new Slots(Math.ceil(sessions / 2), maxQueued);
    this.connection = new Connection(options.settings, options.pins, (why) => void this.#noteGone(why));
    this.abilityCheck = new AbilityCheck(this.connection, async (known) => await this.#probe(known));
    this.#recovery = new Recovery({ ...options, connection: this.connection, onState: (state, failure) => this.#noteState(state, failure) });
  }

  async #probe(known: TokenAbilities): Promise<TokenAbilities> {
    const { abilities } = await this.#run('probe', { known });
    this.#options.onAbilities?.(abilities);
    return abilities;
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

  /** A call failed, and the token is well: `status` shows it until something else fails. */
  noteFailed(failure: Failure): void {
    this.#recovery.show(failure);
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

  /** Tries out again what is doubtful of the token; nobody's work fails because of that. */
  async settleAbilities(): Promise<void> {
    await this.abilityCheck.settle().catch(ignoreFailure);
  }

  /** Waits for a connection that is being made. @throws TokenFailure when there is none. */
  async ready(): Promise<void> {
    await this.#recovery.ready();
  }

  /** @throws TokenFailure: kind `fault` once every rung was tried, or at once while the token is down. AgentError `ERR_BUSY`. */
  async call<C extends CallName>(call: C, params: Calls[C]['takes'], asker?: Asker): Promise<Calls[C]['gives']> {
    if (call === 'judge') return await this.#verdicts.run(() => this.#runWhenCalm(call, params, asker), asker);
    if (unrepeatable.has(call)) await this.#run('check', {}); // what has died of idleness is found by something that can be repeated
    return await this.#run(call, params, asker);
  }

  /** A verdict on a ciphertext: where the token was sick a moment ago, another one later. Nothing is mended meanwhile: nobody knows of anything that is broken. */
  async #runWhenCalm<C extends CallName>(call: C, params: Calls[C]['takes'], asker?: Asker): Promise<Calls[C]['gives']> {
    for (let attempt = 1; ; attempt += 1)
      try {
        return await this.#run(call, params, asker);
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'doubtful') throw error;
        if (attempt === maxAttempts) throw new TokenFailure({ kind: 'fault', rv: 'a token that is sick again and again', call });
        await delay(suspiciousMs, undefined, { ref: false });
      }
  }

  /** Nobody asks a helper that is gone: whoever comes first has it replaced. @throws TokenFailure as ready. */
  #settle(): Promise<void> | undefined {
    if (this.state === 'ok' && !this.connection.isRunning) this.#recovery.mend({ kind: 'fault', rv: 'the helper has ended', call: 'the module' });
    return this.state === 'ok' ? undefined : this.ready();
  }

  async #run<C extends CallName>(call: C, params: Calls[C]['takes'], asker?: Asker): Promise<Calls[C]['gives']> {
    const tries = new Tries(this.connection.timeoutMs(call));
    const asked: Asked = { call, asker, kind: kindOf(call, params, asker) };
    try {
      return await this.#repeat(asked, tries, () => this.connection.ask(call, params));
    } finally {
      this.#turns.end(tries);
    }
  }

  async #repeat<T>(asked: Asked, tries: Tries, ask: () => Promise<T>): Promise<T> {
    const recovery = this.#recovery;
    for (;;) {
      await this.ready();
      let { generation } = recovery;
      try {
        return await this.#turns.run(asked, tries, () => {
          generation = recovery.generation;
          return ask();
        });
      } catch (error) {
        if (!(error instanceof TokenFailure) || error.failure.kind !== 'fault') throw error;
        recovery.note(error.failure);
        const isSick = tries.isRepeated || !this.connection.isRunning || unrepeatable.has(asked.call);
        if (isSick && this.state === 'ok' && generation === recovery.generation) recovery.mend(error.failure);
        if (unrepeatable.has(asked.call)) throw error;
        tries.checkRepeat(error.failure);
        await setImmediate(); // what is not counted may not keep the event loop from hearing how the helper ended
      }
    }
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
