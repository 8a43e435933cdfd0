import { mkdirSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AuditState, isCheckpointOf, macCheckpoint } from '../../../daemon/src/audit/chain.ts';
import type { Verification } from '../../../daemon/src/audit/check.ts';
import type { ReadLine } from '../../../daemon/src/audit/reading.ts';
import type { AuditRecord } from '../../../daemon/src/audit/record.ts';
import { decodeRecord, encodeRecord, hashLine } from '../../../daemon/src/audit/record.ts';
import { verifyAudit, verifyLines } from '../../../daemon/src/audit/verify.ts';
import { TempFolder } from '../../kit/agent.ts';
import { auditLines, startKey, TestAudit } from '../../kit/audit.ts';

/** A record of 1,000 lines: 992 entries and 8 checkpoints, the last of which is the end and what the vault remembers. */
let whole: string[];
let remembered: AuditState;

beforeAll(async () => {
  using folder = new TempFolder();
  const kept = new TestAudit(folder.join('audit'), { checkpointRecords: 124 }).attach();
  await kept.fill(992);
  kept.audit.close();
  whole = auditLines(folder.join('audit'));
  if (!kept.kept) throw new Error('no checkpoint was kept');
  remembered = kept.kept;
});

const decoded = new Map<string, AuditRecord | undefined>();

/** Each line is parsed once: thousands of records of a thousand lines are checked. */
function read(line: string): ReadLine {
  if (!decoded.has(line)) decoded.set(line, decodeRecord(line));
  return { file: 'audit.jsonl', line, record: decoded.get(line) };
}

const verify = (lines: readonly string[], known: AuditState = remembered): Verification => verifyLines(lines.map(read), { startKey, remembered: known });

/** Changes records and chains everything after them anew, as who has no key can. */
function rewrite(lines: readonly string[], change: (record: AuditRecord) => AuditRecord | undefined): string[] {
  const rewritten: string[] = [];
  let seq = 0;
  for (const line of lines) {
    const record = change(JSON.parse(line) as AuditRecord);
    if (!record) continue;
    seq += 1;
    const last = rewritten.at(-1);
    rewritten.push(encodeRecord({ ...record, seq, previous: last === undefined ? record.previous : hashLine(last) }));
  }
  return rewritten;
}

test('a whole record of 1,000 is proven', async () => {
  expect(whole).toHaveLength(1000);
  expect(verify(whole)).toEqual({ ok: true, records: 1000, firstSeq: 1, lastSeq: 1000, checkpoints: 8, unkeyed: 0 });
});

describe('each of 1,000 records is tampered with, and the first one named', () => {
  const flip = (line: string): string => line.replace('2030-01-01', '2030-01-02');

  test.each<[name: string, what: string, tamper: (lines: string[], at: number) => string[], seq: (at: number) => number, count: number]>([
    ['flipped', 'changed', (lines, at) => lines.toSpliced(at, 1, flip(lines[at] ?? '')), (at) => at + 1, 1000],
    ['no record any more', 'changed', (lines, at) => lines.toSpliced(at, 1, (lines[at] ?? '').slice(1)), (at) => at + 1, 1000],
    ['duplicated', 'duplicated', (lines, at) => lines.toSpliced(at, 0, lines[at] ?? ''), (at) => at + 1, 1000],
    ['swapped with the next', 'swapped', (lines, at) => lines.toSpliced(at, 2, lines[at + 1] ?? '', lines[at] ?? ''), (at) => at + 1, 999],
    ['dropped', 'dropped', (lines, at) => lines.toSpliced(at, 1), (at) => at + 1, 999],
    ['cut off, with all after it', 'cutOff', (lines, at) => lines.slice(0, at), (at) => at + 1, 1000],
  ])('%s', async (name, what, tamper, seq, count) => {
    const wrong: unknown[] = [];
    for (let at = 0; at < count; at += 1) {
      const { ok, finding } = verify(tamper([...whole], at));
      if (ok || finding?.what !== what || finding.seq !== seq(at)) wrong.push({ at, ok, finding });
    }
    console.info(`audit record, ${name}: ${count} of ${count} found, ${count - wrong.length} named rightly`);
    expect(wrong).toEqual([]);
  });
});

describe('who chains everything anew after a change, without the key', () => {
  test.each([1, 50, 124, 500, 860])('record %i: the next checkpoint does not prove itself', async (seq) => {
    const forged = rewrite(whole, (record) => (record.seq === seq ? { ...record, outcome: 'denied' } : record));
    const { ok, finding } = verify(forged);
    expect([ok, finding?.what]).toEqual([false, 'forged']);
    expect(finding?.seq).toBeGreaterThanOrEqual(seq);
    expect((JSON.parse(forged[(finding?.seq ?? 0) - 1] ?? '{}') as AuditRecord).operation).toBe('checkpoint');
  });

  test('a record taken out: the next checkpoint does not prove itself', async () => {
    expect(verify(rewrite(whole, (record) => (record.seq === 300 ? undefined : record))).finding).toMatchObject({ what: 'forged' });
  });

  test('every checkpoint taken out: the vault remembers that there were some', async () => {
    const { ok, finding } = verify(rewrite(whole, (record) => (record.operation === 'checkpoint' ? undefined : record)));
    expect([ok, finding?.what]).toEqual([false, 'cutOff']);
  });

  test('a checkpoint with a key that came after it: what was a key can be computed from none that follows', async () => {
    const checkpoint = whole.map((line) => JSON.parse(line) as AuditRecord).find(({ operation }) => operation === 'checkpoint');
    if (!checkpoint) throw new Error('there is no checkpoint');
    const facts = { number: 0, seq: checkpoint.seq, time: checkpoint.time, vaultRevision: checkpoint.vaultRevision ?? '', previous: checkpoint.previous };
    expect(isCheckpointOf(startKey, 0, checkpoint)).toBe(true);
    expect(macCheckpoint(remembered.key, facts)).not.toBe(checkpoint.mac);
    const forged = whole.with(checkpoint.seq - 1, encodeRecord({ ...checkpoint, mac: macCheckpoint(remembered.key, facts) }));
    expect(verify(forged).ok).toBe(false);
  });
});

test('the last records, which no checkpoint has keyed yet, are counted as such', async () => {
  expect(verify(whole.slice(0, -1), { ...remembered, seq: 0, number: 7 })).toMatchObject({ ok: true, checkpoints: 7, unkeyed: 124 });
});

test('a line that is being written is not there yet', async () => {
  using folder = new TempFolder();
  mkdirSync(folder.join('audit'));
  writeFileSync(folder.join('audit', 'audit.jsonl'), `${whole.join('\n')}\n{"seq":1001,"ti`);
  expect(await verifyAudit(folder.join('audit'), { startKey, remembered })).toMatchObject({ ok: true, lastSeq: 1000 });
});

test('U+2028 and a carriage return in the name of a program end no line', async () => {
  using folder = new TempFolder();
  const kept = new TestAudit(folder.join('audit')).attach();
  await kept.record({ caller: { uid: 0, gid: 0, exe: '/tmp/a\u2028b\u2029c\u0085d\re' } });
  kept.audit.close();
  expect(await verifyAudit(folder.join('audit'), { startKey })).toMatchObject({ ok: true, records: 2, checkpoints: 1 });
});
