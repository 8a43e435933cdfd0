import { backup, DatabaseSync, type StatementSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { AgentError } from '@kms-agent/protocol';

/** Version of the file format; a newer one is refused. */
export const formatVersion = 1;

/** Milliseconds without a write after which the write-ahead log goes into the database file. */
const checkpointQuietMs = 1000;
/** Longest time in milliseconds that a write waits for such a second. */
const checkpointMaxMs = 5000;

/** Milliseconds to wait for a lock of another process; nobody else writes, so only a backup that begins or ends can hold one. */
const busyTimeoutMs = 250;

/** A row of the record table: sealed, with what is authenticated beside it. */
export interface RecordRow {
  readonly kind: string;
  readonly id: string;
  readonly revision: bigint;
  readonly sealed: Uint8Array;
}

/** A row to delete. */
export interface DeletedRow {
  readonly kind: string;
  readonly id: string;
  readonly deleted: true;
}

/** Records in one page of a walk. */
const pageRows = 128;

/** What one transaction writes. */
export interface Transaction {
  readonly records: readonly (RecordRow | DeletedRow)[];
  readonly head: Omit<RecordRow, 'kind' | 'id'>;
  /** All slots, when they change: id and JSON. */
  readonly keyslots?: ReadonlyMap<string, string>;
  /** Takes the mark of a restored backup away. */
  readonly clearRestored?: boolean;
}

const schema = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID, STRICT;
  CREATE TABLE keyslot (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID, STRICT;
  CREATE TABLE record (kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (kind, id)) WITHOUT ROWID, STRICT;
  CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
`;

const storeUnavailable = (cause: unknown, hint?: string): AgentError => new AgentError('ERR_STORE_UNAVAILABLE', hint === undefined ? {} : { hint }, { cause });

/** The vault is of a format that this program does not read. */
class FormatError extends RangeError {
  override readonly name = 'FormatError';
  constructor(version: number | undefined) {
    super(`The vault has format ${version ?? 'unknown'}; this program reads format ${formatVersion}.`);
  }
}

/** Primary result codes of SQLite (https://www.sqlite.org/rescode.html). */
const sqliteCorrupt = 11;
const sqliteNotADatabase = 26;

function sqliteCodeOf(cause: unknown): number | undefined {
  return cause instanceof Error && 'errcode' in cause && typeof cause.errcode === 'number' ? cause.errcode & 0xff : undefined;
}

function hintOf(cause: unknown): string {
  if (cause instanceof FormatError) return cause.message;
  const code = sqliteCodeOf(cause);
  if (code === sqliteCorrupt) return 'The file is damaged; kms-agent salvage saves what can still be read.';
  if (code === sqliteNotADatabase || (cause instanceof Error && cause.message.includes('no such table'))) return 'The file is not a vault.';
  return 'The file cannot be opened.';
}

function frozenUrl(path: string): URL {
  const url = pathToFileURL(path);
  url.searchParams.set('immutable', '1');
  return url;
}

/** The vault's SQLite file: WAL, synchronous=FULL, deleted content overwritten. The only place that speaks SQL. */
export class Database {
  readonly #db: DatabaseSync;
  readonly #put: StatementSync;
  readonly #delete: StatementSync;
  readonly #putHead: StatementSync;
  readonly #readOnly: boolean;
  #quietTimer: NodeJS.Timeout | undefined;
  /** When the oldest write was made that is in the log only. */
  #unmovedSince: number | undefined;

  private constructor(db: DatabaseSync, readOnly: boolean) {
    this.#db = db;
    this.#readOnly = readOnly;
    this.#put = db.prepare('INSERT OR REPLACE INTO record (kind, id, revision, sealed) VALUES (?, ?, ?, ?)');
    this.#delete = db.prepare('DELETE FROM record WHERE kind = ? AND id = ?');
    this.#putHead = db.prepare('INSERT OR REPLACE INTO head (one, revision, sealed) VALUES (1, ?, ?)');
  }

  /** Makes an empty database for a new vault. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  static create(path: string, vaultId: Uint8Array): Database {
    try {
      const db = new DatabaseSync(path);
      db.exec('PRAGMA journal_mode = WAL');
      db.exec(schema);
      const put = db.prepare('INSERT INTO meta (name, value) VALUES (?, ?)');
      put.run('format', Buffer.from([formatVersion]));
      put.run('vaultId', vaultId);
      configure(db);
      return new Database(db, false);
    } catch (cause) {
      throw storeUnavailable(cause);
    }
  }

  /**
   * @param frozen - a file that nobody changes: read without a log, a lock or a file beside it, so that it may lie on a read-only medium.
   * @throws AgentError `ERR_STORE_UNAVAILABLE` with a hint: not a vault, of another format, damaged beyond reading, or not accessible.
   */
  static open(path: string, { readOnly = false, frozen = false }: { readOnly?: boolean; frozen?: boolean } = {}): Database {
    let opened: DatabaseSync | undefined;
    try {
      const db = frozen ? new DatabaseSync(frozenUrl(path), { readOnly: true }) : new DatabaseSync(path, { readOnly });
      opened = db;
      if (!readOnly && !frozen) db.exec('PRAGMA journal_mode = WAL');
      configure(db);
      const found = db.prepare("SELECT value FROM meta WHERE name = 'format'").get();
      const version = found?.['value'] instanceof Uint8Array ? found['value'][0] : undefined;
      if (version !== formatVersion) throw new FormatError(version);
      return new Database(db, readOnly || frozen);
    } catch (cause) {
      opened?.close();
      throw storeUnavailable(cause, hintOf(cause));
    }
  }

  get vaultId(): Uint8Array {
    return this.#read(() => asBytes(this.#db.prepare("SELECT value FROM meta WHERE name = 'vaultId'").get()?.['value']));
  }

  /** Whether the file was put back from a backup and nobody has taken note yet. */
  get wasRestored(): boolean {
    return this.#read(() => this.#db.prepare("SELECT 1 FROM meta WHERE name = 'restored'").get() !== undefined);
  }

  /** Marks a file that was put back from a backup. The mark is not sealed: restoring asks for no secret. */
  markRestored(): void {
    try {
      this.#db.exec("INSERT OR REPLACE INTO meta (name, value) VALUES ('restored', x'01')");
    } catch (cause) {
      throw storeUnavailable(cause);
    }
  }

  /** Slot bodies by id. */
  keyslots(): Map<string, string> {
    const rows = this.#read(() => this.#db.prepare('SELECT id, body FROM keyslot ORDER BY id').all());
    return new Map(rows.map((row) => [String(row['id']), String(row['body'])]));
  }

  head(): Omit<RecordRow, 'kind' | 'id'> | undefined {
    const row = this.#read(() => readBig(this.#db, 'SELECT revision, sealed FROM head').get());
    return row && { revision: BigInt(row['revision'] as bigint), sealed: asBytes(row['sealed']) }; // STRICT: an integer
  }

  /** Makes the file whole by itself, without a log beside it: the form of a backup. */
  leaveLog(): void {
    try {
      this.#db.exec('PRAGMA journal_mode = DELETE');
    } catch (cause) {
      throw storeUnavailable(cause);
    }
  }

  /**
   * Every record that can be read of a damaged file: forward to where it breaks, and backward to there.
   * @param onDamage - hears once that a part could not be read.
   */
  *readableRecords(onDamage: () => void): Generator<RecordRow[]> {
    const seen = new Set<string>();
    let broken = false;
    for (const [compare, order, start] of [
      ['>', 'ASC', ''],
      ['<', 'DESC', '\u{10ffff}'],
    ] as const) {
      const statement = readBig(
        this.#db,
        `SELECT kind, id, revision, sealed FROM record WHERE (kind, id) ${compare} (?, ?) ORDER BY kind ${order}, id ${order} LIMIT 1`,
      );
      let last: { kind: string; id: string } | undefined = { kind: start, id: start };
      while (last) {
        try {
          const row: Record<string, unknown> | undefined = statement.get(last.kind, last.id);
          last = row && readRow(row);
          if (row && !seen.has(`${last?.kind}\0${last?.id}`)) yield [readRow(row)];
          if (last) seen.add(`${last.kind}\0${last.id}`);
        } catch (cause) {
          if (sqliteCodeOf(cause) === undefined) throw cause;
          broken = true;
          last = undefined;
        }
      }
      if (!broken) return;
    }
    onDamage();
  }

  /** One record, sealed. @throws AgentError `ERR_STORE_UNAVAILABLE`. */
  find(kind: string, id: string): RecordRow | undefined {
    const row = this.#read(() => readBig(this.#db, 'SELECT kind, id, revision, sealed FROM record WHERE kind = ? AND id = ?').get(kind, id));
    return row && readRow(row);
  }

  /** Every sealed record, in order of kind and id, in pages that take about a millisecond to read. */
  *recordPages(): Generator<RecordRow[]> {
    const sql = 'SELECT kind, id, revision, sealed FROM record WHERE (kind, id) > (?, ?) ORDER BY kind, id LIMIT ?';
    const statement = this.#read(() => readBig(this.#db, sql));
    let last = { kind: '', id: '' };
    for (;;) {
      const { kind, id } = last;
      const page = this.#read(() => statement.all(kind, id, pageRows)).map(readRow);
      yield page;
      const next = page.at(-1);
      if (!next || page.length < pageRows) return;
      last = next;
    }
  }

  /**
   * Writes all of a transaction or nothing; durable when it returns.
   * @throws AgentError `ERR_STORE_UNAVAILABLE` for a full disk, an I/O error or a read-only file system.
   */
  write(transaction: Transaction): void {
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      this.#apply(transaction);
      this.#db.exec('COMMIT');
    } catch (cause) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw storeUnavailable(cause);
    }
    this.#checkpointSoon();
  }

  /**
   * Moves the write-ahead log into the file, so that a copy of the file alone is whole.
   * @returns false when a reader beside us or a full disk puts it off: every write is durable in the log all the same.
   */
  checkpoint(): boolean {
    clearTimeout(this.#quietTimer);
    if (this.#readOnly) return true;
    try {
      this.#db.exec('PRAGMA busy_timeout = 0'); // it runs on the event loop: better later than waiting for a reader
      return this.#db.prepare('PRAGMA wal_checkpoint(TRUNCATE)').get()?.['busy'] === 0;
    } catch (error) {
      if (error instanceof Error && 'errcode' in error) return false;
      throw error;
    } finally {
      this.#db.exec(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
    }
  }

  /**
   * Overwrites what the file still holds of rows that are gone: secure_delete has zeroed them in the log, and this moves it into the file.
   * @returns false when a reader beside us puts it off; the checkpoint after the next quiet second does it.
   */
  scrub(): boolean {
    const done = this.checkpoint();
    if (!done) this.#checkpointSoon();
    return done;
  }

  /** Copies the database while it is in use. */
  async backup(path: string): Promise<void> {
    try {
      await backup(this.#db, path);
    } catch (cause) {
      throw storeUnavailable(cause);
    }
  }

  close(): void {
    clearTimeout(this.#quietTimer);
    this.#db.close();
  }

  /** After a quiet second; or a little later where it never gets quiet, as beside an audit record that keeps its state each second. */
  #checkpointSoon(): void {
    clearTimeout(this.#quietTimer);
    const now = performance.now();
    this.#unmovedSince ??= now;
    const waitMs = Math.max(Math.min(checkpointQuietMs, this.#unmovedSince + checkpointMaxMs - now), 0);
    this.#quietTimer = setTimeout(() => {
      this.#unmovedSince = undefined;
      if (!this.checkpoint()) this.#checkpointSoon();
    }, waitMs);
    this.#quietTimer.unref();
  }

  #apply({ records, head, keyslots, clearRestored }: Transaction): void {
    for (const row of records) {
      if ('deleted' in row) this.#delete.run(row.kind, row.id);
      else this.#put.run(row.kind, row.id, row.revision, row.sealed);
    }
    if (keyslots) {
      this.#db.exec('DELETE FROM keyslot');
      const put = this.#db.prepare('INSERT INTO keyslot (id, body) VALUES (?, ?)');
      for (const [id, body] of keyslots) put.run(id, body);
    }
    if (clearRestored) this.#db.exec("DELETE FROM meta WHERE name = 'restored'");
    this.#putHead.run(head.revision, head.sealed);
  }

  #read<T>(read: () => T): T {
    try {
      return read();
    } catch (cause) {
      throw storeUnavailable(cause);
    }
  }
}

function configure(db: DatabaseSync): void {
  db.exec(
    `PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA busy_timeout = ${busyTimeoutMs}; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY`,
  );
}

function readRow(row: Record<string, unknown>): RecordRow {
  return {
    kind: String(row['kind']),
    id: String(row['id']),
    revision: BigInt(row['revision'] as bigint), // STRICT: an integer

    sealed: asBytes(row['sealed']),
  };
}

function readBig(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReadBigInts(true);
  return statement;
}

function asBytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new TypeError('the vault holds no bytes where bytes belong');
}
