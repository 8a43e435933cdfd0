import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
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

test('openRunDelay: what is not there, no file, or no such line is not known', () => {
  using folder = new TempFolder();
  mkdirSync(folder.join('folder'));
  writeFileSync(folder.join('other'), 'something else\n');
  for (const name of ['missing', 'folder', 'other']) expect(openRunDelay(folder.join(name))()).toBeUndefined();
});
