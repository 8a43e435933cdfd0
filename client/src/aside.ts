import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, linkSync, openSync, renameSync, unlinkSync, write, writev } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const writeSome = promisify(write);
const writePieces = promisify(writev);

/** Bytes that are written at once: a way to another thread and back for each piece would take longer than the piece. */
const batchBytes = 1_048_576;

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

  /** Writes every piece in the order they come; the next ones are asked for while some are written, so each must own its memory. */
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
    } finally {
      await Promise.allSettled([writing]); // the descriptor is still in use
    }
  }

  async #writeBatch(pieces: readonly Uint8Array[], bytes: number): Promise<void> {
    if (bytes === 0) return;
    const { bytesWritten } = await writePieces(this.fd, pieces);
    if (bytesWritten === bytes) return;
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
