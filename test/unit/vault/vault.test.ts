import { chmodSync, symlinkSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { backupVault, rekeyVault, restoreVault, salvageVault } from '../../../daemon/src/vault/copies.ts';
import { VaultDamagedError } from '../../../daemon/src/vault/damage.ts';
import type { OpenRecord } from '../../../daemon/src/vault/inspection.ts';
import { parseRecoveryCode } from '../../../daemon/src/vault/keyslots/recovery.ts';
import { Vault } from '../../../daemon/src/vault/vault.ts';
import { TempFolder } from '../../kit/agent.ts';

const passphrase = 'correct horse battery staple';
/** As cheap as RFC 9106 allows: what is tested here is not its cost. */
const argon2Cost = { memoryKiB: 64, passes: 1, parallelism: 1 };
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const mentions = (record: OpenRecord): { kind: string; id: string }[] =>
  record.kind === 'alias' ? [{ kind: 'key', id: Buffer.from(record.plaintext).toString() }] : [];

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
    const { readFileSync, readdirSync } = await import('node:fs');
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
    const report = await salvageVault(options(), { passphrase }, folder.join('rescued'), mentions);
    expect(report.findings.join('\n')).toContain(words);
    dataDir = folder.join('rescued');
    for (const [name, content] of await readAll().catch(() => new Map<string, string>())) expect(everything.get(name)).toBe(content);
    expect(report.saved).toBeGreaterThanOrEqual(2);
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

  test('lock: commit and deriveKey answer ERR_AGENT_LOCKED, and the root key is overwritten', async () => {
    const vault = Vault.open(options());
    const opening = await vault.openKeyslot({ passphrase });
    await vault.unlockWith(opening, mentions, () => undefined);
    vault.lock();
    expect(opening.rootKey.every((byte) => byte === 0)).toBe(true);
    expect(() => vault.commit([])).toThrow(expect.objectContaining({ code: 'ERR_AGENT_LOCKED' }));
    expect(() => vault.deriveKey('x')).toThrow(expect.objectContaining({ code: 'ERR_AGENT_LOCKED' }));
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
    const { recoveryCode: newCode, droppedKeyslots } = await rekeyVault(options(), { passphrase });
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
  const { recoveryCode: newCode } = await salvageVault(options(), { passphrase: recoveryCode }, folder.join('rescued'), mentions);
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
