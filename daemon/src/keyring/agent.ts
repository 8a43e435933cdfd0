import { AgentError, type AgentState, isAgentError } from '@kms-agent/protocol';
import type { Provider } from '../providers/provider.ts';
import type { Vault } from '../vault/vault.ts';
import { Cipher } from './cipher.ts';
import { Gate } from './gate.ts';
import { Keyring, mentionedBy } from './keyring.ts';
import { type Clock, Lifecycle } from './lifecycle.ts';
import { Signer } from './signer.ts';
import { Throttle } from './throttle.ts';

/** Everything that works on keys, there only while the vault is unlocked. */
export interface OpenKeyring {
  readonly keyring: Keyring;
  readonly lifecycle: Lifecycle;
  readonly cipher: Cipher;
  readonly signer: Signer;
}

export interface AgentOptions {
  readonly providers: readonly Provider[];
  readonly clock: Clock;
  /** Opens the vault, locked; undefined while there is none yet. */
  readonly openVault: () => Vault | undefined;
  /** Milliseconds that lock waits for running requests; past it `onLockOverdue` is called. */
  readonly lockTimeoutMs: number;
  /** The requests that run do not end: the process must go, because it still holds keys. */
  readonly onLockOverdue: () => void;
  /** Milliseconds without a request that needs keys after which the agent locks itself; 0 for never. */
  readonly idleLockMs: number;
}

/** The vault's life: uninitialized, locked, unlocked, and the way between. */
export class Agent {
  readonly startTime: number;
  readonly providers: readonly Provider[];
  readonly #options: AgentOptions;
  readonly #gate = new Gate();
  readonly #throttle: Throttle;
  #vault: Vault | undefined;
  #open: OpenKeyring | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #lastUse: number;
  #idleTimer: NodeJS.Timeout | undefined;
  unlockTime: number | undefined;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.providers = options.providers;
    this.startTime = options.clock();
    this.#lastUse = this.startTime;
    this.#throttle = new Throttle(options.clock);
    this.#vault = options.openVault();
    if (this.#vault?.state === 'UNLOCKED') this.#load(this.#vault);
  }

  get state(): AgentState {
    if (this.#open && this.#gate.isOpen) return 'UNLOCKED';
    return this.#vault ? 'LOCKED' : 'UNINITIALIZED';
  }

  get keyCount(): number {
    return this.#open?.keyring.keyCount ?? 0;
  }

  /** @throws AgentError `ERR_NOT_INITIALIZED`. */
  get vault(): Vault {
    this.#vault ??= this.#options.openVault();
    if (!this.#vault) throw new AgentError('ERR_NOT_INITIALIZED');
    return this.#vault;
  }

  /** @throws AgentError `ERR_AGENT_LOCKED`, `ERR_NOT_INITIALIZED`. */
  get open(): OpenKeyring {
    if (!this.#open) throw new AgentError(this.#vault ? 'ERR_AGENT_LOCKED' : 'ERR_NOT_INITIALIZED');
    return this.#open;
  }

  requireUnlocked(): void {
    if (this.state !== 'UNLOCKED') throw new AgentError(this.#vault ? 'ERR_AGENT_LOCKED' : 'ERR_NOT_INITIALIZED');
  }

  async withKeys<T>(work: () => Promise<T> | T): Promise<T> {
    this.#lastUse = this.#options.clock();
    return await this.#gate.pass(work);
  }

  /**
   * Opens the vault, or proves the secret if it is open.
   * @throws AgentError `ERR_UNLOCK_FAILED`, `ERR_BUSY`, `ERR_NOT_INITIALIZED`.
   */
  async unlock(uid: number, secret: { keyslotId?: string; passphrase: string }): Promise<void> {
    const { vault } = this;
    await this.#throttle.attempt(uid, async () => {
      const opening = await vault.openKeyslot(secret);
      await this.#inTurn(() => {
        if (this.state === 'UNLOCKED') return opening.wipe();
        vault.unlockWith(opening, mentionedBy);
        this.#load(vault);
        this.#noteUnlock(vault, opening.keyslotId);
      });
    });
  }

  /** Runs what asks for the proof of a secret, under the same throttle as unlock. */
  async prove<T>(uid: number, work: () => Promise<T>): Promise<T> {
    return await this.#throttle.attempt(uid, work);
  }

  /** Lets running requests end, forgets every key, and comes back only when their memory has been collected. */
  async lock(): Promise<void> {
    await this.#inTurn(async () => {
      const open = this.#open;
      if (!open) return;
      const overdue = setTimeout(this.#options.onLockOverdue, this.#options.lockTimeoutMs);
      await this.#gate.close();
      clearTimeout(overdue);
      clearTimeout(this.#idleTimer);
      await open.keyring.lock();
      this.#open = undefined;
      this.unlockTime = undefined;
      collectGarbage();
    });
  }

  /** Locks and gives the vault back. */
  async close(): Promise<void> {
    await this.lock();
    await Promise.all(this.providers.map((provider) => provider.close()));
    this.#vault?.close();
  }

  #load(vault: Vault): void {
    const { clock, providers } = this.#options;
    const keyring = new Keyring(vault, providers);
    keyring.load();
    this.#open = { keyring, lifecycle: new Lifecycle(keyring, clock), cipher: new Cipher(keyring), signer: new Signer(keyring) };
    this.unlockTime = clock();
    this.#lastUse = this.unlockTime;
    this.#gate.open();
    this.#watchIdle();
  }

  /** A vault that cannot be written opens all the same: what it holds can be used, and listKeyslots then shows the time before. */
  #noteUnlock(vault: Vault, keyslotId: string): void {
    try {
      vault.noteUnlock(keyslotId);
    } catch (error) {
      if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
    }
  }

  #watchIdle(): void {
    const { idleLockMs, clock } = this.#options;
    if (idleLockMs === 0) return;
    const remainingMs = this.#lastUse + idleLockMs - clock();
    if (remainingMs <= 0 && this.#gate.inside === 0) {
      void this.lock().catch(this.#options.onLockOverdue);
      return;
    }
    this.#idleTimer = setTimeout(() => this.#watchIdle(), Math.min(Math.max(remainingMs, 100), 60_000));
    this.#idleTimer.unref();
  }

  #inTurn<T>(work: () => Promise<T> | T): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // the caller of this turn hears of its failure; the next turn does not care
    return result;
  }
}

/** A dropped KeyObject stays in memory in clear until a full collection; `--expose-gc` is among the flags of the bin. */
function collectGarbage(): void {
  globalThis.gc?.();
}
