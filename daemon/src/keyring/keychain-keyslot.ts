import { randomBytes, randomUUID } from 'node:crypto';
import { type AddKeyslotResult, AgentError, isAgentError } from '@kms-agent/protocol';
import type { Opening, Vault } from '../vault/vault.ts';

/** Where the secret of a slot lies: the OS keychain of the user's session. */
export interface SecretStore {
  /** Undefined when it has none, or is locked. @throws AgentError `ERR_STORE_UNAVAILABLE` when there is nobody to ask. */
  read(account: string): Promise<Buffer | undefined>;
  write(account: string, secret: Uint8Array): Promise<void>;
  remove(account: string): Promise<void>;
}

/** Bytes of a slot's secret: 256 random bits. */
const secretBytes = 32;
const firstPauseMs = 1000;
const longestPauseMs = 60_000;
const busyMs = 1000;

/** What the keychain calls the secret of a slot. */
export const keychainAccount = (keyslotId: string): string => `keyslot ${keyslotId}`;

const failed = (hint: string, cause?: unknown): AgentError => new AgentError('ERR_UNLOCK_FAILED', { hint }, { cause });

/**
 * Keyslots whose secret is in the OS keychain. Whatever it answers, nothing in it is ever written over, and nothing is made because it has nothing:
 * a locked keychain looks like an empty one.
 */
export class KeychainKeyslots {
  readonly #store: SecretStore;
  readonly #now: () => number;
  /** What went wrong last, and when the keychain may be asked again without a person. */
  #last: { readonly failure: AgentError; readonly until: number; readonly pauseMs: number } | undefined;
  #isAsking = false;

  /** @param now - milliseconds that no clock setting changes. */
  constructor(store: SecretStore, now: () => number = () => performance.now()) {
    this.#store = store;
    this.#now = now;
  }

  /** Whether it may open later without a person: where there is no keychain yet. One that was asked might prompt a person again. */
  get mayOpenLater(): boolean {
    return this.#last === undefined || Number.isFinite(this.#last.until);
  }

  /**
   * Opens a vault with a slot whose secret the keychain gives.
   * @param isAsked - a person asks; without one a keychain that gave nothing is not asked again, because it may prompt.
   * @throws AgentError `ERR_UNLOCK_FAILED` whose hint says what is wrong and what to do; `ERR_BUSY` while the keychain has not answered somebody else.
   */
  async open(vault: Vault, keyslotIds: readonly string[], isAsked: boolean): Promise<Opening> {
    if (!isAsked && this.#last && this.#now() < this.#last.until) throw this.#last.failure;
    if (this.#isAsking) throw new AgentError('ERR_BUSY', { retryAfterMs: busyMs, hint: 'The OS keychain is being asked already; is a prompt of it open?' });
    this.#isAsking = true;
    const opened = await this.#tryEach(vault, keyslotIds).finally(() => {
      this.#isAsking = false;
    });
    if (opened instanceof AgentError) {
      this.#note(opened);
      throw opened;
    }
    this.#last = undefined;
    return opened;
  }

  /** Adds a slot. What is stored for it is removed again when it cannot be made. @throws as Vault.addKeyslot; AgentError `ERR_STORE_UNAVAILABLE`. */
  async add(vault: Vault, { proof, label }: { proof: { passphrase: string; keyslotId?: string }; label?: string }): Promise<AddKeyslotResult> {
    await vault.verifySecret(proof); // before something is stored
    const keyslotId = randomUUID();
    const secret = randomBytes(secretBytes);
    try {
      await this.#store.write(keychainAccount(keyslotId), secret);
      return await vault.addKeyslot({ type: 'keychain', keyslotId, secret, proof, ...(label === undefined ? {} : { label }) });
    } catch (error) {
      await this.#store.remove(keychainAccount(keyslotId)).catch(() => undefined); // what went wrong before is what matters; it opens nothing
      throw error;
    } finally {
      secret.fill(0);
    }
  }

  /** Removes what was stored for a slot that is gone. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  async forget(keyslotId: string): Promise<void> {
    await this.#store.remove(keychainAccount(keyslotId));
  }

  async #tryEach(vault: Vault, keyslotIds: readonly string[]): Promise<Opening | AgentError> {
    let failure = failed('this vault has no keychain keyslot');
    for (const keyslotId of keyslotIds) {
      const opened = await this.#try(vault, keyslotId);
      if (!(opened instanceof AgentError)) return opened;
      failure = opened;
    }
    return failure;
  }

  async #try(vault: Vault, keyslotId: string): Promise<Opening | AgentError> {
    let secret: Buffer | undefined;
    try {
      secret = await this.#store.read(keychainAccount(keyslotId));
    } catch (error) {
      if (isAgentError(error, 'ERR_STORE_UNAVAILABLE')) return failed(error.details.hint ?? '', error);
      throw error;
    }
    if (!secret)
      return failed(
        `the OS keychain is locked, or has nothing for the keyslot ${keyslotId}: unlock it and run kms unlock --no-person; or kms unlock with the passphrase, and if it is gone kms keyslot remove and kms keyslot add keychain`,
      );
    try {
      const strange = `what the OS keychain has as "${keychainAccount(keyslotId)}" of kms-agent does not open this vault; it is left as it is`;
      return vault.openSecretKeyslot('keychain', secret, keyslotId) ?? failed(strange);
    } finally {
      secret.fill(0);
    }
  }

  #note(failure: AgentError): void {
    const isAbsent = isAgentError(failure.cause, 'ERR_STORE_UNAVAILABLE');
    const pauseMs = isAbsent ? Math.min((this.#last?.pauseMs ?? firstPauseMs / 2) * 2, longestPauseMs) : firstPauseMs;
    this.#last = { failure, pauseMs, until: isAbsent ? this.#now() + pauseMs : Number.POSITIVE_INFINITY };
  }
}
