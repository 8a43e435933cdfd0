import { z } from 'zod';
import { openEnum, schemaOf, text, timestamp, uuid } from '../schema.ts';

/**
 * How a request went: what changes something is `begun` before it runs and `done` or `failed` after; everything else is `ok`, `denied` or `failed`.
 * `unknown` is the end of a change that a killed agent had begun, where the vault does not show what came of it.
 */
export const auditOutcomes = ['begun', 'done', 'ok', 'denied', 'failed', 'unknown'] as const;
export type AuditOutcome = (typeof auditOutcomes)[number];

/** Who asked: the process that connected. */
export interface AuditCaller {
  uid: number;
  gid: number;
  pid?: number;
  /** There when a rule asked for it. */
  unit?: string;
  exe?: string;
}

/** One line of the audit record. */
export interface AuditRecord {
  /** From 1, without a gap. */
  seq: number;
  time: string;
  /** A method, `unknown` for what is none, or an act of the agent's own: start, stop, unlock, lock, rotate, destroy, checkpoint and the like. */
  operation: string;
  outcome: AuditOutcome;
  /** The code of the error. */
  error?: string;
  /** Absent for what the agent did by itself. */
  caller?: AuditCaller;
  keyId?: string;
  keyVersionId?: string;
  /** Of reEncrypt: where the plaintext came from. */
  sourceKeyId?: string;
  requestId?: string;
  /** Nobody read the answer. */
  notification?: boolean;
  /** Of `begun` and of checkpoints: revision of the vault, in decimal. */
  vaultRevision?: string;
  detail?: Record<string, string | number | boolean>;
  /** Of a checkpoint: its number from 0, and its HMAC-SHA-256 in hex. */
  number?: number;
  mac?: string;
  /** SHA-256 of the line before, in hex. */
  previous: string;
}

const auditRecord = z.object({
  seq: z.int(),
  time: timestamp(),
  operation: z.string(),
  outcome: openEnum(auditOutcomes),
  error: z.string().exactOptional(),
  caller: z
    .object({ uid: z.int(), gid: z.int(), pid: z.int().exactOptional(), unit: z.string().exactOptional(), exe: z.string().exactOptional() })
    .exactOptional(),
  keyId: z.string().exactOptional(),
  keyVersionId: z.string().exactOptional(),
  sourceKeyId: z.string().exactOptional(),
  requestId: z.string().exactOptional(),
  notification: z.boolean().exactOptional(),
  vaultRevision: z.string().exactOptional(),
  detail: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).exactOptional(),
  number: z.int().exactOptional(),
  mac: z.string().exactOptional(),
  previous: z.string(),
});

/** Which records are meant; all that is given must fit. */
export interface AuditFilters {
  /** Also where a plaintext was moved from. */
  keyId?: string;
  /** A method, or an act of the agent's own. */
  method?: string;
  uid?: number;
  /** As the record writes it; only records for which a rule asked for the unit have one. */
  unit?: string;
  /** Real path of the program; likewise. */
  exe?: string;
  outcome?: AuditOutcome;
}

export interface TailAuditParams {
  /** Only records after this one. Default: as many as `limit` at the end of the record are looked at. */
  afterSeq?: number;
  filters?: AuditFilters;
  /** Most records in the answer, 1 to 1,000. Default 100. */
  limit?: number;
}
export const tailAuditParams = schemaOf<TailAuditParams>()(
  z.strictObject({
    afterSeq: z.int().min(0).exactOptional(),
    filters: z
      .strictObject({
        keyId: uuid().exactOptional(),
        method: text({ min: 1, max: 64 }).exactOptional(),
        uid: z.int().min(0).max(4_294_967_294).exactOptional(),
        unit: text({ min: 1, max: 512 }).exactOptional(),
        exe: text({ min: 1, max: 4096 }).exactOptional(),
        outcome: z.enum(auditOutcomes).exactOptional(),
      })
      .exactOptional(),
    limit: z.int().min(1).max(1000).exactOptional(),
  }),
);

export interface TailAuditResult {
  records: AuditRecord[];
  /** What was looked at: ask again after it. An answer may be empty although there is more, because a look has its bounds. */
  nextSeq: number;
  /** The last record that was written when this look began; the call itself comes after it. */
  endSeq: number;
}
export const tailAuditResult = schemaOf<TailAuditResult>()(z.object({ records: z.array(auditRecord), nextSeq: z.int(), endSeq: z.int() }));
