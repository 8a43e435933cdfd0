import { AgentError } from '@kms-agent/protocol';
import type { AuditFolder } from './folder.ts';
import { type AuditEntry, errorNameOf } from './record.ts';

export type AuditHealth = 'ok' | 'failed';

/** Milliseconds between two tries to write again. */
const retryMs = 1000;
/** Records that wait for the disk while it cannot be written; what comes after is only counted. */
const maxOwed = 10_000;

/** Refuses what cannot be recorded. */
export const unavailable = (cause: unknown): AgentError => new AgentError('ERR_AUDIT_UNAVAILABLE', {}, { cause });

/** What an outage works with. */
export interface OutageOptions {
  readonly folder: AuditFolder;
  /** @throws the system's error. */
  readonly write: (entries: readonly AuditEntry[]) => void;
  /** Hears each time that the record cannot be written, and when it can again. */
  readonly onChange: (state: AuditHealth, error?: unknown) => void;
  /** Hears how many records were written once it was over. */
  readonly onOver: (written: number) => void;
}

/** The time while nothing can be written: what must not be lost waits, the rest is counted, and writing is tried again and again. */
export class Outage {
  readonly #options: OutageOptions;
  /** What must not be lost although it could not be written yet. */
  #owed: AuditEntry[] = [];
  #lost = 0;
  #failure: unknown;
  #retryTimer: NodeJS.Timeout | undefined;

  constructor(options: OutageOptions) {
    this.#options = options;
  }

  /** Why nothing can be written; undefined while it can. */
  get failure(): unknown {
    return this.#failure;
  }

  owe(entry: AuditEntry): void {
    if (this.#owed.length < maxOwed) this.#owed.push(entry);
    else this.#lost += 1;
  }

  /** Counts a request that nothing is recorded of. */
  count(): void {
    this.#lost += 1;
  }

  /** A write failed. During an outage that is nothing new. */
  begin(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#options.onChange('failed', error);
    this.#record(error);
    this.#retryLater();
  }

  close(): void {
    clearTimeout(this.#retryTimer);
  }

  /** The reserve is given up, so that the record says itself why it has a gap in time. */
  #record(error: unknown): void {
    const entry: AuditEntry = { operation: 'audit', outcome: 'failed', error: errorNameOf(error) };
    try {
      this.#options.folder.giveUpReserve();
      this.#options.write([entry]);
    } catch {
      this.owe(entry); // not even that can be written; it is when the disk is back
    }
  }

  #retryLater(): void {
    this.#retryTimer = setTimeout(() => this.#retry(), retryMs);
    this.#retryTimer.unref();
  }

  /** Over when the reserve can be kept again and everything that is owed is written. */
  #retry(): void {
    let written: number;
    try {
      written = this.#writeOwed();
    } catch {
      this.#retryLater(); // the failure is known and told already
      return;
    }
    this.#failure = undefined;
    this.#options.onChange('ok');
    this.#options.onOver(written);
  }

  #writeOwed(): number {
    const { folder, write } = this.#options;
    folder.reopen();
    folder.keepReserve();
    const entries: AuditEntry[] = [...this.#owed, { operation: 'audit', outcome: 'ok', detail: { unrecorded: this.#lost } }];
    write(entries);
    this.#owed = [];
    this.#lost = 0;
    return entries.length;
  }
}
