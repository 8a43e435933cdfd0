import { createHash, createHmac } from 'node:crypto';

const buckets = 256;
const sumBytes = 32;
const modulus = 1n << 256n;

/** What of a record counts in the head. */
export interface Counted {
  readonly kind: string;
  readonly id: string;
  readonly revision: bigint;
  readonly tag: Uint8Array;
}

const digestId = (kind: string, id: string): Buffer => createHash('sha256').update(`${kind}\0${id}`).digest();

/** The bucket of a record: the first byte of SHA-256(kind ‖ 0 ‖ id). */
export function bucketOf(kind: string, id: string): number {
  return digestId(kind, id).readUInt8();
}

/** SHA-256 over the keyslots in order of id; a slot added, dropped or changed gives another. */
export function hashKeyslots(keyslots: ReadonlyMap<string, string>): Buffer {
  const hash = createHash('sha256');
  for (const id of [...keyslots.keys()].sort()) hash.update(JSON.stringify([id, keyslots.get(id)]));
  return hash.digest();
}

const readSum = (sums: Buffer, bucket: number): bigint => BigInt(`0x${sums.toString('hex', bucket * sumBytes, (bucket + 1) * sumBytes)}`);

/**
 * What the vault must hold: count, revision, hash of the keyslots, and 256 sums over the records.
 * A sum is that of HMAC-SHA-256(kind, id, revision, tag) modulo 2^256, so that one change costs two additions.
 */
export class Head {
  revision = 0n;
  count = 0;
  keyslotsHash: Buffer = Buffer.alloc(sumBytes);
  #sums: Buffer = Buffer.alloc(buckets * sumBytes);
  readonly #key: Uint8Array;

  /** @param key - 32 bytes, derived from the root key for this purpose alone. */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** A copy to change before it is durable. */
  clone(): Head {
    const copy = new Head(this.#key);
    copy.revision = this.revision;
    copy.count = this.count;
    copy.keyslotsHash = this.keyslotsHash;
    copy.#sums = Buffer.from(this.#sums);
    return copy;
  }

  add(record: Counted): void {
    this.count += 1;
    this.#shift(record, 1n);
  }

  remove(record: Counted): void {
    this.count -= 1;
    this.#shift(record, -1n);
  }

  /** Buckets whose sums differ from those of `other`. */
  differingBuckets(other: Head): number[] {
    return Array.from({ length: buckets }, (_, bucket) => bucket).filter((bucket) => readSum(this.#sums, bucket) !== readSum(other.#sums, bucket));
  }

  /** u64 revision ‖ u32 count ‖ keyslots hash (32) ‖ 256 sums of 32 bytes, integers big-endian. */
  encode(): Buffer {
    const numbers = Buffer.alloc(12);
    numbers.writeBigUInt64BE(this.revision, 0);
    numbers.writeUInt32BE(this.count, 8);
    return Buffer.concat([numbers, this.keyslotsHash, this.#sums]);
  }

  static decode(key: Uint8Array, encoded: Buffer): Head {
    const head = new Head(key);
    head.revision = encoded.readBigUInt64BE(0);
    head.count = encoded.readUInt32BE(8);
    head.keyslotsHash = Buffer.from(encoded.subarray(12, 44));
    head.#sums = Buffer.from(encoded.subarray(44, 44 + buckets * sumBytes));
    return head;
  }

  #shift({ kind, id, revision, tag }: Counted, sign: bigint): void {
    const revisionBytes = Buffer.alloc(8);
    revisionBytes.writeBigUInt64BE(revision);
    const digest = digestId(kind, id);
    const value = BigInt(`0x${createHmac('sha256', this.#key).update(digest).update(revisionBytes).update(tag).digest('hex')}`);
    const bucket = digest.readUInt8();
    const sum = (((readSum(this.#sums, bucket) + sign * value) % modulus) + modulus) % modulus;
    this.#sums.write(sum.toString(16).padStart(2 * sumBytes, '0'), bucket * sumBytes, 'hex');
  }
}
