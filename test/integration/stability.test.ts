import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect, test } from 'vitest';
import { repository } from '../kit/agent.ts';
import { readSurfaces, type Surfaces } from '../pages/surfaces.ts';

const read = (path: string): string => readFileSync(join(repository, path), 'utf8');

test('what was promised is offered, and no more is demanded', () => {
  const promised = JSON.parse(read('test/fixtures/surfaces-1.json')) as Surfaces;
  const built = readSurfaces();
  expect(promised.offered.length).toBeGreaterThan(500);
  expect(promised.offered.filter((line) => !built.offered.includes(line))).toEqual([]);
  const offeredBefore = (line: string): boolean => promised.offered.includes(line.split(': ')[0] ?? '');
  expect(built.demanded.filter((line) => offeredBefore(line) && !promised.demanded.includes(line))).toEqual([]);
});

test('protocol/STABILITY.md: every promise names a test that there is', () => {
  const files = new Map(globSync('test/**/*.test.ts', { cwd: repository }).map((path) => [basename(path), read(path)]));
  const rows = [...read('protocol/STABILITY.md').matchAll(/^\| (?!surface|---).* \| (\S+\.test\.ts): (.+) \|$/gm)];
  expect(rows).toHaveLength(read('protocol/STABILITY.md').match(/^\| (?!surface|---)/gm)?.length ?? 0);
  expect(rows.length).toBeGreaterThan(8);
  for (const [row, file = '', name = ''] of rows) expect(files.get(file) ?? '', row).toContain(name);
});
