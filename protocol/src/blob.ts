import type { BindableFact, EncryptionAlgorithm } from './names.ts';

/** `kms` in ASCII, which begins every advance blob; raw operations refuse an aad that begins with it. */
export const blobMagic: readonly number[] = [0x6b, 0x6d, 0x73];

const format = 1;
const algorithmCodes = new Map<number, EncryptionAlgorithm>([[1, 'AES_GCM']]);
const headerBytes = 22;
const ivBytes = 12;
const tagBytes = 16;

/** Which facts about the caller the key's policy put under the seal: bit 0 user, bit 1 unit, bit 2 host. */
export type Bound = number;
const boundMask = 0b111;

/** An advance blob, format 1, taken apart; the arrays are views into it. */
export interface AdvanceBlob {
  readonly format: 1;
  readonly algorithm: EncryptionAlgorithm;
  readonly bound: Bound;
  readonly keyVersionId: string;
  /** The first 22 bytes, which are authenticated. */
  readonly header: Uint8Array;
  readonly iv: Uint8Array;
  /** Ciphertext and 16-byte tag. */
  readonly ciphertext: Uint8Array;
}

/** 16 bytes of a UUID (RFC 9562 section 4). */
function encodeUuid(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

function decodeUuid(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Whether `bytes` begin like an advance blob. */
export function beginsLikeBlob(bytes: Uint8Array): boolean {
  return blobMagic.every((value, index) => bytes[index] === value);
}

/** The 22 authenticated bytes: magic, format, algorithm, bound, key version id. */
export function encodeBlobHeader(keyVersionId: string, bound: Bound = 0): Buffer {
  return Buffer.concat([Buffer.from([...blobMagic, format, 1, bound]), encodeUuid(keyVersionId)]);
}

/** Facts about the caller as they stand under the seal of a bound blob. */
export type BoundFacts = Readonly<Partial<Record<BindableFact, string | number>>>;

/**
 * What stands between the header and the caller's aad in the authenticated data of a bound blob: u16 length, big-endian, and canonical JSON:
 * no spaces, the names in the order host, unit, user. `host` is the text of /etc/machine-id, `unit` the name of a system unit or
 * `user@UID.service/NAME` for one of a user's own, `user` the uid as a number.
 */
export function encodeBoundFacts(facts: BoundFacts): Uint8Array {
  const json = Buffer.from(JSON.stringify(Object.fromEntries(Object.entries(facts).sort(([a], [b]) => (a < b ? -1 : 1)))));
  const length = Buffer.alloc(2);
  length.writeUInt16BE(json.length);
  return Buffer.concat([length, json]);
}

/** Puts an advance blob together: header ‖ IV (12) ‖ ciphertext ‖ tag (16). */
export function encodeBlob(header: Uint8Array, iv: Uint8Array, ciphertext: Uint8Array): Uint8Array<ArrayBuffer> {
  const blob = new Uint8Array(header.length + iv.length + ciphertext.length);
  blob.set(header, 0);
  blob.set(iv, header.length);
  blob.set(ciphertext, header.length + iv.length);
  return blob;
}

/** Takes an advance blob apart; undefined for anything that is not one of format 1. Says nothing about its authenticity. */
export function decodeBlob(blob: Uint8Array): AdvanceBlob | undefined {
  if (blob.length < headerBytes + ivBytes + tagBytes || !beginsLikeBlob(blob) || blob[3] !== format) return undefined;
  const algorithm = algorithmCodes.get(blob[4] ?? 0);
  const bound = blob[5] ?? 0;
  if (algorithm === undefined || (bound & ~boundMask) !== 0) return undefined;
  return {
    format,
    algorithm,
    bound,
    keyVersionId: decodeUuid(blob.subarray(6, headerBytes)),
    header: blob.subarray(0, headerBytes),
    iv: blob.subarray(headerBytes, headerBytes + ivBytes),
    ciphertext: blob.subarray(headerBytes + ivBytes),
  };
}

/** What a blob says of itself, without any key. */
export interface BlobInfo {
  readonly format: 1;
  readonly algorithm: EncryptionAlgorithm;
  readonly keyVersionId: string;
}

/** Reads an advance blob's header; undefined if it is none. The claims are proven only when it is decrypted. */
export function parseBlob(blob: Uint8Array): BlobInfo | undefined {
  const parsed = decodeBlob(blob);
  return parsed && { format: parsed.format, algorithm: parsed.algorithm, keyVersionId: parsed.keyVersionId };
}
