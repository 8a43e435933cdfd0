import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

const saltBytes = 32;
const tagBytes = 16;

/** Each seal has a key of its own, so the IV need not vary (NIST SP 800-38D section 8.2: never the same IV twice under one key). */
const iv = Buffer.alloc(12);

/** HKDF with SHA-256 (RFC 5869) from a 32-byte key to another, for one purpose. */
export function deriveKey(key: Uint8Array, purpose: string, salt: Uint8Array = new Uint8Array()): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, `kms-agent ${purpose}`, 32));
}

/** Something sealed: AES-256-GCM ciphertext ‖ 16-byte tag, under HKDF(key, salt). */
export interface Sealed {
  readonly salt: Uint8Array;
  readonly sealed: Uint8Array;
}

/** Seals `plaintext` under a fresh key derived from `key`; `aad` must be given again to open it. */
export function seal(key: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Sealed {
  const salt = randomBytes(saltBytes);
  const sealKey = deriveKey(key, 'seal', salt);
  const cipher = createCipheriv('aes-256-gcm', sealKey, iv, { authTagLength: tagBytes });
  cipher.setAAD(aad);
  const sealed = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  sealKey.fill(0);
  return { salt, sealed };
}

/** Opens what seal made; undefined for another key, other `aad`, or a changed byte. */
export function unseal(key: Uint8Array, aad: Uint8Array, { salt, sealed }: Sealed): Buffer | undefined {
  if (sealed.length < tagBytes || salt.length !== saltBytes) return undefined;
  const sealKey = deriveKey(key, 'seal', salt);
  const decipher = createDecipheriv('aes-256-gcm', sealKey, iv, { authTagLength: tagBytes });
  sealKey.fill(0);
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plaintext = decipher.update(sealed.subarray(0, sealed.length - tagBytes));
  try {
    decipher.final();
    return plaintext;
  } catch {
    plaintext.fill(0); // not authentic: the one thing that final() can say
    return undefined;
  }
}

/** The tag at the end of something sealed. */
export const tagOf = (sealed: Uint8Array): Uint8Array => sealed.subarray(sealed.length - tagBytes);

/** AAD of a record: `kms-agent record 1` ‖ vault id (16) ‖ u8 length ‖ kind ‖ u16 length ‖ id ‖ u64 revision, integers big-endian. */
export function recordAad(vaultId: Uint8Array, kind: string, id: string, revision: bigint): Buffer {
  const kindBytes = Buffer.from(kind);
  const idBytes = Buffer.from(id);
  const numbers = Buffer.alloc(11);
  numbers.writeUInt8(kindBytes.length, 0);
  numbers.writeUInt16BE(idBytes.length, 1);
  numbers.writeBigUInt64BE(revision, 3);
  return Buffer.concat([Buffer.from('kms-agent record 1'), vaultId, numbers.subarray(0, 1), kindBytes, numbers.subarray(1, 3), idBytes, numbers.subarray(3)]);
}
