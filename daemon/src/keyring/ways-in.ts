import { type AddKeyslotParams, type AddKeyslotResult, AgentError, isAgentError, type RemoveKeyslotParams, type SecretText } from '@kms-agent/protocol';
import { isToken, type Provider } from '../providers/provider.ts';
import type { Opening, Vault } from '../vault/vault.ts';
import type { Agent } from './agent.ts';
import { openWithCredential } from './credential-keyslot.ts';
import { findToken, KeyslotMaking, openingSealer } from './hsm-keyslot.ts';
import { Throttle } from './throttle.ts';

/** The ways into the vault: secrets of persons, under a throttle, and tokens. */
export class WaysIn {
  readonly #agent: Agent;
  readonly #throttle = new Throttle(() => performance.now());
  /** Tokens that somebody is opening the vault with, and how many are. */
  readonly #used = new Map<Provider, number>();

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  /**
   * Opens the vault, or proves the secret if it is open.
   * @throws AgentError `ERR_UNLOCK_FAILED`, `ERR_BUSY`, `ERR_NOT_INITIALIZED`.
   */
  async unlock(uid: number, secret: { keyslotId?: string; passphrase: string }): Promise<void> {
    const { vault } = this.#agent;
    await this.#throttle.attempt(uid, async () => await this.#agent.openWith(vault, await vault.openKeyslot(secret)));
  }

  /**
   * Opens the vault with a slot that needs no person; where it is open already, that is all, but for the lifetimes of keys. A token that this wakes stays awake until `sleep`.
   * @throws AgentError `ERR_UNLOCK_FAILED` when neither a credential nor a token opens one.
   */
  async unlockByItself(keyslotId?: string): Promise<void> {
    const { vault } = this.#agent;
    if (this.#agent.state === 'UNLOCKED' && !(this.#agent.hasLifetimes && this.hasOwnKeyslot)) return;
    const opening = await this.#using(this.#agent.providers.filter(isToken), () => this.#openByItself(vault, keyslotId));
    await this.#agent.openWith(vault, opening);
  }

  /** The same, asked for by a person. */
  async unlockWithToken(keyslotId?: string): Promise<void> {
    const woken = this.#asleep;
    try {
      await this.unlockByItself(keyslotId);
    } finally {
      await this.sleep(woken);
    }
  }

  /** Tokens that were woken for a vault that stays locked are put to sleep again; not those that somebody else is logging in to. */
  async sleep(tokens: readonly Provider[] = this.#agent.providers.filter(isToken)): Promise<void> {
    if (this.#agent.state !== 'UNLOCKED') await Promise.all(tokens.filter((token) => !this.#used.has(token)).map((token) => token.lock()));
  }

  async #using<T>(tokens: readonly Provider[], work: () => Promise<T>): Promise<T> {
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
   * Logs in to a token, with a person's PIN or again with its source's, and opens the vault with it if it is locked.
   * @throws AgentError `ERR_HSM_PIN_WRONG`, `ERR_HSM_PIN_LOCKED`, `ERR_HSM_UNAVAILABLE`, `ERR_UNLOCK_FAILED`, `ERR_INVALID_PARAMS`.
   */
  async logIn(uid: number, { token, pin, keyslotId }: { token: string; pin?: SecretText; keyslotId?: string }): Promise<void> {
    const provider = findToken(this.#agent.providers, token);
    await this.#throttle.attempt(uid, async () => {
      let isIn = false;
      try {
        await this.#using([provider], async () => {
          await provider.logIn(typeof pin === 'string' ? Buffer.from(pin) : pin);
          isIn = true;
          const { vault, state } = this.#agent;
          const opens = [...vault.hsmKeyslots.values()].some((part) => part.token === token);
          if (state === 'UNLOCKED' && !(this.#agent.hasLifetimes && opens)) return;
          await this.#agent.openWith(vault, await vault.openHsmKeyslot(openingSealer(this.#agent.providers, token), keyslotId));
        });
      } finally {
        if (isIn) await this.sleep([provider]);
      }
    });
  }

  /** Adds a slot; one of type hsm gets a key in its token. @throws as Vault.addKeyslot, and the token's errors. */
  async addKeyslot(uid: number, { token, ...params }: AddKeyslotParams): Promise<AddKeyslotResult> {
    return await this.#prove(uid, async () => {
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
    await this.#prove(uid, async () => {
      const part = this.#agent.vault.hsmKeyslots.get(params.keyslotId);
      await this.#agent.vault.removeKeyslot(params);
      if (part) await this.#agent.open.tokenWork.destroyKeyslotKey(params.keyslotId, part);
    });
  }

  /** Whether the vault may open without a person. */
  get hasOwnKeyslot(): boolean {
    return this.#hasCredentialKeyslot || this.hasHsmKeyslot;
  }

  get #hasCredentialKeyslot(): boolean {
    return this.#agent.isInitialized() && this.#agent.vault.hasKeyslotOf('credential');
  }

  /** Whether a token may open the vault without a person. */
  get hasHsmKeyslot(): boolean {
    return this.#agent.isInitialized() && this.#agent.vault.hsmKeyslots.size > 0;
  }

  /** Runs what asks for the proof of a secret, under the same throttle as unlock. */
  async #prove<T>(uid: number, work: () => Promise<T>): Promise<T> {
    return await this.#throttle.attempt(uid, work);
  }

  get #asleep(): Provider[] {
    return this.#agent.providers.filter((provider) => isToken(provider) && provider.isAsleep);
  }

  /** First the credential, then tokens; what is wrong with the credential is said when no token opens either. */
  async #openByItself(vault: Vault, keyslotId?: string): Promise<Opening> {
    let failure: unknown;
    try {
      if (this.#hasCredentialKeyslot) return openWithCredential(vault, keyslotId);
    } catch (error) {
      if (!isAgentError(error, 'ERR_UNLOCK_FAILED')) throw error;
      failure = error;
    }
    try {
      return await vault.openHsmKeyslot(openingSealer(this.#agent.providers), keyslotId);
    } catch (error) {
      throw failure !== undefined && isAgentError(error, 'ERR_UNLOCK_FAILED') ? failure : error;
    }
  }
}
