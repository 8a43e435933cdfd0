import { mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { walkTo } from '../../../daemon/src/os/trust.ts';
import { TempFolder } from '../../kit/agent.ts';

const folder = new TempFolder();
beforeAll(() => {
  for (const path of ['a', 'b/c']) mkdirSync(folder.join(path), { recursive: true });
  for (const path of ['a/config.json', 'b/config.json']) writeFileSync(folder.join(path), '');
  symlinkSync('../b/c', folder.join('a/link'));
  symlinkSync(folder.join('b/config.json'), folder.join('a/absolute'));
  symlinkSync('link/../config.json', folder.join('a/through'));
  symlinkSync('circle', folder.join('circle'));
  symlinkSync('gone/config.json', folder.join('dangling'));
});
afterAll(() => folder[Symbol.dispose]());

const nothing = (): void => undefined;
const walk = (path: string): string => walkTo(`${folder.path}/${path}`, nothing); // join would take .. away

describe('walkTo', () => {
  test.each(['a/config.json', 'a/../b/config.json', 'a/link/../config.json', 'a/through', 'a/absolute', 'a/./link//', 'a/link/../../a/link'])(
    '%s: goes where the kernel goes',
    (path) => {
      expect(walk(path)).toBe(realpathSync.native(`${folder.path}/${path}`));
      const fromHere = `${relative(process.cwd(), folder.path)}/${path}`;
      expect(walkTo(fromHere, nothing)).toBe(realpathSync.native(fromHere));
    },
  );

  test('visits what stands behind a link and .., and not what stands beside the link', () => {
    const visited: string[] = [];
    walkTo(`${folder.path}/a/link/../config.json`, (place) => visited.push(place));
    const root = realpathSync(folder.path);
    expect(visited).toEqual(expect.arrayContaining([`${root}/a/link`, `${root}/b/c`, `${root}/b/config.json`]));
    expect(visited).not.toContain(`${root}/a/config.json`);
  });

  test('what is not there is ENOENT; a link into nothing, or in circles, is something else', () => {
    expect(() => walk('a/nothing')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => walk('nothing/config.json')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(() => walk('dangling')).toThrow(new TypeError(`${folder.join('dangling')} is a link that leads nowhere: there is no ${folder.join('gone')}`));
    expect(() => walk('circle')).toThrow(/too many links/);
  });
});
