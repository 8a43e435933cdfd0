import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import { parseFrame } from '@kms-agent/protocol';
import { allocateSecret } from '../../os/secret-bytes.ts';
import { isObject } from './envelope.ts';

/** Bytes of JSON (RFC 8259 section 7). */
const [quote, backslash, slash, colon, space] = [0x22, 0x5c, 0x2f, 0x3a, 0x20];
const whitespace: ReadonlySet<number | undefined> = new Set([0x20, 0x09, 0x0a, 0x0d]);

/** The member of params that is kept out of strings, which nobody can overwrite. */
const member = 'pin';
const memberBytes = Buffer.from(`"${member}"`);

/** Longest text in a frame that can be a PIN: 1,024 bytes, each of which may be escaped. */
const maxEncodedBytes = 2048;
/** Texts of one frame that are looked at: as many as a batch has requests by default. A frame with more is parsed as any other. */
const maxSecrets = 256;

/** Where a JSON string ends, from its first quote; undefined for one that is not plain, or too long for a PIN. */
function findEnd(frame: Buffer, start: number): number | undefined {
  for (let at = start + 1; at <= Math.min(start + maxEncodedBytes, frame.length - 1); at += 1) {
    const byte = frame[at] ?? 0;
    if (byte === quote) return at;
    if (byte < space) return undefined;
    if (byte === backslash) at += 1;
  }
  return undefined;
}

/** The content of a JSON string, from its first quote. Undefined for one that is not plain: that is left to JSON.parse. */
function readPlainString(frame: Buffer, start: number): { secret: Buffer; end: number } | undefined {
  const end = findEnd(frame, start);
  if (end === undefined) return undefined;
  const secret = allocateSecret(end - start - 1);
  let length = 0;
  for (let at = start + 1; at < end; at += 1) {
    let byte = frame[at] ?? 0;
    if (byte === backslash) {
      at += 1;
      byte = frame[at] ?? 0;
      if (byte !== quote && byte !== backslash && byte !== slash) return undefined;
    }
    secret[length] = byte;
    length += 1;
  }
  return isUtf8(secret.subarray(0, length)) ? { secret: secret.subarray(0, length), end } : undefined;
}

/** A text that was taken out of a frame: from its quote to its last byte. */
interface Withheld {
  readonly secret: Buffer;
  readonly start: number;
  readonly end: number;
}

function skipWhitespace(frame: Buffer, start: number): number {
  let at = start;
  while (whitespace.has(frame[at])) at += 1;
  return at;
}

/** Every text that stands behind the member's name; what is meant by it only JSON.parse can say. */
function* findSecrets(frame: Buffer): Generator<Withheld> {
  for (let at = frame.indexOf(memberBytes); at !== -1; at = frame.indexOf(memberBytes, at + 1)) {
    const separator = skipWhitespace(frame, at + memberBytes.length);
    const start = skipWhitespace(frame, separator + 1);
    const read = frame[separator] === colon && frame[start] === quote ? readPlainString(frame, start) : undefined;
    if (!read) continue;
    yield { ...read, start };
    at = read.end;
  }
}

/** Puts the secrets back where they belong. @returns whether each of them did. */
function restore(value: unknown, secrets: Map<string, Buffer>): boolean {
  for (const entry of Array.isArray(value) ? value : [value]) {
    const params = isObject(entry) ? entry['params'] : undefined;
    const secret = isObject(params) ? secrets.get(String(params[member])) : undefined;
    if (!isObject(params) || !secret) continue;
    secrets.delete(String(params[member]));
    params[member] = secret;
  }
  return secrets.size === 0;
}

/**
 * Reads the JSON of one frame as parseFrame does, but that the text of `params.pin` comes as bytes, and is overwritten in the frame.
 * A PIN written with rare escapes comes as the string that it is.
 * @throws as parseFrame.
 */
export function parseRequest(frame: Buffer, maxDepth: number): unknown {
  if (!frame.includes(memberBytes)) return parseFrame(frame, maxDepth); // nearly every request
  const found: Withheld[] = [];
  for (const withheld of findSecrets(frame)) if (found.push(withheld) > maxSecrets) break;
  if (found.length === 0 || found.length > maxSecrets) return parseFrame(frame, maxDepth);
  const secrets = new Map(found.map(({ secret }) => [randomUUID() as string, secret]));
  const names = [...secrets.keys()];
  const parts = found.flatMap(({ start }, index) => [frame.subarray(found[index - 1]?.end ?? 0, start), Buffer.from(`"${names[index]}`)]);
  const value = parseFrame(Buffer.concat([...parts, frame.subarray(found.at(-1)?.end)]), maxDepth);
  if (!restore(value, secrets)) return parseFrame(frame, maxDepth); // something else is called so, such as a tag
  for (const { start, end } of found) frame.fill(0, start, end);
  return value;
}
