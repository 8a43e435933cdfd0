import { AgentError, isAgentError } from '@kms-agent/protocol';
import type { Vault } from '../vault/vault.ts';

export interface VaultFinderOptions {
  /** Opens the vault, locked; undefined while there is none yet. */
  readonly openVault: () => Vault | undefined;
  /** Hears of what an administrator should look at. */
  readonly onWarning: (warning: string, error?: unknown) => void;
}

/** Looks for the vault until it is there: it may be made while the agent runs. */
export class VaultFinder {
  readonly #options: VaultFinderOptions;
  #vault: Vault | undefined;

  /** @throws as `openVault`. */
  constructor(options: VaultFinderOptions) {
    this.#options = options;
    this.#vault = options.openVault();
  }

  /** The vault that was found; it is not looked for. */
  get found(): Vault | undefined {
    return this.#vault;
  }

  /** @throws AgentError `ERR_NOT_INITIALIZED`; `ERR_STATE_CONFLICT` or `ERR_STORE_UNAVAILABLE` without a path, which only the log may say. */
  find(): Vault {
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
    if (!this.#vault) throw new AgentError('ERR_NOT_INITIALIZED');
    return this.#vault;
  }

  /** Whether there is a vault that can be opened; one that is being made, or that others can read, is none yet. */
  isThere(): boolean {
    try {
      this.#vault ??= this.#options.openVault();
    } catch (error) {
      if (!isAgentError(error)) throw error;
    }
    return this.#vault !== undefined;
  }
}
