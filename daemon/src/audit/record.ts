import { hash } from 'node:crypto';
import type { AuditRecord as WireRecord } from '@kms-agent/protocol';

/** A record as it stands in the file, one line of JSON; never a plaintext, a ciphertext, an AAD or a secret. */
export type AuditRecord = Readonly<WireRecord>;

/** What is recorded of a request, or of what the agent did by itself; number, time and chain are added when it is written. */
export type AuditEntry = Omit<AuditRecord, 'seq' | 'time' | 'previous' | 'number' | 'mac'>;

/** What stands for the line before the first. */
export const noHash = '0'.repeat(64);

/** SHA-256 of a line without its line feed; hex. */
export const hashLine = (line: string): string => hash('sha256', line, 'hex');

/** The system's name of an error, and nothing else of it: no path leaves. */
export function errorNameOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
}

const escapeCharacter = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** Writes a record as its line, in ASCII, so that a byte that is none can only be damage. The order of the fields is that of their making. */
export function encodeRecord(record: AuditRecord): string {
  const line = JSON.stringify(record);
  const isPrintable = Buffer.byteLength(line) === line.length && !line.includes('\u007f'); // nearly always, and a tenth of the time of the expression
  return isPrintable ? line : line.replace(/[\u007f-\uffff]/g, escapeCharacter);
}

type Test = (value: unknown) => boolean;

const isText: Test = (value) => typeof value === 'string';
const isCount: Test = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
const isHash: Test = (value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
/** Digits that a u64 surely holds. */
const isRevision: Test = (value) => typeof value === 'string' && /^\d{1,19}$/.test(value);
const isDetail: Test = (value) =>
  typeof value === 'object' && value !== null && Object.values(value).every((one) => ['string', 'number', 'boolean'].includes(typeof one));
const isCaller: Test = (value) => {
  if (typeof value !== 'object' || value === null) return false;
  const { uid, gid, pid = 0, unit = '', exe = '' } = value as Record<string, unknown>; // any object has such properties, or undefined
  return isCount(uid) && isCount(gid) && isCount(pid) && isText(unit) && isText(exe);
};

const required: readonly (readonly [keyof AuditRecord, Test])[] = [
  ['seq', (value) => isCount(value) && value !== 0],
  ['time', isText],
  ['operation', isText],
  ['outcome', isText],
  ['previous', isHash],
];
const optional: readonly (readonly [keyof AuditRecord, Test])[] = [
  ['error', isText],
  ['caller', isCaller],
  ['keyId', isText],
  ['keyVersionId', isText],
  ['sourceKeyId', isText],
  ['requestId', isText],
  ['notification', (value) => typeof value === 'boolean'],
  ['vaultRevision', isRevision],
  ['detail', isDetail],
  ['number', isCount],
  ['mac', isHash],
];

function isRecord(value: unknown): value is AuditRecord {
  if (typeof value !== 'object' || value === null) return false;
  const fields = value as Record<string, unknown>; // any object has such properties, or undefined
  return required.every(([name, test]) => test(fields[name])) && optional.every(([name, test]) => fields[name] === undefined || test(fields[name]));
}

/** Reads a line; undefined for what is no record: whoever reads on works with fields that are what they are said to be. Fields of later versions pass. */
export function decodeRecord(line: string): AuditRecord | undefined {
  try {
    const value: unknown = /^[\x20-\x7e]*$/.test(line) ? JSON.parse(line) : undefined;
    return isRecord(value) ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
