import type { OpenRecord } from '../vault/inspection.ts';
import type { Intent } from './intent.ts';
import type { Key } from './key.ts';
import { decodeJson, decodePin, type KeyringChanges, type SerialEntry } from './records.ts';

/** What the vault knows of tokens: what was begun in them, their PINs and serial numbers, and which keys live there. */
export class TokenBook {
  readonly #intents = new Map<string, Intent>();
  readonly #pins = new Map<string, Uint8Array>();
  readonly #serials = new Map<string, string>();
  readonly keyIds = new Set<string>();

  /** What was begun in tokens and is not known to be done. */
  get intents(): readonly Intent[] {
    return [...this.#intents.values()];
  }

  /** The PIN of a token, where it is kept in the vault; not a copy. */
  pinOf(token: string): Uint8Array | undefined {
    return this.#pins.get(token);
  }

  /** Serial number of the token that took a PIN first. */
  serialOf(token: string): string | undefined {
    return this.#serials.get(token);
  }

  /** Takes over a record of the vault that is being opened. */
  take({ kind, id, plaintext }: OpenRecord): void {
    if (kind === 'intent') this.#intents.set(id, decodeJson<Intent>(plaintext));
    else if (kind === 'pin') this.#pins.set(id, decodePin(id, plaintext).pin);
    else if (kind === 'serial') this.#serials.set(id, decodeJson<SerialEntry>(plaintext).serial);
  }

  /** A change that also closes the intents that its keys fulfil: they have the material that was to be made. What is to be destroyed still is. */
  complete(changes: KeyringChanges): KeyringChanges {
    if (this.#intents.size === 0 || !changes.keys) return changes;
    return { ...changes, doneIntents: [...(changes.doneIntents ?? []), ...changes.keys.flatMap((key) => this.#fulfilledBy(key))] };
  }

  /** Follows a change that is durable. */
  follow({ intents = [], doneIntents = [], pins = [], serials = [] }: KeyringChanges): void {
    for (const id of doneIntents) this.#intents.delete(id);
    for (const intent of intents) this.#intents.set(intent.id, intent);
    for (const { token, serial } of serials) this.#serials.set(token, serial);
    for (const { token, pin } of pins) {
      this.#pins.get(token)?.fill(0);
      this.#pins.set(token, Buffer.from(pin));
    }
  }

  clear(): void {
    for (const pin of this.#pins.values()) pin.fill(0);
    for (const held of [this.#intents, this.#pins, this.#serials, this.keyIds]) held.clear();
  }

  #fulfilledBy({ versions }: Key): string[] {
    const isFulfilled = ({ keyVersionId, material }: Key['versions'][number]): boolean =>
      material.length > 0 && this.#intents.get(keyVersionId)?.act === 'make';
    return versions.filter(isFulfilled).map(({ keyVersionId }) => keyVersionId);
  }
}
