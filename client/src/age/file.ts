import { existsSync, statSync } from 'node:fs';
import { AsideFile } from '../aside.ts';
import type { AgentClient } from '../client.ts';
import { readAhead } from '../read-ahead.ts';
import type { ByteSource } from './source.ts';
import { type DecryptStreamOptions, decryptStream, type EncryptStreamOptions, encryptStream } from './stream.ts';

/** How far a file has been read, in bytes. */
export interface Progress {
  readonly readBytes: number;
  readonly totalBytes: number;
}

/** What both file functions take. */
export interface FileOptions {
  /** Whether a file that is there may be replaced; default false. */
  readonly force?: boolean;
  /** Called for each piece that was read. */
  readonly onProgress?: (progress: Progress) => void;
}

async function* readPieces(path: string, { onProgress, signal }: FileOptions & { readonly signal?: AbortSignal }): AsyncGenerator<Uint8Array, void, undefined> {
  const totalBytes = statSync(path).size;
  let readBytes = 0;
  for await (const piece of readAhead(path, signal)) {
    readBytes += piece.length;
    onProgress?.({ readBytes, totalBytes });
    yield piece;
  }
}

/** Writes a file aside and gives it its name when all of `source` is in it; else nothing stays. */
async function writeWhole(path: string, source: ByteSource, { force = false }: FileOptions): Promise<void> {
  if (!force && existsSync(path)) throw Object.assign(new Error(`EEXIST: ${path} is there already`), { code: 'EEXIST', path });
  using file = new AsideFile(path);
  await file.write(source);
  file.keep(force);
}

/**
 * Encrypts a file of any length into a new 0600 file, which appears when it is whole.
 *
 * @param options - as {@link encryptStream}, and {@link FileOptions}; `signal` ends it at any time.
 * @throws as {@link encryptStream}; the file system's errors, `EEXIST` where there is a file and `force` is not set.
 */
export async function encryptFile(client: AgentClient, from: string, to: string, options: EncryptStreamOptions & FileOptions = {}): Promise<void> {
  const { force: _force, onProgress: _onProgress, ...streamOptions } = options;
  await writeWhole(to, encryptStream(client, readPieces(from, options), streamOptions), options);
}

/**
 * Decrypts a file of any length into a new 0600 file, which appears when all of it is proven; else nothing stays.
 *
 * @param options - as {@link decryptStream}, and {@link FileOptions}; `signal` ends it at any time.
 * @throws as {@link decryptStream}; the file system's errors, `EEXIST` where there is a file and `force` is not set.
 */
export async function decryptFile(client: AgentClient, from: string, to: string, options: DecryptStreamOptions & FileOptions = {}): Promise<void> {
  const { force: _force, onProgress: _onProgress, ...streamOptions } = options;
  await writeWhole(to, decryptStream(client, readPieces(from, options), streamOptions), options);
}
