import { AgentError } from '@kms-agent/protocol';
import { SortedIds } from './sorted-ids.ts';

/** An alias as it is kept. Times are milliseconds since the epoch. */
export interface AliasEntry {
  readonly aliasName: string;
  readonly keyId: string;
  readonly creationTime: number;
  readonly lastUpdateTime: number;
  /** Of the alias of a service key: the unit that it belongs to. */
  readonly service?: string;
}

/** The alias of the key that is used when none is named. */
export const defaultAlias = 'alias/default';

/** Where the aliases of service keys are. */
export const serviceAliasPrefix = 'alias/service/';

/** All aliases in memory, by name, by key, and by service. */
export class AliasBook {
  /** Every name, in order. */
  readonly names = new SortedIds();
  readonly #byName = new Map<string, AliasEntry>();
  readonly #namesOfKey = new Map<string, Set<string>>();
  readonly #byService = new Map<string, AliasEntry>();

  has(aliasName: string): boolean {
    return this.#byName.has(aliasName);
  }

  /** @throws AgentError `ERR_ALIAS_NOT_FOUND`. */
  get(aliasName: string): AliasEntry {
    const alias = this.#byName.get(aliasName);
    if (!alias) throw new AgentError('ERR_ALIAS_NOT_FOUND');
    return alias;
  }

  find(aliasName: string): AliasEntry | undefined {
    return this.#byName.get(aliasName);
  }

  findService(service: string): AliasEntry | undefined {
    return this.#byService.get(service);
  }

  /** Names of one key, in order. */
  namesOf(keyId: string): string[] {
    return [...(this.#namesOfKey.get(keyId) ?? [])].sort();
  }

  put(alias: AliasEntry): void {
    this.drop(alias.aliasName);
    this.#byName.set(alias.aliasName, alias);
    this.names.add(alias.aliasName);
    if (alias.service !== undefined) this.#byService.set(alias.service, alias);
    const names = this.#namesOfKey.get(alias.keyId) ?? new Set();
    this.#namesOfKey.set(alias.keyId, names.add(alias.aliasName));
  }

  drop(aliasName: string): void {
    const alias = this.#byName.get(aliasName);
    if (!alias) return;
    this.#byName.delete(aliasName);
    this.names.delete(aliasName);
    if (alias.service !== undefined) this.#byService.delete(alias.service);
    const names = this.#namesOfKey.get(alias.keyId);
    names?.delete(aliasName);
    if (names?.size === 0) this.#namesOfKey.delete(alias.keyId);
  }

  clear(): void {
    for (const map of [this.#byName, this.#namesOfKey, this.#byService, this.names]) map.clear();
  }
}
