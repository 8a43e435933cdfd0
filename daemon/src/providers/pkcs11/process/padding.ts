import { createHash } from 'node:crypto';
import type { EncryptionAlgorithm } from '@kms-agent/protocol';

const blockBytes = 16;

/** PKCS #7 (RFC 5652 section 6.3) to a multiple of 16 bytes. */
export function addPkcs7(data: Uint8Array): Uint8Array {
  const count = blockBytes - (data.length % blockBytes);
  return Buffer.concat([data, Buffer.alloc(count, count)]);
}

/** Undefined when the padding is wrong. Every byte of the last block is looked at, whatever it is. */
export function removePkcs7(data: Uint8Array): Uint8Array | undefined {
  const count = data.at(-1) ?? 0;
  let wrong = count === 0 || count > blockBytes || data.length % blockBytes !== 0 ? 1 : 0;
  for (let index = 1; index <= blockBytes; index += 1) {
    const isPadding = index <= count ? 0xff : 0;
    wrong |= isPadding & ((data.at(-index) ?? 0) ^ count);
  }
  return wrong === 0 ? data.subarray(0, data.length - count) : undefined;
}

/** MGF1 (RFC 8017 appendix B.2.1). */
function mgf1(hash: string, seed: Uint8Array, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let counter = 0, made = 0; made < length; counter += 1) {
    const number = Buffer.alloc(4);
    number.writeUInt32BE(counter);
    const part = createHash(hash).update(seed).update(number).digest();
    parts.push(part);
    made += part.length;
  }
  return Buffer.concat(parts).subarray(0, length);
}

const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, index) => byte ^ (b[index] ?? 0));

/** 0xff when equal, 0 when not, without a branch. */
const same = (a: number, b: number): number => (((a ^ b) - 1) >> 8) & 0xff;

/**
 * EME-OAEP decoding with an empty label (RFC 8017 section 7.1.2, step 3), of what a private key decrypted without padding.
 * What is wrong is gathered and looked at once, at the end: which of it was wrong must not be seen from outside (Manger, CRYPTO 2001).
 * @returns undefined for whatever is no padding.
 */
export function removeOaep(algorithm: EncryptionAlgorithm, encoded: Uint8Array): Uint8Array | undefined {
  const hash = algorithm === 'RSAES_OAEP_SHA_1' ? 'sha1' : 'sha256';
  const labelHash = createHash(hash).digest();
  const hashBytes = labelHash.length;
  const maskedSeed = encoded.subarray(1, 1 + hashBytes);
  const maskedData = encoded.subarray(1 + hashBytes);
  const seed = xor(maskedSeed, mgf1(hash, maskedData, hashBytes));
  const data = xor(maskedData, mgf1(hash, seed, maskedData.length));
  let wrong = encoded[0] ?? 1;
  for (let index = 0; index < hashBytes; index += 1) wrong |= (data[index] ?? 0) ^ (labelHash[index] ?? 0);
  let start = 0;
  let searching = 0xff;
  for (let index = hashBytes; index < data.length; index += 1) {
    const byte = data[index] ?? 0;
    const isSeparator = searching & same(byte, 1);
    start |= (index + 1) & -(isSeparator & 1);
    wrong |= searching & ~isSeparator & ~same(byte, 0) & 0xff;
    searching &= ~isSeparator;
  }
  wrong |= searching & 0xff;
  const message = Buffer.from(data.subarray(start));
  data.fill(0);
  return wrong === 0 ? message : undefined;
}
