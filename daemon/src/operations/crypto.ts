import { AgentError, type EncryptionAlgorithm, type GenerateDataKeyParams, type PaddingMode } from '@kms-agent/protocol';
import { type Caller, serviceOf } from '../caller/identity.ts';
import type { Opened, Sealed } from '../keyring/cipher.ts';
import type { Key } from '../keyring/key.ts';
import type { Handlers, OperationsContext } from './index.ts';

type CryptoMethods =
  | 'encrypt'
  | 'decrypt'
  | 'advanceEncrypt'
  | 'advanceDecrypt'
  | 'generateDataKey'
  | 'advanceGenerateDataKey'
  | 'generateDataKeyWithoutPlaintext'
  | 'reEncrypt'
  | 'sign'
  | 'verify'
  | 'getPublicKey'
  | 'generateRandom';

/** Random bytes in memory of their own, never from the shared pool. */
function makeRandom(length: number): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(length));
}

function dataKeyLength({ numberOfBytes, dataKeySpec }: GenerateDataKeyParams): number {
  if (dataKeySpec) return dataKeySpec === 'AES_256' ? 32 : 16;
  return numberOfBytes ?? 32;
}

const refer = ({ key, version }: Sealed | Opened): { keyId: string; keyVersionId: string } => ({ keyId: key.keyId, keyVersionId: version.keyVersionId });

const withPadding = (paddingMode: PaddingMode | undefined): { paddingMode?: PaddingMode } => (paddingMode ? { paddingMode } : {});

/** What tells a raw blob from an advance one: an IV beside it, or an algorithm that advance blobs do not have. */
interface AnyBlob {
  readonly ciphertextBlob: Uint8Array;
  readonly keyId?: string;
  readonly keyVersionId?: string;
  readonly aad?: Uint8Array;
  readonly algorithm?: EncryptionAlgorithm;
  readonly iv?: Uint8Array;
  readonly paddingMode?: PaddingMode;
}

/** encrypt, decrypt, data keys, sign, verify. Thin: the rules are the keyring's, the cryptography is the provider's. */
export function cryptoOperations({ agent, authority }: OperationsContext): Pick<Handlers, CryptoMethods> {
  const openAny = async (caller: Caller, params: AnyBlob, symmetricOnly: boolean): Promise<Opened> => {
    const { keyring, cipher } = agent.open;
    const { ciphertextBlob, keyId, keyVersionId, aad, algorithm, iv, paddingMode } = params;
    if (!iv && (algorithm ?? 'AES_GCM') === 'AES_GCM') {
      if (paddingMode) throw new AgentError('ERR_INVALID_PARAMS', { path: '/paddingMode', reason: 'does not apply to an advance blob' });
      const expected = { ...(keyId === undefined ? {} : { keyId }), ...(keyVersionId === undefined ? {} : { keyVersionId }) };
      return await cipher.advanceDecrypt(ciphertextBlob, aad, expected, (bound) => authority.openBound(caller, bound), caller);
    }
    if (keyId === undefined) throw new AgentError('ERR_INVALID_PARAMS', { path: '/keyId', reason: 'is required for a raw blob' });
    const key = keyring.resolve(keyId);
    return await cipher.decrypt(symmetricOnly ? cipher.requireSymmetric(key) : key, ciphertextBlob, params, keyVersionId, caller);
  };

  /** The key that is named; else that of the caller's service, made when it is first wanted, or the default key. */
  const chooseKey = (caller: Caller, keyId: string | undefined): Key | Promise<Key> => {
    const { keyring, creation } = agent.open;
    const service = keyId === undefined ? serviceOf(caller) : undefined;
    if (service === 'unknown') throw new AgentError('ERR_ACCESS_DENIED'); // never the default key of the others
    return service === undefined ? keyring.resolve(keyId) : creation.serviceKey(service.name);
  };

  /** An advance blob, with what the caller's right puts under its seal. */
  const seal = (caller: Caller, key: Key, plaintext: Uint8Array, aad: Uint8Array | undefined): Promise<Sealed> =>
    agent.open.cipher.advanceEncrypt(key, plaintext, aad, authority.bind(caller, key, 'advanceEncrypt'), caller);

  const makeDataKey = async (caller: Caller, params: GenerateDataKeyParams): Promise<{ plaintext: Uint8Array<ArrayBuffer>; sealed: Sealed }> => {
    const key = await chooseKey(caller, params.keyId);
    const plaintext = makeRandom(dataKeyLength(params));
    return { plaintext, sealed: await seal(caller, key, plaintext, params.aad) };
  };

  return {
    encrypt: async (caller, params) => {
      agent.open.cipher.checkRaw(params);
      const key = await chooseKey(caller, params.keyId);
      const sealed = await agent.open.cipher.encrypt(key, params.plaintext, params, params.keyVersionId, caller);
      const { ciphertextBlob, algorithm, iv } = sealed;
      return { ...refer(sealed), ciphertextBlob, algorithm, ...(iv ? { iv } : {}), ...withPadding(params.paddingMode) };
    },
    decrypt: async (caller, params) => {
      const { keyring, cipher } = agent.open;
      cipher.checkRaw(params);
      const opened = await cipher.decrypt(keyring.resolve(params.keyId), params.ciphertextBlob, params, params.keyVersionId, caller);
      return { ...refer(opened), plaintext: opened.plaintext, algorithm: opened.algorithm, ...withPadding(params.paddingMode) };
    },
    advanceEncrypt: async (caller, { keyId, plaintext, aad }) => {
      const chosen = chooseKey(caller, keyId);
      const sealed = await seal(caller, chosen instanceof Promise ? await chosen : chosen, plaintext, aad); // no wait more on the way of every request
      return { ...refer(sealed), ciphertextBlob: sealed.ciphertextBlob, algorithm: sealed.algorithm };
    },
    advanceDecrypt: async (caller, params) => {
      const opened = await openAny(caller, params, true);
      return { ...refer(opened), plaintext: opened.plaintext, algorithm: opened.algorithm };
    },
    generateDataKey: async (caller, params) => {
      const { cipher } = agent.open;
      cipher.checkRaw(params.aad ? { aad: params.aad } : {});
      const key = cipher.requireSymmetric(await chooseKey(caller, params.keyId));
      const plaintext = makeRandom(dataKeyLength(params));
      const sealed = await cipher.encrypt(key, plaintext, { algorithm: 'AES_GCM', ...(params.aad ? { aad: params.aad } : {}) }, undefined, caller);
      if (!sealed.iv) throw new TypeError('AES_GCM made no IV');
      return { ...refer(sealed), plaintext, ciphertextBlob: sealed.ciphertextBlob, iv: sealed.iv, algorithm: sealed.algorithm };
    },
    advanceGenerateDataKey: async (caller, params) => {
      const { plaintext, sealed } = await makeDataKey(caller, params);
      return { ...refer(sealed), plaintext, ciphertextBlob: sealed.ciphertextBlob, algorithm: sealed.algorithm };
    },
    generateDataKeyWithoutPlaintext: async (caller, params) => {
      const { plaintext, sealed } = await makeDataKey(caller, params);
      plaintext.fill(0);
      return { ...refer(sealed), ciphertextBlob: sealed.ciphertextBlob, algorithm: sealed.algorithm };
    },
    reEncrypt: async (caller, params) => {
      const { keyring, cipher } = agent.open;
      const destination = cipher.requireSymmetric(keyring.resolve(params.destinationKeyId));
      const opened = await openAny(caller, params, false);
      const sealed = await seal(caller, destination, opened.plaintext, params.destinationAad);
      opened.plaintext.fill(0);
      const source = refer(opened);
      return {
        ...refer(sealed),
        sourceKeyId: source.keyId,
        sourceKeyVersionId: source.keyVersionId,
        ciphertextBlob: sealed.ciphertextBlob,
        algorithm: sealed.algorithm,
      };
    },
    sign: async (caller, params) => {
      const { keyring, signer } = agent.open;
      const key = keyring.resolve(params.keyId);
      const { version, signature, choices } = await signer.sign(key, params, caller);
      return { keyId: key.keyId, keyVersionId: version.keyVersionId, signature, ...choices };
    },
    verify: async (_caller, params) => {
      const { keyring, signer } = agent.open;
      const key = keyring.resolve(params.keyId);
      const { version, valid, choices } = await signer.verify(key, params);
      return { keyId: key.keyId, ...(version ? { keyVersionId: version.keyVersionId } : {}), valid, ...choices };
    },
    getPublicKey: async (_caller, { keyId, keyVersionId }) => {
      const { keyring, signer } = agent.open;
      return await signer.getPublicKey(keyring.resolve(keyId), keyVersionId);
    },
    generateRandom: (_caller, { numberOfBytes }) => ({ random: makeRandom(numberOfBytes) }),
  };
}
