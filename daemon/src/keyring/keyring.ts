import { AgentError } from '@kms-agent/protocol';
import { type AuditState, decodeState } from '../audit/chain.ts';
import type { MaterialRef, Provider } from '../providers/provider.ts';
import type { OpenRecord } from '../vault/inspection.ts';
import type { Vault } from '../vault/vault.ts';
import { AliasBook, type AliasEntry, defaultAlias } from './alias-book.ts';
import { ClientTokenBook } from './client-token-book.ts';
import { dueTimeOf, findVersion, type Key, type KeyVersionEntry, storedStateOf, wipeKey } from './key.ts';
import { afterEvent, type Happening } from './key-event.ts';
import { Lifetimes } from './lifetimes.ts';
import { decodeKey, type KeyIndex, readIndex } from './record.ts';
import { RecordSlabs } from './record-slabs.ts';
import { type ClientTokenEntry, decodeJson, encodeChanges, type KeyringChanges, type Tombstone, type VaultFacts } from './records.ts';
import { SortedIds } from './sorted-ids.ts';
import { type KeyAct, requireState, type StoredKeyState, type StoredState, stateOf } from './state.ts';
import { TokenBook } from './token-book.ts';
import { Uses } from './uses.ts';

/** The time, and whether it can be believed when something would be lost for good. */
export interface LifeClock {
  now(): number;
  isBelievable(): boolean;
  /** Milliseconds that have surely gone by since the vault was first open. @see BelievableClock */
  runningMs(): number;
  /** Milliseconds since the machine started, suspension included. */
  sinceBoot(): number;
}

/** All keys in memory while unlocked, and the one place that changes them: memory follows a durable commit, never the other way. */
export class Keyring {
  readonly vault: Vault;
  readonly aliases = new AliasBook();
  readonly tokens = new TokenBook();
  readonly clientTokens = new ClientTokenBook();
  readonly uses = new Uses(this);
  readonly lifetimes: Lifetimes;
  /** Ids of keys in order; UUIDv7, so that is oldest first. */
  readonly keyIds = new SortedIds();
  /** When time alone changes a key, by id. */
  readonly dueTimes = new Map<string, number>();
  readonly clock: LifeClock;
  /** An administrator goes on with an older vault than the audit record has seen: the same as one that was restored. */
  isRolledBack = false;
  readonly #providers: ReadonlyMap<string, Provider>;
  /** A key is read from its record, which the number finds, when it is first asked for. */
  readonly #keys = new Map<string, Key | number>();
  readonly #slabs = new RecordSlabs();
  readonly #keyOfVersion = new Map<string, string>();
  readonly #tombstones = new Map<string, Tombstone>();
  #facts: VaultFacts = { restores: 0 };
  #auditState: AuditState | undefined;

  constructor(vault: Vault, providers: readonly Provider[], clock: LifeClock) {
    this.vault = vault;
    this.clock = clock;
    this.#providers = new Map(providers.map((provider) => [provider.name, provider]));
    this.lifetimes = new Lifetimes({ box: () => vault.box, sinceBoot: () => clock.sinceBoot(), providers });
  }

  /** Takes over one record of the vault that is being opened; its plaintext is zeroed. */
  take({ kind, id, plaintext }: OpenRecord): void {
    if (kind === 'key') this.#takeKey(id, plaintext);
    else if (kind === 'alias') this.aliases.put(decodeJson<AliasEntry>(plaintext));
    else if (kind === 'tombstone') this.#tombstones.set(id, decodeJson<Tombstone>(plaintext));
    else if (kind === 'clientToken') this.clientTokens.put(decodeJson<ClientTokenEntry>(plaintext));
    else if (kind === 'audit') this.#auditState = decodeState(plaintext);
    else if (kind === 'facts') this.#facts = decodeJson<VaultFacts>(plaintext);
    else this.tokens.take({ kind, id, plaintext });
    plaintext.fill(0);
  }

  #takeKey(keyId: string, plaintext: Uint8Array): void {
    const { lifetime, ...index } = readIndex(plaintext); // before the slab zeroes it
    const kept = lifetime ? { lifetime: { ...lifetime, boxedKey: Buffer.from(lifetime.boxedKey) } } : {};
    this.#index(keyId, this.#slabs.add(plaintext), { ...index, ...kept });
  }

  /** What is to do once every record was taken and the vault is open. */
  finishLoading(): void {
    this.clientTokens.sort();
    if (this.vault.wasRestored || this.isRolledBack) this.#countRestore();
  }

  /**
   * Writes exact use counts, forgets every key and overwrites what it held.
   * @param settleMs - longest time for the counts: keys that very many used keep the higher counts that they have in the vault.
   */
  async lock(settleMs = Number.POSITIVE_INFINITY): Promise<void> {
    await this.uses.settle(settleMs);
    this.wipe();
    const locking = [...this.#providers.values()].map((provider) => provider.lock());
    this.vault.lock(); // the root key does not wait for a token
    await Promise.all(locking);
  }

  /** Forgets every key and overwrites what it held. */
  wipe(): void {
    for (const entry of this.#keys.values()) if (typeof entry !== 'number') wipeKey(entry);
    this.#slabs.wipe();
    this.#auditState?.key.fill(0);
    this.#auditState = undefined;
    const all = [
      this.#keys,
      this.#keyOfVersion,
      this.aliases,
      this.clientTokens,
      this.#tombstones,
      this.keyIds,
      this.dueTimes,
      this.tokens,
      this.uses,
      this.lifetimes,
    ];
    for (const held of all) held.clear();
  }

  get keyCount(): number {
    return this.#keys.size;
  }

  /** Where the audit record was when the vault was last open. */
  get auditState(): AuditState | undefined {
    return this.#auditState;
  }

  /** The keys that were made last, newest first. */
  *newestKeys(limit: number): Generator<Key> {
    for (const keyId of this.keyIds.newest(limit)) yield this.keyById(keyId);
  }

  get facts(): VaultFacts {
    return this.#facts;
  }

  get providers(): readonly Provider[] {
    return [...this.#providers.values()];
  }

  findProvider(name: string): Provider | undefined {
    return this.#providers.get(name);
  }

  providerOf(key: Key): Provider {
    const provider = this.findProvider(key.provider);
    if (!provider) throw new AgentError('ERR_KEY_UNAVAILABLE');
    return provider;
  }

  /** @throws AgentError `ERR_KEY_NOT_FOUND`, with `deletionTime` for a key that was destroyed. */
  keyById(keyId: string): Key {
    const key = this.findKey(keyId);
    if (key) return key;
    const tombstone = this.#tombstones.get(keyId);
    throw new AgentError('ERR_KEY_NOT_FOUND', tombstone ? { deletionTime: new Date(tombstone.deletionTime).toISOString() } : {});
  }

  findKey(keyId: string): Key | undefined {
    const key = this.peekKey(keyId);
    if (key) this.#keys.set(keyId, key);
    return key;
  }

  /** A key for one look: what is parsed for it is not kept, so that a list of very many does not fill the memory. */
  peekKey(keyId: string): Key | undefined {
    const entry = this.#keys.get(keyId);
    return typeof entry === 'number' ? decodeKey(keyId, this.#slabs.get(entry)) : entry;
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

  /** The key after something happened to it; not yet kept. @throws AgentError whatever the table of states answers. */
  after(key: Key, happening: Happening): Key {
    return afterEvent(key, this.storedStateOf(key), happening);
  }

  /**
   * Makes changes durable, then visible. All or none.
   * @throws AgentError `ERR_STORE_UNAVAILABLE`: nothing changed.
   */
  commit(asked: KeyringChanges): void {
    const changes = this.tokens.complete(asked);
    const sealed = encodeChanges(changes);
    try {
      this.vault.commit(sealed);
    } finally {
      for (const change of sealed) if ('plaintext' in change) change.plaintext.fill(0);
    }
    const { keys = [], destroyed = [], aliases = [], deletedAliases = [], clientTokens = [], expiredTokens = [], facts } = changes;
    for (const name of deletedAliases) this.aliases.drop(name);
    for (const id of expiredTokens) this.clientTokens.delete(id);
    for (const tombstone of destroyed) this.#bury(tombstone);
    for (const key of keys) this.#putKey(key);
    for (const alias of aliases) this.aliases.put(alias);
    for (const token of clientTokens) this.clientTokens.put(token);
    this.tokens.follow(changes);
    if (facts) this.#facts = facts;
  }

  /** Overwrites what the vault's file may still hold of records that are gone. */
  scrub(): void {
    this.vault.scrub();
  }

  /**
   * Lets a version be used, and notes that it is; nothing is written on the way of a request. What needs no more than the public key does not wait for an unlock. What it answers is good for this turn only:
   * a request that has waited since it found its key may hold one whose material is gone, or wiped, by now.
   * @returns the version as it is now.
   * @throws AgentError what the key's state answers; `ERR_KEY_NOT_FOUND`; `ERR_AGENT_LOCKED` when its unlockLifetime is over.
   */
  use(key: Key, { keyVersionId }: KeyVersionEntry, part: 'secret' | 'public' = 'secret'): KeyVersionEntry {
    const now = this.keyById(key.keyId);
    this.requireState(now, 'cryptography');
    if (part === 'secret' && now.lifetime) this.lifetimes.require(now.keyId);
    this.uses.note(now);
    return findVersion(now, keyVersionId);
  }

  /** Runs what needs the secret material of a version that `use` let through in this turn. */
  withSecret<T>({ keyId, lifetime }: Key, version: KeyVersionEntry, work: (ref: MaterialRef) => Promise<T>): Promise<T> {
    return lifetime ? this.lifetimes.run(keyId, version, work) : work(version); // no promise more on the way of every request
  }

  /** Remembers a key that an administrator is to be warned of; it is written when the time is. */
  noteNearlySpent(keyId: string): void {
    const others = (this.#facts.nearlySpent ?? []).filter((other) => other !== keyId && this.#keys.has(other));
    this.#facts = { ...this.#facts, nearlySpent: [...others, keyId] };
  }

  /**
   * A backup does not know how often its keys were used after it was made: no version from before it is trusted to count.
   * It may have been put back to save what its windows would destroy: they wait until somebody has looked.
   */
  #countRestore(): void {
    const facts = { ...this.#facts, restores: this.#facts.restores + 1, unconfirmed: true };
    this.vault.commitRestored(encodeChanges({ facts }));
    this.#facts = facts;
  }

  #putKey(key: Key): void {
    key.usage.writtenTime = key.usage.lastUsedTime;
    this.#index(key.keyId, key, {
      keyVersionIds: key.versions.map(({ keyVersionId }) => keyVersionId),
      dueTime: dueTimeOf(key),
      isInToken: key.protectionLevel === 'HSM',
      ...(key.lifetime ? { lifetime: key.lifetime } : {}),
    });
  }

  #index(keyId: string, entry: Key | number, { keyVersionIds, dueTime, isInToken, lifetime }: KeyIndex): void {
    if (lifetime) this.lifetimes.know(keyId, lifetime);
    if (isInToken) this.tokens.keyIds.add(keyId);
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
    this.tokens.keyIds.delete(keyId);
    this.uses.forget(keyId);
    this.lifetimes.forget(keyId);
    this.#tombstones.set(keyId, tombstone);
  }
}
