import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { collectKeyObjectsSoon } from '../../../daemon/src/os/garbage.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('many ends of lifetimes: the first is collected at once, those of the next four seconds together', () => {
  const collect = vi.fn();
  for (let end = 0; end < 100; end += 1) {
    collectKeyObjectsSoon(collect);
    vi.advanceTimersByTime(10);
  }
  expect(collect).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(4000);
  expect(collect).toHaveBeenCalledTimes(2);
  vi.advanceTimersByTime(60_000);
  expect(collect).toHaveBeenCalledTimes(2);
  collectKeyObjectsSoon(collect);
  expect(collect).toHaveBeenCalledTimes(3);
});
