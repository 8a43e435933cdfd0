import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomFillSync } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { DecryptInput, EncryptInput, EncryptOutput, MaterialRef } from '../provider.ts';
import { requireMaterial } from './destroyed.ts';

const ivBytes = 12;
const tagBytes = 16;

/** AES-GCM (NIST SP 800-38D) with 96-bit random IVs and 128-bit tags, and nothing else. */
export class Symmetric {
  readonly #keys = new Map<string, KeyObject>();
  readonly #ivs = Buffer.alloc(ivBytes * 512);
  #nextIv = this.#ivs.length;

  encrypt(ref: MaterialRef, { plaintext, aad }: EncryptInput): EncryptOutput {
    const iv = this.#takeIv();
    const cipher = createCipheriv('aes-256-gcm', this.#key(ref), iv, { authTagLength: tagBytes });
    if (aad) cipher.setAAD(aad);
    const head = cipher.update(plaintext);
    cipher.final();
    const ciphertext = new Uint8Array(head.length + tagBytes);
    ciphertext.set(head);
    ciphertext.set(cipher.getAuthTag(), head.length);
    return { ciphertext, iv };
  }

  /** @throws AgentError `ERR_INVALID_CIPHERTEXT`: no byte of plaintext leaves before the tag is checked. */
  decrypt(ref: MaterialRef, { ciphertext, iv, aad }: DecryptInput): Uint8Array {
    if (iv?.length !== ivBytes || ciphertext.length < tagBytes) throw new AgentError('ERR_INVALID_CIPHERTEXT');
    const decipher = createDecipheriv('aes-256-gcm', this.#key(ref), iv, { authTagLength: tagBytes });
    if (aad) decipher.setAAD(aad);
    decipher.setAuthTag(ciphertext.subarray(ciphertext.length - tagBytes));
    const plaintext = decipher.update(ciphertext.subarray(0, ciphertext.length - tagBytes));
    try {
      decipher.final();
    } catch {
      plaintext.fill(0); // final() throws for one reason: the tag is wrong
      throw new AgentError('ERR_INVALID_CIPHERTEXT');
    }
    return plaintext;
  }

  /** @returns whether there was one. */
  drop(keyVersionId: string): boolean {
    return this.#keys.delete(keyVersionId);
  }

  clear(): void {
    this.#keys.clear();
  }

  #key({ keyVersionId, material }: MaterialRef): KeyObject {
    const known = this.#keys.get(keyVersionId);
    if (known) return known;
    const key = createSecretKey(requireMaterial(material));
    this.#keys.set(keyVersionId, key);
    return key;
  }

  /** One call to the random generator fills 512 of them; each is copied out and used once. */
  #takeIv(): Uint8Array<ArrayBuffer> {
    if (this.#nextIv === this.#ivs.length) {
      randomFillSync(this.#ivs);
      this.#nextIv = 0;
    }
    const iv = new Uint8Array(this.#ivs.subarray(this.#nextIv, this.#nextIv + ivBytes));
    this.#nextIv += ivBytes;
    return iv;
  }
}
