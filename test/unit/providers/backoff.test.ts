import { describe, expect, test } from 'vitest';
import { Backoff } from '../../../daemon/src/providers/pkcs11/backoff.ts';
import type { Failure } from '../../../daemon/src/providers/pkcs11/messages.ts';

const away: Failure = { kind: 'noToken', found: 0 };
const other: Failure = { kind: 'otherToken', label: 'hsm', serial: '1', expected: '2' };
const sick: Failure = { kind: 'fault', rv: 'CKR_DEVICE_ERROR', call: 'C_Login' };

/** The waits of so many milliseconds together. */
function waits(backoff: Backoff, failure: Failure, totalMs: number): number[] {
  const all: number[] = [];
  for (let waitedMs = 0; waitedMs < totalMs; waitedMs += all.at(-1) ?? 0) all.push(backoff.next(failure));
  return all;
}

describe('Backoff', () => {
  test('next: a token that is sick is tried again within a second, for ever', () => {
    const all = waits(new Backoff(), sick, 3_600_000);
    expect(all.slice(0, 5)).toEqual([100, 200, 400, 800, 800]);
    expect(Math.max(...all)).toBe(800);
  });

  test.each([
    ['that is not there', away],
    ['in the place of which is another', other],
  ])('next: a token %s is looked for within a second for a minute, then ever less often, at most each ten seconds', (_name, failure) => {
    const backoff = new Backoff();
    expect(Math.max(...waits(backoff, failure, 60_000))).toBe(800);
    expect(backoff.isSlow).toBe(false);
    expect(Array.from({ length: 6 }, () => backoff.next(failure))).toEqual([1600, 3200, 6400, 10_000, 10_000, 10_000]);
    expect(backoff.isSlow).toBe(true);
  });

  test('next: a token that is there again, and sick, is tried within a second', () => {
    const backoff = new Backoff();
    waits(backoff, away, 300_000);
    expect(backoff.next(sick)).toBe(800);
    expect(backoff.isSlow).toBe(false);
  });

  test('next: a module that does not load is left alone for longer', () => {
    expect(new Backoff().next({ kind: 'load', message: '' })).toBe(30_000);
  });
});
