import { verify as verifyMessage, webcrypto } from 'node:crypto';
import { AgentError, type SigningAlgorithm } from '@kms-agent/protocol';
import { type EvpSettings, ecdsaSettings, pkcs1Settings, pssSettings, verifyDigest } from '../../os/evp.ts';
import type { EncryptInput, EncryptOutput, MaterialRef, VerifyInput } from '../provider.ts';
import { p1363ToDer } from './ecdsa-format.ts';
import { PublicKeys } from './public-keys.ts';

/** Bytes of an RSA modulus, which are those of a ciphertext and of a signature. */
export const modulusBytes: Readonly<Record<string, number>> = { RSA_2048: 256, RSA_3072: 384, RSA_4096: 512 };

const oaepHashes = {
  RSAES_OAEP_SHA_256: { name: 'SHA-256', bytes: 32 },
  RSAES_OAEP_SHA_1: { name: 'SHA-1', bytes: 20 },
} as const;

/** How libcrypto signs and verifies a given digest with each algorithm. */
export const evpSettings: Record<SigningAlgorithm, EvpSettings> = {
  RSA_PSS_SHA_256: pssSettings,
  RSA_PKCS1_SHA_256: pkcs1Settings,
  ECDSA_SHA_256: ecdsaSettings,
};

/** The hash of an OAEP algorithm. @throws AgentError `ERR_UNSUPPORTED_ALGORITHM` for any other. */
export function oaepHash(algorithm: string): (typeof oaepHashes)[keyof typeof oaepHashes] {
  if (algorithm === 'RSAES_OAEP_SHA_256' || algorithm === 'RSAES_OAEP_SHA_1') return oaepHashes[algorithm];
  throw new AgentError('ERR_UNSUPPORTED_ALGORITHM');
}

/** What needs a public key only, wherever the private one lives. */
export class PublicOperations {
  readonly #keys = new PublicKeys();

  /** RSAES-OAEP with MGF1 of the same hash (RFC 8017 section 7.1.1). @throws AgentError `ERR_INVALID_PARAMS` past k - 2h - 2 bytes. */
  async encrypt(ref: MaterialRef, { algorithm, plaintext }: EncryptInput): Promise<EncryptOutput> {
    const hash = oaepHash(algorithm);
    const maxBytes = (modulusBytes[ref.keySpec] ?? 0) - 2 * hash.bytes - 2;
    if (plaintext.length > maxBytes)
      throw new AgentError('ERR_INVALID_PARAMS', { path: '/plaintext', reason: `must be at most ${maxBytes} bytes for ${ref.keySpec} and ${algorithm}` });
    const key = this.#keys.encryptKey(ref, hash.name);
    return { ciphertext: new Uint8Array(await webcrypto.subtle.encrypt({ name: 'RSA-OAEP' }, key, new Uint8Array(plaintext))) };
  }

  /** Whether a signature is the key's. One of RSA has as many bytes as the modulus (RFC 8017 section 8.1.2 step 1): libcrypto takes a PSS one without its leading zero as well. */
  async verify(ref: MaterialRef, input: VerifyInput): Promise<boolean> {
    if (input.signature.length !== (modulusBytes[ref.keySpec] ?? input.signature.length)) return false;
    const signature = input.signatureFormat === 'P1363' ? p1363ToDer(input.signature) : input.signature;
    if (signature === undefined) return false;
    if (input.messageType === 'RAW') return await this.#verifyMessage(ref, { ...input, signature });
    return verifyDigest(this.#keys.evpKey(ref), evpSettings[input.algorithm], input.message, signature);
  }

  /** SPKI DER. */
  publicKey(ref: MaterialRef): Uint8Array {
    return this.#keys.publicKey(ref).export({ type: 'spki', format: 'der' });
  }

  drop(keyVersionId: string): void {
    this.#keys.drop(keyVersionId);
  }

  clear(): void {
    this.#keys.clear();
  }

  /** On the thread pool, but for P-256, which takes less time than the way there. */
  #verifyMessage(ref: MaterialRef, input: VerifyInput): boolean | Promise<boolean> {
    const key = this.#keys.verifyingKey(ref, input.algorithm);
    if (ref.keySpec === 'EC_P256') return verifyMessage('sha256', input.message, key, input.signature);
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    verifyMessage('sha256', input.message, key, input.signature, (error, isValid) => (error ? reject(error) : resolve(isValid)));
    return promise;
  }
}
