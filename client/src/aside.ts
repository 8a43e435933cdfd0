import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, linkSync, openSync, renameSync, unlinkSync, write } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const writeSome = promisify(write);

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

  /** Writes every piece, one after the other, in the order they come. */
  async write(source: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of source) {
      for (let offset = 0; offset < piece.length; ) offset += (await writeSome(this.fd, piece, offset)).bytesWritten;
    }
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
