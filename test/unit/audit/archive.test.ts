import { appendFileSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Verification } from '../../../daemon/src/audit/check.ts';
import { type Known, verifyAudit, verifyBeside } from '../../../daemon/src/audit/verify.ts';
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

test('two copies of the file that was written, of different days, which is itself gone: they are one record, and the longer one is read', async () => {
  const whole = readFileSync(inAudit(nameAt(0)));
  const half = whole.subarray(0, whole.indexOf('\n', 4000) + 1);
  rmSync(inAudit(nameAt(0)));
  writeFileSync(inArchive('audit.jsonl'), half);
  writeFileSync(folder.join('second', 'audit.jsonl'), whole);
  expect(await verify('archive', 'second')).toMatchObject({ ok: true, records: total, firstSeq: 1 });
  expect(await verify('second', 'archive')).toMatchObject({ ok: true, records: total, firstSeq: 1 });
  writeFileSync(folder.join('second', 'audit.jsonl'), whole.subarray(0, whole.length - 10)); // in the middle of its last line
  expect(await verify('archive', 'second')).toMatchObject({ ok: false, finding: { seq: Number(/\d+/.exec(nameAt(1))?.[0]) - 1, what: 'dropped' } });
});

test('what is not read for its name is said', async () => {
  renameSync(inAudit(nameAt(1)), inArchive(`${nameAt(1)}.1`));
  for (const own of ['reserve', 'audit.lock']) writeFileSync(inArchive(own), '');
  mkdirSync(folder.join('second', '2029'));
  const { ok, passedOver } = await verify('archive', 'second');
  expect([ok, passedOver]).toEqual([false, [inArchive(`${nameAt(1)}.1`), folder.join('second', '2029')]]);
  expect(await verify()).not.toHaveProperty('passedOver');
});

describe('the first files were moved away, and the agent deleted later ones', () => {
  let first: string;
  let dropped: number;
  beforeEach(async () => {
    folder[Symbol.dispose]();
    folder = new TempFolder();
    kept = new TestAudit(folder.join('audit'), { maxFileBytes: 8000, maxTotalBytes: 24_000, checkpointRecords: 20 }).attach();
    await kept.fill(60);
    for (const name of ['archive', 'second']) mkdirSync(folder.join(name));
    [first = ''] = readdirSync(folder.join('audit')).filter((name) => name.startsWith('audit-'));
    move(first);
    await kept.fill(400);
    kept.audit.close();
    dropped = kept.kept?.droppedSeq ?? 0;
  });

  const linesOf = (file: string): string[] => readFileSync(file, 'utf8').split('\n').slice(0, -1);

  test('the record is whole, and what is not there is said', async () => {
    const firstSeq = linesOf(inArchive(first)).length + 1;
    const unproven = linesOf(inArchive(first)).findLastIndex((line) => line.includes('"checkpoint"'));
    expect(dropped).toBeGreaterThan(firstSeq);
    const live = await verify();
    const together = await verify('archive');
    expect(together).toMatchObject({ ok: true, firstSeq: 1, records: live.records + firstSeq - 1, unkeyed: live.unkeyed });
    expect(together.gaps).toEqual([{ firstSeq, lastSeq: dropped, unproven: firstSeq - 2 - unproven }]);
    expect(together.checkpoints).toBeGreaterThan(live.checkpoints);
  });

  test('what the agent did not delete is missing: a line in the middle of a file, a file of after that', async () => {
    const lines = linesOf(inArchive(first));
    writeFileSync(inArchive(first), `${lines.toSpliced(9, 1).join('\n')}\n`);
    expect(await verify('archive')).toMatchObject({ ok: false, finding: { seq: 10, what: 'dropped' } });
    writeFileSync(inArchive(first), `${lines.join('\n')}\n`);
    const [oldest = ''] = readdirSync(folder.join('audit')).filter((name) => name.startsWith('audit-'));
    renameSync(inAudit(oldest), folder.join('second', oldest));
    expect(await verify('archive')).toMatchObject({ ok: false, finding: { what: 'dropped' } });
  });

  test('a checkpoint behind the gap is proven like any other', async () => {
    const [oldest = ''] = readdirSync(folder.join('audit')).filter((name) => name.startsWith('audit-'));
    const lines = linesOf(inAudit(oldest));
    const forged = lines.map((line) => (line.includes('"checkpoint"') ? line.replace(/"mac":"[0-9a-f]{8}/, '"mac":"00000000') : line));
    writeFileSync(inAudit(oldest), `${forged.join('\n')}\n`);
    expect(await verify('archive')).toMatchObject({ ok: false, finding: { file: inAudit(oldest) } });
  });
});

describe('beside those who move files', () => {
  let looks: number;

  /** Checks the record; at its first line, of each look, something happens to the files. */
  const verifyWhile = async (happens: (look: number) => void, archives = ['archive', 'second']): Promise<Verification> => {
    looks = 0;
    const readKnown = (): Promise<Known> => {
      if (!kept.kept) throw new Error('there was no checkpoint');
      looks += 1;
      const [{ seq, hash, number, droppedSeq }, look] = [kept.kept, looks];
      let isFirst = true;
      const remembered = {
        hash,
        number,
        droppedSeq,
        get seq() {
          if (isFirst) happens(look);
          isFirst = false;
          return seq;
        },
      };
      return Promise.resolve({ startKey: Buffer.from(startKey), remembered });
    };
    return await verifyBeside(folder.join('audit'), { archives: archives.map((name) => folder.join(name)), readKnown });
  };
  const once = (happens: () => void) => (look: number) => {
    if (look === 1) happens();
  };

  test('a file that is moved into the archive meanwhile is read where it is', async () => {
    expect(await verifyWhile(once(() => move(nameAt(2))))).toMatchObject({ ok: true, records: total });
    expect(looks).toBe(2);
  });

  test('a file that is moved from archive to archive meanwhile is no error', async () => {
    move(nameAt(2));
    expect(await verifyWhile(once(() => renameSync(inArchive(nameAt(2)), folder.join('second', nameAt(2)))))).toMatchObject({ ok: true, records: total });
    expect(looks).toBe(2);
  });

  test('a file of which half was copied is read when it is whole', async () => {
    const [name, whole] = [nameAt(2), readFileSync(inAudit(nameAt(2)))];
    writeFileSync(inArchive(name), whole.subarray(0, 4000));
    rmSync(inAudit(name));
    expect(await verifyWhile(once(() => writeFileSync(inArchive(name), whole)))).toMatchObject({ ok: true, records: total });
  });

  test('what the agent deletes meanwhile the vault knows at the next look', async () => {
    const { kept: state } = kept;
    if (!state) throw new Error('there was no checkpoint');
    const after = Number(/\d+/.exec(nameAt(2))?.[0]);
    const happens = once(() => {
      for (const name of rotated.slice(0, 2)) rmSync(inAudit(name));
      kept.kept = { ...state, droppedSeq: after - 1 };
    });
    expect(await verifyWhile(happens, [])).toMatchObject({ ok: true, firstSeq: after });
  });

  test('what is missing is missing at once where nothing moves, and in the end where something always does', async () => {
    rmSync(inAudit(nameAt(2)));
    const missing = { ok: false, finding: { seq: Number(/\d+/.exec(nameAt(2))?.[0]), what: 'dropped' } };
    expect(await verifyWhile(() => undefined)).toMatchObject(missing);
    expect(looks).toBe(1);
    const copy = inArchive(nameAt(0));
    const comeAndGo = (): void => (existsSync(copy) ? rmSync(copy) : copyFileSync(inAudit(nameAt(0)), copy));
    expect(await verifyWhile(comeAndGo)).toMatchObject(missing);
    expect(looks).toBe(10);
  });
});
