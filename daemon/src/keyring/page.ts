import { createHash } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';
import type { SortedIds } from './sorted-ids.ts';

/** Which slice of a sorted list is wanted. */
export interface PageRequest {
  readonly limit?: number;
  readonly nextToken?: string;
}

const defaultLimit = 100;

/** Bytes of an answer that its envelope may need beside the list. */
const envelopeReserveBytes = 4096;

const fingerprint = (filters: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(filters ?? null))
    .digest('base64url')
    .slice(0, 11);

/** The id after which the page begins. @throws AgentError `ERR_INVALID_PARAMS` for a token of another list or filter. */
function readToken(token: string | undefined, filters: unknown): string {
  if (token === undefined) return '';
  const [mark, after] = Buffer.from(token, 'base64url').toString('utf8').split('\n');
  if (mark !== fingerprint(filters) || !after)
    throw new AgentError('ERR_INVALID_PARAMS', { path: '/nextToken', reason: 'is not a token of this list and these filters' });
  return after;
}

const makeToken = (after: string, filters: unknown): string => Buffer.from(`${fingerprint(filters)}\n${after}`).toString('base64url');

/** Ids that one page looks at: with filters that nothing passes, a page is empty rather than long to wait for. */
const maxScanned = 5000;

/**
 * Cuts one page out of sorted ids. What is there during the whole walk appears exactly once: a page continues after an id, not at a count.
 * The page ends early where the answer would exceed `maxBytes`, or after 5000 ids that were filtered out.
 *
 * @param read - the item of an id, or undefined where it is filtered out.
 */
export function takePage<T>(
  ids: SortedIds,
  request: PageRequest,
  filters: unknown,
  maxBytes: number,
  read: (id: string) => T | undefined,
): { items: T[]; nextToken?: string } {
  const limit = request.limit ?? defaultLimit;
  const items: T[] = [];
  let bytes = envelopeReserveBytes;
  let last = readToken(request.nextToken, filters);
  const start = ids.indexAfter(last);
  for (let index = start; index < ids.length; index += 1) {
    const id = ids.at(index) ?? '';
    if (items.length === limit || index - start === maxScanned) return { items, nextToken: makeToken(last, filters) };
    const item = read(id);
    if (item !== undefined) {
      bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
      if (items.length > 0 && bytes > maxBytes) return { items, nextToken: makeToken(last, filters) };
      items.push(item);
    }
    last = id;
  }
  return { items };
}
