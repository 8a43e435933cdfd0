import {
  type AddKeyslotParams,
  type AddKeyslotResult,
  AgentError,
  isAgentError,
  type KeyslotType,
  type RemoveKeyslotParams,
  type SecretText,
} from '@kms-agent/protocol';
import { isToken, type Provider, type TokenProvider } from '../providers/provider.ts';
import type { Opening, Vault } from '../vault/vault.ts';
import type { Agent } from './agent.ts';
import { openWithCredential } from './credential-keyslot.ts';
import { findToken, KeyslotMaking, openingSealer, serialIn } from './hsm-keyslot.ts';
import { KeychainKeyslots, type SecretStore } from './keychain-keyslot.ts';
import { noteKeyslots } from './keyslot-history.ts';
import { Throttle } from './throttle.ts';

type Token = Provider & TokenProvider;

/** What they work with beside the agent. */
export interface WaysInOptions {
  readonly keychain: SecretStore;
  readonly onWarning: (warning: string, error?: unknown) => void;
}

/** The ways into the vault: secrets of persons, under a throttle, and tokens. */
export class WaysIn {
  readonly #agent: Agent;
  readonly #keychain: KeychainKeyslots;
  readonly #onWarning: (warning: string, error?: unknown) => void;
  readonly #throttle = new Throttle(() => performance.now(), ['ERR_UNLOCK_FAILED']);
  /** Apart: a PIN, or a token that hangs or fails, keeps nobody from the passphrase, which may be all that is left. */
  readonly #pinThrottle = new Throttle(() => performance.now(), ['ERR_HSM_PIN_WRONG']);
  /** Tokens that somebody is opening the vault with, and how many are. */
  readonly #used = new Map<Provider, number>();

  constructor(agent: Agent, { keychain, onWarning }: WaysInOptions) {
    this.#agent = agent;
    this.#keychain = new KeychainKeyslots(keychain);
    this.#onWarning = onWarning;
  }

  /**
   * Opens the vault, or proves the secret if it is open.
   * @throws AgentError `ERR_UNLOCK_FAILED`, `ERR_BUSY`, `ERR_NOT_INITIALIZED`.
   */
  async unlock(uid: number, secret: { keyslotId?: string; passphrase: string }): Promise<void> {
    const { vault, lockCount } = this.#agent;
    await this.#throttle.attempt(uid, async () => await this.#agent.openWith(vault, await vault.openKeyslot(secret), lockCount));
  }

  /**
   * Opens the vault with a slot that needs no person; where it is open already, that is all, but for the lifetimes of keys. A token that this wakes stays awake until `sleep`.
   * @param isAsked - a person asked for it, and may be asked in turn: by the OS keychain.
   * @throws AgentError `ERR_UNLOCK_FAILED` when no credential, keychain or token opens one; `ERR_BUSY` while the keychain is being asked.
   */
  async unlockByItself(keyslotId?: string, isAsked = false): Promise<void> {
    const { vault, lockCount } = this.#agent;
    if (this.#agent.state === 'UNLOCKED' && !(this.#agent.hasLifetimes && this.hasOwnKeyslot)) return;
    const opening = await this.#using(this.#agent.providers.filter(isToken), () => this.#openByItself(vault, keyslotId, isAsked));
    await this.#agent.openWith(vault, opening, lockCount);
  }

  /** The same, asked for by a person. */
  async unlockWithToken(keyslotId?: string): Promise<void> {
    const woken = this.#asleep;
    try {
      await this.unlockByItself(keyslotId, true);
    } finally {
      await this.sleep(woken);
    }
  }

  /** Tokens that were woken for a vault that stays locked are put to sleep again; not those that somebody else is logging in to. */
  async sleep(tokens: readonly Provider[] = this.#agent.providers.filter(isToken)): Promise<void> {
    if (this.#agent.state !== 'UNLOCKED') await Promise.all(tokens.filter((token) => !this.#used.has(token)).map((token) => token.lock()));
  }

  /** Works with tokens: none is sent a PIN that a keyslot knows to be another's, and none is put to sleep meanwhile. */
  async #using<T>(tokens: readonly Token[], work: () => Promise<T>): Promise<T> {
    for (const token of tokens) if (this.hasHsmKeyslot) token.expect(serialIn(this.#agent.vault.hsmKeyslots, token.name));
    for (const token of tokens) this.#used.set(token, (this.#used.get(token) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const token of tokens) {
        const others = (this.#used.get(token) ?? 1) - 1;
        if (others > 0) this.#used.set(token, others);
        else this.#used.delete(token);
      }
    }
  }

  /**
   * Logs in to a token, with a person's PIN or again with its source's, and opens the vault with it if it is locked; else the two are compared.
   * @throws AgentError `ERR_HSM_PIN_WRONG`, `ERR_HSM_PIN_LOCKED`, `ERR_HSM_UNAVAILABLE`, `ERR_UNLOCK_FAILED`, `ERR_INVALID_PARAMS`.
   */
  async logIn(uid: number, { token, pin, keyslotId }: { token: string; pin?: SecretText; keyslotId?: string }): Promise<void> {
    const provider = findToken(this.#agent.providers, token);
    const { lockCount } = this.#agent;
    await this.#pinThrottle.attempt(uid, async () => {
      let isIn = false;
      try {
        await this.#using([provider], async () => {
          this.#requireUse(token);
          await provider.logIn(typeof pin === 'string' ? Buffer.from(pin) : pin);
          isIn = true;
          const { vault, state } = this.#agent;
          const opens = [...vault.hsmKeyslots.values()].some((part) => part.token === token);
          if (state === 'UNLOCKED') void this.#agent.open.tokenWork.reconcile(provider); // whoever looks after a token hears what else is in it
          if (state === 'UNLOCKED' && !(this.#agent.hasLifetimes && opens)) return;
          await this.#agent.openWith(vault, await vault.openHsmKeyslot(openingSealer(this.#agent.providers, token), keyslotId), lockCount);
        });
      } finally {
        if (isIn) await this.sleep([provider]);
      }
    });
  }

  /**
   * A locked vault knows no tokens but those of its keyslots: a PIN for another would go to whatever has its label.
   * @throws AgentError `ERR_UNLOCK_FAILED`.
   */
  #requireUse(token: string): void {
    const { vault, state } = this.#agent;
    if (state === 'UNLOCKED' || [...vault.hsmKeyslots.values()].some((part) => part.token === token)) return;
    throw new AgentError('ERR_UNLOCK_FAILED', { hint: `No keyslot of the vault is of the token ${token}: unlock it first, then log in.` });
  }

  /** Adds a slot; one of type hsm gets a key in its token. @throws as Vault.addKeyslot, and the token's errors. */
  async addKeyslot(uid: number, { token, ...params }: AddKeyslotParams): Promise<AddKeyslotResult> {
    return await this.#changing(uid, async () => {
      if (params.type === 'keychain') return await this.#keychain.add(this.#agent.vault, params);
      if (params.type !== 'hsm') return await this.#agent.vault.addKeyslot(params);
      const provider = findToken(this.#agent.providers, token);
      if (provider.keepsPinInVault)
        throw new AgentError('ERR_STATE_CONFLICT', {
          hint: `The PIN of ${provider.name} is kept in the vault, so the token cannot open it; set another source of its PIN.`,
        });
      const { tokenWork } = this.#agent.open;
      const { vault } = this.#agent;
      await vault.verifySecret(params.proof); // before a key is made in the token
      const label = params.label ?? `token ${provider.name}`;
      return await new KeyslotMaking(tokenWork, provider).run((sealer) => vault.addKeyslot({ ...params, label, sealer }));
    });
  }

  /** Removes a slot, and the key that it had in a token. @throws as Vault.removeKeyslot. */
  async removeKeyslot(uid: number, params: RemoveKeyslotParams): Promise<void> {
    await this.#changing(uid, async () => {
      const part = this.#agent.vault.hsmKeyslots.get(params.keyslotId);
      const isInKeychain = this.#slotsOf('keychain', params.keyslotId).length > 0;
      await this.#agent.vault.removeKeyslot(params);
      if (isInKeychain)
        await this.#keychain
          .forget(params.keyslotId)
          .catch((error: unknown) => this.#onWarning('what opened a keyslot that was removed is still in the OS keychain', error));
      if (part) await this.#agent.open.tokenWork.destroyKeyslotKey(params.keyslotId, part);
    });
  }

  /** Whether the vault may open without a person. */
  get hasOwnKeyslot(): boolean {
    return this.#slotsOf('credential').length > 0 || this.#slotsOf('keychain').length > 0 || this.hasHsmKeyslot;
  }

  /** Whether a try that failed may succeed later without a person: a token comes up, or a session with a keychain. */
  get mayOpenLater(): boolean {
    return this.hasHsmKeyslot || (this.#slotsOf('keychain').length > 0 && this.#keychain.mayOpenLater);
  }

  /** Ids of the slots of a type. */
  #slotsOf(type: KeyslotType, keyslotId?: string): string[] {
    return this.#agent.isInitialized() ? this.#agent.vault.keyslotsOf(type).filter((id) => (keyslotId ?? id) === id) : [];
  }

  /** Whether a token may open the vault without a person. */
  get hasHsmKeyslot(): boolean {
    return this.#agent.isInitialized() && this.#agent.vault.hsmKeyslots.size > 0;
  }

  /** Changes keyslots. It asks for the proof of a secret, under the same throttle as unlock; whoever asked is in the record, so they are known from now on. */
  async #changing<T>(uid: number, work: () => Promise<T>): Promise<T> {
    const result = await this.#throttle.attempt(uid, work);
    if (this.#agent.state === 'UNLOCKED') noteKeyslots(this.#agent.open.keyring); // else the next unlock says what changed
    return result;
  }

  get #asleep(): Provider[] {
    return this.#agent.providers.filter((provider) => isToken(provider) && provider.isAsleep);
  }

  /** First the credential, then the keychain, then tokens. @throws what is wrong with the first that there is, when none of them opens. */
  async #openByItself(vault: Vault, keyslotId: string | undefined, isAsked: boolean): Promise<Opening> {
    const inKeychain = this.#slotsOf('keychain', keyslotId);
    const ways: (() => Opening | Promise<Opening>)[] = [
      ...(this.#slotsOf('credential', keyslotId).length > 0 ? [() => openWithCredential(vault, keyslotId)] : []),
      ...(inKeychain.length > 0 ? [() => this.#keychain.open(vault, inKeychain, isAsked)] : []),
      () => vault.openHsmKeyslot(openingSealer(this.#agent.providers), keyslotId),
    ];
    const failures: unknown[] = [];
    for (const open of ways) {
      try {
        return await open();
      } catch (error) {
        if (!isAgentError(error, 'ERR_UNLOCK_FAILED', 'ERR_BUSY')) throw error;
        failures.push(error);
      }
    }
    throw failures[0];
  }
}
