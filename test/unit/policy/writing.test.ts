import { symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { preparePolicy } from '../../../daemon/src/policy/writing.ts';
import { TempFolder } from '../../kit/agent.ts';

const warningsOf = (path: string): string[] => {
  const policy = { statements: [{ effect: 'Allow' as const, principals: [`exe:${path}`], actions: ['use'] }] };
  return preparePolicy(policy, { readsExecutables: true, hostId: () => undefined }).warnings;
};

test.each(
  [
    'awk',
    'gawk',
    'mawk',
    'gawk-5.2',
    'tclsh8.6',
    'ld-linux-x86-64.so.2',
    'ld-2.31.so',
    'ld-musl-x86_64.so.1',
    'busybox',
    'php8.2',
    'R',
    'Rscript',
    'julia',
  ].concat(['python3.11', 'node', 'bash']),
)('exe: of %s is an interpreter', (name) => {
  expect(warningsOf(`/nowhere/${name}`)).toEqual([`exe:/nowhere/${name} is an interpreter: every script that it runs is meant. Use unit: where you can.`]);
});

test.each(['nginx', 'awkward', 'rbash-server', 'ld', 'libfoo.so.2', 'r', 'Renderer'])('exe: of %s is none', (name) => {
  expect(warningsOf(`/nowhere/${name}`)).toEqual([]);
});

test('exe: of a link is what it leads to, over more links, whatever its own name is', () => {
  using folder = new TempFolder();
  writeFileSync(folder.join('mawk'), '');
  writeFileSync(folder.join('server'), '');
  symlinkSync('mawk', folder.join('middle'));
  symlinkSync('middle', folder.join('reports'));
  symlinkSync('server', folder.join('shop'));
  symlinkSync('server', folder.join('python3'));
  expect(warningsOf(folder.join('reports'))).toEqual([expect.stringMatching(/reports is an interpreter \(.*\/mawk\)/)]);
  expect(warningsOf(folder.join('shop'))).toEqual([]);
  expect(warningsOf(folder.join('python3'))).toHaveLength(1); // the link may lead elsewhere tomorrow
});
