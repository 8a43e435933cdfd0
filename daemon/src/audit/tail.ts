import type { AuditFilters, TailAuditParams, TailAuditResult } from '@kms-agent/protocol';
import { readAfter } from './reading.ts';
import type { AuditRecord } from './record.ts';

const defaultLimit = 100;

/** Records that one look goes over: with filters that nothing passes, an answer is empty rather than long to wait for. */
const maxScanned = 20_000;

/** Bytes of an answer that its envelope may need beside the records. */
const envelopeReserveBytes = 4096;

function fits(record: AuditRecord, { keyId, method, uid, unit, exe, outcome }: AuditFilters): boolean {
  if (keyId !== undefined && record.keyId !== keyId && record.sourceKeyId !== keyId) return false;
  if (method !== undefined && record.operation !== method) return false;
  if (uid !== undefined && record.caller?.uid !== uid) return false;
  if (unit !== undefined && record.caller?.unit !== unit) return false;
  if (exe !== undefined && record.caller?.exe !== exe) return false;
  return outcome === undefined || record.outcome === outcome;
}

/** What a look goes over. */
export interface TailOptions {
  readonly folder: string;
  /** Number of the last record that is written. */
  readonly endSeq: number;
  /** Bytes that the answer may have. */
  readonly maxBytes: number;
}

/** Reads records after a number, or those at the end. Lines that are no record are passed over: audit verify names them. */
export async function tailRecords(
  { folder, endSeq, maxBytes }: TailOptions,
  { afterSeq, filters = {}, limit = defaultLimit }: TailAuditParams,
): Promise<TailAuditResult> {
  const start = afterSeq ?? Math.max(endSeq - limit, 0);
  const records: AuditRecord[] = [];
  let nextSeq = start;
  let bytes = envelopeReserveBytes;
  for await (const { line, record } of readAfter(folder, start)) {
    if (!record || record.seq <= start) continue;
    if (record.seq > endSeq || records.length === limit || record.seq - start > maxScanned) break;
    if (fits(record, filters)) {
      bytes += Buffer.byteLength(line) + 1;
      if (records.length > 0 && bytes > maxBytes) break;
      records.push(record);
    }
    nextSeq = record.seq;
  }
  return { records, nextSeq, endSeq };
}
