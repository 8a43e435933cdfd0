import { AgentError, isAgentError } from '@kms-agent/protocol';
import type { AuditState, ChainEnd } from './chain.ts';
import { ChainWriter } from './chain-writer.ts';
import { type AuditAnchor, type CheckpointLimits, Checkpoints } from './checkpoints.ts';
import { AuditFolder, type AuditLimits } from './folder.ts';
import { OldFiles } from './old-files.ts';
import { type AuditHealth, Outage, unavailable } from './outage.ts';
import type { AuditEntry } from './record.ts';
import { type KeepLimits, Retention } from './retention.ts';

/** What an audit record is kept with. */
export interface AuditOptions extends AuditLimits, KeepLimits, CheckpointLimits {
  readonly folder: string;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** Milliseconds since the machine started, suspension included. */
  readonly sinceBoot: () => number;
  /** Hears each time that the record cannot be written, and when it can again. */
  readonly onChange: (state: AuditHealth, error?: unknown) => void;
}

interface Pending {
  readonly entry: AuditEntry;
  readonly written?: () => void;
  readonly failed?: (error: AgentError) => void;
}

/**
 * The audit record: append-only, chained, and keyed at checkpoints. What is asked for in one turn of the event loop is written in one write,
 * and nobody's promise resolves before that write has returned.
 */
export class Audit {
  readonly #options: AuditOptions;
  readonly #folder: AuditFolder;
  readonly #chain: ChainWriter;
  readonly #outage: Outage;
  readonly #oldFiles: OldFiles;
  readonly #checkpoints: Checkpoints;
  #queue: Pending[] = [];
  #flushing: NodeJS.Immediate | undefined;
  #closed = false;

  /** Opens the folder and goes on where its last record ends. @throws AgentError `ERR_STATE_CONFLICT`; `ERR_AUDIT_UNAVAILABLE` when it cannot be written. */
  constructor(options: AuditOptions) {
    this.#options = options;
    const { folder, end, cutBytes } = openFolder(options);
    const { now, onChange } = options;
    const note = (entry: AuditEntry): void => this.note(entry);
    const chain = new ChainWriter({ folder, end, now, onTampering: (detail) => note({ operation: 'audit', outcome: 'failed', error: 'tampered', detail }) });
    const write = (entries: readonly AuditEntry[]): void => chain.write(entries);
    const outage = new Outage({ folder, write, onChange, onOver: (written) => this.#checkpoints.countLater(written) });
    const retention = new Retention(folder.path, options);
    const oldFiles = new OldFiles({ folder, retention, announce: (entry, written) => this.#push({ entry, written }), note });
    this.#folder = folder;
    this.#chain = chain;
    this.#outage = outage;
    this.#oldFiles = oldFiles;
    this.#checkpoints = new Checkpoints({ chain, oldFiles, outage, limits: options });
    if (cutBytes > 0) note({ operation: 'recover', outcome: 'ok', detail: { cutBytes } });
  }

  get folder(): string {
    return this.#folder.path;
  }

  /** Of the last record. */
  get seq(): number {
    return this.#chain.end.seq;
  }

  get end(): ChainEnd {
    return this.#chain.end;
  }

  get health(): AuditHealth {
    return this.#outage.failure === undefined ? 'ok' : 'failed';
  }

  /** @throws AgentError `ERR_AUDIT_UNAVAILABLE` while nothing can be recorded. */
  requireHealthy(): void {
    if (this.#outage.failure !== undefined) throw unavailable(this.#outage.failure);
  }

  /** Records one entry. Resolves when it is written. @throws AgentError `ERR_AUDIT_UNAVAILABLE`. */
  record(entry: AuditEntry): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#push({ entry, written: resolve, failed: reject });
    return promise;
  }

  /** Records one entry, and all that waits, before it returns. @throws AgentError `ERR_AUDIT_UNAVAILABLE`. */
  recordNow(entry: AuditEntry): void {
    let failure: AgentError | undefined = unavailable(undefined); // a closed record writes nothing and says nothing
    const written = (): void => {
      failure = undefined;
    };
    const failed = (error: AgentError): void => {
      failure = error;
    };
    this.#push({ entry, written, failed });
    this.flush();
    if (failure) throw failure;
  }

  /** Records what has happened already: if it cannot be written now, it is when it can. */
  note(entry: AuditEntry): void {
    this.#push({ entry, failed: () => this.#outage.owe(entry) });
  }

  /** Counts a request that was refused, or answered unrecorded, because nothing can be written. */
  countUnrecorded(): void {
    this.#outage.count();
  }

  /** Ties the record to the vault that was opened. @param state - key and number of the next checkpoint; a process that has them goes on with its own. */
  attach(state: Pick<AuditState, 'key' | 'number' | 'droppedSeq'> | undefined, anchor: AuditAnchor): void {
    this.#checkpoints.attach(state, anchor);
  }

  /** Of the vault, as the last checkpoint of this process saw it. */
  get vaultRevision(): bigint {
    return this.#checkpoints.vaultRevision;
  }

  /** Whether this process knows the key: the record needs no look at its files again. */
  get isKeyed(): boolean {
    return this.#checkpoints.isKeyed;
  }

  /** The vault is about to be locked: one more checkpoint is kept in it. */
  detach(): void {
    this.flush();
    this.#checkpoints.detach();
  }

  /** Opens the file anew (SIGHUP). */
  reopen(): void {
    this.flush();
    try {
      this.#folder.reopen();
    } catch (error) {
      this.#outage.begin(error);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.flush();
    this.#checkpoints.close();
    this.#closed = true;
    this.#outage.close();
    this.#folder.close();
  }

  #push(pending: Pending): void {
    this.#queue.push(pending);
    if (this.#queue.length === 1) this.#flushing = setImmediate(() => this.flush()); // after what else this turn of the event loop records: what comes from the thread pool has a tick each
  }

  /** Writes what waits, in one write. By itself that is done once in a turn of the event loop. */
  flush(): void {
    if (this.#closed || this.#queue.length === 0) return;
    clearImmediate(this.#flushing);
    const batch = this.#queue;
    this.#queue = [];
    try {
      if (this.#outage.failure !== undefined) throw this.#outage.failure;
      this.#chain.write(batch.map(({ entry }) => entry));
    } catch (error) {
      this.#outage.begin(error);
      for (const { failed } of batch) failed?.(unavailable(error));
      return;
    }
    for (const { written } of batch) written?.();
    this.#checkpoints.count(batch.length);
    if (this.#folder.hasRotated()) this.#lookForOldFiles();
  }

  /** While the vault is locked old files wait, and where a least age is set only an open vault, which knows of clocks that jumped, says how old they are. */
  #lookForOldFiles(): void {
    this.#oldFiles.look(this.#checkpoints.isClockBelievable ? this.#options.now() : undefined, this.#options.sinceBoot());
  }
}

/** Opens the folder for good, with its reserve. @throws as the constructor of Audit; with a hint for the command line. */
function openFolder(options: AuditOptions): { folder: AuditFolder; end: ChainEnd; cutBytes: number } {
  try {
    const folder = new AuditFolder(options.folder, options);
    const { cutBytes, ...end } = folder.open();
    folder.keepReserve();
    return { folder, end, cutBytes };
  } catch (cause) {
    if (isAgentError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AgentError(
      'ERR_AUDIT_UNAVAILABLE',
      { hint: `The audit record in ${options.folder} cannot be written, and nothing is served without one: ${reason}` },
      { cause },
    );
  }
}
