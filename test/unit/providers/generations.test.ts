import { expect, test } from 'vitest';
import { Generations } from '../../../daemon/src/providers/software/generations.ts';

test('generations: so many at a time, the others in the order in which they came, ERR_BUSY for too many', async () => {
  const generations = new Generations({ maxGenerations: 2, maxQueuedGenerations: 3 });
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const begin = (number: number): Promise<number> =>
    generations.run(async () => {
      begun.push(number);
      await new Promise<void>((resolve) => ends.push(resolve));
      return number;
    });
  const made = [0, 1, 2, 3, 4].map(begin);
  await expect(begin(5)).rejects.toMatchObject({ code: 'ERR_BUSY', details: { retryAfterMs: 1000 } });
  expect(begun).toEqual([0, 1]);
  for (let ended = 0; ended < 5; ended += 1) {
    ends[ended]?.();
    await made[ended];
    await new Promise((resolve) => setImmediate(resolve));
    expect(begun).toEqual([0, 1, 2, 3, 4].slice(0, Math.min(ended + 3, 5)));
  }
  expect(await Promise.all(made)).toEqual([0, 1, 2, 3, 4]);
});

test('a generation that fails: its place is free again', async () => {
  const generations = new Generations({ maxGenerations: 1, maxQueuedGenerations: 0 });
  await expect(generations.run(() => Promise.reject(new Error('no entropy')))).rejects.toThrow('no entropy');
  expect(await generations.run(() => Promise.resolve('made'))).toBe('made');
});
