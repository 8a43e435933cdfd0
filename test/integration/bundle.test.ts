import { spawnSync } from 'node:child_process';
import { appendFileSync, cpSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { cleanEnv, repository, TempFolder } from '../kit/agent.ts';

const script = join('test', 'setup', 'bundle.js');

function bundle(root: string): { status: number | null; said: string } {
  const { status, stderr } = spawnSync(process.execPath, [join(root, script)], { encoding: 'utf8', env: cleanEnv() });
  return { status, said: stderr };
}

test('programs that are bundled are not bundled again, under an agent that may yet load a part of them', () => {
  expect(bundle(repository)).toEqual({ status: 0, said: '' });
});

test('what is compiled anew is bundled anew', () => {
  using folder = new TempFolder();
  for (const part of ['package.json', 'package-lock.json', 'tsconfig.json', 'protocol', 'client', 'daemon', 'test'])
    cpSync(join(repository, part), folder.join(part), { recursive: true, preserveTimestamps: true });
  symlinkSync(join(repository, 'node_modules'), folder.join('node_modules'));
  expect(bundle(folder.path)).toEqual({ status: 0, said: '' });
  appendFileSync(folder.join('client', 'dist', 'cli', 'main.js'), '\nglobalThis.isChanged = true;\n');
  expect(bundle(folder.path)).toMatchObject({ status: 0, said: expect.stringContaining('bundled client/dist/bundle') as string });
  expect(readFileSync(folder.join('client', 'dist', 'bundle', 'main.js'), 'utf8')).toContain('isChanged');
  expect(bundle(folder.path)).toEqual({ status: 0, said: '' });
});

test.each(['client', 'daemon'])('the package %s is not published with older programs than its sources: npm builds it before', (name) => {
  const { status, stderr } = spawnSync('npm', ['run', 'prepublishOnly', '--prefix', join(repository, name)], { encoding: 'utf8', env: cleanEnv() });
  expect(status, stderr).toBe(0);
});
