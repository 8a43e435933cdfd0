import { setImmediate } from 'node:timers/promises';
import type { PageTokens } from './page-tokens.ts';

/** Milliseconds that a page takes of the event loop at once: others have their turn in between. */
const turnMs = 2;

/** Which slice of a list is wanted. */
export interface PageRequest {
  readonly limit?: number;
  readonly nextToken?: string;
}

const defaultLimit = 100;

/** Bytes of an answer that its envelope may need beside the list. */
const envelopeReserveBytes = 4096;

/** Ids that one page looks at: with filters that nothing passes, a page is empty rather than long to wait for. */
const maxScanned = 5000;

/** The ids of a list in its order. */
export interface PageIds {
  readonly length: number;
  /** The id at a place; undefined past the end. */
  at(index: number): string | undefined;
  /** The place of the first id that comes after `id`; 0 for an empty one. */
  indexAfter(id: string): number;
}

/** How a list is cut into pages. */
export interface PageOptions<T> {
  readonly ids: PageIds;
  readonly request: PageRequest;
  /** What the list is of: its kind and its filters. A token is good for this alone. */
  readonly list: unknown;
  readonly tokens: PageTokens;
  readonly maxBytes: number;
  /** The item of an id, or undefined where it is filtered out. */
  readonly read: (id: string) => T | undefined;
}

/**
 * Cuts one page out of a list. What is there during the whole walk appears exactly once: a page continues after an id, not at a count.
 * The page ends early where the answer would exceed `maxBytes`, or after 5000 ids that were filtered out.
 * Ids may come and go while it waits for its next turn.
 */
export async function takePage<T>({ ids, request, list, tokens, maxBytes, read }: PageOptions<T>): Promise<{ items: T[]; nextToken?: string }> {
  const limit = request.limit ?? defaultLimit;
  const items: T[] = [];
  let bytes = envelopeReserveBytes;
  let last = tokens.read(request.nextToken, list);
  let turnEnd = performance.now() + turnMs;
  for (let scanned = 0, index = ids.indexAfter(last); index < ids.length; scanned += 1, index += 1) {
    if (items.length === limit || scanned === maxScanned) return { items, nextToken: tokens.write(last, list) };
    const id = ids.at(index) ?? '';
    const item = read(id);
    if (item !== undefined) {
      bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
      if (items.length > 0 && bytes > maxBytes) return { items, nextToken: tokens.write(last, list) };
      items.push(item);
    }
    last = id;
    if (performance.now() < turnEnd) continue;
    await setImmediate();
    turnEnd = performance.now() + turnMs;
    index = ids.indexAfter(last) - 1;
  }
  return { items };
}
