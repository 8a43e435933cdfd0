import { type KeyObject, sign as signMessage, webcrypto } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import { signDigest } from '../../os/evp.ts';
import type { DecryptInput, MaterialRef, SignInput } from '../provider.ts';
import { derToP1363 } from './ecdsa-format.ts';
import { PrivateKeys } from './private-keys.ts';
import { evpSettings, modulusBytes, oaepHash } from './public-operations.ts';

/** Most bytes of an ECDSA signature in DER on a 256-bit curve. */
const maxEcdsaBytes = 72;

/** Signatures of P-256 on the pool from which on the event loop makes some too: twice the threads that libuv's pool has by default. */
const poolBacklog = 8;

function signOnPool(message: Uint8Array, key: KeyObject, onEnd: () => void): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  signMessage('sha256', message, key, (error, signature) => {
    onEnd();
    if (error) reject(error);
    else resolve(signature);
  });
  return promise;
}

/**
 * What needs a private key: RSA and ECDSA with OpenSSL, on the thread pool. A signature of P-256 takes less time than the way there and back, but
 * as much as everything else that a request costs: one that is alone is made at once, those beside it on other cores; beside what takes long the first of each turn does not wait for that.
 */
export class PrivateOperations {
  readonly #keys = new PrivateKeys();
  #hasSigned = false;
  /** Signatures of P-256 that are on the pool. */
  #onPool = 0;
  /** Slow work with private keys that is there: RSA and the other curve. */
  #slow = 0;

  /** RFC 8017 section 7.1.2. @throws AgentError `ERR_INVALID_CIPHERTEXT`, one answer for all causes. */
  async decrypt(ref: MaterialRef, { algorithm, ciphertext }: DecryptInput): Promise<Uint8Array> {
    const key = this.#keys.decryptKey(ref, oaepHash(algorithm).name);
    try {
      return new Uint8Array(await this.#slowly(webcrypto.subtle.decrypt({ name: 'RSA-OAEP' }, key, new Uint8Array(ciphertext))));
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === 'OperationError') throw new AgentError('ERR_INVALID_CIPHERTEXT');
      throw cause;
    }
  }

  async sign(ref: MaterialRef, input: SignInput): Promise<Uint8Array> {
    if (input.messageType === 'DIGEST') return await this.#signDigest(ref, input);
    // ECDSA as DER: node:crypto makes it in two thirds of the time of the other form.
    const signature = await this.#signMessage(ref, input);
    return input.signatureFormat === 'P1363' ? derToP1363(signature) : signature;
  }

  #signMessage(ref: MaterialRef, input: SignInput): Uint8Array | Promise<Uint8Array> {
    const key = this.#keys.signingKey(ref, input.algorithm);
    const isQuick = ref.keySpec === 'EC_P256';
    if (isQuick && this.#isQuickerHere()) return signMessage('sha256', input.message, key);
    const work = signOnPool(input.message, key, () => this.#count(isQuick, -1));
    this.#count(isQuick, 1);
    return work;
  }

  /** Of several in one turn of the event loop only the first: where something slow is on the pool, no other of P-256, or more of them than it can do at once. */
  #isQuickerHere(): boolean {
    if (this.#hasSigned || (this.#slow === 0 && this.#onPool > 0 && this.#onPool < poolBacklog)) return false;
    this.#hasSigned = true;
    setImmediate(() => {
      this.#hasSigned = false;
    });
    return true;
  }

  #count(isQuick: boolean, change: 1 | -1): void {
    if (isQuick) this.#onPool += change;
    else this.#slow += change;
  }

  /** Counts work on the pool that a signature of P-256 should not wait for. */
  async #slowly<T>(work: Promise<T>): Promise<T> {
    this.#slow += 1;
    try {
      return await work;
    } finally {
      this.#slow -= 1;
    }
  }

  /** @returns whether there was one. */
  drop(keyVersionId: string): boolean {
    return this.#keys.drop(keyVersionId);
  }

  clear(): void {
    this.#keys.clear();
  }

  async #signDigest(ref: MaterialRef, { algorithm, message, signatureFormat }: SignInput): Promise<Uint8Array> {
    const work = signDigest(this.#keys.evpKey(ref), evpSettings[algorithm], message, modulusBytes[ref.keySpec] ?? maxEcdsaBytes);
    const signature = await (ref.keySpec === 'EC_P256' ? work : this.#slowly(work));
    return algorithm === 'ECDSA_SHA_256' && signatureFormat === 'P1363' ? derToP1363(signature) : signature;
  }
}
