import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { QuietWork } from '../../../daemon/src/metrics/quiet-work.ts';

describe('QuietWork', () => {
  let done = 0;
  let isAsked = false;
  let work: QuietWork;
  beforeEach(() => {
    vi.useFakeTimers();
    [done, isAsked] = [0, false];
    const note = (): void => {
      done += 1;
    };
    work = new QuietWork(note, () => isAsked);
  });
  afterEach(() => {
    work.stop();
    vi.useRealTimers();
  });

  test('is done after a second in which nobody was answered, once', () => {
    work.start();
    for (let second = 0; second < 10; second += 1) {
      work.noteAnswer();
      vi.advanceTimersByTime(1000);
      expect(done).toBe(0);
    }
    vi.advanceTimersByTime(1000);
    expect(done).toBe(1);
    vi.advanceTimersByTime(10_000);
    expect(done).toBe(1);
  });

  test('is not done while a request runs, however long that takes', () => {
    isAsked = true;
    work.start();
    vi.advanceTimersByTime(10_000);
    expect(done).toBe(0);
    isAsked = false;
    vi.advanceTimersByTime(1000);
    expect(done).toBe(1);
  });

  test('is not done in an agent that has not started or is stopping', () => {
    for (let answers = 0; answers < 20_000; answers += 1) work.noteAnswer();
    work.start();
    work.stop();
    vi.advanceTimersByTime(10_000);
    expect(done).toBe(0);
  });
});
