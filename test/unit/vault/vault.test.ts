import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { backupVault, rekeyVault, restoreVault, salvageVault } from '../../../daemon/src/vault/copies.ts';
import { VaultDamagedError } from '../../../daemon/src/vault/damage.ts';
import type { OpenRecord } from '../../../daemon/src/vault/inspection.ts';
import { parseRecoveryCode } from '../../../daemon/src/vault/keyslots/recovery.ts';
import type { Moving } from '../../../daemon/src/vault/moving.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';
import { TempFolder } from '../../kit/agent.ts';

const passphrase = 'correct horse battery staple';
/** As cheap as RFC 9106 allows: what is tested here is not its cost. */
const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const mentions = (record: OpenRecord): { kind: string; id: string }[] =>
  record.kind === 'alias' ? [{ kind: 'key', id: Buffer.from(record.plaintext).toString() }] : [];

/** Nothing is boxed here. */
const moving: Moving = { findBox: () => undefined, carry: (record) => record };

let folder: TempFolder;
let dataDir: string;
let recoveryCode: string;
const options = (): { dataDir: string; clock: () => number; argon2Cost: typeof argon2Cost } => ({ dataDir, clock: Date.now, argon2Cost });

beforeEach(async () => {
  folder = new TempFolder();
  dataDir = folder.join('vault');
  const made = await Vault.create({ ...options(), slots: [{ type: 'passphrase', passphrase }, { type: 'recovery' }] });
  recoveryCode = made.recoveryCode ?? '';
  made.vault.commit(['a', 'b', 'c'].map((id) => ({ kind: 'key', id, plaintext: text(`secret of ${id}`) })));
  made.vault.commit([{ kind: 'alias', id: 'alias/to-c', plaintext: text('c') }]);
  made.vault.commit([{ kind: 'key', id: 'a', plaintext: text('second secret of a') }]);
  made.vault.close();
});
afterEach(() => folder[Symbol.dispose]());

/** Opens, unlocks and reads everything. */
async function readAll(secret = passphrase): Promise<Map<string, string>> {
  const vault = Vault.open(options());
  try {
    const records = new Map<string, string>();
    await vault.unlockWith(await vault.openKeyslot({ passphrase: secret }), mentions, ({ kind, id, plaintext }) => {
      records.set(`${kind} ${id}`, Buffer.from(plaintext).toString());
    });
    return records;
  } finally {
    vault.close();
  }
}

/** Changes the file as somebody else could. */
function tamper(sql: string): void {
  const db = new DatabaseSync(folder.join('vault', 'vault.db'));
  db.exec(sql);
  db.close();
}

const everything = new Map([
  ['alias alias/to-c', 'c'],
  ['key a', 'second secret of a'],
  ['key b', 'secret of b'],
  ['key c', 'secret of c'],
]);

describe('Vault', () => {
  test('commit: what was written is there after opening again, with the passphrase and with the recovery code', async () => {
    expect(await readAll()).toEqual(everything);
    expect(await readAll(recoveryCode)).toEqual(everything);
  });

  test('openKeyslot: a wrong passphrase and a mistyped code are ERR_UNLOCK_FAILED', async () => {
    await expect(readAll('wrong')).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
    const mistyped = `${recoveryCode.slice(0, -1)}${recoveryCode.endsWith('0') ? '1' : '0'}`;
    expect(parseRecoveryCode(mistyped)).toBeUndefined();
    await expect(readAll(mistyped)).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
  });

  test('no secret stands in the file', async () => {
    const bytes = Buffer.concat(readdirSync(dataDir).map((name) => readFileSync(folder.join('vault', name))));
    expect(bytes.includes('secret of')).toBe(false);
    expect(bytes.includes('alias/to-c')).toBe(true); // ids stand in clear: the search finds what is there
  });

  test.each([
    ['a changed record', "UPDATE record SET sealed = zeroblob(length(sealed)) WHERE id = 'b'", 'key b was changed'],
    ['a changed salt', "UPDATE record SET sealed = CAST(zeroblob(32) || substr(sealed, 33) AS BLOB) WHERE id = 'b'", 'key b was changed'],
    ['a changed revision', "UPDATE record SET revision = revision + 1 WHERE id = 'b'", 'key b was changed'],
    [
      'two swapped records',
      "UPDATE record SET id = CASE id WHEN 'a' THEN 'x' ELSE id END; UPDATE record SET id = 'a' WHERE id = 'b'; UPDATE record SET id = 'b' WHERE id = 'x'",
      'key a was changed or swapped',
    ],
    ['a dropped record that another mentions', "DELETE FROM record WHERE id = 'c'", 'key c is mentioned by another record and missing'],
    ['a dropped record', "DELETE FROM record WHERE id = 'b'", 'bucket'],
    ['a renamed record', "UPDATE record SET id = 'z' WHERE id = 'b'", 'key z was changed or swapped'],
    ['a changed head', 'UPDATE head SET sealed = zeroblob(length(sealed))', 'head: was changed'],
    ['a missing head', 'DELETE FROM head', 'head: is missing'],
    ['a changed head revision', 'UPDATE head SET revision = revision - 1', 'head: was changed'],
    ['a revision that nobody has', "UPDATE record SET revision = -1 WHERE id = 'b'", 'key b was changed'],
    ['a kind of 300 bytes', "UPDATE record SET kind = hex(zeroblob(150)) WHERE id = 'b'", 'was changed'],
    ['an id of 70,000 bytes', "UPDATE record SET id = hex(zeroblob(35000)) WHERE id = 'b'", 'was changed'],
    ['a head with a revision that nobody has', 'UPDATE head SET revision = -1', 'head: was changed'],
    ['a removed keyslot', "DELETE FROM keyslot WHERE body LIKE '%recovery%'", 'keyslots: one was changed'],
    ['a relabelled keyslot', 'UPDATE keyslot SET body = replace(body, \'"label":"recovery"\', \'"label":"mine"\')', 'keyslots: one was changed'],
  ])('unlockWith: %s is found and named, and salvage opens the rest', async (_what, sql, words) => {
    tamper(sql);
    const error = await readAll().then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(VaultDamagedError);
    expect(JSON.stringify((error as VaultDamagedError).details)).toContain(words);
    const report = await salvageVault(options(), { passphrase }, folder.join('rescued'), { mentions, complete: (records) => records, ...moving });
    expect(report.findings.join('\n')).toContain(words);
    dataDir = folder.join('rescued');
    const rescued = await readAll();
    expect(rescued.size).toBe(report.saved);
    expect(report.saved).toBeGreaterThanOrEqual(2);
    for (const [name, content] of rescued) expect(everything.get(name)).toBe(content);
  });

  test('salvageVault: cut off right after the records are kept, the new vault is marked as put back', async () => {
    const commit = vi.spyOn(Vault.prototype, 'commit').mockImplementationOnce(function (this: Vault, changes) {
      this.commit(changes);
      this.close();
      throw new RangeError('cut off');
    });
    const saving = salvageVault(options(), { passphrase }, folder.join('rescued'), { mentions, complete: (records) => records, ...moving });
    await expect(saving.finally(() => commit.mockRestore())).rejects.toThrow('cut off');
    dataDir = folder.join('rescued');
    expect(await readAll()).toEqual(everything);
    const rescued = Vault.open(options());
    expect(rescued.wasRestored).toBe(true);
    rescued.close();
  });

  test('unlockWith: one record rolled back to what it was is found in its bucket', async () => {
    const vault = Vault.open(options());
    await vault.unlockWith(await vault.openKeyslot({ passphrase }), mentions, () => undefined);
    tamper('CREATE TABLE old AS SELECT * FROM record');
    vault.commit([{ kind: 'key', id: 'b', plaintext: text('newer') }]);
    vault.close();
    tamper("DELETE FROM record WHERE id = 'b'; INSERT INTO record SELECT * FROM old WHERE id = 'b'; DROP TABLE old");
    await expect(readAll()).rejects.toMatchObject({ details: { findings: [expect.stringMatching(/^bucket \d+: .*rolled back/)] } });
  });

  test('open: a second one is refused while the first lives', () => {
    const vault = Vault.open(options());
    expect(() => Vault.open(options())).toThrow(expect.objectContaining({ code: 'ERR_STATE_CONFLICT' }));
    vault.close();
    Vault.open(options()).close();
  });

  test('open: a folder or file that others can read, and a link in the place of the vault, are refused', () => {
    chmodSync(dataDir, 0o755);
    expect(() => Vault.open(options())).toThrow(expect.objectContaining({ details: { hint: expect.stringContaining('chmod 700') as string } }));
    chmodSync(dataDir, 0o700);
    chmodSync(folder.join('vault', 'vault.db'), 0o644);
    expect(() => Vault.open(options())).toThrow(expect.objectContaining({ details: { hint: expect.stringContaining('chmod 600') as string } }));
    symlinkSync(dataDir, folder.join('link'));
    expect(() => Vault.open({ ...options(), dataDir: folder.join('link') })).toThrow(expect.objectContaining({ code: 'ERR_STATE_CONFLICT' }));
  });

  test('create: never over a vault that is there', async () => {
    await expect(Vault.create({ ...options(), slots: [] })).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    expect(await readAll()).toEqual(everything);
  });

  test('unlockWith: needs the root key no more when it returns, neither to write nor to derive keys, and a backup of that opens', async () => {
    const vault = Vault.open(options());
    const opening = await vault.openKeyslot({ passphrase });
    await vault.unlockWith(opening, mentions, () => undefined);
    opening.wipe();
    expect(opening.rootKey.every((byte) => byte === 0)).toBe(true);
    expect(vault.deriveKey('page token').some((byte) => byte !== 0)).toBe(true);
    vault.commit([{ kind: 'key', id: 'd', plaintext: text('secret of d') }]);
    vault.close();
    expect(await readAll()).toEqual(new Map([...everything, ['key d', 'secret of d']]));
  });

  test('lock: commit and deriveKey answer ERR_AGENT_LOCKED', async () => {
    const vault = Vault.open(options());
    const opening = await vault.openKeyslot({ passphrase });
    await vault.unlockWith(opening, mentions, () => undefined);
    vault.lock();
    expect(() => vault.commit([])).toThrow(expect.objectContaining({ code: 'ERR_AGENT_LOCKED' }));
    expect(() => vault.deriveKey('page token')).toThrow(expect.objectContaining({ code: 'ERR_AGENT_LOCKED' }));
    vault.close();
  });

  test('Argon2: the ninth that waits is ERR_BUSY', async () => {
    const vault = Vault.open(options());
    const attempts = await Promise.allSettled(Array.from({ length: 12 }, () => vault.verifySecret({ passphrase: 'wrong' })));
    const codes = attempts.map((attempt) => (attempt.status === 'rejected' ? (attempt.reason as { code: string }).code : 'opened'));
    expect(codes.filter((code) => code === 'ERR_BUSY')).toHaveLength(3);
    expect(codes.filter((code) => code === 'ERR_UNLOCK_FAILED')).toHaveLength(9);
    vault.close();
  });
});

describe('copies', () => {
  test('backup and restore: beside a running agent, whole, and never over a file', async () => {
    const vault = Vault.open(options());
    await backupVault(dataDir, folder.join('backup.db'));
    await expect(backupVault(dataDir, folder.join('backup.db'))).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    vault.close();
    await expect(restoreVault(folder.join('backup.db'), dataDir)).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    dataDir = folder.join('restored');
    await restoreVault(folder.join('backup.db'), dataDir);
    expect(await readAll()).toEqual(everything);
  });

  test('rekey: the passphrase opens as before, the old recovery code and an old copy of the slot do not', async () => {
    const old = new DatabaseSync(folder.join('vault', 'vault.db'));
    const slots = old.prepare('SELECT id, body FROM keyslot').all();
    old.close();
    const { recoveryCode: newCode, droppedKeyslots } = await rekeyVault(options(), { passphrase }, moving);
    expect(droppedKeyslots.map(({ type }) => type)).toEqual(['recovery']);
    expect(await readAll()).toEqual(everything);
    expect(await readAll(newCode)).toEqual(everything);
    await expect(readAll(recoveryCode)).rejects.toMatchObject({ code: 'ERR_UNLOCK_FAILED' });
    const db = new DatabaseSync(folder.join('vault', 'vault.db'));
    db.exec('DELETE FROM keyslot');
    for (const slot of slots) db.prepare('INSERT INTO keyslot (id, body) VALUES (?, ?)').run(slot['id'] ?? null, slot['body'] ?? null);
    db.close();
    await expect(readAll()).rejects.toBeInstanceOf(VaultDamagedError);
  });
});

test('salvage: opened with the recovery code, the new vault opens with its own new code', async () => {
  const { recoveryCode: newCode } = await salvageVault(options(), { passphrase: recoveryCode }, folder.join('rescued'), {
    mentions,
    complete: (records) => records,
    ...moving,
  });
  dataDir = folder.join('rescued');
  expect(await readAll(newCode)).toEqual(everything);
});

test('lock: goes through while a reader beside the agent holds the log', async () => {
  const vault = Vault.open(options());
  await vault.unlockWith(await vault.openKeyslot({ passphrase }), mentions, () => undefined);
  const reader = new DatabaseSync(folder.join('vault', 'vault.db'));
  reader.exec('BEGIN; SELECT count(*) FROM record');
  reader.prepare('SELECT count(*) FROM record').get();
  vault.commit([{ kind: 'key', id: 'd', plaintext: text('secret of d') }]);
  vault.lock();
  expect(vault.state).toBe('LOCKED');
  reader.close();
  vault.close();
  expect((await readAll()).get('key d')).toBe('secret of d');
});

describe('regressions', () => {
  /** A keyslot that Argon2 refuses to work for. */
  const saltless = JSON.stringify({
    keyslotId: '0',
    type: 'passphrase',
    label: '',
    creationTime: '',
    salt: '',
    wrappedRootKey: '',
    wrappedAuditStartKey: '',
    cost: argon2Cost,
  });
  const sidecars = ['-wal', '-shm', '-journal'];

  test.each(sidecars)('restore and init: a %s file of another vault is refused, and nothing is made beside it', async (end) => {
    await backupVault(dataDir, folder.join('backup.db'));
    const target = folder.join('elsewhere');
    mkdirSync(target, { mode: 0o700 });
    writeFileSync(`${target}/vault.db${end}`, 'left behind');
    await expect(restoreVault(folder.join('backup.db'), target)).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    await expect(Vault.create({ ...options(), dataDir: target, slots: [] })).rejects.toMatchObject({ code: 'ERR_ALREADY_EXISTS' });
    expect(readdirSync(target).filter((name) => name !== 'vault.lock')).toEqual([`vault.db${end}`]);
  });

  test('salvage: a key that is left out takes its alias along, and the new vault opens', async () => {
    tamper("UPDATE record SET sealed = zeroblob(length(sealed)) WHERE id = 'c'");
    const report = await salvageVault(options(), { passphrase }, folder.join('rescued'), { mentions, complete: (records) => records, ...moving });
    expect(report.findings.join()).toContain('alias alias/to-c is left out');
    dataDir = folder.join('rescued');
    expect([...(await readAll()).keys()].sort()).toEqual(['key a', 'key b']);
  });

  test.each(['null', '', '[]', '{"keyslotId":7}', '{"type":"passphrase","cost":{"memoryKiB":4000000000}}', saltless])(
    'a keyslot row that is %j: the others open, the damage is named, and salvage works with either secret',
    async (body) => {
      tamper(`INSERT INTO keyslot (id, body) VALUES ('0', '${body}')`);
      await expect(readAll()).rejects.toMatchObject({ details: { findings: [expect.stringContaining('keyslots')] } });
      for (const secret of [passphrase, recoveryCode]) {
        const rescued = folder.join(`rescued ${secret.length}`);
        expect(await salvageVault(options(), { passphrase: secret }, rescued, { mentions, complete: (records) => records, ...moving })).toMatchObject({
          saved: everything.size,
        });
      }
    },
  );

  test('salvage: one page that cannot be read costs its records and no others', async () => {
    const vault = Vault.open(options());
    await vault.unlockWith(await vault.openKeyslot({ passphrase }), mentions, () => undefined);
    vault.commit(Array.from({ length: 300 }, (_, index) => ({ kind: 'key', id: `many ${index}`, plaintext: text('x'.repeat(200)) })));
    vault.close();
    const file = folder.join('vault', 'vault.db');
    const pages = readFileSync(file);
    const pageOf = (id: string): number => Math.floor(pages.indexOf(id) / 4096);
    pages.fill(0xff, pageOf('many 150') * 4096, pageOf('many 150') * 4096 + 8);
    writeFileSync(file, pages);
    const report = await salvageVault(options(), { passphrase }, folder.join('rescued'), { mentions, complete: (records) => records, ...moving });
    expect(report.findings.join()).toContain('cannot be read');
    expect(report.saved).toBeGreaterThan(200);
    expect(report.saved).toBeLessThan(304);
    dataDir = folder.join('rescued');
    expect((await readAll()).size).toBe(report.saved);
  });

  test('backup: one file, which restore reads where nothing can be written; what is no vault is said to be none', async () => {
    const medium = folder.join('medium');
    mkdirSync(medium);
    await backupVault(dataDir, `${medium}/backup.db`);
    expect(readdirSync(medium)).toEqual(['backup.db']);
    chmodSync(medium, 0o500);
    await restoreVault(`${medium}/backup.db`, folder.join('restored'));
    chmodSync(medium, 0o700);
    expect(readdirSync(medium)).toEqual(['backup.db']);
    writeFileSync(folder.join('text'), 'no vault at all');
    await expect(restoreVault(folder.join('text'), folder.join('none'))).rejects.toMatchObject({ details: { hint: 'The file is not a vault.' } });
    const newer = new DatabaseSync(`${medium}/backup.db`);
    newer.exec("UPDATE meta SET value = x'09' WHERE name = 'format'");
    newer.close();
    await expect(restoreVault(`${medium}/backup.db`, folder.join('none'))).rejects.toMatchObject({ details: { hint: expect.stringContaining('format 9') } });
    dataDir = folder.join('restored');
    expect(await readAll()).toEqual(everything);
  });

  test('create: an attempt that failed or was killed half way leaves nothing that blocks the next', async () => {
    const target = folder.join('second');
    const broken = { ...options(), dataDir: target, slots: [{ type: 'keychain' as const }] };
    await expect(Vault.create(broken)).rejects.toMatchObject({ code: 'ERR_UNSUPPORTED_OPERATION' });
    writeFileSync(`${target}/vault.db.unfinished`, 'killed here');
    const { vault } = await Vault.create({ ...options(), dataDir: target, slots: [{ type: 'passphrase', passphrase }] });
    vault.close();
    expect(readdirSync(target).sort()).toEqual(['vault.db', 'vault.lock']);
  });
});
