import { createHash } from 'node:crypto';
import { AgentError } from '@kms-agent/protocol';

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

/**
 * Cuts one page out of sorted ids. What is there during the whole walk appears exactly once: a page continues after an id, not at a count.
 * The page ends early where the answer would exceed `maxBytes`.
 *
 * @param read - the item of an id, or undefined where it is filtered out.
 */
export function takePage<T>(
  ids: readonly string[],
  request: PageRequest,
  filters: unknown,
  maxBytes: number,
  read: (id: string) => T | undefined,
): { items: T[]; nextToken?: string } {
  const after = readToken(request.nextToken, filters);
  const limit = request.limit ?? defaultLimit;
  const items: T[] = [];
  let bytes = envelopeReserveBytes;
  let last = after;
  for (const id of ids) {
    if (id <= after) continue;
    const item = read(id);
    if (item === undefined) continue;
    bytes += Buffer.byteLength(JSON.stringify(item)) + 1;
    if (items.length > 0 && (items.length === limit || bytes > maxBytes)) return { items, nextToken: makeToken(last, filters) };
    items.push(item);
    last = id;
  }
  return { items };
}
