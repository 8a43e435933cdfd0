import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { expect, test } from 'vitest';
import { openRunDelay } from '../../../daemon/src/os/run-delay.ts';
import { TempFolder } from '../../kit/agent.ts';

/** Keeps this thread ready to run for a while. */
function spend(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

test.skipIf(!existsSync('/proc/self/schedstat'))('openRunDelay: grows while others want every core', async () => {
  const read = openRunDelay();
  const before = read() ?? Number.NaN;
  const others = Array.from({ length: 2 * availableParallelism() }, () => spawn('sh', ['-c', 'while :; do :; done']));
  try {
    await expect
      .poll(
        () => {
          spend(50);
          return (read() ?? Number.NaN) - before;
        },
        { timeout: 30_000 },
      )
      .toBeGreaterThan(1);
  } finally {
    for (const other of others) other.kill('SIGKILL');
  }
});

test('openRunDelay: is opened at once, as later there may be no descriptor left', () => {
  using folder = new TempFolder();
  const path = folder.join('schedstat');
  writeFileSync(path, '5000000 3000000 2\n');
  const read = openRunDelay(path);
  rmSync(path);
  expect(read()).toBe(3);
});

test('openRunDelay: what is not there, no file, no such line, or not counted is not known', () => {
  using folder = new TempFolder();
  mkdirSync(folder.join('folder'));
  writeFileSync(folder.join('other'), 'something else\n');
  writeFileSync(folder.join('uncounted'), '0 0 0\n');
  for (const name of ['missing', 'folder', 'other', 'uncounted']) expect(openRunDelay(folder.join(name))()).toBeUndefined();
});
