import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { AsideFile } from '../../../client/src/aside.ts';
import { readAhead } from '../../../client/src/read-ahead.ts';
import { TempFolder } from '../../kit/agent.ts';
import { canInject, withFaults } from '../../kit/strace.ts';

async function readAll(path: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of readAhead(path)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** Whether this process holds a file open. */
const isOpen = (path: string): boolean =>
  readdirSync('/proc/self/fd').some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false; // the descriptor of the listing itself
    }
  });

test.each([0, 1, 262_143, 262_144, 262_145, 1_000_000])('readAhead: a file of %i bytes is read whole and closed', async (bytes) => {
  using folder = new TempFolder();
  const content = randomBytes(bytes);
  writeFileSync(folder.join('file'), content);
  expect((await readAll(folder.join('file'))).equals(content)).toBe(true);
  expect(isOpen(folder.join('file'))).toBe(false);
});

test('readAhead: a pipe gives what comes, piece by piece', async () => {
  using folder = new TempFolder();
  execFileSync('mkfifo', [folder.join('pipe')]);
  const writer = spawn('sh', ['-c', 'for n in 1 2 3 4 5; do echo "line $n"; sleep 0.05; done > "$0"', folder.join('pipe')]);
  expect((await readAll(folder.join('pipe'))).toString()).toBe('line 1\nline 2\nline 3\nline 4\nline 5\n');
  expect(writer.exitCode ?? 0).toBe(0);
});

test('readAhead: who stops early, or is told to, closes the file, and what was read is overwritten', async () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('file'), Buffer.alloc(1_000_000, 7));
  let seen: Buffer = Buffer.alloc(0);
  for await (const piece of readAhead(folder.join('file'))) {
    seen = piece;
    expect(piece[0]).toBe(7);
    break;
  }
  expect(seen.every((byte) => byte === 0)).toBe(true);
  expect(isOpen(folder.join('file'))).toBe(false);
  const stop = new AbortController();
  const reading = (async () => {
    for await (const piece of readAhead(folder.join('file'), stop.signal)) if (piece.length > 0) stop.abort();
  })();
  await expect(reading).rejects.toMatchObject({ name: 'AbortError' });
  expect(isOpen(folder.join('file'))).toBe(false);
});

test('readAhead: what cannot be read is the error of the file system', async () => {
  using folder = new TempFolder();
  await expect(readAll(folder.join('none'))).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(readAll(folder.path)).rejects.toMatchObject({ code: 'EISDIR' });
});

test('AsideFile: pieces of any size are written in their order; where the source fails, nothing stays', async () => {
  using folder = new TempFolder();
  const contents = [1, 70_000, 2_000_000, 0, 5, 1_048_576, 1_048_575, 3].map((bytes) => randomBytes(bytes));
  const pieces = contents.map((content) => new Uint8Array(content));
  {
    using file = new AsideFile(folder.join('file'));
    await file.write(
      (async function* () {
        yield* pieces;
      })(),
    );
    file.keep(false);
  }
  expect(readFileSync(folder.join('file')).equals(Buffer.concat(contents))).toBe(true);
  const failing = (async function* (): AsyncGenerator<Uint8Array> {
    yield* pieces;
    throw new Error('the source is gone');
  })();
  const attempt = async (): Promise<void> => {
    using file = new AsideFile(folder.join('other'));
    await file.write(failing);
  };
  await expect(attempt()).rejects.toThrow('the source is gone');
  expect(readdirSync(folder.path)).toEqual(['file']);
});

test('AsideFile: a disk that is full is the error of the file system', async () => {
  using folder = new TempFolder();
  const script = `
    const { AsideFile } = await import(${JSON.stringify(new URL('../../../client/dist/aside.js', import.meta.url).href)});
    using file = new AsideFile(process.argv[1]);
    await file.write((async function* () { for (let n = 0; n < 40; n += 1) yield Buffer.alloc(65536); })()).catch((error) => console.log(error.code));`;
  // RLIMIT_FSIZE, in blocks of 512 bytes: a file that may not grow stands for a disk without room
  const out = execFileSync('sh', [
    '-c',
    'trap "" XFSZ; ulimit -f 2048; exec "$0" --input-type=module -e "$1" "$2"',
    process.execPath,
    script,
    folder.join('f'),
  ]);
  expect(out.toString().trim()).toBe('EFBIG');
  expect(readdirSync(folder.path)).toEqual([]);
});

test('AsideFile: what is written gives its memory back, unless others have a part of it', async () => {
  using folder = new TempFolder();
  using file = new AsideFile(folder.join('file'));
  const shared = new Uint8Array(20_000).fill(1);
  const [own, part, small] = [new Uint8Array(10_000).fill(2), shared.subarray(0, 10_000), new Uint8Array(16).fill(3)];
  await file.write(
    (async function* () {
      yield* [own, part, small];
    })(),
  );
  expect(own.byteLength).toBe(0);
  expect([shared.byteLength, part.byteLength, small.byteLength]).toEqual([20_000, 10_000, 16]);
});

/** Runs a few lines that write a file aside, under faults of the system. @returns what they print. */
function runUnder(faults: Parameters<typeof withFaults>[0], file: string, lines: string): string {
  const script = `
    const { AsideFile } = await import(${JSON.stringify(new URL('../../../client/dist/aside.js', import.meta.url).href)});
    const pieces = async function* (count) { for (let n = 0; n < count; n += 1) yield Buffer.alloc(2 ** 20, n); };
    ${lines}`;
  const [strace = '', ...args] = withFaults(faults);
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' }; // strace counts the calls of each thread by itself
  return execFileSync(strace, [...args, process.execPath, '--input-type=module', '-e', script, file], { env })
    .toString()
    .trim();
}

test.skipIf(!canInject)('AsideFile: a disk that fails while it takes what was written first ends the file, and nothing stays (needs root and strace)', () => {
  using folder = new TempFolder();
  const write = `using file = new AsideFile(process.argv[1]);
    await file.write(pieces(80)).then(() => file.keep(false)).catch((error) => console.log(error.code));`;
  const writeUnder = (when: string): string => runUnder({ calls: 'fdatasync', error: 'EIO', when }, folder.join('f'), write);
  expect(writeUnder('1')).toBe('EIO'); // the system says it once
  expect(readdirSync(folder.path)).toEqual([]);
  expect(writeUnder('4')).toBe(''); // 80 MiB are flushed three times at most
  expect(readFileSync(folder.join('f')).length).toBe(80 * 2 ** 20);
});

test.skipIf(!canInject)('AsideFile: a source that fails while the disk takes what was written: the file is closed after that (needs root and strace)', () => {
  using folder = new TempFolder();
  const write = `const failing = async function* () { yield* pieces(34); throw new Error('gone'); };
    const file = new AsideFile(process.argv[1]);
    const started = performance.now();
    await file.write(failing()).catch(() => console.log(performance.now() - started > 250));
    file[Symbol.dispose]();`;
  expect(runUnder({ calls: 'fdatasync', error: 'SLOW' }, folder.join('f'), write)).toBe('true');
  expect(readdirSync(folder.path)).toEqual([]);
});
