import { AgentError, isAgentError } from '@kms-agent/protocol';
import { type Abilities, isToken, type Provider } from '../providers/provider.ts';
import type { OpenRecord } from '../vault/inspection.ts';
import type { Vault } from '../vault/vault.ts';
import { AliasBook, type AliasEntry, defaultAlias } from './alias-book.ts';
import { dueTimeOf, findVersion, initialVersion, type Key, type KeyVersionEntry, primaryVersion, storedStateOf, wipeKey } from './key.ts';
import { decodeKey, type KeyIndex, readIndex } from './record.ts';
import { RecordSlabs } from './record-slabs.ts';
import { type ClientTokenEntry, decodeJson, encodeChanges, type KeyringChanges, type PinEntry, type Tombstone, type VaultFacts } from './records.ts';
import { SortedIds } from './sorted-ids.ts';
import { type KeyAct, requireState, type StoredKeyState, type StoredState, stateOf } from './state.ts';
import type { Intent } from './token-work.ts';

/** The time, and whether it can be believed when something would be lost for good. */
export interface LifeClock {
  now(): number;
  isBelievable(): boolean;
}

/** Milliseconds that a written lastUsedTime may be behind. */
const usageGrainMs = 3_600_000;

/** All keys in memory while unlocked, and the one place that changes them: memory follows a durable commit, never the other way. */
export class Keyring {
  readonly vault: Vault;
  readonly aliases = new AliasBook();
  /** Ids of keys in order; UUIDv7, so that is oldest first. */
  readonly keyIds = new SortedIds();
  /** When time alone changes a key, by id. */
  readonly dueTimes = new Map<string, number>();
  readonly clock: LifeClock;
  readonly #providers: ReadonlyMap<string, Provider>;
  /** A key is read from its record, which the number finds, when it is first asked for. */
  readonly #keys = new Map<string, Key | number>();
  readonly #slabs = new RecordSlabs();
  readonly #keyOfVersion = new Map<string, string>();
  readonly #tombstones = new Map<string, Tombstone>();
  readonly #clientTokens = new Map<string, ClientTokenEntry>();
  readonly #intents = new Map<string, Intent>();
  readonly #pins = new Map<string, PinEntry>();
  /** Keys that live in tokens. */
  readonly #inTokens = new Set<string>();
  /** Keys that were used since the unlock. */
  readonly #used = new Set<string>();
  #facts: VaultFacts = { restores: 0 };

  constructor(vault: Vault, providers: readonly Provider[], clock: LifeClock) {
    this.vault = vault;
    this.clock = clock;
    this.#providers = new Map(providers.map((provider) => [provider.name, provider]));
  }

  /** Takes over one record of the vault that is being opened; its plaintext is zeroed. */
  take({ kind, id, plaintext }: OpenRecord): void {
    if (kind === 'key') this.#takeKey(id, plaintext);
    else if (kind === 'alias') this.aliases.put(decodeJson<AliasEntry>(plaintext));
    else if (kind === 'tombstone') this.#tombstones.set(id, decodeJson<Tombstone>(plaintext));
    else if (kind === 'clientToken') this.#clientTokens.set(id, decodeJson<ClientTokenEntry>(plaintext));
    else if (kind === 'intent') this.#intents.set(id, decodeJson<Intent>(plaintext));
    else if (kind === 'pin') this.#pins.set(id, decodeJson<PinEntry>(plaintext));
    else if (kind === 'facts') this.#facts = decodeJson<VaultFacts>(plaintext);
    plaintext.fill(0);
  }

  #takeKey(keyId: string, plaintext: Uint8Array): void {
    const index = readIndex(plaintext); // before the slab zeroes it
    this.#index(keyId, this.#slabs.add(plaintext), index);
  }

  /** What is to do once every record was taken and the vault is open. */
  finishLoading(): void {
    const tokens = [...this.#clientTokens].sort(([, a], [, b]) => a.time - b.time);
    this.#clientTokens.clear();
    for (const [id, token] of tokens) this.#clientTokens.set(id, token);
    if (this.vault.wasRestored) this.#countRestore();
  }

  /** Writes exact use counts, forgets every key and overwrites what it held. */
  async lock(): Promise<void> {
    this.#settleUses();
    this.wipe();
    await Promise.all([...this.#providers.values()].map((provider) => provider.lock()));
    this.vault.lock();
  }

  /** Forgets every key and overwrites what it held. */
  wipe(): void {
    for (const entry of this.#keys.values()) if (typeof entry !== 'number') wipeKey(entry);
    this.#slabs.wipe();
    const all = [
      this.#keys,
      this.#keyOfVersion,
      this.aliases,
      this.#clientTokens,
      this.#intents,
      this.#pins,
      this.#tombstones,
      this.keyIds,
      this.dueTimes,
      this.#inTokens,
      this.#used,
    ];
    for (const held of all) held.clear();
  }

  get keyCount(): number {
    return this.#keys.size;
  }

  get facts(): VaultFacts {
    return this.#facts;
  }

  get providers(): readonly Provider[] {
    return [...this.#providers.values()];
  }

  providerOf(key: Key): Provider {
    const provider = this.#providers.get(key.provider);
    if (!provider) throw new AgentError('ERR_KEY_UNAVAILABLE');
    return provider;
  }

  /** What can be done with a key: what its provider offers now, or offered when the key was made. */
  findAbilities(key: Key): Abilities | undefined {
    return this.#providers.get(key.provider)?.abilities(key.keySpec, key.keyUsage) ?? key.abilities;
  }

  /** Whether the key's provider has what the key uses, as far as is known. */
  isAvailable(key: Key): boolean {
    if (key.protectionLevel === 'SOFTWARE') return true;
    const provider = this.#providers.get(key.provider);
    if (!provider || !isToken(provider)) return false;
    return [primaryVersion(key), initialVersion(key)].every(({ keyVersionId }) => provider.isAvailable(keyVersionId));
  }

  /** @throws AgentError `ERR_KEY_NOT_FOUND`, with `deletionTime` for a key that was destroyed. */
  keyById(keyId: string): Key {
    const key = this.findKey(keyId);
    if (key) return key;
    const tombstone = this.#tombstones.get(keyId);
    throw new AgentError('ERR_KEY_NOT_FOUND', tombstone ? { deletionTime: new Date(tombstone.deletionTime).toISOString() } : {});
  }

  findKey(keyId: string): Key | undefined {
    const entry = this.#keys.get(keyId);
    if (typeof entry !== 'number') return entry;
    const key = decodeKey(keyId, this.#slabs.get(entry));
    this.#keys.set(keyId, key);
    return key;
  }

  /** The key that owns a version, if any. */
  keyByVersion(keyVersionId: string): Key | undefined {
    const keyId = this.#keyOfVersion.get(keyVersionId);
    return keyId === undefined ? undefined : this.findKey(keyId);
  }

  /**
   * Finds the key that a caller names: an id, an alias, or nothing for the default key.
   * @throws AgentError `ERR_KEY_NOT_FOUND`, `ERR_ALIAS_NOT_FOUND`.
   */
  resolve(reference: string | undefined): Key {
    if (reference === undefined) {
      const alias = this.aliases.find(defaultAlias);
      if (!alias)
        throw new AgentError('ERR_KEY_NOT_FOUND', {
          hint: 'There is no default key; name one with keyId, or make it with createKey and aliasName alias/default.',
        });
      return this.keyById(alias.keyId);
    }
    return this.keyById(reference.startsWith('alias/') ? this.aliases.get(reference).keyId : reference);
  }

  /** The stored part of the state, as it is now. */
  storedStateOf(key: Key): StoredState {
    const { materialExpireTime } = key;
    return storedStateOf(key, materialExpireTime !== undefined && materialExpireTime <= this.clock.now() && this.clock.isBelievable());
  }

  stateOf(key: Key): StoredKeyState {
    return stateOf(this.storedStateOf(key));
  }

  /** @throws AgentError whatever the table of states answers for this act. */
  requireState(key: Key, act: KeyAct): void {
    requireState(this.storedStateOf(key), act);
  }

  /** What was begun in tokens and is not known to be done. */
  get intents(): readonly Intent[] {
    return [...this.#intents.values()];
  }

  /** The PIN of a token, where it is kept in the vault. */
  pinOf(token: string): string | undefined {
    return this.#pins.get(token)?.pin;
  }

  /** Whether a version is one of a key, with material. */
  hasMaterial(keyVersionId: string): boolean {
    const key = this.keyByVersion(keyVersionId);
    return key !== undefined && findVersion(key, keyVersionId).material.length > 0;
  }

  /** Whether an object of a token belongs to a key version or a keyslot of this vault. */
  isKnownObject(id: string): boolean {
    return this.#keyOfVersion.has(id) || this.vault.hasKeyslot(id);
  }

  /** Versions with material whose key lives in a token. */
  versionsIn(provider: string): string[] {
    return [...this.#inTokens].flatMap((keyId) => {
      const key = this.findKey(keyId);
      if (key?.provider !== provider) return [];
      return key.versions.filter(({ material }) => material.length > 0).map(({ keyVersionId }) => keyVersionId);
    });
  }

  clientToken(id: string): ClientTokenEntry | undefined {
    return this.#clientTokens.get(id);
  }

  /** Client tokens made before `time`; they are kept in the order of their times. */
  clientTokensBefore(time: number): string[] {
    const ids: string[] = [];
    for (const token of this.#clientTokens.values()) {
      if (token.time >= time) break;
      ids.push(token.id);
    }
    return ids;
  }

  /**
   * Makes changes durable, then visible. All or none.
   * @throws AgentError `ERR_STORE_UNAVAILABLE`: nothing changed.
   */
  commit(asked: KeyringChanges): void {
    const changes = this.#intents.size > 0 && asked.keys ? { ...asked, doneIntents: [...(asked.doneIntents ?? []), ...this.#fulfilled(asked.keys)] } : asked;
    const sealed = encodeChanges(changes);
    try {
      this.vault.commit(sealed);
    } finally {
      for (const change of sealed) if ('plaintext' in change) change.plaintext.fill(0);
    }
    const { keys = [], destroyed = [], aliases = [], deletedAliases = [], clientTokens = [], expiredTokens = [], facts } = changes;
    const { intents = [], doneIntents = [], pins = [] } = changes;
    for (const name of deletedAliases) this.aliases.drop(name);
    for (const id of expiredTokens) this.#clientTokens.delete(id);
    for (const tombstone of destroyed) this.#bury(tombstone);
    for (const key of keys) this.#putKey(key);
    for (const alias of aliases) this.aliases.put(alias);
    for (const token of clientTokens) this.#clientTokens.set(token.id, token);
    for (const id of doneIntents) this.#intents.delete(id);
    for (const intent of intents) this.#intents.set(intent.id, intent);
    for (const pin of pins) this.#pins.set(pin.token, pin);
    if (facts) this.#facts = facts;
  }

  /** Intents that a key fulfils: it has the material that was to be made. */
  #fulfilled(keys: readonly Key[]): string[] {
    return keys.flatMap(({ versions }) =>
      versions.filter(({ keyVersionId, material }) => material.length > 0 && this.#intents.has(keyVersionId)).map(({ keyVersionId }) => keyVersionId),
    );
  }

  /** Overwrites what the vault's file may still hold of records that are gone. */
  scrub(): void {
    this.vault.scrub();
  }

  /**
   * Lets a version be used, and notes that it is; nothing is written on the way of a request. What it answers is good for this turn only:
   * a request that has waited since it found its key may hold one whose material is gone, or wiped, by now.
   * @returns the version as it is now.
   * @throws AgentError what the key's state answers; `ERR_KEY_NOT_FOUND`.
   */
  use(key: Key, { keyVersionId }: KeyVersionEntry): KeyVersionEntry {
    const now = this.keyById(key.keyId);
    this.requireState(now, 'cryptography');
    now.usage.lastUsedTime = this.clock.now();
    this.#used.add(now.keyId);
    return findVersion(now, keyVersionId);
  }

  /** Keys that were used since the unlock. */
  usedKeys(): Key[] {
    return [...this.#used].map((keyId) => this.findKey(keyId)).filter((key) => key !== undefined);
  }

  /** Writes when keys were last used, for at most `limit` keys whose record is an hour behind. */
  writeUsage(limit: number): void {
    const behind: Key[] = [];
    for (const keyId of this.#used) {
      const key = this.findKey(keyId);
      if (key && key.usage.lastUsedTime - key.usage.writtenTime >= usageGrainMs && behind.push(key) === limit) break;
    }
    if (behind.length > 0) this.commit({ keys: behind });
  }

  /** A backup does not know how often its keys were used after it was made: no version from before it is trusted to count. */
  #countRestore(): void {
    const facts = { ...this.#facts, restores: this.#facts.restores + 1 };
    this.vault.commitRestored(encodeChanges({ facts }));
    this.#facts = facts;
  }

  #settleUses(): void {
    const unsettled = this.usedKeys();
    for (const key of unsettled) for (const version of key.versions) version.reservedUses = version.useCount;
    if (unsettled.length === 0) return;
    try {
      this.commit({ keys: unsettled });
    } catch (error) {
      if (!isAgentError(error, 'ERR_STORE_UNAVAILABLE')) throw error;
      // A vault that cannot be written keeps the higher counts it has: that over-counts, and lock must go on.
    }
  }

  #putKey(key: Key): void {
    key.usage.writtenTime = key.usage.lastUsedTime;
    this.#index(key.keyId, key, {
      keyVersionIds: key.versions.map(({ keyVersionId }) => keyVersionId),
      dueTime: dueTimeOf(key),
      isInToken: key.protectionLevel === 'HSM',
    });
  }

  #index(keyId: string, entry: Key | number, { keyVersionIds, dueTime, isInToken }: KeyIndex): void {
    if (isInToken) this.#inTokens.add(keyId);
    this.#keys.set(keyId, entry);
    this.keyIds.add(keyId);
    for (const keyVersionId of keyVersionIds) this.#keyOfVersion.set(keyVersionId, keyId);
    if (dueTime === undefined) this.dueTimes.delete(keyId);
    else this.dueTimes.set(keyId, dueTime);
  }

  #bury(tombstone: Tombstone): void {
    const { keyId } = tombstone;
    for (const { keyVersionId } of this.findKey(keyId)?.versions ?? []) this.#keyOfVersion.delete(keyVersionId);
    this.#keys.delete(keyId);
    this.keyIds.delete(keyId);
    this.dueTimes.delete(keyId);
    this.#inTokens.delete(keyId);
    this.#used.delete(keyId);
    this.#tombstones.set(keyId, tombstone);
  }
}
