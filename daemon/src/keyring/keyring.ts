import { AgentError } from '@kms-agent/protocol';
import type { Provider } from '../providers/provider.ts';
import type { Change, Vault } from '../vault/vault.ts';
import { decodeKey, encodeKey, type Key, type KeyVersionEntry, wipeKey } from './key.ts';

/** An alias as it is kept. Times are milliseconds since the epoch. */
export interface AliasEntry {
  readonly aliasName: string;
  readonly keyId: string;
  readonly creationTime: number;
  readonly lastUpdateTime: number;
}

/** What an idempotent creation made, remembered for 24 hours. */
export interface ClientTokenEntry {
  readonly id: string;
  readonly method: string;
  readonly keyId: string;
  readonly keyVersionId: string;
  readonly time: number;
}

/** The alias of the key that is used when none is named. */
export const defaultAlias = 'alias/default';

/** Which record another one points at, so that the vault can name what is gone. */
export function mentionedBy(record: { kind: string; plaintext: Uint8Array }): { kind: string; id: string }[] {
  if (record.kind !== 'alias') return [];
  const { keyId } = decodeJson<AliasEntry>(record.plaintext);
  return [{ kind: 'key', id: keyId }];
}

function decodeJson<T>(plaintext: Uint8Array): T {
  return JSON.parse(Buffer.from(plaintext).toString('utf8')) as T; // authenticated: only this class writes such records
}

const encodeJson = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

/** All keys in memory while unlocked, and the one place that changes them: memory follows a durable commit, never the other way. */
export class Keyring {
  readonly vault: Vault;
  readonly #providers: ReadonlyMap<string, Provider>;
  readonly #keys = new Map<string, Key>();
  readonly #keyOfVersion = new Map<string, Key>();
  readonly #aliases = new Map<string, AliasEntry>();
  readonly #aliasesOfKey = new Map<string, Set<string>>();
  readonly #clientTokens = new Map<string, ClientTokenEntry>();

  constructor(vault: Vault, providers: readonly Provider[]) {
    this.vault = vault;
    this.#providers = new Map(providers.map((provider) => [provider.name, provider]));
  }

  /** Reads every record of the unlocked vault. */
  load(): void {
    for (const { kind, plaintext } of this.vault.records()) {
      if (kind === 'key') this.#putKey(decodeKey(plaintext));
      else if (kind === 'alias') this.#putAlias(decodeJson<AliasEntry>(plaintext));
      else if (kind === 'clientToken') this.#putClientToken(decodeJson<ClientTokenEntry>(plaintext));
      plaintext.fill(0);
    }
  }

  /** Forgets every key and overwrites what it held; exact use counts are written first. */
  async lock(): Promise<void> {
    this.#settleUses();
    for (const key of this.#keys.values()) wipeKey(key);
    for (const map of [this.#keys, this.#keyOfVersion, this.#aliases, this.#aliasesOfKey, this.#clientTokens]) map.clear();
    await Promise.all([...this.#providers.values()].map((provider) => provider.lock()));
    this.vault.lock();
  }

  get keyCount(): number {
    return this.#keys.size;
  }

  get providers(): readonly Provider[] {
    return [...this.#providers.values()];
  }

  providerOf(key: Key): Provider {
    const provider = this.#providers.get(key.provider);
    if (!provider) throw new AgentError('ERR_KEY_UNAVAILABLE');
    return provider;
  }

  /** Ids in order; UUIDv7, so that is oldest first. */
  keyIds(): string[] {
    return [...this.#keys.keys()].sort();
  }

  /** @throws AgentError `ERR_KEY_NOT_FOUND`. */
  keyById(keyId: string): Key {
    const key = this.#keys.get(keyId);
    if (!key) throw new AgentError('ERR_KEY_NOT_FOUND');
    return key;
  }

  /** The key that owns a version, if any. */
  keyByVersion(keyVersionId: string): Key | undefined {
    return this.#keyOfVersion.get(keyVersionId);
  }

  /**
   * Finds the key that a caller names: an id, an alias, or nothing for the default key.
   * @throws AgentError `ERR_KEY_NOT_FOUND`, `ERR_ALIAS_NOT_FOUND`.
   */
  resolve(reference: string | undefined): Key {
    if (reference === undefined) {
      const alias = this.#aliases.get(defaultAlias);
      if (!alias)
        throw new AgentError('ERR_KEY_NOT_FOUND', {
          hint: 'There is no default key; name one with keyId, or make it with createKey and aliasName alias/default.',
        });
      return this.keyById(alias.keyId);
    }
    return this.keyById(reference.startsWith('alias/') ? this.aliasByName(reference).keyId : reference);
  }

  /** @throws AgentError `ERR_ALIAS_NOT_FOUND`. */
  aliasByName(aliasName: string): AliasEntry {
    const alias = this.#aliases.get(aliasName);
    if (!alias) throw new AgentError('ERR_ALIAS_NOT_FOUND');
    return alias;
  }

  hasAlias(aliasName: string): boolean {
    return this.#aliases.has(aliasName);
  }

  /** Alias names in order, all or those of one key. */
  aliasNames(keyId?: string): string[] {
    return [...(keyId === undefined ? this.#aliases.keys() : (this.#aliasesOfKey.get(keyId) ?? []))].sort();
  }

  clientToken(id: string): ClientTokenEntry | undefined {
    return this.#clientTokens.get(id);
  }

  /**
   * Makes changes durable, then visible. All or none.
   * @throws AgentError `ERR_STORE_UNAVAILABLE`: nothing changed.
   */
  commit(changes: {
    keys?: readonly Key[];
    aliases?: readonly AliasEntry[];
    deletedAliases?: readonly string[];
    clientTokens?: readonly ClientTokenEntry[];
    expiredTokens?: readonly string[];
  }): void {
    const { keys = [], aliases = [], deletedAliases = [], clientTokens = [], expiredTokens = [] } = changes;
    const sealed: Change[] = [
      ...keys.map((key) => ({ kind: 'key', id: key.keyId, plaintext: encodeKey(key) })),
      ...aliases.map((alias) => ({ kind: 'alias', id: alias.aliasName, plaintext: encodeJson(alias) })),
      ...clientTokens.map((token) => ({ kind: 'clientToken', id: token.id, plaintext: encodeJson(token) })),
      ...deletedAliases.map((id) => ({ kind: 'alias', id, deleted: true }) as const),
      ...expiredTokens.map((id) => ({ kind: 'clientToken', id, deleted: true }) as const),
    ];
    try {
      this.vault.commit(sealed);
    } finally {
      for (const change of sealed) if ('plaintext' in change) change.plaintext.fill(0);
    }
    for (const name of deletedAliases) this.#dropAlias(name);
    for (const id of expiredTokens) this.#clientTokens.delete(id);
    for (const key of keys) this.#putKey(key);
    for (const alias of aliases) this.#putAlias(alias);
    for (const token of clientTokens) this.#putClientToken(token);
  }

  /** Client tokens made before `time`. */
  clientTokensBefore(time: number): string[] {
    return [...this.#clientTokens.values()].filter((token) => token.time < time).map((token) => token.id);
  }

  /** Counts one use; the vault hears of it a block ahead, so that a crash can only over-count. */
  countUse(key: Key, version: KeyVersionEntry, blockSize: number): void {
    if (version.useCount >= version.reservedUses) {
      version.reservedUses = version.useCount + blockSize;
      try {
        this.commit({ keys: [this.keyById(key.keyId)] }); // the newest copy: `key` may be older than a change
      } catch (error) {
        version.reservedUses = version.useCount;
        throw error;
      }
    }
    version.useCount += 1;
  }

  #settleUses(): void {
    const unsettled = [...this.#keys.values()].filter((key) => key.versions.some((version) => version.reservedUses > version.useCount));
    if (unsettled.length === 0) return;
    for (const key of unsettled) for (const version of key.versions) version.reservedUses = version.useCount;
    try {
      this.commit({ keys: unsettled });
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== 'ERR_STORE_UNAVAILABLE') throw error;
      // A vault that cannot be written keeps the higher counts it has: that over-counts, and lock must go on.
    }
  }

  #putKey(key: Key): void {
    this.#keys.set(key.keyId, key);
    for (const version of key.versions) this.#keyOfVersion.set(version.keyVersionId, key);
  }

  #putAlias(alias: AliasEntry): void {
    this.#dropAlias(alias.aliasName);
    this.#aliases.set(alias.aliasName, alias);
    const names = this.#aliasesOfKey.get(alias.keyId) ?? new Set();
    this.#aliasesOfKey.set(alias.keyId, names.add(alias.aliasName));
  }

  #dropAlias(aliasName: string): void {
    const alias = this.#aliases.get(aliasName);
    if (!alias) return;
    this.#aliases.delete(aliasName);
    this.#aliasesOfKey.get(alias.keyId)?.delete(aliasName);
  }

  #putClientToken(token: ClientTokenEntry): void {
    this.#clientTokens.set(token.id, token);
  }
}
