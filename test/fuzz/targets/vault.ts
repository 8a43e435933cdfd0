import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { salvageVault } from '../../../daemon/src/vault/copies.ts';
import type { OpenRecord } from '../../../daemon/src/vault/inspection.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';
import { TempFolder } from '../../kit/agent.ts';
import { type ByteChange, byteChanges, changeBytes, changeText } from '../mutation.ts';
import { must, prove, type Target } from '../target.ts';

const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
const mentions = (record: OpenRecord): { kind: string; id: string }[] =>
  record.kind === 'alias' ? [{ kind: 'key', id: Buffer.from(record.plaintext).toString() }] : [];

const columns = [
  'record.sealed',
  'record.id',
  'record.kind',
  'record.revision',
  'head.sealed',
  'head.revision',
  'keyslot.body',
  'keyslot.id',
  'meta.value',
  'meta.name',
] as const;
const tables = ['record', 'head', 'keyslot', 'meta'] as const;

/** What somebody does to the file. */
type Attack =
  | { readonly what: 'cell'; readonly column: (typeof columns)[number]; readonly row: number; readonly changes: readonly ByteChange[]; readonly number: bigint }
  | { readonly what: 'swap'; readonly rows: readonly [number, number] }
  | { readonly what: 'remove' | 'copy'; readonly table: (typeof tables)[number]; readonly row: number; readonly name: string }
  | { readonly what: 'drop'; readonly table: (typeof tables)[number] }
  | { readonly what: 'file'; readonly changes: readonly ByteChange[] }
  | { readonly what: 'sidecar'; readonly end: string; readonly bytes: Uint8Array };

const attack = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      what: fc.constant('cell'),
      column: fc.constantFrom(...columns),
      row: fc.nat(20),
      changes: byteChanges,
      number: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ what: fc.constant('swap'), rows: fc.tuple(fc.nat(20), fc.nat(20)) }) },
  {
    weight: 4,
    arbitrary: fc.record({ what: fc.constantFrom('remove', 'copy'), table: fc.constantFrom(...tables), row: fc.nat(20), name: fc.string({ maxLength: 6 }) }),
  },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('drop'), table: fc.constantFrom(...tables) }) },
  { weight: 6, arbitrary: fc.record({ what: fc.constant('file'), changes: byteChanges }) },
  {
    weight: 1,
    arbitrary: fc.record({ what: fc.constant('sidecar'), end: fc.constantFrom('-wal', '-journal', '-shm'), bytes: fc.uint8Array({ maxLength: 100 }) }),
  },
) as fc.Arbitrary<Attack>; // the record does not keep the names
const attacks = fc.array(attack, { minLength: 1, maxLength: 3 });

function changeCell(db: DatabaseSync, { column, row, changes, number }: Extract<Attack, { what: 'cell' }>): void {
  const [table = '', name = ''] = column.split('.');
  const select = db.prepare(`SELECT ${name} AS value FROM ${table}`);
  select.setReadBigInts(true);
  const cells = select.all();
  const value = cells[row % Math.max(cells.length, 1)]?.['value'];
  const next = value instanceof Uint8Array ? changeBytes(value, changes) : typeof value === 'string' ? changeText(value, changes) : number;
  if (value !== undefined && value !== null) db.prepare(`UPDATE OR REPLACE ${table} SET ${name} = ? WHERE ${name} = ?`).run(next, value);
}

function copyRow(db: DatabaseSync, table: string, row: number, name: string): void {
  const id = table === 'meta' ? 'name' : 'id';
  const select = db.prepare(`SELECT * FROM ${table} LIMIT 1 OFFSET ?`);
  select.setReadBigInts(true);
  const found = select.get(row % 4);
  if (!found || table === 'head') return;
  const copy = { ...found, [id]: name };
  const names = Object.keys(copy);
  db.prepare(`INSERT OR REPLACE INTO ${table} (${names.join()}) VALUES (${names.map(() => '?').join()})`).run(...Object.values(copy));
}

function attackRows(db: DatabaseSync, asked: Attack): void {
  if (asked.what === 'cell') changeCell(db, asked);
  if (asked.what === 'drop') db.exec(`DROP TABLE ${asked.table}`);
  if (asked.what === 'remove')
    db.exec(`DELETE FROM ${asked.table} WHERE ${asked.table === 'meta' ? 'name' : asked.table === 'head' ? 'one' : 'id'} IN
    (SELECT ${asked.table === 'meta' ? 'name' : asked.table === 'head' ? 'one' : 'id'} FROM ${asked.table} LIMIT 1 OFFSET ${asked.row % 4})`);
  if (asked.what === 'copy') copyRow(db, asked.table, asked.row, asked.name);
  if (asked.what !== 'swap') return;
  const rows = db.prepare('SELECT kind, id, sealed FROM record').all();
  const [one, two] = asked.rows.map((row) => rows[row % rows.length]);
  if (!one || !two) return;
  const put = db.prepare('UPDATE record SET sealed = ? WHERE kind = ? AND id = ?');
  put.run(one['sealed'] ?? null, two['kind'] ?? null, two['id'] ?? null);
  put.run(two['sealed'] ?? null, one['kind'] ?? null, one['id'] ?? null);
}

function attackFile(path: string, asked: Attack): void {
  if (asked.what === 'sidecar') writeFileSync(path + asked.end, asked.bytes, { mode: 0o600 });
  else if (asked.what === 'file') writeFileSync(path, changeBytes(readFileSync(path), asked.changes));
  else attackDatabase(path, asked);
}

/** Rows that SQLite itself does not let anybody write stay as they are. */
function attackDatabase(path: string, asked: Attack): void {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path);
    attackRows(db, asked);
  } catch (error) {
    if (!(error instanceof Error && 'errcode' in error)) throw error;
  } finally {
    db?.close();
  }
}

/** What a damaged vault may say, and nothing else. */
const honest = ['ERR_STORE_UNAVAILABLE', 'ERR_STATE_CONFLICT', 'ERR_UNLOCK_FAILED'] as const;

async function orHonest<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isAgentError(error, ...honest)) return undefined;
    throw error;
  }
}

type Content = ReadonlyMap<string, string>;

async function readAll(dataDir: string, passphrase: string): Promise<Content> {
  const vault = Vault.open({ dataDir, clock: Date.now, argon2Cost });
  try {
    const content = new Map<string, string>();
    await vault.unlockWith(await vault.openKeyslot({ passphrase }), mentions, ({ kind, id, plaintext }) =>
      content.set(`${kind} ${id}`, Buffer.from(plaintext).toString()),
    );
    vault.commit([{ kind: 'key', id: 'a', plaintext: Buffer.from('secret of a') }]); // what opens can be written as well
    return content;
  } finally {
    vault.close();
  }
}

async function makeVault(dataDir: string): Promise<string> {
  const { vault, recoveryCode = '' } = await Vault.create({
    dataDir,
    clock: Date.now,
    argon2Cost,
    slots: [{ type: 'passphrase', passphrase: 'not used' }, { type: 'recovery' }],
  });
  vault.commit(['a', 'b', 'c'].map((id) => ({ kind: 'key', id, plaintext: Buffer.from(`secret of ${id}`) })));
  vault.commit([{ kind: 'alias', id: 'alias/to-c', plaintext: Buffer.from('c') }]);
  vault.close();
  return recoveryCode;
}

/** The vault's file, in the hands of somebody else. */
export const vault: Target = {
  name: 'vault',
  promise: 'a vault that somebody changed opens as it was or not at all, says which of three it is, and salvage gives nothing that was not in it',
  runs: 120,
  open: async (stack) => {
    const folder = stack.use(new TempFolder());
    const [good, dataDir, rescued] = [folder.join('good'), folder.join('vault'), folder.join('rescued')];
    const code = await makeVault(good);
    const expected = await readAll(good, code);
    const isFrom = (content: Content): boolean => [...content].every(([name, value]) => expected.get(name) === value);
    return prove(attacks, async (asked) => {
      for (const path of [dataDir, rescued]) rmSync(path, { recursive: true, force: true });
      mkdirSync(dataDir, { mode: 0o700 });
      cpSync(`${good}/vault.db`, `${dataDir}/vault.db`);
      for (const one of asked) attackFile(`${dataDir}/vault.db`, one);
      const content = await orHonest(() => readAll(dataDir, code));
      must(content === undefined || (isFrom(content) && content.size === expected.size), `opened with ${JSON.stringify([...(content ?? [])])}`);
      const options = { dataDir, clock: Date.now, argon2Cost };
      const report = await orHonest(() =>
        salvageVault(options, { passphrase: code }, rescued, { mentions, findBox: () => undefined, carry: (record) => record, complete: (records) => records }),
      );
      if (report) must(isFrom(await readAll(rescued, report.recoveryCode)), 'salvage made something up');
    });
  },
};
