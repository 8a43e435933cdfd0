import { closeSync, constants, fdatasyncSync, fstatSync, openSync, readdirSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type AuditRecord, decodeRecord } from './record.ts';

export const currentName = 'audit.jsonl';
export const reserveName = 'reserve';
export const lockName = 'audit.lock';
const filePattern = /^audit(-\d+)?\.jsonl$/;

/** Bytes that the last line of a file surely fits into. */
export const tailBytes = 1_048_576;

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_TRUNC } = constants;

/** A rotated file: the number of its first record stands in its name. */
export const rotatedName = (firstSeq: number): string => `audit-${String(firstSeq).padStart(12, '0')}.jsonl`;

/** Whether a file is the one that is written. */
export const isCurrentFile = (file: string): boolean => basename(file) === currentName;

/** Whether a file is one that the agent keeps in the folder beside the record. */
export const isBesideRecord = (name: string): boolean => name === reserveName || name === lockName;

/** The files of the record, oldest first; the one that is written is the last. */
export function listFiles(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile() && filePattern.test(entry.name)); // a pipe of such a name must make nobody wait
  const names = entries.map(({ name }) => name).sort();
  const rotated = names.filter((name) => name !== currentName);
  return [...rotated, ...names.filter((name) => name === currentName)].map((name) => join(folder, name));
}

/** Opens a file to write. What else can stand in its place must make nobody wait, a pipe above all. @throws TypeError for it; the system's error. */
export function openRegular(path: string, flag: number): { fd: number; size: number } {
  const fd = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | flag, 0o600);
  const stat = fstatSync(fd);
  if (stat.isFile()) return { fd, size: stat.size };
  closeSync(fd);
  throw new TypeError('a file of the audit record is no regular file');
}

/** Writes a file of its own, durably; one that cannot be whole is not left. */
export function writeWhole(path: string, content: Uint8Array): void {
  const { fd } = openRegular(path, O_TRUNC);
  try {
    let written = 0;
    while (written < content.length) written += writeSync(fd, content, written);
    fdatasyncSync(fd);
  } catch (error) {
    unlinkSync(path);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Whether some bytes are the first of others: a copy of a file that went on. */
export const isBeginningOf = (bytes: Buffer, all: Uint8Array): boolean => bytes.length <= all.length && bytes.equals(all.subarray(0, bytes.length));

/** The first record of a file. */
export function readFirst(file: string): AuditRecord | undefined {
  const fd = openSync(file, O_RDONLY | O_NONBLOCK);
  try {
    const head = Buffer.alloc(65_536);
    const text = head.toString('utf8', 0, readSync(fd, head, 0, head.length, 0));
    return decodeRecord(text.slice(0, Math.max(text.indexOf('\n'), 0)));
  } finally {
    closeSync(fd);
  }
}

/** The last line of a file that is a record. */
export function readLast(file: string): { record: AuditRecord; line: string } | undefined {
  const fd = openSync(file, O_RDONLY | O_NONBLOCK);
  try {
    const { size } = fstatSync(fd);
    const tail = Buffer.alloc(Math.min(size, tailBytes));
    readSync(fd, tail, 0, tail.length, size - tail.length);
    for (const line of tail.toString().split('\n').reverse()) {
      const record = line === '' ? undefined : decodeRecord(line);
      if (record) return { record, line };
    }
    return undefined;
  } finally {
    closeSync(fd);
  }
}
