import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A line of the audit record, as far as tests look at it. */
export interface AuditLine {
  readonly seq: number;
  readonly operation: string;
  readonly outcome: string;
  readonly error?: string;
  readonly keyId?: string;
  readonly detail?: Readonly<Record<string, unknown>>;
  readonly caller?: { readonly uid: number };
}

/** Everything that stands in the files of an audit record, oldest first. */
export function readAudit(folder: string): AuditLine[] {
  const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.jsonl')) : [];
  const lines = files.flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'));
  return lines
    .filter((line) => line.endsWith('}'))
    .map((line) => JSON.parse(line) as AuditLine)
    .sort((a, b) => a.seq - b.seq);
}

/** Why the agent locked itself, each time. */
export function reasonsToLock(folder: string): unknown[] {
  return readAudit(folder)
    .filter(({ operation, detail }) => operation === 'lock' && detail)
    .map(({ detail }) => detail?.['because']);
}
