import type { Change } from '../vault/vault.ts';
import type { AliasEntry } from './alias-book.ts';
import type { KeptClock } from './clock.ts';
import type { Intent } from './intent.ts';
import type { Key } from './key.ts';
import { encodeKey } from './record.ts';

/** What an idempotent creation made, remembered for 24 hours. */
export interface ClientTokenEntry {
  readonly id: string;
  readonly method: string;
  readonly keyId: string;
  readonly keyVersionId: string;
  readonly time: number;
}

/** What is left of a destroyed key: its id never comes back. */
export interface Tombstone {
  readonly keyId: string;
  /** When the material was destroyed, milliseconds since the epoch. */
  readonly deletionTime: number;
}

/** The PIN of a token, in UTF-8. */
export interface PinEntry {
  readonly token: string;
  readonly pin: Uint8Array;
}

/** Which token took a PIN first, so that no other of the same label is sent it. */
export interface SerialEntry {
  readonly token: string;
  readonly serial: string;
}

/** Facts about the vault as a whole that must be sealed like any record. */
export interface VaultFacts extends KeptClock {
  /** The wall clock was wrong at the last look: what it dated is looked at when it is right again. */
  readonly clockWasWrong?: boolean;
  /** Ids of keys that were seen to have used three quarters of what one of their versions may encrypt. */
  readonly nearlySpent?: readonly string[];
  /** Ids of the keyslots that an agent has seen, each with its type; absent before the first unlock that notes them. */
  readonly keyslots?: readonly string[];
  /** How often the vault was put back from a backup. */
  readonly restores: number;
}

/** What one commit writes: all or none. */
export interface KeyringChanges {
  readonly keys?: readonly Key[];
  readonly destroyed?: readonly Tombstone[];
  readonly aliases?: readonly AliasEntry[];
  readonly deletedAliases?: readonly string[];
  readonly clientTokens?: readonly ClientTokenEntry[];
  readonly expiredTokens?: readonly string[];
  readonly intents?: readonly Intent[];
  readonly doneIntents?: readonly string[];
  readonly pins?: readonly PinEntry[];
  readonly serials?: readonly SerialEntry[];
  readonly facts?: VaultFacts;
}

/** Writes a record that is JSON. */
export const encodeJson = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

/** Reads a record that is JSON. */
export function decodeJson<T>(plaintext: Uint8Array): T {
  return JSON.parse(Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.length).toString('utf8')) as T; // authenticated: only this file writes such records
}

/** First byte of the record of a PIN, which follows as it is: it never becomes text. The first records of this kind were JSON. */
const pinFormat = 2;

const encodePin = (pin: Uint8Array): Uint8Array => Buffer.concat([Buffer.from([pinFormat]), pin]);

/** Reads the record of a PIN. @returns bytes of their own. */
export function decodePin(token: string, plaintext: Uint8Array): PinEntry {
  if (plaintext[0] === pinFormat) return { token, pin: Buffer.from(plaintext.subarray(1)) };
  return { token, pin: Buffer.from(decodeJson<{ pin: string }>(plaintext).pin) };
}

/** The one record of facts. */
export const factsId = 'vault';

/** The sealed records of a commit; each plaintext is the caller's to zero. */
export function encodeChanges(changes: KeyringChanges): Change[] {
  const { keys = [], destroyed = [], aliases = [], deletedAliases = [], clientTokens = [], expiredTokens = [], facts } = changes;
  const { intents = [], doneIntents = [], pins = [], serials = [] } = changes;
  const gone = (kind: string, id: string): Change => ({ kind, id, deleted: true });
  return [
    ...keys.map((key) => ({ kind: 'key', id: key.keyId, plaintext: encodeKey(key) })),
    ...destroyed.map(({ keyId }) => gone('key', keyId)),
    ...destroyed.map((tombstone) => ({ kind: 'tombstone', id: tombstone.keyId, plaintext: encodeJson(tombstone) })),
    ...aliases.map((alias) => ({ kind: 'alias', id: alias.aliasName, plaintext: encodeJson(alias) })),
    ...deletedAliases.map((id) => gone('alias', id)),
    ...clientTokens.map((token) => ({ kind: 'clientToken', id: token.id, plaintext: encodeJson(token) })),
    ...expiredTokens.map((id) => gone('clientToken', id)),
    ...intents.map((intent) => ({ kind: 'intent', id: intent.id, plaintext: encodeJson(intent) })),
    ...doneIntents.map((id) => gone('intent', id)),
    ...pins.map(({ token, pin }) => ({ kind: 'pin', id: token, plaintext: encodePin(pin) })),
    ...serials.map((serial) => ({ kind: 'serial', id: serial.token, plaintext: encodeJson(serial) })),
    ...(facts ? [{ kind: 'facts', id: factsId, plaintext: encodeJson(facts) }] : []),
  ];
}

/** Which record another one points at, so that the vault can name what is gone. */
export function mentionedBy(record: { kind: string; plaintext: Uint8Array }): { kind: string; id: string }[] {
  if (record.kind !== 'alias') return [];
  const { keyId } = decodeJson<AliasEntry>(record.plaintext);
  return [{ kind: 'key', id: keyId }];
}
