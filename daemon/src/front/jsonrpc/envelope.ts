import { AgentError } from '@kms-agent/protocol';

/** A request whose envelope is that of JSON-RPC 2.0; its parameters are not looked at yet. */
export interface Envelope {
  readonly jsonrpc: '2.0';
  /** Absent for a notification. */
  readonly id?: string | number | null;
  readonly method: string;
  readonly params?: Record<string, unknown>;
}

const maxIdChars = 128;
const members = new Set(['jsonrpc', 'id', 'method', 'params']);

function isId(value: unknown): value is string | number | null {
  if (typeof value === 'string') return value.length <= maxIdChars;
  return value === null || Number.isSafeInteger(value);
}

/** Whether a JSON value is an object by JSON's own meaning. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Checks an envelope (JSON-RPC 2.0, section 4) before the library sees it: it echoes ids of any kind, takes no method for a notification, and rejects on null.
 * Members that JSON-RPC does not know are refused, like everything that would otherwise be ignored.
 *
 * @throws AgentError `ERR_INVALID_REQUEST`, to be answered with `id: null`.
 */
export function checkEnvelope(value: unknown): Envelope {
  const valid =
    isObject(value) &&
    value['jsonrpc'] === '2.0' &&
    typeof value['method'] === 'string' &&
    (!Object.hasOwn(value, 'id') || isId(value['id'])) &&
    (!Object.hasOwn(value, 'params') || (typeof value['params'] === 'object' && value['params'] !== null)) &&
    Object.keys(value).every((name) => members.has(name));
  if (!valid) throw new AgentError('ERR_INVALID_REQUEST');
  return value as unknown as Envelope; // all of it was checked, but for arrays in params, which decoding refuses by name
}

/** A response of JSON-RPC 2.0, section 5. */
export interface Response {
  readonly jsonrpc: '2.0';
  readonly id: string | number | null;
  readonly result?: unknown;
  readonly error?: unknown;
}
