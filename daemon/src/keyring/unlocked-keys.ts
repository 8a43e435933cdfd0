import { setImmediate as nextTurn } from 'node:timers/promises';
import { collectGarbage } from '../os/garbage.ts';
import { isToken, type Provider } from '../providers/provider.ts';
import { type Opening, unboxerOf, type Vault } from '../vault/vault.ts';
import type { AgentAct } from './acts.ts';
import type { AutoLock } from './auto-lock.ts';
import type { BelievableClock, TimeSource } from './clock.ts';
import type { Gate } from './gate.ts';
import { Keyring } from './keyring.ts';
import { type KeyringLimits, type OpenKeyring, openKeyring } from './open-keyring.ts';
import { mentionedBy } from './records.ts';
import type { Witness } from './witness.ts';

export interface UnlockedKeysOptions {
  readonly providers: readonly Provider[];
  readonly time: TimeSource;
  readonly limits: KeyringLimits;
  readonly witness: Witness;
  /** Milliseconds that lock may take. */
  readonly lockTimeoutMs: number;
  /** Hears of each act of the agent's own, once it is done and recorded. */
  readonly onAct: (act: AgentAct) => void;
  /** Hears of what an administrator should look at. */
  readonly onWarning: (warning: string, error?: unknown) => void;
}

/** What stays from one unlock to the next. */
export interface UnlockedKeysParts {
  readonly clock: BelievableClock;
  readonly gate: Gate;
  readonly autoLock: AutoLock;
}

/** What is in memory while the vault is unlocked: read at an unlock, set going, and forgotten at a lock. */
export class UnlockedKeys {
  readonly #options: UnlockedKeysOptions;
  readonly #parts: UnlockedKeysParts;
  #open: OpenKeyring | undefined;

  constructor(options: UnlockedKeysOptions, parts: UnlockedKeysParts) {
    this.#options = options;
    this.#parts = parts;
  }

  /** Undefined while the vault is locked. */
  get open(): OpenKeyring | undefined {
    return this.#open;
  }

  /** Begins with a vault in memory: it is new, and open already. */
  begin(vault: Vault): void {
    const keyring = this.#makeKeyring(vault);
    this.#options.witness.begin(vault, keyring);
    this.#start(keyring);
  }

  /** Opens the vault and reads its keys. It stays locked where anything goes wrong. @throws as Vault.unlockWith and Witness.open. */
  async unlock(vault: Vault, opening: Opening): Promise<Keyring> {
    const keyring = this.#makeKeyring(vault);
    try {
      await vault.unlockWith(opening, mentionedBy, (record) => keyring.take(record));
      await this.#options.witness.open(vault, keyring, opening);
      if (keyring.lifetimes.isUsed) await keyring.lifetimes.renew(unboxerOf(opening));
      this.#start(keyring);
    } catch (error) {
      keyring.wipe();
      vault.lock();
      throw error;
    }
    return keyring;
  }

  /** A right secret was given while they are open: the lifetimes of keys begin anew. */
  async renew({ keyring, watch }: OpenKeyring, opening: Opening): Promise<void> {
    if (!keyring.lifetimes.isUsed) return;
    await keyring.lifetimes.renew(unboxerOf(opening));
    watch.start(); // a rotation may have waited for this
  }

  /** Lets running requests end, forgets every key, and comes back only when their memory has been collected. */
  async forget(): Promise<void> {
    await this.#end(); // in a frame of its own: this one must hold no key while memory is collected
    await nextTurn(); // what waited for it holds the keys until then
    collectGarbage(); // where it was locked too: a PIN or a passphrase may have been given all the same
  }

  async #end(): Promise<void> {
    const open = this.#open;
    if (!open) return;
    const { lockTimeoutMs, limits, witness } = this.#options;
    open.watch.stop();
    const hurry = setTimeout(() => void this.#dropTokens(), lockTimeoutMs / 2);
    await this.#parts.gate.close().finally(() => clearTimeout(hurry));
    this.#parts.autoLock.end();
    this.#open = undefined;
    witness.close();
    await open.keyring.lock(limits.lockSettleMs);
  }

  #makeKeyring(vault: Vault): Keyring {
    const { time, providers } = this.#options;
    const { clock } = this.#parts;
    return new Keyring(vault, providers, {
      now: () => time.wall(),
      isBelievable: () => clock.isBelievable(),
      runningMs: () => clock.runningMs(),
      sinceBoot: () => time.sinceBoot(),
    });
  }

  #start(keyring: Keyring): void {
    const { limits, onAct, onWarning, witness } = this.#options;
    const { audit } = witness;
    const { clock, gate, autoLock } = this.#parts;
    const mayAct = (): boolean => audit.health === 'ok';
    this.#open = openKeyring({ keyring, clock, gate, limits, recorder: audit, onAct, mayAct, onWarning });
    autoLock.begin(keyring.lifetimes);
    gate.open();
    this.#beginTokens(this.#open);
    this.#open.watch.start();
  }

  #beginTokens({ keyring, tokenWork }: OpenKeyring): void {
    const pins = {
      read: (token: string) => {
        const pin = keyring.tokens.pinOf(token);
        return pin && Buffer.from(pin);
      },
      save: (token: string, pin: Uint8Array) => keyring.commit({ pins: [{ token, pin }] }),
      serialOf: (token: string) => keyring.tokens.serialOf(token),
      saveSerial: (token: string, serial: string) => keyring.commit({ serials: [{ token, serial }] }),
    };
    for (const provider of this.#options.providers.filter(isToken)) provider.begin(pins, () => void tokenWork.reconcile(provider));
  }

  /** A token that does not answer must not keep the agent from locking: what it was asked fails. */
  async #dropTokens(): Promise<void> {
    await Promise.all(this.#options.providers.filter(isToken).map((provider) => provider.lock()));
  }
}
