import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError } from '@kms-agent/protocol';
import { isCurrentFile, listFiles, readFirst } from './files.ts';
import { type AuditRecord, decodeRecord } from './record.ts';

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;

/** A line of the record, and what it says; undefined for one that is no record. */
export interface ReadLine {
  readonly file: string;
  readonly line: string;
  readonly record: AuditRecord | undefined;
}

/** A file of the record that is open: whatever it is renamed to, or whether it is deleted, no longer matters. */
interface OpenFile {
  readonly file: string;
  readonly handle: FileHandle;
  /** It is the one that the agent writes. */
  readonly isCurrent: boolean;
}

/** Undefined for a file that is gone. */
async function whenThere<T>(work: () => Promise<T> | T): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

/** The last rotated file that holds nothing after `seq`, so that reading begins behind it; empty for none. */
async function lastBefore(folder: string, seq: number): Promise<string> {
  let before = '';
  let previous = '';
  for (const file of listFiles(folder).filter((name) => !isCurrentFile(name))) {
    const first = await whenThere(() => readFirst(file));
    if (first && first.seq > seq + 1) break;
    before = previous;
    previous = file;
  }
  return before;
}

/**
 * Opens the files of the record one after the other, oldest first, beside an agent that may rotate and drop them at any moment. A rotated file stays as it is
 * under its name. The one that is written is the end only if, once it is open, none has been rotated that was not read.
 */
async function* openFiles(folder: string, seq: number): AsyncGenerator<OpenFile> {
  let last = await lastBefore(folder, seq);
  const rotatedAfter = (files: readonly string[]): string | undefined => files.find((file) => file > last && !isCurrentFile(file));
  for (;;) {
    const files = listFiles(folder);
    const next = rotatedAfter(files);
    const file = next ?? files.find(isCurrentFile);
    if (file === undefined) return;
    const handle = await whenThere(() => open(file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW));
    if (!handle) continue; // dropped, or rotated
    if (next === undefined && rotatedAfter(listFiles(folder)) !== undefined) {
      await handle.close();
      continue;
    }
    yield { file, handle, isCurrent: next === undefined };
    if (next === undefined) return;
    last = next;
  }
}

/** A line ends in LF and nowhere else; a last one without its end is not there yet, but in a rotated file it can only be damage. */
async function* readLines({ file, handle, isCurrent }: OpenFile, start: number): AsyncGenerator<ReadLine> {
  let rest = '';
  for await (const chunk of handle.createReadStream({ encoding: 'utf8', start }) as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield { file, line, record: decodeRecord(line) };
  }
  if (rest !== '' && !isCurrent) yield { file, line: rest, record: undefined };
}

/** Bytes that are read to find a line. */
const probeBytes = 65_536;

/** Where in a file the records after `seq` begin, or a little before: numbers grow, so that halving finds it. */
async function findOffset(handle: FileHandle, seq: number): Promise<number> {
  let [low, high] = [0, (await handle.stat()).size];
  const probe = Buffer.alloc(probeBytes);
  while (high - low > probeBytes) {
    const middle = Math.floor((low + high) / 2);
    const { bytesRead } = await handle.read(probe, 0, probeBytes, middle);
    const text = probe.toString('utf8', 0, bytesRead);
    const begin = text.indexOf('\n') + 1;
    const record = begin === 0 ? undefined : decodeRecord(text.slice(begin, text.indexOf('\n', begin)));
    if (record && record.seq <= seq) low = middle + Buffer.byteLength(text.slice(0, begin));
    else high = middle;
  }
  return low;
}

/** Walks over the lines after `seq`, oldest first; lines before it may come first. @throws AgentError `ERR_AUDIT_UNAVAILABLE` when the files cannot be read. */
export async function* readAfter(folder: string, seq: number): AsyncGenerator<ReadLine> {
  let isFirst = true;
  try {
    for await (const file of openFiles(folder, seq)) {
      yield* readLines(file, isFirst ? await findOffset(file.handle, seq) : 0);
      isFirst = false;
    }
  } catch (cause) {
    throw cause instanceof Error && 'syscall' in cause ? new AgentError('ERR_AUDIT_UNAVAILABLE', {}, { cause }) : cause;
  }
}

/** Walks over every line of a file that nobody writes. A copy of the one that was written may end in the middle of a line. */
export async function* readWhole(file: string): AsyncGenerator<ReadLine> {
  const handle = await open(file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  yield* readLines({ file, handle, isCurrent: isCurrentFile(file) }, 0);
}

/** Walks over every line that is there. */
export async function* readAll(folder: string): AsyncGenerator<ReadLine> {
  for await (const file of openFiles(folder, -1)) yield* readLines(file, 0);
}
