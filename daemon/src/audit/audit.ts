import { AgentError, isAgentError } from '@kms-agent/protocol';
import { type AuditState, type ChainEnd, macCheckpoint, nextKey } from './chain.ts';
import { AuditFolder, type AuditLimits } from './folder.ts';
import { type AuditEntry, type AuditRecord, encodeRecord, hashLine } from './record.ts';

/** What an audit record is kept with. */
export interface AuditOptions extends AuditLimits {
  readonly folder: string;
  /** Records after which a checkpoint is made. */
  readonly checkpointRecords: number;
  /** Milliseconds after which one is made, if there are records. */
  readonly checkpointMs: number;
  /** Wall clock, milliseconds since the epoch. */
  readonly now: () => number;
  /** Hears each time that the record cannot be written, and when it can again. */
  readonly onChange: (state: AuditHealth, error?: unknown) => void;
}

export type AuditHealth = 'ok' | 'failed';

/** What ties the record to an open vault. */
export interface AuditAnchor {
  /** Of the vault, as it is now. */
  revision(): bigint;
  /** Whether the wall clock can be believed when something is about to be lost for good. */
  isClockBelievable(): boolean;
  /** Keeps the state, sealed and durable. @returns whether it could; else what is kept is older. */
  keep(state: AuditState): boolean;
}

interface Pending {
  readonly entry: AuditEntry;
  readonly written?: () => void;
  readonly failed?: (error: AgentError) => void;
}

/** Milliseconds between two tries to write again. */
const retryMs = 1000;
/** Records that wait for the disk while it cannot be written; what comes after is only counted. */
const maxOwed = 10_000;

const unavailable = (cause: unknown): AgentError => new AgentError('ERR_AUDIT_UNAVAILABLE', {}, { cause });

/**
 * The audit record: append-only, chained, and keyed at checkpoints. What is asked for in one turn of the event loop is written in one write,
 * and nobody's promise resolves before that write has returned.
 */
export class Audit {
  readonly #options: AuditOptions;
  readonly #folder: AuditFolder;
  #end: ChainEnd;
  #queue: Pending[] = [];
  #flushing: NodeJS.Immediate | undefined;
  /** What must not be lost although it could not be written yet. */
  #owed: AuditEntry[] = [];
  #lost = 0;
  #failure: unknown;
  #retryTimer: NodeJS.Timeout | undefined;
  #checkpointTimer: NodeJS.Timeout | undefined;
  #sinceCheckpoint = 0;
  #key: { key: Buffer; number: number } | undefined;
  #anchor: AuditAnchor | undefined;
  #revision = 0n;
  /** The last record of those that are deleted, as the vault knows it. */
  #droppedSeq = 0;
  /** Files that go when the vault knows of it, and the last record of each. */
  readonly #dropping = new Map<string, number>();
  #closed = false;
  /** Numbers of changes that have begun and not ended, by request: in the order of their beginning. */
  readonly #openChanges = new Map<string, number>();

  /** Files that are recorded as dropped and could not be deleted yet. */
  readonly #undropped = new Set<string>();

  /** Opens the folder and goes on where its last record ends. @throws AgentError `ERR_STATE_CONFLICT`; `ERR_AUDIT_UNAVAILABLE` when it cannot be written. */
  constructor(options: AuditOptions) {
    this.#options = options;
    const { folder, end, cutBytes } = openFolder(options);
    this.#folder = folder;
    this.#end = end;
    if (cutBytes > 0) this.note({ operation: 'recover', outcome: 'ok', detail: { cutBytes } });
  }

  get folder(): string {
    return this.#folder.path;
  }

  /** Of the last record. */
  get seq(): number {
    return this.#end.seq;
  }

  get end(): ChainEnd {
    return this.#end;
  }

  get health(): AuditHealth {
    return this.#failure === undefined ? 'ok' : 'failed';
  }

  /** @throws AgentError `ERR_AUDIT_UNAVAILABLE` while nothing can be recorded. */
  requireHealthy(): void {
    if (this.#failure !== undefined) throw unavailable(this.#failure);
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
    this.#push({ entry, failed: () => this.#owe(entry) });
  }

  /** Ties the record to the vault that was opened. @param state - key and number of the next checkpoint; a process that has them goes on with its own. */
  attach(state: Pick<AuditState, 'key' | 'number' | 'droppedSeq'> | undefined, anchor: AuditAnchor): void {
    if (state) this.#key ??= { key: Buffer.from(state.key), number: state.number };
    this.#droppedSeq = Math.max(this.#droppedSeq, state?.droppedSeq ?? 0);
    this.#revision = anchor.revision();
    this.#anchor = anchor;
    if (this.#end.seq > 0) this.#sinceCheckpoint = Math.max(this.#sinceCheckpoint, 1); // what was recorded before the unlock is keyed soon
    this.#planCheckpoint();
  }

  /** Of the vault, as the last checkpoint of this process saw it. */
  get vaultRevision(): bigint {
    return this.#revision;
  }

  /** Whether this process knows the key: the record needs no look at its files again. */
  get isKeyed(): boolean {
    return this.#key !== undefined;
  }

  /** The vault is about to be locked: one more checkpoint is kept in it. The key stays; it opens nothing. */
  detach(): void {
    this.flush();
    this.#checkpoint();
    this.#anchor = undefined;
  }

  /** Opens the file anew (SIGHUP). */
  reopen(): void {
    this.flush();
    try {
      this.#folder.reopen();
    } catch (error) {
      this.#fail(error);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.flush();
    this.#checkpoint();
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#checkpointTimer);
    this.#key?.key.fill(0);
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
      if (this.#failure !== undefined) throw this.#failure;
      this.#write(batch.map(({ entry }) => entry));
    } catch (error) {
      this.#fail(error);
      for (const { failed } of batch) failed?.(unavailable(error));
      return;
    }
    for (const { written } of batch) written?.();
    this.#afterWrite(batch.length);
  }

  #afterWrite(count: number): void {
    this.#sinceCheckpoint += count;
    if (this.#sinceCheckpoint >= this.#options.checkpointRecords) this.#checkpoint();
    else this.#planCheckpoint();
    if (this.#folder.hasRotated()) this.#dropOldest();
  }

  /** Chains entries and writes them; the chain moves only when they are written. */
  #write(entries: readonly AuditEntry[]): void {
    let { seq, hash } = this.#end;
    const firstSeq = seq + 1;
    const time = new Date(this.#options.now()).toISOString();
    let lines = '';
    for (const entry of entries) {
      seq += 1;
      const line = encodeRecord({ seq, time, ...entry, previous: hash });
      hash = hashLine(line);
      lines += `${line}\n`;
    }
    this.#folder.append(lines, firstSeq);
    this.#end = { seq, hash };
    for (const [index, entry] of entries.entries()) this.#followChange(entry, firstSeq + index);
    const tampering = this.#folder.takeTampering();
    if (tampering) this.note({ operation: 'audit', outcome: 'failed', error: 'tampered', detail: tampering });
  }

  #followChange({ requestId, outcome }: AuditEntry, seq: number): void {
    if (requestId === undefined) return;
    if (outcome === 'begun') this.#openChanges.set(requestId, seq);
    else this.#openChanges.delete(requestId);
  }

  /** The oldest change that has not ended. */
  get #openSeq(): number {
    return this.#openChanges.values().next().value ?? 0;
  }

  /**
   * Files past the limit go after the record says so and the vault knows of it: what is missing at the beginning and not known there was taken by
   * somebody else. While the vault is locked they wait, and where a least age is set they are looked for with an open vault only, which knows of clocks that jumped. What cannot be dropped is no reason to record nothing; it is tried again with each new file.
   */
  #dropOldest(): void {
    for (const { file, firstSeq, lastSeq } of this.#findOldest()) {
      if (this.#undropped.has(file)) this.#drop(file);
      if (this.#undropped.has(file) || this.#dropping.has(file)) continue;
      const entry: AuditEntry = { operation: 'dropOldest', outcome: 'ok', detail: { firstSeq, lastSeq } };
      this.#push({ entry, written: () => this.#dropping.set(file, lastSeq) }); // where it cannot be written nothing is dropped, and the next file asks again
    }
  }

  /** Deletes what the vault knows to be deleted. */
  #dropKnown(droppedSeq: number): void {
    for (const [file, lastSeq] of this.#dropping) {
      if (lastSeq > droppedSeq) continue;
      this.#dropping.delete(file);
      this.#drop(file);
    }
  }

  #findOldest(): ReturnType<AuditFolder['findOldest']> {
    try {
      return this.#folder.findOldest(this.#anchor?.isClockBelievable() ? this.#options.now() : undefined);
    } catch (error) {
      this.note({ operation: 'dropOldest', outcome: 'failed', error: codeOf(error) });
      return [];
    }
  }

  /** A failure is noted once: records about files that stay would fill files of their own, and those more. */
  #drop(file: string): void {
    try {
      this.#folder.drop(file);
      this.#undropped.delete(file);
    } catch (error) {
      if (!this.#undropped.has(file)) this.note({ operation: 'dropOldest', outcome: 'failed', error: codeOf(error) });
      this.#undropped.add(file);
    }
  }

  #planCheckpoint(): void {
    if (!this.#key || this.#checkpointTimer || this.#sinceCheckpoint === 0) return;
    this.#checkpointTimer = setTimeout(() => this.#checkpoint(), this.#options.checkpointMs);
    this.#checkpointTimer.unref();
  }

  /** Keys everything up to here. The key that did it is gone afterwards: who takes the process later cannot change what is behind. */
  #checkpoint(): void {
    clearTimeout(this.#checkpointTimer);
    this.#checkpointTimer = undefined;
    if (!this.#key || this.#sinceCheckpoint === 0 || this.#failure !== undefined) return;
    const { key, number } = this.#key;
    try {
      this.#writeCheckpoint(key, number);
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#key = { key: nextKey(key), number: number + 1 };
    key.fill(0);
    this.#sinceCheckpoint = 0;
    const droppedSeq = Math.max(this.#droppedSeq, ...this.#dropping.values());
    if (!this.#anchor?.keep({ ...this.#key, ...this.#end, openSeq: this.#openSeq, droppedSeq })) return;
    this.#droppedSeq = droppedSeq;
    this.#dropKnown(droppedSeq);
  }

  #writeCheckpoint(key: Buffer, number: number): void {
    const { seq, hash: previous } = this.#end;
    this.#revision = this.#anchor?.revision() ?? this.#revision;
    const facts = { number, seq: seq + 1, time: new Date(this.#options.now()).toISOString(), vaultRevision: String(this.#revision), previous };
    const record: AuditRecord = { ...facts, operation: 'checkpoint', outcome: 'ok', mac: macCheckpoint(key, facts) };
    const line = encodeRecord(record);
    this.#folder.append(`${line}\n`, record.seq);
    this.#end = { seq: record.seq, hash: hashLine(line) };
  }

  #owe(entry: AuditEntry): void {
    if (this.#owed.length < maxOwed) this.#owed.push(entry);
    else this.#lost += 1;
  }

  /** Counts a request that was refused, or answered unrecorded, because nothing can be written. */
  countUnrecorded(): void {
    this.#lost += 1;
  }

  #fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#options.onChange('failed', error);
    this.#recordFailure(error);
    this.#retryTimer = setTimeout(() => this.#retry(), retryMs);
    this.#retryTimer.unref();
  }

  /** The reserve is given up, so that the record says itself why it has a gap in time. */
  #recordFailure(error: unknown): void {
    const entry: AuditEntry = { operation: 'audit', outcome: 'failed', error: codeOf(error) };
    try {
      this.#folder.giveUpReserve();
      this.#write([entry]);
    } catch {
      this.#owe(entry); // not even that can be written; it is when the disk is back
    }
  }

  /** Back when the reserve can be kept again and everything that is owed is written. */
  #retry(): void {
    try {
      this.#folder.reopen();
      this.#folder.keepReserve();
      const unrecorded = this.#lost;
      this.#write([...this.#owed, { operation: 'audit', outcome: 'ok', detail: { unrecorded } }]);
      this.#sinceCheckpoint += this.#owed.length + 1;
      this.#owed = [];
      this.#lost -= unrecorded;
    } catch {
      this.#retryTimer = setTimeout(() => this.#retry(), retryMs); // the failure is known and told already
      this.#retryTimer.unref();
      return;
    }
    this.#failure = undefined;
    this.#options.onChange('ok');
    this.#planCheckpoint();
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

/** The system's name of an error, and nothing else of it: no path leaves. */
function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown';
}
