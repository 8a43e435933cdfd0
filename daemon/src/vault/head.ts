import { createHash, hash } from 'node:crypto';

const buckets = 256;
const sumBytes = 32;
const limbs = sumBytes / 4;

/** What of a record counts in the head. */
export interface Counted {
  readonly kind: string;
  readonly id: string;
  readonly revision: bigint;
  readonly tag: Uint8Array;
}

/** Its first byte is the bucket of the record. */
const digestId = (kind: string, id: string): Buffer => hash('sha256', `${kind}\0${id}`, 'buffer');

/** SHA-256 over the keyslots in order of id; a slot added, dropped or changed gives another. */
export function hashKeyslots(keyslots: ReadonlyMap<string, string>): Buffer {
  const digest = createHash('sha256');
  for (const id of [...keyslots.keys()].sort()) digest.update(JSON.stringify([id, keyslots.get(id)]));
  return digest.digest();
}

/** Input of the keyed hash: key (32) ‖ SHA-256 of kind and id (32) ‖ u64 revision ‖ tag (16). */
const inputBytes = 88;
const revisionAt = 64;
const tagAt = 72;

/** The key of the head's sums, with room behind it for what is hashed: one buffer for all heads of an open vault, so that wiping it wipes every copy. */
export type HeadKey = Buffer & { readonly length: typeof inputBytes };

/** @param key - 32 bytes, derived from the root key for this purpose alone. */
export function makeHeadKey(key: Uint8Array): HeadKey {
  const headKey = Buffer.alloc(inputBytes) as Buffer as HeadKey; // of this length
  headKey.set(key);
  return headKey;
}

/**
 * What the vault must hold: count, revision, hash of the keyslots, and 256 sums over the records.
 * A sum is that of SHA-256(key ‖ SHA-256(kind ‖ 0 ‖ id) ‖ revision ‖ tag) modulo 2^256, so that one change costs two additions.
 * The hashed text has one length and the hash is never shown, so that the key in front makes it a pseudo-random function without HMAC's second pass.
 */
export class Head {
  revision = 0n;
  count = 0;
  keyslotsHash: Buffer = Buffer.alloc(sumBytes);
  /** Each sum as eight limbs of 32 bits, the lowest first. */
  #sums = new Uint32Array(buckets * limbs);
  readonly #input: HeadKey;

  constructor(key: HeadKey) {
    this.#input = key;
  }

  /** A copy to change before it is durable. */
  clone(): Head {
    const copy = new Head(this.#input);
    copy.revision = this.revision;
    copy.count = this.count;
    copy.keyslotsHash = this.keyslotsHash;
    copy.#sums = this.#sums.slice();
    return copy;
  }

  add(record: Counted): void {
    this.count += 1;
    const { value, first } = this.#digest(record);
    let carry = 0;
    for (let limb = 0; limb < limbs; limb += 1) {
      const sum = (this.#sums[first + limb] ?? 0) + value.readUInt32BE(sumBytes - 4 - 4 * limb) + carry;
      this.#sums[first + limb] = sum; // the array keeps 32 bits
      carry = sum > 0xffff_ffff ? 1 : 0;
    }
  }

  remove(record: Counted): void {
    this.count -= 1;
    const { value, first } = this.#digest(record);
    let borrow = 0;
    for (let limb = 0; limb < limbs; limb += 1) {
      const difference = (this.#sums[first + limb] ?? 0) - value.readUInt32BE(sumBytes - 4 - 4 * limb) - borrow;
      this.#sums[first + limb] = difference;
      borrow = difference < 0 ? 1 : 0;
    }
  }

  /** Buckets whose sums differ from those of `other`. */
  differingBuckets(other: Head): number[] {
    const differs = (bucket: number): boolean => {
      for (let at = bucket * limbs; at < (bucket + 1) * limbs; at += 1) if (this.#sums[at] !== other.#sums[at]) return true;
      return false;
    };
    return Array.from({ length: buckets }, (_, bucket) => bucket).filter(differs);
  }

  /** u64 revision ‖ u32 count ‖ keyslots hash (32) ‖ 256 sums of 32 bytes, integers big-endian. */
  encode(): Buffer {
    const encoded = Buffer.alloc(12 + sumBytes + buckets * sumBytes);
    encoded.writeBigUInt64BE(this.revision, 0);
    encoded.writeUInt32BE(this.count, 8);
    this.keyslotsHash.copy(encoded, 12);
    for (const [at, limb] of this.#sums.entries()) encoded.writeUInt32BE(limb, limbOffset(at));
    return encoded;
  }

  static decode(key: HeadKey, encoded: Buffer): Head {
    const head = new Head(key);
    head.revision = encoded.readBigUInt64BE(0);
    head.count = encoded.readUInt32BE(8);
    head.keyslotsHash = Buffer.from(encoded.subarray(12, 12 + sumBytes));
    for (let at = 0; at < head.#sums.length; at += 1) head.#sums[at] = encoded.readUInt32BE(limbOffset(at));
    return head;
  }

  #digest({ kind, id, revision, tag }: Counted): { value: Buffer; first: number } {
    const digest = digestId(kind, id);
    digest.copy(this.#input, sumBytes);
    this.#input.writeBigUInt64BE(revision, revisionAt);
    this.#input.set(tag, tagAt);
    return { value: hash('sha256', this.#input, 'buffer'), first: digest.readUInt8() * limbs };
  }
}

/** Where a limb stands in the encoded form, whose sums are big-endian. */
function limbOffset(at: number): number {
  const bucket = Math.floor(at / limbs);
  return 12 + sumBytes + bucket * sumBytes + (limbs - 1 - (at % limbs)) * 4;
}
