import { createPrivateKey, type KeyObject, secureHeapUsed, type webcrypto } from 'node:crypto';
import type { SigningAlgorithm } from '@kms-agent/protocol';
import { EvpKey } from '../../os/evp.ts';
import { collectKeyObjects } from '../../os/garbage.ts';
import type { MaterialRef } from '../provider.ts';
import { requireMaterial } from './destroyed.ts';
import { withPss } from './pss-key.ts';
import { Recent } from './recent.ts';

/** Forms of one private key, each made when it is first asked for. */
interface Parsed {
  readonly privateKey: KeyObject;
  pss?: KeyObject;
  readonly bytes: number;
  evp?: EvpKey;
  readonly decryptKeys: Map<string, webcrypto.CryptoKey>;
}

/** Bytes of secure heap that all parsed forms of a key may take: seen 1.4 KiB for one form of RSA_2048, allowed for four. */
const parsedBytes: Record<string, number> = { RSA_2048: 6144, RSA_3072: 8872, EC_P256: 768, EC_P256K: 768 };

/** Share of the secure heap that cached keys may take; the rest is for operations and for what awaits collection. */
const cacheShare = 0.35;
/** Share in use at which the oldest half is dropped and collected: a full secure heap fails every private operation. */
const crowdedShare = 0.75;
/** Bytes to plan with where there is no secure heap. */
const heapBytesWithoutSecureHeap = 4_194_304;

/** Parsed private keys, the most recently used ones: parsing costs more than an EC signature. */
export class PrivateKeys {
  readonly #parsed = new Recent<Parsed>();
  #bytes = 0;

  /** For signing a message: with its padding, where the algorithm has one of its own. */
  signingKey(ref: MaterialRef, algorithm: SigningAlgorithm): KeyObject {
    const parsed = this.#find(ref);
    if (algorithm !== 'RSA_PSS_SHA_256') return parsed.privateKey;
    parsed.pss ??= withPss(parsePrivateKey(ref));
    return parsed.pss;
  }

  /** For signing a given digest. */
  evpKey(ref: MaterialRef): EvpKey {
    const parsed = this.#find(ref);
    parsed.evp ??= EvpKey.fromPrivate(ref.material);
    return parsed.evp;
  }

  /** For RSAES-OAEP off the event loop, which only Web Crypto does. */
  decryptKey(ref: MaterialRef, hash: 'SHA-256' | 'SHA-1'): webcrypto.CryptoKey {
    const { decryptKeys, privateKey } = this.#find(ref);
    const known = decryptKeys.get(hash);
    if (known) return known;
    const made = privateKey.toCryptoKey({ name: 'RSA-OAEP', hash }, false, ['decrypt']);
    decryptKeys.set(hash, made);
    return made;
  }

  /** Drops every key; a collection then frees what they held. */
  clear(): void {
    for (const id of this.#parsed.ids()) this.drop(id);
  }

  #find(ref: MaterialRef): Parsed {
    const known = this.#parsed.get(ref.keyVersionId);
    if (known) return known;
    this.#makeRoom(parsedBytes[ref.keySpec] ?? 0);
    const parsed: Parsed = { privateKey: parsePrivateKey(ref), bytes: parsedBytes[ref.keySpec] ?? 0, decryptKeys: new Map() };
    this.#bytes += parsed.bytes;
    return this.#parsed.add(ref.keyVersionId, parsed);
  }

  #makeRoom(bytes: number): void {
    const heap = secureHeapUsed();
    const limit = (heap.total || heapBytesWithoutSecureHeap) * cacheShare;
    const crowded = heap.total > 0 && heap.used / heap.total > crowdedShare;
    const keep = crowded ? this.#bytes / 2 : limit - bytes;
    for (const id of this.#parsed.ids()) {
      if (this.#bytes <= keep) break;
      this.drop(id);
    }
    if (crowded) collectKeyObjects();
  }

  /** @returns whether there was one. */
  drop(keyVersionId: string): boolean {
    const parsed = this.#parsed.remove(keyVersionId);
    if (!parsed) return false;
    parsed.evp?.free();
    this.#bytes -= parsed.bytes;
    return true;
  }
}

function parsePrivateKey(ref: MaterialRef): KeyObject {
  const { buffer, byteOffset, byteLength } = requireMaterial(ref.material);
  return createPrivateKey({ key: Buffer.from(buffer, byteOffset, byteLength), format: 'der', type: 'pkcs8' });
}
