import { renameSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readAll } from '../../../daemon/src/audit/reading.ts';
import { TempFolder } from '../../kit/agent.ts';
import { auditLines, TestAudit } from '../../kit/audit.ts';

test('readAll: a file that is rotated between the look at the folder and its opening is read, and the new one after it', async () => {
  using folder = new TempFolder();
  const path = folder.join('audit');
  using kept = new TestAudit(path);
  await kept.fill(20);
  const lines = auditLines(path);
  const write = (name: string, some: string[]): void => writeFileSync(folder.join('audit', name), some.map((line) => `${line}\n`).join(''));
  write('audit.jsonl', lines.slice(0, 10));
  const reading = readAll(path);
  const first = reading.next();
  for (let turn = 0; turn < 100; turn += 1) await Promise.resolve(); // the folder was looked at, and the file is being opened, which takes a turn of the event loop
  renameSync(folder.join('audit', 'audit.jsonl'), folder.join('audit', 'audit-000000000001.jsonl'));
  write('audit.jsonl', lines.slice(10));
  const read = [(await first).value?.line];
  for await (const { line } of reading) read.push(line);
  expect(read).toEqual(lines);
});
