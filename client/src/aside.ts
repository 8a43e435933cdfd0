import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fdatasync, fsyncSync, linkSync, openSync, renameSync, unlinkSync, write, writev } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const writeSome = promisify(write);
const writePieces = promisify(writev);
const flush = promisify(fdatasync);

/** Bytes that are written at once: a way to another thread and back for each piece would take longer than the piece. */
const batchBytes = 1_048_576;

/** Smaller pieces are left to the collector: their memory is often part of a pool. */
const leastReleasedBytes = 4096;

/** Bytes after which the disk begins to take what was written, beside what is still to be encrypted. */
const flushBytes = 33_554_432;

/** Gives memory back at once: V8 would look through its whole heap for each 64 MiB of such pieces, a sixth of the time that a file takes. */
function release({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && byteLength === buffer.byteLength && byteLength >= leastReleasedBytes) buffer.transfer(0);
}

/** A rename is durable only when its folder is. */
function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * A new 0600 file beside the wanted one, which gets its name when it is whole: until {@link keep} nobody sees it under that name.
 * What is disposed of without `keep` is gone.
 */
export class AsideFile implements Disposable {
  readonly fd: number;
  readonly #path: string;
  readonly #aside: string;
  #unflushedBytes = 0;
  #flushed: Promise<void> = Promise.resolve();
  #isFlushing = false;

  /** @throws the file system's error, as `EACCES`. */
  constructor(path: string) {
    this.#path = path;
    this.#aside = join(dirname(path), `.kms-${randomBytes(8).toString('hex')}`);
    this.fd = openSync(this.#aside, 'wx', 0o600);
  }

  /** Gives the file its name, durably; over an old file only with `force`. @throws the file system's error, `EEXIST` where a file is already. */
  keep(force: boolean): void {
    fsyncSync(this.fd);
    if (force) renameSync(this.#aside, this.#path);
    else linkSync(this.#aside, this.#path); // unlike rename it fails where a file came meanwhile
    syncFolder(dirname(this.#path));
  }

  /** Writes every piece in the order they come; the next ones are asked for while some are written, so each must own its memory, and most are empty afterwards. */
  async write(source: AsyncIterable<Uint8Array>): Promise<void> {
    let writing: Promise<void> = Promise.resolve();
    let [batch, bytes]: [Uint8Array[], number] = [[], 0];
    try {
      for await (const piece of source) {
        batch.push(piece);
        bytes += piece.length;
        if (bytes < batchBytes) continue;
        await writing;
        writing = this.#writeBatch(batch, bytes);
        writing.catch(() => undefined); // it is heard of when it is waited for
        [batch, bytes] = [[], 0];
      }
      await writing;
      await this.#writeBatch(batch, bytes);
      await this.#flushed;
    } finally {
      await Promise.allSettled([writing, this.#flushed]); // the descriptor is still in use
    }
  }

  /** Nobody waits for a disk that is slow, but for its end; of one that fails the system tells once, whoever flushes first (fsync(2), ERRORS). */
  #flushSome(bytes: number): void {
    this.#unflushedBytes += bytes;
    if (this.#isFlushing || this.#unflushedBytes < flushBytes) return;
    this.#unflushedBytes = 0;
    this.#isFlushing = true;
    this.#flushed = this.#flushed
      .then(() => flush(this.fd))
      .finally(() => {
        this.#isFlushing = false;
      });
    this.#flushed.catch(() => undefined); // it is heard of when it is waited for
  }

  async #writeBatch(pieces: readonly Uint8Array[], bytes: number): Promise<void> {
    if (bytes === 0) return;
    const { bytesWritten } = await writePieces(this.fd, pieces);
    if (bytesWritten === bytes) {
      for (const piece of pieces) release(piece);
      this.#flushSome(bytes);
      return;
    }
    const rest = Buffer.concat(pieces).subarray(bytesWritten); // a full disk, most likely: the next write says so
    for (let offset = 0; offset < rest.length; ) offset += (await writeSome(this.fd, rest, offset)).bytesWritten;
  }

  /** Takes the file away unless it was kept; what holds it open may go on writing. */
  abandon(): void {
    if (existsSync(this.#aside)) unlinkSync(this.#aside);
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
    this.abandon();
  }
}
