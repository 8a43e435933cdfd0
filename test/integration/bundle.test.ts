import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { cleanEnv, repository, TempFolder } from '../kit/agent.ts';

const script = join('test', 'setup', 'bundle.js');

function bundle(root: string): { status: number | null; said: string } {
  const { status, stderr } = spawnSync(process.execPath, [join(root, script)], { encoding: 'utf8', env: cleanEnv() });
  return { status, said: stderr };
}

/** A copy of what programs are made of. */
let copy: TempFolder;
beforeEach(() => {
  copy = new TempFolder();
  for (const part of ['package.json', 'package-lock.json', 'tsconfig.json', 'protocol', 'client', 'daemon', 'test'])
    cpSync(join(repository, part), copy.join(part), { recursive: true, preserveTimestamps: true });
  symlinkSync(join(repository, 'node_modules'), copy.join('node_modules'));
});
afterEach(() => copy[Symbol.dispose]());

test('programs that are bundled are not bundled again, under an agent that may yet load a part of them', () => {
  expect(bundle(copy.path)).toEqual({ status: 0, said: '' });
});

test('what is compiled anew is bundled anew', () => {
  appendFileSync(copy.join('client', 'dist', 'cli', 'main.js'), '\nglobalThis.isChanged = true;\n');
  expect(bundle(copy.path)).toMatchObject({ status: 0, said: expect.stringContaining('bundled client/dist/bundle') as string });
  expect(readFileSync(copy.join('client', 'dist', 'bundle', 'main.js'), 'utf8')).toContain('isChanged');
  expect(bundle(copy.path)).toEqual({ status: 0, said: '' });
});

test.each([
  ['protocol', 'protocol/src/index.ts', 'protocol/dist/index.js'],
  ['client', 'client/src/cli/main.ts', 'client/dist/bundle/main.js'],
  ['daemon', 'daemon/src/cli/main.ts', 'daemon/dist/bundle/main.js'],
])('the package %s is not published with older programs than its sources: npm builds it before', { timeout: 120_000 }, (name, source, program) => {
  appendFileSync(copy.join(source), '\n(globalThis as { isChanged?: boolean }).isChanged = true;\n');
  const { status, stdout, stderr } = spawnSync('npm', ['run', 'prepublishOnly', '--prefix', copy.join(name)], { encoding: 'utf8', env: cleanEnv() });
  expect(status, stdout + stderr).toBe(0);
  expect(readFileSync(copy.join(program), 'utf8')).toContain('isChanged');
});
