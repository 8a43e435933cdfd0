import { setTimeout as delay } from 'node:timers/promises';
import { FirstProbe } from './first-probe.ts';
import { HeldPin } from './held-pin.ts';
import { HelperProcess } from './helper.ts';
import { refuseUntaken } from './log-in-tries.ts';
import { type CallName, type Calls, type TokenAbilities, TokenFailure, type TokenInfo } from './messages.ts';
import type { TokenPins } from './pins.ts';
import { checkModuleFile, matchOf, type TokenSettings } from './settings.ts';

/** How long a recovery, or the end of a helper that is worn out, waits for what runs. */
const drainMs = 250;
/** pkcs11js loses a little memory with each key it makes: after so many the helper is replaced. */
const maxGenerations = 5000;

/** Calls that make or destroy: one at a time, with a deadline of their own. */
export const changes: ReadonlySet<CallName> = new Set(['generate', 'makeWrappingPair', 'unwrap', 'destroy', 'dropWrappingPair', 'probe']);
/** Calls that make something, and so are never repeated. */
export const unrepeatable: ReadonlySet<CallName> = new Set(['generate', 'makeWrappingPair', 'unwrap']);

/** Calls that make keys, session keys among them. */
const makers: ReadonlySet<CallName> = new Set([...unrepeatable, 'open', 'check', 'recover', 'probe']);

const fault = (rv: string, call: string): TokenFailure => new TokenFailure({ kind: 'fault', rv, call });

/** The helper of the moment, the PIN it is opened with, and what it said of its token. */
export class Connection {
  readonly #settings: TokenSettings;
  readonly #pins: TokenPins;
  readonly #onGone: (why: string) => void;
  #helper: HelperProcess | undefined;
  /** Tries a PIN beside it. */
  #trying: HelperProcess | undefined;
  readonly #pin: HeldPin;
  /** What the helper of the moment logs in again with is not the PIN that is held by now. */
  #isOutdated = false;
  /** Whether the PIN that was sent last had been taken before; it outlives the PIN, which a lock forgets. */
  sentTaken = false;
  #made = 0;
  readonly #firstProbe = new FirstProbe();
  info: TokenInfo | undefined;
  /** Tried out once; a later helper is told. */
  abilities: TokenAbilities | undefined;
  /** On the clock of performance.now(). */
  lastUse = 0;

  /** @param onGone - hears of it when the helper of the moment dies. */
  constructor(settings: TokenSettings, pins: TokenPins, onGone: (why: string) => void) {
    this.#settings = settings;
    this.#pins = pins;
    this.#pin = new HeldPin(pins);
    this.#onGone = onGone;
  }

  get isRunning(): boolean {
    return this.#helper?.isRunning ?? false;
  }

  get pid(): number | undefined {
    return this.#helper?.pid;
  }

  get openSessions(): number {
    return this.#helper?.openSessions ?? 0;
  }

  /** Whether the helper has made so much that it should go when nothing runs. */
  get isWornOut(): boolean {
    return this.#made >= maxGenerations;
  }

  /** Whether there is a PIN that the token has taken, and no other of its label. */
  get hasTakenPin(): boolean {
    return this.#pin.isTaken;
  }

  /** Takes a PIN over, or forgets it. @param taker - serial number of the token that is known to have taken it before. */
  setPin(pin: Uint8Array | undefined, taker?: string): void {
    this.#pin.set(pin, taker);
  }

  /** Takes a PIN over once the token has taken it, in a helper of its own: the one that works is not disturbed. @throws TokenFailure */
  async prove(pin: Uint8Array): Promise<void> {
    const held = this.#pin.bytes;
    let helper: HelperProcess | undefined;
    try {
      helper = new HelperProcess(1);
      this.#trying = helper;
      await this.#openIn(helper, pin, false);
      if (helper.hasSentPin && !helper.taker) throw new TokenFailure({ kind: 'pin', why: 'unread' });
      if (held !== this.#pin.bytes) throw fault('stopped', 'open');
      this.#isOutdated = true;
      this.setPin(pin, helper.taker?.serial);
    } catch (error) {
      pin.fill(0);
      throw error instanceof TokenFailure ? new TokenFailure(refuseUntaken(error.failure)) : error;
    } finally {
      this.#trying = undefined;
      await helper?.kill();
    }
  }

  /** How long a call may last. */
  timeoutMs(call: CallName): number {
    return changes.has(call) ? this.#settings.generateTimeoutMs : this.#settings.timeoutMs;
  }

  /** @throws TokenFailure */
  async ask<C extends CallName>(call: C, params: Calls[C]['takes']): Promise<Calls[C]['gives']> {
    const helper = this.#helper;
    if (!helper) throw fault('the helper has ended', call);
    this.lastUse = performance.now();
    if (makers.has(call)) this.#made += 1;
    return await helper.ask(call, params, this.timeoutMs(call));
  }

  /**
   * Replaces the helper, and opens the token with the new one.
   * @param isWanted - asked after each wait: a helper that nobody wants any more is not left behind.
   * @throws TokenFailure; whatever the source of the PIN throws; TypeError for a module that others can write.
   */
  async open(automatic: boolean, isWanted: () => boolean): Promise<void> {
    await this.close();
    if (!isWanted()) throw fault('stopped', 'open');
    const pin = this.#pin.bytes ?? (await this.#pins.read());
    if (!isWanted()) {
      pin?.fill(0);
      throw fault('stopped', 'open');
    }
    if (pin !== this.#pin.bytes) this.#pin.setRead(pin);
    const helper: HelperProcess = new HelperProcess(this.#settings.sessions, (why) => helper === this.#helper && this.#onGone(why));
    this.#helper = helper;
    this.#isOutdated = false;
    this.sentTaken = this.hasTakenPin;
    this.#made = 0;
    const opened = await this.#openIn(helper, pin, automatic).finally(() => {
      if (helper.taker && pin === this.#pin.bytes) this.#pin.noteTaker(helper.taker.serial); // whatever failed after that
    });
    if (!isWanted()) {
      await helper.kill();
      throw fault('stopped', 'open');
    }
    this.sentTaken = this.hasTakenPin;
    this.info = opened.token;
    if (this.abilities) return;
    const abilities = await this.#firstProbe.run(helper, this.#settings.generateTimeoutMs); // long; what opens it is not, and a hang there is seen soon
    if (helper === this.#helper) this.abilities = abilities;
  }

  async #openIn(helper: HelperProcess, pin: Uint8Array | undefined, automatic: boolean): Promise<Calls['open']['gives']> {
    const { timeoutMs, sessions } = this.#settings;
    const module = checkModuleFile(this.#settings.module);
    const { abilities } = this;
    const { serial } = this.#pins;
    const known = { ...(serial === undefined ? {} : { serial }), ...(pin ? { pin } : {}), ...(abilities ? { abilities } : {}) };
    const params = { module, match: matchOf(this.#settings), automatic, sessions, ...known };
    const opened = await helper.ask('open', params, timeoutMs).catch((error: unknown) => {
      if (helper.taker) this.#pins.note(helper.taker); // a PIN that counts as taken goes to no other token of the label
      throw error;
    });
    this.#pins.note(opened.token);
    return opened;
  }

  /** Mends what the helper has, once nothing runs: C_Finalize would break it, and a call that hangs could hold up C_Login, which then counts as refused. @throws TokenFailure */
  async recover(from: 'login' | 'initialize'): Promise<void> {
    const helper = this.#helper;
    if (!helper?.isRunning) throw fault('the helper has ended', 'recover');
    if (this.#isOutdated) throw fault('the helper has an older PIN', 'recover'); // which the token may refuse, and count
    if (!(await this.drain())) throw fault('calls do not end', 'recover');
    await helper.ask('recover', { from }, this.#settings.timeoutMs);
  }

  /** Waits a little for what runs. @returns whether it has ended. */
  async drain(): Promise<boolean> {
    for (let waited = 0; (this.#helper?.inFlight ?? 0) > 0 && waited < drainMs; waited += 10) await delay(10);
    return (this.#helper?.inFlight ?? 0) === 0;
  }

  /** Ends the helper; what it was asked fails. */
  async close(): Promise<void> {
    const helper = this.#helper;
    this.#helper = undefined;
    await helper?.kill();
  }

  /** Ends what tries a PIN as well. */
  async closeAll(): Promise<void> {
    await Promise.all([this.close(), this.#trying?.kill()]);
  }
}
