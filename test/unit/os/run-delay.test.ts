import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readRunDelay } from '../../../daemon/src/os/run-delay.ts';

const shownMs = (): number => Number(readFileSync('/proc/self/schedstat', 'utf8').split(' ')[1]) / 1e6;

test('readRunDelay: what the kernel shows now, each time', () => {
  for (let look = 0; look < 3; look += 1) {
    const before = shownMs();
    const read = readRunDelay();
    expect(read).toBeGreaterThanOrEqual(before);
    expect(read).toBeLessThanOrEqual(shownMs());
  }
});
