import type {
  Alias,
  AliasParams,
  CreateKeyParams,
  CreateKeyVersionParams,
  DeleteAliasParams,
  EmptyResult,
  GetParametersForImportParams,
  GetParametersForImportResult,
  ImportKeyMaterialParams,
  ImportKeyMaterialResult,
  KeyIdParams,
  KeyMetadata,
  KeyPolicyResult,
  KeyVersion,
  KeyVersionParams,
  ListAliasesParams,
  ListAliasesResult,
  ListKeysParams,
  ListKeysResult,
  ListKeyVersionsParams,
  ListKeyVersionsResult,
  OnlyKeyIdParams,
  ScheduleKeyDeletionParams,
  SetDeletionProtectionParams,
  SetKeyPolicyParams,
  TagKeyParams,
  UntagKeyParams,
  UpdateKeyDescriptionParams,
  UpdateRotationPolicyParams,
} from '@kms-agent/protocol';
import { CryptographyClient } from './cryptography.ts';
import type { CallOptions } from './transport.ts';

/** A page of a list and where it goes on. */
interface Page {
  readonly nextToken?: string;
}

/** Walks a list from page to page. */
async function* walk<P extends Page, T>(
  load: (nextToken: string | undefined) => Promise<P>,
  itemsOf: (page: P) => readonly T[],
): AsyncGenerator<T, void, undefined> {
  let nextToken: string | undefined;
  do {
    const page = await load(nextToken);
    yield* itemsOf(page);
    nextToken = page.nextToken;
  } while (nextToken !== undefined);
}

const withToken = (nextToken: string | undefined): { nextToken?: string } => (nextToken === undefined ? {} : { nextToken });

/** The methods that make keys and change them. */
export class KeysClient extends CryptographyClient {
  /**
   * Makes a key. A repeat after a disconnect answers the first result: the client always sends a `clientToken`.
   *
   * @returns What is known about the key.
   * @throws AgentError `ERR_INVALID_PARAMS` without keyUsage for RSA; `ERR_ALREADY_EXISTS` for an alias that is taken; `ERR_UNSUPPORTED_OPERATION`.
   */
  createKey(params: CreateKeyParams = {}, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('createKey', params, options);
  }

  /** Answers what is known about a key. */
  describeKey(params: KeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('describeKey', params, options);
  }

  /** Lists keys, sorted by id. */
  listKeys(params: ListKeysParams = {}, options?: CallOptions): Promise<ListKeysResult> {
    return this.transport.call('listKeys', params, options);
  }

  /** Changes a key's description. */
  updateKeyDescription(params: UpdateKeyDescriptionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('updateKeyDescription', params, options);
  }

  /** Makes an alias of a key. */
  createAlias(params: AliasParams, options?: CallOptions): Promise<Alias> {
    return this.transport.call('createAlias', params, options);
  }

  /** Moves an alias to another key. */
  updateAlias(params: AliasParams, options?: CallOptions): Promise<Alias> {
    return this.transport.call('updateAlias', params, options);
  }

  /** Deletes an alias; the key stays. */
  deleteAlias(params: DeleteAliasParams, options?: CallOptions): Promise<EmptyResult> {
    return this.transport.call('deleteAlias', params, options);
  }

  /** Lists aliases, sorted by name. */
  listAliases(params: ListAliasesParams = {}, options?: CallOptions): Promise<ListAliasesResult> {
    return this.transport.call('listAliases', params, options);
  }

  /**
   * Makes a new version, primary at once unless `setPrimary` is false. A repeat after a disconnect answers the first result.
   *
   * @returns The version.
   * @throws AgentError `ERR_LIMIT_EXCEEDED` past 1000 versions.
   */
  createKeyVersion(params: CreateKeyVersionParams, options?: CallOptions): Promise<KeyVersion> {
    return this.transport.call('createKeyVersion', params, options);
  }

  /** Chooses the version that advance operations and sign use. */
  setPrimaryKeyVersion(params: KeyVersionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('setPrimaryKeyVersion', params, options);
  }

  /** Lists the versions of a key, oldest first. */
  listKeyVersions(params: ListKeyVersionsParams, options?: CallOptions): Promise<ListKeyVersionsResult> {
    return this.transport.call('listKeyVersions', params, options);
  }

  /** Answers what is known about a version. */
  describeKeyVersion(params: KeyVersionParams, options?: CallOptions): Promise<KeyVersion> {
    return this.transport.call('describeKeyVersion', params, options);
  }

  /** Answers who may do what with a key: what setKeyPolicy set, or the default, which is its creator. */
  getKeyPolicy(params: KeyIdParams, options?: CallOptions): Promise<KeyPolicyResult> {
    return this.transport.call('getKeyPolicy', params, options);
  }

  /**
   * Says who may do what with a key; it replaces the policy that is there. Users and groups are kept as numbers.
   *
   * @returns the policy as it is kept, and `warnings` about what its writer may not have meant.
   * @throws AgentError `ERR_INVALID_PARAMS` with `path` for an unknown action, user or kind; `ERR_UNSUPPORTED_OPERATION` for what the agent cannot read.
   */
  setKeyPolicy(params: SetKeyPolicyParams, options?: CallOptions): Promise<KeyPolicyResult> {
    return this.transport.call('setKeyPolicy', params, options);
  }

  /** Lets a disabled key be used again; no error when it is enabled. @throws AgentError `ERR_STATE_CONFLICT` when it is to be deleted or has no material. */
  enableKey(params: OnlyKeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('enableKey', params, options);
  }

  /** Stops every use of a key until it is enabled: `ERR_KEY_DISABLED`. Nothing is lost. @throws AgentError `ERR_STATE_CONFLICT`. */
  disableKey(params: OnlyKeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('disableKey', params, options);
  }

  /**
   * Schedules the destruction of a key, in 7 to 366 days (30). Until then it cannot be used, and `cancelKeyDeletion` takes it back;
   * after that everything it encrypted is lost for good.
   *
   * @returns `deletionTime`: when the material is destroyed.
   * @throws AgentError `ERR_DELETION_PROTECTED`; `ERR_STATE_CONFLICT` when it is scheduled already.
   */
  scheduleKeyDeletion(params: ScheduleKeyDeletionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('scheduleKeyDeletion', params, options);
  }

  /** Takes a scheduled deletion back: the key is as it was before. @throws AgentError `ERR_STATE_CONFLICT` when none is scheduled. */
  cancelKeyDeletion(params: OnlyKeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('cancelKeyDeletion', params, options);
  }

  /** Protects a key against `scheduleKeyDeletion` and `deleteKeyMaterial`, or lifts that. */
  setDeletionProtection(params: SetDeletionProtectionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('setDeletionProtection', params, options);
  }

  /** Adds tags, or gives those of the same name another value. @throws AgentError `ERR_LIMIT_EXCEEDED` past 50. */
  tagKey(params: TagKeyParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('tagKey', params, options);
  }

  /** Removes tags by name. */
  untagKey(params: UntagKeyParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('untagKey', params, options);
  }

  /**
   * Turns automatic rotation of a symmetric, generated key on or off; the interval is 7d to 730d, and is kept while it is off.
   *
   * @returns `rotation.nextRotationTime`: the last rotation plus the interval; at once when that has passed.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for other keys; `ERR_INVALID_PARAMS` without an interval the first time.
   */
  updateRotationPolicy(params: UpdateRotationPolicyParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('updateRotationPolicy', params, options);
  }

  /**
   * Answers a fresh public key to wrap key material with, and the token that imports it, both good for 24 hours. Costs an RSA key generation.
   *
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a key whose origin is not EXTERNAL; `ERR_UNSUPPORTED_ALGORITHM`.
   */
  getParametersForImport(params: GetParametersForImportParams, options?: CallOptions): Promise<GetParametersForImportResult> {
    return this.transport.call('getParametersForImport', params, options);
  }

  /**
   * Puts wrapped material into a key of origin EXTERNAL; what was imported once is the only material the key ever takes again.
   *
   * @param params - `encryptedKeyMaterial`: the material, wrapped as getParametersForImport asked for it; protocol/README.md says how.
   * @throws AgentError `ERR_IMPORT_TOKEN_INVALID`, `ERR_IMPORT_TOKEN_EXPIRED`, `ERR_INVALID_KEY_MATERIAL`, `ERR_STATE_CONFLICT`.
   */
  importKeyMaterial(params: ImportKeyMaterialParams, options?: CallOptions): Promise<ImportKeyMaterialResult> {
    return this.transport.call('importKeyMaterial', params, options);
  }

  /** Deletes imported material at once; the key is PendingImport until the same is imported again. @throws AgentError `ERR_DELETION_PROTECTED`. */
  deleteKeyMaterial(params: OnlyKeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.transport.call('deleteKeyMaterial', params, options);
  }

  /** Every key that passes the filters, page by page. */
  listAllKeys(params: Omit<ListKeysParams, 'nextToken'> = {}, options?: CallOptions): AsyncGenerator<KeyMetadata, void, undefined> {
    return walk(
      (nextToken) => this.listKeys({ ...params, ...withToken(nextToken) }, options),
      (page) => page.keys,
    );
  }

  /** Every alias, or those of one key, page by page. */
  listAllAliases(params: Omit<ListAliasesParams, 'nextToken'> = {}, options?: CallOptions): AsyncGenerator<Alias, void, undefined> {
    return walk(
      (nextToken) => this.listAliases({ ...params, ...withToken(nextToken) }, options),
      (page) => page.aliases,
    );
  }

  /** Every version of a key, oldest first, page by page. */
  listAllKeyVersions(params: Omit<ListKeyVersionsParams, 'nextToken'>, options?: CallOptions): AsyncGenerator<KeyVersion, void, undefined> {
    return walk(
      (nextToken) => this.listKeyVersions({ ...params, ...withToken(nextToken) }, options),
      (page) => page.keyVersions,
    );
  }
}
