import {
  constants,
  type KeyObject,
  type SignKeyObjectInput,
  sign as signMessage,
  type VerifyKeyObjectInput,
  verify as verifyMessage,
  webcrypto,
} from 'node:crypto';
import { AgentError, type SigningAlgorithm } from '@kms-agent/protocol';
import { type EvpSettings, ecdsaSettings, pkcs1Settings, pssSettings, signDigest, verifyDigest } from '../../os/evp.ts';
import type { DecryptInput, EncryptInput, EncryptOutput, MaterialRef, SignInput, VerifyInput } from '../provider.ts';
import { derToP1363, p1363ToDer } from './ecdsa-format.ts';
import { PrivateKeys } from './private-keys.ts';
import { PublicKeys } from './public-keys.ts';

/** Bytes of an RSA modulus, which are those of a ciphertext and of a signature. */
const modulusBytes: Record<string, number> = { RSA_2048: 256, RSA_3072: 384 };
/** Most bytes of an ECDSA signature in DER on a 256-bit curve. */
const maxEcdsaBytes = 72;

const oaepHashes = {
  RSAES_OAEP_SHA_256: { name: 'SHA-256', bytes: 32 },
  RSAES_OAEP_SHA_1: { name: 'SHA-1', bytes: 20 },
} as const;

const evpSettings: Record<SigningAlgorithm, EvpSettings> = { RSA_PSS_SHA_256: pssSettings, RSA_PKCS1_SHA_256: pkcs1Settings, ECDSA_SHA_256: ecdsaSettings };

function oaepHash(algorithm: string): (typeof oaepHashes)[keyof typeof oaepHashes] {
  if (algorithm === 'RSAES_OAEP_SHA_256' || algorithm === 'RSAES_OAEP_SHA_1') return oaepHashes[algorithm];
  throw new AgentError('ERR_UNSUPPORTED_ALGORITHM');
}

function withKey(key: KeyObject, { algorithm, signatureFormat }: SignInput): SignKeyObjectInput & VerifyKeyObjectInput {
  if (algorithm === 'RSA_PSS_SHA_256') return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 };
  if (algorithm === 'RSA_PKCS1_SHA_256') return { key, padding: constants.RSA_PKCS1_PADDING };
  return { key, dsaEncoding: signatureFormat === 'P1363' ? 'ieee-p1363' : 'der' };
}

/** RSA and ECDSA with OpenSSL, on the thread pool; but for P-256, which takes less time than the way there. */
export class Asymmetric {
  readonly #keys = new PrivateKeys();
  readonly #publicKeys = new PublicKeys();

  /** RSAES-OAEP with MGF1 of the same hash (RFC 8017 section 7.1.1). @throws AgentError `ERR_INVALID_PARAMS` past k - 2h - 2 bytes. */
  async encrypt(ref: MaterialRef, { algorithm, plaintext }: EncryptInput): Promise<EncryptOutput> {
    const hash = oaepHash(algorithm);
    const maxBytes = (modulusBytes[ref.keySpec] ?? 0) - 2 * hash.bytes - 2;
    if (plaintext.length > maxBytes)
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/plaintext', reason: `must be at most ${maxBytes} bytes for ${ref.keySpec} and ${algorithm}` });
    const key = this.#publicKeys.encryptKey(ref, hash.name);
    return { ciphertext: new Uint8Array(await webcrypto.subtle.encrypt({ name: 'RSA-OAEP' }, key, new Uint8Array(plaintext))) };
  }

  /** RFC 8017 section 7.1.2. @throws AgentError `ERR_INVALID_CIPHERTEXT`, one answer for all causes. */
  async decrypt(ref: MaterialRef, { algorithm, ciphertext }: DecryptInput): Promise<Uint8Array> {
    const key = this.#keys.decryptKey(ref, oaepHash(algorithm).name);
    try {
      return new Uint8Array(await webcrypto.subtle.decrypt({ name: 'RSA-OAEP' }, key, new Uint8Array(ciphertext)));
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === 'OperationError') throw new AgentError('ERR_INVALID_CIPHERTEXT');
      throw cause;
    }
  }

  async sign(ref: MaterialRef, input: SignInput): Promise<Uint8Array> {
    if (input.messageType === 'DIGEST') return await this.#signDigest(ref, input);
    const key = withKey(this.#keys.privateKey(ref), input);
    if (ref.keySpec === 'EC_P256') return signMessage('sha256', input.message, key);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    signMessage('sha256', input.message, key, (error, signature) => (error ? reject(error) : resolve(signature)));
    return await promise;
  }

  async verify(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    if (input.messageType === 'RAW') return await this.#verifyMessage(ref, input);
    const signature = input.signatureFormat === 'P1363' ? p1363ToDer(input.signature) : input.signature;
    return signature !== undefined && verifyDigest(this.#publicKeys.evpKey(ref), evpSettings[input.algorithm], input.message, signature);
  }

  publicKey(ref: MaterialRef): Uint8Array {
    return this.#publicKeys.publicKey(ref).export({ type: 'spki', format: 'der' });
  }

  drop(keyVersionId: string): void {
    this.#keys.drop(keyVersionId);
    this.#publicKeys.drop(keyVersionId);
  }

  clear(): void {
    this.#keys.clear();
    this.#publicKeys.clear();
  }

  /** On the thread pool, but for P-256, which takes less time than the way there. */
  #verifyMessage(ref: MaterialRef, input: VerifyInput): boolean | Promise<boolean> {
    const key = withKey(this.#publicKeys.publicKey(ref), input);
    if (ref.keySpec === 'EC_P256') return verifyMessage('sha256', input.message, key, input.signature);
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    verifyMessage('sha256', input.message, key, input.signature, (error, isValid) => (error ? reject(error) : resolve(isValid)));
    return promise;
  }

  async #signDigest(ref: MaterialRef, { algorithm, message, signatureFormat }: SignInput): Promise<Uint8Array> {
    const signature = await signDigest(this.#keys.evpKey(ref), evpSettings[algorithm], message, modulusBytes[ref.keySpec] ?? maxEcdsaBytes);
    return algorithm === 'ECDSA_SHA_256' && signatureFormat === 'P1363' ? derToP1363(signature) : signature;
  }
}
