import { AgentError } from '@kms-agent/protocol';
import { type AliasEntry, defaultAlias, serviceAliasPrefix } from './alias-book.ts';
import type { Keyring } from './keyring.ts';
import { requireChangeable, unsupported } from './rules.ts';

/** Aliases of one key: every answer about it names them all, and must fit into a frame. */
const maxAliases = 100;

/** Names for keys: made, moved, deleted. */
export class Aliases {
  readonly #keyring: Keyring;

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** @throws AgentError `ERR_ALREADY_EXISTS`; `ERR_UNSUPPORTED_OPERATION` for the names of default keys; `ERR_STATE_CONFLICT`. */
  create(aliasName: string, keyId: string): AliasEntry {
    this.#requireMovable(aliasName);
    this.checkTarget(keyId);
    this.requireFree(aliasName);
    const alias = this.make(aliasName, keyId);
    this.#keyring.commit({ aliases: [alias] });
    return alias;
  }

  /** @throws AgentError as checkUpdate. */
  update(aliasName: string, keyId: string): AliasEntry {
    const alias = { ...this.checkUpdate(aliasName, keyId), keyId, lastUpdateTime: this.#keyring.clock.now() };
    this.#keyring.commit({ aliases: [alias] });
    return alias;
  }

  /** @throws AgentError as checkDelete. */
  delete(aliasName: string): void {
    this.checkDelete(aliasName);
    this.#keyring.commit({ deletedAliases: [aliasName] });
  }

  /** Whether a key can have one alias more. @throws AgentError `ERR_KEY_NOT_FOUND`, `ERR_STATE_CONFLICT`, `ERR_LIMIT_EXCEEDED`; `ERR_UNSUPPORTED_OPERATION` for the key of a service. */
  checkTarget(keyId: string): void {
    this.#requireTarget(keyId);
    this.#requireRoom(keyId);
  }

  /** Whether an alias can be moved to a key. @returns the alias. @throws AgentError `ERR_ALIAS_NOT_FOUND`; as checkTarget; `ERR_UNSUPPORTED_OPERATION` for the names of default keys. */
  checkUpdate(aliasName: string, keyId: string): AliasEntry {
    const alias = this.checkDelete(aliasName);
    this.#requireTarget(keyId);
    if (alias.keyId !== keyId) this.#requireRoom(keyId);
    return alias;
  }

  /** Whether an alias can go. @returns the alias. @throws AgentError `ERR_ALIAS_NOT_FOUND`; `ERR_UNSUPPORTED_OPERATION` for the names of default keys. */
  checkDelete(aliasName: string): AliasEntry {
    this.#requireMovable(aliasName);
    return this.#keyring.aliases.get(aliasName);
  }

  /** An alias that is not yet kept. */
  make(aliasName: string, keyId: string): AliasEntry {
    const now = this.#keyring.clock.now();
    return { aliasName, keyId, creationTime: now, lastUpdateTime: now };
  }

  /** @throws AgentError `ERR_ALREADY_EXISTS`; `ERR_UNSUPPORTED_OPERATION` for a name of services. */
  requireFree(aliasName: string): void {
    if (aliasName.startsWith(serviceAliasPrefix)) throw unsupported('alias/service/… belongs to the keys of services.');
    if (this.#keyring.aliases.has(aliasName)) throw new AgentError('ERR_ALREADY_EXISTS');
  }

  #requireTarget(keyId: string): void {
    const key = this.#keyring.keyById(keyId);
    requireChangeable(key);
    this.#keyring.requireState(key, 'aliasTarget');
  }

  #requireRoom(keyId: string): void {
    if (this.#keyring.aliases.namesOf(keyId).length >= maxAliases)
      throw new AgentError('ERR_LIMIT_EXCEEDED', { hint: `A key has at most ${maxAliases} aliases.` });
  }

  #requireMovable(aliasName: string): void {
    if (aliasName === defaultAlias || aliasName.startsWith(serviceAliasPrefix)) throw unsupported('The aliases of default keys follow their keys.');
  }
}
