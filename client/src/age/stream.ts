import { randomBytes } from 'node:crypto';
import type { AgentClient } from '../client.ts';
import { type AgentKeyOptions, makeHeader, openHeader } from './header.ts';
import { openPayload, saltBytes, sealPayload } from './payload.ts';
import { type ByteSource, SourceReader } from './source.ts';

/** How something is encrypted. */
export interface EncryptStreamOptions extends AgentKeyOptions {
  /** Others who may open it with the `age` program and without the agent: `age1…`, for example that of a key in a safe. */
  readonly recipients?: readonly string[];
}

/** How something is decrypted; with `keyId` only by that key. */
export type DecryptStreamOptions = AgentKeyOptions;

/**
 * Encrypts a stream of any length into the format of age. Holds some chunks of 64 KiB, whatever the length.
 *
 * @param source - a Node stream, a web ReadableStream, or any asynchronous series of bytes.
 * @param options - `keyId`: a symmetric key (default: the default key); `recipients`: see {@link EncryptStreamOptions}; `signal` and `timeoutMs` bound the call to the agent.
 * @returns the encrypted bytes piece by piece, for `for await`, `pipeline` or `Readable.from`.
 * @throws AgentError as advanceEncrypt; TypeError for a recipient that is none; what the source throws.
 * Access: `advanceEncrypt`. Costs one call to the agent.
 */
export async function* encryptStream(
  client: AgentClient,
  source: ByteSource,
  { recipients = [], ...options }: EncryptStreamOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  await using reader = new SourceReader(source);
  const { header, fileKey } = await makeHeader(client, recipients, options);
  try {
    const salt = randomBytes(saltBytes);
    yield Buffer.concat([header, salt]);
    yield* sealPayload(reader, fileKey, salt);
  } finally {
    fileKey.fill(0);
  }
}

/**
 * Decrypts what {@link encryptStream} or `kms encrypt-file` made. Every piece it yields is authentic, but only its end says that nothing is missing:
 * do not act on a part before that.
 *
 * @param source - as of encryptStream.
 * @returns the plaintext piece by piece.
 * @throws AgentError `ERR_INVALID_CIPHERTEXT` for what is no such file, was changed, reordered or cut off, or is for another agent or key;
 * as advanceDecrypt otherwise.
 * Access: `advanceDecrypt`. Costs one call to the agent for each stanza of an agent, which is one.
 */
export async function* decryptStream(client: AgentClient, source: ByteSource, options: DecryptStreamOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
  await using reader = new SourceReader(source);
  const fileKey = await openHeader(client, await reader.readHeader(), options);
  try {
    yield* openPayload(reader, fileKey);
  } finally {
    fileKey.fill(0);
  }
}
