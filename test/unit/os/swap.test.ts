import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { findSwap } from '../../../daemon/src/os/swap.ts';
import { TempFolder } from '../../kit/agent.ts';

const header = 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n';
const row = '/dev/sda2                               partition\t999420\t\t0\t\t-2\n';
const mounts = '24 1 0:22 / /proc rw - proc proc rw\n31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n';
const own = '0::/system.slice/kms-agent.service\n';
const limit = (path: string): string => `sys/fs/cgroup/${path}memory.swap.max`;

/** What findSwap says on a machine whose files are these. */
function findIn(files: Record<string, string>): string[] {
  using root = new TempFolder();
  for (const [path, text] of Object.entries({ 'proc/swaps': header + row, 'proc/self/mountinfo': mounts, 'proc/self/cgroup': own, ...files })) {
    mkdirSync(dirname(root.join(path)), { recursive: true });
    writeFileSync(root.join(path), text);
  }
  return findSwap(root.path);
}

test.each([
  ['no swap at all', { 'proc/swaps': header }, []],
  ['swap, and no limit', {}, ['/dev/sda2']],
  ['swap, and a cgroup that may use some', { [limit('system.slice/kms-agent.service/')]: '4096\n', [limit('system.slice/')]: 'max\n' }, ['/dev/sda2']],
  ['swap, and a cgroup that may not', { [limit('system.slice/kms-agent.service/')]: '0\n' }, []],
  ['swap, and a slice above that may not', { [limit('system.slice/kms-agent.service/')]: 'max\n', [limit('system.slice/')]: '0\n' }, []],
  ['swap, and another unit that may not', { [limit('system.slice/other.service/')]: '0\n' }, ['/dev/sda2']],
  ['swap, and cgroups of version 1', { 'proc/self/mountinfo': '24 1 0:22 / /proc rw - proc proc rw\n', 'proc/self/cgroup': '5:memory:/\n' }, ['/dev/sda2']],
  ['two swap files', { 'proc/swaps': `${header + row}/swapfile                               file\t999420\t\t0\t\t-3\n` }, ['/dev/sda2', '/swapfile']],
])('findSwap: %s', (_name, files, expected) => {
  expect(findIn(files)).toEqual(expected);
});
