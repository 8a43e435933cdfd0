import { setImmediate as nextTurn } from 'node:timers/promises';
import { AgentError, type AgentState, isAgentError } from '@kms-agent/protocol';
import { collectGarbage } from '../os/garbage.ts';
import { isToken, type Provider } from '../providers/provider.ts';
import type { LockMark } from '../vault/lock-mark.ts';
import { type Opening, unboxerOf, type Vault } from '../vault/vault.ts';
import type { AgentAct } from './acts.ts';
import { AutoLock, type LockReason } from './auto-lock.ts';
import { BelievableClock, type TimeSource } from './clock.ts';
import { Gate } from './gate.ts';
import type { SecretStore } from './keychain-keyslot.ts';
import { Keyring } from './keyring.ts';
import { noteKeyslots } from './keyslot-history.ts';
import { type KeyringLimits, type OpenKeyring, openKeyring } from './open-keyring.ts';
import { mentionedBy } from './records.ts';
import { WaysIn } from './ways-in.ts';
import type { Witness } from './witness.ts';

export interface AgentOptions {
  readonly providers: readonly Provider[];
  readonly time: TimeSource;
  readonly limits: KeyringLimits;
  /** Opens the vault, locked; undefined while there is none yet. */
  readonly openVault: () => Vault | undefined;
  /** Milliseconds that lock may take; past it `onLockFailed` is called. */
  readonly lockTimeoutMs: number;
  /** The requests that run do not end, or lock went wrong: the process must go, because it may still hold keys. */
  readonly onLockFailed: (error?: unknown) => void;
  /** Hears of each unlock and lock, when it is done. */
  readonly onState?: () => void;
  /** Hears of each act of the agent's own, once it is done and recorded. */
  readonly onAct: (act: AgentAct) => void;
  /** Hears of what an administrator should look at. */
  readonly onWarning: (warning: string, error?: unknown) => void;
  readonly witness: Witness;
  /** Of the vault's folder; a vault in memory has none. */
  readonly lockMark?: LockMark;
  /** Where secrets of keyslots may lie: the OS keychain. */
  readonly keychain: SecretStore;
  /** Milliseconds without a request that needs keys after which the agent locks itself; 0 for never. */
  readonly idleLockMs: number;
  /** Whether the agent locks itself when the machine has been suspended, also if nobody announced it. */
  readonly lockOnSuspend: boolean;
}

/** The vault's life: uninitialized, locked, unlocked, and the way between. */
export class Agent {
  readonly startTime: number;
  readonly providers: readonly Provider[];
  readonly #options: AgentOptions;
  readonly #gate = new Gate();
  readonly #clock: BelievableClock;
  #vault: Vault | undefined;
  #open: OpenKeyring | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #autoLock: AutoLock;
  #autoLockTimer: NodeJS.Timeout | undefined;
  /** The agent has decided to lock itself, and does so as soon as it is its turn. */
  #isLocking = false;
  unlockTime: number | undefined;
  readonly ways: WaysIn;
  /** Nobody has locked or unlocked since the start, nor locked before it. */
  isUntouched: boolean;
  #lockCount = 0;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.providers = options.providers;
    this.ways = new WaysIn(this, options);
    this.startTime = options.time.wall();
    this.isUntouched = !options.lockMark?.isSet;
    this.#autoLock = new AutoLock(options);
    this.#clock = new BelievableClock(options.time, options.limits.maxOffMs);
    this.#vault = options.openVault();
    if (this.#vault?.state === 'UNLOCKED') this.#beginNew(this.#vault);
  }

  /** A vault in memory is new, and open already. */
  #beginNew(vault: Vault): void {
    const keyring = this.#makeKeyring(vault);
    this.#options.witness.begin(vault, keyring);
    this.#load(keyring);
  }

  get state(): AgentState {
    if (this.#open && this.#gate.isOpen && !this.#isLocking) return 'UNLOCKED';
    return this.isInitialized() ? 'LOCKED' : 'UNINITIALIZED';
  }

  /** Of the vault; 0 while it is not open. */
  get revision(): bigint {
    return this.#vault?.state === 'UNLOCKED' ? this.#vault.revision : 0n;
  }

  /** Locks that were asked for so far. */
  get lockCount(): number {
    return this.#lockCount;
  }

  get keyCount(): number {
    return this.#open?.keyring.keyCount ?? 0;
  }

  /** @throws AgentError `ERR_NOT_INITIALIZED`. */
  get vault(): Vault {
    this.#findVault();
    if (!this.#vault) throw new AgentError('ERR_NOT_INITIALIZED');
    return this.#vault;
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`, `ERR_NOT_INITIALIZED`. */
  get open(): OpenKeyring {
    if (!this.#open) throw new AgentError(this.isInitialized() ? 'ERR_AGENT_LOCKED' : 'ERR_NOT_INITIALIZED');
    return this.#open;
  }

  requireUnlocked(): void {
    const { state } = this;
    if (state !== 'UNLOCKED') throw new AgentError(state === 'LOCKED' ? 'ERR_AGENT_LOCKED' : 'ERR_NOT_INITIALIZED');
  }

  /** Whether an unlock while it is open means anything: there are keys whose time it begins anew. */
  get hasLifetimes(): boolean {
    return this.#open?.keyring.lifetimes.isUsed ?? false;
  }

  async withKeys<T>(work: () => Promise<T> | T): Promise<T> {
    this.#lockIfDue();
    this.#dropIfDue();
    this.requireUnlocked();
    this.#autoLock.touch();
    try {
      return await this.#gate.pass(work);
    } finally {
      this.#autoLock.touch();
      this.#dropIfDue(); // what it used may have waited for its end
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
        if (this.#open) await this.#renew(this.#open, opening);
        else await this.#openWith(vault, opening, lockCount);
      } finally {
        opening.wipe();
      }
    });
  }

  async #openWith(vault: Vault, opening: Opening, lockCount: number): Promise<void> {
    const keyring = this.#makeKeyring(vault);
    try {
      await vault.unlockWith(opening, mentionedBy, (record) => keyring.take(record));
      await this.#options.witness.open(vault, keyring, opening);
      if (keyring.lifetimes.isUsed) await keyring.lifetimes.renew(unboxerOf(opening));
      this.#load(keyring);
    } catch (error) {
      keyring.wipe();
      vault.lock();
      throw error;
    }
    if (this.#lockCount === lockCount) this.#mark('clear'); // else a lock waits for its turn
    this.#noteUnlock(vault, opening.keyslotId);
    this.#noteOthersKeyslots(keyring);
  }

  async #renew({ keyring, watch }: OpenKeyring, opening: Opening): Promise<void> {
    if (!keyring.lifetimes.isUsed) return;
    await keyring.lifetimes.renew(unboxerOf(opening));
    watch.start(); // a rotation may have waited for this
  }

  /** What an administrator should know of the keys; one line each. */
  get warnings(): string[] {
    return [
      ...(this.#clock.isBelievable() ? [] : describeClock(this.#clock, this.#open?.scheduler.waiting() ?? [])),
      ...this.#options.witness.warnings,
      ...(this.#open?.tokenWork.reports ?? []),
      ...[...(this.#open?.scheduler.failing ?? [])].map(([keyId, code]) => `What is due for the key ${keyId} waits: ${code}.`),
      ...(this.#open?.nearlySpent() ?? []).map((keyId) => `The key ${keyId} has a version that used three quarters of its encryptions.`),
    ];
  }

  /** An administrator says that the wall clock is right: destruction and expiry go on. */
  confirmClock(): void {
    const { watch } = this.open;
    this.#clock.confirm();
    watch.keepClock();
    watch.start(true);
  }

  /** Lets running requests end, forgets every key, and comes back only when their memory has been collected. */
  async lock(): Promise<void> {
    this.isUntouched = false;
    this.#mark('set'); // first: however this ends, the next start knows
    await this.#lock();
  }

  async #lock(): Promise<void> {
    this.#lockCount += 1;
    await this.#inTurn(async () => {
      const wasOpen = this.#open !== undefined;
      const { lockTimeoutMs, onLockFailed } = this.#options;
      const overdue = setTimeout(onLockFailed, lockTimeoutMs);
      try {
        await this.#forget();
        await nextTurn(); // what waited for it holds the keys until then
        collectGarbage(); // where it was locked too: a PIN or a passphrase may have been given all the same
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

  /** Locks for a reason of the agent's own, which the audit record then names. What needs keys is refused from now on. */
  async lockBecause(because: LockReason): Promise<void> {
    if (this.state === 'UNLOCKED') this.#options.witness.note({ operation: 'lock', outcome: 'ok', detail: { because } });
    this.#isLocking = this.#open !== undefined;
    await this.lock().finally(() => {
      this.#isLocking = false;
    });
  }

  async #forget(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    open.watch.stop();
    const hurry = setTimeout(() => void this.#dropTokens(), this.#options.lockTimeoutMs / 2);
    await this.#gate.close().finally(() => clearTimeout(hurry));
    clearTimeout(this.#autoLockTimer);
    this.#open = undefined;
    this.#options.witness.close();
    await open.keyring.lock(this.#options.limits.lockSettleMs);
  }

  /** A token that does not answer must not keep the agent from locking: what it was asked fails. */
  async #dropTokens(): Promise<void> {
    await Promise.all(this.providers.filter(isToken).map((provider) => provider.lock()));
  }

  /** Locks and gives the vault back. */
  async close(): Promise<void> {
    await this.#lock(); // a start that follows opens it as any other does
    await Promise.all(this.providers.map((provider) => provider.close()));
    this.#vault?.close();
  }

  /** Looks for a vault that was made since the start. @throws AgentError `ERR_STATE_CONFLICT` without a path, which only the log may say. */
  #findVault(): void {
    try {
      this.#vault ??= this.#options.openVault();
    } catch (error) {
      this.#options.onWarning('the vault cannot be opened', error);
      throw new AgentError(
        isAgentError(error) ? error.code : 'ERR_STORE_UNAVAILABLE',
        { hint: "The vault cannot be opened; the agent's log says why." },
        { cause: error },
      );
    }
  }

  /** Whether there is a vault that can be opened; one that is being made, or that others can read, is none yet. */
  isInitialized(): boolean {
    try {
      this.#vault ??= this.#options.openVault();
    } catch (error) {
      if (!isAgentError(error)) throw error;
    }
    return this.#vault !== undefined;
  }

  #makeKeyring(vault: Vault): Keyring {
    const { time, providers } = this.#options;
    const clock = this.#clock;
    return new Keyring(vault, providers, {
      now: () => time.wall(),
      isBelievable: () => clock.isBelievable(),
      runningMs: () => clock.runningMs(),
      sinceBoot: () => time.sinceBoot(),
    });
  }

  #load(keyring: Keyring): void {
    const { time, limits, onAct, onWarning, witness } = this.#options;
    const { audit } = witness;
    this.#open = openKeyring({
      keyring,
      clock: this.#clock,
      gate: this.#gate,
      limits,
      recorder: audit,
      onAct,
      mayAct: () => audit.health === 'ok',
      onWarning,
    });
    this.unlockTime = time.wall();
    this.#autoLock.begin();
    this.#gate.open();
    this.#beginTokens(keyring, this.#open);
    this.#open.watch.start();
    this.#watchAutoLock();
    this.#options.onState?.();
  }

  #beginTokens(keyring: Keyring, { tokenWork }: OpenKeyring): void {
    const pins = {
      read: (token: string) => {
        const pin = keyring.tokens.pinOf(token);
        return pin && Buffer.from(pin);
      },
      save: (token: string, pin: Uint8Array) => keyring.commit({ pins: [{ token, pin }] }),
      serialOf: (token: string) => keyring.tokens.serialOf(token),
      saveSerial: (token: string, serial: string) => keyring.commit({ serials: [{ token, serial }] }),
    };
    for (const provider of this.providers.filter(isToken)) provider.begin(pins, () => void tokenWork.reconcile(provider));
  }

  /** A folder that cannot be written keeps nobody from locking. */
  #mark(change: 'set' | 'clear'): void {
    if (!this.isInitialized()) return;
    try {
      this.#options.lockMark?.[change]();
    } catch (error) {
      this.#options.onWarning(
        change === 'set'
          ? 'it could not be noted that the vault was locked: an agent that is started again may open it'
          : 'it could not be noted that the vault was opened: an agent that is started again leaves it locked',
        error,
      );
    }
  }

  /** A vault that cannot be written opens all the same: what it holds can be used, and listKeyslots then shows the time before. */
  #noteUnlock(vault: Vault, keyslotId: string): void {
    try {
      vault.noteUnlock(keyslotId);
    } catch (error) {
      if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
    }
  }

  /** What changed the keyslots beside an agent left no record of its own. */
  #noteOthersKeyslots(keyring: Keyring): void {
    const { added, removed } = noteKeyslots(keyring);
    if (added.length + removed.length === 0) return;
    const detail = { ...(added.length > 0 ? { added: added.join(', ') } : {}), ...(removed.length > 0 ? { removed: removed.join(', ') } : {}) };
    this.#options.witness.note({ operation: 'keyslots', outcome: 'ok', detail });
    this.#options.onWarning(
      `keyslots were changed while no agent had the vault open: ${Object.entries(detail)
        .map((change) => change.join(' '))
        .join('; ')}`,
    );
  }

  /** Begins to lock when there is a reason that nobody has acted on yet. */
  #lockIfDue(): void {
    const because = this.state === 'UNLOCKED' ? this.#autoLock.due(this.#gate.inside > 0) : undefined;
    if (because !== undefined) this.lockBecause(because).catch(() => undefined); // onLockFailed has heard of it
  }

  /** Drops keys whose unlockLifetime is over, and says so afterwards: like a lock, that waits for no record. */
  #dropIfDue(): void {
    if (!this.hasLifetimes) return; // on the way of every request
    for (const keyId of this.#open?.keyring.lifetimes.dropOver() ?? []) {
      this.#options.witness.note({ operation: 'drop', outcome: 'ok', keyId });
      this.#options.onAct({ act: 'drop', keyId });
    }
  }

  /** Looks again and again: keys must not stay in memory for want of a request. */
  #watchAutoLock(): void {
    const lifetimeMs = Math.max(this.#open?.keyring.lifetimes.nextEndMs ?? Number.POSITIVE_INFINITY, shortestLookMs);
    const inMs = Math.min(this.#autoLock.nextLookMs, this.#options.limits.lookIntervalMs, lifetimeMs);
    this.#autoLockTimer = setTimeout(() => {
      this.#lockIfDue();
      this.#dropIfDue();
      if (this.state === 'UNLOCKED') this.#watchAutoLock();
    }, inMs);
    this.#autoLockTimer.unref();
  }

  #inTurn<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // the caller of this turn hears of its failure; the next turn does not care
    return result;
  }
}

/** While a key whose time is over is in use it is looked at again so soon. */
const shortestLookMs = 10;

/** Keys that a warning names. */
const namedKeys = 20;

/** What waits for an administrator's word about time. */
function describeClock(clock: BelievableClock, waiting: readonly string[]): string[] {
  const jumpMs = clock.observe();
  const more = waiting.length > namedKeys ? ` and ${waiting.length - namedKeys} more` : '';
  const due = waiting.length === 0 ? 'Nothing is due now.' : `Due now, and done as soon as that is said: ${waiting.slice(0, namedKeys).join(', ')}${more}.`;
  const jump = `The wall clock jumped by ${Math.round(jumpMs / 60_000)} minutes; destruction and expiry of keys wait until it is right or confirmed (kms confirm-clock).`;
  const restored = 'The vault was put back from older records; destruction and expiry of keys wait until an administrator allows them (kms confirm-clock).';
  return [...(jumpMs === 0 ? [] : [`${jump} ${due}`]), ...(clock.isUnconfirmed ? [`${restored} ${due}`] : [])];
}
