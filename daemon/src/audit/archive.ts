import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isCurrentFile, listFiles, readFirst } from './folder.ts';
import { type ReadLine, readAll, readWhole } from './reading.ts';

/** A file of the record and the number of its first record. */
interface NumberedFile {
  readonly file: string;
  readonly seq: number;
}

/** The number stands in the name of a rotated file; one without it, or with another name, is asked. Undefined where there is none, so that its lines come last and are found. */
function firstSeqOf(file: string): number | undefined {
  const named = /^audit-(\d+)\.jsonl$/.exec(basename(file))?.[1];
  return named === undefined ? readFirst(file)?.seq : Number(named);
}

/** A copy of the file that was being written is the last of those that begin with the same record. */
function inOrder(files: readonly string[]): NumberedFile[] {
  const numbered = files.map((file) => ({ file, seq: firstSeqOf(file) ?? Number.POSITIVE_INFINITY }));
  return numbered.sort((one, other) => one.seq - other.seq || Number(isCurrentFile(one.file)) - Number(isCurrentFile(other.file)));
}

/** The files of archive folders, by the number of their first record. */
function listArchived(archives: readonly string[]): NumberedFile[] {
  const filesIn = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isFile() && entry.name.endsWith('.jsonl') ? [join(folder, entry.name)] : []));
  return inOrder(archives.flatMap(filesIn));
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
export async function findDifference(folder: string, archives: readonly string[]): Promise<NumberedFile | undefined> {
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
