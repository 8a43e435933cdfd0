const quietMs = 1000;
const redrawMs = 100;
const barColumns = 30;

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** A number of bytes as a person reads it. */
function describeBytes(bytes: number): string {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), units.length - 1);
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** One line: a bar where the end is known, how much, and how fast. */
export function formatProgress(readBytes: number, totalBytes: number | undefined, elapsedMs: number): string {
  const rate = `${describeBytes(readBytes)}  ${describeBytes((readBytes / Math.max(elapsedMs, 1)) * 1000)}/s`;
  if (totalBytes === undefined || totalBytes === 0) return rate;
  const done = Math.min(readBytes / totalBytes, 1);
  const filled = Math.floor(done * barColumns);
  return `[${'#'.repeat(filled)}${'.'.repeat(barColumns - filled)}] ${String(Math.floor(done * 100)).padStart(3)} %  ${rate}`;
}

/** Where progress is drawn. */
export type ProgressTerminal = Pick<NodeJS.WriteStream, 'write'> & { readonly isTTY?: boolean };

/** Hands the pieces through and draws, on a terminal only, how far it is, once it takes longer than a second. */
export async function* showProgress<T extends Uint8Array>(
  source: AsyncIterable<T>,
  totalBytes: number | undefined,
  terminal: ProgressTerminal = process.stderr,
): AsyncGenerator<T, void, undefined> {
  const startMs = performance.now();
  let [readBytes, drawnMs] = [0, 0];
  try {
    for await (const piece of source) {
      readBytes += piece.length;
      const elapsedMs = performance.now() - startMs;
      if (terminal.isTTY && elapsedMs > quietMs && elapsedMs - drawnMs > redrawMs) {
        terminal.write(`\r${formatProgress(readBytes, totalBytes, elapsedMs)}\u001b[K`);
        drawnMs = elapsedMs;
      }
      yield piece;
    }
  } finally {
    if (drawnMs > 0) terminal.write('\r\u001b[K');
  }
}
