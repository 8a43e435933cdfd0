import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { SourceReader } from './source.ts';

/** Bytes of plaintext in every chunk but the last. */
export const chunkBytes = 65_536;
export const tagBytes = 16;
/** Bytes of the salt between header and payload. */
export const saltBytes = 16;

const cipherName = 'chacha20-poly1305';

/** The key of a payload: HKDF-SHA-256 of the file key (age-encryption.org/v1, Payload). */
function deriveKey(fileKey: Uint8Array, salt: Uint8Array): KeyObject {
  const bytes = new Uint8Array(hkdfSync('sha256', fileKey, salt, 'payload', 32));
  try {
    return createSecretKey(bytes); // node:crypto finds out that bytes are no key object by an exception, for each chunk
  } finally {
    bytes.fill(0);
  }
}

/** Nonce of a chunk: its number, 11 bytes big-endian, and 1 for the last chunk, else 0. A number that JavaScript counts exactly is petabytes away from its end. */
function makeNonce(number: number, isLast: boolean): Uint8Array {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(number), 3);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

/** Ciphertext and tag, each by itself: to join them takes as long as the cipher. */
function sealChunk(key: KeyObject, nonce: Uint8Array, plaintext: Uint8Array): Buffer[] {
  const cipher = createCipheriv(cipherName, key, nonce, { authTagLength: tagBytes });
  const ciphertext = cipher.update(plaintext);
  cipher.final(); // empty for a stream cipher
  return [ciphertext, cipher.getAuthTag()];
}

/** Answers the plaintext only when it is authentic. */
function openChunk(key: KeyObject, nonce: Uint8Array, sealed: Uint8Array): Buffer {
  const decipher = createDecipheriv(cipherName, key, nonce, { authTagLength: tagBytes });
  decipher.setAuthTag(sealed.subarray(-tagBytes));
  const plaintext = decipher.update(sealed.subarray(0, -tagBytes));
  decipher.final();
  return plaintext;
}

function tryChunk(key: KeyObject, number: number, isLast: boolean, sealed: Uint8Array): Buffer {
  const hint = 'The file was changed, or its end is missing.';
  if (sealed.length < tagBytes || (isLast && number > 0 && sealed.length === tagBytes)) throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint });
  try {
    return openChunk(key, makeNonce(number, isLast), sealed);
  } catch (cause) {
    throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint }, { cause });
  }
}

/** Pieces of one size, the last shorter or empty, each in the same memory: it is good until the next is asked for. */
async function* cutChunks(reader: SourceReader, size: number): AsyncGenerator<{ bytes: Uint8Array; number: number; isLast: boolean }, void, undefined> {
  let [held, next] = [Buffer.alloc(size), Buffer.alloc(size)];
  try {
    let length = await reader.fill(held);
    for (let number = 0; ; number += 1) {
      const nextLength = length < size ? 0 : await reader.fill(next); // whether it is the last is known only when nothing follows
      yield { bytes: held.subarray(0, length), number, isLast: nextLength === 0 };
      if (nextLength === 0) return;
      [held, next, length] = [next, held, nextLength];
    }
  } finally {
    held.fill(0); // plaintext, when it is encrypted
    next.fill(0);
  }
}

/** Encrypts what is left of a source into chunks of STREAM. The salt must be fresh. */
export async function* sealPayload(reader: SourceReader, fileKey: Uint8Array, salt: Uint8Array): AsyncGenerator<Buffer, void, undefined> {
  const key = deriveKey(fileKey, salt);
  for await (const { bytes, number, isLast } of cutChunks(reader, chunkBytes)) yield* sealChunk(key, makeNonce(number, isLast), bytes);
}

/** Decrypts chunks of STREAM; what it yields is authentic, and complete when it ends. @throws AgentError `ERR_INVALID_CIPHERTEXT`. */
export async function* openPayload(reader: SourceReader, fileKey: Uint8Array): AsyncGenerator<Buffer, void, undefined> {
  const salt = Buffer.alloc(saltBytes);
  if ((await reader.fill(salt)) < saltBytes) throw new AgentError('ERR_INVALID_CIPHERTEXT', { hint: 'The file ends right after its header.' });
  const key = deriveKey(fileKey, salt);
  for await (const { bytes, number, isLast } of cutChunks(reader, chunkBytes + tagBytes)) yield tryChunk(key, number, isLast, bytes);
}
