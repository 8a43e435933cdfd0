import { appendFileSync, copyFileSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { isAgentError } from '@kms-agent/protocol';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { decodeState, encodeState } from '../../../daemon/src/audit/chain.ts';
import { readAfter, readAll } from '../../../daemon/src/audit/reading.ts';
import { encodeRecord, hashLine } from '../../../daemon/src/audit/record.ts';
import { firstState, resume } from '../../../daemon/src/audit/resume.ts';
import { tailRecords } from '../../../daemon/src/audit/tail.ts';
import { verifyAudit } from '../../../daemon/src/audit/verify.ts';
import { TempFolder } from '../../kit/agent.ts';
import { auditFiles, auditLines, auditRecords, startKey, TestAudit } from '../../kit/audit.ts';

let folder: TempFolder;
let path: string;
beforeEach(() => {
  folder = new TempFolder();
  path = folder.join('audit');
});
afterEach(() => folder[Symbol.dispose]());

const verify = (kept?: TestAudit) => verifyAudit(path, { startKey, ...(kept?.kept ? { remembered: kept.kept } : {}) });

test('what is asked for in one turn is written in one write, in order', async () => {
  using kept = new TestAudit(path);
  await kept.record({ operation: 'a' }, { operation: 'b' }, { operation: 'c' });
  expect(auditRecords(path).map(({ seq, operation }) => [seq, operation])).toEqual([
    [1, 'a'],
    [2, 'b'],
    [3, 'c'],
  ]);
});

test('a promise resolves only when its line is in the file', async () => {
  using kept = new TestAudit(path);
  await kept.record({ operation: 'last' });
  expect(readFileSync(folder.join('audit', 'audit.jsonl'), 'utf8')).toContain('"last"');
});

test('a second record in the same folder is refused', () => {
  using _first = new TestAudit(path);
  expect(() => new TestAudit(path)).toThrow(expect.toSatisfy((error) => isAgentError(error, 'ERR_STATE_CONFLICT')) as never);
});

test('the state that the vault keeps is read as it was written (property)', () => {
  const safe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      safe,
      safe,
      safe,
      safe,
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      (key, number, seq, openSeq, droppedSeq, digest) => {
        const hash = Buffer.from(digest).toString('hex');
        const state = { key: Buffer.from(key), number, seq, openSeq, droppedSeq, hash };
        expect(decodeState(encodeState(state))).toEqual(state);
      },
    ),
  );
});

describe('rotation and retention', () => {
  test('a new file is begun at the size, the chain goes on over it, and the oldest go with a record that says so', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192, maxTotalBytes: 40_000 }).attach();
    await kept.fill(600);
    kept.audit.close();
    const [first] = auditRecords(path);
    expect(auditFiles(path).length).toBeGreaterThan(3);
    expect(auditFiles(path).reduce((sum, name) => sum + statSync(folder.join('audit', name)).size, 0)).toBeLessThan(40_000 + 2 * 8192);
    expect(first?.seq).toBeGreaterThan(1);
    expect(await verify(kept)).toMatchObject({ ok: true, firstSeq: first?.seq, unkeyed: 0 });
  });

  test.each([
    ['all that is there', 1, () => readAll(path)],
    ['what comes after a number', 31, () => readAfter(path, 30)],
  ])('files that are rotated while they are read: %s comes in order, nothing is missing', async (_name, first, read) => {
    using kept = new TestAudit(path, { maxFileBytes: 8192 });
    await kept.fill(60);
    const seqs: number[] = [];
    for await (const { record } of read()) {
      if (seqs.length % 20 === 0 && seqs.length < 200) await kept.fill(60);
      if (record && record.seq >= first) seqs.push(record.seq);
    }
    expect(auditFiles(path).length).toBeGreaterThan(5);
    expect(seqs.length).toBeGreaterThan(200);
    expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, index) => first + index));
  });

  test('the oldest file goes before it is read: what is left comes in order', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192 });
    await kept.fill(200);
    const [, second = ''] = auditFiles(path);
    let isFirst = true;
    const seqs: number[] = [];
    for await (const { record } of readAll(path)) {
      if (isFirst) rmSync(folder.join('audit', second));
      isFirst = false;
      if (record) seqs.push(record.seq);
    }
    expect(seqs.at(-1)).toBe(200);
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b));
  });

  test('a line that says that records were deleted, written by somebody else, hides nothing', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192 }).attach();
    await kept.fill(100);
    kept.audit.close();
    const [first = '', second = ''] = auditFiles(path);
    rmSync(folder.join('audit', first));
    const lines = auditLines(path);
    const [last = ''] = lines.slice(-1);
    const { seq } = JSON.parse(last) as { seq: number };
    const lastSeq = Number(/\d+/.exec(second)?.[0]) - 1;
    for (const detail of [{ firstSeq: 1, lastSeq }, {}]) {
      const forged = encodeRecord({ seq: seq + 1, time: '2030-01-01T00:00:00.000Z', operation: 'dropOldest', outcome: 'ok', detail, previous: hashLine(last) });
      writeFileSync(
        folder.join('audit', 'audit.jsonl'),
        `${readFileSync(folder.join('audit', 'audit.jsonl'), 'utf8')
          .split('\n')
          .filter((line) => !line.includes('dropOldest'))
          .join('\n')}${forged}\n`,
      );
      expect((await verify(kept)).finding).toMatchObject({ seq: 1, what: 'dropped' });
    }
  });

  test('a file stays until the vault knows that it goes', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192, maxTotalBytes: 20_000, checkpointRecords: 10 }).attach();
    kept.canKeep = false;
    await kept.fill(300);
    expect(auditRecords(path)[0]?.seq).toBe(1);
    kept.canKeep = true;
    await kept.fill(50);
    expect(auditRecords(path)[0]?.seq).toBeGreaterThan(1);
    kept.audit.close();
    expect(await verify(kept)).toMatchObject({ ok: true });
  });

  describe('a flood, where records have a least age', () => {
    const day = 86_400_000;
    const limits = { maxFileBytes: 8192, maxTotalBytes: 20_000, checkpointRecords: 10 };
    const firstSeq = (): number | undefined => auditRecords(path)[0]?.seq;

    test('what is younger stays past the limit; what has come of age goes', async () => {
      using kept = new TestAudit(path, { ...limits, minAgeMs: day }).attach();
      await kept.record({ operation: 'the evidence' });
      await kept.fill(600);
      kept.nowMs += day - 1;
      await kept.fill(100);
      expect(firstSeq()).toBe(1);
      kept.nowMs += 1;
      await kept.fill(100);
      const [oldest] = auditRecords(path);
      expect(oldest?.seq).toBeGreaterThan(1);
      expect(Date.parse(oldest?.time ?? '')).toBeGreaterThanOrEqual(kept.nowMs - day); // and none that is younger
      kept.audit.close();
      expect(await verify(kept)).toMatchObject({ ok: true });
    });

    test.each<[name: string, (kept: TestAudit) => void]>([
      ['a clock that jumped ahead and is not believed', (kept) => Object.assign(kept, { nowMs: kept.nowMs + 400 * day, isClockBelievable: false })],
      ['a clock that went back: the records are of a time to come', (kept) => Object.assign(kept, { nowMs: kept.nowMs - 400 * day })],
    ])('%s: everything stays', async (_name, jump) => {
      using kept = new TestAudit(path, { ...limits, minAgeMs: day }).attach();
      await kept.fill(300);
      jump(kept);
      await kept.fill(300);
      expect(firstSeq()).toBe(1);
    });

    test('a clock that was behind when the records were made, and was set right: they are no older for it, and go when they are', async () => {
      using kept = new TestAudit(path, { ...limits, minAgeMs: day }).attach();
      const right = kept.nowMs;
      let runningMs = 0;
      kept.sinceBoot = () => runningMs;
      kept.nowMs = 0;
      kept.isClockBelievable = false;
      await kept.record({ operation: 'the evidence' });
      await kept.fill(300);
      kept.nowMs = right;
      kept.isClockBelievable = true;
      await kept.fill(300);
      expect(firstSeq()).toBe(1);
      runningMs += day;
      kept.nowMs += day;
      await kept.fill(100);
      expect(firstSeq()).toBeGreaterThan(1);
    });

    test('files from before the start of the agent are as old as their records say', async () => {
      const before = new TestAudit(path, { ...limits, minAgeMs: day }).attach();
      await before.fill(300);
      before.audit.close();
      using after = new TestAudit(path, { ...limits, minAgeMs: day }).attach();
      after.nowMs += day;
      after.sinceBoot = () => 1000;
      await after.fill(100);
      expect(firstSeq()).toBeGreaterThan(1);
    });

    test('while no vault is open everything stays: nobody knows what its clock has seen', async () => {
      using kept = new TestAudit(path, { ...limits, minAgeMs: day });
      await kept.fill(300);
      kept.nowMs += 400 * day;
      await kept.fill(300);
      kept.attach();
      kept.isClockBelievable = false;
      await kept.fill(20);
      expect(firstSeq()).toBe(1);
    });
  });

  test('the oldest file taken by somebody else is named as dropped', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192 }).attach();
    await kept.fill(100);
    kept.audit.close();
    rmSync(folder.join('audit', auditFiles(path)[0] ?? ''));
    expect((await verify(kept)).finding).toMatchObject({ seq: 1, what: 'dropped' });
  });

  test('a file in the middle taken by somebody else is named as dropped', async () => {
    using kept = new TestAudit(path, { maxFileBytes: 8192 }).attach();
    await kept.fill(100);
    kept.audit.close();
    const second = auditFiles(path)[1] ?? '';
    rmSync(folder.join('audit', second));
    expect((await verify(kept)).finding).toMatchObject({ seq: Number(/\d+/.exec(second)?.[0]), what: 'dropped' });
  });
});

describe('somebody else’s hands on the file', () => {
  test('moved away and SIGHUP: the record goes on in a new file, and the moved one put back proves the whole', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    renameSync(folder.join('audit', 'audit.jsonl'), folder.join('audit', 'audit-000000000001.jsonl'));
    kept.audit.reopen();
    await kept.fill(10);
    kept.audit.close();
    expect(await verify(kept)).toMatchObject({ ok: true, records: 21, checkpoints: 1 });
  });

  test('deleted: what it held is written again', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    rmSync(folder.join('audit', 'audit.jsonl'));
    await kept.fill(10);
    kept.audit.close();
    expect(await verify(kept)).toMatchObject({ ok: true, records: 21 });
  });

  test('the folder with everything in it deleted: what the open file held is written again', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    rmSync(path, { recursive: true });
    await kept.fill(10);
    kept.audit.close();
    expect(await verify(kept)).toMatchObject({ ok: true, records: 21 });
  });

  test('copied, then deleted: the copy is in nobody’s way', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    copyFileSync(folder.join('audit', 'audit.jsonl'), folder.join('audit', 'audit-000000000001.jsonl'));
    rmSync(folder.join('audit', 'audit.jsonl'));
    await kept.fill(10);
    kept.audit.close();
    expect(kept.states).toEqual([]);
    expect(await verify(kept)).toMatchObject({ ok: true, records: 21 });
  });

  test('something appended: it goes, and the record says how much it was', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    appendFileSync(folder.join('audit', 'audit.jsonl'), 'not ours\n');
    await kept.fill(2);
    kept.audit.close();
    expect(auditRecords(path).find(({ error }) => error === 'tampered')?.detail).toEqual({ foreignBytes: 9 });
    expect((await verify(kept)).ok).toBe(true);
  });

  test('cut short: it is not filled with zeros, the record says how much is missing, and the first missing one is named', async () => {
    using kept = new TestAudit(path).attach();
    await kept.fill(10);
    const { size } = statSync(folder.join('audit', 'audit.jsonl'));
    truncateSync(folder.join('audit', 'audit.jsonl'), size - 100);
    await kept.fill(2);
    kept.audit.close();
    expect(auditRecords(path).find(({ error }) => error === 'tampered')?.detail).toEqual({ missingBytes: 100 });
    expect((await verify(kept)).finding).toMatchObject({ seq: 10, what: 'dropped' });
  });
});

describe('resume', () => {
  const endOf = (kept: TestAudit) => ({ ...kept.audit.end });

  test('goes on after checkpoints that the vault does not know of', async () => {
    using kept = new TestAudit(path, { checkpointRecords: 10 }).attach();
    await kept.fill(10);
    const older = kept.kept;
    kept.revision = 9n;
    await kept.fill(25);
    if (!older) throw new Error('no checkpoint was kept');
    const resumed = await resume(path, older, endOf(kept));
    expect(resumed).toMatchObject({ number: kept.kept?.number, vaultRevision: 9n, openChanges: [] });
    expect(resumed.key).toEqual(kept.kept?.key);
    expect(resumed.finding).toBeUndefined();
  });

  test('finds a change that had begun long before the last checkpoint and not ended', async () => {
    using kept = new TestAudit(path, { checkpointRecords: 10 }).attach();
    await kept.record({ operation: 'importKeyMaterial', outcome: 'begun', requestId: 'slow' });
    await kept.record({ operation: 'createKey', outcome: 'begun', requestId: 'quick' });
    await kept.record({ operation: 'createKey', outcome: 'done', requestId: 'quick' });
    await kept.fill(5000);
    if (!kept.kept) throw new Error('no checkpoint was kept');
    expect(kept.kept.openSeq).toBe(1);
    const { openChanges, finding } = await resume(path, kept.kept, endOf(kept));
    expect(openChanges.map(({ requestId }) => requestId)).toEqual(['slow']);
    expect(finding).toBeUndefined();
  });

  test.each<[name: string, tamper: (file: string) => void, words: string]>([
    ['cut off', (file) => writeFileSync(file, readFileSync(file, 'utf8').split('\n').slice(0, 5).join('\n').concat('\n')), 'ends at 5'],
    ['changed', (file) => writeFileSync(file, readFileSync(file, 'utf8').replaceAll('2030', '2031')), 'not the one that the vault remembers'],
    ['emptied', (file) => writeFileSync(file, ''), 'ends at 0'],
  ])('says what is wrong with a record that was %s', async (_name, tamper, words) => {
    const kept = new TestAudit(path, { checkpointRecords: 10 }).attach();
    await kept.fill(20);
    kept.audit.close();
    if (!kept.kept) throw new Error('no checkpoint was kept');
    tamper(folder.join('audit', 'audit.jsonl'));
    using next = new TestAudit(path);
    expect((await resume(path, kept.kept, endOf(next))).finding).toContain(words);
  });

  test('a vault that has never been open beside a record begins with its start key', async () => {
    using kept = new TestAudit(path);
    await kept.fill(3);
    expect(await resume(path, firstState(startKey), endOf(kept))).toMatchObject({ key: startKey, number: 0, vaultRevision: 0n });
  });
});

test('tail: from a number, filtered, in pages, and the end', async () => {
  using kept = new TestAudit(path, { checkpointRecords: 1_000_000, maxFileBytes: 20_000 }).attach();
  const keyId = crypto.randomUUID();
  const caller = { uid: 33, gid: 33, unit: 'shop.service', exe: '/usr/bin/shop' };
  for (let index = 1; index <= 500; index += 1)
    await kept.record(
      index % 10 === 0 ? { keyId, caller, outcome: 'denied' } : { caller: { ...caller, uid: 34, unit: 'other.service', exe: '/usr/bin/other' } },
    );
  const options = { folder: path, endSeq: kept.audit.seq, maxBytes: 1_000_000 };
  const seqs = async (params: Parameters<typeof tailRecords>[1]) => (await tailRecords(options, params)).records.map(({ seq }) => seq);
  expect(await seqs({ limit: 3 })).toEqual([498, 499, 500]);
  expect(await seqs({ afterSeq: 0, limit: 2 })).toEqual([1, 2]);
  expect(await seqs({ afterSeq: 250, limit: 2 })).toEqual([251, 252]);
  for (const filters of [{ keyId }, { uid: 33 }, { unit: caller.unit }, { exe: caller.exe }, { outcome: 'denied' as const }])
    expect(await seqs({ afterSeq: 445, filters })).toEqual([450, 460, 470, 480, 490, 500]);
  expect(await seqs({ afterSeq: 0, filters: { method: 'decrypt' } })).toEqual([]);
  expect(await tailRecords({ ...options, maxBytes: 5000 }, { afterSeq: 0 })).toMatchObject({
    nextSeq: expect.toSatisfy((seq: number) => seq < 10) as number,
    endSeq: 500,
  });
});
