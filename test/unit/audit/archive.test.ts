import { appendFileSync, copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Verification, verifyAudit } from '../../../daemon/src/audit/verify.ts';
import { TempFolder } from '../../kit/agent.ts';
import { startKey, TestAudit } from '../../kit/audit.ts';

let folder: TempFolder;
let kept: TestAudit;
/** The rotated files, oldest first. */
let rotated: string[];
let total: number;

const verify = async (...archives: string[]): Promise<Verification> =>
  await verifyAudit(folder.join('audit'), {
    startKey,
    ...(kept.kept ? { remembered: kept.kept } : {}),
    archives: archives.map((name) => folder.join(name)),
  });

const inAudit = (name: string): string => folder.join('audit', name);
const inArchive = (name: string): string => folder.join('archive', name);
const move = (name: string, to = 'archive'): void => renameSync(inAudit(name), folder.join(to, name));
const nameAt = (at: number): string => rotated.at(at) ?? '';

beforeEach(async () => {
  folder = new TempFolder();
  kept = new TestAudit(folder.join('audit'), { maxFileBytes: 8000, checkpointRecords: 20 }).attach();
  await kept.fill(200);
  kept.audit.close();
  for (const name of ['archive', 'second']) mkdirSync(folder.join(name));
  rotated = readdirSync(folder.join('audit'))
    .filter((name) => name.startsWith('audit-'))
    .sort();
  expect(rotated.length).toBeGreaterThan(3);
  total = (await verify()).records;
});
afterEach(() => folder[Symbol.dispose]());

test('files that were moved away: missing without the archives, with them the record is whole, wherever each lies', async () => {
  move(nameAt(0));
  move(nameAt(2));
  move(nameAt(1), 'second');
  copyFileSync(inAudit(nameAt(3)), inArchive(nameAt(3)));
  expect(await verify()).toMatchObject({ ok: false, finding: { seq: 1, what: 'dropped' } });
  expect(await verify('archive')).toMatchObject({ ok: false, finding: { what: 'dropped' } });
  expect(await verify('archive', 'second')).toMatchObject({ ok: true, records: total, firstSeq: 1 });
});

test('everything was moved away, the file that was written too, under any name', async () => {
  for (const name of rotated) move(name);
  renameSync(inAudit('audit.jsonl'), inArchive('before-the-move.jsonl'));
  writeFileSync(inAudit('audit.jsonl'), '');
  expect(await verify('archive')).toMatchObject({ ok: true, records: total, firstSeq: 1 });
});

test('a copy of the file that was written may end earlier, also where that was rotated since', async () => {
  const half = (file: string): Buffer => readFileSync(file).subarray(0, 1000); // in the middle of a line
  writeFileSync(inArchive('audit.jsonl'), half(inAudit('audit.jsonl')));
  writeFileSync(folder.join('second', 'audit.jsonl'), half(inAudit(nameAt(1))));
  expect(await verify('archive', 'second')).toMatchObject({ ok: true, records: total });
});

test.each<[string, (original: string, copy: string) => void]>([
  ['a byte', (_original, copy) => writeFileSync(copy, readFileSync(copy, 'utf8').replace('2030-01-01', '2030-01-02'))],
  ['its end', (_original, copy) => truncateSync(copy, 4000)],
  ['what was appended', (_original, copy) => appendFileSync(copy, readFileSync(copy))],
  ['the end of the other', (original) => truncateSync(original, 4000)],
])('a file that is there twice and differs in %s is named', async (_name, differ) => {
  const name = nameAt(1);
  copyFileSync(inAudit(name), inArchive(name));
  const seq = Number(/\d+/.exec(basename(name))?.[0]);
  expect((await verify('archive')).ok).toBe(true);
  differ(inAudit(name), inArchive(name));
  expect(await verify('archive')).toEqual({ ok: false, records: 0, checkpoints: 0, unkeyed: 0, finding: { seq, what: 'differs', file: inArchive(name) } });
  copyFileSync(inAudit(name), folder.join('second', name));
  rmSync(inAudit(name));
  expect((await verify('archive', 'second')).finding).toMatchObject({ seq, what: 'differs' });
});

test('what was changed in an archive is found as in the folder', async () => {
  for (const name of rotated) move(name);
  const file = inArchive(nameAt(1));
  const lines = readFileSync(file, 'utf8').split('\n');
  writeFileSync(file, lines.with(2, (lines[2] ?? '').replace('2030-01-01', '2030-01-02')).join('\n'));
  expect(await verify('archive')).toMatchObject({ ok: false, finding: { seq: Number(/\d+/.exec(nameAt(1))?.[0]) + 2, what: 'changed', file } });
  writeFileSync(inArchive('nonsense.jsonl'), 'nonsense\n');
  writeFileSync(file, lines.join('\n'));
  expect(await verify('archive')).toMatchObject({ ok: false, finding: { what: 'changed', file: inArchive('nonsense.jsonl') } });
});
