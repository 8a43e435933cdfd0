import koffi from 'koffi';
import { libc } from './libc.ts';

const malloc = libc.func('void *malloc(size_t size)');
const free = libc.func('void free(void *address)');
const memset = libc.func('void *memset(void *address, int byte, size_t size)');

/**
 * What the bin adds to GLIBC_TUNABLES, where these words stand once more: free(3) overwrites what it takes back, and small pieces are not
 * put aside before it does (mallopt(3), M_PERTURB; "Memory Allocation Tunables" in the manual of glibc). OpenSSL frees the bytes of every
 * private key that it parses as they are. The last 8 bytes of a piece that was used to its end stay.
 */
const tunables = 'glibc.malloc.perturb=255:glibc.malloc.tcache_count=0';
const perturbed = 0xff;

/** Gives the variable back as it was before the bin: it was read when this process began, and what this process starts is not meant. */
export function restoreTunables(): void {
  const { GLIBC_TUNABLES: all = '' } = process.env;
  if (!all.endsWith(tunables)) return;
  const before = all.slice(0, -tunables.length).replace(/:$/, '');
  if (before === '') delete process.env['GLIBC_TUNABLES'];
  else process.env['GLIBC_TUNABLES'] = before;
}

/** Sizes that are tried: another thread may take a piece again before it is looked at. */
const probeSizes = [200, 328, 456, 600];
/** Bytes at the beginning of a free piece that the allocator uses itself, and at its end that it does not overwrite. */
const [ownBytes, keptBytes] = [32, 8];

function isOverwritten(bytes: number): boolean {
  const piece: unknown = malloc(bytes);
  memset(piece, 0x5a, bytes);
  free(piece);
  for (let at = ownBytes; at < bytes - keptBytes; at += 1) if (koffi.decode(piece, at, 'uint8_t') !== perturbed) return false;
  return true;
}

/** Whether free(3) overwrites in this process, seen by doing it. */
export function overwritesFreedMemory(): boolean {
  return probeSizes.some(isOverwritten);
}

/** Whether `collectGarbage` can do anything: `--expose-gc` is among the flags of the bin. */
export const canCollectGarbage = (): boolean => globalThis.gc !== undefined;

/** Frees key objects that nobody holds any more; OpenSSL overwrites what they held. Blocks the event loop: 20 ms, and more with very many keys. */
export function collectKeyObjects(): void {
  globalThis.gc?.();
}

/** Milliseconds between two collections that ends of lifetimes ask for; what SECURITY.md says of them leaves room for it. */
const gatherMs = 4000;
let lastCollected = Number.NEGATIVE_INFINITY;
let gathering: NodeJS.Timeout | undefined;

/** The same, but at once only if that was not done a moment ago: whoever may make keys could have it done again and again, and everybody waits for it. */
export function collectKeyObjectsSoon(collect: () => void = collectKeyObjects): void {
  if (gathering) return;
  const waitMs = lastCollected + gatherMs - performance.now();
  const collectNow = (): void => {
    gathering = undefined;
    collect();
    lastCollected = performance.now();
  };
  if (waitMs <= 0) collectNow();
  else gathering = setTimeout(collectNow, waitMs).unref();
}

/**
 * Frees everything that nobody holds any more: one collection alone leaves strings behind on pages that it does not sweep. Blocks the event loop:
 * 100 ms, and more with very many keys.
 */
export function collectGarbage(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}
