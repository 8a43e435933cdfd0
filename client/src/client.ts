import { randomUUID } from 'node:crypto';
import {
  type AddKeyslotParams,
  type AddKeyslotResult,
  type AdvanceDecryptParams,
  type AdvanceDecryptResult,
  type AdvanceEncryptParams,
  type AdvanceEncryptResult,
  type AdvanceGenerateDataKeyResult,
  AgentError,
  type AgentStatus,
  type Alias,
  type AliasParams,
  type CreateKeyParams,
  type CreateKeyVersionParams,
  type DecryptParams,
  type DecryptResult,
  type DeleteAliasParams,
  type EmptyResult,
  type EncryptParams,
  type EncryptResult,
  type GenerateDataKeyParams,
  type GenerateDataKeyResult,
  type GenerateDataKeyWithoutPlaintextResult,
  type GenerateRandomParams,
  type GenerateRandomResult,
  type GetPublicKeyParams,
  type GetPublicKeyResult,
  type KeyIdParams,
  type KeyMetadata,
  type KeyVersion,
  type KeyVersionParams,
  type ListAliasesParams,
  type ListAliasesResult,
  type ListKeyslotsResult,
  type ListKeysParams,
  type ListKeysResult,
  type ListKeyVersionsParams,
  type ListKeyVersionsResult,
  type MethodName,
  type MethodParams,
  type MethodResult,
  type OpenRpcDocument,
  type ReEncryptParams,
  type ReEncryptResult,
  type RemoveKeyslotParams,
  type SignParams,
  type SignResult,
  type UnlockParams,
  type UpdateKeyDescriptionParams,
  type VerifyParams,
  type VerifyResult,
  type WhoAmIResult,
} from '@kms-agent/protocol';
import { type CallOptions, type ConnectOptions, Transport } from './transport.ts';

/** A page of a list and where it goes on. */
interface Page {
  readonly nextToken?: string;
}

/** Adds what zeroes the plaintext of a data key: `using dataKey = await kms.advanceGenerateDataKey()`. */
function disposable<R extends { plaintext: Uint8Array }>(result: R): R & Disposable {
  return Object.defineProperty(result as R & Disposable, Symbol.dispose, { value: () => result.plaintext.fill(0) }); // defined in this line
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

/**
 * Connects to an agent.
 * @throws AgentError `ERR_UNREACHABLE` when none answers; `ERR_TIMEOUT`; the signal's reason.
 */
export async function connect(options: ConnectOptions = {}): Promise<AgentClient> {
  const transport = new Transport(options);
  await transport.open(options.signal);
  return new AgentClient(transport);
}

/**
 * A connection to an agent, with one method for each of the protocol's. Any number of calls may run at a time.
 * Bytes of results own their memory. Every method throws AgentError `ERR_ACCESS_DENIED` when the caller may not, `ERR_AGENT_LOCKED`,
 * `ERR_INVALID_PARAMS` with `details.path`, and `ERR_TIMEOUT` or `ERR_DISCONNECTED` with `details.mayHaveRun`.
 */
export class AgentClient implements AsyncDisposable {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Raw operation: encrypts with the key's initial version, also after a rotation; new code uses {@link AgentClient.advanceEncrypt}.
   *
   * @returns `ciphertextBlob`: ciphertext ‖ 16-byte tag for AES_GCM (NIST SP 800-38D), RSAES-OAEP (RFC 8017) for RSA; keep `iv` and `algorithm` with it. The answer, spread and completed with `aad`, is a request of decrypt.
   * @throws AgentError `ERR_INVALID_PARAMS` past k − 2h − 2 bytes for RSA; `ERR_KEY_NOT_FOUND`; `ERR_UNSUPPORTED_ALGORITHM`.
   */
  encrypt(params: EncryptParams, options?: CallOptions): Promise<EncryptResult> {
    return this.#transport.call('encrypt', params, options);
  }

  /**
   * Raw operation: decrypts what encrypt, generateDataKey or any standard library made, with the initial version unless told otherwise.
   *
   * @returns `plaintext` in memory of its own.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT` for a wrong key, IV or AAD and for changed bytes alike.
   */
  decrypt(params: DecryptParams, options?: CallOptions): Promise<DecryptResult> {
    return this.#transport.call('decrypt', params, options);
  }

  /**
   * Encrypts 1 to 65,536 bytes with the primary version of a symmetric key, into a blob that names the version.
   *
   * @returns `ciphertextBlob`: an advance blob; keep it and the `aad`, nothing else.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for an asymmetric key; `ERR_KEY_NOT_FOUND`.
   */
  advanceEncrypt(params: AdvanceEncryptParams, options?: CallOptions): Promise<AdvanceEncryptResult> {
    return this.#transport.call('advanceEncrypt', params, options);
  }

  /**
   * Decrypts an advance blob with the version it names, or a raw blob when `keyId` and `iv` are given.
   *
   * @returns `plaintext` in memory of its own.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT` for whatever does not open; not retryable.
   */
  advanceDecrypt(params: AdvanceDecryptParams, options?: CallOptions): Promise<AdvanceDecryptResult> {
    return this.#transport.call('advanceDecrypt', params, options);
  }

  /** Raw operation: makes a data key under the initial version. */
  async generateDataKey(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<Disposable & GenerateDataKeyResult> {
    return disposable(await this.#transport.call('generateDataKey', params, options));
  }

  /** Makes a data key: plaintext, and an advance blob under the primary version. */
  async advanceGenerateDataKey(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<Disposable & AdvanceGenerateDataKeyResult> {
    return disposable(await this.#transport.call('advanceGenerateDataKey', params, options));
  }

  /** Makes a data key and answers only its advance blob. */
  generateDataKeyWithoutPlaintext(params: GenerateDataKeyParams = {}, options?: CallOptions): Promise<GenerateDataKeyWithoutPlaintextResult> {
    return this.#transport.call('generateDataKeyWithoutPlaintext', params, options);
  }

  /**
   * Moves a ciphertext to another key, or to the newest version of its own, without showing the plaintext. `aad` is never carried over.
   *
   * @returns An advance blob under the destination's primary version.
   * @throws AgentError `ERR_INVALID_CIPHERTEXT`.
   */
  reEncrypt(params: ReEncryptParams, options?: CallOptions): Promise<ReEncryptResult> {
    return this.#transport.call('reEncrypt', params, options);
  }

  /**
   * Signs a message of at most 64 KiB, or its 32-byte SHA-256 with `messageType: 'DIGEST'`, with the key's primary version.
   *
   * @returns `signature`: ASN.1 DER for ECDSA (RFC 3279 section 2.2.3), or r‖s with `signatureFormat: 'P1363'`; k bytes for RSA.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a key that does not sign.
   */
  sign(params: SignParams, options?: CallOptions): Promise<SignResult> {
    return this.#transport.call('sign', params, options);
  }

  /**
   * Says whether a signature is valid. The answer is an object and always truthy: look at `valid`, or use {@link AgentClient.assertValidSignature}.
   *
   * @returns `valid`, and the `keyVersionId` that the signature is of.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a key that does not sign; never for a bad signature.
   */
  verify(params: VerifyParams, options?: CallOptions): Promise<VerifyResult> {
    return this.#transport.call('verify', params, options);
  }

  /**
   * Answers the public key as SPKI PEM (RFC 7468), of the version that sign or encrypt would use.
   *
   * @returns `publicKey`: PEM text.
   * @throws AgentError `ERR_UNSUPPORTED_OPERATION` for a symmetric key.
   */
  getPublicKey(params: GetPublicKeyParams, options?: CallOptions): Promise<GetPublicKeyResult> {
    return this.#transport.call('getPublicKey', params, options);
  }

  /** Answers random bytes. */
  generateRandom(params: GenerateRandomParams, options?: CallOptions): Promise<GenerateRandomResult> {
    return this.#transport.call('generateRandom', params, options);
  }

  /**
   * Makes a key. A repeat after a disconnect answers the first result: the client always sends a `clientToken`.
   *
   * @returns What is known about the key.
   * @throws AgentError `ERR_INVALID_PARAMS` without keyUsage for RSA; `ERR_ALREADY_EXISTS` for an alias that is taken; `ERR_UNSUPPORTED_OPERATION`.
   */
  createKey(params: CreateKeyParams = {}, options?: CallOptions): Promise<KeyMetadata> {
    return this.#transport.call('createKey', { clientToken: randomUUID(), ...params }, options);
  }

  /** Answers what is known about a key. */
  describeKey(params: KeyIdParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.#transport.call('describeKey', params, options);
  }

  /** Lists keys, sorted by id. */
  listKeys(params: ListKeysParams = {}, options?: CallOptions): Promise<ListKeysResult> {
    return this.#transport.call('listKeys', params, options);
  }

  /** Changes a key's description. */
  updateKeyDescription(params: UpdateKeyDescriptionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.#transport.call('updateKeyDescription', params, options);
  }

  /** Makes an alias of a key. */
  createAlias(params: AliasParams, options?: CallOptions): Promise<Alias> {
    return this.#transport.call('createAlias', params, options);
  }

  /** Moves an alias to another key. */
  updateAlias(params: AliasParams, options?: CallOptions): Promise<Alias> {
    return this.#transport.call('updateAlias', params, options);
  }

  /** Deletes an alias; the key stays. */
  deleteAlias(params: DeleteAliasParams, options?: CallOptions): Promise<EmptyResult> {
    return this.#transport.call('deleteAlias', params, options);
  }

  /** Lists aliases, sorted by name. */
  listAliases(params: ListAliasesParams = {}, options?: CallOptions): Promise<ListAliasesResult> {
    return this.#transport.call('listAliases', params, options);
  }

  /**
   * Makes a new version, primary at once unless `setPrimary` is false. A repeat after a disconnect answers the first result.
   *
   * @returns The version.
   * @throws AgentError `ERR_LIMIT_EXCEEDED` past 1000 versions.
   */
  createKeyVersion(params: CreateKeyVersionParams, options?: CallOptions): Promise<KeyVersion> {
    return this.#transport.call('createKeyVersion', { clientToken: randomUUID(), ...params }, options);
  }

  /** Chooses the version that advance operations and sign use. */
  setPrimaryKeyVersion(params: KeyVersionParams, options?: CallOptions): Promise<KeyMetadata> {
    return this.#transport.call('setPrimaryKeyVersion', params, options);
  }

  /** Lists the versions of a key, oldest first. */
  listKeyVersions(params: ListKeyVersionsParams, options?: CallOptions): Promise<ListKeyVersionsResult> {
    return this.#transport.call('listKeyVersions', params, options);
  }

  /** Answers what is known about a version. */
  describeKeyVersion(params: KeyVersionParams, options?: CallOptions): Promise<KeyVersion> {
    return this.#transport.call('describeKeyVersion', params, options);
  }

  /** Says how the agent is. */
  status(options?: CallOptions): Promise<AgentStatus> {
    return this.#transport.call('status', {}, options);
  }

  /** Says who the agent takes the caller for. */
  whoAmI(options?: CallOptions): Promise<WhoAmIResult> {
    return this.#transport.call('whoAmI', {}, options);
  }

  /** Opens the vault. */
  unlock(params: UnlockParams = {}, options?: CallOptions): Promise<AgentStatus> {
    return this.#transport.call('unlock', params, options);
  }

  /** Forgets every key until the next unlock. */
  lock(options?: CallOptions): Promise<AgentStatus> {
    return this.#transport.call('lock', {}, options);
  }

  /** Lists the ways into the vault. */
  listKeyslots(options?: CallOptions): Promise<ListKeyslotsResult> {
    return this.#transport.call('listKeyslots', {}, options);
  }

  /** Adds a way into the vault. */
  addKeyslot(params: AddKeyslotParams, options?: CallOptions): Promise<AddKeyslotResult> {
    return this.#transport.call('addKeyslot', params, options);
  }

  /** Removes a way into the vault. */
  removeKeyslot(params: RemoveKeyslotParams, options?: CallOptions): Promise<EmptyResult> {
    return this.#transport.call('removeKeyslot', params, options);
  }

  /** Answers the OpenRPC document of all methods. */
  discover(options?: CallOptions): Promise<OpenRpcDocument> {
    return this.#transport.call('rpc.discover', {}, options);
  }

  /** Calls any method by its name on the wire. */
  call<M extends MethodName>(method: M, params: MethodParams<M>, options?: CallOptions): Promise<MethodResult<M>> {
    return this.#transport.call(method, params, options);
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

  /** Verifies, and throws when the signature is not valid. @throws AgentError `ERR_SIGNATURE_INVALID`. */
  async assertValidSignature(params: VerifyParams, options?: CallOptions): Promise<VerifyResult> {
    const result = await this.verify(params, options);
    if (!result.valid) throw new AgentError('ERR_SIGNATURE_INVALID');
    return result;
  }

  /** Ends the connection; calls under way are rejected with `ERR_DISCONNECTED`. */
  close(): void {
    this.#transport.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}
