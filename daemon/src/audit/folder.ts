import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '@kms-agent/protocol';
import { lockFile } from '../os/libc.ts';
import type { ChainEnd } from './chain.ts';
import { currentName, isBeginningOf, listFiles, lockName, openRegular, readFirst, readLast, reserveName, rotatedName, tailBytes, writeWhole } from './files.ts';
import { type AuditRecord, hashLine, noHash } from './record.ts';

/** Limits of the folder; each is a setting of the agent. */
export interface AuditLimits {
  /** Bytes after which a new file is begun. */
  readonly maxFileBytes: number;
  /** Bytes that are kept free, to record that the disk is full. */
  readonly reserveBytes: number;
  /** Whether each batch is on the disk before its answers leave; else it is in the kernel's hands. */
  readonly sync: boolean;
}

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;

/** Where a file that somebody deleted is written again. */
const restoredName = 'restored';

/** The files that hold the record, written so that what was written is whole or is not there. Every call may throw the system's error. */
export class AuditFolder {
  readonly #folder: string;
  readonly #limits: AuditLimits;
  readonly #lock: number;
  #fd: number | undefined;
  /** Bytes of the file that are whole lines; what is beyond is cut off before the next write. */
  #size = 0;
  #firstSeq: number | undefined;
  #rotated = true;
  #tampering: Record<string, number> | undefined;
  /** A write failed half way, and what it left could not be cut off: what is beyond `#size` is our own. */
  #hasRemains = false;

  /** @throws AgentError `ERR_STATE_CONFLICT` when another agent holds the folder, or others can write it. */
  constructor(folder: string, limits: AuditLimits) {
    this.#folder = folder;
    this.#limits = limits;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = statSync(folder);
    if (uid !== process.geteuid?.() || (mode & 0o022) !== 0)
      throw new AgentError('ERR_STATE_CONFLICT', { hint: `The audit folder ${folder} must belong to the agent's user, and nobody else may write it.` });
    this.#lock = openSync(join(folder, lockName), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    if (!lockFile(this.#lock))
      throw new AgentError('ERR_STATE_CONFLICT', { hint: `Another agent writes its audit record to ${folder}; give this one a folder of its own.` });
  }

  get path(): string {
    return this.#folder;
  }

  /** Opens the file that is written, cuts off a line that a crash left unfinished, and says where the chain is. */
  open(): ChainEnd & { cutBytes: number } {
    this.#open();
    const cutBytes = this.#cutUnfinished();
    const last = this.#findLast();
    return { ...(last ? { seq: last.record.seq, hash: hashLine(last.line) } : { seq: 0, hash: noHash }), cutBytes };
  }

  /** Appends whole lines: all of them, or none. @param firstSeq - of the first line. */
  append(lines: string, firstSeq: number): void {
    const bytes = Buffer.from(lines);
    const fd = this.#ready(bytes.length);
    this.#firstSeq ??= firstSeq;
    try {
      let written = 0;
      while (written < bytes.length) written += writeSync(fd, bytes, written);
      if (this.#limits.sync) fdatasyncSync(fd);
    } catch (error) {
      this.#hasRemains = true;
      this.#cutRemains();
      throw error;
    }
    this.#size += bytes.length;
  }

  /** Makes the space that is given up when the disk is full. */
  keepReserve(): void {
    const { reserveBytes } = this.#limits;
    const path = join(this.#folder, reserveName);
    if (statSync(path, { throwIfNoEntry: false })?.size !== reserveBytes) writeWhole(path, Buffer.alloc(reserveBytes, 0x20)); // a hole would reserve nothing
  }

  giveUpReserve(): void {
    rmSync(join(this.#folder, reserveName), { force: true });
  }

  /** Opens the file anew, because somebody may have moved it. The one that is left is whole, or, when it was deleted, written again. */
  reopen(): void {
    const fd = this.#fd;
    if (fd !== undefined && this.#isDeleted(fd)) this.#restoreDeleted(fd);
    this.#closeFile();
    this.#open();
  }

  /** Whether a new file was begun since this was last asked: only then can there be too many. */
  hasRotated(): boolean {
    const rotated = this.#rotated;
    this.#rotated = false;
    return rotated;
  }

  /** What somebody else did to the file since this was last asked. */
  takeTampering(): Record<string, number> | undefined {
    const tampering = this.#tampering;
    this.#tampering = undefined;
    return tampering;
  }

  /** Deletes a file; one that is gone already is gone. */
  drop(file: string): void {
    rmSync(file, { force: true });
  }

  close(): void {
    this.#closeFile();
    closeSync(this.#lock);
  }

  /** A descriptor that was closed may be somebody else's next: it is forgotten first. */
  #closeFile(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) closeSync(fd);
  }

  /** The descriptor, after whatever must be done before so many bytes can be written. */
  #ready(bytes: number): number {
    const fd = this.#fd ?? this.#open();
    if (this.#isDeleted(fd)) {
      this.#restoreDeleted(fd);
      return this.#open();
    }
    return this.#size > 0 && this.#size + bytes > this.#limits.maxFileBytes ? this.#rotate() : fd;
  }

  /** Whether somebody deleted the file. One that is there has its whole lines afterwards and nothing else. */
  #isDeleted(fd: number): boolean {
    const { nlink, size } = fstatSync(fd);
    if (nlink === 0) return true;
    if (size !== this.#size) this.#mendSize(size);
    return false;
  }

  #open(): number {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = join(this.#folder, currentName);
    const { fd, size } = openRegular(path, O_APPEND);
    this.#fd = fd;
    this.#size = size;
    this.#hasRemains = false;
    this.#firstSeq = size === 0 ? undefined : readFirst(path)?.seq;
    return fd;
  }

  #rotate(): number {
    renameSync(join(this.#folder, currentName), join(this.#folder, rotatedName(this.#firstSeq ?? 0)));
    this.#closeFile();
    this.#rotated = true;
    return this.#open();
  }

  /** Somebody deleted the file under the agent: its records are still there behind the descriptor, and get a file of their own. */
  #restoreDeleted(deleted: number): void {
    const content = Buffer.alloc(this.#size);
    readSync(deleted, content, 0, content.length, 0);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    if (content.length > 0) this.#putBack(content);
    this.#closeFile();
  }

  /** Under its name when it is whole; an attempt that failed is in nobody's way. */
  #putBack(content: Uint8Array): void {
    const [aside, path] = [join(this.#folder, restoredName), join(this.#folder, rotatedName(this.#firstSeq ?? 0))];
    writeWhole(aside, content);
    if (existsSync(path) && !isBeginningOf(readFileSync(path), content)) renameSync(path, `${path}.foreign`); // somebody else's: kept, and no part of the record
    renameSync(aside, path);
  }

  /** Somebody else wrote to the file, or cut it: what is not ours goes, what is gone is gone, and the record says so. */
  #mendSize(size: number): void {
    const isOurs = this.#hasRemains && size > this.#size;
    if (!isOurs) this.#tampering = size > this.#size ? { foreignBytes: size - this.#size } : { missingBytes: this.#size - size };
    if (size > this.#size) this.#cutTo(this.#size);
    else {
      this.#size = size;
      this.#cutUnfinished();
    }
  }

  /** Whatever a failed write left goes at once where it can, so that a crash keeps nothing that was refused; else before the next one. */
  #cutRemains(): void {
    try {
      this.#cutTo(this.#size);
    } catch {
      return; // the disk that failed the write fails this as well
    }
    this.#hasRemains = false;
  }

  #cutUnfinished(): number {
    const tail = this.#readTail();
    const whole = tail.lastIndexOf(0x0a) + 1;
    const cut = tail.length - whole;
    if (cut > 0) this.#cutTo(this.#size - cut);
    return cut;
  }

  #cutTo(size: number): void {
    if (this.#fd === undefined) return;
    ftruncateSync(this.#fd, size);
    this.#size = size;
  }

  #readTail(): Buffer {
    const tail = Buffer.alloc(Math.min(this.#size, tailBytes));
    if (this.#fd !== undefined) readSync(this.#fd, tail, 0, tail.length, this.#size - tail.length);
    return tail;
  }

  #findLast(): { record: AuditRecord; line: string } | undefined {
    for (const file of listFiles(this.#folder).reverse()) {
      const last = readLast(file);
      if (last) return last;
    }
    return undefined;
  }
}
