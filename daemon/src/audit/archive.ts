import { createHash } from 'node:crypto';
import { createReadStream, type Dirent, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isBesideRecord, isCurrentFile, listFiles, readFirst } from './files.ts';
import { type ReadLine, readAll, readWhole } from './reading.ts';

/** A file of the record, the number of its first record, and its bytes. */
interface NumberedFile {
  readonly file: string;
  readonly seq: number;
  readonly size: number;
}

/** The number stands in the name of a rotated file; one without it, or with another name, is asked. Undefined where there is none, so that its lines come last and are found. */
function firstSeqOf(file: string): number | undefined {
  const named = /^audit-(\d+)\.jsonl$/.exec(basename(file))?.[1];
  return named === undefined ? readFirst(file)?.seq : Number(named);
}

/** Of those that begin with the same record the longest comes first: others may be copies of it that were made while it was written. */
function inOrder(files: readonly string[]): NumberedFile[] {
  const numbered = files.map((file) => ({ file, seq: firstSeqOf(file) ?? Number.POSITIVE_INFINITY, size: statSync(file).size }));
  return numbered.sort((one, other) => one.seq - other.seq || other.size - one.size || Number(isCurrentFile(one.file)) - Number(isCurrentFile(other.file)));
}

/** What is read in an archive folder, and what is not: all but the two files that an agent keeps beside its record. */
function look(folder: string): { files: string[]; passedOver: string[] } {
  const entries = readdirSync(folder, { withFileTypes: true });
  const isRecord = (entry: Dirent): boolean => entry.isFile() && entry.name.endsWith('.jsonl');
  const path = ({ name }: Dirent): string => join(folder, name);
  return {
    files: entries.filter(isRecord).map(path),
    passedOver: entries.filter((entry) => !isRecord(entry) && !isBesideRecord(entry.name)).map(path),
  };
}

/** The files of archive folders, by the number of their first record. */
const listArchived = (archives: readonly string[]): NumberedFile[] => inOrder(archives.flatMap((folder) => look(folder).files));

/** What lies in archive folders and has not the name of a file of the record. */
export const listPassedOver = (archives: readonly string[]): string[] => archives.flatMap((folder) => look(folder).passedOver);

/** What is where at one moment. */
export interface Listing {
  /** The files in the folder of the record. The agent adds to them all the time. */
  readonly live: readonly string[];
  /** The files of archive folders, each with its size: one that is being copied grows. */
  readonly archived: string;
}

/** @throws the system's error for a folder that is not there. */
export function list(folder: string, archives: readonly string[]): Listing {
  const files = archives.flatMap((archive) => look(archive).files);
  const sized = files.map((file) => [file, statSync(file, { throwIfNoEntry: false })?.size]);
  return { live: listFiles(folder), archived: JSON.stringify(sized) };
}

/** Whether a file was moved or copied between two moments. That the agent began another one moves nothing. */
export function hasMoved(before: Listing, after: Listing): boolean {
  const there = new Set(after.live);
  return before.archived !== after.archived || before.live.some((file) => !there.has(file));
}

async function hashBeginning(file: string, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  if (bytes > 0) for await (const chunk of createReadStream(file, { end: bytes - 1 }) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}

/** Whether a file is another one's copy, or a copy of its beginning if it was made while that was written. */
async function isCopy(copy: string, original: string): Promise<boolean> {
  const [size, whole] = [statSync(copy).size, statSync(original).size];
  if (size > whole || (size < whole && !isCurrentFile(copy))) return false;
  return (await hashBeginning(copy, size)) === (await hashBeginning(original, size));
}

/** The first file of archive folders that is there a second time, there or in the folder of the record, and is not the same. */
export async function findDifference(folder: string, archives: readonly string[]): Promise<{ file: string; seq: number } | undefined> {
  const live = inOrder(archives.length === 0 ? [] : listFiles(folder));
  const first = new Map(live.map(({ file, seq }) => [seq, file]));
  for (const { file, seq } of listArchived(archives).filter((one) => Number.isFinite(one.seq))) {
    const original = first.get(seq);
    if (original === undefined) first.set(seq, file);
    else if (!(await isCopy(file, original))) return { file, seq };
  }
  return undefined;
}

/** Walks over every line of the folder and of archives of it, as one record in the order of its numbers; a file that is there twice is read once. */
export async function* readTogether(folder: string, archives: readonly string[]): AsyncGenerator<ReadLine> {
  const waiting = listArchived(archives);
  let [file, lastSeq] = ['', -1];
  async function* readBefore(seq: number): AsyncGenerator<ReadLine> {
    for (let next = waiting[0]; next && next.seq < seq; next = waiting[0]) {
      waiting.shift();
      if (next.seq !== lastSeq) yield* readWhole(next.file);
      lastSeq = next.seq;
    }
  }
  for await (const line of readAll(folder)) {
    const seq = line.file === file ? undefined : (line.record?.seq ?? firstSeqOf(line.file));
    if (seq !== undefined) {
      yield* readBefore(seq);
      lastSeq = seq;
    }
    ({ file } = line);
    yield line;
  }
  yield* readBefore(Number.POSITIVE_INFINITY);
  for (const unknown of waiting) yield* readWhole(unknown.file);
}
