import { createPrivateKey, createPublicKey, type KeyObject, type webcrypto } from 'node:crypto';
import type { SigningAlgorithm } from '@kms-agent/protocol';
import { EvpKey } from '../../os/evp.ts';
import type { MaterialRef } from '../provider.ts';
import { withPss } from './pss-key.ts';
import { Recent } from './recent.ts';

/** Forms of one public key, each made when it is first asked for. */
interface Parsed {
  readonly publicKey: KeyObject;
  pss?: KeyObject;
  evp?: EvpKey;
  readonly encryptKeys: Map<string, webcrypto.CryptoKey>;
}

/** Parsed public keys that are kept; they take no secure heap. */
const maxParsed = 4096;

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Parsed public keys, the most recently used ones. What verifies and encrypts needs no private key in memory. */
export class PublicKeys {
  readonly #parsed = new Recent<Parsed>();

  publicKey(ref: MaterialRef): KeyObject {
    return this.#find(ref).publicKey;
  }

  /** For verifying a message: with its padding, where the algorithm has one of its own. */
  verifyingKey(ref: MaterialRef, algorithm: SigningAlgorithm): KeyObject {
    const parsed = this.#find(ref);
    if (algorithm !== 'RSA_PSS_SHA_256') return parsed.publicKey;
    parsed.pss ??= withPss(readSpki(parsed.publicKey.export({ type: 'spki', format: 'der' }))); // not of the material once more
    return parsed.pss;
  }

  /** For verifying a given digest. */
  evpKey(ref: MaterialRef): EvpKey {
    const parsed = this.#find(ref);
    parsed.evp ??= EvpKey.fromPublic(parsed.publicKey.export({ type: 'spki', format: 'der' }));
    return parsed.evp;
  }

  /** For RSAES-OAEP off the event loop, which only Web Crypto does. */
  encryptKey(ref: MaterialRef, hash: 'SHA-256' | 'SHA-1'): webcrypto.CryptoKey {
    const { encryptKeys, publicKey } = this.#find(ref);
    const known = encryptKeys.get(hash);
    if (known) return known;
    const made = publicKey.toCryptoKey({ name: 'RSA-OAEP', hash }, true, ['encrypt']);
    encryptKeys.set(hash, made);
    return made;
  }

  clear(): void {
    for (const id of this.#parsed.ids()) this.drop(id);
  }

  drop(keyVersionId: string): void {
    this.#parsed.remove(keyVersionId)?.evp?.free();
  }

  #find(ref: MaterialRef): Parsed {
    const known = this.#parsed.get(ref.keyVersionId);
    if (known) return known;
    const [oldest] = this.#parsed.ids();
    if (oldest !== undefined && this.#parsed.size >= maxParsed) this.drop(oldest);
    return this.#parsed.add(ref.keyVersionId, { publicKey: parsePublicKey(ref), encryptKeys: new Map() });
  }
}

const readSpki = (der: Uint8Array): KeyObject => createPublicKey({ key: asBuffer(der), format: 'der', type: 'spki' });

function parsePublicKey({ publicKey, material }: MaterialRef): KeyObject {
  if (publicKey) return readSpki(publicKey);
  return createPublicKey(createPrivateKey({ key: asBuffer(material), format: 'der', type: 'pkcs8' }));
}
