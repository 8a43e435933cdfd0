import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import { type AgentClient, aad, utf8 } from '@kms-agent/client';
import type { AuditRecord } from '@kms-agent/protocol';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { agentProgram, initByCommand, initVault, passphrase, run, TempFolder, TestAgent } from '../kit/agent.ts';
import { auditFiles, auditLines, auditRecords } from '../kit/audit.ts';
import { ClockedAgent, dayMs } from '../kit/clocked.ts';
import { importMaterial } from '../kit/material.ts';
import { asRoot, TestPeer } from '../kit/peer.ts';
import { Wire } from '../kit/wire.ts';

const uid = process.getuid?.() ?? 0;
const folder = new TempFolder();
const auditFolder = folder.join('vault', 'audit');
let recoveryCode: string;
let agent: TestAgent;
let kms: AgentClient;

beforeAll(async () => {
  chmodSync(folder.path, 0o755);
  writeFileSync(folder.join('config.json'), JSON.stringify({ socketMode: 0o666 }));
  recoveryCode = await initVault(folder);
  agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
  kms = await agent.client();
  await kms.unlock({ passphrase });
});
afterAll(async () => {
  await agent.end();
  folder[Symbol.dispose]();
});

/** The records that some work leaves. */
async function recordsOf(work: () => Promise<unknown>): Promise<AuditRecord[]> {
  const before = auditLines(auditFolder).length;
  await work();
  return auditRecords(auditFolder)
    .slice(before)
    .filter(({ operation }) => operation !== 'checkpoint');
}

const outcomes = (records: readonly AuditRecord[]): string[] =>
  records.map(({ operation, outcome, error }) => [operation, outcome, ...(error === undefined ? [] : [error])].join(' '));

const failing = async (work: Promise<unknown>): Promise<void> =>
  await work.then(
    () => expect.unreachable(),
    () => undefined,
  );

describe('one record a request', () => {
  test('a cryptographic request: who, what, which key and version', async () => {
    const { keyId, primaryKeyVersionId } = await kms.createKey();
    const [record, ...more] = await recordsOf(() => kms.advanceEncrypt({ keyId, plaintext: utf8('x') }));
    expect(more).toEqual([]);
    expect(record).toMatchObject({
      operation: 'advanceEncrypt',
      outcome: 'ok',
      keyId,
      keyVersionId: primaryKeyVersionId,
      caller: { uid, gid: process.getgid?.(), pid: process.pid },
      requestId: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
    });
    expect(record?.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });

  test('it is in the file before the answer arrives', async () => {
    const { keyId } = await kms.createKey({ keySpec: 'EC_P256' });
    for (let count = 1; count <= 100; count += 1) {
      await kms.sign({ keyId, message: utf8(`${count}`) });
      expect(auditRecords(auditFolder).filter((record) => record.operation === 'sign' && record.keyId === keyId)).toHaveLength(count);
    }
  });

  test('a change: begun before, done or failed after, under one requestId', async () => {
    const made = await recordsOf(() => kms.createKey({ aliasName: 'alias/audited' }));
    expect(outcomes(made)).toEqual(['createKey begun', 'createKey done']);
    expect(made[0]?.requestId).toBe(made[1]?.requestId);
    expect(Number(made[0]?.vaultRevision)).toBeGreaterThan(0);
    expect(made[1]?.keyId).toBe((await kms.describeKey({ keyId: 'alias/audited' })).keyId);
    expect(outcomes(await recordsOf(() => failing(kms.createKey({ aliasName: 'alias/audited' }))))).toEqual([
      'createKey begun',
      'createKey failed ERR_ALREADY_EXISTS',
    ]);
  });

  test('what is refused: a missing key, a wrong ciphertext, wrong parameters, no method, no JSON, a notification, each of a batch', async () => {
    using wire = await Wire.open(agent.socketPath);
    const ask = (...texts: string[]) =>
      recordsOf(async () => {
        for (const text of texts) await wire.ask(text);
      });
    expect(outcomes(await recordsOf(() => failing(kms.describeKey({ keyId: 'alias/nothing' }))))).toEqual(['describeKey failed ERR_ALIAS_NOT_FOUND']);
    expect(outcomes(await recordsOf(() => failing(kms.advanceDecrypt({ ciphertextBlob: utf8('no blob') }))))).toEqual([
      'advanceDecrypt failed ERR_INVALID_CIPHERTEXT',
    ]);
    expect(outcomes(await ask('{"jsonrpc":"2.0","id":1,"method":"sign","params":{"nothing":1}}'))).toEqual(['sign failed ERR_INVALID_PARAMS']);
    expect(outcomes(await ask('{"jsonrpc":"2.0","id":1,"method":"constructor"}'))).toEqual(['unknown failed ERR_METHOD_NOT_FOUND']);
    expect(outcomes(await ask('{"jsonrpc":'))).toEqual(['unknown failed ERR_PARSE']);
    const batch = '[{"jsonrpc":"2.0","id":1,"method":"whoAmI"},{"jsonrpc":"2.0","id":2,"method":"whoAmI"},7]';
    expect(outcomes(await ask(batch)).sort()).toEqual(['unknown failed ERR_INVALID_REQUEST', 'whoAmI ok', 'whoAmI ok']); // in the order of their ends

    const noted = await ask('{"jsonrpc":"2.0","method":"whoAmI"}\n{"jsonrpc":"2.0","id":1,"method":"status"}');
    expect(noted.map(({ operation, notification = false }) => [operation, notification])).toEqual([
      ['whoAmI', true],
      ['status', false],
    ]);
  });

  test('an unlock that succeeds, and one that does not', async () => {
    expect(outcomes(await recordsOf(() => kms.unlock({ passphrase })))).toEqual(['unlock ok']);
    expect(outcomes(await recordsOf(() => failing(kms.unlock({ passphrase: 'not it at all' }))))).toEqual(['unlock failed ERR_UNLOCK_FAILED']);
  });

  test.skipIf(!asRoot)('what a policy forbids is denied, with who asked (needs root, to be another user)', async () => {
    const { keyId } = await kms.createKey();
    await using peer = await TestPeer.start(agent.socketPath, { uid: 4810 });
    const [record] = await recordsOf(() => peer.ask('advanceEncrypt', { keyId, plaintext: 'eA==' }));
    expect(record).toMatchObject({ operation: 'advanceEncrypt', outcome: 'denied', error: 'ERR_ACCESS_DENIED', keyId, caller: { uid: 4810, pid: peer.pid } });
    expect(await peer.outcome('tailAudit')).toBe('ERR_ACCESS_DENIED');
  });

  test('no plaintext, ciphertext, AAD, data key, message, signature or secret is in any file of it', async () => {
    const { keyId } = await kms.createKey({ description: 'described here only' });
    const bound = aad({ secret: 'bound to this' });
    const sealed = await kms.advanceEncrypt({ keyId, plaintext: utf8('a plaintext that is told to nobody'), aad: bound });
    const dataKey = await kms.generateDataKey({ keyId });
    const signer = await kms.createKey({ keySpec: 'EC_P256' });
    const signed = await kms.sign({ keyId: signer.keyId, message: utf8('a message that is signed') });
    const forms = (bytes: Uint8Array): string[] =>
      (['latin1', 'base64', 'hex'] as const).map((encoding) => Buffer.from(bytes).toString(encoding).replace(/=+$/, ''));
    const secrets = [
      utf8('a plaintext that is told to nobody'),
      sealed.ciphertextBlob,
      bound,
      dataKey.plaintext,
      dataKey.ciphertextBlob,
      utf8('a message that is signed'),
      signed.signature,
      utf8(passphrase),
      utf8('described here only'),
    ];
    const text = auditLines(auditFolder).join('\n');
    expect(secrets.flatMap(forms).filter((form) => text.includes(form))).toEqual([]);
  });
});

test('what the agent does by itself: start, rotation, expiry, destruction, lock, stop', async () => {
  using own = new TempFolder();
  await initVault(own);
  const clocked = await ClockedAgent.start(own);
  const { keyId } = await clocked.kms.createKey({ rotationInterval: '7d' });
  const imported = await clocked.kms
    .createKey({ origin: 'EXTERNAL', aliasName: 'alias/default' })
    .catch(() => clocked.kms.describeKey({ keyId: 'alias/default' }));
  await clocked.kms.scheduleKeyDeletion({ keyId: imported.keyId, pendingWindowInDays: 7 });
  await clocked.advance(8 * dayMs);
  const acts = (): string[] =>
    auditRecords(own.join('vault', 'audit'))
      .filter(({ caller, operation }) => !caller && operation !== 'checkpoint')
      .map((record) => `${record.operation} ${record.outcome} ${record.keyId ?? ''}`.trim());
  await expect
    .poll(acts)
    .toEqual(expect.arrayContaining([`rotate begun ${keyId}`, `rotate done ${keyId}`, `destroy begun ${imported.keyId}`, `destroy done ${imported.keyId}`]));
  await clocked.end();
  expect(acts()[0]).toBe('start ok');
  expect(acts().at(-1)).toBe('stop ok');
  expect(auditRecords(own.join('vault', 'audit')).at(-1)?.operation).toBe('checkpoint');
});

test('imported material that expires is recorded as the agent’s own act', async () => {
  using own = new TempFolder();
  await initVault(own, '--no-default-key');
  await using clocked = await ClockedAgent.start(own);
  const { keyId } = await clocked.kms.createKey({ origin: 'EXTERNAL', aliasName: 'alias/default' });
  await importMaterial(clocked.kms, keyId, Buffer.alloc(32, 3), { materialExpireTime: new Date(clocked.now.wallMs + dayMs).toISOString() });
  await clocked.advance(2 * dayMs);
  await expect
    .poll(() => auditRecords(own.join('vault', 'audit')).map(({ operation, outcome, keyId: id }) => `${operation} ${outcome} ${id}`))
    .toEqual(expect.arrayContaining([`expire begun ${keyId}`, `expire done ${keyId}`]));
});

describe('signals', () => {
  test('SIGUSR2 locks and says why; SIGHUP goes on in a new file', async () => {
    using own = new TempFolder();
    await initVault(own);
    await using served = await TestAgent.serve(own);
    const client = await served.client();
    await client.unlock({ passphrase });
    served.child.kill('SIGUSR2');
    await expect.poll(async () => (await client.status()).state).toBe('LOCKED');
    const path = own.join('vault', 'audit');
    expect(auditRecords(path).find(({ operation }) => operation === 'lock')).toMatchObject({ outcome: 'ok', detail: { because: 'SIGUSR2' } });
    renameSync(own.join('vault', 'audit', 'audit.jsonl'), own.join('vault', 'audit', 'audit-000000000001.jsonl'));
    served.child.kill('SIGHUP');
    await expect.poll(() => existsSync(own.join('vault', 'audit', 'audit.jsonl'))).toBe(true);
    await client.status();
    expect(auditFiles(path)).toEqual(['audit-000000000001.jsonl', 'audit.jsonl']);
    const seqs = auditRecords(path).map(({ seq }) => seq);
    expect(seqs).toEqual(seqs.map((_, index) => index + 1));
  });
});

describe('kill -9 after a change has begun: the next unlock closes it with what the vault shows, and guesses nothing', () => {
  /** Kills an agent in the middle of a slow creation, after `meanwhile`. @returns how the next unlock closed it, and the keys there are. */
  async function killMaking(
    own: TempFolder,
    params: object,
    meanwhile: (client: AgentClient) => Promise<unknown>,
  ): Promise<{ end: AuditRecord | undefined; slow: number }> {
    await initVault(own);
    const path = own.join('vault', 'audit');
    const first = await TestAgent.serve(own);
    const client = await first.client();
    await client.unlock({ passphrase });
    using wire = await Wire.open(first.socketPath);
    wire.send(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'createKey', params: { keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY', ...params } })}\n`);
    await expect.poll(() => auditRecords(path).some(({ outcome }) => outcome === 'begun'), { interval: 1 }).toBe(true);
    const begun = auditRecords(path).find(({ outcome }) => outcome === 'begun');
    await meanwhile(client);
    await first.end('SIGKILL');
    await using second = await TestAgent.serve(own);
    const again = await second.client();
    await again.unlock({ passphrase });
    const ends = (): AuditRecord[] => auditRecords(path).filter(({ requestId, outcome }) => requestId === begun?.requestId && outcome !== 'begun');
    await expect.poll(ends).toHaveLength(1);
    expect(ends()[0]).toMatchObject({ operation: 'createKey' });
    expect((await verify(own, passphrase)).ok).toBe(true);
    return { end: ends()[0], slow: (await again.listKeys()).keys.filter(({ keySpec }) => keySpec === 'RSA_3072').length };
  }

  test('a creation with a client token: done where the key is there, not done where it is not', async () => {
    using own = new TempFolder();
    const { end, slow } = await killMaking(own, { clientToken: 'once' }, () => Promise.resolve());
    expect(end).toMatchObject(slow === 1 ? { outcome: 'done' } : { outcome: 'failed', error: 'notDone' });
  });

  test('a creation without one, and another key made by the same user meanwhile: unknown, and not that key', async () => {
    using own = new TempFolder();
    const { end, slow } = await killMaking(own, {}, (client) => client.createKey());
    if (slow === 0) expect([end?.outcome, end?.keyId]).toEqual(['unknown', undefined]);
    else expect(end?.outcome).toMatch(/^(done|unknown)$/); // it was quick enough to end, and to be recorded, before the kill
  });
});

test('what outlasts its request is recorded when it ends: a change stays begun until then, and an unlock that was answered ERR_TIMEOUT is one', async () => {
  using own = new TempFolder();
  await initByCommand(own);
  writeFileSync(own.join('config.json'), JSON.stringify({ requestTimeoutMs: 100 }));
  await using slow = await TestAgent.serve(own, '--config', own.join('config.json'));
  const client = await slow.client();
  const records = (operation: string): AuditRecord[] => auditRecords(own.join('vault', 'audit')).filter((record) => record.operation === operation);
  await failing(client.unlock({ passphrase }));
  await expect.poll(async () => (await client.status()).state, { timeout: 20_000 }).toBe('UNLOCKED');
  await expect.poll(() => outcomes(records('unlock'))).toEqual(['unlock failed ERR_TIMEOUT', 'unlock ok']);
  expect(records('unlock')[1]).toMatchObject({ detail: { late: true }, requestId: records('unlock')[0]?.requestId });
  using wire = await Wire.open(slow.socketPath);
  const make = (id: number): string =>
    `${JSON.stringify({ jsonrpc: '2.0', id, method: 'createKey', params: { keySpec: 'RSA_3072', keyUsage: 'SIGN_VERIFY' } })}\n`;
  wire.send([1, 2, 3, 4].map(make).join(''));
  const answers = [await wire.answer(), await wire.answer(), await wire.answer(), await wire.answer()];
  expect(answers.some(({ error }) => error?.data['code'] === 'ERR_TIMEOUT')).toBe(true);
  await expect.poll(() => records('createKey').filter(({ outcome }) => outcome === 'done').length, { timeout: 30_000 }).toBe(4);
  expect(records('createKey').filter(({ outcome }) => outcome === 'failed')).toEqual([]);
  const made = (await client.listKeys()).keys.map(({ keyId }) => keyId);
  expect(
    records('createKey')
      .flatMap(({ outcome, keyId }) => (outcome === 'done' ? [keyId ?? ''] : []))
      .every((keyId) => made.includes(keyId)),
  ).toBe(true);
});

/** What audit verify says, as JSON. */
async function verify(
  where: TempFolder,
  secret: string,
): Promise<{ code: number | null; ok: boolean; finding?: unknown; stderr: string; checkpoints: number; unkeyed: number }> {
  const { code, stdout, stderr } = await run(agentProgram, ['audit', 'verify', '--data-dir', where.join('vault'), '--passphrase-fd', '3', '--json'], {
    secret: `${secret}\n`,
  });
  return {
    code,
    stderr,
    ...(stdout.length > 0
      ? (JSON.parse(stdout.toString()) as { ok: boolean; checkpoints: number; unkeyed: number })
      : { ok: false, checkpoints: 0, unkeyed: 0 }),
  };
}

describe('kms-agent audit verify', () => {
  test('beside a running agent, with the passphrase and with the recovery code', async () => {
    await kms.generateRandom({ numberOfBytes: 1 });
    await delay(1100);
    for (const secret of [passphrase, recoveryCode])
      expect(await verify(folder, secret)).toMatchObject({ code: 0, ok: true, checkpoints: expect.toSatisfy((count: number) => count > 0) as number });
  });

  test('a wrong passphrase is ERR_UNLOCK_FAILED', async () => {
    expect(await verify(folder, 'not this one')).toMatchObject({ code: 1, stderr: expect.stringContaining('ERR_UNLOCK_FAILED') as string });
  });

  test('without --json it is a sentence; a changed record is named, and the exit status is 1', async () => {
    using own = new TempFolder();
    await initVault(own);
    const served = await TestAgent.serve(own);
    const client = await served.client();
    await client.unlock({ passphrase });
    for (let count = 0; count < 10; count += 1) await client.generateRandom({ numberOfBytes: 1 });
    await served.end();
    const file = own.join('vault', 'audit', 'audit.jsonl');
    const args = ['audit', 'verify', '--data-dir', own.join('vault'), '--passphrase-fd', '3'];
    const good = await run(agentProgram, args, { secret: `${passphrase}\n` });
    expect(good.stdout.toString()).toMatch(/^ok: \d+ records, 1 to \d+, proven by \d+ checkpoints\.\n$/);
    const lines = readFileSync(file, 'utf8').split('\n');
    mkdirSync(own.join('archive'));
    renameSync(file, own.join('archive', 'audit.jsonl'));
    expect((await run(agentProgram, args, { secret: `${passphrase}\n` })).stdout.toString()).toMatch(/^BROKEN: record 1 and what came after it were cut off/);
    const together = await run(agentProgram, [...args, '--archive', own.join('archive')], { secret: `${passphrase}\n` });
    expect(together.stdout).toEqual(good.stdout);
    copyFileSync(own.join('archive', 'audit.jsonl'), own.join('archive', 'audit.jsonl.1'));
    const passing = await run(agentProgram, [...args, '--archive', own.join('archive')], { secret: `${passphrase}\n` });
    expect(passing.stdout.toString()).toBe(
      `${good.stdout.toString()}Not read, because only files named *.jsonl are: ${own.join('archive', 'audit.jsonl.1')}.\n`,
    );
    copyFileSync(own.join('archive', 'audit.jsonl'), file);
    const at = lines.findIndex((line) => line.includes('"generateRandom"'));
    writeFileSync(file, lines.with(at, (lines[at] ?? '').replace('"outcome":"ok"', '"outcome":"denied"')).join('\n'));
    const bad = await run(agentProgram, args, { secret: `${passphrase}\n` });
    expect([bad.code, bad.stdout.toString()]).toEqual([1, `BROKEN: record ${at + 1} was changed (${file}).\n`]);
    await using again = await TestAgent.serve(own);
    const after = await again.client();
    await after.unlock({ passphrase });
    expect((await after.status()).audit?.state).toBe('ok');
  });
});

describe('a vault that is put back without its record', () => {
  test('is refused, named by its revision, until an administrator says that it was meant; that is recorded', async () => {
    using own = new TempFolder();
    await initVault(own);
    const older = await TestAgent.serve(own);
    const client = await older.client();
    await client.unlock({ passphrase });
    await client.createKey();
    await older.end();
    mkdirSync(own.join('kept'), { mode: 0o700 });
    copyFileSync(own.join('vault', 'vault.db'), own.join('kept', 'vault.db'));
    const newer = await TestAgent.serve(own);
    const second = await newer.client();
    await second.unlock({ passphrase });
    await second.createKey();
    await newer.end();
    rmSync(own.join('vault', 'vault.db'));
    copyFileSync(own.join('kept', 'vault.db'), own.join('vault', 'vault.db'));

    const refusing = await TestAgent.serve(own);
    const third = await refusing.client();
    const error = await third.unlock({ passphrase }).catch((thrown: { code: string; details: { hint: string } }) => thrown);
    expect(error).toMatchObject({ code: 'ERR_STATE_CONFLICT', details: { hint: expect.stringMatching(/--accept-rollback \d+/) as string } });
    expect((await third.status()).state).toBe('LOCKED');
    await refusing.end();

    const revision = /--accept-rollback (\d+)/.exec((error as { details: { hint: string } }).details.hint)?.[1] ?? '';
    const wrong = await TestAgent.serve(own, '--accept-rollback', `${Number(revision) + 1}`);
    await failing((await wrong.client()).unlock({ passphrase }));
    await wrong.end();
    await using accepting = await TestAgent.serve(own, '--accept-rollback', revision);
    const fourth = await accepting.client();
    expect((await fourth.unlock({ passphrase })).state).toBe('UNLOCKED');
    await expect
      .poll(() => auditRecords(own.join('vault', 'audit')).find(({ operation }) => operation === 'acceptRollback'))
      .toMatchObject({ outcome: 'ok', detail: { vaultRevision: revision } });
  });

  test('while the agent is locked: the unlock of the same process is refused too', async () => {
    using own = new TempFolder();
    await initVault(own);
    await using served = await TestAgent.serve(own);
    const client = await served.client();
    await client.unlock({ passphrase });
    const { keyId } = await client.createKey();
    await client.lock();
    copyFileSync(own.join('vault', 'vault.db'), own.join('old.db'));
    await client.unlock({ passphrase });
    await client.disableKey({ keyId });
    await delay(1100); // a checkpoint sees it
    await client.lock();
    const db = new DatabaseSync(own.join('vault', 'vault.db'));
    const tables = ['record', 'head', 'keyslot', 'meta'].map((name) => `DELETE FROM ${name}; INSERT INTO ${name} SELECT * FROM old.${name};`);
    db.exec(`ATTACH '${own.join('old.db')}' AS old; BEGIN; ${tables.join(' ')} COMMIT;`);
    db.close();
    await expect(client.unlock({ passphrase })).rejects.toMatchObject({
      code: 'ERR_STATE_CONFLICT',
      details: { hint: expect.stringContaining('--accept-rollback') as string },
    });
    expect((await client.status()).state).toBe('LOCKED');
  });

  test('a record that ends before what the vault remembers is reported by status and in the record itself', async () => {
    using own = new TempFolder();
    await initVault(own);
    const first = await TestAgent.serve(own);
    const client = await first.client();
    await client.unlock({ passphrase });
    await client.createKey();
    await first.end();
    rmSync(own.join('vault', 'audit'), { recursive: true });
    await using second = await TestAgent.serve(own);
    const again = await second.client();
    const { warnings = [] } = await again.unlock({ passphrase });
    expect(warnings.join()).toContain('audit record');
    await expect
      .poll(() => auditRecords(own.join('vault', 'audit')).find(({ error }) => error === 'broken'))
      .toMatchObject({ operation: 'audit', outcome: 'failed' });
  });
});

test.each([
  ['auditMinAgeMs 0: a flood drops the oldest records', 0, false],
  ['auditMinAgeMs of an hour: what is younger stays, past auditMaxTotalBytes', 3_600_000, true],
])('%s', async (_name, auditMinAgeMs, isKept) => {
  using folder = new TempFolder();
  await initVault(folder);
  writeFileSync(folder.join('config.json'), JSON.stringify({ auditMaxFileBytes: 8192, auditMaxTotalBytes: 65_536, auditMinAgeMs }), { mode: 0o600 });
  await using agent = await TestAgent.serve(folder, '--config', folder.join('config.json'));
  const kms = await agent.client();
  await kms.unlock({ passphrase });
  const isThere = (): boolean => auditRecords(folder.join('vault', 'audit')).some(({ seq }) => seq === 1);
  for (let flood = 0; flood < 20; flood += 1) await Promise.all(Array.from({ length: 50 }, () => kms.generateRandom({ numberOfBytes: 1 })));
  await expect.poll(isThere).toBe(isKept);
});

test('two agents do not share one record', async () => {
  using other = new TempFolder();
  await initVault(other);
  await expect(TestAgent.serve(other, '--audit-dir', auditFolder)).rejects.toThrow(/ERR_STATE_CONFLICT: Another agent writes its audit record/);
});
