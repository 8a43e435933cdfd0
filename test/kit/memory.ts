import { closeSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';

/** Bit of CAP_SYS_PTRACE (<linux/capability.h>). */
const capSysPtrace = 19n;

function hasPtraceCapability(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> capSysPtrace) & 1n) === 1n;
}

/** Whether this process may read the memory of one that is not dumpable (ptrace(2), PTRACE_MODE_ATTACH); root in a container may not. */
export const canReadMemory = process.getuid?.() === 0 && hasPtraceCapability();

/** What is searched for: each piece of so many bytes counts by itself, because half a key that was overwritten in front is still half a key. */
const pieceBytes = 16;
/** Bytes of a block, the last ones of a window, that say how far it may move. */
const blockBytes = 3;
/** Bytes that are read at a time. */
const chunkBytes = 4_194_304;

/** How a secret can stand in memory. `reversed`: as OpenSSL holds numbers, the lowest limb first and each limb little-endian. */
export const forms = ['bytes', 'reversed', 'hex', 'base64', 'utf16'] as const;
export type Form = (typeof forms)[number];

/** Something that must be gone, at least 16 bytes. */
export interface Secret {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Pieces that were found, by form. */
export type Counts = Record<Form, number>;
/** By the name of the secret; several may share one. */
export type Hits = ReadonlyMap<string, Counts>;

const text = (letters: string): Buffer => Buffer.from(letters, 'latin1');
const wide = (letters: string): Buffer => Buffer.from(letters, 'utf16le');

/** The letters of base64 that these bytes alone decide, for each of the three places in a group that they can begin at; and the same in base64url. */
function base64Letters(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const letters = Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .replaceAll('=', '');
    const own = letters.slice(before === 0 ? 0 : before + 1, -1);
    return [own, own.replaceAll('+', '-').replaceAll('/', '_')];
  });
}

function spell(secret: Uint8Array): Record<Form, Buffer[]> {
  const bytes = Buffer.from(secret);
  const hex = [bytes.toString('hex'), bytes.toString('hex').toUpperCase()];
  const base64 = base64Letters(bytes);
  const letters = bytes.every((byte) => byte >= 0x20 && byte < 0x7f) ? [bytes.toString('latin1')] : []; // else zeros would be everywhere
  return {
    bytes: [bytes],
    reversed: [Buffer.from(bytes.toReversed())],
    hex: hex.map(text),
    base64: base64.map(text),
    utf16: [...hex, ...base64, ...letters].map(wide),
  };
}

/** Every 16 bytes, and the last 16. */
function cut(spelled: Buffer): Buffer[] {
  if (spelled.length < pieceBytes) throw new RangeError(`${spelled.length} bytes are found by chance`);
  const pieces: Buffer[] = [];
  for (let at = 0; at + pieceBytes <= spelled.length; at += pieceBytes) pieces.push(spelled.subarray(at, at + pieceBytes));
  if (spelled.length % pieceBytes > 0) pieces.push(spelled.subarray(-pieceBytes));
  return pieces;
}

interface Needle {
  readonly name: string;
  readonly form: Form;
}

/** Finds any number of secrets in the memory of a process in one pass (Wu and Manber, "A fast algorithm for multi-pattern searching", 1994). */
export class MemoryScan {
  readonly #names: readonly string[];
  readonly #needles = new Map<string, Needle>();
  /** By the last three bytes of a window: how far it may move on. */
  readonly #shifts = new Uint8Array(2 ** (8 * blockBytes)).fill(pieceBytes - blockBytes + 1);

  constructor(secrets: readonly Secret[]) {
    this.#names = secrets.map(({ name }) => name);
    for (const { name, bytes } of secrets)
      for (const [form, spelled] of Object.entries(spell(bytes)) as [Form, Buffer[]][]) // the keys of spell's own result
        for (const piece of spelled.flatMap(cut)) this.#add(piece, { name, form });
  }

  /** Counts what stands in the writable memory of processes now. @throws Error when one cannot be read, or is gone. */
  of(...pids: number[]): Hits {
    const hits = new Map(this.#names.map((name) => [name, { bytes: 0, reversed: 0, hex: 0, base64: 0, utf16: 0 }]));
    const count = ({ name, form }: Needle): void => {
      const counts = hits.get(name);
      if (counts) counts[form] += 1;
    };
    for (const pid of pids) for (const chunk of readMemory(pid)) this.#search(chunk, count);
    return hits;
  }

  #add(piece: Buffer, needle: Needle): void {
    this.#needles.set(piece.toString('latin1'), needle);
    for (let end = blockBytes; end <= pieceBytes; end += 1) {
      const block = piece.readUIntBE(end - blockBytes, blockBytes);
      this.#shifts[block] = Math.min(this.#shifts[block] ?? 0, pieceBytes - end);
    }
  }

  #search(chunk: Buffer, found: (needle: Needle) => void): void {
    for (let end = pieceBytes; end <= chunk.length; ) {
      const shift = this.#shifts[((chunk[end - 3] ?? 0) << 16) | ((chunk[end - 2] ?? 0) << 8) | (chunk[end - 1] ?? 0)] ?? 0;
      const needle = shift === 0 ? this.#needles.get(chunk.toString('latin1', end - pieceBytes, end)) : undefined;
      if (needle) found(needle);
      end += shift || 1;
    }
  }
}

/** Bytes of a page, and of its entry in /proc/PID/pagemap (proc(5)). */
const pageBytes = 4096;
const entryBytes = 8;
/** Bits 63 and 62 of an entry, in the highest of its bytes: in memory, or in swap. */
const presentOrSwapped = 0xc0;

/** All writable maps of a process that hold anything, in chunks that overlap, so that nothing is cut in two. */
function* readMemory(pid: number): Generator<Buffer> {
  const [memory, pagemap] = [openSync(`/proc/${pid}/mem`, 'r'), openSync(`/proc/${pid}/pagemap`, 'r')];
  const buffer = Buffer.alloc(chunkBytes);
  try {
    for (const map of writableMaps(pid))
      for (const { start, end } of presentParts(pagemap, map))
        for (let at = start; at + pieceBytes <= end; at += chunkBytes - pieceBytes + 1)
          yield buffer.subarray(0, readSync(memory, buffer, 0, Math.min(chunkBytes, end - at), at));
  } finally {
    closeSync(memory);
    closeSync(pagemap);
  }
}

/** Addresses from `start` to before `end`. */
interface Range {
  readonly start: number;
  readonly end: number;
}

function writableMaps(pid: number): Range[] {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm);
  return [...maps].map(([, start = '', end = '']) => ({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) }));
}

/** Node reserves half a gigabyte that it never touches: only what is there is read. */
function* presentParts(pagemap: number, { start, end }: Range): Generator<Range> {
  const entries = Buffer.alloc(((end - start) / pageBytes) * entryBytes);
  readSync(pagemap, entries, 0, entries.length, (start / pageBytes) * entryBytes);
  let first = start;
  for (let page = start; page <= end; page += pageBytes) {
    const entry = ((page - start) / pageBytes) * entryBytes;
    if (page < end && ((entries[entry + entryBytes - 1] ?? 0) & presentOrSwapped) !== 0) continue;
    if (page > first) yield { start: first, end: page };
    first = page + pageBytes;
  }
}

/** A process and all that descend from it, by /proc/PID/stat. */
export function processTree(pid: number): number[] {
  const children = readdirSync('/proc')
    .map(Number)
    .filter((candidate) => candidate > 0 && parentOf(candidate) === pid);
  return [pid, ...children.flatMap(processTree)];
}

function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined; // it has ended
  }
}
