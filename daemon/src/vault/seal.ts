import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

const saltBytes = 32;
const tagBytes = 16;

/** Each seal has a key of its own, so the IV need not vary (NIST SP 800-38D section 8.2: never the same IV twice under one key). */
const iv = Buffer.alloc(12);

/** A 32-byte key; as a KeyObject it costs half the time where it is used again and again. */
export type SealingKey = Uint8Array | KeyObject;

/** HKDF with SHA-256 (RFC 5869) from a 32-byte key to another, for one purpose. */
export function deriveKey(key: SealingKey, purpose: string, salt: Uint8Array = new Uint8Array()): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, `kms-agent ${purpose}`, 32));
}

const sealInfo = Buffer.from('kms-agent seal');
const firstBlock = Buffer.from([1]);

/**
 * The key of one seal: HKDF-Expand (RFC 5869 section 2.3) of `key` with info `kms-agent seal` ‖ salt. `key` is pseudo-random already, so that
 * Extract can be left out (section 3.3), which halves what an unlock of very many records costs. Made a KeyObject before it meets a cipher:
 * Node takes three times as long when it is handed the bytes.
 */
function deriveSealKey(key: SealingKey, salt: Uint8Array): KeyObject {
  const bytes = createHmac('sha256', key).update(sealInfo).update(salt).update(firstBlock).digest();
  const sealKey = createSecretKey(bytes);
  bytes.fill(0);
  return sealKey;
}

/**
 * Seals `plaintext` under a fresh key derived from `key`; `aad` must be given again to open it.
 * @returns 32-byte salt ‖ AES-256-GCM ciphertext ‖ 16-byte tag.
 */
export function seal(key: SealingKey, aad: Uint8Array, plaintext: Uint8Array): Buffer {
  const salt = randomBytes(saltBytes);
  const cipher = createCipheriv('aes-256-gcm', deriveSealKey(key, salt), iv, { authTagLength: tagBytes });
  cipher.setAAD(aad);
  return Buffer.concat([salt, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** Opens what seal made; undefined for another key, other `aad`, or a changed byte. */
export function unseal(key: SealingKey, aad: Uint8Array, sealed: Uint8Array): Buffer | undefined {
  if (sealed.length < saltBytes + tagBytes) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', deriveSealKey(key, sealed.subarray(0, saltBytes)), iv, { authTagLength: tagBytes });
  decipher.setAAD(aad);
  decipher.setAuthTag(tagOf(sealed));
  const plaintext = decipher.update(sealed.subarray(saltBytes, sealed.length - tagBytes));
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

const recordPrefix = 'kms-agent record 1';

/** AAD of a record: `kms-agent record 1` ‖ vault id (16) ‖ u8 length ‖ kind ‖ u16 length ‖ id ‖ u64 revision, integers big-endian. */
export function recordAad(vaultId: Uint8Array, kind: string, id: string, revision: bigint): Buffer {
  const [kindBytes, idBytes] = [Buffer.byteLength(kind), Buffer.byteLength(id)];
  const aad = Buffer.allocUnsafe(recordPrefix.length + vaultId.length + 11 + kindBytes + idBytes); // every byte is written
  aad.write(recordPrefix);
  aad.set(vaultId, recordPrefix.length);
  let offset = aad.writeUInt8(kindBytes, recordPrefix.length + vaultId.length);
  offset = aad.writeUInt16BE(idBytes, offset + aad.write(kind, offset));
  aad.writeBigUInt64BE(revision, offset + aad.write(id, offset));
  return aad;
}
