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

/** Writes a record as its line. The order of the fields is that of their making. */
export function encodeRecord(record: AuditRecord): string {
  return JSON.stringify(record);
}

/** Reads a line; undefined for what is no record. */
export function decodeRecord(line: string): AuditRecord | undefined {
  try {
    const record = JSON.parse(line) as Partial<AuditRecord> | null; // the next lines check it
    if (record === null || typeof record !== 'object' || !Number.isSafeInteger(record.seq) || typeof record.previous !== 'string') return undefined;
    return typeof record.operation === 'string' && typeof record.time === 'string' && typeof record.outcome === 'string' ? (record as AuditRecord) : undefined;
  } catch {
    return undefined; // not JSON
  }
}
