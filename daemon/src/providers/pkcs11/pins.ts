import { AgentError } from '@kms-agent/protocol';
import type { PinBook } from '../provider.ts';
import { TokenFailure, type TokenInfo } from './messages.ts';
import { matchOf, type TokenSettings } from './settings.ts';

export interface TokenPinsOptions {
  readonly settings: TokenSettings;
  /** A PIN that lies outside of the vault: in the OS keychain or a credential. */
  readonly readPin: (settings: TokenSettings) => Promise<Uint8Array | undefined>;
  /** Of a source that others may change: another text once it may hold another PIN. */
  readonly pinVersion?: (settings: TokenSettings) => string | undefined;
  /** Keeps a PIN that the token took, where its source lies outside of the vault. */
  readonly savePin: (settings: TokenSettings, pin: Uint8Array) => Promise<void>;
  /** Hears of what the log should say. */
  readonly onNote: (note: string, level: 'warn' | 'info') => void;
}

/** Where the PIN of a token comes from and is kept, and which token it is for: a label alone is no proof that another one is it. */
export class TokenPins {
  readonly #options: TokenPinsOptions;
  /** The vault, while it is open. */
  #book: PinBook | undefined;
  /** Of the token that took a PIN first, as far as that is known without the vault. */
  #serial: string | undefined;
  /** Of what was read last, where nobody changed it meanwhile. */
  #version: string | undefined;
  /** What the source held when a token took that, in this process. */
  #taken: { readonly serial: string; readonly version: string } | undefined;

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

  /** What is known of the token while the vault is locked. A PIN that was taken since is the better proof. */
  expect(serial: string | undefined): void {
    this.#serial ??= serial;
  }

  /** Serial number of the only token that is sent a PIN: what the settings name, else the one that took it first; undefined before that. */
  get serial(): string | undefined {
    return matchOf(this.#options.settings).serial ?? this.#takerSerial;
  }

  /**
   * A token is logged in to: it is the one from now on. What cannot be kept is as good until the agent ends.
   * @throws TokenFailure of kind `otherToken`: the vault, which was opened since the PIN was sent, knows another.
   */
  note({ label, serial }: TokenInfo): void {
    const { settings, onNote } = this.#options;
    const expected = this.serial;
    if (expected !== undefined && serial !== expected) throw new TokenFailure({ kind: 'otherToken', label, serial, expected });
    this.#serial = serial;
    if (!this.#book || this.#book.serialOf(settings.name) === serial) return;
    try {
      this.#book.saveSerial(settings.name, serial);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      onNote(`the serial number of the token ${settings.name} could not be kept: ${error.details.hint ?? error.message}`, 'warn');
    }
  }

  /** Serial number of the token that took a PIN first. */
  get #takerSerial(): string | undefined {
    return this.#book?.serialOf(this.#options.settings.name) ?? this.#serial;
  }

  /** A token took what was read last. */
  noteTaken(serial: string): void {
    this.#taken = this.#version === undefined ? undefined : { serial, version: this.#version };
  }

  /** A person gave a PIN: that of the source may be an old one. */
  doubtSource(): void {
    this.#taken = undefined;
  }

  /** Whether what was read is what that very token took: a credential may be anything before, and the settings may name another token by now. */
  get keepsTaken(): boolean {
    const { pin } = this.#options.settings;
    if (this.#taken) return this.#taken.version === this.#version && this.#taken.serial === this.serial;
    const taker = this.#takerSerial;
    return (pin === 'vault' || pin === 'keychain') && taker !== undefined && taker === this.serial;
  }

  /** The PIN, where it needs no person. */
  async read(): Promise<Uint8Array | undefined> {
    const { settings, readPin, pinVersion } = this.#options;
    const version = pinVersion?.(settings);
    const pin = settings.pin === 'vault' ? this.#book?.read(settings.name) : await readPin(settings);
    this.#version = version === pinVersion?.(settings) ? version : undefined;
    return pin;
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
