import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Audit, type AuditOptions } from '../../daemon/src/audit/audit.ts';
import type { AuditState } from '../../daemon/src/audit/chain.ts';
import type { AuditEntry, AuditRecord } from '../../daemon/src/audit/record.ts';
import { firstState } from '../../daemon/src/audit/resume.ts';

/** The start key of a test's record. */
export const startKey = Buffer.alloc(32, 7);

/** An audit record in this process, keyed as by a vault whose state is `kept`. */
export class TestAudit implements Disposable {
  readonly audit: Audit;
  readonly states: string[] = [];
  kept: AuditState | undefined;
  revision = 1n;
  nowMs = Date.UTC(2030, 0, 1);
  /** Moves with the wall clock, unless a test lets that jump. */
  sinceBoot = (): number => this.nowMs;
  isClockBelievable = true;
  /** Whether the vault can be written. */
  canKeep = true;

  constructor(folder: string, options: Partial<AuditOptions> = {}) {
    this.audit = new Audit({
      folder,
      maxFileBytes: 1_000_000_000,
      maxTotalBytes: 1_000_000_000,
      minAgeMs: 0,
      reserveBytes: 4096,
      sync: false,
      checkpointRecords: 100,
      checkpointMs: 3_600_000,
      now: () => this.nowMs,
      sinceBoot: () => this.sinceBoot(),
      onChange: (state) => this.states.push(state),
      ...options,
    });
  }

  /** Ties it to a vault that has not been open before. */
  attach(): this {
    this.audit.attach(firstState(startKey), {
      revision: () => this.revision,
      isClockBelievable: () => this.isClockBelievable,
      keep: (state) => {
        if (!this.canKeep) return false;
        this.kept = { ...state, key: Buffer.from(state.key) };
        return true;
      },
    });
    return this;
  }

  async record(...entries: readonly Partial<AuditEntry>[]): Promise<void> {
    await Promise.all(entries.map((entry) => this.audit.record({ operation: 'sign', outcome: 'ok', requestId: crypto.randomUUID(), ...entry })));
  }

  /** So many records, one after the other. */
  async fill(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) await this.record({});
  }

  [Symbol.dispose](): void {
    this.audit.close();
  }
}

/** Names of the record's files in a folder, oldest first. */
export const auditFiles = (folder: string): string[] => {
  const names = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
  return [...names.filter((name) => name !== 'audit.jsonl').sort(), ...names.filter((name) => name === 'audit.jsonl')];
};

/** Every line of a record. */
export const auditLines = (folder: string): string[] => auditFiles(folder).flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1));

export const auditRecords = (folder: string): AuditRecord[] => auditLines(folder).map((line) => JSON.parse(line) as AuditRecord);
