import { AgentError } from '@kms-agent/protocol';
import type { PinBook } from '../provider.ts';
import type { TokenSettings } from './settings.ts';

export interface TokenPinsOptions {
  readonly settings: TokenSettings;
  /** A PIN that lies outside of the vault: in the OS keychain or a credential. */
  readonly readPin: (settings: TokenSettings) => Promise<Uint8Array | undefined>;
  /** Keeps a PIN that the token took, where its source lies outside of the vault. */
  readonly savePin: (settings: TokenSettings, pin: Uint8Array) => Promise<void>;
  /** Hears of what the log should say. */
  readonly onNote: (note: string, level: 'warn' | 'info') => void;
}

/** Where the PIN of a token comes from and is kept: the vault, while it is open, or a source outside of it. */
export class TokenPins {
  readonly #options: TokenPinsOptions;
  #book: PinBook | undefined;

  constructor(options: TokenPinsOptions) {
    this.#options = options;
  }

  /** The vault is open. */
  open(book: PinBook): void {
    this.#book = book;
  }

  close(): void {
    this.#book = undefined;
  }

  /** The PIN, where it needs no person. */
  async read(): Promise<Uint8Array | undefined> {
    const { settings, readPin } = this.#options;
    return settings.pin === 'vault' ? this.#book?.read(settings.name) : await readPin(settings);
  }

  /** The token is logged in: a PIN that cannot be kept is asked for again next time, and the log says so. */
  async save(pin: Uint8Array): Promise<void> {
    const { settings, savePin, onNote } = this.#options;
    try {
      if (settings.pin === 'vault') this.#book?.save(settings.name, pin);
      else await savePin(settings, pin);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      onNote(`the PIN of the token ${settings.name} could not be kept: ${error.details.hint ?? error.message}`, 'warn');
    }
  }
}
