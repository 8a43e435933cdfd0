import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { AgentError } from '@kms-agent/protocol';
import { listFiles, readFirst } from './folder.ts';
import { type AuditRecord, decodeRecord } from './record.ts';

/** A line of the record, and what it says; undefined for one that is no record. */
export interface ReadLine {
  readonly file: string;
  readonly line: string;
  readonly record: AuditRecord | undefined;
}

/** The files that hold records after `seq`. */
function filesAfter(folder: string, seq: number): string[] {
  const files = listFiles(folder);
  const later = files.findIndex((file) => (readFirst(file)?.seq ?? 0) > seq + 1);
  const start = later === -1 ? files.length - 1 : Math.max(later - 1, 0);
  return files.slice(Math.max(start, 0));
}

/**
 * Walks over lines of files, oldest first. A line ends in LF and nowhere else; a last one without its end is not there yet,
 * but in a file that is not the last it can only be damage.
 */
export async function* readLines(files: readonly string[], start = 0): AsyncGenerator<ReadLine> {
  for (const [index, file] of files.entries()) {
    let rest = '';
    for await (const chunk of createReadStream(file, { encoding: 'utf8', start: index === 0 ? start : 0 }) as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) yield { file, line, record: decodeRecord(line) };
    }
    if (rest !== '' && index < files.length - 1) yield { file, line: rest, record: undefined };
  }
}

/** Bytes that are read to find a line. */
const probeBytes = 65_536;

/** Where in a file the records after `seq` begin, or a little before: numbers grow, so that halving finds it. */
async function findOffset(file: string, seq: number): Promise<number> {
  const handle = await open(file, 'r');
  try {
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
  } finally {
    await handle.close();
  }
}

/** Walks over the lines after `seq`; lines before it may come first. @throws AgentError `ERR_AUDIT_UNAVAILABLE` when the files cannot be read. */
export async function* readAfter(folder: string, seq: number): AsyncGenerator<ReadLine> {
  try {
    const files = filesAfter(folder, seq);
    const [first] = files;
    if (first !== undefined) yield* readLines(files, await findOffset(first, seq));
  } catch (cause) {
    throw cause instanceof Error && 'syscall' in cause ? new AgentError('ERR_AUDIT_UNAVAILABLE', {}, { cause }) : cause;
  }
}
