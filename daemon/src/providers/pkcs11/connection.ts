import { setTimeout as delay } from 'node:timers/promises';
import { HelperProcess } from './helper.ts';
import { type CallName, type Calls, type TokenAbilities, TokenFailure, type TokenInfo } from './messages.ts';
import { checkModuleFile, matchOf, type TokenSettings } from './settings.ts';

/** How long C_Finalize waits for what runs. */
const drainMs = 250;
/** pkcs11js loses a little memory with each key it makes: after so many the helper is replaced. */
const maxGenerations = 5000;

/** Calls that make or destroy: one at a time, with a deadline of their own. */
export const changes: ReadonlySet<CallName> = new Set(['generate', 'makeWrappingPair', 'unwrap', 'destroy', 'dropWrappingPair']);
/** Calls that make something, and so are never repeated. */
export const unrepeatable: ReadonlySet<CallName> = new Set(['generate', 'makeWrappingPair', 'unwrap']);

const fault = (rv: string, call: string): TokenFailure => new TokenFailure({ kind: 'fault', rv, call });

/** The helper of the moment, the PIN it is opened with, and what it said of its token. */
export class Connection {
  readonly #settings: TokenSettings;
  readonly #readPin: () => Promise<Uint8Array | undefined>;
  #helper: HelperProcess | undefined;
  #pin: Uint8Array | undefined;
  #made = 0;
  info: TokenInfo | undefined;
  /** Tried out once; a later helper is told. */
  abilities: TokenAbilities | undefined;
  /** On the clock of performance.now(). */
  lastUse = 0;

  /** @param readPin - the PIN, where it needs no person. */
  constructor(settings: TokenSettings, readPin: () => Promise<Uint8Array | undefined>) {
    this.#settings = settings;
    this.#readPin = readPin;
  }

  get isRunning(): boolean {
    return this.#helper?.isRunning ?? false;
  }

  get pid(): number | undefined {
    return this.#helper?.pid;
  }

  /** Whether the helper has made so much that it should go when nothing runs. */
  get isWornOut(): boolean {
    return this.#made >= maxGenerations && this.#helper?.inFlight === 0;
  }

  /** A copy, for whoever may want to go back to it. */
  copyPin(): Uint8Array | undefined {
    return this.#pin && new Uint8Array(this.#pin);
  }

  /** Takes a PIN over, or forgets it. */
  setPin(pin: Uint8Array | undefined): void {
    this.#pin?.fill(0);
    this.#pin = pin;
  }

  /** @throws TokenFailure */
  async ask<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    const helper = this.#helper;
    if (!helper) throw fault('the helper has ended', call);
    this.lastUse = performance.now();
    if (unrepeatable.has(call)) this.#made += 1;
    return await helper.ask(call, params, changes.has(call) ? this.#settings.generateTimeoutMs : this.#settings.timeoutMs);
  }

  /**
   * Replaces the helper, and opens the token with the new one.
   * @param isWanted - asked after each wait: a helper that nobody wants any more is not left behind.
   * @throws TokenFailure; whatever the source of the PIN throws; TypeError for a module that others can write.
   */
  async open(automatic: boolean, isWanted: () => boolean): Promise<void> {
    const { module, sessions, timeoutMs, generateTimeoutMs } = this.#settings;
    await this.close();
    checkModuleFile(module);
    const pin = this.#pin ?? (await this.#readPin());
    if (!isWanted()) {
      pin?.fill(0); // locked while somebody looked for it
      throw fault('stopped', 'open');
    }
    this.#pin = pin;
    const helper = new HelperProcess(sessions);
    this.#helper = helper;
    this.#made = 0;
    const known = { ...(pin ? { pin } : {}), ...(this.abilities ? { abilities: this.abilities } : {}) };
    const opened = await helper.ask('open', { module, match: matchOf(this.#settings), automatic, ...known }, this.abilities ? timeoutMs : generateTimeoutMs);
    if (!isWanted()) {
      await helper.kill();
      throw fault('stopped', 'open');
    }
    this.info = opened.token;
    this.abilities = opened.abilities;
  }

  /** Mends what the helper has; C_Finalize only once nothing runs. @throws TokenFailure */
  async recover(from: 'login' | 'initialize'): Promise<void> {
    const helper = this.#helper;
    if (!helper?.isRunning) throw fault('the helper has ended', 'recover');
    if (from === 'initialize') {
      for (let waited = 0; helper.inFlight > 0 && waited < drainMs; waited += 10) await delay(10);
      if (helper.inFlight > 0) throw fault('calls do not end', 'recover');
    }
    await helper.ask('recover', { from }, this.#settings.timeoutMs);
  }

  /** Ends the helper; what it was asked fails. */
  async close(): Promise<void> {
    const helper = this.#helper;
    this.#helper = undefined;
    await helper?.kill();
  }
}
