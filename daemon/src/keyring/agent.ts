import { AgentError, type AgentState } from '@kms-agent/protocol';
import type { Provider } from '../providers/provider.ts';
import { changeMark, type LockMark } from '../vault/lock-mark.ts';
import type { Opening, Vault } from '../vault/vault.ts';
import { AutoLock, type AutoLockSettings, type LockReason } from './auto-lock.ts';
import { BelievableClock } from './clock.ts';
import { Gate } from './gate.ts';
import { noteOpening } from './keyslot-history.ts';
import type { OpenKeyring } from './open-keyring.ts';
import { UnlockedKeys, type UnlockedKeysOptions } from './unlocked-keys.ts';
import { VaultFinder, type VaultFinderOptions } from './vault-finder.ts';
import { describeWarnings } from './warnings.ts';
import { WaysIn, type WaysInOptions } from './ways-in.ts';

export interface AgentOptions extends UnlockedKeysOptions, VaultFinderOptions, WaysInOptions, AutoLockSettings {
  /** The requests that run do not end within `lockTimeoutMs`, or lock went wrong: the process must go, because it may still hold keys. */
  readonly onLockFailed: (error?: unknown) => void;
  /** Hears of each unlock and lock, when it is done. */
  readonly onState?: () => void;
  /** Of the vault's folder; a vault in memory has none. */
  readonly lockMark?: LockMark;
}

/** Reasons to lock that end when the session goes on. */
const ofSession: ReadonlySet<LockReason> = new Set(['screenLock', 'suspend']);

/** The vault's life: uninitialized, locked, unlocked, and the way between. */
export class Agent {
  readonly startTime: number;
  readonly providers: readonly Provider[];
  readonly ways: WaysIn;
  unlockTime: number | undefined;
  /** Nobody has locked or unlocked since the start, nor locked before it. */
  isUntouched: boolean;
  readonly #options: AgentOptions;
  readonly #vault: VaultFinder;
  readonly #clock: BelievableClock;
  readonly #gate = new Gate();
  readonly #autoLock: AutoLock;
  readonly #keys: UnlockedKeys;
  #turn: Promise<unknown> = Promise.resolve();
  /** The agent has decided to lock itself, and does so as soon as it is its turn. */
  #isLocking = false;
  #lockCount = 0;
  /** Since it was last open only the session has locked it: the screen, or a suspension. */
  #isLockedBySession = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.providers = options.providers;
    this.ways = new WaysIn(this, options);
    this.startTime = options.time.wall();
    this.isUntouched = !options.lockMark?.isSet;
    this.#clock = new BelievableClock(options.time, options.limits.maxOffMs);
    this.#autoLock = new AutoLock(this, this.#gate, options);
    this.#keys = new UnlockedKeys(options, { clock: this.#clock, gate: this.#gate, autoLock: this.#autoLock });
    this.#vault = new VaultFinder(options);
    if (this.#vault.found?.state !== 'UNLOCKED') return;
    this.#keys.begin(this.#vault.found);
    this.#tellUnlocked();
  }

  get state(): AgentState {
    if (this.isUnlocked) return 'UNLOCKED';
    return this.isInitialized() ? 'LOCKED' : 'UNINITIALIZED';
  }

  /** Whether requests that need keys are let in. */
  get isUnlocked(): boolean {
    return this.#keys.open !== undefined && this.#gate.isOpen && !this.#isLocking;
  }

  /** Whether there is a vault that can be opened. */
  isInitialized(): boolean {
    return this.#vault.isThere();
  }

  /** @throws AgentError `ERR_NOT_INITIALIZED`; `ERR_STATE_CONFLICT`, `ERR_STORE_UNAVAILABLE` for one that cannot be opened. */
  get vault(): Vault {
    return this.#vault.find();
  }

  /** Of the vault; 0 while it is not open. */
  get revision(): bigint {
    const { found } = this.#vault;
    return found?.state === 'UNLOCKED' ? found.revision : 0n;
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`, `ERR_NOT_INITIALIZED`. */
  get open(): OpenKeyring {
    return this.#keys.open ?? this.#refuse();
  }

  /** Locks that were asked for so far. */
  get lockCount(): number {
    return this.#lockCount;
  }

  get keyCount(): number {
    return this.#keys.open?.keyring.keyCount ?? 0;
  }

  /** Whether an unlock while it is open means anything: there are keys whose time it begins anew. */
  get hasLifetimes(): boolean {
    return this.#keys.open?.keyring.lifetimes.isUsed ?? false;
  }

  /** What an administrator should know of the keys; one line each. */
  get warnings(): string[] {
    return describeWarnings(this.#clock, this.#options.witness, this.#keys.open);
  }

  /** An administrator says that the wall clock is right: destruction and expiry go on. */
  confirmClock(): void {
    const { watch } = this.open;
    this.#clock.confirm();
    watch.keepClock();
    watch.start(true);
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`, `ERR_NOT_INITIALIZED`. */
  requireUnlocked(): void {
    if (!this.isUnlocked) this.#refuse();
  }

  /** Runs a request that needs keys; lock waits for its end. @throws as requireUnlocked. */
  async withKeys<T>(work: () => Promise<T> | T): Promise<T> {
    this.#autoLock.look();
    this.requireUnlocked();
    this.#autoLock.touch();
    this.#gate.enter();
    try {
      return await work();
    } finally {
      this.#gate.leave();
      this.#autoLock.touch();
      this.#autoLock.dropOver(); // what it used may have waited for its end
    }
  }

  /**
   * Opens the vault with a slot that opened; where it is open already, the secret was proven, and the lifetimes of keys begin anew.
   * @param lockCount - when the opening was asked for. @throws AgentError `ERR_AGENT_LOCKED` when a lock came after that: it would be undone.
   */
  async openWith(vault: Vault, opening: Opening, lockCount: number): Promise<void> {
    await this.#inTurn(async () => {
      try {
        if (this.#lockCount !== lockCount)
          throw new AgentError('ERR_AGENT_LOCKED', { hint: 'The agent was locked while it was being opened. Unlock it again.' });
        if (this.#keys.open) await this.#keys.renew(this.#keys.open, opening);
        else await this.#unlock(vault, opening, lockCount);
      } finally {
        opening.wipe();
      }
    });
  }

  async #unlock(vault: Vault, opening: Opening, lockCount: number): Promise<void> {
    const keyring = await this.#keys.unlock(vault, opening);
    this.#tellUnlocked();
    if (this.#lockCount === lockCount) this.#mark('clear'); // else a lock waits for its turn
    noteOpening(keyring, opening.keyslotId, this.#options);
  }

  #tellUnlocked(): void {
    this.unlockTime = this.#options.time.wall();
    this.#options.onState?.();
  }

  /** Lets running requests end, forgets every key, and comes back only when their memory has been collected. */
  async lock(): Promise<void> {
    this.#isLockedBySession = false;
    await this.#lockAndMark();
  }

  async #lockAndMark(): Promise<void> {
    this.isUntouched = false;
    this.#mark('set'); // first: however this ends, the next start knows
    await this.#lock();
  }

  /** Locks for a reason of the agent's own, which the audit record then names. What needs keys is refused from now on. */
  async lockBecause(because: LockReason): Promise<void> {
    const isOpen = this.isUnlocked;
    if (isOpen) this.#options.witness.note({ operation: 'lock', outcome: 'ok', detail: { because } });
    this.#isLockedBySession = ofSession.has(because) && (isOpen || this.#isLockedBySession);
    this.#isLocking = this.#keys.open !== undefined;
    await this.#lockAndMark().finally(() => {
      this.#isLocking = false;
    });
  }

  /**
   * Opens the vault again without a person, if nobody but the session has locked it.
   * @returns whether it is open because of this. @throws as WaysIn.unlockByItself.
   */
  async reopen(): Promise<boolean> {
    if (this.state !== 'LOCKED' || !this.#isLockedBySession || !this.ways.hasOwnKeyslot) return false;
    try {
      await this.ways.unlockByItself();
      return true;
    } catch (error) {
      await this.ways.sleep();
      throw error;
    }
  }

  /** Locks and gives the vault back. */
  async close(): Promise<void> {
    await this.#lock(); // a start that follows opens it as any other does
    await Promise.all(this.providers.map((provider) => provider.close()));
    this.#vault.found?.close();
  }

  async #lock(): Promise<void> {
    this.#lockCount += 1;
    await this.#inTurn(async () => {
      const wasOpen = this.#keys.open !== undefined;
      const { lockTimeoutMs, onLockFailed } = this.#options;
      const overdue = setTimeout(onLockFailed, lockTimeoutMs);
      try {
        await this.#keys.forget();
        this.unlockTime = undefined; // last: whoever sees it gone knows that the keys are
      } catch (error) {
        onLockFailed(error);
        throw error;
      } finally {
        clearTimeout(overdue);
      }
      if (wasOpen) this.#options.onState?.();
    });
  }

  #mark(change: 'set' | 'clear'): void {
    const { lockMark, onWarning } = this.#options;
    if (lockMark && this.isInitialized()) changeMark(lockMark, change, onWarning);
  }

  #refuse(): never {
    throw new AgentError(this.isInitialized() ? 'ERR_AGENT_LOCKED' : 'ERR_NOT_INITIALIZED');
  }

  #inTurn<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // the caller of this turn hears of its failure; the next turn does not care
    return result;
  }
}
