import { isUtf8 } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { closeSync, createReadStream, existsSync, fsyncSync, linkSync, openSync, readFileSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Something that the person can put right by calling again; exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What every command that reads or writes bytes takes. */
export interface ByteOptions {
  readonly output?: string;
  readonly force?: boolean;
  readonly base64?: boolean;
}

/** A whole file, or standard input for `-` or nothing. */
export function readInput(file: string | undefined): Uint8Array {
  try {
    return readFileSync(file === undefined || file === '-' ? 0 : file);
  } catch (cause) {
    throw new UsageError(`cannot read ${file ?? 'standard input'}: ${cause instanceof Error ? cause.message : 'unknown reason'}`, { cause });
  }
}

/** A file, or standard input for `-` or nothing, piece by piece. */
export async function* openInput(file: string | undefined): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* file === undefined || file === '-' ? process.stdin : createReadStream(file);
  } catch (cause) {
    throw new UsageError(`cannot read ${file ?? 'standard input'}: ${cause instanceof Error ? cause.message : 'unknown reason'}`, { cause });
  }
}

/** A whole file or standard input, of base64 if so asked. */
export function readBytes(file: string | undefined, { base64 }: ByteOptions): Uint8Array {
  const bytes = readInput(file);
  return base64 ? Buffer.from(Buffer.from(bytes).toString('latin1'), 'base64') : bytes;
}

/** Bytes to a file or to standard output; as base64 if so asked. A terminal gets no binary. */
export function writeBytes(bytes: Uint8Array, { output, force = false, base64 = false }: ByteOptions): void {
  const content = base64 ? Buffer.from(`${Buffer.from(bytes).toString('base64')}\n`) : bytes;
  if (output !== undefined && output !== '-') {
    if (isSpecial(output)) writeFileSync(output, content);
    else writeAside(output, content, force);
    return;
  }
  if (process.stdout.isTTY && !base64 && !isPrintable(bytes)) throw new UsageError('binary does not go to a terminal; use -o FILE or a pipe');
  process.stdout.write(content);
}

/** A device or a pipe is written to as it is: a file in its place would be another thing. */
function isSpecial(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && !stat.isFile() && !stat.isDirectory();
}

/** Text that a terminal shows as it is: UTF-8 without control characters but tab and line feed. */
function isPrintable(bytes: Uint8Array): boolean {
  return isUtf8(bytes) && !/[^\P{Cc}\t\n]/u.test(Buffer.from(bytes).toString());
}

/** Writes a new 0600 file beside the wanted one and gives it its name when it is whole; over an old file only with `force`. */
function writeAside(path: string, content: Uint8Array, force: boolean): void {
  if (!force && existsSync(path)) throw new UsageError(`${path} is there already; -f writes over it`);
  const aside = join(dirname(path), `.kms-${randomBytes(8).toString('hex')}`);
  const fd = openSync(aside, 'wx', 0o600);
  try {
    writeFileSync(fd, content);
    fsyncSync(fd);
    if (force) renameSync(aside, path);
    else linkSync(aside, path); // unlike rename it fails where a file came meanwhile
  } finally {
    closeSync(fd);
    if (existsSync(aside)) unlinkSync(aside);
  }
}
