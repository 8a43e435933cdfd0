import { type FileHandle, open } from 'node:fs/promises';

/** Large enough that reading is not what takes the time. */
const pieceBytes = 262_144;

/** Fills a buffer from where the file stands. A failure is heard of when the piece is waited for, not before. */
function startReading(file: FileHandle, buffer: Buffer): Promise<Buffer> {
  const reading = file.read(buffer, 0, buffer.length, null).then(({ bytesRead }) => buffer.subarray(0, bytesRead));
  reading.catch(() => undefined);
  return reading;
}

/**
 * A file piece by piece; the next one is read while a piece is worked on. Pieces share memory: each is good until the one after it is asked for.
 * @throws the file system's error; the reason of `signal`.
 */
export async function* readAhead(path: string, signal?: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  const file = await open(path);
  let [used, free] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  let reading = startReading(file, free);
  try {
    for (;;) {
      const piece = await reading;
      signal?.throwIfAborted();
      if (piece.length === 0) return;
      [used, free] = [free, used];
      reading = startReading(file, free);
      yield piece;
    }
  } finally {
    await Promise.allSettled([reading]); // it writes into the buffer and needs the file
    for (const buffer of [used, free]) buffer.fill(0); // often plaintext
    await file.close();
  }
}
