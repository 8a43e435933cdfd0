import { isUtf8 } from 'node:buffer';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { readDescriptor } from '@kms-agent/protocol/terminal';
import { AsideFile } from '../aside.ts';
import { readAhead } from '../read-ahead.ts';

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
    return file === undefined || file === '-' ? readDescriptor(0) : readFileSync(file);
  } catch (cause) {
    throw new UsageError(`cannot read ${file ?? 'standard input'}: ${cause instanceof Error ? cause.message : 'unknown reason'}`, { cause });
  }
}

/** A file, or standard input for `-` or nothing, piece by piece; each is good until the next is asked for. */
export async function* openInput(file: string | undefined): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* file === undefined || file === '-' ? process.stdin : readAhead(file);
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
export function isSpecial(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && !stat.isFile() && !stat.isDirectory();
}

/** Text that a terminal shows as it is: UTF-8 without control characters but tab and line feed. */
function isPrintable(bytes: Uint8Array): boolean {
  return isUtf8(bytes) && !/[^\P{Cc}\t\n]/u.test(Buffer.from(bytes).toString());
}

/** Refuses to write over a file unless it is asked for. */
export function checkOutput(path: string, force: boolean): void {
  if (!force && existsSync(path)) throw new UsageError(`${path} is there already; -f writes over it`);
}

/** Writes a new 0600 file that appears when it is whole. */
function writeAside(path: string, content: Uint8Array, force: boolean): void {
  checkOutput(path, force);
  using file = new AsideFile(path);
  writeFileSync(file.fd, content);
  file.keep(force);
}
